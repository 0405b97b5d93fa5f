"""The queue by itself: what survives, what opens a round, and what is never done twice. And the commands beside it."""

from __future__ import annotations

import json
import sqlite3
import sys
from pathlib import Path

import pytest
from pacs.conftest import write_radiograph
from pacs.service_process import listen_settings
from typer.testing import CliRunner

from cxrreport import cli
from cxrreport.errors import InputError, MissingExtraError, OutputError
from cxrreport.pacs.arrival import ALREADY_KEPT, CANNOT_UNDERSTAND, OUT_OF_RESOURCES, SUCCESS, Arrivals
from cxrreport.pacs.monitor import Audit, queue_status, requeue
from cxrreport.pacs.peers import open_peer
from cxrreport.pacs.queue import Document, Queue, State
from cxrreport.settings import DimseSettings, LimitSettings, WebSettings

NODE = DimseSettings(host="127.0.0.1", port=1, ae_title="NOBODY")


@pytest.fixture
def queue(tmp_path: Path) -> Queue:
    return Queue(tmp_path)


def arrivals(queue: Queue, **values: object) -> Arrivals:
    settings = listen_settings(queue.folder, "http://127.0.0.1:1", **values)
    return Arrivals(settings, queue, Audit(queue.folder))


def content(tmp_path: Path, number: int, **tags: object) -> bytes:
    write_radiograph(tmp_path / "one.dcm", number, SOPInstanceUID=f"1.2.{number}", **tags)
    return (tmp_path / "one.dcm").read_bytes()


def only(queue: Queue) -> State:
    (study,) = queue.in_state(*State)
    return study.state


def test_a_study_goes_through_its_states_and_survives_a_restart(queue: Queue, tmp_path: Path) -> None:
    assert arrivals(queue).receive(content(tmp_path, 1), "A") == SUCCESS
    assert queue.next_to_generate(60) is None
    study = queue.next_to_generate(0)
    assert study is not None
    queue.set_quiet(study)
    queue.close()
    again = Queue(tmp_path)  # killed while it generated
    study = again.next_to_generate(60)
    assert study is not None
    assert study.state is State.QUIET
    again.set_generated(study, [Document(name="sr/1", kind="sr", file="f")])
    assert again.next_to_generate(0) is None
    study = again.next_to_send()
    assert study is not None
    (document,) = again.unsent(study)
    again.fail(study, "PeerError", "", due=0)
    assert again.next_to_send() is not None
    again.set_document_sent(document)
    again.end(study, State.SENT)
    assert (only(again), again.unsent(study)) == (State.SENT, [])


def test_the_same_instance_again_is_known_and_another_content_is_a_warning(queue: Queue, tmp_path: Path) -> None:
    place, first = arrivals(queue), content(tmp_path, 1)
    assert [place.receive(first, "A") for _ in range(3)] == [SUCCESS] * 3
    assert place.receive(content(tmp_path, 1, ViewPosition="AP"), "A") == ALREADY_KEPT
    assert queue.totals()["instances"] == 1
    assert len(list(tmp_path.glob("received/*/*.dcm"))) == 1


def test_what_was_removed_is_still_known(queue: Queue, tmp_path: Path) -> None:
    place = arrivals(queue)
    place.receive(content(tmp_path, 1), "A")
    study = queue.next_to_generate(0)
    assert study is not None
    queue.end(study, State.SENT)
    assert queue.expired(0, 3600) == [study.study]
    queue.set_purged(study.study)
    assert (queue.expired(0, 0), queue.files(), queue.stored_bytes()) == ([], set(), 0)
    assert place.receive(content(tmp_path, 1), "A") == SUCCESS
    assert only(queue) is State.SENT
    Arrivals(listen_settings(tmp_path, "http://127.0.0.1:1"), queue, Audit(tmp_path))  # removes what has no row
    assert not list(tmp_path.glob("received/*/*.dcm"))


def test_limits_of_study_disk_and_queue(queue: Queue, tmp_path: Path) -> None:
    place = arrivals(queue, receive={"limits": {"study_instances": 1, "instance_mb": 1}}, waiting_studies=1)
    assert place.receive(content(tmp_path, 1, StudyInstanceUID="1.2.3"), "A") == SUCCESS
    assert place.receive(content(tmp_path, 2, StudyInstanceUID="1.2.3"), "A") == CANNOT_UNDERSTAND
    place.waiting = 1
    assert place.receive(content(tmp_path, 3, StudyInstanceUID="1.2.4"), "A") == OUT_OF_RESOURCES
    assert place.receive(b"\0" * (2 << 20), "A") == CANNOT_UNDERSTAND
    assert place.receive(content(tmp_path, 4, StudyInstanceUID=""), "A") == CANNOT_UNDERSTAND
    place.waiting, place.stored = 0, 10**12
    assert place.receive(content(tmp_path, 5, StudyInstanceUID="1.2.4"), "A") == OUT_OF_RESOURCES
    assert queue.refusals() == {"not-readable": 1, "out of resources": 2, "too-large": 2}


def test_a_requeued_study_is_named_by_its_pseudonym(queue: Queue, tmp_path: Path) -> None:
    arrivals(queue).receive(content(tmp_path, 1), "A")
    study = queue.next_to_generate(0)
    assert study is not None
    queue.end(study, State.GIVEN_UP, "PeerError", "no answer")
    (row,) = queue_status(tmp_path)["given_up"]
    assert row["study"] != study.study
    with pytest.raises(InputError, match="no study of this name"):
        requeue(tmp_path, study.study)
    assert requeue(tmp_path, row["study"]) == 1
    assert only(queue) is State.RECEIVED


def test_a_file_that_is_no_queue_and_a_folder_without_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no queue\.sqlite"):
        queue_status(tmp_path)
    (tmp_path / "queue.sqlite").write_bytes(b"nothing like it" * 1000)
    with pytest.raises(OutputError, match="cannot be used as a queue"):
        Queue(tmp_path)


def test_the_key_of_the_audit_log_is_private_and_stays(tmp_path: Path) -> None:
    first, second = Audit(tmp_path), Audit(tmp_path)
    assert (tmp_path / "audit.key").stat().st_mode & 0o777 == 0o600
    assert first.pseudonym("1.2.3") == second.pseudonym("1.2.3") != first.patient("1.2.3")


def test_dry_run_of_rules_and_requeue_on_the_command_line(queue: Queue, tmp_path: Path) -> None:
    files = tmp_path / "files"
    write_radiograph(files / "chest.dcm", 1)
    write_radiograph(files / "portable.dcm", 2, StudyDescription="Portable chest")
    (files / "notes.txt").write_text("no DICOM")
    rules = [{"action": "ignore", "description": "portable*"}, {"action": "report", "sender": "XRAY*"}]
    given = {"output": str(tmp_path), "archive": "http://127.0.0.1:1", "rules": rules, "otherwise": "ignore"}
    (tmp_path / "listen.yaml").write_text(json.dumps(given))
    command = ["listen", str(tmp_path / "listen.yaml"), "--json"]
    done = CliRunner().invoke(cli.app, [*command, "--dry-run", str(files), "--sender", "XRAY1"])
    assert done.exit_code == 0, done.output
    found = {row["file"]: (row["action"], row["rule"]) for row in json.loads(done.stdout)["files"]}
    assert found == {
        "chest.dcm": ("report", "rule 2"),
        "portable.dcm": ("ignore", "rule 1"),
        "notes.txt": ("refused", "not-dicom"),
    }
    done = CliRunner().invoke(cli.app, [*command, "--requeue", "all"])
    assert json.loads(done.stdout) == {"requeued": 0}


@pytest.mark.parametrize("module", ["cxrreport.pacs.web", "cxrreport.pacs.dimse"])
def test_a_missing_extra_is_named(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    settings = WebSettings(url="http://127.0.0.1:1") if module.endswith("web") else NODE
    with pytest.raises(MissingExtraError, match=r"cxrreport\[pacs\]"):
        open_peer(settings, LimitSettings())


def test_nothing_of_a_patient_is_in_the_database(queue: Queue, tmp_path: Path) -> None:
    arrivals(queue).receive(content(tmp_path, 1, PatientID="CANARY", PatientName="Canary^C"), "A")
    with sqlite3.connect(tmp_path / "queue.sqlite") as database:
        assert "CANARY" not in "\n".join(database.iterdump()).upper()
