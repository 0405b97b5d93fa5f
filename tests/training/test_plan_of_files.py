"""The plan of settings files, and of generation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from random_checkpoint import write_generation_checkpoint
from typer.testing import CliRunner

from cxrreport import cli
from cxrreport.dataset import ManifestRow, encode_png, write_image_shard, write_manifest
from cxrreport.model import capacity
from cxrreport.model.catalogue import CHECKPOINTS
from cxrreport.model.checkpoints import load
from cxrreport.records import Image, Report, Split, View
from cxrreport.settings import CheckpointSettings, PlanSettings, TrainSettings
from cxrreport.training.planning.estimate import plan
from cxrreport.training.planning.generation import _Reading, answer_generation, generation_need, plan_generation
from cxrreport.training.planning.gpus import GPUS

GIB = 2**30
BIG = "paligemma2-3b-pt-896"


def shown(*arguments: str) -> Any:
    result = CliRunner(env={"COLUMNS": "80", "TERM": "dumb", "NO_COLOR": "1"}).invoke(cli.app, ["plan", *arguments])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout) if "--json" in arguments else result.stdout


def write_data(folder: Path) -> Path:
    """Five images of three training studies with a report, one study without, and a test study."""
    png = encode_png(np.zeros((224, 224), np.uint8))
    rows = []
    train = [(2, "Clear."), (2, "Clear."), (1, "Large heart."), (3, "")]
    studies = [*((count, Split.TRAIN, findings) for count, findings in train), (1, Split.TEST, "Clear.")]
    for number, (images, split, findings) in enumerate(studies):
        for place in range(images):
            ids = {"image_id": f"i{number}-{place}", "study_id": f"s{number}", "patient_id": f"p{number}"}
            image = Image(**ids, split=split, view=View.PA, source="x.dcm", rows=224, columns=224)
            rows.append(ManifestRow(image=image, report=Report(findings=findings), image_sha256="0"))
    write_image_shard(folder / "images/00000.parquet", [(row.image.image_id, png) for row in rows])
    write_manifest(folder, rows, {"resolution": 224, "resize": "squash", "interpolation": "bilinear"})
    return folder


def test_a_training_file_is_priced_with_its_epochs_and_its_data(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data")
    file = tmp_path / "train.yaml"
    file.write_text(f"data: {data}\noutput: out\ncheckpoint: {{name: {BIG}}}\nepochs: 4\n")
    values = shown(str(file), "--json", "--gpu", "H100")
    assert (values["settings"]["examples"], values["settings"]["epochs"]) == (5, 4)
    (offer,) = values["offers"]
    assert offer["hours"] == pytest.approx(4 * 5 * offer["seconds"] / 3600)
    assert "4 x 5 examples" in values["answer"]
    given = shown(str(file), "--json", "--gpu", "H100", "--examples", "1000", "--epochs", "2")["settings"]
    assert (given["examples"], given["epochs"]) == (1000, 2)
    file.write_text(f"data: {data}\noutput: out\ncheckpoint: {{name: {BIG}}}\nmax_steps: 10\nbatch_size: 2\n")
    assert shown(str(file), "--json", "--gpu", "H100")["settings"]["epochs"] == pytest.approx(10 * 2 * 16 / 5)


def test_epochs_of_steps_without_data() -> None:
    train = TrainSettings.model_validate(
        {"data": "d", "output": "o", "checkpoint": {"name": BIG}, "max_steps": 100, "accumulation": 8}
    )
    assert PlanSettings.of_training(train).epochs == pytest.approx(800 / 210_000)


def test_gpus_that_are_too_small_are_left_out_of_the_table() -> None:
    text = shown("paligemma2-10b-pt-896")
    table = text[text.index("checkpoint") : text.index("left out")]
    assert "H100" in table
    assert "4090" not in table
    assert "3 left out because they do not fit: A10G, L4, RTX-4090" in text
    assert [offer.fits for offer in plan(PlanSettings(checkpoint="paligemma2-10b-pt-896"))].count(False) == 3


def test_generation_of_an_archive() -> None:
    settings = PlanSettings(task="generation", checkpoint=BIG, studies=1000)
    offers = {offer.gpu.name: offer for offer in plan_generation(settings)}
    assert list(offers) == [gpu.name for gpu in GPUS]
    h100, l4 = offers["H100"], offers["L4"]
    # arXiv 2412.03555: 17.4 and 3.9 TFLOP of the language model, 5.5 of the tower, for 4,296 tokens.
    assert h100.need.prompt_flops / 1e12 == pytest.approx((17.4 + 3.9) * 4168 / 4296 + 5.5, rel=0.1)
    assert h100.need.memory["weights"] == pytest.approx(2 * 3.04e9, rel=0.01)
    assert 1 < l4.need.batch < h100.need.batch <= capacity.MOST_TEXTS["cuda"]
    assert all(offer.fits and offer.need.peak * 1.1 <= offer.gpu.memory for offer in offers.values())
    assert h100.hours == pytest.approx(1000 / h100.studies_per_hour)
    assert h100.cost == pytest.approx(h100.hours * h100.gpu.price)
    reading = h100.need.prompt_flops / (0.4 * 989e12)
    assert reading < 3600 / h100.studies_per_hour < 3 * reading
    assert h100.disk == 1000 * h100.need.disk
    assert "1,000 studies" in answer_generation(settings, list(offers.values()))
    small = plan_generation(PlanSettings(task="generation", checkpoint="paligemma2-28b-pt-896", gpu="L4"))
    assert "Nothing fits" in answer_generation(settings, small)
    quantised = PlanSettings(task="generation", checkpoint="paligemma2-28b-pt-896", gpu="L4", method="qlora")
    assert plan_generation(quantised)[0].need.memory["weights"] < 20 * GIB


def test_more_tokens_and_images_take_longer() -> None:
    base = PlanSettings(task="generation", checkpoint=BIG, gpu="A100-80GB")
    rates = [
        plan_generation(base.model_copy(update=changes))[0].studies_per_hour
        for changes in ({}, {"suffix_tokens": 512}, {"max_images": 2}, {"resolution": 224})
    ]
    assert rates[1] < rates[0]
    assert rates[2] < rates[0] < rates[3]


def test_parts_counted_from_two_layers_equal_those_of_the_whole_model(tmp_path: Path) -> None:
    folder = write_generation_checkpoint(tmp_path / "checkpoint", image_size=224)
    reading = _Reading(PlanSettings(precision="float32"), str(folder), "cpu")
    loaded = load(CheckpointSettings(name=str(folder), precision="float32", device="cpu"), resolution=224)
    assert sum(reading.numbers.values()) == sum(p.numel() for p in loaded.model.parameters())
    need = generation_need(PlanSettings(precision="float32"), str(folder), memory=GIB, device="cpu", batch=3)
    assert need.batch == 3
    assert need.memory["keys and values"] == 3 * reading.slot


def test_the_file_of_a_generation(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data")
    file = tmp_path / "generate.yaml"
    file.write_text(f"input: {data}\noutput: out\nsplit: null\ncheckpoint: {{name: paligemma2-3b-mix-448}}\n")
    values = shown(str(file), "--json", "--gpu", "L4")
    assert values["settings"]["task"] == "generation"
    assert values["settings"]["studies"] == 5
    assert values["offers"][0]["need"]["resolution"] == CHECKPOINTS["paligemma2-3b-mix-448"].resolution
    assert "studies/h" in shown(BIG, "--for", "generation")
