from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel

from cxrreport.errors import WeightsError
from cxrreport.evaluation.metrics import Pairs
from cxrreport.evaluation.metrics.chexbert import (
    FINDINGS,
    FIVE,
    CheXbert,
    PairReadings,
    chexbert_f1,
    chexbert_metric,
)
from cxrreport.evaluation.registry import selected_metrics
from cxrreport.evaluation.statistics import PatientBootstrap
from cxrreport.settings import EvaluateSettings

WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "no",
    "small",
    "left",
    "effusion",
    "heart",
    "is",
    "enlarged",
    ".",
]
TINY = {
    "vocab_size": len(WORDS),
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
TEXTS = ["No effusion.", "Small left effusion. Heart is enlarged.", "", "HEART\n\n is   enlarged", "left " * 700]


def published(config: BertConfig) -> dict[str, torch.Tensor]:
    """Random weights under the names of the published file, of version 4 of transformers and DataParallel."""
    torch.manual_seed(1)
    encoder = BertModel(config)
    state = {f"module.bert.{name}": 5 * tensor for name, tensor in encoder.state_dict().items()}
    state["module.bert.embeddings.position_ids"] = torch.arange(config.max_position_embeddings)[None]
    for head in range(14):
        classes = 4 if head < 13 else 2
        state[f"module.linear_heads.{head}.weight"] = torch.randn(classes, config.hidden_size)
        state[f"module.linear_heads.{head}.bias"] = torch.randn(classes)
    return state


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    (tmp_path / "config.json").write_text(json.dumps(TINY))
    torch.save({"epoch": 1, "model_state_dict": published(BertConfig(**TINY))}, tmp_path / "chexbert.pth")
    return tmp_path


def test_labels_are_the_heads_output_at_the_first_token(folder: Path) -> None:
    state = torch.load(folder / "chexbert.pth", weights_only=True)["model_state_dict"]
    encoder = BertModel(BertConfig(**TINY)).eval()
    prefix = "module.bert."
    encoder.load_state_dict({name.removeprefix(prefix): t for name, t in state.items() if prefix in name}, strict=False)
    ids = [[2, 5, 8, 12, 3], [2, 6, 7, 8, 12, 9, 10, 11, 12, 3], [2, 3], [2, 9, 10, 11, 3], [2, *[7] * 510, 3]]
    found, _ = CheXbert(folder).read(TEXTS)
    for row, one in zip(found, ids, strict=True):
        with torch.no_grad():
            first = encoder(torch.tensor([one]))[0][0, 0]
        heads = [
            int((first @ state[f"module.linear_heads.{n}.weight"].T + state[f"module.linear_heads.{n}.bias"]).argmax())
            for n in range(14)
        ]
        assert row.tolist() == [one in (1, 3) for one in heads]
    assert found.any() and not found.all()


def test_the_size_of_the_published_weights() -> None:
    state = published(BertConfig())
    assert state["module.bert.embeddings.word_embeddings.weight"].shape == (30522, 768)
    assert len(FINDINGS) == 14 and set(FIVE) < set(FINDINGS) and FINDINGS[-1] == "No Finding"


def test_f1_is_scikit_learns() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    written, wanted = rng.random((40, 14)) < 0.3, rng.random((40, 14)) < 0.4
    written[:, 3] = wanted[:, 3] = False
    found = chexbert_f1(written, wanted)
    five = [FINDINGS.index(name) for name in FIVE]
    for average in ("micro", "macro"):
        for columns, count in ((slice(None), 14), (five, 5)):
            expected = metrics.f1_score(wanted[:, columns], written[:, columns], average=average, zero_division=0)
            assert found[f"chexbert_{average}_{count}"].value == pytest.approx(expected)
    chosen_rows = np.random.default_rng(7).integers(0, 40, 40)
    bootstrap = PatientBootstrap([f"{n:02}" for n in range(40)], samples=1, seed=7)
    expected = metrics.f1_score(wanted[chosen_rows], written[chosen_rows], average="macro", zero_division=0)
    assert bootstrap.interval(found["chexbert_macro_14"]).low == pytest.approx(expected)


def test_missing_weights_are_named_with_the_way_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(
        WeightsError, match=r"chexbert\.pth, .*vocab\.txt.*weights chexbert.*StanfordAIMI/RRG_scorers"
    ) as error:
        selected_metrics(
            EvaluateSettings(predictions=".", references=".", output=".", metrics=("chexbert",), chexbert=tmp_path), ()
        )
    assert str(tmp_path / "chexbert.pth") in str(error.value)


def test_weights_that_do_not_fit_or_are_no_tensors(folder: Path) -> None:
    for lacking in ("linear_heads.13.bias", "bert.encoder.layer.1.output.dense.bias"):
        state = published(BertConfig(**TINY))
        del state[f"module.{lacking}"]
        torch.save({"model_state_dict": state}, folder / "chexbert.pth")
        with pytest.raises(WeightsError, match="not CheXbert weights"):
            CheXbert(folder)
    wider = published(BertConfig(**{**TINY, "intermediate_size": 48}))
    torch.save({"model_state_dict": wider}, folder / "chexbert.pth")
    with pytest.raises(WeightsError, match="not CheXbert weights"):
        CheXbert(folder)
    (folder / "chexbert.pth").write_bytes(pickle.dumps(Path("x")))
    with pytest.raises(WeightsError, match="tensors only"):
        CheXbert(folder)


def test_f1_and_sembscore_share_one_pass(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    studies = [str(number) for number in range(len(TEXTS))]
    pairs = Pairs(
        references=dict(zip(studies, TEXTS, strict=True)),
        candidates=dict(zip(studies, [*TEXTS[1:], TEXTS[0]], strict=True)),
    )
    chosen = EvaluateSettings(predictions=Path(), references=Path(), output=Path(), chexbert=folder)
    positive, vectors = CheXbert(folder).read(TEXTS)
    metric, readings = chexbert_metric(chosen, tmp_path / "cache"), PairReadings(chosen, tmp_path / "cache")
    found = metric(pairs)
    expected = chexbert_f1(np.roll(positive, -1, axis=0), positive)
    assert {name: one.value for name, one in found.items()} == {name: one.value for name, one in expected.items()}
    monkeypatch.setattr(CheXbert, "read", None)  # what the first has read is enough for the other
    norms = np.linalg.norm(vectors, axis=1)
    cosines = (vectors * np.roll(vectors, -1, axis=0)).sum(axis=1) / (norms * np.roll(norms, -1))
    assert readings.cosines(pairs) == pytest.approx(cosines, abs=1e-6)
