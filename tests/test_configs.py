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


LADDER = ("", "-tower", "-prior", "-reward")


def test_the_ladder_of_mimic_cxr_is_documented_and_fits_together() -> None:
    rungs = [TrainSettings.from_yaml(CONFIGS[0].parent / f"train-mimic-cxr-3b-896{name}.yaml") for name in LADDER]
    page = (CONFIGS[0].parents[1] / "docs/training.md").read_text(encoding="utf-8")
    assert all(f"`train-mimic-cxr-3b-896{name}.yaml`" in page for name in LADDER)
    paper, tower, prior, reward = rungs
    # Each rung differs from the one before in what it adds.
    assert tower.prompt == paper.prompt and tower.data == paper.data
    assert paper.lora and tower.lora == paper.lora.model_copy(update={"targets": "language+projector+vision"})
    assert prior.lora == tower.lora and (prior.prompt.views, prior.prompt.prior) == ("frontal+lateral", "report+image")
    assert prior.prior_dropout > 0
    assert (reward.prompt, reward.lora, reward.data) == (prior.prompt, prior.lora, prior.data)
    assert reward.reward.adapter == prior.output / "adapter" and reward.learning_rate < prior.learning_rate
    ingests = [IngestSettings.from_yaml(path) for path in CONFIGS if path.name.startswith("ingest-mimic-cxr")]
    views = {one.output: one.views for one in ingests}
    assert (views[paper.data], views[prior.data]) == ("best-frontal", "best-frontal+lateral")


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
