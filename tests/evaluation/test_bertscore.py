from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from encoders import TEXTS, random_encoder, shipped
from transformers import AutoTokenizer

from cxrreport.errors import WeightsError
from cxrreport.evaluation.metrics import Pairs
from cxrreport.evaluation.metrics.bertscore import RADEVAL, REXRANK, BertScore, bertscore_metric
from cxrreport.evaluation.metrics.encoder import LoadedEncoder
from cxrreport.settings import EvaluateSettings

CANDIDATES = [TEXTS[(place + 1) % len(TEXTS)] for place in range(len(TEXTS) - 1)] + [TEXTS[-1]]


def pairs(candidates: list[str], references: list[str]) -> Pairs:
    studies = [str(number) for number in range(len(references))]
    return Pairs(
        references=dict(zip(studies, references, strict=True)), candidates=dict(zip(studies, candidates, strict=True))
    )


@pytest.fixture(params=["shipped", "Roberta", "Bert"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return shipped() if request.param == "shipped" else random_encoder(tmp_path / "encoder", request.param)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """The package's own F, with the baseline of `REXRANK`."""
    bert_score = pytest.importorskip("bert_score")
    rows = "\n".join(f"{layer},0.1,0.1,{REXRANK.baseline}" for layer in range(7))
    (tmp_path / "baseline.tsv").write_text(f"LAYER,P,R,F\n{rows}\n")

    # transformers 5 ignores the space that the package asks for before the first word of a byte-level tokenizer.
    monkeypatch.setattr(
        "bert_score.scorer.get_tokenizer",
        lambda folder, _: AutoTokenizer.from_pretrained(folder, add_prefix_space=True),
    )

    def score(folder: Path, candidates: list[str], references: list[str], *, idf: bool) -> Any:
        scorer = bert_score.BERTScorer(
            model_type=str(folder),
            num_layers=REXRANK.layers,
            nthreads=0,
            idf=idf,
            idf_sents=[" ".join(text.split()) for text in references] if idf else None,
            lang="en",
            rescale_with_baseline=True,
            baseline_path=str(tmp_path / "baseline.tsv"),
        )
        # CXR-Report-Metric removes repeated spaces first.
        sides = ([" ".join(text.split()) for text in side] for side in (candidates, references))
        return scorer.score(*sides)[2].tolist()

    return score


@pytest.mark.stock("bert-score", "transformers")
def test_scores_are_those_of_the_package(folder: Path, package: Callable[..., Any]) -> None:
    found = BertScore(REXRANK, folder, None)(pairs(CANDIDATES, list(TEXTS)))
    for column, idf in enumerate((False, True)):
        expected = package(folder, CANDIDATES, list(TEXTS), idf=idf)
        assert found[:, column].tolist() == pytest.approx(expected, abs=2e-5)
    assert found[-1].tolist() == pytest.approx([1.0, 1.0], abs=1e-5)


def test_the_first_word_is_read_like_the_others(tmp_path: Path) -> None:
    encoder = LoadedEncoder(random_encoder(tmp_path / "encoder", "Roberta"))
    assert encoder.ids("No") == encoder.ids(" No") == encoder.tokenizer(" No")["input_ids"]
    assert len(encoder.ids("No")) == 2 + len(" No")
    assert len(encoder.ids("No " * 100)) == 64


def test_an_empty_candidate_has_a_raw_score_of_zero(tmp_path: Path) -> None:
    folder = random_encoder(tmp_path / "encoder", "Bert")
    found = BertScore(REXRANK, folder, None)(pairs(["", TEXTS[0]], [TEXTS[0], TEXTS[0]]))
    assert found[0].tolist() == pytest.approx([-REXRANK.baseline / (1 - REXRANK.baseline)] * 2)
    # All references are equal, so every token of theirs is in all documents and has no weight.
    assert found[1].tolist() == pytest.approx([1.0, -REXRANK.baseline / (1 - REXRANK.baseline)], abs=1e-5)


def test_a_pair_is_computed_once_and_kept_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, cache = random_encoder(tmp_path / "encoder", "Bert"), tmp_path / "cache.sqlite"
    systems = [pairs(CANDIDATES, list(TEXTS)), pairs(list(TEXTS), list(TEXTS))]
    score = BertScore(REXRANK, folder, cache)
    score.prepare(systems)
    first = [score(one).tolist() for one in systems]

    again = BertScore(REXRANK, folder, cache)
    monkeypatch.setattr(BertScore, "_load", lambda *_: pytest.fail("the model was loaded again"))
    assert [again(one).tolist() for one in systems] == first
    assert TEXTS[0].encode() not in cache.read_bytes()
    other = pairs(CANDIDATES[:3], list(TEXTS[:3]))  # inverse document frequencies depend on all references
    with pytest.raises(pytest.fail.Exception):
        again(other)


def test_conditions_name_encoder_layer_and_weights(tmp_path: Path) -> None:
    settings = EvaluateSettings(predictions="p", references="r", output="o", encoders=tmp_path)
    for name, convention in (("bertscore", REXRANK), ("bertscore_radeval", RADEVAL)):
        random_encoder(tmp_path / convention.encoder.folder, "Bert", seed=len(name))
    one, other = (
        bertscore_metric(name, convention, settings, None)
        for name, convention in (("bertscore", REXRANK), ("bertscore_radeval", RADEVAL))
    )
    assert one.conditions["bertscore"] == "distilbert/distilroberta-base, layer 5, F, rescaled by 0.8473319"
    assert one.conditions.keys() == other.conditions.keys()
    assert all(one.conditions[name] != other.conditions[name] for name in ("bertscore", "weights_sha256"))
    assert one(pairs(list(TEXTS), list(TEXTS)))["bertscore"].value == pytest.approx(1, abs=1e-5)


def test_missing_weights_are_named_with_the_way_to_get_them(tmp_path: Path) -> None:
    settings = EvaluateSettings(predictions="p", references="r", output="o", encoders=tmp_path)
    with pytest.raises(WeightsError, match=r"distilroberta-base was not found: missing config.*weights bertscore "):
        bertscore_metric("bertscore", REXRANK, settings, None)
    with pytest.raises(WeightsError, match="no folder"):
        bertscore_metric("bertscore", REXRANK, settings.model_copy(update={"encoders": None}), None)


@pytest.mark.parametrize("broken", ["layers", "pickle", "tensors"])
def test_weights_that_do_not_fit_or_are_not_safe_are_refused(tmp_path: Path, broken: str) -> None:
    import pickle

    folder = random_encoder(tmp_path / "encoder", "Bert")
    convention = REXRANK
    if broken == "layers":
        convention = replace(REXRANK, layers=7)
    elif broken == "pickle":
        (folder / "model.safetensors").unlink()
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"x": Path("/")}))
    else:
        (folder / "model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(WeightsError, match=r"encoder: not an encoder that can be used .*download it again"):
        BertScore(convention, folder, None)(pairs([TEXTS[0]], [TEXTS[1]]))
    shutil.rmtree(folder)
