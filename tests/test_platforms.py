"""Modules and functions that only POSIX systems have are not required.

This runs on Linux, with those modules hidden from cxrreport and filelock; other packages choose them by the platform.
It shows that cxrreport does not need them, not that it works on Windows.
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import cxrreport

PACKAGE = Path(cxrreport.__file__).parent
POSIX_ONLY = {"fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog", "posix", "crypt", "readline"}
# Names of `os` and `signal` that Windows lacks, as their documentation says.
FUNCTIONS = {
    *("pwrite", "pread", "pwritev", "preadv", "fork", "forkpty", "getuid", "geteuid", "getgid", "setuid", "setsid"),
    *("killpg", "getpgid", "setpgid", "chown", "fchown", "lchown", "fchmod", "mkfifo", "mknod", "statvfs", "fstatvfs"),
    *("sched_getaffinity", "sched_setaffinity", "getloadavg", "uname", "nice", "wait", "wait3", "wait4", "sync"),
    *("sendfile", "posix_fadvise", "posix_fallocate", "fdatasync", "lockf", "openpty", "O_DIRECTORY", "O_NOFOLLOW"),
    *("O_NONBLOCK", "O_CLOEXEC", "O_DIRECT", "register_at_fork", "getxattr", "setxattr", "memfd_create", "pipe2"),
    *("SIGKILL", "SIGALRM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGCHLD", "alarm", "setitimer", "pthread_kill"),
}
HIDE = """
import builtins
importing = builtins.__import__
def hiding(name, globals=None, *given, **more):
    if name in {"fcntl", "resource"} and ((globals or {}).get("__package__") or "").partition(".")[0] in HIDDEN_FROM:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    return importing(name, globals, *given, **more)
builtins.__import__ = hiding
HIDDEN_FROM = {"cxrreport", "filelock"}
"""


@pytest.fixture(scope="module")
def hidden(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment of a Python, and of its child processes, without these modules."""
    folder = tmp_path_factory.mktemp("hidden")
    (folder / "sitecustomize.py").write_text(HIDE)
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), *filter(None, sys.path)])}


def run(environment: dict[str, str], *arguments: str) -> str:
    done = subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_every_module_can_be_imported(hidden: dict[str, str]) -> None:
    names = [
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.name != "__main__.py"
    ]
    code = """
import importlib, json, sys
from filelock import FileLock, SoftFileLock
if not issubclass(FileLock, SoftFileLock):
    sys.exit("fcntl is not hidden from filelock")
for name in json.loads(sys.argv[1]):
    try:
        importlib.import_module(name)
    except Exception as error:
        sys.exit(f"{name}: {error!r}")
"""
    run(hidden, "-c", code, json.dumps(names))


def test_phantoms_are_ingested_and_reported(hidden: dict[str, str], tmp_path: Path) -> None:
    phantoms = """
import sys
from pathlib import Path
from cxrreport.demo.phantoms.files import write_studies
if __name__ == "__main__":
    sizes = {"smallest": 64, "full_size": 80}
    write_studies(Path(sys.argv[1]), patients=20, seed=0, workers=1, progress=lambda *_: None, **sizes)
"""
    (tmp_path / "phantoms.py").write_text(phantoms)
    run(hidden, str(tmp_path / "phantoms.py"), str(tmp_path / "dicom"))
    command = ("-m", "cxrreport")
    options = ["-i", str(tmp_path / "dicom"), "-o", str(tmp_path / "data"), "--workers", "2"]
    options += ["--set", "layout=mimic-cxr"]
    ingested = json.loads(run(hidden, *command, "ingest", *options, "--json"))
    assert ingested["kept"] > 0 and ingested["run_id"]
    options = ["-i", str(tmp_path / "data"), "-o", str(tmp_path / "reports"), "-c", "tiny", "--limit", "2"]
    options += ["--set", "max_new_tokens=4"]
    generated = json.loads(run(hidden, *command, "generate", *options, "--json"))
    assert generated["run_id"]
    assert pq.read_table(tmp_path / "reports" / "predictions.parquet").num_rows == 2


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_module_needs_what_only_posix_has(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    guarded = {
        id(below)
        for node in ast.walk(tree)
        if isinstance(node, ast.Try) and any("ImportError" in ast.unparse(one) for one in node.handlers)
        for below in node.body
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom) and id(node) not in guarded:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            assert not POSIX_ONLY.intersection(names), f"line {node.lineno}"
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ("os", "signal"):
            assert node.attr not in FUNCTIONS, f"line {node.lineno}: {node.value.id}.{node.attr}"
