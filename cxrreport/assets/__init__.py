"""Folders of the small models, and of the adapter of one, that are shipped with the package.

They have only seen phantoms; `docs/demo.md` says how they were made.
"""

from __future__ import annotations

from pathlib import Path

ASSETS = Path(__file__).resolve().parent


def checkpoint_folder(name: str) -> Path:
    """The folder of a shipped PaliGemma 2 checkpoint."""
    return ASSETS / name


def adapter_folder() -> Path:
    """The folder of the shipped adapter, which the demo has trained."""
    return ASSETS / "adapter-tiny-224"


def radgraph_folder() -> Path:
    """The folder of the shipped RadGraph archive."""
    return ASSETS / "radgraph" / "radgraph-xl"
