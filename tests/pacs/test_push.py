"""Push: documents arrive in their studies, once, and only where the patient agrees; nothing else changes."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pacs.conftest import OFF, export_fixed, write_radiograph
from pacs.fake_web import fake_web
from pacs.servers import Orthanc, dcmqrscp, needs_dcmtk, needs_orthanc, orthanc, send

from cxrreport import runs
from cxrreport.export.structured_report import NOTICE
from cxrreport.settings import PushSettings, build


def settings(documents: Path, output: Path, **values: object) -> PushSettings:
    given = {"documents": documents, "output": output, "tracking": OFF, "attempts": 2} | values
    return build(PushSettings, given, where="test")


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sources")
    for number in range(3):
        write_radiograph(folder / f"{number}.dcm", number)
    return folder


@pytest.fixture(scope="module")
def documents(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_fixed(sources, tmp_path_factory.mktemp("work"), ("sr", "sc", "imr"))


@pytest.fixture
def archive(sources: Path, tmp_path: Path) -> Iterator[Orthanc]:
    with orthanc(tmp_path / "orthanc") as server:
        server.store(*sorted(sources.glob("*.dcm")))
        yield server


@needs_orthanc
@pytest.mark.parametrize("way", ["dicomweb", "node"])
def test_documents_arrive_in_their_studies_once(
    archive: Orthanc, sources: Path, documents: Path, tmp_path: Path, way: str
) -> None:
    before = archive.digests()
    to = getattr(archive, way)
    summary = runs.push(settings(documents, tmp_path / "pushed", archive=to))
    assert summary.facts == {"documents": 6, "sent": 6, "present": 0, "refused": {}, "failed": {}}
    after = archive.digests()
    assert {uid: after[uid] for uid in before} == before
    assert len(after) == len(before) + 6
    headers = {str(one.StudyInstanceUID): one for one in map(pydicom.dcmread, sources.glob("*.dcm"))}
    for modality in ("SR", "OT"):
        sent = archive.instances(modality)
        assert {row["StudyInstanceUID"] for row in sent} == set(headers)
        for row in sent:
            assert row["PatientID"] == headers[row["StudyInstanceUID"]].PatientID
            assert row["SeriesDescription"] == NOTICE
    # The archive has them: sent again by a command that does not know it, they are not stored again.
    again = runs.push(settings(documents, tmp_path / "again", archive=to))
    assert again.facts == {"documents": 6, "sent": 0, "present": 6, "refused": {}, "failed": {}}
    assert archive.digests() == after


@needs_orthanc
def test_another_patient_and_an_unknown_study_are_refused(
    archive: Orthanc, documents: Path, tmp_path: Path, sources: Path
) -> None:
    for number, row in enumerate(archive.get("/studies?expand")):
        if number == 0:
            archive.delete(f"/studies/{row['ID']}")
        elif number == 1:
            uid = row["MainDicomTags"]["StudyInstanceUID"]
            changed = pydicom.dcmread(next(path for path in sources.glob("*.dcm") if _study(path) == uid))
            archive.delete(f"/studies/{row['ID']}")
            changed.PatientID = "SOMEBODY ELSE"
            changed.save_as(tmp_path / "changed.dcm")
            archive.store(tmp_path / "changed.dcm")
    before = archive.digests()
    summary = runs.push(settings(documents, tmp_path / "pushed", archive=archive.dicomweb))
    assert summary.facts["refused"] == {"study-unknown": 2, "other-patient": 2}
    assert summary.facts["sent"] == 2
    assert len(archive.digests()) == len(before) + 2
    sent = runs.push(settings(documents, tmp_path / "sent", archive=archive.dicomweb, unknown_study="send"))
    assert sent.facts["refused"] == {"other-patient": 2}
    assert (sent.facts["sent"], sent.facts["present"]) == (2, 2)


def _study(path: Path) -> str:
    return str(pydicom.dcmread(path, stop_before_pixels=True).StudyInstanceUID)


@needs_dcmtk
def test_c_store_into_dcmtk(sources: Path, documents: Path, tmp_path: Path) -> None:
    with dcmqrscp(tmp_path / "server", 1) as node:
        send(node, *sorted(sources.glob("*.dcm")))
        summary = runs.push(settings(documents, tmp_path / "pushed", archive=node))
    assert summary.facts["sent"] == 6


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (Debian: dicom3tools) is not installed")
@pytest.mark.parametrize(("kind", "name"), [("sr", "EnhancedSR"), ("sc", "SCImage")])
def test_dciodvfy_reports_no_error(documents: Path, kind: str, name: str) -> None:
    files = sorted((documents / kind).glob("*.dcm"))
    assert len(files) == 3
    for file in files:
        done = subprocess.run(["dciodvfy", str(file)], capture_output=True, text=True, check=False)
        said = done.stdout + done.stderr
        assert name in said
        assert not [row for row in said.splitlines() if row.startswith("Error")], said


def test_an_archive_that_says_200_and_stores_nothing_is_found_out(documents: Path, tmp_path: Path) -> None:
    def answer(method: str, path: str, body: bytes) -> Any:
        if method == "GET" and "/instances" not in path:
            uid = path.partition("StudyInstanceUID=")[2].partition("&")[0]
            file = next(one for one in (documents / "sr").glob("*.dcm") if _study(one) == uid)
            patient = str(pydicom.dcmread(file).PatientID)
            return 200, [{"0020000D": {"vr": "UI", "Value": [uid]}, "00100020": {"vr": "LO", "Value": [patient]}}]
        return 200, [] if method == "GET" else {}

    with fake_web(answer) as server:
        summary = runs.push(settings(documents, tmp_path / "pushed", archive=server.url))
    assert summary.facts["sent"] == 0
    assert summary.facts["failed"] == {"not-stored": 6}
    assert not json.loads((tmp_path / "pushed/push.json").read_text())["finished"]


def test_bundles_are_posted_and_a_wrong_answer_is_a_failure(documents: Path, tmp_path: Path) -> None:
    received: list[dict[str, Any]] = []

    def answer(method: str, path: str, body: bytes) -> Any:
        bundle = json.loads(body)
        received.append(bundle)
        if len(received) == 1:
            return 200, {"type": "searchset"}
        return 200, {"type": "transaction-response", "entry": [{"response": {"status": "201"}}] * len(bundle["entry"])}

    with fake_web(answer) as server:
        summary = runs.push(settings(documents, tmp_path / "pushed", fhir=f"{server.url}/fhir"))
        assert (summary.facts["sent"], summary.facts["failed"]) == (2, {"not-stored": 1})
        summary = runs.push(settings(documents, tmp_path / "pushed", fhir=f"{server.url}/fhir"))
        assert (summary.facts["sent"], summary.facts["failed"]) == (3, {})
    assert len(received) == 4
    for bundle in received:
        assert bundle["type"] == "transaction"
        kinds = [entry["resource"]["resourceType"] for entry in bundle["entry"]]
        assert set(kinds) == {
            *("DiagnosticReport", "ServiceRequest", "Patient", "Organization", "Practitioner", "Observation"),
            "ImagingStudy",
        }
        links = {entry["fullUrl"] for entry in bundle["entry"]}
        report = bundle["entry"][0]["resource"]
        assert report["status"] == "preliminary"
        assert report["presentedForm"][0]["contentType"] == "text/html"
        used = [report["subject"], *report["basedOn"], *report["result"], *report["imagingStudy"], *report["performer"]]
        assert {one["reference"] for one in used} <= links
        assert all(NOTICE in json.dumps(e["resource"]) for e in bundle["entry"] if e["resource"].get("valueString"))
