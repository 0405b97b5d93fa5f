"""Realistic folders: every file below the input becomes an image or a row of the exclusion log."""

from __future__ import annotations

import os
import shutil
import socket
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cxrreport.dataset import Manifest
from cxrreport.errors import InputError
from cxrreport.ingestion.ingest import IngestSummary, ingest
from cxrreport.settings import IngestSettings

Make = Callable[..., Path]


def run(source: Path, output: Path, **settings: Any) -> IngestSummary:
    summary = ingest(IngestSettings(input=source, output=output, **{"require_report": False} | settings))
    assert summary.read == summary.kept + sum(summary.left_out.values())
    return summary


def rows(output: Path) -> dict[str, tuple[str, str]]:
    listed = pq.read_table(output / "ledger.parquet").to_pylist()
    return {row["source"]: (row["reason"], row["detail"]) for row in listed}


def test_links_are_followed_once(make_file: Make, tmp_path: Path) -> None:
    make_file(name="elsewhere/study/a.dcm")
    make_file(name="in/real/b.dcm")
    inside = tmp_path / "in"
    (inside / "study").symlink_to(tmp_path / "elsewhere/study")
    (inside / "again").symlink_to(tmp_path / "elsewhere/study")
    (inside / "file.dcm").symlink_to(make_file(name="elsewhere/c.dcm"))
    (inside / "a-link-to-b.dcm").symlink_to(inside / "real/b.dcm")
    (inside / "loop").symlink_to(inside)
    (inside / "real/up").symlink_to(inside)
    (inside / "self").symlink_to(inside / "self")
    (inside / "gone").symlink_to(tmp_path / "nowhere")
    (inside / "out-link").symlink_to(tmp_path / "in/out")
    summary = run(inside, inside / "out")
    assert summary.kept == 3
    assert summary.left_out == {"duplicate-image": 5, "image-file-missing": 2}
    sources = {name for name, (reason, _) in rows(inside / "out").items() if reason == "duplicate-image"}
    assert sources == {"study", "a-link-to-b.dcm", "loop", "real/up", "out-link"}


def special(folder: Path) -> None:
    os.mkfifo(folder / "pipe.dcm")
    os.mkfifo(folder / "pipe.png")
    (folder / "null.dcm").symlink_to("/dev/null")
    here = Path.cwd()
    os.chdir(folder)  # a socket's path is short
    try:
        socket.socket(socket.AF_UNIX).bind("socket.dcm")
    finally:
        os.chdir(here)


@pytest.mark.timeout(60)
def test_special_files_are_never_opened(make_file: Make, tmp_path: Path) -> None:
    make_file(name="in/a.dcm")
    special(tmp_path / "in")
    assert run(tmp_path / "in", tmp_path / "out").left_out == {"not-readable": 4}
    assert rows(tmp_path / "out")["pipe.png"] == ("not-readable", "a FIFO, not a file")
    table = tmp_path / "table.csv"
    names = ("a.dcm", "pipe.dcm", "pipe.png", "socket.dcm", "null.dcm")
    table.write_text("image,study_id,patient_id\n" + "".join(f"in/{name},s{name},p\n" for name in names))
    assert run(table, tmp_path / "of-table").left_out == {"not-readable": 4}
    os.mkfifo(tmp_path / "pipe.csv")
    for settings in ({"input": tmp_path / "pipe.csv"}, {"input": tmp_path / "in", "reports": tmp_path / "pipe.csv"}):
        with pytest.raises(InputError, match="regular file"):
            ingest(IngestSettings(output=tmp_path / "refused", **settings))


def test_a_folder_that_cannot_be_listed_is_a_row(
    make_file: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_file(name="in/a.dcm")
    make_file(name="in/closed/b.dcm")
    scandir = os.scandir

    def refuse(path: Any) -> Any:
        if not isinstance(path, int) and Path(path).name in closed:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr("os.scandir", refuse)
    closed = {"closed"}
    assert run(tmp_path / "in", tmp_path / "out").left_out == {"not-readable": 1}
    assert rows(tmp_path / "out") == {"closed": ("not-readable", "a folder that cannot be listed (Permission denied)")}
    closed = {"in"}
    with pytest.raises(InputError, match="in: the folder cannot be listed"):
        run(tmp_path / "in", tmp_path / "other")


def test_archives_are_rows_with_the_advice_to_unpack_them(make_file: Make, tmp_path: Path) -> None:
    file = make_file(name="in/a.dcm")
    with zipfile.ZipFile(tmp_path / "in/b.zip", "w") as archive:
        archive.write(file, "b.dcm")
    for name, mode in (("c.tar", "w"), ("d.tar.gz", "w:gz"), ("e.tbz", "w:bz2"), ("without-suffix", "w:xz")):
        with tarfile.open(tmp_path / "in" / name, mode) as archive:  # type: ignore[call-overload]
            archive.add(file, "b.dcm")
    assert run(tmp_path / "in", tmp_path / "out").left_out == {"not-dicom": 5}
    assert set(rows(tmp_path / "out").values()) == {("not-dicom", "an archive: unpack it and ingest again")}


def test_the_layouts_of_data_sets_count_what_they_do_not_expect(make_mimic: Make, tmp_path: Path) -> None:
    root = make_mimic(1)
    before = run(root, tmp_path / "before").read
    image = next(root.rglob("*pa.dcm"))
    shutil.copy(image, image.with_suffix(".jpg"))
    shutil.copy(image, root / "stray.dcm")
    os.mkfifo(root / "files/pipe")
    (root / "files/p11").mkdir()
    (root / "files/p11/p11000000").symlink_to(image.parents[1])
    summary = run(root, tmp_path / "out")
    assert summary.read == before + 4
    assert summary.left_out == {"duplicate-image": 2, "not-dicom": 1, "not-frontal": 2, "not-readable": 1}


def test_names_that_are_not_utf8_stay_distinct(make_file: Make, tmp_path: Path) -> None:
    file = make_file(name="in/a.dcm")
    for name in (b"\xff", b"\xfe", b"new\nline", "ü\u202e".encode()):
        shutil.copy(file, file.parent / os.fsdecode(name))
    assert run(tmp_path / "in", tmp_path / "out").left_out == {"duplicate-image": 4}
    assert {"\\xff", "new\nline", "a.dcm"} < set(rows(tmp_path / "out"))


def picture(path: Path, seed: int | None = None) -> Path:
    """A picture of noise, another one for every name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(list(os.fsencode(path.name)) if seed is None else seed).integers(
        0, 255, (24, 20), dtype=np.uint8
    )
    Image.fromarray(values).save(path)
    return path


def test_pictures_have_ids_of_their_path(make_file: Make, tmp_path: Path) -> None:
    make_file(name="in/a.dcm", PatientID="P1", StudyInstanceUID="1.2")
    for name in ("b.png", "c.c.JPG", "p1/d.jpeg", "p1/e.png", "train/p2/s1/f.png", "train/p2/s2/g.png"):
        picture(tmp_path / "in" / name)
    (tmp_path / "in/broken.png").write_bytes(b"no picture")
    (tmp_path / "in/disguised.dcm").write_bytes((tmp_path / "in/b.png").read_bytes())
    summary = run(tmp_path / "in", tmp_path / "in/out", views="all")
    assert summary.left_out == {"not-dicom": 1, "not-readable": 1} and summary.notes == {"view-unknown": 6}
    manifest = Manifest.open(tmp_path / "in/out")
    ids = {image.image_id: (image.study_id, image.patient_id) for image in manifest.images.values() if image.notes}
    assert ids == {
        "b": ("b", "b"),
        "c.c": ("c.c", "c.c"),
        "p1/d": ("p1", "p1"),
        "p1/e": ("p1", "p1"),
        "train/p2/s1/f": ("train/p2/s1", "train/p2"),
        "train/p2/s2/g": ("train/p2/s2", "train/p2"),
    }
    # The contact sheet of the first run is not a radiograph.
    again = run(tmp_path / "in", tmp_path / "in/second", views="all")
    assert (again.digest, again.kept) == (summary.digest, 7)
    assert rows(tmp_path / "in/second")["out"] == ("not-dicom", "an output folder of cxrreport")
    assert run(tmp_path / "in/b.png", tmp_path / "single").kept == 1


def test_a_folder_of_many_pictures_is_not_one_study(tmp_path: Path) -> None:
    for number in range(9):
        picture(tmp_path / f"in/images/{number}.jpg", number)
        picture(tmp_path / f"in/{number}.png", number)
    summary = run(tmp_path / "in", tmp_path / "out")
    assert (summary.kept, summary.left_out) == (18, {})
    studies = {study.study_id: study.patient_id for study in Manifest.open(tmp_path / "out").studies()}
    assert (studies["images/3"], studies["3"]) == ("images", "3")


def test_pictures_and_their_table_of_reports(tmp_path: Path) -> None:
    for name in ("0001.jpg", "0002.jpg", "sub/0003.jpg", "0004.jpg"):
        picture(tmp_path / "in" / name)
    table = tmp_path / "in/reports.csv"
    table.write_text("study_id,patient_id,findings\n0001,P,Clear.\n0002,P,Clear.\n0003,,Normal.\n")
    summary = run(tmp_path / "in", tmp_path / "out", reports=table, require_report=True)
    assert (summary.kept, summary.left_out) == (3, {"no-report": 1})
    studies = {study.study_id: study.patient_id for study in Manifest.open(tmp_path / "out").studies()}
    assert studies == {"0001": "P", "0002": "P", "0003": "0003"}


def test_the_patient_of_a_table_of_reports_is_used_where_dicom_has_none(make_file: Make, tmp_path: Path) -> None:
    for number, patient in (("1", None), ("2", None), ("3", "H")):
        make_file(name=f"in/{number}.dcm", StudyInstanceUID=f"1.{number}", PatientID=patient)
    table = tmp_path / "reports.csv"
    table.write_text("study_id,patient_id,findings\n1.1,P,Clear.\n1.2,P,Clear.\n1.3,P,Clear.\n")
    summary = run(tmp_path / "in", tmp_path / "out", reports=table, pseudonymize=None)
    assert summary.notes == {}
    assert {study.patient_id for study in Manifest.open(tmp_path / "out").studies()} == {"P", "H"}
    key = tmp_path / "key"
    key.write_text("+Tq05oJ74zALiablosWWLw885pHz2dW8fd9Cf7A6B2w=")
    run(tmp_path / "in", tmp_path / "hidden", reports=table, pseudonymize=key)
    hidden = Manifest.open(tmp_path / "hidden").studies()
    assert len({study.patient_id for study in hidden}) == 2 and not {study.patient_id for study in hidden} & {"P", "H"}


@pytest.mark.parametrize("bad", [{"PixelData": b"\0\0"}, {"PixelData": None}, {"Rows": None}, {"PixelData": b""}])
@pytest.mark.parametrize("views", ["all", "best-frontal"])
def test_a_bad_copy_does_not_shadow_a_good_one(
    make_file: Make, tmp_path: Path, bad: dict[str, Any], views: str
) -> None:
    same = {"SOPInstanceUID": "1.1", "StudyInstanceUID": "1"}
    for order, (first, second) in {"bad-first": ("a", "b"), "good-first": ("b", "a")}.items():
        make_file(name=f"{order}/{first}.dcm", **same, **bad)
        make_file(name=f"{order}/{second}.dcm", **same)
        make_file(name=f"{order}/lateral.dcm", StudyInstanceUID="1", ViewPosition="LL")
        summary = run(tmp_path / order, tmp_path / f"out-{order}", views=views)
        assert summary.kept == (2 if views == "all" else 1)
        assert rows(tmp_path / f"out-{order}")[f"{first}.dcm"][0] in {"bad-pixel-data", "no-pixels", "duplicate-image"}
        manifest = Manifest.open(tmp_path / f"out-{order}")
        assert f"{second}.dcm" in {image.source for image in manifest.images.values()}


def test_the_copy_that_is_kept_does_not_depend_on_names(make_dataset: Any, write_dataset: Any, tmp_path: Path) -> None:
    same = {"SOPInstanceUID": "1.1", "StudyInstanceUID": "1"}
    files = [make_dataset(PixelPaddingValue=value, **same) for value in (0, 1, 2)]
    digests = set()
    for turn in range(3):
        folder = tmp_path / f"in{turn}"
        for number in range(3):
            write_dataset(folder / f"{number}.dcm", files[(number + turn) % 3])
        summary = run(folder, tmp_path / f"out{turn}")
        assert (summary.kept, summary.left_out) == (1, {"duplicate-image": 2})
        row = pq.read_table(tmp_path / f"out{turn}/manifest.parquet").to_pylist()[0]
        digests.add((row["image_sha256"], (int(row["source"][0]) + turn) % 3))
    assert len(digests) == 1


def test_copies_are_counted_whatever_becomes_of_the_image(make_file: Make, tmp_path: Path) -> None:
    for number, view in enumerate(("PA", "AP", "LL")):
        for copy in "ab":
            uid = f"1.1.{number}"
            make_file(name=f"in/{view}{copy}.dcm", SOPInstanceUID=uid, StudyInstanceUID="1", ViewPosition=view)
    make_file(name="in/broken1.dcm", SOPInstanceUID="2.1", StudyInstanceUID="2", PixelData=b"")
    make_file(name="in/broken2.dcm", SOPInstanceUID="2.1", StudyInstanceUID="2", PixelData=b"\0\0")
    summary = run(tmp_path / "in", tmp_path / "out")
    assert (summary.read, summary.kept) == (8, 1)
    assert summary.left_out["duplicate-image"] == 3
    assert run(tmp_path / "in", tmp_path / "reports", require_report=True).left_out["duplicate-image"] == 4


def manifest_texts(output: Path) -> list[str]:
    table = pq.read_table(output / "manifest.parquet").to_pylist()
    return [value for row in table for value in row.values() if isinstance(value, str)]


CLEAR = "FINDINGS: Clear – né.\nIMPRESSION: Normal.\n"
READABLE = {
    "utf-8": CLEAR.encode(),
    "utf-8 with a mark": CLEAR.encode("utf-8-sig"),
    "utf-16": CLEAR.encode("utf-16"),
    "utf-16-be": b"\xfe\xff" + CLEAR.encode("utf-16-be"),
    "utf-16 without a mark": CLEAR.encode("utf-16-le"),
    "utf-16-be without a mark": CLEAR.encode("utf-16-be"),
    "cp1252": CLEAR.encode("cp1252"),
    "two marks": "\ufeff".join(["", CLEAR[:9], CLEAR[9:]]).encode(),
}
UNREADABLE = {
    "nul": b"FINDINGS: Cl\0ear.\n",
    "replaced before": "FINDINGS: n\ufffd.".encode(),
    "undecodable": b"FINDINGS: \x81\xff.",
    "half a utf-16 character": "FINDINGS: a".encode("utf-16") + b"\0",
    "binary": bytes(range(256)),
}


@pytest.mark.parametrize("name", [*READABLE, *UNREADABLE])
def test_report_files_are_read_without_loss_or_not_at_all(make_mimic: Make, tmp_path: Path, name: str) -> None:
    root = make_mimic(2)
    report = min(root.rglob("s*.txt"))
    report.write_bytes((READABLE | UNREADABLE)[name])
    summary = run(root, tmp_path / "out", require_report=True)
    if name in READABLE:
        study = next(each for each in Manifest.open(tmp_path / "out").studies() if each.study_id == report.stem[1:])
        assert (study.report.findings, study.report.impression) == ("Clear – né.", "Normal.")
    else:
        assert summary.left_out["no-report"] == 1
        assert any("known encoding" in detail for _, detail in rows(tmp_path / "out").values())
        kept = run(root, tmp_path / "kept")
        assert kept.kept == 4 and kept.notes == {"report-unreadable": 1}
    assert not any(mark in text for text in manifest_texts(tmp_path / "out") for mark in ("\ufeff", "\0", "\ufffd"))


@pytest.mark.parametrize("text", ["n\ufffd", "a\\u0000b", "\\ud800"])
def test_texts_of_tables_that_lost_characters(make_file: Make, tmp_path: Path, text: str) -> None:
    make_file(name="in/1.dcm", StudyInstanceUID="1")
    make_file(name="in/2.dcm", StudyInstanceUID="2")
    table = tmp_path / "reports.jsonl"
    table.write_text(f'{{"study_id": "1", "findings": "{text}"}}\n{{"study_id": "2", "findings": "\\ufeffClear."}}\n')
    summary = run(tmp_path / "in", tmp_path / "out", reports=table, require_report=True)
    assert (summary.kept, summary.left_out) == (1, {"no-report": 1})
    assert Manifest.open(tmp_path / "out").studies()[0].report.findings == "Clear."
    with pytest.raises(InputError) as caught:
        (tmp_path / "r.csv").write_bytes(b"study_id,findings\n1,secret\0\n")
        run(tmp_path / "in", tmp_path / "no", reports=tmp_path / "r.csv")
    assert "secret" not in str(caught.value)


def test_a_missing_report_is_missing(make_file: Make, tmp_path: Path) -> None:
    words = ("NaN", "NA", "None", "NULL", "<NA>", "N/A", "")
    for number in range(len(words)):
        make_file(name=f"in/{number}.dcm", StudyInstanceUID=f"500{number}")
    table = tmp_path / "reports.csv"
    table.write_text("Study ID;Findings\n" + "".join(f"500{n}.0;{word}\n" for n, word in enumerate(words)))
    summary = run(tmp_path / "in", tmp_path / "out", reports=table, require_report=True)
    assert summary.left_out == {"empty-sections": 7}


def test_a_table_of_reports_in_the_layouts_of_data_sets(make_mimic: Make, tmp_path: Path) -> None:
    root = make_mimic(1)
    first, second = sorted(path.stem for path in root.rglob("s*.txt"))
    table = tmp_path / "reports.csv"
    table.write_text(f"study_id,findings\n{first},Of the table.\n{second[1:]},Other.\ns7,Alone.\n")
    summary = run(root, tmp_path / "out", reports=table, require_report=True)
    assert (summary.layout, summary.kept) == ("mimic-cxr", 2)
    assert summary.left_out == {"image-file-missing": 1, "not-frontal": 2}
    assert {each.report.findings for each in Manifest.open(tmp_path / "out").studies()} == {"Of the table.", "Other."}
    for number in (1, 2):
        picture(tmp_path / f"openi/CXR{number}_1_IM-0001-3001.png", number)
    (tmp_path / "openi/reports.csv").write_text("uid,findings,impression\n1,a,b\n2,a,b\n")
    table.write_text("study_id\tfindings\n1\tOf the table.\nCXR2\tOther.\n")
    summary = run(tmp_path / "openi", tmp_path / "out2", reports=table, require_report=True)
    assert (summary.layout, summary.kept) == ("openi", 2)
    assert [each.report.findings for each in Manifest.open(tmp_path / "out2").studies()] == ["Of the table.", "Other."]


def test_an_xml_report_that_cannot_be_parsed_is_a_row(tmp_path: Path) -> None:
    for number in (1, 2):
        picture(tmp_path / f"in/CXR{number}_IM-0001-3001.png", number)
    reports = tmp_path / "in/ecgen-radiology"
    reports.mkdir()
    (reports / "1.xml").write_text('<a><AbstractText Label="FINDINGS">Clear.</AbstractText></a>')
    (reports / "2.xml").write_text("<a><AbstractText")
    summary = run(tmp_path / "in", tmp_path / "out", require_report=True)
    assert (summary.kept, summary.left_out) == (1, {"no-report": 1})
    assert run(tmp_path / "in", tmp_path / "same", reports=reports).kept == 2
