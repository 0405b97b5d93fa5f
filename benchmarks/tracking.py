"""Cost of MLflow for training if its server works, stops or does not respond; the last line is a JSON object.

    python benchmarks/tracking.py               # about 15 minutes on two idle cores
    python benchmarks/tracking.py --rounds 1    # a quarter of it

The tiny model trains on phantoms. Each run is a separate process, and the variants alternate: without MLflow; with a
real `mlflow server` on loopback (SQLite, proxied artifacts); with one that is killed after a third of the steps; with
one that is suspended there, so that it accepts connections and does not answer. For the steps after that:

- `slowdown_VARIANT`: the median step divided by that of the untracked run of the same round, median over rounds. Two
  such processes differ by some per cent on an idle machine, so the lines above the last one list all rounds.
- `share_VARIANT`: processor time of the threads that send and sample, divided by the time of the steps. It has less
  noise, and is the largest share of a step that they can take.
- `end_seconds`: the longest time from the last step to the end of a process: saving, drawing the curve, and waiting for
  an unreachable server.
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
import threading
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
    from cxrreport.demo.pipeline import train_settings
    from cxrreport.settings import TrackingSettings

    marks: list[tuple[float, float]] = []  # time and processor time of tracking's threads, at a third and at the end

    def progress(done: int, total: int, label: str) -> None:
        if label != "training" or done not in (total // 3, total):
            return
        if done < total and trouble:
            os.killpg(server, trouble)
        threads = [each for each in threading.enumerate() if each.name in ("spool", "system metrics")]
        clocks = [time.pthread_getcpuclockid(each.ident) for each in threads if each.ident]
        marks.append((time.time(), sum(map(time.clock_gettime, clocks))))

    tracked = TrackingSettings(uri=uri) if uri else TrackingSettings(enabled=False)
    few = {"max_steps": steps, "batch_size": 4, "accumulation": 1, "eval_every": steps}
    places = {"data": data, "output": output, "tracking": tracked.model_dump()}
    runs.train(train_settings(output.parent, **few, **places), progress=progress)
    lines = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    seconds = [line["seconds"] for line in lines if "loss" in line]
    (begun, before), (last, after) = marks
    share = (after - before) / (last - begun)
    print(json.dumps({"step": statistics.median(seconds[steps // 3 :]), "share": share, "last": last}))


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
    """One run of one side: its median `step`, the `share` of tracking's threads, and `end`."""
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
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--child", nargs=6, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        data, output, steps, uri, trouble, group = options.child
        child(Path(data), Path(output), int(steps), uri, int(trouble), int(group))
        return

    from cxrreport import runs
    from cxrreport.demo.phantoms.files import write_studies
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
                print(
                    f"round {turn + 1}, {side:10} {one['step']:.4f} s a step, {one['end']:5.1f} s to the end",
                    flush=True,
                )
    print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    result: dict[str, float] = {}
    for side in SIDES[1:]:
        pairs = zip(found[side], found["untracked"], strict=True)
        ratios = [one["step"] / other["step"] - 1 for one, other in pairs]
        print(f"{side:10} slowdown by round: {', '.join(f'{ratio:+.1%}' for ratio in sorted(ratios))}")
        result[f"slowdown_{side}"] = statistics.median(ratios)
        result[f"share_{side}"] = statistics.median(one["share"] for one in found[side])
    result["end_seconds"] = max(one["end"] for side in ("dead", "silent") for one in found[side])
    result["end_seconds_untracked"] = max(one["end"] for one in found["untracked"])
    print(json.dumps({key: round(value, 4) for key, value in result.items()}))


if __name__ == "__main__":
    main()
