"""No process of several holds a whole checkpoint, except the first one when trained weights are gathered."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from random_checkpoint import write_wide_checkpoint

HERE = Path(__file__).parent
SLACK = 45.0
"""MB for code that is loaded on first use, buffers of gloo and blocks that the C library keeps."""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
@pytest.mark.parametrize("count", [2, 4])
def test_the_peak_of_each_process(tmp_path: Path, count: int) -> None:
    folder = write_wide_checkpoint(tmp_path / "checkpoint")
    whole = sum(path.stat().st_size for path in folder.glob("*.safetensors")) / 2**20
    largest = 300_000 * 32 * 4 / 2**20
    assert whole > 6 * largest
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    done = subprocess.run(
        [*launch, str(HERE / "sharded_peak.py"), str(folder), str(tmp_path)],
        capture_output=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    for rank in range(count):
        found = json.loads((tmp_path / f"peak-{rank}.json").read_text())
        share = found["loaded_mb"]
        assert share < 1.1 * whole / count
        assert share <= found["loading"] < share + largest / count + SLACK, (rank, found)
        if rank == 0:
            assert found["gathered_mb"] == pytest.approx(whole, rel=0.05)
            assert found["gathering"] < whole + 2 * largest + SLACK, found
        else:
            assert found["gathered_mb"] == 0
            assert found["gathering"] < 2 * largest + SLACK, (rank, found)
