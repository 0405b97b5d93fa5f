"""What all tests may ask for."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def shared() -> Path:
    """Real reports and radiographs, which lie beside the project where there are some."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("real material is not here: ../shared/data")
    return folder
