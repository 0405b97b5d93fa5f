"""What readers do on the page: verdicts, marked errors, export and import, blind reading, images, printing."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cxrreport.errors import InputError
from cxrreport.review import blinded, read_evaluation, read_predictions, write_key
from cxrreport.storage.decoding import FORMULA
from cxrreport.storage.tables import read_text_table

Page = Any


def expect(locator: Any) -> Any:
    """An assertion that waits. `wait_for_function` evaluates text in the page, which the page forbids."""
    from playwright.sync_api import expect as waiting  # not everybody has it, and not all tests here need it

    return waiting(locator)


def exported(page: Page, to: Path) -> list[dict[str, str]]:
    with page.expect_download() as download:
        page.locator("#export").click()
    download.value.save_as(to)
    with to.open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def row_of(page: Page, study: str) -> None:
    page.locator("#rows button", has_text=study).click()


def test_verdict_and_note_are_kept_and_exported(page: Page, tmp_path: Path) -> None:
    page.keyboard.press("3")
    page.keyboard.press("n")
    page.keyboard.type('=cmd, "quoted"\nj 1 are letters here')
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    assert page.locator("#note").input_value() == ""
    page.locator("[data-choice=acceptable]").click()
    assert page.locator("[data-choice=acceptable]").get_attribute("aria-pressed") == "true"
    page.keyboard.press("2")
    page.keyboard.press("2")  # the same verdict again takes it back
    page.keyboard.press("End")
    page.keyboard.press("k")
    page.keyboard.press("1")
    assert page.locator("#progress").inner_text() == "2 of 4 read"
    page.reload()
    row_of(page, "s300")
    assert page.locator("#note").input_value().startswith("=cmd")
    assert page.locator("[data-choice=significant]").get_attribute("aria-pressed") == "true"
    rows = exported(page, tmp_path / "notes.csv")
    assert [(row["study_id"], row["verdict"]) for row in rows] == [("s300", "significant"), ("'=s400", "acceptable")]
    assert rows[0]["note"] == '\'=cmd, "quoted"\nj 1 are letters here'
    assert float(rows[0]["radgraph_partial"]) == 0.0
    assert [(row["omitted"], row["hallucinated"]) for row in rows] == [("", ""), ("Lung Opacity", "")]
    page.locator("#read").select_option("no")
    assert page.locator("#position").inner_text() == "1 of 2"


def test_errors_are_marked_on_sentences_and_findings(page: Page, tmp_path: Path) -> None:
    row_of(page, "s100")
    sentences = page.locator("#generated .sentence")
    assert [text.strip() for text in sentences.all_inner_texts()] == ["Heart is large.", "No rib."]
    assert page.locator("#reference [role=button]").count() == 0
    sentences.nth(1).click()
    sentences.nth(1).focus()
    page.keyboard.press("Enter")
    assert sentences.nth(1).get_attribute("aria-label") == "Sentence 2: actionable error"
    page.locator("#finding-rows .finding-error").first.click(click_count=1)
    page.get_by_label("Omitted in Generated").select_option("Pneumothorax")
    assert page.locator(".lack").inner_text() == "Pneumothorax: minor"
    for _ in range(2):
        page.locator(".lack").click()
    (row,) = exported(page, tmp_path / "notes.csv")
    assert row["errors"] == "sentence 2: actionable; Cardiomegaly: minor; omitted Pneumothorax: urgent"
    assert [row[f"{name}_errors"] for name in ("minor", "actionable", "urgent")] == ["1", "1", "1"]
    page.locator(".lack").click()
    assert page.locator(".lack").count() == 0


def test_each_reader_has_notes_of_their_own_and_a_file_brings_them_back(
    page: Page, opened: Callable[..., Page], evaluation: Path, images: Any, tmp_path: Path
) -> None:
    reader = page.locator("#reader")
    for name, key in (("A. Röntgen", "1"), ("Curie: M", "3")):
        reader.fill(name)
        reader.press("Enter")
        page.locator("h1").click()
        assert page.locator("[data-choice][aria-pressed=true]").count() == 0
        page.keyboard.press("Home")
        page.keyboard.press(key)
        page.locator("#generated .sentence").first.click()
        page.locator("#note").fill(f'{name}: "odd"; +1,\n=2')
    files = []
    for name in ("A. Röntgen", "Curie: M"):
        reader.fill(name)
        reader.press("Enter")
        files.append(tmp_path / f"{len(files)}.csv")
        assert [row["reader"] for row in exported(page, files[-1])] == [name]
    page.evaluate("localStorage.clear()")
    page.reload()
    assert page.locator("#progress").inner_text() == "0 of 4 read"
    for file, name, choice in zip(files, ("A. Röntgen", "Curie: M"), ("acceptable", "significant"), strict=True):
        page.locator("#import").set_input_files(file)
        expect(page.locator("#progress")).to_contain_text("imported")
        assert reader.input_value() == name
        row_of(page, "s300")
        assert page.locator(f"[data-choice={choice}]").get_attribute("aria-pressed") == "true"
        assert page.locator("#note").input_value() == f'{name}: "odd"; +1,\n=2'
        assert page.locator("#generated .sentence").first.get_attribute("data-severity") == "minor"
        assert exported(page, tmp_path / "again.csv") == list(csv.DictReader(file.open(encoding="utf-8", newline="")))
    foreign = files[0].read_text(encoding="utf-8").replace("s300", "not-here")
    (tmp_path / "foreign.csv").write_text(foreign, encoding="utf-8")
    page.locator("#import").set_input_files(tmp_path / "foreign.csv")
    expect(page.locator("#progress")).to_contain_text("left out")


def test_a_verdict_advances_to_the_next_study_if_enabled(page: Page) -> None:
    page.locator("#advance").check()
    page.locator("h1").click()
    page.keyboard.press("2")
    assert page.locator("#position").inner_text() == "2 of 4"
    page.reload()
    assert page.locator("#advance").is_checked()


def test_a_blind_page_cannot_be_unblinded_without_its_key(
    opened: Callable[..., Page], evaluation: Path, images: Any, tmp_path: Path
) -> None:
    content = read_evaluation(evaluation)
    hidden, key = blinded(content, seed=5)
    assert blinded(content, seed=5)[1] == key
    write_key(tmp_path / "key.csv", key)
    assert {system for _, _, system in key} == {"generated", "reference"} and len(key) == 8
    page = opened(hidden, images)
    source = (tmp_path / "review.html").read_text(encoding="utf-8")
    data = source[source.index('id="data"') : source.index("</script>", source.index('id="data"'))]
    for telling in ("generated", "hallucinated", "missed", "radgraph", "Generated", "seed"):
        assert telling not in data, telling
    assert page.locator("#scores div, #finding-rows tr").count() == 0
    row_of(page, "s100")
    colour = "element => getComputedStyle(element).textDecorationLine"
    assert page.locator("#A .mark").first.evaluate(colour) == "none"
    page.keyboard.press("1")
    assert page.locator("#A .mark").first.evaluate(colour) == "none"
    page.keyboard.press("6")  # the second verdict shows the marks
    assert page.locator("#A .mark").first.evaluate(colour) == "underline"
    page.keyboard.press("9")
    rows = exported(page, tmp_path / "notes.csv")
    assert [(row["report"], row["verdict"], row["preference"]) for row in rows] == [
        ("A", "acceptable", "B"),
        ("B", "significant", "B"),
    ]
    with (tmp_path / "key.csv").open(encoding="utf-8", newline="") as handle:
        assert next(csv.DictReader(handle)).keys() == {"study_id", "report", "system"}


def test_no_cell_of_the_key_is_a_formula(tmp_path: Path) -> None:
    ids = ["=HYPERLINK(1)", "+1", "-5", "@a", "\t=1", "a", "a\nb"]
    write_key(tmp_path / "key.csv", [(study, "A", "=x") for study in ids])
    with (tmp_path / "key.csv").open(encoding="utf-8", newline="") as handle:
        assert not [cell for row in csv.reader(handle) for cell in row if cell.startswith(FORMULA)]
    read = read_text_table(tmp_path / "key.csv", required=("study_id", "system"))
    assert [(row["study_id"], row["system"]) for row in read] == [(study.strip(), "=x") for study in ids]


def test_the_order_of_a_blind_page_is_random() -> None:
    from cxrreport.review.content import Content, ReviewedStudy, ShownReport

    def report(key: str) -> ShownReport:
        return ShownReport(key=key, title=key, judged=False, sections=[])

    studies = [ReviewedStudy(study_id=str(n), reports=[report("generated"), report("reference")]) for n in range(400)]
    page, key = blinded(Content(system="model", studies=studies, digest="d"), seed=1)
    first = [system for _, letter, system in key if letter == "A"]
    assert 160 < first.count("generated") < 240
    assert [study.study_id for study in page.studies] != sorted(study.study_id for study in page.studies)
    assert blinded(Content(system="model", studies=studies, digest="d"), seed=2)[1] != key


def test_two_systems_are_compared_and_an_unknown_one_is_named(evaluation: Path) -> None:
    content = read_evaluation(evaluation, against="shuffled")
    assert [report.key for report in content.studies[0].reports] == ["generated", "shuffled"]
    assert not content.marked and not content.studies[0].findings
    with pytest.raises(InputError, match="no system 'other' beside 'model'; use one of reference, shuffled"):
        read_evaluation(evaluation, against="other")


def test_a_page_of_predictions_without_scores(opened: Callable[..., Page], images: Any, tmp_path: Path) -> None:
    rows = [
        {
            "study_id": name,
            "text": "FINDINGS: Clear. IMPRESSION: Normal.",
            "findings": "Clear. No effusion.",
            "impression": "Normal.",
            "mean_logprob": logprob,
            "tokens": 20,
            "finished": name != "s200",
            "abstained": name == "s200",
        }
        for name, logprob in (("s100", -0.1), ("s200", -2.0), ("s300", -0.5))
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "predictions.parquet")
    page = opened(read_predictions(tmp_path), images)
    assert page.locator("#rows .name").all_inner_texts() == ["s200", "s300", "s100"]
    assert page.locator("#where").inner_text() == "mean log-probability -2.000 · abstained · cut at the limit of tokens"
    assert page.locator("#generated h4").all_inner_texts() == ["FINDINGS", "IMPRESSION"]
    assert page.locator("#reference, #band, #finding, #legend").count() == 0
    page.keyboard.press("2")
    (row,) = exported(page, tmp_path / "notes.csv")
    assert (row["study_id"], row["verdict"]) == ("s200", "minor")
    with pytest.raises(InputError, match="pass the output folder of a finished `generate`"):
        read_predictions(tmp_path / "nothing")


@pytest.mark.parametrize(("width", "height"), [(1280, 720), (1366, 768), (1920, 1080), (390, 800)])
def test_the_whole_radiograph_is_visible(
    opened: Callable[..., Page], evaluation: Path, images: Any, width: int, height: int
) -> None:
    # White corners on black: all four are on the screen at 100%.
    grey = np.zeros((224, 224), np.uint8)
    for rows in (slice(0, 30), slice(-30, None)):
        for columns in (slice(0, 30), slice(-30, None)):
            grey[rows, columns] = 255
    images.image = lambda image_id: grey
    page = opened(read_evaluation(evaluation), images)
    page.set_viewport_size({"width": width, "height": height})
    row_of(page, "s100") if width > 1020 else page.keyboard.press("End")
    page.locator("#stage").scroll_into_view_if_needed()
    expect(page.locator(".pane img").first).to_have_js_property("complete", True)
    shot = np.array(PIL.Image.open(io.BytesIO(page.locator("#stage").screenshot())).convert("L"))
    for rows in (slice(0, 15), slice(-15, None)):
        for columns in (slice(0, 15), slice(-15, None)):
            shot[rows, columns] = 0  # the page behind the rounded corners of the viewer
    shot[-2:] = shot[:, -2:] = 0  # and beside its last, fractional pixel
    lit = np.argwhere(shot > 200)
    (top, left), (bottom, right) = lit.min(0), lit.max(0)
    assert abs((bottom - top) - (right - left)) <= 3 and bottom - top > 200
    for y in (top + 18, bottom - 18):
        for x in (left + 18, right - 18):
            assert shot[y, x] > 200
    box = page.locator("#stage").bounding_box()
    assert width < 700 or box["y"] + box["height"] <= height


def test_images_are_side_by_side_and_zoom_independently(page: Page) -> None:
    row_of(page, "s200")
    assert page.locator(".pane img").count() == 2
    assert page.locator("#other-image").inner_text() == "All 2 images"
    page.locator(".pane").nth(1).hover()
    page.mouse.wheel(0, -200)
    transforms = [page.locator(".pane img").nth(n).evaluate("e => getComputedStyle(e).transform") for n in (0, 1)]
    assert transforms[0] == "matrix(1, 0, 0, 1, 0, 0)" != transforms[1]
    before = [page.locator(".pane img").nth(n).get_attribute("src") for n in (0, 1)]
    assert before[0] != before[1]
    page.keyboard.press("v")
    assert page.locator("#other-image").inner_text() == "Image 1 of 2"
    page.locator("#zoom-in").click()
    page.keyboard.press("+")
    assert page.locator("#zoom").inner_text() == "225%"
    page.locator("#stage").hover()
    page.mouse.down()
    page.mouse.move(500, 500, steps=4)
    page.mouse.up()
    assert (
        page.locator(".pane img").evaluate("e => getComputedStyle(e).transform").startswith("matrix(2.25, 0, 0, 2.25")
    )
    slope = "Number(document.querySelector('#window feFuncG').getAttribute('slope'))"
    page.locator("#width").fill("128")
    assert page.evaluate(slope) == pytest.approx(255 / 128)
    page.locator("#width").focus()
    page.keyboard.press("ArrowDown")  # moves the slider, not the study
    assert page.evaluate(slope) == pytest.approx(255 / 127)
    page.keyboard.press("i")
    assert page.evaluate(slope) < 0
    page.locator("#other-image").click()
    assert page.locator(".pane img").get_attribute("src") == before[1]
    page.keyboard.press("0")
    assert page.locator("#zoom").inner_text() == "100%"


def test_source_images_are_loaded_on_demand(
    opened: Callable[..., Page], evaluation: Path, images: Any, tmp_path: Path
) -> None:
    from cxrreport.records import Image, Split, View

    sources = tmp_path / "source #1"
    sources.mkdir()
    PIL.Image.fromarray(np.arange(700 * 500, dtype=np.uint32).reshape(700, 500).astype(np.uint8)).save(
        sources / "a.png"
    )

    def image(image_id: str, source: str, rows: int = 700) -> Image:
        ids = {"image_id": image_id, "study_id": "s", "patient_id": "p"}
        return Image(**ids, split=Split.TEST, view=View.PA, source=source, rows=rows, columns=500)

    images.images = {"a": image("a", "a.png"), "bb": image("bb", "gone.png")}
    page = opened(read_evaluation(evaluation), images, sources=sources)
    row_of(page, "s200")
    assert sorted(path.name for path in (tmp_path / "review-images").iterdir())[1] == "image-1-0.jpg"
    size = "Array.from(document.querySelectorAll('.pane img'), (one) => one.naturalHeight)"
    assert page.evaluate(size) == [224, 224]
    page.locator("#full").click()
    expect(page.locator(".pane img").first).to_have_js_property("naturalHeight", 700)
    assert page.evaluate(size) == [700, 224]  # the other file is not there


def test_print_has_one_study_a_page(page: Page, tmp_path: Path) -> None:
    page.locator("#query").fill("large")
    page.keyboard.press("Escape")
    page.keyboard.press("3")
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    assert page.locator(".sheet").count() == 1
    text = page.locator(".sheet").inner_text()
    assert "Study s100" in text and "Generated: Significant errors" in text and "not for clinical use" in text
    assert page.locator("#main").is_hidden()
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert page.locator(".sheet").count() == 0


def test_the_list_is_shown_on_a_phone(page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 800})
    assert not page.locator("#list").is_visible()
    page.locator("#position").click()
    assert page.locator("#list").is_visible()
    row_of(page, "=s400")
    assert not page.locator("#list").is_visible()
    assert page.locator("#study-id").inner_text() == "Study =s400"
