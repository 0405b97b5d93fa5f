"""One command on several devices: here two processes on the CPU."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from plain_studies import write_studies

from cxrreport import runs
from cxrreport.errors import InferenceError
from cxrreport.runs.devices import _count, _visible
from cxrreport.settings import CheckpointSettings, GenerateSettings, TrackingSettings


def settings(source: Path, output: Path, checkpoint: Path, **changes: object) -> GenerateSettings:
    given = {
        "checkpoint": CheckpointSettings(name=str(checkpoint), precision="float32", device="cpu"),
        "tracking": TrackingSettings(enabled=False),
        "shard_size": 2,
        "batch_size": 1,  # so that probabilities do not depend on which texts are together
        "max_new_tokens": 4,
    }
    return GenerateSettings(input=source, output=output, **given | changes)  # type: ignore[arg-type]


@pytest.mark.slow
def test_two_processes_write_what_one_writes(tmp_path: Path, generation_checkpoint_folder: Path) -> None:
    source = write_studies(tmp_path / "in", 7)
    seen: list[tuple[int, int]] = []
    one = runs.generate(settings(source, tmp_path / "one", generation_checkpoint_folder))
    two = runs.generate(
        settings(source, tmp_path / "two", generation_checkpoint_folder, devices=2),
        progress=lambda done, total, label: seen.append((done, total)),
    )
    assert one.facts["predictions"] == two.facts["predictions"] == 7
    assert two.result.resumed == 7  # all by the two processes
    ours, theirs = (pq.read_table(tmp_path / name / "predictions.parquet").to_pylist() for name in ("two", "one"))
    assert ours == theirs
    assert not (tmp_path / "two.shards").exists()
    with pytest.raises(InferenceError, match=r"the process of part 1/2 failed \(error: .*re-run the same command"):
        runs.generate(settings(source, tmp_path / "three", tmp_path / "nothing", devices=2))


def test_the_number_of_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    on = GenerateSettings(input=tmp_path, output=tmp_path, checkpoint=CheckpointSettings(name="tiny"))
    assert _count(on) == 4
    assert _count(on.model_copy(update={"devices": 2})) == 2
    for changes in ({"shard": "1/2"}, {"baseline": "nearest"}, {"engine": "openvino"}):
        assert _count(on.model_copy(update=changes)) == 1
    assert _count(on.model_copy(update={"checkpoint": CheckpointSettings(name="tiny", device="cpu")})) == 1
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    assert [_visible(number) for number in (0, 1)] == ["5", "7"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert _visible(3) == "3"
