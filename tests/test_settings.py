"""Settings: refused values and their messages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from cxrreport import cli
from cxrreport.errors import SettingsError
from cxrreport.settings import (
    CheckpointSettings,
    CompareSettings,
    DemoSettings,
    EvaluateSettings,
    ExportSettings,
    GenerateSettings,
    IngestSettings,
    MergeSettings,
    PromptSettings,
    RegisterSettings,
    ReviewSettings,
    Settings,
    TrainSettings,
    assign,
    build,
    merge,
    read_yaml,
    weights_folder,
)

ALL: list[type[Settings]] = [
    IngestSettings,
    TrainSettings,
    GenerateSettings,
    EvaluateSettings,
    ReviewSettings,
    DemoSettings,
]

PATHS = [*ALL, CompareSettings, ExportSettings, MergeSettings, RegisterSettings]

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


def test_an_override_of_one_nested_field_keeps_the_others(tmp_path: Path) -> None:
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


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
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
    if model is ReviewSettings:
        required["evaluation"] = Path("x")  # or predictions
    settings = build(model, required, where="test")
    assert model.model_validate_json(settings.model_dump_json()) == settings
    unexplained = {name for name, field in model.model_fields.items() if not field.description}
    assert unexplained <= SPEAK_FOR_THEMSELVES


def test_former_names_are_read_but_not_beside_the_current_ones(tmp_path: Path) -> None:
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


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("RUNS", str(tmp_path / "runs"))
    monkeypatch.delenv("NOWHERE", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


def every_path(model: type[Settings], text: str) -> dict[str, object]:
    """Values for all fields of a model that contain a path or the name of a folder."""
    values: dict[str, object] = {}
    for name, field in model.model_fields.items():
        kinds = {field.annotation, *get_args(field.annotation)}
        if Path in kinds:
            values[name] = {"mine": text} if name == "baselines" else text
        elif CheckpointSettings in kinds:
            values[name] = {"name": text}
    return values


@pytest.mark.parametrize("model", PATHS, ids=lambda model: model.__name__)
@pytest.mark.parametrize(
    ("text", "wanted"), [("~/x y", "home/x y"), ("$RUNS/a", "runs/a"), ("${RUNS}-b/$RUNS.c", None), ("a/~b", "a/~b")]
)
def test_every_path_is_expanded_alike(home: Path, model: type[Settings], text: str, wanted: str | None) -> None:
    below = home.parent
    expected = Path(f"{below}/runs-b/{below}/runs.c") if wanted is None else Path(wanted)
    if text != "a/~b" and wanted is not None:
        expected = below / wanted
    given = every_path(model, text)
    if model is ReviewSettings:
        del given["predictions"]  # excluded by evaluation
    if model is GenerateSettings:
        del given["prompt_template"]  # excluded by adapter
    (below / "given.yaml").write_text(json.dumps(given))
    assigned = [f"{name}={json.dumps(value)}" for name, value in given.items()]
    for settings in (
        model.from_yaml(Path("given.yaml")),
        build(model, assign(model, {}, assigned), where="--set"),
        model(**{name: Path(value) if isinstance(value, str) else value for name, value in given.items()}),
    ):
        for name in given:
            value = getattr(settings, name)
            if isinstance(value, CheckpointSettings):
                value = Path(value.name)
            assert (value["mine"] if isinstance(value, dict) else value) == expected, name
        assert model.model_validate_json(settings.model_dump_json()) == settings


def test_names_that_cannot_be_expanded_are_refused(home: Path) -> None:
    for text, message in (("$NOWHERE/x", "NOWHERE is not set"), ("~nobody-here/x", "no home folder of that name")):
        with pytest.raises(SettingsError, match=rf"here: output: .*{message}"):
            build(IngestSettings, {"input": "in", "output": text}, where="here")
    (home.parent / "$NOWHERE").mkdir()
    (home.parent / "a$RUNS").mkdir()
    built = build(IngestSettings, {"input": "$NOWHERE", "output": "a$RUNS/new"}, where="")
    assert (built.input, built.output) == (Path("$NOWHERE"), Path("a$RUNS/new"))


def test_the_folder_of_weights_and_the_settings_file_are_expanded(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXRREPORT_WEIGHTS", "~/weights")
    assert weights_folder() == home / "weights"
    home.mkdir()
    write(home, "input: in\noutput: out\n")
    assert read_yaml(Path("~/given.yaml")) == {"input": "in", "output": "out"}


@pytest.mark.parametrize("options", [["--output=~/out"], ["--set", "output=~/out"], ["--output", "$RUNS/../home/out"]])
def test_the_command_line_expands_paths_and_names_the_working_folder(home: Path, options: list[str]) -> None:
    arguments = ["ingest", "--input", "nothing-here", "--no-track", *options]
    result = CliRunner(env={"COLUMNS": "400"}).invoke(cli.app, arguments)
    assert result.exit_code == 2
    assert "nothing-here" in result.stderr and f"(relative paths start at {home.parent})" in result.stderr
    assert not (home.parent / "~").exists() and not (home.parent / "$RUNS").exists()
    result = CliRunner().invoke(cli.app, ["published", "$NOWHERE/x"])
    assert result.exit_code != 0
