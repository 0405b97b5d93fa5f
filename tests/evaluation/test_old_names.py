"""Output folders of `evaluate` that version 0.1.0 wrote, with `invented` and `looks`, are still read.

`data/evaluation-0.1` was made from the three tables in it; `scores.json` is cut to conditions and scores.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from cxrreport import runs
from cxrreport.evaluation.compare import compare
from cxrreport.evaluation.conditions import of_number
from cxrreport.evaluation.evaluate import evaluate
from cxrreport.records import differing
from cxrreport.review import read_evaluation
from cxrreport.settings import CompareSettings, EvaluateSettings
from cxrreport.storage.command_files import current, read_scores

OLD = Path(__file__).parent / "data" / "evaluation-0.1"
RENAMED = ("hallucinated_findings", "hallucinated_priors")
WEIGHTS = ("weights_sha256", "archive_sha256")


def computed_otherwise(number: str) -> bool:
    """True for numbers of lower-cased words in 0.1.0, or of relations, which the tiny RadGraph has learned anew."""
    return "_radeval" in number or number.startswith("radgraph_rexrank")


@pytest.fixture(scope="module")
def new(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("new") / "evaluate"
    evaluate(
        EvaluateSettings(
            predictions=OLD / "predictions.jsonl",
            references=OLD / "references.jsonl",
            baselines={"shuffled": OLD / "shuffled.jsonl"},
            output=output,
            most_frequent=False,
            radgraph="tiny",
            bootstrap_samples=50,
        )
    )
    # The names are tested, not the weights, which change with each training of the tiny RadGraph.
    scores = json.loads((output / "scores.json").read_text())
    old = json.loads((OLD / "scores.json").read_text())["conditions"]["metrics"]["radgraph_partial"]
    for metric in scores["conditions"]["metrics"].values():
        metric.update({name: old[name] for name in WEIGHTS if name in metric})
    (output / "scores.json").write_text(json.dumps(scores))
    return output


def test_scores_are_those_of_the_old_version(new: Path) -> None:
    scores = json.loads((new / "scores.json").read_text())["systems"]
    old = current(json.loads((OLD / "scores.json").read_text())["systems"])
    assert list(scores) == list(old) == ["model", "shuffled"]
    assert {"image_reliance_gap", *RENAMED} < scores["model"].keys()
    for system, numbers in old.items():
        assert [number for number in scores[system] if number in numbers] == list(numbers)  # newer ones are in between
        for number, interval in numbers.items():
            if computed_otherwise(number):
                continue
            for bound, value in interval.items():
                found = scores[system][number][bound]
                assert found == (value if value is None else pytest.approx(value, rel=1e-12)), number


def test_old_and_new_are_compared_with_each_other(new: Path, tmp_path: Path) -> None:
    numbers = ("radgraph_partial", *RENAMED)
    radeval = [of_number(read_scores(folder)["conditions"], "bleu4_radeval", "model") for folder in (OLD, new)]
    assert differing(*radeval).keys() == {"bleu"}
    for number in (*numbers, "bleu4"):
        sides = [of_number(read_scores(folder)["conditions"], number, "model") for folder in (OLD, new)]
        assert differing(*sides) == {}, number
    settings = CompareSettings(
        first=OLD, second=new, output=tmp_path / "c", numbers=numbers, bootstrap_samples=20, permutations=20
    )
    found = compare(settings)
    assert list(found.differences) == list(numbers) and not found.refused
    assert {one.difference.value for one in found.differences.values()} == {0}
    assert found.differences["hallucinated_findings"].first > 0


def test_a_number_without_terms_is_refused(tmp_path: Path) -> None:
    settings = CompareSettings(
        first=OLD, second=OLD, output=tmp_path / "c", numbers=("bleu4", "image_reliance_gap"), bootstrap_samples=20
    )
    assert list(compare(settings).refused) == ["image_reliance_gap"]


def test_published_results_beside_old_scores() -> None:
    found = runs.published(OLD)
    assert {"radgraph_partial", "bleu4"} <= {one.number for one in found}


def test_the_review_page_reads_an_old_folder(new: Path, tmp_path: Path) -> None:
    old, now = read_evaluation(OLD), read_evaluation(new)
    same = [name for name in old.studies[0].scores if not computed_otherwise(name)]
    for before, after in zip(old.studies, now.studies, strict=True):
        assert {name: before.scores[name] for name in same} == {name: after.scores[name] for name in same}
    assert old.digest == now.digest
    assert "hallucinated" in {piece.status for study in old.studies for piece in study.reports[0].pieces}
    assert "hallucinated" in {finding.error for study in old.studies for finding in study.findings}
    assert {"hallucinated_findings", "hallucinated_priors"} < old.studies[0].scores.keys()


def test_a_report_that_holds_an_old_name_is_unchanged(tmp_path: Path) -> None:
    folder = tmp_path / "old"
    shutil.copytree(OLD, folder)
    lines = (folder / "entities.jsonl").read_text().replace('"enlarged"', '"looks"')
    (folder / "entities.jsonl").write_text(lines)
    texts = ["".join(piece.text for piece in study.reports[1].pieces) for study in read_evaluation(folder).studies]
    assert any("looks" in text for text in texts)
