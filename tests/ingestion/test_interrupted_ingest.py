"""An ingest that is stopped, killed, out of disk space or divided into shards has the results of one run."""

from __future__ import annotations

import resource
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
import pytest
from ingest_runs import run

from cxrreport.dataset import Manifest
from cxrreport.errors import ManifestError, OutputError
from cxrreport.ingestion import ingest as pipeline
from cxrreport.ingestion.ingest import ingest
from cxrreport.settings import IngestSettings

Make = Callable[..., Path]


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


def test_a_second_run_does_nothing(make_mimic: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_mimic(2)
    first = run(root, tmp_path / "out")
    monkeypatch.setattr(pipeline, "list_sources", None)
    again = run(root, tmp_path / "out", workers=2)
    assert replace(again, resumed=False) == first and again.resumed
    with pytest.raises(OutputError, match="resolution was 224 and is 448"):
        run(root, tmp_path / "out", resolution=448)
    with pytest.raises(OutputError, match="contains no ingest"):
        run(root, root)


def test_resuming_repeats_only_what_is_missing(
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


def test_a_lost_image_shard_is_regenerated(make_mimic: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    # The number of workers does not change the result.
    subprocess.run([*command[:-1], "1"], check=True, capture_output=True, timeout=120)
    whole = run(root, tmp_path / "whole")
    manifest = Manifest.open(tmp_path / "killed")
    assert manifest.digest == whole.digest and len(manifest.studies()) == 24
    assert not [path for path in (tmp_path / "killed").rglob("*") if path.name.startswith(".partial")]


def children(pid: int) -> list[int]:
    """Child processes, whichever thread started them."""
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(each) for one in lists for each in one.read_text().split()]


def test_a_full_disk_at_any_write(make_mimic: Make, tmp_path: Path) -> None:
    """A limit on the size of files simulates the disk: every write past it fails with the error of the system."""
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


def test_full_disk_is_a_clear_error_and_the_run_resumes(
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


def test_shards_are_merged_into_one_run(make_mimic: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_shards_of_other_settings_are_refused(make_mimic: Make, tmp_path: Path) -> None:
    root = make_mimic(2)
    ingest(IngestSettings(input=root, output=tmp_path / "out", shard="1/2", resolution=448))
    with pytest.raises(OutputError, match="other settings"):
        run(root, tmp_path / "out")


def test_shards_of_a_changed_input_are_repeated(make_mimic: Make, tmp_path: Path) -> None:
    root = make_mimic(2)
    ingest(IngestSettings(input=root, output=tmp_path / "out", shard="1/1"))
    report = next(root.rglob("s*.txt"))
    report.write_text(report.read_text().replace("Normal", "Abnormal"))
    assert run(root, tmp_path / "out").digest == run(root, tmp_path / "whole").digest


@pytest.mark.parametrize("shard", ["0/2", "3/2", "1", "a/b", "1/0"])
def test_invalid_shards(shard: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="shard"):
        IngestSettings(input=tmp_path, output=tmp_path / "out", shard=shard)


def test_covariates_of_a_resumed_run(make_mimic: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_mimic(2)
    monkeypatch.setattr(pipeline, "write_manifest", None)
    with pytest.raises(TypeError):
        run(root, tmp_path / "out", covariates=True)
    monkeypatch.undo()
    assert run(root, tmp_path / "out", covariates=True).resumed
    assert {each.projection for each in Manifest.open(tmp_path / "out").covariates.values()} == {"PA"}
