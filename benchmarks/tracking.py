"""What MLflow costs a training whose server lives, dies or falls silent; the last line is a JSON object.

    python benchmarks/tracking.py               # some five minutes on two idle cores
    python benchmarks/tracking.py --rounds 1    # a third of it

The tiny model trains on phantoms, every run in a process of its own, the sides in turns: without MLflow; with a real
`mlflow server` on loopback (SQLite, proxied artifacts); with one that is killed after a third of the steps; with one
that is stopped there, so that it takes connections and answers none. Compared are the medians of the steps after that.
`end_seconds` is the longest time from the last step to the end of a process: saving, drawing the curve, and waiting
for a server that is not there.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SIDES = ("untracked", "alive", "dead", "silent")


def child(data: Path, output: Path, steps: int, uri: str, trouble: int, server: int) -> None:
    """Train, and send the signal `trouble` to the process group `server` after a third of the steps."""
    from cxrreport import runs
    from cxrreport.demo.walk import train_settings
    from cxrreport.settings import TrackingSettings

    last: list[float] = []

    def progress(done: int, total: int, label: str) -> None:
        if label == "training" and done == total:
            last.append(time.time())
        if label == "training" and done == total // 3 and trouble:
            os.killpg(server, trouble)

    tracked = TrackingSettings(uri=uri) if uri else TrackingSettings(enabled=False)
    recipe = train_settings(data, output, tracked=tracked)
    runs.train(recipe.model_copy(update={"max_steps": steps, "batch_size": 4, "eval_every": steps}), progress=progress)
    lines = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    seconds = [line["seconds"] for line in lines if "loss" in line]
    print(json.dumps({"seconds": seconds[steps // 3 :], "last": last[0]}))


@contextmanager
def server(folder: Path) -> Iterator[tuple[str, int]]:
    """Address and process group of an `mlflow server` that answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    uri = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder / 'runs.db'}", "--serve-artifacts"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, stdout=quiet, stderr=quiet, cwd=folder, start_new_session=True)
    try:
        for _ in range(240):
            try:
                urllib.request.urlopen(f"{uri}/health", timeout=2).close()
                break
            except OSError:
                time.sleep(0.5)
        else:
            raise SystemExit("mlflow server does not answer")
        yield uri, process.pid
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def measured(side: str, data: Path, folder: Path, steps: int) -> dict[str, Any]:
    """One run of one side; `seconds` of its steps, and `end`."""
    folder.mkdir()

    def run(uri: str = "", group: int = 0) -> dict[str, Any]:
        trouble = {"dead": signal.SIGKILL, "silent": signal.SIGSTOP}.get(side, 0)
        values = [data, folder / "train", steps, uri, int(trouble), group]
        # -P: beside this file, `radgraph` is a benchmark.
        command = [sys.executable, "-P", __file__, "--child", *map(str, values)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found | {"end": time.time() - found["last"]}

    if side == "untracked":
        return run()
    with server(folder) as (uri, group):
        return run(uri, group)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--child", nargs=6, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        data, output, steps, uri, trouble, group = options.child
        child(Path(data), Path(output), int(steps), uri, int(trouble), int(group))
        return

    from cxrreport import runs
    from cxrreport.demo.studies import write_studies
    from cxrreport.settings import IngestSettings, TrackingSettings

    found: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        silent = {"progress": lambda *_: None}
        write_studies(folder / "in", patients=40, seed=0, smallest=224, full_size=0, workers=1, **silent)
        untracked = TrackingSettings(enabled=False)
        runs.ingest(IngestSettings(input=folder / "in", output=folder / "data", tracking=untracked))
        for turn in range(options.rounds):
            for side in SIDES:
                found[side].append(measured(side, folder / "data", folder / f"{side}-{turn}", options.steps))
                one = found[side][-1]
                median = statistics.median(one["seconds"])
                print(f"round {turn + 1}, {side:10} {median:.4f} s a step, {one['end']:5.1f} s to the end", flush=True)
    steps = {
        side: statistics.median(second for one in each for second in one["seconds"]) for side, each in found.items()
    }
    print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    result: dict[str, float] = {f"slowdown_{side}": steps[side] / steps["untracked"] - 1 for side in SIDES[1:]}
    result["end_seconds"] = max(one["end"] for side in ("dead", "silent") for one in found[side])
    result["end_seconds_untracked"] = max(one["end"] for one in found["untracked"])
    print(json.dumps({key: round(value, 4) for key, value in result.items()}))


if __name__ == "__main__":
    main()
