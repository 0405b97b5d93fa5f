"""Analyses beside the scores: findings, subgroups, confidence, plots."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cxrreport.evaluation import clinical, subgroups
from cxrreport.evaluation.clinical import Finding
from cxrreport.evaluation.evaluate import evaluate
from cxrreport.evaluation.metrics import Pairs
from cxrreport.evaluation.radgraph import Annotation
from cxrreport.evaluation.statistics import PatientBootstrap, mean, risk_coverage
from cxrreport.settings import EvaluateSettings

SMALL_LEFT = "Small/O>effusion left/A>pleural pleural/A effusion/O@pleural ."
LARGE_RIGHT = "Large/O>effusion right/A>pleural pleural/A effusion/O@pleural ."
DOUBTFUL = "Left/A>pleural pleural/A effusion/U@pleural may be there ."
NONE = "No pleural/A effusion/N@pleural ."
STABLE = "Stable/O>cardiomegaly cardiomegaly/O ."
HEART = "Cardiomegaly/O ."


@pytest.fixture
def pairs_of(graph_of: Callable[[str], Annotation]) -> Callable[..., Pairs]:
    """Pairs of reports given as templates: (reference, candidate), each one sentence."""

    def made(*reports: tuple[str, str]) -> Pairs:
        sides: list[dict[str, str]] = [{}, {}]
        graphs: list[dict[str, Annotation]] = [{}, {}]
        for number, report in enumerate(reports):
            for side, template in enumerate(report):
                graph = graph_of(template) if template else Annotation((), ())
                graphs[side][f"s{number}"] = graph
                sides[side][f"s{number}"] = " ".join(graph.tokens)
        return Pairs(references=sides[0], candidates=sides[1], reference_graphs=graphs[0], candidate_graphs=graphs[1])

    return made


def test_errors_by_clinical_weight(pairs_of: Callable[..., Pairs]) -> None:
    pneumothorax = "Small/O>pneumothorax pneumothorax/O ."
    found = clinical.severity_metric(None).score(
        pairs_of((SMALL_LEFT, LARGE_RIGHT), (pneumothorax, ""), (HEART, pneumothorax), (NONE, NONE))
    )
    # A wrong side and grade of an effusion; a missed pneumothorax; a hallucinated one, and a missed heart.
    assert {name: one.values.tolist() for name, one in found.items()} == {
        "actionable_errors": [1, 1, 1, 0],
        "urgent_errors": [0, 1, 1, 0],
        "minor_errors": [1, 0, 1, 0],
    }


def test_numbers_of_a_metric(pairs_of: Callable[..., Pairs]) -> None:
    found = clinical.METRIC.score(
        pairs_of((SMALL_LEFT, SMALL_LEFT), (SMALL_LEFT, LARGE_RIGHT), (DOUBTFUL, NONE), (HEART, STABLE), (HEART, ""))
    )
    # Three agreements (two effusions, one heart), two omissions (the doubtful one and a heart), nothing hallucinated.
    assert found["findings_f1"].value == pytest.approx(6 / 8)
    assert found["findings_f1"].values.tolist() == [1, 1, 0, 1, 0]
    assert found["findings_macro_f1"].value == pytest.approx((4 / 5 + 2 / 3) / 2)
    assert found["omitted_findings"].value == pytest.approx(2 / 5)
    assert found["hallucinated_findings"].value == 0
    assert found["findings_laterality"].value == pytest.approx(1 / 2)
    assert found["findings_severity"].value == pytest.approx(1 / 2)
    assert found["findings_certainty"].value == 1
    assert found["mentions_of_priors"].value == found["hallucinated_priors"].value == pytest.approx(1 / 5)


def test_a_prior_that_the_reference_mentions_is_not_hallucinated(pairs_of: Callable[..., Pairs]) -> None:
    found = clinical.METRIC.score(pairs_of((STABLE, STABLE), (HEART, STABLE)))
    assert found["mentions_of_priors"].value == 1
    assert found["hallucinated_priors"].value == pytest.approx(1 / 2)


def test_contradictions_are_counted_in_the_candidate_only(pairs_of: Callable[..., Pairs]) -> None:
    both = "No effusions/N . Effusion/O ."
    assert clinical.METRIC.score(pairs_of((both, HEART)))["contradictions"].value == 0
    assert clinical.METRIC.score(pairs_of((HEART, both)))["contradictions"].value == 1


def test_sides_are_compared_between_sections_only_where_they_are_known(pairs_of: Callable[..., Pairs]) -> None:
    text = "Left/A effusion/O@left . Right/A effusions/O@right ."
    pairs = pairs_of((HEART, text))
    assert clinical.METRIC.score(pairs)["contradictions"].value == 0
    known = Pairs(
        references=pairs.references,
        candidates=pairs.candidates,
        reference_graphs=pairs.reference_graphs,
        candidate_graphs=pairs.candidate_graphs,
        candidate_findings={"s0": "Left effusion."},
    )
    assert clinical.METRIC.score(known)["contradictions"].value == 1


def test_each_finding_has_its_own_line(pairs_of: Callable[..., Pairs], tmp_path: Path) -> None:
    pairs = pairs_of((SMALL_LEFT, LARGE_RIGHT), (NONE, NONE), (NONE, DOUBTFUL), (HEART, HEART))
    compared = clinical.compare(pairs)
    table = clinical.by_finding(compared, PatientBootstrap(["a", "b", "c", "d"], samples=50, seed=0))
    effusion = table["Pleural Effusion"]
    assert (effusion["agreed"], effusion["omitted"], effusion["hallucinated"]) == (1, 0, 1)
    assert effusion["presence_f1"].value == pytest.approx(2 / 3)
    assert effusion["absence_f1"].value == pytest.approx(2 / 3)
    assert effusion["laterality"].value == 0 and effusion["severity"].value == 0 and effusion["certainty"].value == 1
    assert math.isnan(table["Fracture"]["presence_f1"].value)
    assert list(table) == list(Finding)
    clinical.write_findings(tmp_path / "findings.parquet", {"model": compared})
    rows = pq.read_table(tmp_path / "findings.parquet").to_pylist()
    by = {(row["study_id"], row["finding"]): row for row in rows}
    assert by["s0", "Pleural Effusion"] == {
        "study_id": "s0",
        "system": "model",
        "finding": "Pleural Effusion",
        "reference": "present",
        "reference_side": "left",
        "reference_severity": "mild",
        "candidate": "present",
        "candidate_side": "right",
        "candidate_severity": "severe",
        "error": "",
        "contradiction": "",
    }
    assert by["s2", "Pleural Effusion"]["error"] == "hallucinated"
    assert by["s2", "No Finding"]["error"] == ""  # it follows from the others
    assert ("s3", "Pleural Effusion") not in by


def test_risk_over_coverage() -> None:
    confidence = np.array([-0.1, -0.2, -0.2, -0.5])
    loss = np.array([0.0, 0.0, 1.0, 1.0])
    found = risk_coverage.curve(confidence, loss)
    assert found.thresholds.tolist() == [-0.1, -0.2, -0.5]
    assert found.coverage.tolist() == [0.25, 0.75, 1.0]
    assert found.risk.tolist() == pytest.approx([0, 1 / 3, 1 / 2])
    # Every study adds the risk at its own confidence: 0, twice 1/3, 1/2.
    measure = risk_coverage.area(confidence, loss)
    assert measure.value == pytest.approx((0 + 2 / 3 + 1 / 2) / 4)
    weights = np.array([[1.0, 1, 1, 1], [2, 0, 0, 2], [0, 0, 0, 4]])
    assert measure.weighted(weights) == pytest.approx([measure.value, (2 * 0 + 2 * 0.5) / 4, 1.0])


def test_a_resample_has_the_area_of_its_studies() -> None:
    rng = np.random.default_rng(0)
    confidence, loss = rng.normal(size=30).round(1), rng.random(30)
    weights = rng.integers(0, 3, size=30)
    repeated = np.repeat(np.arange(30), weights)
    expected = risk_coverage.area(confidence[repeated], loss[repeated]).value
    assert risk_coverage.area(confidence, loss).weighted(weights[None].astype(float))[0] == pytest.approx(expected)


def test_thresholds_keep_their_risk_and_say_where_none_does() -> None:
    rng = np.random.default_rng(1)
    confidence = -rng.exponential(size=200)
    loss = (rng.random(200) < 0.2 - 0.3 * confidence).astype(float)
    loss[confidence.argmax()] = 1.0
    bootstrap = PatientBootstrap([str(n // 2) for n in range(200)], samples=200, seed=0)
    found = risk_coverage.summary(confidence, loss, (0.0, 0.3, 1.0), bootstrap)
    assert (
        found["least_area"].value <= found["area"].value < found["area_by_chance"].value == pytest.approx(loss.mean())
    )
    assert found["area"].low < found["area"].value < found["area"].high
    never, some, always = found["thresholds"]
    assert always["coverage"] == 1 and always["confidence"] == confidence.min()
    accepted = confidence >= some["confidence"]
    assert some["coverage"] == pytest.approx(accepted.mean())
    assert some["risk"].value == pytest.approx(loss[accepted].mean()) and some["risk"].value <= 0.3
    lower = np.sort(confidence[~accepted])[::-1]
    assert all(loss[confidence >= threshold].mean() > 0.3 for threshold in lower)
    assert never == {"risk_at_most": 0.0, "confidence": None, "coverage": 0.0, "risk": None}


def test_every_study_is_in_one_group_of_every_covariate(tmp_path: Path) -> None:
    rows = [
        {"study_id": "a", "view": "PA", "sex": "F", "age_band": "40-49", "projection": "PA", "manufacturer": ""},
        {"study_id": "a", "view": "AP", "sex": "F", "age_band": "40-49", "projection": "AP", "manufacturer": "GE"},
        {"study_id": "b", "view": "AP", "sex": "", "age_band": "90+", "projection": "AP", "manufacturer": "other"},
        {"study_id": "c", "view": "PA", "sex": "M", "age_band": "", "projection": "PA", "manufacturer": "GE"},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "with.parquet")
    assert subgroups.read_groups(tmp_path / "with.parquet", ["b", "a"]) == {
        "sex": ["not known", "F"],
        "age_band": ["90+", "40-49"],
        "projection": ["AP", "several"],
        "manufacturer": ["other", "GE"],
    }
    pq.write_table(pa.Table.from_pylist(rows).select(["study_id", "view"]), tmp_path / "without.parquet")
    assert subgroups.read_groups(tmp_path / "without.parquet", ["a", "b", "c"]) == {
        "projection": ["several", "AP", "PA"]
    }


def test_groups_add_up_and_small_ones_are_marked() -> None:
    values = np.arange(100) / 100
    groups = {"sex": ["F"] * 80 + ["M"] * 20}
    patients = [f"p{n // 2}" for n in range(100)]
    found = subgroups.by_group(groups, {"score": mean(values)}, patients, samples=200, seed=0)["sex"]
    assert {name: (one["studies"], one["patients"], one["small"]) for name, one in found.items()} == {
        "F": (80, 40, False),
        "M": (20, 10, True),
    }
    assert found["M"]["scores"]["score"].value == pytest.approx(values[80:].mean())
    assert found["F"]["scores"]["score"].low < found["F"]["scores"]["score"].value < found["F"]["scores"]["score"].high


TEXTS = {
    "s1": ("The heart is enlarged. Small left pleural effusion. No pneumothorax.", "The heart is enlarged."),
    "s2": ("The lungs are clear. No pleural effusion.", "The lungs are clear. No pleural effusion."),
    "s3": ("Large right pneumothorax.", "No pneumothorax. Small left pneumothorax is seen."),
}


def evaluated(tmp_path: Path, *, confident: bool, **given: Any) -> dict[str, Any]:
    rows = [
        {"study_id": study, "text": candidate} | ({"mean_logprob": -number / 10} if confident else {})
        for number, (study, (_, candidate)) in enumerate(TEXTS.items())
    ]
    if confident:
        rows[0]["mean_logprob"] = None
    (tmp_path / "predictions.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    references = [
        {"study_id": study, "patient_id": study, "findings": reference} for study, (reference, _) in TEXTS.items()
    ]
    (tmp_path / "references.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in references))
    settings = EvaluateSettings(
        predictions=tmp_path / "predictions.jsonl",
        references=tmp_path / "references.jsonl",
        output=tmp_path / "scores",
        radgraph="tiny",
        bootstrap_samples=50,
        risks=(0.5,),
        **given,
    )
    evaluate(settings)
    scores: dict[str, Any] = json.loads((tmp_path / "scores" / "scores.json").read_text())
    return scores


def test_an_evaluation_contains_and_plots_all_analyses(tmp_path: Path) -> None:
    scores = evaluated(tmp_path, confident=True)
    findings = scores["findings"]["model"]
    assert findings["Pleural Effusion"]["omitted"] == 1 and findings["Cardiomegaly"]["agreed"] == 1
    assert findings["Pneumothorax"]["laterality"]["value"] == 0
    assert scores["subgroups"]["reference"]["abnormal"]["studies"] == 2
    assert scores["subgroups"]["reference"]["normal"]["small"] is True
    assert scores["systems"]["model"]["contradictions"]["value"] == pytest.approx(1 / 3)
    chosen = scores["selective"]
    assert (chosen["studies"], chosen["without_confidence"]) == (2, 1)
    assert set(chosen["risks"]) == {"1 - radgraph_partial", "any omitted or hallucinated finding"}
    assert chosen["risks"]["any omitted or hallucinated finding"]["thresholds"][0]["coverage"] == 1.0
    assert "not validated against radiologists" in scores["conditions"]["metrics"]["clinical"]["findings"]
    for name in ("scores", "findings", "selective"):
        with PIL.Image.open(tmp_path / "scores" / f"{name}.png") as picture:
            assert min(picture.size) > 200 and picture.convert("L").getextrema() == (0, 255)
    rows = pq.read_table(tmp_path / "scores" / "findings.parquet").to_pylist()
    assert [row["contradiction"] for row in rows if row["finding"] == "Pneumothorax" and row["study_id"] == "s3"] == [
        "presence"
    ]


def test_without_confidence_or_graphs_the_other_analyses_remain(tmp_path: Path) -> None:
    scores = evaluated(tmp_path, confident=False, metrics=("rouge_l",))
    assert "selective" not in scores and "findings" not in scores and scores["subgroups"] == {}
    assert (tmp_path / "scores" / "scores.png").is_file()
    assert not (tmp_path / "scores" / "findings.parquet").exists()


def test_a_confidence_that_is_not_a_number_is_named(tmp_path: Path) -> None:
    from cxrreport.errors import InputError
    from cxrreport.evaluation.inputs.tables import read_predictions

    path = tmp_path / "p.csv"
    path.write_text("study_id,text,mean_logprob\na,Clear.,-0.5\nb,Clear.,\nc,Clear.,nan\n")
    assert read_predictions(path, "findings").confidences == {"a": -0.5}
    path.write_text("study_id,text,mean_logprob\na,Clear.,high\n")
    with pytest.raises(InputError, match=r"p\.csv, row 1: mean_logprob is not a number"):
        read_predictions(path, "findings")
