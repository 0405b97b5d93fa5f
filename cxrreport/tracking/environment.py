"""Facts about the running process that are logged with every run: versions, git commit, peak memory."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import psutil

import cxrreport
from cxrreport import versions

PACKAGES = ("cxrreport", "torch", "transformers", "peft", "radgraph", "pydicom", "monai", "numpy", "mlflow")
"""Distributions whose versions become tags."""


def peak_memory_mb(*, children: bool = True) -> float:
    """Return the peak resident memory of this process in MiB, or of its largest child process if that is larger.

    Args:
        children: include child processes, which Windows does not count.
    """
    try:
        import resource
    except ImportError:  # Windows
        memory = psutil.Process().memory_info()
        return float(getattr(memory, "peak_wset", memory.rss) / 2**20)
    processes = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN) if children else (resource.RUSAGE_SELF,)
    peak = max(resource.getrusage(who).ru_maxrss for who in processes)
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def version_tags() -> dict[str, str]:
    """Return the versions of Python and of `PACKAGES` as tags."""
    found = {"python": platform.python_version()} | versions.installed(PACKAGES)
    return {f"version.{name}": version for name, version in found.items()}


def git_tags() -> dict[str, str]:
    """Return the commit of the checkout that this package is imported from; empty for an installed wheel."""
    root = Path(cxrreport.__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return {}

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        return {
            "mlflow.source.git.commit": git("rev-parse", "HEAD"),
            "git.changed": str(bool(git("status", "--porcelain", "--untracked-files=no", "--", "cxrreport"))).lower(),
        }
    except (OSError, subprocess.SubprocessError):
        return {}
