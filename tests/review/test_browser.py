"""The page in a real browser: clicks, keys, touch width, and a report that tries to be code."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from cxrreport.review import read_evaluation, write_page

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

ARTIFACTS = Path(__file__).parents[2] / "test-artifacts"
"""Screenshots are kept here, for a person to look at; git ignores the folder."""


def shown(page: sync_api.Page) -> str:
    return page.locator("#study-id").inner_text()


def test_a_report_that_holds_scripts_is_only_text(page: sync_api.Page) -> None:
    assert shown(page) == "Study s300"
    text = page.locator("#generated").inner_text()
    assert text.startswith("</script><script>window.broken = 1</script><img src=x onerror=")
    assert "{{ 7 * 7 }}" in text
    assert page.evaluate("window.broken") is None
    assert page.locator("#generated img, #generated script").count() == 0
    assert page.locator("#indication").inner_text() == "Indication: Cough & <i>fever</i>."


def test_a_foreign_script_does_not_run(browser: sync_api.Browser, evaluation: Path, images, tmp_path: Path) -> None:
    # Even if text got out as HTML, the policy lets no script run but the page's own.
    output = tmp_path / "review.html"
    write_page(read_evaluation(evaluation), images, output)
    page_text = output.read_text(encoding="utf-8")
    output.write_text(page_text.replace("</body>", "<script>window.broken = 1</script></body>"), encoding="utf-8")
    page = browser.new_page()
    page.goto(output.as_uri())
    assert shown(page) == "Study s300"
    assert page.evaluate("window.broken") is None
    page.close()


def test_keys_and_buttons_move(page: sync_api.Page) -> None:
    for key, expected in [
        ("j", "s200"),
        ("ArrowDown", "=s400"),
        ("k", "s200"),
        ("ArrowRight", "=s400"),
        ("End", "s100"),
    ]:
        page.keyboard.press(key)
        assert shown(page) == f"Study {expected}"
    assert page.locator("#next").is_disabled()
    page.locator("#previous").click()
    assert shown(page) == "Study =s400"
    assert page.locator("#generated").inner_text() == "(empty)"
    page.locator("#rows button", has_text="s300").click()
    assert shown(page) == "Study s300"
    assert page.locator("#position").inner_text() == "1 of 4"
    page.reload()
    assert shown(page) == "Study s300"


def test_entities_are_marked_by_more_than_colour(page: sync_api.Page) -> None:
    page.keyboard.press("j")
    hallucinated = page.locator("#generated .mark")
    missed = page.locator("#reference .mark")
    assert hallucinated.all_inner_texts() == ["Left pneumothorax"]
    assert missed.all_inner_texts() == ["Small", "clot"]
    style = "element => getComputedStyle(element).textDecorationStyle"
    assert [hallucinated.first.evaluate(style), missed.first.evaluate(style)] == ["wavy", "dashed"]
    assert missed.first.get_attribute("title") == "missed: Observation::definitely present"
    assert page.locator("#where").inner_text() == "entities: 2 missed, 1 hallucinated"
    page.keyboard.press("End")
    assert page.locator("#reference .mark").first.evaluate(style) == "solid"


def test_filters(page: sync_api.Page) -> None:
    page.keyboard.press("/")
    page.keyboard.type("PNEUMO left")
    assert page.locator("#position").inner_text() == "1 of 1"
    assert shown(page) == "Study s200"
    page.locator("#query").fill("nothing like this")
    assert page.locator("#empty").is_visible()
    assert page.locator("#main").is_hidden()
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    page.locator("button[type=reset]").click()
    page.wait_for_selector("#main:not([hidden])")
    page.locator("#band").select_option("0.75,1")
    assert shown(page) == "Study s100"
    page.locator("#band").select_option("")
    page.locator("#query").fill("rib heart")
    assert page.locator("#position").inner_text() == "1 of 1"


def ids(page: sync_api.Page) -> list[str]:
    return page.locator("#rows .name").all_inner_texts()


def test_filter_by_finding(page: sync_api.Page) -> None:
    options = page.locator("#finding option").all_inner_texts()
    assert options == ["any", "Pneumothorax (1)", "Pleural Effusion (1)", "Lung Opacity (1)", "Cardiomegaly (1)"]
    expected = {
        ("Pneumothorax", ""): ["s200"],
        ("", "omitted"): ["=s400"],
        ("", "hallucinated"): ["s200"],
        ("", "agreed"): ["s100"],
        ("", "differs"): ["s200"],
        ("", "contradiction"): ["s200"],
        ("Cardiomegaly", "agreed"): ["s100"],
        ("Cardiomegaly", "omitted"): [],
    }
    for (finding, state), found in expected.items():
        page.locator("#finding").select_option(finding)
        page.locator("#state").select_option(state)
        assert ids(page) == found, (finding, state)
    page.locator("#finding").select_option("")
    page.locator("#state").select_option("omitted")
    page.locator("#query").fill("pneumothorax")  # both filters at once
    assert ids(page) == []
    page.locator("#state").select_option("hallucinated")
    assert ids(page) == ["s200"]


def test_findings_are_shown_side_by_side(page: sync_api.Page) -> None:
    assert page.locator("#findings").is_hidden()  # s300 says nothing of any
    page.keyboard.press("j")
    rows = [row.locator("th, td").all_inner_texts() for row in page.locator("#finding-rows tr").all()]
    assert rows == [
        ["Pneumothorax", "present, left", "absent", "hallucinated contradicts itself", "–"],
        ["Pleural Effusion", "present, right, small or mild", "present, left, small or mild", "differs", "–"],
    ]
    page.keyboard.press("j")
    assert page.locator("#finding-rows td").all_inner_texts() == ["–", "uncertain, left and right", "omitted", "–"]
    page.keyboard.press("End")
    assert page.locator("#denied").inner_text() == "Denied in both: Fracture."


def test_order(page: sync_api.Page) -> None:
    assert ids(page) == ["s300", "s200", "=s400", "s100"]
    for order, expected in {
        "findings": ["s200", "=s400", "s300", "s100"],
        "unsure": ["s100", "=s400", "s200", "s300"],
        "id": ["=s400", "s100", "s200", "s300"],
    }.items():
        page.locator("#order").select_option(order)
        assert ids(page) == expected
        assert shown(page) == "Study s300"  # what is read stays in sight


def test_other_numbers_are_collapsed(page: sync_api.Page) -> None:
    heads = page.locator("#scores dt").all_inner_texts()
    assert heads == ["radgraph partial", "bleu4"]
    assert page.locator("#scores .parts").first.inner_text() == "precision 0.000, recall 0.000"
    assert not page.locator("#numbers").is_visible()
    page.locator(".numbers summary").click()
    numbers = " ".join(page.locator("#numbers").inner_text().split())
    assert numbers == "radgraph simple 0.000 omitted findings 1.000 mean logprob 0.000"


def test_a_filter_that_keeps_the_study_keeps_its_zoom(page: sync_api.Page) -> None:
    page.keyboard.press("+")
    page.locator("#query").fill("effusion")
    assert shown(page) == "Study s300"
    assert page.locator("#zoom").inner_text() == "150%"
    page.locator("#query").fill("heart")
    assert shown(page) == "Study s100"
    assert page.locator("#zoom").inner_text() == "100%"


def test_the_window_maps_pixels_as_stated(page: sync_api.Page) -> None:
    import io

    import numpy as np
    import PIL.Image

    def middle() -> float:
        shot = PIL.Image.open(io.BytesIO(page.locator("#stage").screenshot())).convert("L")
        return float(np.asarray(shot, dtype=float)[10:40, 10:40].mean())

    plain = middle()
    page.keyboard.press("i")
    assert middle() == pytest.approx(255 - plain, abs=4)
    page.keyboard.press("0")
    page.locator("#level").fill("255")
    page.locator("#width").fill("510")
    assert middle() == pytest.approx(plain / 2, abs=4)


@pytest.mark.parametrize(("width", "height"), [(375, 740), (768, 900), (1280, 860), (1920, 1000)])
def test_nothing_is_wider_than_the_window(page: sync_api.Page, width: int, height: int) -> None:
    page.set_viewport_size({"width": width, "height": height})
    page.keyboard.press("j")
    for part in page.locator("details summary").all():
        part.click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("#generated").is_visible()
    assert page.locator(".pane img").first.is_visible()
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = false; })")
    page.evaluate("scrollTo(0, 0)")
    ARTIFACTS.mkdir(exist_ok=True)
    page.screenshot(path=ARTIFACTS / f"review-{width}.png", full_page=width == 375)
    assert (ARTIFACTS / f"review-{width}.png").stat().st_size > 10_000


def test_two_thousand_studies_stay_quick(browser: sync_api.Browser, big_review: Path) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 860})
    begun = time.monotonic()
    page.goto(big_review.as_uri())
    assert page.locator("#position").inner_text() == "1 of 2000"
    for _ in range(50):
        page.keyboard.press("j")
    assert page.locator("#position").inner_text() == "51 of 2000"
    page.locator("#query").fill("word1999")
    assert page.locator("#position").inner_text() == "1 of 1"
    # About two seconds on an idle machine; the bound leaves room for one that is busy with other tests.
    assert time.monotonic() - begun < 60
    # What keeps it so: one study and the rows in sight are in the document, whatever the number of studies.
    page.locator("button[type=reset]").click()
    assert page.locator("#rows li").count() < 60
    assert page.locator("main *").count() < 600
    page.close()
