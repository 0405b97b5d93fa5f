"""Several sampled reports of a study: shared prompts, and the selection of one of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from cxrreport.inference.decoding import Engine, Generated, Request
from cxrreport.inference.decoding.forward import ForwardPasses
from cxrreport.inference.selection import consensus, most_likely
from cxrreport.settings import GenerateSettings, Greedy, Sampling

SAMPLES = 5


@pytest.fixture(scope="module")
def requests(studies_and_images) -> list[Request]:
    """Several samples of each study, of which two have the same image and prompt."""
    ones = [
        Request(study_id=study.study_id, images=(image,), report=study.report)
        for study, image in studies_and_images[:4]
    ]
    ones.append(replace(ones[0], study_id="another"))
    return [replace(one, sample=sample) for one in ones for sample in range(SAMPLES)]


def engine(loaded, layout, *, batch_size: int) -> Engine:
    return Engine(loaded, layout, batch_size=batch_size, max_new_tokens=12, decoding=Sampling(), seed=3)


@pytest.mark.parametrize("slots", [1, 2, 3, 8, 64])
def test_samples_equal_those_with_separately_read_prompts(loaded, layout, requests, slots) -> None:
    alone = [engine(loaded, layout, batch_size=1).generate([request])[0] for request in requests]
    together = engine(loaded, layout, batch_size=slots).generate(requests)
    assert [one.ids for one in together] == [one.ids for one in alone]
    np.testing.assert_allclose(
        [one.mean_logprob for one in together], [one.mean_logprob for one in alone], rtol=1e-4, atol=1e-5
    )
    assert len({one.ids for one in together[:SAMPLES]}) > 1
    first = Engine(loaded, layout, batch_size=4, max_new_tokens=12, decoding=Sampling(), seed=3).generate(
        [replace(request, sample=0) for request in requests[::SAMPLES]]
    )
    assert [one.ids for one in first] == [one.ids for one in together[::SAMPLES]]


@pytest.mark.parametrize("slots", [2, 8, 64])
def test_a_prompt_is_read_once_for_all_samples(loaded, layout, requests, slots, monkeypatch) -> None:
    read: list[str] = []
    original = ForwardPasses.read_prompts

    def reading(self, prompts, cache, *, first):
        read.extend(one.prompt + one.image_sha256[0] for one in prompts)
        return original(self, prompts, cache, first=first)

    monkeypatch.setattr(ForwardPasses, "read_prompts", reading)
    engine(loaded, layout, batch_size=slots).generate(requests)
    distinct = len({(request.images[0].tobytes(), layout.prefix(request.report)) for request in requests})
    # With two slots, both samples of a study may end in one step, and the next ones read the prompt again.
    assert len(set(read)) == distinct and len(read) <= distinct + (4 if slots == 2 else 0)


def generated(text: str, mean_logprob: float) -> Generated:
    return Generated(
        study_id="s", prompt="", image_sha256=(), ids=(1,), text=text, mean_logprob=mean_logprob, min_logprob=-9.0,
        finished=True,
    )  # fmt: skip


def test_the_consensus_agrees_most_with_the_others() -> None:
    samples = [generated(text, logprob) for text, logprob in [("a", -0.1), ("b", -0.9), ("b c", -0.5)]]
    similarity = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.8], [0.0, 0.8, 1.0]])
    assert consensus(similarity, samples) == (2, pytest.approx(0.4))  # the likelier of two equals
    assert most_likely(samples) == 0
    assert (similarity.diagonal() == 1).all()


class Words:
    """Share of common words."""

    def __init__(self) -> None:
        self.conditions = {"measure": "words"}

    def __call__(self, groups):
        found = []
        for group in groups:
            words = [set(text.split()) for text in group]
            found.append(np.array([[len(a & b) / max(1, len(a | b)) for b in words] for a in words]))
        return found


@pytest.mark.parametrize("select", ["consensus", "likelihood"])
def test_generate_keeps_one_sample_of_each_study(
    loaded, layout, make_studies, generate_into, tmp_path: Path, select
) -> None:
    settings = GenerateSettings(
        input=Path("data"), output=tmp_path / "out", batch_size=4, shard_size=5, max_new_tokens=12, samples=3,
        select=select, abstain_by="agreement" if select == "consensus" else "logprob",
        abstain_below=0.5 if select == "consensus" else -1e-9,
    )  # fmt: skip
    assert settings.decoding == Sampling()
    similarity = Words() if select == "consensus" else None
    summary = generate_into(settings, make_studies(20), loaded, layout, similarity=similarity)
    rows = pq.read_table(tmp_path / "out" / "predictions.parquet").to_pylist()
    assert summary.predictions == len(rows) == 18
    alone = Engine(loaded, layout, batch_size=8, max_new_tokens=12, decoding=Sampling(), seed=0)
    studies = make_studies(20)
    for row in rows[:6]:
        study = next(one for one in studies.studies() if one.study_id == row["study_id"])
        request = Request(study_id=study.study_id, images=(studies.image(study.image_ids[0]),), report=study.report)
        samples = alone.generate([replace(request, sample=sample) for sample in range(3)])
        if select == "likelihood":
            assert row["text"] == max(samples, key=lambda one: one.mean_logprob).text and row["agreement"] is None
        else:
            texts = [" ".join(filter(None, layout.parse(one.text))) for one in samples]
            index, agreement = consensus(Words()([texts])[0], samples)
            assert (row["text"], row["agreement"]) == (samples[index].text, pytest.approx(agreement))
            assert row["abstained"] == (agreement < 0.5)


@pytest.mark.parametrize(
    "changes",
    [
        {"samples": 2, "decoding": Greedy()},
        {"samples": 2, "prompts": ("caption en",)},
        {"samples": 2, "baseline": "nearest"},
        {"abstain_by": "agreement", "abstain_below": 0.5},
        {"samples": 2, "select": "likelihood", "abstain_by": "agreement", "abstain_below": 0.5},
        {"abstain_below": 0.5},
    ],
)
def test_settings_that_contradict_each_other(changes) -> None:
    with pytest.raises(ValidationError, match=r"samples|abstain_below"):
        GenerateSettings(input=Path("data"), output=Path("out"), **changes)
