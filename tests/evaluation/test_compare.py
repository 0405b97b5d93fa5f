from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cxrreport.demo.phantoms.grammar import sample_annotated
from cxrreport.errors import InputError, ScoreError
from cxrreport.evaluation.compare import compare
from cxrreport.evaluation.evaluate import evaluate
from cxrreport.evaluation.metrics import Pairs, metric
from cxrreport.evaluation.published import NOT_PUBLISHED, beside, published_results
from cxrreport.settings import CompareSettings, EvaluateSettings

STUDIES = 16


def write_rows(path: Path, texts: list[str], **more: Any) -> Path:
    rows = [
        {"study_id": f"s{n:02}", "findings": text, **{name: value(n) for name, value in more.items()}}
        for n, text in enumerate(texts)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@metric("words", conditions={"unit": "words"})
def words(pairs: Pairs) -> dict[str, float]:
    return {study: len(text.split()) for study, text in pairs.candidates.items()}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Evaluations without RadGraph of a good system, a bad one, and one with fewer studies."""
    root = tmp_path_factory.mktemp("compare")
    rng = np.random.default_rng(0)
    wanted = [sample_annotated(rng, templates="seen").text for _ in range(STUDIES)]
    bad = [*wanted[2:], *wanted[:2]]
    references = write_rows(root / "r.jsonl", wanted, patient_id=lambda n: f"p{n // 2}")
    part = write_rows(root / "part.jsonl", wanted[:-1], patient_id=lambda n: f"p{n // 2}")
    predictions = {
        "good": write_rows(root / "good.jsonl", [text if n % 4 else bad[n] for n, text in enumerate(wanted)]),
        "bad": write_rows(root / "bad.jsonl", bad),
        "fewer": write_rows(root / "fewer.jsonl", wanted),
    }
    found = {}
    for name, path in predictions.items():
        found[name] = root / name
        evaluate(
            EvaluateSettings(
                predictions=path,
                references=part if name == "fewer" else references,
                output=root / name,
                metrics=("bleu", "rouge_l", "cider"),
                section="findings",
                most_frequent=False,
                bootstrap_samples=50,
            ),
            extra_metrics=[words],
        )
    return found


def settings(folders: dict[str, Path], first: str, second: str, output: Path, **more: Any) -> CompareSettings:
    return CompareSettings(
        first=folders[first], second=folders[second], output=output, bootstrap_samples=200, permutations=500, **more
    )


def test_differences_are_those_of_the_scores_with_corrected_p_values(folders: dict[str, Path], tmp_path: Path) -> None:
    found = compare(settings(folders, "good", "bad", tmp_path / "c"))
    assert list(found.differences) == ["bleu4", "bleu4_radeval", "rouge_l", "rouge_l_radeval", "cider", "words"]
    assert not found.refused and found.studies == STUDIES and found.patients == STUDIES // 2
    for side in ("good", "bad"):
        scores = json.loads((folders[side] / "scores.json").read_text())["systems"]["model"]
        for number, one in found.differences.items():
            assert (one.first if side == "good" else one.second) == pytest.approx(scores[number]["value"])
    for number, one in found.differences.items():
        assert one.difference.value == pytest.approx(one.first - one.second)
        assert one.p_corrected >= one.p
        if number != "words":
            assert one.difference.low > 0 and one.p < 0.05
    assert found.differences["words"].p > 0.05
    written = json.loads((tmp_path / "c" / "differences.json").read_text())
    assert written["differences"]["cider"]["conditions"]["section"] == "findings"
    assert (tmp_path / "c" / "compare.png").read_bytes().startswith(b"\x89PNG")


def test_a_system_compared_with_itself(folders: dict[str, Path], tmp_path: Path) -> None:
    found = compare(settings(folders, "bad", "bad", tmp_path / "c", numbers=("bleu1", "cider")))
    assert list(found.differences) == ["bleu1", "cider"]
    for one in found.differences.values():
        assert (one.difference.value, one.difference.low, one.difference.high, one.p) == (0, 0, 0, 1)


def test_numbers_whose_conditions_differ_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ScoreError, match=r"the conditions agree for no number \(differences: bleu4: cohort, refer"):
        compare(settings(folders, "good", "fewer", tmp_path / "c"))
    assert not (tmp_path / "c").exists()
    with pytest.raises(ScoreError, match="'radgraph_partial' is not among"):
        compare(settings(folders, "good", "bad", tmp_path / "c", numbers=("radgraph_partial",)))
    with pytest.raises(InputError, match=r"scores\.json: not found"):
        compare(settings(folders | {"none": tmp_path}, "good", "none", tmp_path / "c"))


def test_one_metric_that_differs_does_not_exclude_the_others(folders: dict[str, Path], tmp_path: Path) -> None:
    scores = folders["bad"] / "scores.json"
    whole = scores.read_text()
    changed = json.loads(whole)
    changed["conditions"]["metrics"]["words"]["unit"] = "letters"
    try:
        scores.write_text(json.dumps(changed))
        found = compare(settings(folders, "good", "bad", tmp_path / "c"))
    finally:
        scores.write_text(whole)
    assert found.refused == {"words": {"unit": ("words", "letters")}}
    assert "bleu4" in found.differences


def test_published_results_are_shown_where_conditions_agree(folders: dict[str, Path]) -> None:
    scores = json.loads((folders["good"] / "scores.json").read_text())
    conditions = scores["conditions"]
    found = beside(scores, published_results())
    assert all(one.ours == scores["systems"]["model"][one.number] for one in found)
    assert {one.number for one in found} == {"bleu4", "rouge_l", "cider"}  # RadGraph was not computed
    for one in found:
        assert one.differs["cohort"][0] == NOT_PUBLISHED
    ours = next(one for one in conditions["metrics"].values() if "bleu4" in one["numbers"])
    same = {name: conditions[name] for name in ("section", "cohort", "splits", "references", "candidates")}
    same |= {"inputs": "not declared", "synthetic": False, "bleu": ours["bleu"]}
    row = {"system": "x", "number": "bleu4", "value": 0.1, "source": "here", "conditions": same}
    assert beside(scores, [row])[0].differs == {}
    row["conditions"] = same | {"section": "impression"}
    assert beside(scores, [row])[0].differs == {"section": ("impression", "findings")}


def test_the_table_names_its_sources() -> None:
    rows = published_results()
    assert {row["value"] for row in rows if row["number"] == "radgraph"} >= {0.288, 0.295, 0.303}
    assert all(row["source"] and row["conditions"] for row in rows)
