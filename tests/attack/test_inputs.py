"""Inputs that disappear or change while a command reads them."""

from __future__ import annotations

import random
import shutil
import threading
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from attack.killing import Running, content_below, import_everything, names_below, run
from plain_studies import write_studies, write_study

from cxrreport.dataset import Manifest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
STUDIES = 100
ROUNDS = 5


def ingestion(source: Path, out: Path, workers: int) -> list[str]:
    words = f"ingest -i {source} -o {out} --layout folder --no-require-report --no-track --workers {workers}"
    return words.split()


@pytest.mark.parametrize("workers", [1, 2])
def test_an_input_that_disappears_and_returns(workers, tmp_path, note):
    """Like a network mount: files that are missing for a moment are read by the same command later."""
    source, moments = write_studies(tmp_path / "in", STUDIES), random.Random(workers)
    import_everything(tmp_path / "import.log")
    seconds = run(ingestion(source, tmp_path / "expected" / "out", workers), tmp_path / "expected.log")
    expected = content_below(tmp_path / "expected" / "out")
    failed = 0
    for number in range(ROUNDS):
        out, log = tmp_path / str(number) / "out", tmp_path / f"{number}.log"
        running = Running(ingestion(source, out, workers), log)
        time.sleep(moments.uniform(0.05, seconds))
        source.rename(tmp_path / "away")
        code = running.wait()
        (tmp_path / "away").rename(source)
        if code:
            failed += 1
            assert "Traceback" not in log.read_text(), log.read_text()[-2000:]
        run(ingestion(source, out, workers), log)
        assert content_below(out) == expected, log.read_text()[-2000:]
        assert names_below(out) == names_below(tmp_path / "expected" / "out")
    note(kind="input away", case=f"ingest, {workers} workers", tries=ROUNDS, hit=failed, failed=0)


@pytest.mark.parametrize("workers", [1, 2])
def test_files_replaced_during_a_run(workers, tmp_path, note):
    """No picture is stored under the id of another one."""
    source, moments = write_studies(tmp_path / "in", STUDIES), random.Random(workers)
    import_everything(tmp_path / "import.log")
    grey = {f"1.2.3.{number}.1": number for number in range(STUDIES)}
    run(ingestion(source, tmp_path / "expected" / "out", workers), tmp_path / "expected.log")
    pictures = {image: Manifest.open(tmp_path / "expected" / "out").image(image) for image in grey}
    swaps = excluded = 0
    for number in range(ROUNDS):
        out, log, stop = tmp_path / str(number) / "out", tmp_path / f"{number}.log", threading.Event()

        def swap(stop: threading.Event = stop) -> None:
            nonlocal swaps
            while not stop.wait(0.002):
                one, other = moments.sample(range(STUDIES), 2)
                shutil.copyfile(source / f"{one}.dcm", tmp_path / "one")
                shutil.copyfile(source / f"{other}.dcm", tmp_path / "other")
                (tmp_path / "one").replace(source / f"{other}.dcm")
                (tmp_path / "other").replace(source / f"{one}.dcm")
                swaps += 1

        thread = threading.Thread(target=swap)
        thread.start()
        try:
            code = Running(ingestion(source, out, workers), log).wait()
        finally:
            stop.set()
            thread.join()
        assert code in (0, 1, 2) and "Traceback" not in log.read_text(), log.read_text()[-2000:]
        if code:
            run(ingestion(source, out, workers), log)
        manifest = Manifest.open(out)
        for image in manifest.images.values():
            assert image.patient_id == f"P{grey[image.image_id]}"
            assert (manifest.image(image.image_id) == pictures[image.image_id]).all(), image
        excluded += pq.read_table(out / "ledger.parquet").num_rows
    note(
        kind="files swapped", case=f"ingest, {workers} workers", tries=ROUNDS, swaps=swaps, excluded=excluded, failed=0
    )


def test_a_file_that_is_still_being_written(tmp_path, note):
    """Half of a file is a row of the exclusion log or a failed run, never half of a picture."""
    source = write_studies(tmp_path / "in", 20)
    whole = (source / "7.dcm").read_bytes()
    write_study(tmp_path / "other.dcm", 7, grey=4000)
    import_everything(tmp_path / "import.log")
    for size in (0, 100, 400, len(whole) // 2, len(whole) - 1):
        (source / "7.dcm").write_bytes(whole[:size])
        out = tmp_path / str(size) / "out"
        run(ingestion(source, out, 1), tmp_path / "log")
        assert len(Manifest.open(out).images) == 19
        assert pq.read_table(out / "ledger.parquet").num_rows == 1
    note(kind="half a file", case="ingest", tries=5, failed=0)
