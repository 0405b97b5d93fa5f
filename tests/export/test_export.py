"""Documents for other systems: content, validation by external programs, refusals."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

from cxrreport import runs
from cxrreport.errors import InputError, MissingExtraError
from cxrreport.export import fhir
from cxrreport.export.structured_report import NOTICE
from cxrreport.inference.shards import row_to_json
from cxrreport.records import Prediction
from cxrreport.settings import ExportSettings, IngestSettings, TrackingSettings

needs_sr = pytest.mark.skipif(find_spec("highdicom") is None, reason="highdicom (extra sr) is not installed")
needs_fhir = pytest.mark.skipif(find_spec("fhir") is None, reason="fhir.resources (extra fhir) is not installed")
pytestmark = [needs_sr, needs_fhir]
OFF = TrackingSettings(enabled=False)


def write_radiograph(path: Path, number: int) -> Dataset:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset = Dataset()
    dataset.file_meta = meta
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = generate_uid(), generate_uid()
    dataset.PatientID, dataset.PatientName = f"P{number}", f"Müller^{number}"
    dataset.PatientBirthDate, dataset.PatientSex = "19500101", "F"
    dataset.StudyDate, dataset.StudyTime, dataset.AccessionNumber = "20240229", "101112", f"A{number}"
    dataset.Modality, dataset.BodyPartExamined, dataset.ViewPosition = "DX", "CHEST", "PA"
    dataset.Rows = dataset.Columns = 64
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    pixels = np.random.default_rng(number).integers(0, 4096, (64, 64), dtype=np.uint16)
    dataset.PixelData = pixels.tobytes()
    dataset.save_as(path, enforce_file_format=True)
    return dataset


@dataclass
class ExportCase:
    """Sources, the output of ingest, and predictions as `generate` leaves them."""

    sources: Path
    data: Path
    predictions: Path
    headers: list[Dataset]

    def rows(self) -> list[Prediction]:
        return [
            Prediction(
                study_id=str(header.StudyInstanceUID),
                patient_id=str(header.PatientID),
                image_ids=(str(header.SOPInstanceUID),),
                text=f"FINDINGS: Heart {number} < 50% – normal & clear. IMPRESSION: Nothing acute.",
                findings=f"Heart {number} < 50% – normal & clear.",
                impression="Nothing acute.",
                mean_logprob=-0.1,
                min_logprob=-0.4,
                tokens=9,
                finished=True,
            )
            for number, header in enumerate(self.headers)
        ]

    def write(self, rows: list[Prediction], **record: object) -> None:
        self.predictions.mkdir(exist_ok=True)
        (self.predictions / "predictions.jsonl").write_text(
            "".join(f"{row_to_json(row)}\n" for row in rows), encoding="utf-8"
        )
        facts = {
            "verb": "generate",
            "settings": {"input": str(self.data)},
            "finished": True,
            "baseline": "none",
            "summary": {"predictions": len(rows)},
            "inputs": {"base": "b" * 64, "adapter": "a" * 64},
            "checkpoint": {"name": "tiny"},
        }
        (self.predictions / "generate.json").write_text(json.dumps(facts | record))

    def export(self, output: Path, **changes: object) -> runs.Summary:
        given = {"predictions": self.predictions, "output": output, "tracking": OFF}
        return runs.export(ExportSettings(**given | changes))  # type: ignore[arg-type]


@pytest.fixture
def case(tmp_path: Path) -> ExportCase:
    sources = tmp_path / "dicom"
    sources.mkdir()
    headers = [write_radiograph(sources / f"{number}.dcm", number) for number in range(3)]
    data = tmp_path / "data"
    runs.ingest(IngestSettings(input=sources, output=data, layout="folder", require_report=False, tracking=OFF))
    made = ExportCase(sources, data, tmp_path / "reports", headers)
    made.write(made.rows())
    return made


def documents(output: Path, kind: str) -> dict[str, Path]:
    rows = pq.read_table(output / "exported.parquet").to_pylist()
    return {row["study_id"]: output / row["file"] for row in rows if row["format"] == kind}


def ledger(output: Path) -> dict[str, str]:
    return {row["study_id"]: row["reason"] for row in pq.read_table(output / "ledger.parquet").to_pylist()}


def test_structured_report_has_a_title_and_refers_to_its_image(case: ExportCase, tmp_path: Path) -> None:
    summary = case.export(tmp_path / "out")
    assert summary.facts == {"predictions": 3, "exported": 3, "refused": {}}
    written = documents(tmp_path / "out", "sr")
    assert len(written) == 3
    for header, row in zip(case.headers, case.rows(), strict=True):
        report = pydicom.dcmread(written[row.study_id])
        assert (report.CompletionFlag, report.VerificationFlag, report.PreliminaryFlag) == (
            "PARTIAL",
            "UNVERIFIED",
            "PRELIMINARY",
        )
        assert report.SeriesDescription == NOTICE
        assert "research" in NOTICE.lower() and "AI-generated, not for clinical use" in NOTICE
        assert report.StudyInstanceUID == header.StudyInstanceUID
        assert report.SeriesInstanceUID != header.SeriesInstanceUID
        assert (report.PatientID, str(report.PatientName)) == (header.PatientID, str(header.PatientName))
        assert report.ContentTemplateSequence[0].TemplateIdentifier == "2000"
        evidence = report.CurrentRequestedProcedureEvidenceSequence[0]
        assert evidence.StudyInstanceUID == header.StudyInstanceUID
        series = evidence.ReferencedSeriesSequence[0]
        assert series.SeriesInstanceUID == header.SeriesInstanceUID
        assert series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == header.SOPInstanceUID
        contained = [item for item in report.ContentSequence if item.RelationshipType == "CONTAINS"]
        texts = [item.ContentSequence[0] for item in contained]
        assert [text.TextValue for text in texts] == [f"{NOTICE}.", row.findings, row.impression]
        for text in texts[1:]:
            image = text.ContentSequence[0]
            assert image.RelationshipType == "INFERRED FROM"
            assert image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == header.SOPInstanceUID


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (Debian: dicom3tools) is not installed")
def test_dciodvfy_reports_no_error(case: ExportCase, tmp_path: Path) -> None:
    case.export(tmp_path / "out", formats=("sr",))
    for file in documents(tmp_path / "out", "sr").values():
        done = subprocess.run(["dciodvfy", str(file)], capture_output=True, text=True, check=False)
        said = done.stdout + done.stderr
        assert "EnhancedSR" in said
        assert not [row for row in said.splitlines() if row.startswith("Error")], said
        assert done.returncode == 0


@pytest.mark.skipif(shutil.which("dsrdump") is None, reason="dsrdump (Debian: dcmtk) is not installed")
def test_dsrdump_shows_the_report(case: ExportCase, tmp_path: Path) -> None:
    case.export(tmp_path / "out", formats=("sr",))
    row = case.rows()[1]
    file = documents(tmp_path / "out", "sr")[row.study_id]
    shown = subprocess.run(["dsrdump", "+Pl", str(file)], capture_output=True, text=True, check=True).stdout
    for text in (NOTICE, row.findings, row.impression, "PARTIAL", "UNVERIFIED"):
        assert text in shown
    assert shown.index(NOTICE) < shown.index(row.findings) < shown.index(row.impression)


def test_diagnostic_report_is_preliminary_and_valid(case: ExportCase, tmp_path: Path) -> None:
    case.export(tmp_path / "out", formats=("fhir",))
    assert not (tmp_path / "out/sr").exists()
    for header, row in zip(case.headers, case.rows(), strict=True):
        text = documents(tmp_path / "out", "fhir")[row.study_id].read_text(encoding="utf-8")
        fhir.import_resources()[0].model_validate_json(text)
        resource = json.loads(text)
        assert resource["resourceType"] == "DiagnosticReport"
        assert resource["status"] == "preliminary"
        assert resource["code"]["coding"] == [{"system": "http://loinc.org", "code": "30745-4"}]
        assert resource["imagingStudy"][0]["identifier"] == {
            "system": "urn:dicom:uid",
            "value": f"urn:oid:{header.StudyInstanceUID}",
        }
        assert resource["subject"]["identifier"]["value"] == header.PatientID
        assert resource["extension"][0]["valueString"] == NOTICE
        assert resource["meta"]["security"][0]["code"] == "AIAST"
        assert resource["conclusion"] == f"{NOTICE}.\nFindings: {row.findings}\nImpression: {row.impression}"
        assert "&lt; 50%" in resource["text"]["div"]


def test_missing_or_changed_sources_are_rows(case: ExportCase, tmp_path: Path) -> None:
    gone, changed, kept = (case.sources / f"{number}.dcm" for number in range(3))
    gone.unlink()
    write_radiograph(changed, 1)  # another instance UID
    summary = case.export(tmp_path / "out")
    ids = [row.study_id for row in case.rows()]
    assert ledger(tmp_path / "out") == {ids[0]: "image-file-missing", ids[1]: "source-changed"}
    assert summary.facts == {
        "predictions": 3,
        "exported": 1,
        "refused": {"image-file-missing": 1, "source-changed": 1},
    }
    assert list(documents(tmp_path / "out", "sr")) == [ids[2]]
    assert kept.exists()


def test_a_source_that_is_not_dicom_is_a_row(case: ExportCase, tmp_path: Path) -> None:
    (case.sources / "0.dcm").write_bytes(b"not DICOM at all" * 20)
    broken = pydicom.dcmread(case.sources / "1.dcm")
    del broken.SeriesInstanceUID
    broken.save_as(case.sources / "1.dcm")
    case.export(tmp_path / "out")
    ids = [row.study_id for row in case.rows()]
    assert ledger(tmp_path / "out") == {ids[0]: "not-dicom", ids[1]: "not-readable"}


def test_pseudonymised_images_are_refused(case: ExportCase, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("+Tq05oJ74zALiablosWWLw885pHz2dW8fd9Cf7A6B2w=")
    data = tmp_path / "hidden"
    runs.ingest(
        IngestSettings(
            input=case.sources, output=data, layout="folder", require_report=False, pseudonymize=key, tracking=OFF
        )
    )
    summary = case.export(tmp_path / "out", data=data)
    assert summary.facts["refused"] == {"source-pseudonymised": 3}
    assert summary.warnings
    assert not (tmp_path / "out/sr").exists()


def test_the_same_command_resumes_and_repeats_nothing(case: ExportCase, tmp_path: Path) -> None:
    case.export(tmp_path / "out")
    first = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.dcm")}
    gone = next(iter(first))
    gone.unlink()
    record = json.loads((tmp_path / "out/export.json").read_text())
    (tmp_path / "out/export.json").write_text(json.dumps(record | {"finished": False}))
    (tmp_path / "out/sr/.partial-1-x.dcm").write_bytes(b"half")
    assert case.export(tmp_path / "out").facts["exported"] == 3
    second = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.dcm")}
    assert second.keys() == first.keys()
    assert all(second[path] == first[path] for path in first if path != gone)
    assert not list((tmp_path / "out").rglob(".partial-*"))


def test_empty_reports_baselines_and_unfinished_runs(case: ExportCase, tmp_path: Path) -> None:
    rows = case.rows()
    case.write([replace(rows[0], findings="", impression=""), *rows[1:]])
    case.export(tmp_path / "out")
    assert ledger(tmp_path / "out") == {rows[0].study_id: "empty-sections"}
    case.write(rows, baseline="shuffled")
    with pytest.raises(InputError, match="baseline"):
        case.export(tmp_path / "baseline")
    case.write(rows, finished=False)
    with pytest.raises(InputError, match="generate has not finished"):
        case.export(tmp_path / "unfinished")
    case.write(rows)
    (case.predictions / "predictions.jsonl").write_text('{"study_id": "x"}\n')
    with pytest.raises(InputError, match="line 1"):
        case.export(tmp_path / "damaged")


def test_a_missing_library_is_named_before_anything_is_written(
    case: ExportCase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("highdicom", "fhir.resources.R4B.diagnosticreport"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=r"cxrreport\[sr\]"):
        case.export(tmp_path / "out")
    with pytest.raises(MissingExtraError, match=r"cxrreport\[fhir\]"):
        case.export(tmp_path / "two", formats=("fhir",))


def test_a_document_refers_to_the_images_of_its_own_study(case: ExportCase, tmp_path: Path) -> None:
    """A report of two studies, the second of which is the prior one; without saying so, it is refused."""
    first, second, third = case.rows()
    both = (*first.image_ids, *second.image_ids)
    compared = replace(first, image_ids=both, prior_study_id=second.study_id)
    case.write([compared, replace(third, image_ids=(*third.image_ids, *second.image_ids))])
    case.export(tmp_path / "out")
    assert ledger(tmp_path / "out") == {third.study_id: "source-changed"}
    (document,) = documents(tmp_path / "out", "sr").values()
    (evidence,) = pydicom.dcmread(document).CurrentRequestedProcedureEvidenceSequence
    assert evidence.StudyInstanceUID == first.study_id
    referenced = [
        one.ReferencedSOPInstanceUID for part in evidence.ReferencedSeriesSequence for one in part.ReferencedSOPSequence
    ]
    assert referenced == list(first.image_ids)


@pytest.mark.parametrize("prompt", [{}, {"views": "frontal+lateral"}, {"prior": "report"}])
def test_the_script_for_rexrank_says_what_it_does_not_read(
    prompt: dict[str, str], case: ExportCase, tmp_path: Path
) -> None:
    """Files of ReXrank name neither views nor prior studies."""
    inputs = {"base": "b" * 64, "adapter": "a" * 64, "prompt": prompt}
    case.write(case.rows(), inputs=inputs)
    case.export(tmp_path / "out", formats=("rexrank",))
    script = (tmp_path / "out/inference.py").read_text()
    compile(script, "inference.py", "exec")
    assert ("the key image of each study alone" in script) == bool(prompt)
    assert "max_images=1," in script


def test_rexrank_is_one_file_that_evaluate_reads(case: ExportCase, tmp_path: Path) -> None:
    from cxrreport.evaluation.inputs.tables import read_predictions, read_references

    case.export(tmp_path / "out", formats=("rexrank",))
    assert not (tmp_path / "out/sr").exists()
    script = (tmp_path / "out/inference.py").read_text()
    compile(script, "inference.py", "exec")
    assert "--img_root_dir" in script and "resolution=" in script
    file = tmp_path / "out/rexrank.json"
    rows = {row.study_id: row for row in case.rows()}
    assert json.loads(file.read_text(encoding="utf-8")).keys() == rows.keys()
    found = read_predictions(file, "findings+impression")
    assert found.texts == {name: f"{row.findings} {row.impression}".strip() for name, row in rows.items()}
    listed = pq.read_table(tmp_path / "out/exported.parquet").to_pylist()
    assert {(row["study_id"], row["file"]) for row in listed} == {(name, "rexrank.json") for name in rows}
    entry = next(iter(json.loads(file.read_text(encoding="utf-8")).values()))
    assert entry["section_findings"] == "" and entry["image_path"] and entry["subject_id"].startswith("P")
    with pytest.raises(InputError, match="no study has section_findings"):
        read_references(file, "findings")
