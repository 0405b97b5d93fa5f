from __future__ import annotations

import base64
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import PIL.Image
import pyarrow.parquet as pq
import pytest

from cxrreport.errors import InputError, ManifestError, OutputError
from cxrreport.records import Split, Study
from cxrreport.review import read_evaluation, write_page
from cxrreport.review.page import _uri


class Scripts(HTMLParser):
    """Collects the script elements as a browser would see them, and every address in an attribute."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.addresses: list[str | None] = []
        self._open = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._open = tag == "script"
        if self._open:
            self.scripts.append((dict(attrs), ""))
        self.addresses += [value for name, value in attrs if name in ("src", "href", "action")]

    def handle_endtag(self, tag: str) -> None:
        self._open = False

    def handle_data(self, text: str) -> None:
        if self._open:
            attributes, before = self.scripts[-1]
            self.scripts[-1] = (attributes, before + text)


def data_of(page: str) -> dict:
    return next(json.loads(text) for attributes, text in Scripts(page).scripts if attributes.get("id") == "data")


def test_studies_of_the_main_system_are_ordered_worst_first(evaluation: Path, images, tmp_path: Path) -> None:
    output = tmp_path / "review.html"
    assert write_page(read_evaluation(evaluation), images, output) == 4
    page = output.read_text(encoding="utf-8")
    assert [study["id"] for study in data_of(page)["studies"]] == ["s300", "s200", "=s400", "s100"]
    assert "Not to be shown" not in page


def test_limit_keeps_the_worst(evaluation: Path, images, tmp_path: Path) -> None:
    output = tmp_path / "review.html"
    assert write_page(read_evaluation(evaluation), images, output, limit=2) == 2
    assert [study["id"] for study in data_of(output.read_text(encoding="utf-8"))["studies"]] == ["s300", "s200"]
    assert "2 of 4" in output.read_text(encoding="utf-8")


def test_no_patient_id_no_address_and_no_script_from_a_report(evaluation: Path, images, tmp_path: Path) -> None:
    output = tmp_path / "review.html"
    write_page(read_evaluation(evaluation), images, output)
    page = output.read_text(encoding="utf-8")
    assert "patient-of" not in page
    assert re.findall(r"https?://", page) == []
    parsed = Scripts(page)
    assert parsed.addresses == []
    kinds = [attributes.get("type") for attributes, _ in parsed.scripts]
    assert kinds == ["application/json", None, *["text/plain"] * 5]
    assert "{{ 7 * 7 }}" in json.dumps(data_of(page)["studies"][0]["reports"][0])
    assert "tiny &lt;b&gt;" in page


def test_findings_of_the_main_system_are_included(evaluation: Path, images, tmp_path: Path) -> None:
    output = tmp_path / "review.html"
    write_page(read_evaluation(evaluation), images, output)
    data = data_of(output.read_text(encoding="utf-8"))
    by_study = {study["id"]: study["findings"] for study in data["studies"]}
    assert by_study["s200"] == [
        ["Pneumothorax", ["present", "left", ""], ["absent", "", ""], "hallucinated", "presence"],
        ["Pleural Effusion", ["present", "right", "mild"], ["present", "left", "mild"], "", ""],
    ]
    assert by_study["s300"] == []
    assert data["headlines"] == ["radgraph_partial", "radgraph_partial", "bleu4"]


def test_synthetic_scores_are_labelled(evaluation: Path, images, tmp_path: Path) -> None:
    output = tmp_path / "review.html"
    write_page(read_evaluation(evaluation), images, output)
    assert "synthetic scores" in output.read_text(encoding="utf-8")
    summary = json.loads((evaluation / "scores.json").read_text())
    summary["conditions"]["synthetic"] = False
    (evaluation / "scores.json").write_text(json.dumps(summary))
    write_page(read_evaluation(evaluation), images, output)
    page = output.read_text(encoding="utf-8")
    assert "synthetic scores" not in page
    assert "not for clinical use" in page


def test_images_are_in_the_page_unchanged(evaluation: Path, images, tmp_path: Path) -> None:
    output = tmp_path / "review.html"
    write_page(read_evaluation(evaluation), images, output)
    scripts = {attributes.get("id"): text for attributes, text in Scripts(output.read_text(encoding="utf-8")).scripts}
    # s200 is the second study on the page and has two images.
    assert {"image-0-0", "image-1-0", "image-1-1", "image-2-0", "image-3-0"} <= set(scripts)
    kind, encoded = scripts["image-1-1"].split(",", 1)
    shown = np.asarray(PIL.Image.open(io.BytesIO(base64.b64decode(encoded))).convert("L")).astype(int)
    assert kind == "data:image/jpeg;base64"
    assert np.abs(shown - images.image("bb").astype(int)).mean() < 3


def test_images_are_reduced_equally_on_a_page_that_is_too_large(evaluation: Path, images, tmp_path: Path) -> None:
    def sides(megabytes: float) -> set[tuple[int, int]]:
        output = tmp_path / "review.html"
        write_page(read_evaluation(evaluation), images, output, megabytes=megabytes)
        page = output.read_text(encoding="utf-8")
        assert ("shrunk to" in page) == (megabytes < 1)
        uris = [text for attributes, text in Scripts(page).scripts if "image-" in (attributes.get("id") or "")]
        assert sum(map(len, uris)) <= 1.3e6 * megabytes
        return {PIL.Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))).size for uri in uris}

    assert sides(1.0) == {(224, 224)}
    (side, _), *others = sides(0.02)
    assert not others and 40 < side < 150


def test_an_image_keeps_its_shape() -> None:
    uri = _uri(np.zeros((100, 300), np.uint8), 150)
    assert PIL.Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))).size == (150, 50)


def test_a_study_that_the_manifest_lacks_is_shown_without_image(evaluation: Path, images, tmp_path: Path) -> None:
    output = tmp_path / "review.html"
    images._studies = [study for study in images._studies if study.study_id != "s300"]
    assert write_page(read_evaluation(evaluation), images, output) == 4
    assert [study["images"] for study in data_of(output.read_text(encoding="utf-8"))["studies"]] == [0, 2, 1, 1]


def test_a_failure_keeps_the_old_page(evaluation: Path, images, tmp_path: Path) -> None:
    output = tmp_path / "review.html"
    write_page(read_evaluation(evaluation), images, output)
    before = output.read_bytes()
    images._studies[-1] = Study(study_id="=s400", patient_id="p", split=Split.TEST, image_ids=("broken",))
    with pytest.raises(ManifestError, match="broken"):
        write_page(read_evaluation(evaluation), images, output)
    assert output.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["review.html"]


@pytest.mark.parametrize("name", ["scores.json", "studies.parquet", "findings.parquet", "entities.jsonl"])
@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00 no such thing"])
def test_missing_and_broken_files_are_named(evaluation: Path, images, tmp_path: Path, name: str, content) -> None:
    (evaluation / name).unlink()
    if content is not None:
        (evaluation / name).write_bytes(content)
    with pytest.raises(InputError, match=re.escape(str(evaluation / name))):
        write_page(read_evaluation(evaluation), images, tmp_path / "review.html")


def test_a_line_of_entities_that_is_wrong_is_named(evaluation: Path, images, tmp_path: Path) -> None:
    lines = (evaluation / "entities.jsonl").read_text(encoding="utf-8").splitlines()
    record = json.loads(lines[1])
    record["candidate"]["entities"][0]["status"] = "perhaps"
    lines[1] = json.dumps(record)
    (evaluation / "entities.jsonl").write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(InputError, match=r"entities\.jsonl, line 2: .*perhaps"):
        write_page(read_evaluation(evaluation), images, tmp_path / "review.html")


def test_entities_past_the_end_of_their_report_are_named(evaluation: Path, images, tmp_path: Path) -> None:
    lines = (evaluation / "entities.jsonl").read_text(encoding="utf-8").splitlines()
    record = json.loads(lines[0])
    record["reference"]["entities"][0]["end"] = 999
    lines[0] = json.dumps(record)
    (evaluation / "entities.jsonl").write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(InputError, match="study s100, reference: entity ends at token 999"):
        write_page(read_evaluation(evaluation), images, tmp_path / "review.html")


def test_a_line_separator_inside_a_report_does_not_end_the_line(evaluation: Path, images, tmp_path: Path) -> None:
    text = (evaluation / "entities.jsonl").read_text(encoding="utf-8")
    (evaluation / "entities.jsonl").write_text(text.replace('"Heart"', '"He\u2028art"'), encoding="utf-8")
    assert write_page(read_evaluation(evaluation), images, tmp_path / "review.html") == 4


def test_a_table_without_the_ordering_score_is_named(evaluation: Path, images, tmp_path: Path) -> None:
    table = pq.read_table(evaluation / "studies.parquet").drop_columns(["radgraph_partial"])
    pq.write_table(table, evaluation / "studies.parquet")
    with pytest.raises(InputError, match="no column radgraph_partial"):
        write_page(read_evaluation(evaluation), images, tmp_path / "review.html")


def test_bad_limit_and_bad_output(evaluation: Path, images, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="limit is 0"):
        write_page(read_evaluation(evaluation), images, tmp_path / "review.html", limit=0)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError):
        write_page(read_evaluation(evaluation), images, tmp_path / "file" / "review.html")
