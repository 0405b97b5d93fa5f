"""Pull from archives that fail, lie or are asked for too much; and what MLflow and logs get of it."""

from __future__ import annotations

import logging
import random
import sqlite3
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from pacs.conftest import OFF, write_radiograph
from pacs.fake_web import fake_web
from pacs.faulty_proxy import Faults
from pacs.servers import Orthanc, needs_orthanc, orthanc
from pydicom import dcmread

from cxrreport import runs
from cxrreport.errors import InputError, PeerError, SettingsError
from cxrreport.pacs.peers import Pace, attempted, pause_after, read_credentials
from cxrreport.pacs.pull import queries
from cxrreport.settings import PullSettings, build


def settings(archive: Any, output: Path, **values: object) -> PullSettings:
    given = {"archive": archive, "output": output, "tracking": OFF} | values
    return build(PullSettings, given, where="test")


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("files")
    for number in range(8):
        write_radiograph(folder / f"{number}.dcm", number)
    with orthanc(tmp_path_factory.mktemp("orthanc")) as server:
        server.store(*sorted(folder.glob("*.dcm")))
        yield server


def ledger(folder: Path) -> Counter[str]:
    return Counter(row["reason"] for row in pq.read_table(folder / "ledger.parquet").to_pylist())


@needs_orthanc
def test_a_network_that_cuts_answers_gives_whole_files_or_none(archive: Orthanc, tmp_path: Path) -> None:
    rng = random.Random(1)
    faults = Faults(archive.http, lambda: rng.choice(("pass", "pass", "pass", "cut", "error")))
    with fake_web(faults) as proxy:
        given = settings(f"{proxy.url}/dicom-web", tmp_path / "out", since="2024-01-01", attempts=8)
        for number in range(20):  # some of it fails, and the same command resumes
            with suppress(PeerError):
                if not runs.pull(given.model_copy(update={"attempts": 1 if number < 3 else 3})).facts["failed"]:
                    break
    files = list((tmp_path / "out/dicom").rglob("*.dcm"))
    assert len(files) == 8
    assert all(len(dcmread(file).PixelData) == 64 * 64 * 2 for file in files)
    assert not list((tmp_path / "out").rglob(".partial-*"))


@needs_orthanc
def test_a_table_of_accession_numbers(archive: Orthanc, tmp_path: Path) -> None:
    table = tmp_path / "asked.csv"
    table.write_text("accession\nACC1\nACC3\nACC99\nACC1\n")
    summary = runs.pull(settings(archive.dicomweb, tmp_path / "out", studies=table))
    assert (summary.facts["studies"], summary.facts["instances"]) == (2, 2)
    assert ledger(tmp_path / "out") == {"study-unknown": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("accession\nACC*\n", "row 1: an id with a wildcard"),
        ("accession\nA\n\\\n", "row 2: an id with a wildcard"),
        ("study_id\n1.2*\n", "row 1: an id with a wildcard"),
        ("other\nACC1\n", "row 1 has no study UID and no accession number"),
    ],
)
def test_a_table_that_could_match_everybody_is_refused(tmp_path: Path, text: str, message: str) -> None:
    table = tmp_path / "asked.csv"
    table.write_text(text)
    with pytest.raises(InputError, match=message):
        queries(settings("http://127.0.0.1:1", tmp_path / "out", studies=table))


def test_a_query_for_everything_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="not a whole archive"):
        settings("http://127.0.0.1:1", tmp_path / "out")
    with pytest.raises(InputError, match="wildcard"):
        queries(settings("http://127.0.0.1:1", tmp_path / "out", patient="*"))


class Liar:
    """An archive with one study that sends another instance than the one it was asked for."""

    def __init__(self, listed: Any, sent: bytes) -> None:
        self.listed, self.sent = listed, sent

    def __call__(self, method: str, path: str, body: bytes) -> Any:
        def row(**values: str) -> list[dict[str, Any]]:
            return [{tag.lstrip("t"): {"vr": "UI", "Value": [value]} for tag, value in values.items()}]

        one = self.listed
        if "offset=1" in path:
            return 200, []
        if "/instances/" in path:
            return lambda handler: self._send(handler)
        if "/instances?" in path:
            return 200, row(t00080018=one.SOPInstanceUID, t00080016=one.SOPClassUID)
        if "/series" in path:
            return 200, row(t0020000E=one.SeriesInstanceUID, t00080060="DX")
        return 200, row(t0020000D=one.StudyInstanceUID, t00100020=one.PatientID)

    def _send(self, handler: Any) -> None:
        content = b"--B\r\nContent-Type: application/dicom\r\n\r\n" + self.sent + b"\r\n--B--\r\n"
        handler.send_response(200)
        handler.send_header("Content-Type", 'multipart/related; type="application/dicom"; boundary=B')
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)


@pytest.mark.parametrize("lie", ["another instance", "another patient", "no DICOM", "a hand", "a path"])
def test_what_an_archive_sends_must_be_what_it_lists(tmp_path: Path, lie: str) -> None:
    listed = write_radiograph(tmp_path / "listed.dcm", 1)
    same = {"study": str(listed.StudyInstanceUID), "SOPInstanceUID": listed.SOPInstanceUID}
    changes: dict[str, Any] = {
        "another instance": {"study": str(listed.StudyInstanceUID)},
        "another patient": same | {"patient": "SOMEBODY ELSE"},
        "a hand": same | {"patient": "PAT1", "BodyPartExamined": "HAND"},
        "a path": same | {"patient": "PAT1", "SOPInstanceUID": "../../../etc/passwd"},
        "no DICOM": {},
    }
    write_radiograph(tmp_path / "sent.dcm", 2, **changes[lie])
    sent = b"nothing" if lie == "no DICOM" else (tmp_path / "sent.dcm").read_bytes()
    with fake_web(Liar(listed, sent)) as server:
        summary = runs.pull(settings(server.url, tmp_path / "out", patient="PAT1", attempts=1))
    reasons = {"another patient": "other-patient", "a hand": "not-a-chest"}
    assert ledger(tmp_path / "out") == {reasons.get(lie, "not-retrieved"): 1}
    assert summary.facts["instances"] == 0
    assert not list((tmp_path / "out").rglob("*.dcm"))


def test_an_archive_that_is_not_there_is_one_error(tmp_path: Path) -> None:
    for archive in ("http://127.0.0.1:1/dicom-web", "NOBODY@127.0.0.1:1"):
        with pytest.raises(PeerError, match=r"127\.0\.0\.1:1: cannot be reached"):
            runs.pull(settings(archive, tmp_path / "out", patient="1", attempts=1))


def test_answers_are_bounded_and_redirects_refused(tmp_path: Path) -> None:
    def large(handler: Any) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "application/dicom+json")
        handler.end_headers()
        handler.close_connection = True
        for _ in range(200):
            handler.wfile.write(b" " * (1 << 20))

    def elsewhere(handler: Any) -> None:
        handler.send_response(302)
        handler.send_header("Location", "http://127.0.0.1:1/")
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    for answer, message in ((large, "more than"), (elsewhere, "redirects")):
        with fake_web(lambda *_, answer=answer: answer) as server, pytest.raises(PeerError, match=message):
            runs.pull(settings(server.url, tmp_path / "out", patient="1", attempts=1))


def test_credentials_are_sent_and_never_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("PACS_SECRET", "reader:hunter2-canary")
    (tmp_path / "token").write_text("token-canary\n")
    tracking = {"uri": f"sqlite:///{tmp_path}/mlflow.db"}
    listed = write_radiograph(tmp_path / "listed.dcm", 1, PatientID="PATIENT-CANARY")
    with fake_web(Liar(listed, (tmp_path / "listed.dcm").read_bytes())) as server:
        for number, source in enumerate(("env:PACS_SECRET", f"file:{tmp_path}/token")):
            archive = {"url": server.url, "credentials": source}
            out = tmp_path / f"out{number}"
            runs.pull(settings(archive, out, patient="PATIENT-CANARY", tracking=tracking))
        headers = {request[2]["Authorization"] for request in server.requests}
    assert headers == {"Basic cmVhZGVyOmh1bnRlcjItY2FuYXJ5", "Bearer token-canary"}
    said = capfd.readouterr()
    texts = [caplog.text, said.out, said.err, *(path.read_text() for path in tmp_path.rglob("*.json"))]
    assert not any("canary" in text for text in texts)
    texts = [caplog.text, said.out, said.err]
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        texts += ["\n".join(database.iterdump())]
    texts += [path.read_text(errors="replace") for path in (tmp_path / "mlartifacts").rglob("*") if path.is_file()]
    assert not any(word in text.upper() for text in texts for word in ("CANARY", str(listed.StudyInstanceUID)))


def test_a_missing_credential_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOWHERE", raising=False)
    with pytest.raises(SettingsError, match="env:NOWHERE is empty"):
        read_credentials("env:NOWHERE")
    with pytest.raises(SettingsError, match="cannot be read"):
        read_credentials(f"file:{tmp_path}/nowhere")


def test_attempts_end_and_pauses_grow() -> None:
    calls = []

    def fail(again: bool) -> None:
        calls.append(again)
        raise PeerError("no", again=again)

    for again, count in ((True, 3), (False, 1)):
        calls.clear()
        with pytest.raises(PeerError):
            attempted(lambda again=again: fail(again), attempts=3, first_pause=0.001)  # type: ignore[misc]
        assert len(calls) == count
    assert [pause_after(number, 5) for number in (1, 2, 3, 40)] == [5, 10, 20, 3600]
    Pace(None).wait()
    Pace(1e6).wait()
