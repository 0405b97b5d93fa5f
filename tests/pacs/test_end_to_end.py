"""40 phantom studies through an archive that others wrote; the tiny model that is shipped writes the reports."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from pacs.conftest import OFF, Studies
from pacs.servers import Orthanc, needs_dcmtk, needs_orthanc, orthanc, send
from pacs.service_process import FixedReporter, listen_settings, running
from pydicom import dcmread

from cxrreport import runs
from cxrreport.assets import checkpoint_folder
from cxrreport.export.structured_report import NOTICE
from cxrreport.inference.completion import PHANTOMS_ONLY
from cxrreport.pacs.monitor import queue_status
from cxrreport.pacs.reporting import ModelReporter
from cxrreport.settings import ExportSettings, GenerateSettings, PullSettings, PushSettings, build

pytestmark = [
    needs_orthanc,
    pytest.mark.skipif(
        not (checkpoint_folder("paligemma2-tiny-224") / "config.json").is_file(), reason="the tiny model is not here"
    ),
]


@pytest.fixture
def archive(studies: Studies, tmp_path: Path) -> Iterator[Orthanc]:
    with orthanc(tmp_path / "orthanc") as server:
        server.store(*studies.files)
        yield server


def check_archive(archive: Orthanc, studies: Studies, before: dict[str, str], tmp_path: Path) -> None:
    """One Structured Report in each chest study, valid and shown by Orthanc and dsrdump, and nothing else changed."""
    after = archive.digests()
    assert {uid: after[uid] for uid in before} == before
    reports = archive.instances("SR")
    assert Counter(row["StudyInstanceUID"] for row in reports) == dict.fromkeys(studies.chest, 1)
    assert set(after) - set(before) == {row["SOPInstanceUID"] for row in reports}
    patients = {str(dcmread(file).StudyInstanceUID): str(dcmread(file).PatientID) for file in studies.files}
    for row in reports:
        assert row["PatientID"] == patients[row["StudyInstanceUID"]]
        assert row["SeriesDescription"] == NOTICE
        file = tmp_path / "report.dcm"
        file.write_bytes(archive.get(f"/instances/{row['ID']}/file"))
        if shutil.which("dciodvfy"):
            done = subprocess.run(["dciodvfy", str(file)], capture_output=True, text=True, check=False)
            said = done.stdout + done.stderr
            assert not [line for line in said.splitlines() if line.startswith("Error")], said
        if shutil.which("dsrdump"):
            shown = subprocess.run(["dsrdump", "+Pl", str(file)], capture_output=True, text=True, check=True).stdout
            assert f"{NOTICE}." in shown
            assert "Findings" in shown


def test_pulled_reported_and_pushed_back(archive: Orthanc, studies: Studies, tmp_path: Path) -> None:
    before = archive.digests()
    given = {"archive": archive.dicomweb, "since": "2024-03-01", "until": "2024-03-31", "output": tmp_path / "pulled"}
    pulled = runs.pull(build(PullSettings, given | {"tracking": OFF}, where="test"))
    assert pulled.facts["retrieved"] == 40
    reports, documents = tmp_path / "reports", tmp_path / "documents"
    given = {"input": tmp_path / "pulled/dicom", "output": reports, "checkpoint": {"name": "tiny"}, "tracking": OFF}
    generated = runs.generate(build(GenerateSettings, given, where="test"))
    assert (generated.facts["predictions"], generated.warnings) == (40, (PHANTOMS_ONLY,))
    given = {"predictions": reports, "output": documents, "formats": ("sr",), "tracking": OFF}
    runs.export(build(ExportSettings, given, where="test"))
    given = {"documents": documents, "archive": archive.dicomweb, "output": tmp_path / "pushed", "tracking": OFF}
    pushed = runs.push(build(PushSettings, given, where="test"))
    assert pushed.facts == {"documents": 40, "sent": 40, "present": 0, "refused": {}, "failed": {}}
    check_archive(archive, studies, before, tmp_path)


@needs_dcmtk
@pytest.mark.parametrize("reporter", [FixedReporter, pytest.param(ModelReporter, marks=pytest.mark.slow)])
def test_from_the_modality_through_the_service_to_the_archive(
    archive: Orthanc, studies: Studies, tmp_path: Path, reporter: type
) -> None:
    before = archive.digests()
    settings = listen_settings(
        tmp_path / "queue", archive.node, checkpoint={"name": "tiny"}, quiet_s=2, max_new_tokens=96, studies=41
    )
    with running(settings, reporter) as service:
        modality = [file for file in studies.files if not file.name.startswith("ct")]
        assert all(done.returncode == 0 for done in send(service.node, *modality))
        until = time.monotonic() + 300
        while service.summary is None and service.error is None:
            assert time.monotonic() < until
            time.sleep(0.2)
    assert service.error is None
    assert service.summary is not None
    assert service.summary.warning == (PHANTOMS_ONLY if reporter is ModelReporter else None)
    status = queue_status(tmp_path / "queue")
    assert {state: count for state, count in status["studies"].items() if count} == {"sent": 40, "excluded": 1}
    assert status["reasons"] == {"not-a-chest": 1}
    check_archive(archive, studies, before, tmp_path)
