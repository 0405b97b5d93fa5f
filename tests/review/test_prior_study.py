"""The prior study of a study, from the manifest or from a table, beside it on the page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cxrreport.errors import InputError
from cxrreport.records import PriorStudy, Report, Split, Study
from cxrreport.review import blinded, read_evaluation, read_priors

HOSTILE = "</script><script>window.broken = 1</script> Small effusion."


@pytest.fixture
def linked(images: Any) -> Any:
    """Data whose studies s300 has a prior study with image and report, and s100 one without either."""
    priors = {
        "s300": PriorStudy(
            study_id="s100", days=120, image_ids=("a",), report=Report(findings=HOSTILE, impression="Effusion.")
        ),
        "s100": PriorStudy(study_id="gone", days=1),
    }
    images._studies = [replace(study, prior=priors.get(study.study_id)) for study in images.studies()]
    return images


def headings(page: Any) -> list[str]:
    return [one.upper() for one in page.locator("#pair h3").all_inner_texts()]


def test_the_prior_study_of_the_manifest_stands_beside_the_study(
    opened: Callable[..., Any], evaluation: Path, linked: Any
) -> None:
    page = opened(read_evaluation(evaluation), linked)
    assert page.locator("#study-id").inner_text() == "Study s300"
    assert page.locator(".pane").count() == 2 and page.locator(".pane .prior").all_inner_texts() == ["Prior"]
    assert headings(page) == ["GENERATED", "REFERENCE", "PRIOR STUDY, 120 DAYS BEFORE"]
    text = page.locator("#pair article").last.inner_text()
    assert HOSTILE in text and "IMPRESSION" in text
    assert page.evaluate("window.broken") is None
    assert page.locator("#pair article").last.locator("[role=button]").count() == 0  # readers judge the generated one
    page.keyboard.press("j")
    while page.locator("#study-id").inner_text() != "Study s100":
        page.keyboard.press("j")
    assert page.locator(".pane .prior").count() == 0 and headings(page) == ["GENERATED", "REFERENCE"]


def test_a_blind_page_shows_the_prior_study_too(opened: Callable[..., Any], evaluation: Path, linked: Any) -> None:
    content, _ = blinded(read_evaluation(evaluation), 0)
    page = opened(content, linked)
    while page.locator("#study-id").inner_text() != "Study s300":
        page.keyboard.press("j")
    assert len(headings(page)) == 3 and headings(page)[-1] == "PRIOR STUDY, 120 DAYS BEFORE"
    assert page.locator(".pane .prior").count() == 1


def test_a_table_replaces_the_prior_study_of_the_manifest(
    opened: Callable[..., Any], evaluation: Path, linked: Any
) -> None:
    page = opened(read_evaluation(evaluation), linked, priors={"s300": "s200"})
    assert page.locator("#study-id").inner_text() == "Study s300"
    assert page.locator(".pane .prior").all_inner_texts() == ["Prior"] * 2  # s200 has two images
    assert headings(page)[-1] == "PRIOR STUDY"  # a table has no interval
    sources = page.locator(".pane img").evaluate_all("all => all.map(one => one.src)")
    assert all(source.startswith("data:image/jpeg") for source in sources)


def test_a_table_of_priors_names_studies_of_one_patient(tmp_path: Path) -> None:
    def study(name: str, patient: str) -> Study:
        return Study(study_id=name, patient_id=patient, split=Split.TEST, image_ids=(name,))

    studies = {name: study(name, patient) for name, patient in (("1", "a"), ("2", "a"), ("3", "b"))}
    table = tmp_path / "priors.csv"
    for rows, expected in (
        ("1;2\n9;1", {"1": "2"}),
        ("1;3", "another patient"),
        ("1;1", "its own prior"),
        ("1;2\n1;9\n9;9", {"1": "2"}),
        ("7;8", "no row names two studies"),
    ):
        table.write_text(f"study_id;prior_study_id\n{rows}\n")
        if isinstance(expected, dict):
            assert read_priors(table, studies) == expected
        else:
            with pytest.raises(InputError, match=expected):
                read_priors(table, studies)
