"""The demo with 20 patients and 3 steps, in its own process and watched for connections beyond this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cxrreport.demo import pipeline
from cxrreport.settings import DemoSettings

FEW_STEPS = {"max_steps": 3, "batch_size": 2, "eval_every": 1}
GUARD = """
import os, sys

def watch(event, arguments):
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        address = arguments[1]
        if isinstance(address, tuple) and str(address[0]) not in ("127.0.0.1", "::1", "localhost"):
            note(f"{event} {address}")
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        if str(arguments[0]) not in ("127.0.0.1", "::1", "localhost", "None"):
            note(f"{event} {arguments[0]}")

def note(text):
    with open(os.environ["SOCKETS_SEEN"], "a") as file:
        file.write(text + "\\n")
    raise OSError("no connection beyond this machine")

sys.addaudithook(watch)
"""


def run_small_demo(output: Path) -> dict[str, Any]:
    """Run or resume it in this process; everything but the scores is as in the demo."""
    small = replace(pipeline.SCALES[224], patients=20, smallest=64, full_size=0, train=FEW_STEPS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(pipeline.SCALES, 224, small)
        return pipeline.run_demo(DemoSettings(output=output), lambda *_: None)


def run_guarded(tmp_path: Path, code: str, *words: str) -> tuple[subprocess.CompletedProcess[str], str]:
    (tmp_path / "sitecustomize.py").write_text(GUARD)
    script = tmp_path / "script.py"
    script.write_text(code)
    seen = tmp_path / "seen"
    path = os.pathsep.join([str(tmp_path), *sys.path])
    environment = os.environ | {"PYTHONPATH": path, "SOCKETS_SEEN": str(seen)}
    done = subprocess.run(
        [sys.executable, str(script), *words], capture_output=True, text=True, env=environment, cwd=tmp_path
    )
    return done, seen.read_text() if seen.exists() else ""


if __name__ == "__main__":
    run_small_demo(Path(sys.argv[1]))
