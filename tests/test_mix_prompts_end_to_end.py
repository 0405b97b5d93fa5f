"""`generate` with prompts and with shards from the command line, on the project's own checkpoint and its phantoms."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image
from pydantic import ValidationError
from typer.testing import CliRunner
from untrained_adapter import write_adapter

from cxrreport import runs
from cxrreport.cli import app
from cxrreport.demo.phantoms.dicom import example, to_dicom
from cxrreport.demo.phantoms.studies import plan_studies
from cxrreport.errors import WeightsError
from cxrreport.inference.preparation import matching_settings
from cxrreport.settings import CheckpointSettings, GenerateSettings, TrackingSettings


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantoms")
    for seed in range(3):
        (folder / f"{seed}.dcm").write_bytes(example(seed))
    return folder


def test_boxes_from_the_command_line(phantoms: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    asked = ["--prompt", "detect cardiomegaly", "--prompt", "cap", "--draw-boxes"]
    given = ["generate", "-i", str(phantoms), "-c", "tiny", "-o", str(out), "--no-track", "--json", *asked]
    result = CliRunner().invoke(app, given)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["predictions"] == 6
    rows = pq.read_table(out / "predictions.parquet").to_pylist()
    assert [row["prompt"] for row in rows] == ["detect cardiomegaly", "cap en"] * 3
    manifest = {row["study_id"]: row for row in pq.read_table(out / "ingested/manifest.parquet").to_pylist()}
    found = [(manifest[row["study_id"]], box) for row in rows for box in row["boxes"]]
    assert found
    for source, box in found:
        assert box["label"] == "cardiomegaly"
        # The heart of a phantom is in the middle, below the upper third.
        assert box["left"] < source["columns"] / 2 < box["right"]
        assert source["rows"] / 3 < box["top"] < box["bottom"] <= source["rows"]
    assert all(row["image_sha256"] == [manifest[row["study_id"]]["image_sha256"]] for row in rows)
    for path in (out / "boxes").iterdir():
        assert max(Image.open(path).size) == 224


def settings(**given: object) -> GenerateSettings:
    values = {"checkpoint": CheckpointSettings(name="tiny"), "tracking": TrackingSettings(enabled=False)}
    return GenerateSettings.model_validate(values | given)


def test_prompts_of_their_own_are_about_the_frontal_alone(tmp_path: Path) -> None:
    """Whatever else the adapter has learned to read."""
    (study, *_) = plan_studies(1, 4, smallest=96, full_size=0)
    (tmp_path / "dicom").mkdir()
    for lateral in (False, True):
        to_dicom(study, lateral=lateral).save_as(tmp_path / "dicom" / f"{lateral}.dcm", enforce_file_format=True)
    write_adapter(tmp_path / "adapter", views="frontal+lateral", prior="report+image", pool=2)
    given = {"input": tmp_path / "dicom", "adapter": tmp_path / "adapter", "max_new_tokens": 4, "checkpoint": None}
    found = {}
    for name, prompts in (("report", ()), ("prompts", ("detect effusion",))):
        runs.generate(settings(**given, output=tmp_path / name, prompts=prompts))
        (found[name],) = pq.read_table(tmp_path / name / "predictions.parquet").to_pylist()
    assert len(found["report"]["image_ids"]) == 2
    assert found["report"]["prompt"].endswith(" images: frontal, lateral.")
    assert (found["prompts"]["image_ids"], found["prompts"]["prompt"]) == (
        found["report"]["image_ids"][:1],
        "detect effusion",
    )
    with pytest.raises(ValidationError, match=r"prompts are about one image; remove prompt\.views and prompt\.prior"):
        settings(input=tmp_path, output=tmp_path, prompts=("caption",), prompt={"prior": "report"})


def test_beams_and_temperature_exclude_each_other(phantoms: Path, tmp_path: Path) -> None:
    given = ["generate", "-i", str(phantoms), "-c", "tiny", "-o", str(tmp_path / "out"), "--beams", "2"]
    result = CliRunner().invoke(app, [*given, "--temperature", "0.5"])
    assert result.exit_code != 0
    assert "give one of them" in result.output


def test_an_adapter_without_its_settings_is_an_error(phantoms: Path, tmp_path: Path) -> None:
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter/adapter_config.json").write_text("{}")
    lone = CheckpointSettings(name=str(tmp_path / "adapter"))
    with pytest.raises(WeightsError, match=r"adapter: not an adapter folder of .*, cxrreport\.json is missing"):
        runs.generate(settings(input=phantoms, output=tmp_path / "out", checkpoint=lone))


@pytest.mark.parametrize(
    ("name", "given", "softcap"),
    [
        ("paligemma2-3b-mix-448", {}, True),
        ("google/paligemma2-3b-mix-448", {}, True),
        ("paligemma2-3b-mix-448", {"softcap": False}, False),
        ("tiny", {}, False),
    ],
)
def test_published_checkpoints_run_with_softcapping(name: str, given: dict[str, bool], softcap: bool) -> None:
    asked = settings(input="data", output="out", checkpoint=CheckpointSettings(name=name, **given))
    checkpoint, _, _ = matching_settings(asked)
    assert checkpoint.softcap is softcap
