"""`ingest`, from every layout to manifest, images and exclusion log."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ingest_runs import ledger, run, write_table
from PIL import Image
from typer.testing import CliRunner

from cxrreport.cli import app
from cxrreport.dataset import Manifest
from cxrreport.errors import InputError
from cxrreport.ingestion.ingest import IngestSummary
from cxrreport.records import Split, View

Make = Callable[..., Path]


def test_mimic_cxr(make_mimic: Make, tmp_path: Path) -> None:
    summary = run(make_mimic(), tmp_path / "out")
    assert (summary.layout, summary.official_split, summary.read, summary.kept) == ("mimic-cxr", True, 24, 12)
    assert summary.left_out == {"not-frontal": 12} and summary.notes == {}
    manifest = Manifest.open(tmp_path / "out")
    assert manifest.resolution == 224 and manifest.digest == summary.digest
    assert manifest.preprocessing == {"resolution": 224, "resize": "squash", "interpolation": "bilinear"}
    study = manifest.studies()[0]
    assert study.report.findings == f"Lungs of {study.study_id} are clear."
    assert study.report.impression == f"Normal {study.study_id}." and study.report.comparison == ""
    assert study.image_ids == (f"{study.study_id}-pa",)
    image = manifest.images[study.image_ids[0]]
    assert (image.rows, image.columns, image.view) == (48, 40, View.PA)
    assert image.source == f"files/p10/p{study.patient_id}/s{study.study_id}/{image.image_id}.dcm"
    assert [each.study_id for each in manifest.studies()] == sorted(each.study_id for each in manifest.studies())
    per_split = {split: {each.patient_id for each in manifest.studies(split)} for split in Split}
    assert {len(patients) for patients in per_split.values()} == {1, 2, 3} or sum(map(len, per_split.values())) == 6
    assert sum(len(manifest.studies(split.value)) for split in Split) == 12 == sum(summary.studies.values())
    pixels = manifest.image(image.image_id)
    assert pixels.shape == (224, 224) and pixels.dtype == np.uint8 and pixels.std() > 20
    record = json.loads((tmp_path / "out/ingest.json").read_text())
    assert record["finished"] and record["digest"] == summary.digest and record["version"]
    with Image.open(tmp_path / "out/contact_sheet.png") as sheet:
        assert sheet.width > 400


def test_mimic_cxr_jpg_with_reports_elsewhere(make_mimic: Make, tmp_path: Path) -> None:
    root = make_mimic(2)
    jpg = tmp_path / "jpg"
    for path in sorted(root.rglob("*.dcm")):
        target = (jpg / path.relative_to(root)).with_suffix(".jpg")
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.tile(np.arange(250, dtype=np.uint8), (200, 1))).save(target)
    for path in root.glob("*.csv*"):
        shutil.copy(path, jpg)
    summary = run(jpg, tmp_path / "out", reports=root)
    assert (summary.layout, summary.kept, summary.left_out) == ("mimic-cxr", 4, {"not-frontal": 4})
    assert run(jpg, tmp_path / "without").left_out == {"no-report": 4, "not-frontal": 4}


def test_mimic_cxr_counts_what_is_missing_and_what_is_not_listed(make_mimic: Make, tmp_path: Path) -> None:
    root = make_mimic(2)
    images = sorted(root.rglob("*pa.dcm"))
    images[0].unlink()
    shutil.copy(images[1], images[1].with_name("unlisted.dcm"))
    reports = sorted(root.rglob("s*.txt"))
    reports[2].write_text("FINAL REPORT\n INDICATION: Pain.\n")
    reports[3].unlink()
    summary = run(root, tmp_path / "out")
    assert summary.left_out == {
        "image-file-missing": 1,
        "no-split": 1,
        "empty-sections": 1,
        "no-report": 1,
        "not-frontal": 4,
    }
    assert summary.kept == 1
    assert {row["study_id"] for row in ledger(tmp_path / "out")} <= {path.stem[1:] for path in reports}


def test_mimic_cxr_without_tables_splits_by_patient_and_reads_views_from_headers(
    make_mimic: Make, tmp_path: Path
) -> None:
    summary = run(make_mimic(30, tables=False), tmp_path / "out")
    assert not summary.official_split and (summary.kept, summary.left_out) == (60, {"not-frontal": 60})
    manifest = Manifest.open(tmp_path / "out")
    for first, second in ((Split.TRAIN, Split.TEST), (Split.TRAIN, Split.VALIDATE), (Split.VALIDATE, Split.TEST)):
        patients = [{study.patient_id for study in manifest.studies(split)} for split in (first, second)]
        assert patients[0] and not patients[0] & patients[1]


def test_patient_in_two_splits_is_an_error(make_mimic: Make, tmp_path: Path) -> None:
    root = make_mimic(2)
    (root / "mimic-cxr-2.0.0-split.csv.gz").unlink()
    rows = ["dicom_id,study_id,subject_id,split"]
    for path in sorted(root.rglob("*.dcm")):
        study, patient = path.parent.name[1:], path.parent.parent.name[1:]
        rows.append(f"{path.stem},{study},{patient},{'train' if int(study) % 2 else 'test'}")
    (root / "mimic-cxr-2.0.0-split.csv").write_text("\n".join(rows))
    with pytest.raises(InputError, match="2 studies belong to a patient who is in another split"):
        run(root, tmp_path / "out")


def test_open_i_of_the_shared_material(shared: Path, tmp_path: Path) -> None:
    summary = run(shared / "openi", tmp_path / "out", priors="keep")
    assert (summary.layout, summary.official_split) == ("openi", False)
    assert summary.kept + summary.left_out["not-frontal"] + summary.left_out["other-view-chosen"] == 9
    manifest = Manifest.open(tmp_path / "out")
    with (shared / "openi/pairs.csv").open(encoding="utf-8", newline="") as file:
        pairs = {row["uid"]: row for row in csv.DictReader(file)}
    for study in manifest.studies():
        pair = pairs[study.study_id.removeprefix("CXR")]
        assert study.report.findings == " ".join(pair["findings"].split())
        assert study.report.impression == " ".join(pair["impression"].split())
    everything = run(shared / "openi", tmp_path / "all", views="all", resolution=448)
    assert everything.kept == 9 and everything.read == summary.read


def test_open_i_as_published_in_xml(tmp_path: Path) -> None:
    root = tmp_path / "openi"
    (root / "ecgen-radiology").mkdir(parents=True)
    (root / "NLMCXR_png").mkdir()
    for number in (1, 2):
        (root / f"ecgen-radiology/{number}.xml").write_text(
            '<eCitation><MedlineCitation><Article><Abstract><AbstractText Label="FINDINGS">Clear &amp; calm.'
            '</AbstractText><AbstractText Label="IMPRESSION"/></Abstract></Article></MedlineCitation>'
            f'<parentImage id="CXR{number}_1_IM-000{number}-3001"/></eCitation>'
        )
    Image.fromarray(np.tile(np.arange(200, dtype=np.uint8), (90, 1))).save(root / "NLMCXR_png/CXR1_1_IM-0001-3001.png")
    summary = run(root, tmp_path / "out")
    assert (summary.layout, summary.kept, summary.left_out) == ("openi", 1, {"image-file-missing": 1})
    assert Manifest.open(tmp_path / "out").studies()[0].report.findings == "Clear & calm."
    (root / "ecgen-radiology/3.xml").write_text("<eCitation>")
    assert run(root, tmp_path / "other").left_out == {"image-file-missing": 2}


def test_files_that_are_no_radiographs_are_excluded(
    shared: Path, pydicom_file: Callable[[str], Path], copy_with: Make, tmp_path: Path
) -> None:
    mixed = tmp_path / "mixed"
    (mixed / "deep/er").mkdir(parents=True)
    for name in ("CT_small.dcm", "rtplan.dcm", "README.txt"):
        shutil.copy(pydicom_file(name), mixed / "deep" / name)
    for name in ("RG1_UNCR.dcm", "RG2_RLE.dcm", "himl_constant_pixels.dcm", "rsna_6904.dcm"):
        shutil.copy(shared / "dicom" / name, mixed / "deep/er" / name)
    other_study = copy_with(shared / "dicom/RG1_J2KR.dcm", StudyInstanceUID="1.2.3")
    (mixed / "broken.dcm").write_bytes(other_study.read_bytes()[:9000])
    summary = run(mixed, tmp_path / "out", require_report=False)
    assert summary.layout == "folder" and summary.kept == 2
    reasons = {row["source"]: row["reason"] for row in ledger(tmp_path / "out")}
    assert reasons == {
        "deep/CT_small.dcm": "not-a-radiograph",
        "deep/rtplan.dcm": "no-pixels",
        "deep/README.txt": "not-dicom",
        "deep/er/RG2_RLE.dcm": "not-a-chest",
        "deep/er/himl_constant_pixels.dcm": "constant-image",
        "broken.dcm": "bad-pixel-data",
    }


def test_single_file_is_an_input(make_file: Make, tmp_path: Path) -> None:
    summary = run(make_file(StudyInstanceUID="1.2.3"), tmp_path / "out", require_report=False)
    assert (summary.layout, summary.read, summary.kept) == ("folder", 1, 1)
    assert [study.study_id for study in Manifest.open(tmp_path / "out").studies()] == ["1.2.3"]


def test_files_without_ids_get_some(make_file: Make, tmp_path: Path) -> None:
    make_file(name="in/a/x.dcm", PatientID=None, StudyInstanceUID=None)
    make_file(name="in/b/x.dcm", PatientID=None, StudyInstanceUID="1.2")
    summary = run(tmp_path / "in", tmp_path / "out", require_report=False)
    assert summary.kept == 2 and summary.notes == {"patient-id-missing": 2, "study-id-missing": 1}


def test_the_best_view_is_chosen_and_the_next_one_if_it_is_unreadable(
    make_dataset: Any, write_dataset: Any, tmp_path: Path
) -> None:
    def study(name: str, **pa: Any) -> IngestSummary:
        for view, elements in (("AP", {}), ("LL", {}), ("PA", pa)):
            dataset = make_dataset(StudyInstanceUID="1.2", SOPInstanceUID=f"1.2.{len(view)}{ord(view[0])}")
            dataset.ViewPosition = view
            for keyword, value in elements.items():
                setattr(dataset, keyword, value)
            write_dataset(tmp_path / name / f"{view}.dcm", dataset)
        return run(tmp_path / name, tmp_path / f"out-{name}", require_report=False)

    assert study("good").left_out == {"not-frontal": 1, "other-view-chosen": 1}
    assert next(iter(Manifest.open(tmp_path / "out-good").images.values())).view is View.PA
    # An unreadable PA does not exclude the study.
    assert study("broken", PixelData=b"\0\0").left_out == {"not-frontal": 1, "bad-pixel-data": 1}
    assert next(iter(Manifest.open(tmp_path / "out-broken").images.values())).view is View.AP
    every = run(tmp_path / "good", tmp_path / "every", require_report=False, views="all")
    assert every.kept == 3 and len(Manifest.open(tmp_path / "every").studies()[0].image_ids) == 3
    assert run(tmp_path / "good", tmp_path / "frontal", require_report=False, views="frontal").kept == 2


def test_duplicates_and_patients_mixed_in_a_study(make_file: Make, tmp_path: Path) -> None:
    make_file(name="in/1.dcm", SOPInstanceUID="1.1", StudyInstanceUID="1")
    make_file(name="in/2.dcm", SOPInstanceUID="1.1", StudyInstanceUID="1")
    make_file(name="in/3.dcm", SOPInstanceUID="2.1", StudyInstanceUID="2", PatientID="A")
    make_file(name="in/4.dcm", SOPInstanceUID="2.2", StudyInstanceUID="2", PatientID="B")
    summary = run(tmp_path / "in", tmp_path / "out", require_report=False)
    assert summary.left_out == {"duplicate-image": 1, "patient-conflict": 2} and summary.kept == 1
    assert [row["source"] for row in ledger(tmp_path / "out")] == ["2.dcm", "3.dcm", "4.dcm"]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_folder_with_a_table_of_reports(make_file: Make, tmp_path: Path, suffix: str) -> None:
    for number in (1, 2, 3):
        make_file(name=f"in/{number}.dcm", StudyInstanceUID=f"1.{number}", PatientID=f"P{number}")
    rows = [
        {"study_id": "1.1", "split": "test", "report": "FINDINGS: Clear.\nIMPRESSION: Normal."},
        {"study_id": "1.2", "split": "valid", "report": ""},
        {"study_id": "1.9", "split": "train", "report": "FINDINGS: Alone."},
    ]
    table = tmp_path / f"in/reports.{suffix}"
    write_table(table, rows)
    summary = run(tmp_path / "in", tmp_path / "out", reports=table)
    assert summary.left_out == {"empty-sections": 1, "image-file-missing": 1, "no-split": 1} and summary.kept == 1
    study = Manifest.open(tmp_path / "out").studies("test")[0]
    assert (study.report.findings, study.report.impression) == ("Clear.", "Normal.")
    write_table(table, [*rows, rows[0] | {"report": "FINDINGS: Effusion."}])
    with pytest.raises(InputError, match=r"study 1\.1 is there twice"):
        run(tmp_path / "in", tmp_path / "other", reports=table)
    write_table(table, [{"study": "1.1"}])
    with pytest.raises(InputError, match=r"no column is study_id.*--id-column \(columns: study\)"):
        run(tmp_path / "in", tmp_path / "another", reports=table)


def test_table_of_images(make_file: Make, tmp_path: Path) -> None:
    make_file(name="in/dicom/a.dcm", ViewPosition="AP")
    Image.fromarray(np.tile(np.arange(200, dtype=np.uint8), (90, 1))).save(tmp_path / "in/b.png")
    Image.fromarray(np.zeros((9, 9, 3), dtype=np.uint8) + np.array([0, 100, 200], dtype=np.uint8)).save(
        tmp_path / "in/c.png"
    )
    rows = [
        {"image": "dicom/a.dcm", "study_id": "s1", "patient_id": "p1", "findings": "Clear.", "view": ""},
        {"image": "b.png", "study_id": "s2", "patient_id": "p2", "findings": "A  b\nc.", "view": "PA"},
        {"image": "c.png", "study_id": "s3", "patient_id": "p3", "findings": "Colour.", "view": "PA"},
        {"image": "d.png", "study_id": "s4", "patient_id": "p4", "findings": "Gone.", "view": "PA"},
    ]
    write_table(tmp_path / "in/table.csv", rows)
    summary = run(tmp_path / "in/table.csv", tmp_path / "out")
    assert summary.layout == "table" and summary.left_out == {"colour": 1, "image-file-missing": 1}
    manifest = Manifest.open(tmp_path / "out")
    assert {image.image_id: image.view for image in manifest.images.values()} == {"dicom/a": View.AP, "b": View.PA}
    assert manifest.studies()[1].report.findings == "A b c."
    same = run(tmp_path / "in", tmp_path / "same", reports=tmp_path / "in/table.csv")
    assert (same.layout, same.digest) == ("table", summary.digest)
    write_table(tmp_path / "in/table.csv", [*rows, rows[0]])
    with pytest.raises(InputError, match="image id dicom/a"):
        run(tmp_path / "in/table.csv", tmp_path / "twice")
    write_table(tmp_path / "in/table.csv", [rows[1] | {"split": "holdout"}])
    with pytest.raises(InputError, match="train, validate, test"):
        run(tmp_path / "in/table.csv", tmp_path / "holdout")


@pytest.mark.parametrize(
    ("layout", "match"),
    [("mimic-cxr", "no images at files"), ("openi", "neither reports.csv nor XML"), ("table", "needs a table")],
)
def test_an_unknown_layout(make_file: Make, tmp_path: Path, layout: str, match: str) -> None:
    make_file(name="in/a.dcm")
    with pytest.raises(InputError, match=match):
        run(tmp_path / "in", tmp_path / "out", layout=layout)


def test_input_that_is_missing_or_empty(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        run(tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no files"):
        run(tmp_path / "empty", tmp_path / "out2")


def test_output_inside_the_input_is_not_read(make_file: Make, tmp_path: Path) -> None:
    make_file(name="in/a.dcm")
    first = run(tmp_path / "in", tmp_path / "in/out", require_report=False)
    (tmp_path / "in/out/manifest.parquet").unlink()  # makes the run go over the input again
    again = run(tmp_path / "in", tmp_path / "in/out", require_report=False)
    assert (first.read, first.digest) == (again.read, again.digest) == (1, first.digest)


def test_the_commands_of_the_readme(
    shared: Path, make_mimic: Make, make_file: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_mimic(4, name="mimic-cxr")
    for name in ("openi", "dicom"):
        (tmp_path / name).symlink_to(shared / name)
    for number in range(3):
        make_file(name=f"archive/deep/{number}.dcm", StudyInstanceUID=f"1.{number}", PatientID=f"P{number}")
    (tmp_path / "archive/notes.txt").write_text("not an image")
    rows = [{"study_id": f"1.{number}", "report": "FINDINGS: Clear."} for number in range(2)]
    write_table(tmp_path / "reports.csv", rows)
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    found = re.findall(r"^cxrreport (ingest --input .*?)(?: *#.*)?$", readme, re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    kept = {}
    for words in found:
        done = CliRunner().invoke(app, [*words.split(), "--no-track", "--json"])
        assert done.exit_code == 0, done.output
        output = tmp_path / words.split("--output ")[1].split()[0]
        facts = json.loads((output / "ingest.json").read_text())
        assert facts["read"] == facts["kept"] + sum(facts["left_out"].values())
        kept[output.name] = facts["kept"]
    assert kept["mimic-data"] == 8 and kept["data"] == 2 and kept["openi-data"] >= 4 and kept["dicom-data"] >= 4
