"""Every shipped configuration of ingest is one of its settings models."""

from __future__ import annotations

from pathlib import Path

import pytest

from cxrreport.settings import IngestSettings

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("ingest-*.yaml"))


def test_the_configs_are_there() -> None:
    assert {path.name for path in CONFIGS} >= {"ingest-mimic-cxr.yaml", "ingest-openi.yaml", "ingest-demo.yaml"}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_config_is_valid_and_names_no_path_of_a_machine(path: Path) -> None:
    settings = IngestSettings.from_yaml(path)
    assert not settings.input.is_absolute() and not settings.output.is_absolute()
