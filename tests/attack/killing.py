"""Commands in processes that can be killed at any moment, and what they leave.

The processes are forked from a server that has imported everything, so that a kill hits work, not imports.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import socket
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pydicom

_SERVER = multiprocessing.get_context("forkserver")
_IMPORTED = [
    *("torch", "transformers", "peft", "mlflow", "mlflow.tracking", "sqlalchemy", "pydicom", "matplotlib.pyplot"),
    *(
        "monai.transforms",
        "highdicom",
        "fhir.resources.R4B.diagnosticreport",
        "cxrreport.cli",
        "cxrreport.scoring.validation",
    ),
    *("cxrreport.ingestion.ingest", "cxrreport.inference.generate", "cxrreport.evaluation.evaluate"),
    *("cxrreport.training.finetune", "cxrreport.export", "cxrreport.review", "cxrreport.model.merging"),
]
_SERVER.set_forkserver_preload(_IMPORTED)
LONGEST = 300.0
"""Seconds after which a command counts as hung."""

Words = Sequence[str]


class Running:
    """A command, in as many processes as it trains in."""

    def __init__(self, words: Words, log: Path, *, ranks: int = 1, **environment: str) -> None:
        self.log = log
        port = str(_free_port())
        self._processes = []
        for rank in range(ranks):
            several = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks)} if ranks > 1 else {}
            several |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port} if ranks > 1 else {}
            process = _SERVER.Process(target=_child, args=(list(words), str(log), environment | several))
            process.start()
            self._processes.append(process)

    def kill(self, after: float, which: int = -1) -> bool:
        """Kill it with SIGKILL after some seconds: one of its processes, or -1 for all. False if it had ended."""
        self._processes[0].join(after)
        alive = [process for process in self._processes if process.is_alive()]
        for process in alive if which < 0 else self._processes[which : which + 1]:
            process.kill()
        if which >= 0:  # `torchrun` ends the others some seconds after one has died
            self._processes[which - 1].join(5)
        for process in self._processes:
            process.kill()
            process.join()
        return len(alive) == len(self._processes)

    def wait(self) -> int:
        """The exit code, that of the first process which failed."""
        deadline = time.monotonic() + LONGEST
        for process in self._processes:
            process.join(max(0.0, deadline - time.monotonic()))
            if process.is_alive():
                process.kill()
                raise AssertionError(f"hung: {self.log.read_text()[-2000:]}")
        return next((process.exitcode for process in self._processes if process.exitcode), 0)


def import_everything(log: Path) -> None:
    """Let the server import, so that the first measured command does not wait for it."""
    run(["version"], log)


def run(words: Words, log: Path, **options: Any) -> float:
    """Run a command to its end; returns the seconds."""
    started = time.monotonic()
    running = Running(words, log, **options)
    code = running.wait()
    assert code == 0, f"{' '.join(words)}: exit code {code}\n{log.read_text()[-3000:]}"
    return time.monotonic() - started


def _child(words: list[str], log: str, environment: Mapping[str, str]) -> None:
    os.environ.update(environment)
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    limit = environment.get("LIMIT_FILE_SIZE")
    if limit:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), resource.RLIM_INFINITY))
    from cxrreport import cli
    from cxrreport.ingestion import ingest

    ingest.STUDIES_PER_SHARD = 4  # several shards of a small input
    sys.argv = ["cxrreport", *words]
    code: Any = 1
    try:
        cli.app(words)
    except SystemExit as stopped:
        code = stopped.code
    finally:
        # As the interpreter ends a process. `multiprocessing` would wait for the workers of a pool before its threads
        # have told them to end.
        threading._shutdown()
        os._exit(code if isinstance(code, int) else 0)


def _free_port() -> int:
    with closing(socket.socket()) as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def names_below(folder: Path) -> list[str]:
    """Names of all files below a folder; ids of MLflow runs, which differ, and its database are left out."""
    found = []
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not name.startswith(("mlartifacts/", "mlflow.db")):
            found.append(name)
    return sorted(found)


def content_below(folder: Path, *, without: Callable[[str], bool] = lambda _: False) -> dict[str, str]:
    """A digest of the content of every file: times, run ids and the place of the folder are not content."""
    return {
        name: _digest(folder / name, str(folder.parent))
        for name in names_below(folder)
        if not without(name) and not Path(name).name.startswith(".")
    }


_NOT_CONTENT = frozenset(
    {"seconds", "seconds_per_step", "mlflow_run_id", "run_id", "peak_memory", "resumed", "resumed_at"}
)


def _digest(path: Path, place: str) -> str:
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        return hashlib.sha256(json.dumps([table.schema.names, table.to_pylist()], default=repr).encode()).hexdigest()
    data = path.read_bytes().replace(place.encode(), b"")
    if path.suffix in (".json", ".jsonl"):
        values = [_plain(json.loads(line)) for line in ([data] if path.suffix == ".json" else data.splitlines())]
        data = json.dumps(values, sort_keys=True).encode()
    elif path.suffix == ".dcm":
        dataset = pydicom.dcmread(path)
        elements = [element for element in dataset.iterall() if element.VR in ("TM", "DT")]  # when it was written
        for element in elements:
            element.value = None
        data = dataset.to_json().encode()
    elif path.suffix == ".safetensors":  # the order of its metadata is not fixed
        start = 8 + int.from_bytes(data[:8], "little")
        data = json.dumps(json.loads(data[8:start]), sort_keys=True).encode() + data[start:]
    return hashlib.sha256(data).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items() if key not in _NOT_CONTENT}
    return [_plain(one) for one in value] if isinstance(value, list) else value


def repeated_points(database: Path) -> list[tuple[str, str, int]]:
    """Metrics that a store holds more than once for one step of one run."""
    query = "SELECT run_uuid, key, step FROM metrics GROUP BY run_uuid, key, step HAVING COUNT(*) > 1"
    with closing(sqlite3.connect(database)) as connection:
        return list(connection.execute(query))
