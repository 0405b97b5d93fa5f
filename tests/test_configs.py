"""Every shipped configuration is valid for the settings of its command."""

from __future__ import annotations

from pathlib import Path

import pytest

from cxrreport.inference.chat import read_template
from cxrreport.settings import (
    EvaluateSettings,
    GenerateSettings,
    IngestSettings,
    ListenSettings,
    PullSettings,
    ReviewSettings,
    Settings,
    TrainSettings,
)

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))
MODELS: dict[str, type[Settings]] = {
    "ingest": IngestSettings,
    "train": TrainSettings,
    "generate": GenerateSettings,
    "evaluate": EvaluateSettings,
    "review": ReviewSettings,
    "pull": PullSettings,
    "listen": ListenSettings,
}


def verb_of(path: Path) -> str:
    return path.stem.partition("-")[0]


def test_every_command_has_a_configuration() -> None:
    assert {verb_of(path) for path in CONFIGS} == MODELS.keys()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_it_is_its_model(path: Path) -> None:
    settings = MODELS[verb_of(path)].from_yaml(path)
    assert type(settings).model_validate_json(settings.model_dump_json()) == settings


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_it_names_no_path_of_one_machine(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not any(place in text for place in ("/home/", "/root/", "/work/", "/tmp/", "C:\\"))


def test_every_prompt_of_a_public_model_is_valid_and_has_a_source() -> None:
    prompts = sorted((CONFIGS[0].parent / "prompts").glob("*.yaml"))
    assert len(prompts) >= 3
    for path in prompts:
        template = read_template(path)
        assert template.source.startswith("https://") and template.user
    used = [
        settings for path in CONFIGS if verb_of(path) == "generate" for settings in [GenerateSettings.from_yaml(path)]
    ]
    named = {one.prompt_template for one in used if one.prompt_template is not None}
    assert named and all((CONFIGS[0].parents[1] / path).is_file() for path in named)
