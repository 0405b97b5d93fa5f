"""Training in several processes with one thread each, as `torchrun` would start them.

For a model this small, a second thread makes a step a third faster, and a second process nearly twice. The results do
not depend on the number of processes.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

from cxrreport import runs
from cxrreport.child_processes import module_command, module_environment
from cxrreport.errors import TrainingError
from cxrreport.records import Progress
from cxrreport.runs import Summary
from cxrreport.settings import TrainSettings
from cxrreport.storage.output_folder import read_state

_GRACE = 60.0
"""Seconds in which a process saves the step that it is in, before it is killed."""


def cores() -> int:
    """Cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # on Linux only
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def train(settings: TrainSettings, processes: int, progress: Progress) -> Summary[Any]:
    """`runs.train` in `processes` processes; in this one if that is 1.

    Raises:
        TrainingError: a process failed; the message is its last line.
    """
    if processes == 1 or (read_state(settings.output, "train") or {}).get("finished"):
        return runs.train(settings, progress=progress)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        config, answer = folder / "train.yaml", folder / "answer.json"
        config.write_text(settings.model_dump_json(), encoding="utf-8")  # JSON is YAML
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        started, errors = [], []
        for rank in range(processes):
            place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "MASTER_PORT": port}
            environment = {name: str(value) for name, value in place.items()}
            environment |= {"MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"}
            errors.append(stack.enter_context((folder / f"errors-{rank}").open("w+b")))
            started.append(
                subprocess.Popen(
                    module_command("cxrreport", "train", str(config), "--json"),
                    env=module_environment(environment),
                    stdout=stack.enter_context(answer.open("wb")) if rank == 0 else subprocess.DEVNULL,
                    stderr=errors[-1],
                    start_new_session=True,  # Ctrl-C comes once, from `_end`; a second signal would not let them save
                )
            )
        try:
            _wait(started, settings, progress)
        finally:
            _end(started)
        for process, lines in zip(started, errors, strict=True):
            if process.returncode:
                raise TrainingError(f"{settings.output}: {_last_line(lines)}")
        facts = json.loads(answer.read_text(encoding="utf-8"))
    return Summary(
        command="train",
        output=settings.output,
        seconds=facts["seconds"],
        run_id=facts["run_id"],
        tracking_uri=facts["tracking_uri"],
        facts=facts,
        result=None,
    )


def _wait(started: Sequence[subprocess.Popen[bytes]], settings: TrainSettings, progress: Progress) -> None:
    """Report the steps in `log.jsonl` until all processes have ended, or one has failed."""
    while any(process.poll() is None for process in started):
        if any(process.returncode for process in started):
            return
        try:
            steps = (settings.output / "log.jsonl").read_bytes().count(b'"loss"')
        except FileNotFoundError:
            steps = 0
        if steps:
            progress(steps, settings.max_steps or steps, "training")
        time.sleep(1)


def _end(started: Sequence[subprocess.Popen[bytes]]) -> None:
    """End processes as Ctrl-C would, so that they save the step that they are in."""
    for process in started:
        if process.poll() is None:
            process.terminate()
    for process in started:
        try:
            process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _last_line(lines: IO[bytes]) -> str:
    lines.seek(0)
    said = lines.read().decode(errors="replace").strip().splitlines()
    return said[-1].removeprefix("error: ") if said else "a process was killed"
