"""The demo, in a process of its own and all that it starts, makes no connection beyond this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

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
WALK = """
import pathlib, sys
from dataclasses import replace

from cxrreport.demo import pipeline as walk
from cxrreport.settings import DemoSettings

if __name__ == "__main__":
    small = replace(walk.SCALES[224], patients=20, smallest=64, full_size=0, max_steps=1, batch_size=4)
    walk.SCALES[224] = small
    walk.walk(DemoSettings(output=pathlib.Path(sys.argv[1])), lambda *_: None)
"""


def guarded(tmp_path: Path, code: str, *words: str) -> tuple[subprocess.CompletedProcess[str], str]:
    (tmp_path / "sitecustomize.py").write_text(GUARD)
    script = tmp_path / "script.py"
    script.write_text(code)
    seen = tmp_path / "seen"
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "SOCKETS_SEEN": str(seen)}
    done = subprocess.run(
        [sys.executable, str(script), *words], capture_output=True, text=True, env=environment, cwd=tmp_path
    )
    return done, seen.read_text() if seen.exists() else ""


@pytest.mark.parametrize(
    "call",
    [
        "socket.create_connection(('192.0.2.1', 80), 1)",
        "socket.getaddrinfo('example.invalid', 80)",
        "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'', ('192.0.2.1', 9))",
    ],
)
def test_the_guard_sees_connections(tmp_path: Path, call: str) -> None:
    done, seen = guarded(tmp_path, f"import socket\n{call}\n")
    assert done.returncode != 0 and seen


def test_the_demo_makes_none(tmp_path: Path) -> None:
    from cxrreport.assets import checkpoint_folder

    if not (checkpoint_folder("paligemma2-tiny-224") / "config.json").is_file():
        pytest.skip("the tiny checkpoint is not here")
    done, seen = guarded(tmp_path, WALK, str(tmp_path / "demo"))
    assert seen == ""
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "demo" / "summary.json").is_file()
