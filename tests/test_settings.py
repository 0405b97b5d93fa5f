"""Settings: what is refused, and what the message says."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from cxrreport.errors import SettingsError
from cxrreport.settings import (
    DemoSettings,
    EvaluateSettings,
    GenerateSettings,
    IngestSettings,
    PromptSettings,
    ReviewSettings,
    Settings,
    TrainSettings,
    build,
    merge,
)

ALL: list[type[Settings]] = [
    IngestSettings,
    TrainSettings,
    GenerateSettings,
    EvaluateSettings,
    ReviewSettings,
    DemoSettings,
]

SPEAK_FOR_THEMSELVES = {
    *("output", "tracking", "checkpoint", "prompt", "lora"),
    *("seed", "batch_size", "max_new_tokens", "weight_decay", "bootstrap_samples", "resolution", "epochs", "section"),
}


def write(folder: Path, text: str) -> Path:
    path = folder / "given.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_is_read_and_options_override_it(tmp_path: Path) -> None:
    path = write(tmp_path, "input: in\noutput: out\nresolution: 448\nworkers: 3\n")
    settings = IngestSettings.from_yaml(path, resolution=896, workers=None)
    assert (settings.input, settings.resolution, settings.workers) == (Path("in"), 896, 3)


def test_an_override_of_one_nested_field_leaves_its_neighbours(tmp_path: Path) -> None:
    path = write(tmp_path, "data: d\noutput: o\ncheckpoint: {name: tiny, precision: float32, softcap: true}\n")
    settings = TrainSettings.from_yaml(path, checkpoint={"name": "other"}, tracking={"enabled": False})
    assert settings.checkpoint.name == "other"
    assert settings.checkpoint.precision == "float32"
    assert settings.checkpoint.softcap
    assert not settings.tracking.enabled


def test_overrides_that_were_not_given_make_no_empty_mappings() -> None:
    assert merge({}, {"checkpoint": {"name": None}, "split": None}) == {}
    assert merge({"a": {"b": 1}}, {"a": {"c": 2}}) == {"a": {"b": 1, "c": 2}}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("input: in\noutput: out\nresolutoin: 448\n", ["given.yaml", "resolutoin", "unknown", "resolution"]),
        ("output: out\n", ["input", "required"]),
        ("input: in\noutput: out\nresolution: 300\n", ["resolution", "224"]),
        ("input: in\noutput: out\nworkers: 0\n", ["workers", "greater than or equal to 1"]),
        ("input: in\noutput: out\ntracking: {urri: x}\n", ["tracking.urri", "unknown"]),
        ("- a\n- b\n", ["given.yaml", "mapping"]),
        ("", ["given.yaml", "mapping"]),
        ("input: [\n", ["given.yaml", "YAML"]),
        ("input: !!python/object/apply:os.system ['true']\n", ["given.yaml", "YAML"]),
    ],
)
def test_a_mistake_is_named_with_file_and_field(tmp_path: Path, text: str, named: list[str]) -> None:
    with pytest.raises(SettingsError) as caught:
        IngestSettings.from_yaml(write(tmp_path, text))
    for word in named:
        assert word in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"nowhere\.yaml: cannot read"):
        IngestSettings.from_yaml(tmp_path / "nowhere.yaml")


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "given.yaml"
    path.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(SettingsError, match="not a YAML file"):
        IngestSettings.from_yaml(path)


def test_settings_do_not_change() -> None:
    settings = build(IngestSettings, {"input": "in", "output": "out"}, where="test")
    with pytest.raises(ValidationError):
        settings.resolution = 448  # type: ignore[misc]


@pytest.mark.parametrize("sections", [(), ("findings", "findings")])
def test_sections_are_named_once_each(sections: tuple[str, ...]) -> None:
    with pytest.raises(ValidationError, match="sections"):
        PromptSettings.model_validate({"sections": sections})


@pytest.mark.parametrize("model", ALL, ids=lambda model: model.__name__)
def test_defaults_pass_their_own_checks_and_every_field_is_explained(model: type[Settings]) -> None:
    required = {
        name: {"name": "tiny"} if name == "checkpoint" else Path("x")
        for name, field in model.model_fields.items()
        if field.is_required()
    }
    settings = build(model, required, where="test")
    assert model.model_validate_json(settings.model_dump_json()) == settings
    unexplained = {name for name, field in model.model_fields.items() if not field.description}
    assert unexplained <= SPEAK_FOR_THEMSELVES


def test_former_names_are_read_and_never_both(tmp_path: Path) -> None:
    path = tmp_path / "evaluate.yaml"
    path.write_text("predictions: p\nreferences: r\noutput: o\ncontrols: {mine: m}\ngenerate_controls: [blank]\n")
    settings = EvaluateSettings.from_yaml(path)
    assert (settings.baselines, settings.generate_baselines) == ({"mine": Path("m")}, ("blank",))
    assert EvaluateSettings.from_yaml(path, generate_baselines=("shuffled",)).generate_baselines == ("shuffled",)
    assert GenerateSettings(input=Path("i"), output=Path("o"), control="blank").baseline == "blank"  # type: ignore[call-arg]
    with path.open("a") as file:
        file.write("baselines: {}\n")
    with pytest.raises(SettingsError, match="controls is the former name of baselines; give it once"):
        EvaluateSettings.from_yaml(path)
