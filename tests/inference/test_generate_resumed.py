"""A generation that was stopped, killed or out of disk space resumes; other settings or data are refused."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from generation import predictions

from cxrreport.errors import InferenceError, OutputError
from cxrreport.inference import worker
from cxrreport.storage.output_folder import output_folder

CONFTEST = Path(__file__).with_name("conftest.py")


def test_only_failures_are_retried(run, tmp_path: Path, make_studies) -> None:
    with pytest.raises(Stop):
        run(tmp_path / "out", studies=make_studies(20, missing=("i003",)), progress=stop_after(11))
    studies = make_studies(20)
    assert run(tmp_path / "out", studies=studies).predictions == 18
    assert studies.read[0] == "i003"
    assert not {"i000", "i001", "i002", "i004", "i005"} & set(studies.read)


def test_an_array_of_jobs_makes_the_same(run, tmp_path: Path, make_studies) -> None:
    run(tmp_path / "whole")
    parts = [run(tmp_path / "out", shard=f"{number}/3") for number in (1, 2, 3)]
    assert [part.studies for part in parts] == [8, 5, 5]
    assert not (tmp_path / "out").exists()
    assert run(tmp_path / "out", shard="2/3") == parts[1]
    studies = make_studies(20)
    summary = run(tmp_path / "out", studies=studies)
    assert (summary.studies, summary.resumed, studies.read) == (18, 18, [])
    assert not (tmp_path / "out.shards").exists()
    assert predictions(tmp_path / "out") == predictions(tmp_path / "whole")


def test_a_missing_job_is_run_when_parts_are_merged(run, tmp_path: Path, make_studies) -> None:
    run(tmp_path / "whole")
    run(tmp_path / "out", shard="1/2")
    studies = make_studies(20)
    assert run(tmp_path / "out", studies=studies).resumed == 10
    assert len(studies.read) == 8
    assert predictions(tmp_path / "out") == predictions(tmp_path / "whole")


def test_parts_of_other_settings_are_refused(run, tmp_path: Path) -> None:
    run(tmp_path / "out", shard="1/2")
    with pytest.raises(OutputError, match=r"1-of-2: .*max_new_tokens was 12 and is 8"):
        run(tmp_path / "out", max_new_tokens=8)


def test_sampled_texts_do_not_depend_on_shards_and_resumes(run, tmp_path: Path) -> None:
    how = {"decoding": {"method": "sample", "temperature": 1.5}}
    run(tmp_path / "whole", **how)
    with pytest.raises(Stop):
        run(tmp_path / "out", progress=stop_after(7), **how)
    run(tmp_path / "out", **how)
    run(tmp_path / "other", seed=1, **how)
    run(tmp_path / "small", shard_size=2, batch_size=1, **how)
    whole, other, small = (predictions(tmp_path / name) for name in ("whole", "other", "small"))
    assert predictions(tmp_path / "out") == whole
    assert {study: one.text for study, one in small.items()} == {study: one.text for study, one in whole.items()}
    assert {study: one.text for study, one in other.items()} != {study: one.text for study, one in whole.items()}


@pytest.mark.parametrize(
    ("code", "message"),
    [(errno.ENOSPC, r"the disk is full .* re-run the same command"), (errno.EACCES, r"cannot be written \(Permis")],
)
def test_a_full_or_locked_disk_loses_nothing(run, tmp_path: Path, monkeypatch, code: int, message: str) -> None:
    real = Path.write_text
    shards = []

    def full(self: Path, *rest, **options):
        if self.suffix == ".jsonl":
            shards.append(self)
            if len(shards) > 2:
                raise OSError(code, os.strerror(code), str(self))
        return real(self, *rest, **options)

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OutputError, match=message):
        run(tmp_path / "out")
    monkeypatch.undo()
    assert run(tmp_path / "out").resumed == 10


def test_an_output_that_cannot_be_opened_is_an_error(run, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "file").write_text("of somebody else", encoding="utf-8")
    for place in (tmp_path / "file", tmp_path / "file/below"):
        with pytest.raises(OutputError, match="the output must be a folder, but a file of that name exists"):
            run(place)
    assert (tmp_path / "file").read_text(encoding="utf-8") == "of somebody else"
    real = os.open

    def denied(path, *rest, **options):  # no permission binds root, who may run the tests
        if Path(path).parent == tmp_path / "out":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return real(path, *rest, **options)

    monkeypatch.setattr(os, "open", denied)
    with pytest.raises(OutputError, match=r"out: the output folder cannot be created or written \(Permission denied\)"):
        run(tmp_path / "out")


class Stop(BaseException):
    """Ends a run from its progress, as Ctrl-C does."""


def stop_after(studies: int):
    def stop(done: int, total: int, label: str) -> None:
        if done > studies:
            raise Stop

    return stop


def test_a_stopped_run_resumes(run, tmp_path: Path, make_studies) -> None:
    def stop(done: int, total: int, label: str) -> None:
        if done > 11:
            raise Stop

    run(tmp_path / "whole")
    with pytest.raises(Stop):
        run(tmp_path / "out", progress=stop)
    assert not (tmp_path / "out/predictions.parquet").exists()
    assert json.loads((tmp_path / "out/generate.json").read_text())["finished"] is False
    studies = make_studies(20)
    summary = run(tmp_path / "out", studies=studies)
    assert summary.resumed == 10
    assert len(studies.read) == 8
    assert predictions(tmp_path / "out") == predictions(tmp_path / "whole")
    assert (tmp_path / "out/predictions.jsonl").read_bytes() == (tmp_path / "whole/predictions.jsonl").read_bytes()


def test_a_finished_run_is_not_done_again(run, tmp_path: Path, make_studies) -> None:
    first = run(tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.parquet")}
    studies = make_studies(20)
    assert run(tmp_path / "out", studies=studies) == first
    assert studies.read == []
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.parquet")} == before


def test_other_settings_weights_or_data_are_refused(run, loaded, tmp_path: Path, make_studies) -> None:
    run(tmp_path / "out")
    with pytest.raises(OutputError, match="max_new_tokens was 12 and is 8"):
        run(tmp_path / "out", max_new_tokens=8)
    with pytest.raises(OutputError, match="adapter changed since"):
        run(tmp_path / "out", provenance={"adapter": "another"})
    with pytest.raises(OutputError, match="base changed since"):
        run(tmp_path / "out", model=dataclasses.replace(loaded, fingerprint="another"))
    changed = make_studies(20)
    changed.digest = "another"
    with pytest.raises(OutputError, match="data changed since"):
        run(tmp_path / "out", studies=changed)


def test_a_folder_in_use_is_refused(run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with (
        output_folder(out, command="generate", settings={}),
        pytest.raises(OutputError, match="another run"),
    ):
        run(out)


def test_a_failing_model_keeps_finished_shards(run, loaded, tmp_path: Path, monkeypatch) -> None:
    real = worker.Engine.stream

    def failing(self, take):
        for number, text in real(self, take):
            if number == 10:
                raise InferenceError("study s: not enough memory on cpu for a batch of one")
            yield number, text

    monkeypatch.setattr(worker.Engine, "stream", failing)
    with pytest.raises(InferenceError):
        run(tmp_path / "out")
    monkeypatch.undo()
    assert run(tmp_path / "out").resumed == 10


def test_sigkill_anywhere_loses_nothing_and_doubles_nothing(
    loaded, checkpoint_folder: Path, tmp_path: Path, forty
) -> None:
    kill_at: dict[str, int] = {}
    command = [sys.executable, str(CONFTEST), str(checkpoint_folder), str(tmp_path / "out")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            child, done = line.split()
            if int(done) >= kill_at.setdefault(child, 22 if kill_at else 7):
                with suppress(ProcessLookupError):  # its last lines are read after its end
                    os.kill(int(child), signal.SIGKILL)
    assert len(kill_at) == 2
    shards = sorted((tmp_path / "out/shards").glob("[0-9]*.jsonl"))
    assert 2 <= len(shards) < 10
    summary = forty(loaded, tmp_path / "out", lambda done, total, label: None)
    assert summary.resumed == 4 * len(shards)
    forty(loaded, tmp_path / "whole", lambda done, total, label: None)
    assert predictions(tmp_path / "out") == predictions(tmp_path / "whole")
    assert len(predictions(tmp_path / "out")) == 40
    assert not list((tmp_path / "out").rglob(".partial-*"))
