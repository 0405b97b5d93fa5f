"""The verb ingest, from every layout to manifest, images and ledger; stopped, gone on with, and given bad input."""

from __future__ import annotations

import csv
import json
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from typer.testing import CliRunner

from cxrreport.cli import app
from cxrreport.dataset import Covariates, Manifest, content_digest
from cxrreport.errors import InputError, ManifestError, OutputError
from cxrreport.ingestion import ingest as pipeline
from cxrreport.ingestion.ingest import IngestSummary, ingest
from cxrreport.records import Split, View
from cxrreport.settings import IngestSettings

Make = Callable[..., Path]


def run(source: Path, output: Path, **settings: Any) -> IngestSummary:
    summary = ingest(IngestSettings(input=source, output=output, **settings))
    assert summary.read == summary.kept + sum(summary.left_out.values())
    assert pq.read_metadata(output / "ledger.parquet").num_rows == sum(summary.left_out.values())
    assert not (output / ".parts").exists()
    return summary


def ledger(output: Path) -> list[dict[str, str]]:
    rows: list[dict[str, str]] = pq.read_table(output / "ledger.parquet").to_pylist()
    return rows


# --- Layouts ---


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


def test_folder_of_real_files_goes_on_past_what_is_no_radiograph(
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


def test_best_view_and_what_stands_in_for_it(make_dataset: Any, write_dataset: Any, tmp_path: Path) -> None:
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
    # A PA that cannot be read does not cost the study.
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
    with pytest.raises(InputError, match="no column study_id; found study"):
        run(tmp_path / "in", tmp_path / "another", reports=table)


def write_table(path: Path, rows: list[dict[str, str]]) -> None:
    if path.suffix == ".parquet":
        import pyarrow as pa

        pq.write_table(pa.Table.from_pylist(rows), path)
        return
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


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
def test_layout_that_is_not_there(make_file: Make, tmp_path: Path, layout: str, match: str) -> None:
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


# --- The digest, stopping and going on ---


def test_digest_depends_on_content_only(make_mimic: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_mimic()
    digest = run(root, tmp_path / "one").digest
    moved = root.rename(tmp_path / "moved")
    monkeypatch.setattr(pipeline, "STUDIES_PER_SHARD", 5)
    assert run(moved, tmp_path / "two", workers=2).digest == digest
    assert len(list((tmp_path / "two/images").iterdir())) == 3
    one, two = Manifest.open(tmp_path / "one"), Manifest.open(tmp_path / "two")
    assert all(np.array_equal(one.image(image_id), two.image(image_id)) for image_id in one.images)
    assert run(moved, tmp_path / "padded", resize="pad").digest != digest
    report = next(moved.rglob("s*.txt"))
    report.write_text(report.read_text().replace("Normal", "Abnormal"))
    assert run(moved, tmp_path / "three").digest != digest


def test_second_time_does_nothing(make_mimic: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_mimic(2)
    first = run(root, tmp_path / "out")
    monkeypatch.setattr(pipeline, "list_sources", None)
    again = run(root, tmp_path / "out", workers=2)
    assert replace(again, resumed=False) == first and again.resumed
    with pytest.raises(OutputError, match="resolution was 224 and is 448"):
        run(root, tmp_path / "out", resolution=448)
    with pytest.raises(OutputError, match="contains no ingest"):
        run(root, root)


def test_going_on_redoes_only_what_is_missing(
    make_mimic: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_mimic()
    monkeypatch.setattr(pipeline, "STUDIES_PER_SHARD", 5)
    undisturbed = run(root, tmp_path / "one")
    read, calls = pipeline.read_study, []

    def stops_in_the_second_shard(item: Any, settings: IngestSettings) -> Any:
        calls.append(item.study.study_id)
        if len(calls) == 8:
            raise KeyboardInterrupt
        return read(item, settings)

    monkeypatch.setattr(pipeline, "read_study", stops_in_the_second_shard)
    with pytest.raises(KeyboardInterrupt):
        run(root, tmp_path / "two")
    with pytest.raises(ManifestError, match="re-run the same ingest command"):
        Manifest.open(tmp_path / "two")
    progress: list[tuple[int, int, str]] = []
    summary = ingest(
        IngestSettings(input=root, output=tmp_path / "two"),
        lambda done, total, label: progress.append((done, total, label)),
    )
    assert len(calls) == 8 + 7  # five of the first shard are not read again
    assert summary.resumed and summary.digest == undisturbed.digest and summary.read == undisturbed.read
    studies = [step for step in progress if step[2] == "studies"]
    assert studies[0] == (5, 12, "studies") and studies[-1] == (12, 12, "studies")


def test_image_shard_that_was_lost_is_made_again(
    make_mimic: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_mimic()
    monkeypatch.setattr(pipeline, "STUDIES_PER_SHARD", 5)
    digest = run(root, tmp_path / "one").digest
    monkeypatch.setattr(pipeline, "write_manifest", None)
    with pytest.raises(TypeError):
        run(root, tmp_path / "two")
    monkeypatch.undo()
    monkeypatch.setattr(pipeline, "STUDIES_PER_SHARD", 5)
    (tmp_path / "two/images/00001.parquet").unlink()
    assert run(root, tmp_path / "two").digest == digest


DRIVER = """
import sys
from pathlib import Path
from cxrreport.ingestion import ingest as pipeline
from cxrreport.dataset import Covariates
from cxrreport.settings import IngestSettings
if __name__ == "__main__":
    pipeline.STUDIES_PER_SHARD = 4
    settings = IngestSettings(input=Path(sys.argv[1]), output=Path(sys.argv[2]), workers=int(sys.argv[3]))
    pipeline.ingest(settings, lambda done, total, label: print(label, done, flush=True))
"""


AT_ONCE = [("studies 10", 1), ("studies 10", 2)]
LATER = [("headers 3", 1), ("studies 0", 2), ("studies 23", 2), ("studies 24", 1)]


@pytest.mark.parametrize(
    ("moment", "workers"), [*AT_ONCE, *(pytest.param(*each, marks=pytest.mark.slow) for each in LATER)]
)
def test_sigkill_and_the_same_command_again(make_mimic: Make, tmp_path: Path, moment: str, workers: int) -> None:
    root = make_mimic(12, tables=moment != "headers 3")
    driver = tmp_path / "driver.py"
    driver.write_text(DRIVER)
    command = [sys.executable, str(driver), str(root), str(tmp_path / "killed"), str(workers)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    for line in child.stdout:
        if line == f"{moment}\n":
            break
    else:
        pytest.fail(f"the run ended before {moment}")
    workers_of_child = children(child.pid)
    assert len(workers_of_child) >= (workers if workers > 1 and moment != "studies 0" else 0)
    child.send_signal(signal.SIGKILL)
    child.wait(timeout=20)
    if moment == "studies 10":
        assert not (tmp_path / "killed/manifest.parquet").exists()
        assert (tmp_path / "killed/.parts").is_dir()
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in workers_of_child) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers_of_child), "workers outlive their parent"
    # How many workers there are does not matter to what is made.
    subprocess.run([*command[:-1], "1"], check=True, capture_output=True, timeout=120)
    whole = run(root, tmp_path / "whole")
    manifest = Manifest.open(tmp_path / "killed")
    assert manifest.digest == whole.digest and len(manifest.studies()) == 24
    assert not [path for path in (tmp_path / "killed").rglob("*") if path.name.startswith(".partial")]


def children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_a_disk_that_is_full_anywhere(make_mimic: Make, tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk: every write past it fails with the system's own error."""
    root = make_mimic(4)
    whole = run(root, tmp_path / "whole")
    command = [sys.executable, "-m", "cxrreport", "ingest", "--input", root, "--output", tmp_path / "out", "--no-track"]
    images = (tmp_path / "whole/images/00000.parquet").stat().st_size
    for limit in (1_000, images - 1):  # the state file; the images
        limited = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        done = subprocess.run(command, capture_output=True, text=True, preexec_fn=limited)
        assert done.returncode == 2 and "the disk is full" in done.stderr, done.stderr
        assert not (tmp_path / "out/manifest.parquet").exists()
    assert run(root, tmp_path / "out").digest == whole.digest
    assert not [path for path in (tmp_path / "out").rglob("*") if path.name.startswith(".partial")]


def test_a_second_run_into_one_folder_is_refused(
    make_mimic: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, refusals = make_mimic(2), []
    read = pipeline.read_study

    def second_run(study: Any, settings: IngestSettings) -> Any:
        if not refusals:
            with pytest.raises(OutputError, match="another run"):
                run(root, tmp_path / "out")
            refusals.append(1)
        return read(study, settings)

    monkeypatch.setattr(pipeline, "read_study", second_run)
    assert run(root, tmp_path / "out").kept == 4 and refusals


def test_full_disk_is_a_clear_error_and_the_run_goes_on_later(
    make_mimic: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_mimic(2)

    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("cxrreport.dataset.image_store.pq.write_table", full)
        with pytest.raises(OutputError, match="the disk is full"):
            run(root, tmp_path / "out")
    assert list((tmp_path / "out/images").iterdir()) == []
    assert run(root, tmp_path / "out").kept == 4


def test_content_digest_ignores_the_order_of_rows(make_mimic: Make, tmp_path: Path) -> None:
    run(make_mimic(2), tmp_path / "out")
    table = pq.read_table(tmp_path / "out/manifest.parquet")
    assert table.schema.metadata[b"cxrreport.schema"] == b"1"
    assert content_digest([], {"resolution": 224}) != content_digest([], {"resolution": 448})
    assert table.column_names == [
        *("image_id", "study_id", "patient_id", "split", "view", "source", "rows", "columns", "notes", "image_sha256"),
        *("indication", "technique", "comparison", "findings", "impression"),
    ]


def test_same_reports_across_splits_are_counted(make_mimic: Make, tmp_path: Path) -> None:
    root = make_mimic(4)
    for path in root.rglob("s*.txt"):
        path.write_text("FINDINGS: Clear.\nIMPRESSION: Normal.")
    summary = run(root, tmp_path / "out")
    assert summary.reports_in_several_splits == summary.studies["train"] > 0


def test_nearly_the_same_reports_across_splits_are_counted(make_mimic: Make, tmp_path: Path) -> None:
    root = make_mimic(4)
    words = " ".join(f"word{number}" for number in range(40))
    for number, path in enumerate(sorted(root.rglob("s*.txt"))):
        path.write_text(f"FINDINGS: {words} end{number}.\nIMPRESSION: Normal.")
    summary = run(root, tmp_path / "out")
    assert summary.reports_in_several_splits == 0
    assert summary.near_duplicate_reports == summary.studies["validate"] + summary.studies["test"] > 0


# --- Arrays of jobs ---


def test_shards_come_together_as_one_run(make_mimic: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_mimic()
    monkeypatch.setattr(pipeline, "STUDIES_PER_SHARD", 2)
    whole = run(root, tmp_path / "whole")
    summaries = []
    for shard in ("1/3", "3/3"):
        settings = IngestSettings(input=root, output=tmp_path / "out", shard=shard)
        summaries.append(ingest(settings))
        assert ingest(settings).resumed
    assert [summary.kept for summary in summaries] == [4, 4] and summaries[0].digest == ""
    assert all(summary.read == summary.kept + sum(summary.left_out.values()) for summary in summaries)
    assert not (tmp_path / "out").exists()
    read, calls = pipeline.read_study, []
    monkeypatch.setattr(pipeline, "read_study", lambda study, settings: calls.append(1) or read(study, settings))
    summary = run(root, tmp_path / "out")
    assert len(calls) == 4  # the shard 2/3 that never ran
    assert (summary.digest, summary.read, summary.left_out) == (whole.digest, whole.read, whole.left_out)
    assert not (tmp_path / "out.shards").exists()
    one, two = Manifest.open(tmp_path / "whole"), Manifest.open(tmp_path / "out")
    assert all(np.array_equal(one.image(image_id), two.image(image_id)) for image_id in one.images)


def test_shards_of_other_settings_are_not_taken(make_mimic: Make, tmp_path: Path) -> None:
    root = make_mimic(2)
    ingest(IngestSettings(input=root, output=tmp_path / "out", shard="1/2", resolution=448))
    with pytest.raises(OutputError, match="other settings"):
        run(root, tmp_path / "out")


def test_shards_of_an_input_that_has_changed_are_done_again(make_mimic: Make, tmp_path: Path) -> None:
    root = make_mimic(2)
    ingest(IngestSettings(input=root, output=tmp_path / "out", shard="1/1"))
    report = next(root.rglob("s*.txt"))
    report.write_text(report.read_text().replace("Normal", "Abnormal"))
    assert run(root, tmp_path / "out").digest == run(root, tmp_path / "whole").digest


@pytest.mark.parametrize("shard", ["0/2", "3/2", "1", "a/b", "1/0"])
def test_shards_that_make_no_sense(shard: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="shard"):
        IngestSettings(input=tmp_path, output=tmp_path / "out", shard=shard)


# --- What may be known of a patient ---


def test_covariates_only_when_asked(make_file: Make, tmp_path: Path) -> None:
    facts = {"PatientSex": "F", "Manufacturer": "FUJIFILM Corporation", "PatientAge": "093Y"}
    make_file(name="in/1.dcm", StudyInstanceUID="1.1", PatientID="A", **facts)
    make_file(
        name="in/2.dcm",
        StudyInstanceUID="1.2",
        PatientID="B",
        PatientBirthDate="19500601",
        StudyDate="20200101",
        ViewPosition="AP",
    )
    plain = run(tmp_path / "in", tmp_path / "plain", require_report=False)
    assert Manifest.open(tmp_path / "plain").covariates == {}
    assert "sex" not in pq.read_schema(tmp_path / "plain/manifest.parquet").names
    asked = run(tmp_path / "in", tmp_path / "asked", require_report=False, covariates=True)
    assert asked.digest != plain.digest
    manifest = Manifest.open(tmp_path / "asked")
    known = {manifest.images[image_id].study_id: facts for image_id, facts in manifest.covariates.items()}
    assert known == {
        "1.1": Covariates(sex="F", age_band="90+", projection="PA", manufacturer="Fujifilm"),
        "1.2": Covariates(age_band="60-69", projection="AP"),
    }
    written = b"".join(path.read_bytes() for path in (tmp_path / "asked").rglob("*") if path.is_file())
    assert b"093Y" not in written and b"19500601" not in written and b"Corporation" not in written


def test_covariates_of_a_table(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    Image.fromarray(np.tile(np.arange(200, dtype=np.uint8), (90, 1))).save(tmp_path / "in/b.png")
    row = {
        "image": "b.png",
        "study_id": "s",
        "patient_id": "p",
        "findings": "A.",
        "sex": "male",
        "age": "43",
        "view": "AP",
    }
    write_table(tmp_path / "in/table.csv", [row])
    run(tmp_path / "in/table.csv", tmp_path / "out", covariates=True)
    assert Manifest.open(tmp_path / "out").covariates == {"b": Covariates(sex="M", age_band="40-49", projection="AP")}


def test_covariates_go_on_after_a_stop(make_mimic: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_mimic(2)
    monkeypatch.setattr(pipeline, "write_manifest", None)
    with pytest.raises(TypeError):
        run(root, tmp_path / "out", covariates=True)
    monkeypatch.undo()
    assert run(root, tmp_path / "out", covariates=True).resumed
    assert {each.projection for each in Manifest.open(tmp_path / "out").covariates.values()} == {"PA"}


def test_nothing_of_the_patient_is_written(
    make_dataset: Callable[..., Dataset], write_dataset: Any, tmp_path: Path
) -> None:
    dataset = make_dataset(
        PatientID="P1", AccessionNumber="CANARY1", InstitutionName="CANARY CLINIC", StudyDate="20010203"
    )
    write_dataset(tmp_path / "in/a.dcm", dataset)
    run(tmp_path / "in", tmp_path / "out", require_report=False)
    for path in (tmp_path / "out").rglob("*"):
        if path.is_file():
            assert b"CANARY" not in path.read_bytes() and b"20010203" not in path.read_bytes()
