"""The demo, in its own process and all that it starts, makes no connection beyond this machine."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from small_demo import run_guarded


@pytest.mark.parametrize(
    "call",
    [
        "socket.create_connection(('192.0.2.1', 80), 1)",
        "socket.getaddrinfo('example.invalid', 80)",
        "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'', ('192.0.2.1', 9))",
    ],
)
def test_the_guard_sees_connections(tmp_path: Path, call: str) -> None:
    done, seen = run_guarded(tmp_path, f"import socket\n{call}\n")
    assert done.returncode != 0 and seen


def test_the_demo_generates_no_baselines(small_demo: tuple[Path, subprocess.CompletedProcess[str], str]) -> None:
    folder, done, seen = small_demo
    assert seen == ""
    assert done.returncode == 0, done.stderr[-2000:]
    assert (folder / "summary.json").is_file()
