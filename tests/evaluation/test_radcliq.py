from __future__ import annotations

import json
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from encoders import TEXTS, random_encoder
from transformers import BertConfig, BertModel

from cxrreport.assets import radgraph_folder
from cxrreport.doctor import State, examine_metrics
from cxrreport.errors import WeightsError
from cxrreport.evaluation.metrics import Pairs
from cxrreport.evaluation.metrics.radcliq import EXPECTED, bleu2, inverse_mean, radcliq_metric, radcliq_v1
from cxrreport.evaluation.radgraph import rexrank
from cxrreport.evaluation.radgraph.annotator import RadGraphAnnotator
from cxrreport.settings import EvaluateSettings

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "no", "effusion", "left", "heart", ".", "pleural"]
SIZES = {
    "vocab_size": len(WORDS),
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
STUDIES = [str(number) for number in range(len(TEXTS))]
PAIRS = Pairs(
    references=dict(zip(STUDIES, TEXTS, strict=True)),
    candidates=dict(zip(STUDIES, ["", *TEXTS[:2], TEXTS[3], TEXTS[0], TEXTS[5]], strict=True)),
)


def small_chexbert(folder: Path) -> BertModel:
    """CheXbert's files with random weights of a small size; returns the encoder."""
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    (folder / "config.json").write_text(json.dumps(SIZES))
    torch.manual_seed(3)
    encoder = BertModel(BertConfig(**SIZES)).eval()
    state = {f"module.bert.{name}": 9 * tensor for name, tensor in encoder.state_dict().items()}
    for head in range(14):
        state[f"module.linear_heads.{head}.weight"] = torch.randn(4 if head < 13 else 2, 16)
        state[f"module.linear_heads.{head}.bias"] = torch.randn(4 if head < 13 else 2)
    torch.save({"model_state_dict": state}, folder / "chexbert.pth")
    encoder.load_state_dict(
        {name.removeprefix("module.bert."): tensor for name, tensor in state.items() if "bert." in name}
    )
    return encoder


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "weights"
    random_encoder(root / "distilroberta-base", "Bert")
    small_chexbert(root / "chexbert")
    shutil.copytree(radgraph_folder(), root / "radgraph")
    monkeypatch.setenv("CXRREPORT_WEIGHTS", str(root))
    return root


def settings() -> EvaluateSettings:
    return EvaluateSettings(predictions=Path(), references=Path(), output=Path())


def test_the_combination_is_that_of_the_published_model() -> None:
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    scaler = preprocessing.StandardScaler()
    scaler.mean_ = np.array([0.53792312, 0.61757256, 0.76479421, 0.44738335])
    scaler.scale_ = np.array([0.30282584, 0.22430938, 0.25394391, 0.29892717])
    scaler.var_, scaler.n_features_in_ = scaler.scale_**2, 4
    parts = np.random.default_rng(0).random((5, 4))
    weights = np.array([-3.77083683e-01, -3.70300100e-01, -2.52616218e-01, 4.31504841e-12, 2.46655256e-10])
    expected = np.column_stack([scaler.transform(parts), np.ones(5)]) @ weights
    assert radcliq_v1(*parts.T).tolist() == pytest.approx(expected.tolist())
    assert radcliq_v1(*np.ones((4, 1)))[0] < 0 < radcliq_v1(*np.zeros((4, 1)))[0]


@pytest.mark.parametrize(
    ("candidate", "reference"),
    [
        *((candidate, reference) for candidate, reference, _ in EXPECTED),
        *pairwise(TEXTS),
        ("no", "no"),
    ],
)
def test_bleu2_is_nltks_with_smoothing_1(candidate: str, reference: str) -> None:
    translate = pytest.importorskip("nltk.translate.bleu_score")
    one, other = (text.lower().replace(".", " .").split() for text in (candidate, reference))
    smoothed = translate.SmoothingFunction().method1
    expected = translate.sentence_bleu([other], one, weights=(0.5, 0.5), smoothing_function=smoothed)
    assert bleu2(candidate, reference) == pytest.approx(expected)
    assert bleu2("", reference) == 0.0


def test_parts_and_combination_of_pairs(weights: Path, tmp_path: Path) -> None:
    metric = radcliq_metric(settings(), tmp_path / "cache.sqlite")
    assert metric.prepare is not None
    metric.prepare([PAIRS, Pairs(references=PAIRS.references, candidates=PAIRS.references)])
    found = metric(PAIRS)
    annotator = RadGraphAnnotator(weights / "radgraph")
    graphs = [annotator.annotate(side.values()) for side in (PAIRS.candidates, PAIRS.references)]
    expected = [rexrank(one, other, lower_case=False).f1 for one, other in zip(*graphs, strict=True)]
    assert found["radcliq_radgraph"].values.tolist() == [0.0, *expected[1:]]
    assert found["semb_score"].values[2] < 0.999 and found["semb_score"].values[-1] == pytest.approx(1)
    parts = ("radcliq_radgraph", "radcliq_bertscore", "semb_score", "radcliq_bleu2")
    combined = radcliq_v1(*(found[name].values for name in parts))
    assert next(iter(found)) == "radcliq_v1"
    assert found["radcliq_v1"].values.tolist() == combined.tolist()
    assert found["inverse_radcliq_v1"].value == pytest.approx(1 / combined.mean())
    assert not np.allclose(found["radcliq_v1_radeval"].values, combined)
    twice = np.array([[2.0, 0, 0, 0, 1, 0]])
    assert found["inverse_radcliq_v1"].weighted(twice) == pytest.approx(3 / (2 * combined[0] + combined[4]))
    assert metric.synthetic
    assert {"radcliq", "radgraph_sha256", "chexbert_sha256", "bertscore", "weights_sha256"} == metric.conditions.keys()


def test_semb_score_is_the_cosine_of_the_first_token(tmp_path: Path, weights: Path) -> None:
    encoder = small_chexbert(tmp_path / "again")
    with torch.no_grad():
        one, other = (encoder(torch.tensor([ids]))[0][0, 0] for ids in ([2, 5, 10, 6, 9, 3], [2, 7, 10, 6, 9, 3]))
    pairs = Pairs(references={"1": "No pleural effusion."}, candidates={"1": "left PLEURAL  effusion."})
    found = radcliq_metric(settings(), None)(pairs)["semb_score"].values[0]
    assert found == pytest.approx(float(torch.cosine_similarity(one, other, dim=0)), abs=1e-6) and found < 0.99


@pytest.mark.parametrize("part", ["distilroberta-base", "chexbert", "radgraph"])
def test_each_missing_part_is_named(weights: Path, part: str) -> None:
    shutil.rmtree(weights / part)
    with pytest.raises(WeightsError, match=part.split("-")[0]):
        radcliq_metric(settings(), None)


def test_several_missing_parts_are_one_command(weights: Path) -> None:
    shutil.rmtree(weights / "chexbert")
    shutil.rmtree(weights / "radgraph")
    with pytest.raises(
        WeightsError,
        match=f"^RadCliQ-v1 lacks the weights chexbert, radgraph.*weights chexbert radgraph --weights {weights}`",
    ):
        radcliq_metric(settings(), None)


def test_the_inverse_of_the_mean() -> None:
    assert inverse_mean(np.array([[2.0, 4.0], [0.0, 2.0]])).tolist() == [2.0, np.inf]


def test_doctor_compares_with_the_published_values(weights: Path) -> None:
    (check,) = examine_metrics()
    assert check.state is State.FAIL  # the weights are random
    assert "(expected 0.8346)" in check.detail and "(expected 0.3987)" in check.detail
    shutil.rmtree(weights / "chexbert")
    (check,) = examine_metrics()
    assert check.state is State.NOTE and "chexbert.pth" in check.remedy
