from __future__ import annotations

import pytest
import torch

from cxrreport.evaluation.radgraph.batched_model import ROWS, TEXTS, TOLERANCE, _pack, _Scores, batches

pytestmark = pytest.mark.stock("radgraph", "torch")


def scores(*, label: float = 1.0, kept: float = 1.0, relation: float = 1.0) -> _Scores:
    """Three spans, two of them kept; each argument is the least margin of its kind, as part of the largest score."""
    return _Scores(
        labels=torch.tensor([[0.0, 5.0], [0.0, 5 * label], [0.0, -5.0]]),
        spans=torch.tensor([[0, 0], [1, 1], [2, 2]]),
        kept=torch.tensor([4.0, 2.0, 2.0 - 4 * kept]),
        relations=torch.tensor([[[0.0, -3.0], [0.0, 3 * relation]], [[0.0, -3.0], [0.0, -3.0]]]),
        ends=torch.tensor([[0, 0], [1, 1]]),
    )


def test_a_report_is_read_again_where_any_decision_is_near() -> None:
    assert scores().sure()
    near, far = TOLERANCE / 2, TOLERANCE * 4
    for kind in ("label", "kept", "relation"):
        assert not scores(**{kind: near}).sure(), kind
        assert scores(**{kind: far}).sure(), kind


def test_batches_hold_every_text_once_within_the_limits() -> None:
    lengths = [(7 * n) % 300 + 1 for n in range(500)] + [5000]
    found = list(batches(lengths))
    assert sorted(number for batch in found for number in batch) == list(range(501))
    for batch in found:
        longest = max(lengths[number] for number in batch)
        assert len(batch) <= TEXTS and (len(batch) == 1 or len(batch) * longest <= ROWS)
    assert list(batches([])) == []


def test_packed_layers_round_differently_and_unpack_to_the_layer() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(64, 48), torch.nn.ReLU(), torch.nn.Linear(48, 8))
    given = torch.randn(3, 7, 64)
    with torch.inference_mode():
        wanted = model(given)
        packed = _pack(model)
        assert len(packed) == 2 * torch.backends.mkldnn.is_available()
        assert torch.equal(model(given), wanted)
        for layer in packed:
            layer.batched = True
        assert torch.allclose(model(given), wanted, atol=1e-6)
