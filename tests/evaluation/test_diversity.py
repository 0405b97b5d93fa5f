from __future__ import annotations

import math

import pytest

from cxrreport.evaluation.metrics.diversity import collapse, diversity


def test_identical_reports_and_sentences() -> None:
    texts = ["No effusion. Heart normal.", "No effusion.  Heart\nnormal.", "No effusion. No edema.", "", " \n"]
    found = diversity(texts, [{"Edema"}, set(), {"Edema"}, {"Edema", "Fracture"}])
    assert (found["reports"], found["distinct"], found["identical"]) == (3, 2, pytest.approx(2 / 3))
    assert found["sentences"][0] == {"sentence": "No effusion.", "reports": 3}
    assert [one["reports"] for one in found["sentences"]] == [3, 2, 1]
    assert found["entropy_of_findings"] == pytest.approx(-(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25)))
    assert found["entropy_of_patterns"] == pytest.approx(1.5)


def test_a_sentence_counts_once_for_a_report_and_ten_are_listed() -> None:
    found = diversity(["Clear. Clear. Clear.", " ".join(f"Line {n} there." for n in range(12))])
    assert len(found["sentences"]) == 10 and {one["reports"] for one in found["sentences"]} == {1}


def test_no_reports_or_findings() -> None:
    found = diversity(["", ""])
    assert found["reports"] == 0 and math.isnan(found["identical"]) and found["sentences"] == []
    assert diversity(["a"], [set()])["entropy_of_findings"] == 0


def test_only_collapse_is_flagged() -> None:
    varied = [f"Report {number}." for number in range(30)]
    references = diversity([*varied[:24], *["Normal."] * 6])
    (warning,) = collapse(diversity(["Normal."] * 20 + varied[:10]), references)
    assert "67% of the reports" in warning and "20% of the references" in warning and "11 and 25 distinct" in warning
    assert collapse(references, references) == ()
    assert collapse(diversity(["Normal."] * 19), references) == ()  # too few
    assert collapse(diversity([""] * 30), references) == ()
    assert collapse(diversity(["Normal."] * 30), diversity([""])) == ()
