"""The service: from a modality to reports in the archive, each study once."""

from __future__ import annotations

import json
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from pacs.conftest import radiographs, write_radiograph
from pacs.servers import Orthanc, needs_dcmtk, needs_orthanc, send
from pacs.service_process import FixedReporter, Running, listen_settings, running
from pydicom import dcmread

from cxrreport import runs
from cxrreport.errors import OutputError
from cxrreport.pacs.monitor import queue_status, requeue

pytestmark = [needs_orthanc, needs_dcmtk]


def wait_until(done: Callable[[], bool], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < until, "did not happen in time"
        time.sleep(0.05)


def states(service: Running) -> dict[str, int]:
    return {state: count for state, count in queue_status(service.settings.output)["studies"].items() if count}


def test_studies_are_reported_into_the_archive_once(archive: Orthanc, tmp_path: Path) -> None:
    files = radiographs(tmp_path / "files", 4)
    write_radiograph(tmp_path / "files/hand.dcm", 77, BodyPartExamined="HAND")
    archive.store(*files)
    with running(listen_settings(tmp_path / "queue", archive.dicomweb)) as service:
        assert all(done.returncode == 0 for done in send(service.node, *files, tmp_path / "files/hand.dcm"))
        wait_until(lambda: states(service) == {"sent": 4, "excluded": 1})
        metrics = urllib.request.urlopen(f"http://127.0.0.1:{service.health}/metrics").read().decode()
        assert 'cxrreport_studies{state="sent"} 4' in metrics
        assert "cxrreport_up 1" in metrics
        assert urllib.request.urlopen(f"http://127.0.0.1:{service.health}/healthz").status == 200
        sent = archive.digests()
        # The modality sends everything again.
        assert all(done.returncode == 0 for done in send(service.node, *files))
        time.sleep(1)
        assert states(service) == {"sent": 4, "excluded": 1}
        assert archive.digests() == sent
    reports = archive.instances("SR")
    studies = {str(dcmread(path).StudyInstanceUID): 1 for path in files}
    assert Counter(row["StudyInstanceUID"] for row in reports) == studies
    assert service.summary is not None
    assert service.summary.reasons == {"not-a-chest": 1}
    assert (service.summary.instances, service.summary.documents_sent) == (5, 4)
    log = "".join(path.read_text() for path in (tmp_path / "queue").glob("audit-*.jsonl"))
    events = Counter(json.loads(line)["event"] for line in log.splitlines())
    assert events == {"received": 9, "generated": 4, "sent": 8, "excluded": 1}
    for path in files:
        header = dcmread(path)
        assert not any(
            str(value) in log for value in (header.PatientID, header.StudyInstanceUID, header.SOPInstanceUID)
        )


def test_a_late_instance_opens_another_round_and_an_equal_report_is_not_sent_again(
    archive: Orthanc, tmp_path: Path
) -> None:
    first = write_radiograph(tmp_path / "1.dcm", 1)
    same = {"study": str(first.StudyInstanceUID), "patient": str(first.PatientID)}
    write_radiograph(tmp_path / "lateral.dcm", 2, **same, ViewPosition="LL", PatientOrientation=["A", "F"])  # type: ignore[arg-type]
    archive.store(tmp_path / "1.dcm")
    with running(listen_settings(tmp_path / "queue", archive.dicomweb)) as service:
        send(service.node, tmp_path / "1.dcm")
        wait_until(lambda: states(service) == {"sent": 1})
        send(service.node, tmp_path / "lateral.dcm")
        wait_until(lambda: _rounds(service) == 2 and states(service) == {"sent": 1})
        assert len(archive.instances("SR")) == 1
    with running(listen_settings(tmp_path / "queue", archive.dicomweb, late="ignore")) as service:
        write_radiograph(tmp_path / "more.dcm", 3, **same)  # type: ignore[arg-type]
        send(service.node, tmp_path / "more.dcm")
        time.sleep(1)
        assert _rounds(service) == 2
        assert states(service) == {"sent": 1}


def _rounds(service: Running) -> int:
    from cxrreport.pacs.queue import Queue, State

    queue = Queue(service.settings.output)
    try:
        return max(study.round for study in queue.in_state(*State))
    finally:
        queue.close()


def test_another_patient_in_the_study_is_given_up(archive: Orthanc, tmp_path: Path) -> None:
    first = write_radiograph(tmp_path / "1.dcm", 1)
    write_radiograph(tmp_path / "2.dcm", 2, study=str(first.StudyInstanceUID), patient="SOMEBODY ELSE")
    archive.store(tmp_path / "1.dcm")
    with running(listen_settings(tmp_path / "queue", archive.dicomweb)) as service:
        send(service.node, tmp_path / "1.dcm", tmp_path / "2.dcm")
        wait_until(lambda: states(service) == {"given up": 1})
    assert queue_status(tmp_path / "queue")["reasons"] == {"patient-conflict": 1}
    assert archive.instances("SR") == []


def test_a_dead_archive_is_retried_given_up_and_requeued(archive: Orthanc, tmp_path: Path) -> None:
    files = radiographs(tmp_path / "files", 2)
    archive.store(*files)
    archive.stop()
    with running(listen_settings(tmp_path / "queue", archive.dicomweb)) as service:
        send(service.node, *files)
        wait_until(lambda: states(service) == {"given up": 2})
        status = queue_status(tmp_path / "queue")
        assert {row["reason"] for row in status["given_up"]} == {"not-stored"}
        archive.start()
        assert requeue(tmp_path / "queue", status["given_up"][0]["study"]) == 1
        wait_until(lambda: states(service) == {"given up": 1, "sent": 1})
        assert requeue(tmp_path / "queue", None) == 1
        wait_until(lambda: states(service) == {"sent": 2})
    assert len(archive.instances("SR")) == 2


def test_a_full_queue_and_unknown_peers_are_refused_with_the_right_status(archive: Orthanc, tmp_path: Path) -> None:
    files = radiographs(tmp_path / "files", 3)
    settings = listen_settings(tmp_path / "queue", archive.dicomweb, waiting_studies=1, quiet_s=600)
    with running(settings) as service:
        assert [done.returncode for done in send(service.node, files[0])] == [0]
        time.sleep(0.3)
        (done,) = send(service.node, files[1])
        assert done.returncode == 0xA7  # storescu ends with the first byte of the status
        (done,) = send(service.node, files[2], calling="STRANGER")
        assert "Calling AE Title Not Recognized" in done.stderr
        assert states(service) == {"received": 1}
    assert queue_status(tmp_path / "queue")["refused"] == {"connection: association": 1, "out of resources": 1}


def test_a_study_that_hurts_is_given_up_and_the_service_lives_on(
    archive: Orthanc, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Hurt(FixedReporter):
        def report(self, work: Path) -> list[tuple[str, Path]]:
            if any(dcmread(path).PatientID == "PAT0" for path in (work / "dicom").iterdir()):
                raise ValueError("a value like CANARY")
            return super().report(work)

    files = radiographs(tmp_path / "files", 2)
    archive.store(*files)
    with running(listen_settings(tmp_path / "queue", archive.dicomweb), Hurt) as service:
        send(service.node, *files)
        wait_until(lambda: states(service) == {"sent": 1, "given up": 1})
    assert queue_status(tmp_path / "queue")["reasons"] == {"ValueError": 1}
    assert "a study failed (ValueError at " in caplog.text
    assert "CANARY" not in caplog.text


def test_rules_route_studies(archive: Orthanc, tmp_path: Path) -> None:
    files = radiographs(tmp_path / "files", 2)
    write_radiograph(tmp_path / "portable.dcm", 9, StudyDescription="PORTABLE CHEST", SeriesDescription="")
    archive.store(*files, tmp_path / "portable.dcm")
    rules = [{"action": "ignore", "description": "portable*"}, {"action": "report", "modality": "DX"}]
    settings = listen_settings(tmp_path / "queue", archive.dicomweb, rules=rules, otherwise="ignore")
    with running(settings) as service:
        send(service.node, *files, tmp_path / "portable.dcm")
        wait_until(lambda: states(service) == {"sent": 2, "excluded": 1})
    assert queue_status(tmp_path / "queue")["reasons"] == {"routed-away": 1}


def test_status_tells_the_state_of_the_queue(archive: Orthanc, tmp_path: Path) -> None:
    files = radiographs(tmp_path / "files", 2)
    archive.store(files[0])
    with running(listen_settings(tmp_path / "queue", archive.dicomweb, attempts=1)) as service:
        send(service.node, *files)
        wait_until(lambda: states(service) == {"sent": 1, "given up": 1})
        (status,) = runs.status(tmp_path / "queue")
        assert (status.command, status.state) == ("listen", "running")
        assert (status.stages[0].done, status.stages[0].total) == (2, 2)
    lines = status.note.splitlines()
    assert lines[:2] == ["1 sent, 1 given up", "reasons: study-unknown 1"]
    (name,) = (row["study"] for row in queue_status(tmp_path / "queue")["given_up"])
    assert lines[2] == f"given up: {name} (study-unknown)"
    assert str(dcmread(files[1]).StudyInstanceUID) not in status.note


def test_a_folder_has_one_service(archive: Orthanc, tmp_path: Path) -> None:
    settings = listen_settings(tmp_path / "queue", archive.dicomweb)
    with running(settings), running(settings) as second:
        pass
    assert isinstance(second.error, OutputError)
    assert "another run" in str(second.error)


def test_polling_finds_new_studies_and_not_its_own_reports(archive: Orthanc, tmp_path: Path) -> None:
    today = time.strftime("%Y%m%d")
    for number in range(3):
        write_radiograph(tmp_path / f"{number}.dcm", number, StudyDate=today)
    archive.store(tmp_path / "0.dcm", tmp_path / "1.dcm")
    poll = {"archive": {"url": archive.dicomweb}, "every_s": 0.5}
    settings = listen_settings(tmp_path / "queue", archive.dicomweb, poll=poll)
    settings = settings.model_copy(update={"receive": None})
    with running(settings) as service:
        wait_until(lambda: states(service) == {"sent": 2})
        archive.store(tmp_path / "2.dcm")
        wait_until(lambda: states(service) == {"sent": 3})
        time.sleep(2)
        assert states(service) == {"sent": 3}
    assert len(archive.instances("SR")) == 3
