"""Worker processes: the order of results, deaths at any moment, and the end after an error.

Each script runs in a process of its own with a limit of time, because what it shows is that it ends.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest
from plain_studies import write_studies

from cxrreport.errors import InputError
from cxrreport.ingestion import ingest as ingestion
from cxrreport.ingestion.workers import ordered_map
from cxrreport.settings import IngestSettings

HEAD = """
import gc, multiprocessing, os, random, signal, threading, time
from contextlib import closing
from cxrreport.ingestion.workers import in_own_process, ordered_map

def killed(number):
    return -number

def die(seconds=0.0):
    threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGKILL)).start()
"""
CRASHING = """
def double(number):
    if number == 13:
        os._exit(1)  # as a decoder that crashes
    return 2 * number

if __name__ == "__main__":
    print(list(ordered_map(double, range(24), workers=2, when_killed=killed)))
"""
KILLED_WHILE_IT_WRITES = """
class Large:
    def __init__(self, number):
        self.number = number

    def __reduce__(self):  # called when the answer is written
        die(0.02 * (self.number - 1))
        return bytes, (bytes(64 << 20),)

def answer(number):
    return Large(number) if number % 2 else number

if __name__ == "__main__":
    answers = list(ordered_map(answer, range(24), workers=2, when_killed=killed))
    print(all(type(found) is bytes or abs(found) == number for number, found in enumerate(answers)), answers[1])
"""
BUSY = """
def wait(number):
    if number == 7:
        time.sleep(3600)  # as a share that does not answer
    return number

def fail():
    with closing(ordered_map(wait, range(24), workers=2, when_killed=killed)) as numbers:
        for number in numbers:
            if number == 6:
                time.sleep(0.5)
                raise ValueError

if __name__ == "__main__":
    try:
        fail()
    except ValueError:  # which holds the frame of the generator
        print(multiprocessing.active_children())
"""
COLLECTED = """
def large(number):
    return bytes(200_000)

def fail(stop):
    try:
        for number, _ in enumerate(ordered_map(large, range(24), workers=2, when_killed=killed)):
            if number == stop:
                raise ValueError
    except ValueError as error:
        error.itself = error  # freed by the collector only, in any thread

if __name__ == "__main__":
    gc.set_threshold(3, 1, 1)
    for stop in range(4):
        fail(stop)
    print("ended")
"""
STRESS = """
def work(number):
    time.sleep(0.002 * (number % 3))
    return number, bytes(300_000)

def at(moment):
    time.sleep(moment)
    for process in multiprocessing.active_children()[:1]:
        process.kill()

def attempt(draw):
    killer = threading.Thread(target=at, args=(draw.uniform(0, 0.6),))
    killer.start()
    stop = draw.randrange(64)
    with closing(ordered_map(work, range(48), workers=2, when_killed=work)) as answers:
        for expected, (number, _) in enumerate(answers):
            assert number == expected
            if number == stop:
                raise ValueError
    killer.join()

if __name__ == "__main__":
    draw, failed = random.Random(18), 0
    for number in range(200):
        try:
            attempt(draw)
        except ValueError:
            failed += 1
            while threading.active_count() > 1:
                time.sleep(0.01)
        assert not multiprocessing.active_children()
    print(failed)
"""


def run(folder: Path, script: str, seconds: float = 120) -> subprocess.CompletedProcess[str]:
    path = folder / "script.py"
    path.write_text(HEAD + script)
    return subprocess.run([sys.executable, str(path)], capture_output=True, text=True, timeout=seconds)


def test_workers_keep_the_order_and_survive_a_crash(tmp_path: Path) -> None:
    done = run(tmp_path, CRASHING)
    assert done.stdout.strip() == str([-13 if number == 13 else 2 * number for number in range(24)]), done.stderr
    failed = run(tmp_path, CRASHING.replace('if __name__ == "__main__":', "if True:"))
    assert "SettingsError: workers: worker processes cannot be started" in failed.stderr


def test_a_worker_that_is_killed_while_it_writes_its_answer(tmp_path: Path) -> None:
    """As by a machine that is out of memory. Whoever read from a pipe that others write to as well waited for ever."""
    done = run(tmp_path, KILLED_WHILE_IT_WRITES)
    assert done.stdout.split() == ["True", "-1"], done.stderr


def test_an_error_does_not_wait_for_what_other_workers_do(tmp_path: Path) -> None:
    assert run(tmp_path, BUSY).stdout.strip() == "[]"


def test_a_generator_that_the_collector_closes(tmp_path: Path) -> None:
    assert run(tmp_path, COLLECTED).stdout.strip() == "ended"


@pytest.mark.slow
def test_errors_and_deaths_at_random_moments(tmp_path: Path) -> None:
    done = run(tmp_path, STRESS, 560)
    assert done.returncode == 0 and int(done.stdout) > 50, done.stderr


@pytest.mark.parametrize("workers", [1, 2])
def test_an_ingest_that_fails_leaves_no_worker(workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise InputError("the input is gone")

    write_studies(tmp_path / "in", 6)
    settings = IngestSettings(input=tmp_path / "in", output=tmp_path / "out", workers=workers, require_report=False)
    monkeypatch.setattr(ingestion, "_check_available", fail)
    with pytest.raises(InputError, match="gone") as failed:
        ingestion.ingest(settings)
    assert failed.traceback and not multiprocessing.active_children()


def test_one_worker_runs_in_this_process() -> None:
    assert list(ordered_map(lambda _: os.getpid(), [0], workers=1, when_killed=id)) == [os.getpid()]
