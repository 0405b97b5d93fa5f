"""Training of a model of two layers: it learns, writes all files, and refuses unusable data."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from training_runs import Scores, losses, run

from cxrreport.errors import MismatchError, OutputError, TrainingError
from cxrreport.model import adapters
from cxrreport.model.card import AdapterCard
from cxrreport.model.checkpoints import load
from cxrreport.settings import CheckpointSettings, TrainSettings
from cxrreport.training import checkpointing, finetune
from cxrreport.training import vision_features as features
from cxrreport.training.finetune import train
from cxrreport.training.step_log import read_log

Settings = Callable[..., TrainSettings]


def test_the_loss_falls_and_all_files_are_written(settings: Settings, manifest: Any) -> None:
    log: list[Any] = []
    shown: list[tuple[int, int, str]] = []
    given = settings(max_steps=30, eval_every=10, lora={"rank": 4, "alpha": 8, "dropout": 0.0})
    result = train(
        given,
        manifest,
        log=lambda values, step: log.append((step, values)),
        progress=lambda *args: shown.append(args),
        validate=Scores([0.1, 0.3, 0.2]),
    )
    first = next(values["loss"] for step, values in log if step == 1)
    assert result.loss < 0.6 * first
    assert (result.steps, result.resumed_at, result.samples, result.cut_reports) == (30, 0, 11, 0)
    assert len(result.adapted_modules) == 14
    assert result.trained_parameters == sum(t.numel() for t in load_file(result.adapter / adapters.WEIGHTS).values())
    assert result.peak_memory > 10**8
    assert (result.best_step, result.validation["validation_radgraph_f1"]) == (20, 0.3)
    assert [step for step, values in log if "validation_loss" in values] == [10, 20, 30]
    assert [step for step, values in log if "loss" in values] == list(range(1, 31))
    assert shown[-1] == (30, 30, "training")
    written = {path.name for path in given.output.iterdir()} - {".lock"}
    assert written == {"adapter", "checkpoints", "log.jsonl", "loss.png", "train.json"}
    assert (given.output / "loss.png").read_bytes().startswith(b"\x89PNG")
    record = json.loads((given.output / "train.json").read_text())
    assert record["finished"]
    assert record["data_digest"] == manifest.digest
    assert "torch" in record["versions"]
    card = AdapterCard.read(result.adapter)
    assert card.preprocessing == manifest.preprocessing
    assert card.modules == result.adapted_modules
    assert card.metrics["validation_loss"] == result.validation["validation_loss"]
    assert (card.steps, card.trained_steps, card.conditions) == (20, 30, {"radgraph": "none"})
    assert "Weights of step 20 of 30, the best on the validation split" in (result.adapter / "README.md").read_text()
    assert not [path for path in given.output.rglob("*") if path.suffix in {".bin", ".pt", ".pth", ".pkl"}]
    assert not {image for image in manifest.asked if image.startswith("test")}


def test_a_finished_folder_returns_its_result(settings: Settings, manifest: Any) -> None:
    first = run(settings(max_steps=2), manifest)
    log: list[Any] = []
    assert run(settings(max_steps=2), manifest, log) == first
    assert log == []
    with pytest.raises(OutputError, match="learning_rate"):
        run(settings(max_steps=2, learning_rate=1e-3), manifest)


def test_the_adapter_gives_the_validation_loss_again(settings: Settings, manifest: Any) -> None:
    given = settings()
    result = run(given, manifest)
    loaded = adapters.load(result.adapter, load(given.checkpoint, resolution=224))
    again = run(settings(output=given.output.parent / "second"), manifest)
    assert again.validation == result.validation
    tensors = {n: p for n, p in loaded.model.named_parameters() if "lora_" in n}
    checkpoint = load_file(given.output / "checkpoints" / f"{result.best_step:07d}" / checkpointing.WEIGHTS)
    assert {n: t.tolist() for n, t in checkpoint.items()} == {n: p.tolist() for n, p in tensors.items()}


def test_loss_that_is_not_finite(settings: Settings, manifest: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    given = settings()
    loss = finetune.suffix_loss
    count = [0]

    def spoiled(*args: Any, **options: Any) -> torch.Tensor:
        count[0] += options["normaliser"] != 1.0  # 1.0 is that of validation
        return loss(*args, **options) * (math.nan if count[0] > 10 else 1.0)

    monkeypatch.setattr(finetune, "suffix_loss", spoiled)
    with pytest.raises(TrainingError, match=r"step 6: loss is nan.*learning_rate"):
        run(given, manifest)
    assert [path.name for path in checkpointing.checkpoints(given.output / "checkpoints")] == ["0000002", "0000004"]
    assert [step for step, _ in losses(given.output)] == [1, 2, 3, 4, 5]


def test_images_of_another_resolution(settings: Settings, manifest: Any) -> None:
    manifest.resolution = 896
    with pytest.raises(MismatchError, match="896"):
        run(settings(), manifest)


def test_cached_vision_features_do_not_change_the_loss(
    settings: Settings, manifest: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = settings()
    run(first, manifest)
    monkeypatch.setattr(features, "CACHE_BYTES", 0)
    second = settings(output=first.output.parent / "second")
    run(second, manifest)
    for (_, one), (_, other) in zip(losses(first.output), losses(second.output), strict=True):
        assert one == pytest.approx(other, abs=1e-5)


def test_accumulation_equals_a_larger_batch(settings: Settings, manifest: Any, tmp_path: Path) -> None:
    lora = {"rank": 4, "alpha": 8, "dropout": 0.0}
    for loss in ("per-example", "per-token"):
        curves = []
        for batch, accumulation in ((4, 1), (1, 4)):
            folder = tmp_path / f"{loss}-{batch}"
            run(settings(output=folder, batch_size=batch, accumulation=accumulation, loss=loss, lora=lora), manifest)
            curves.append([value for _, value in losses(folder)])
        assert curves[0] == pytest.approx(curves[1], rel=2e-5)


@pytest.mark.parametrize("targets", ["language+projector", "language+projector+vision"])
def test_projector_and_vision_adapters_get_gradients(settings: Settings, manifest: Any, targets: str) -> None:
    given = settings(max_steps=3, lora={"rank": 2, "alpha": 4, "targets": targets})
    result = run(given, manifest)
    moved = {name for name, t in load_file(result.adapter / adapters.WEIGHTS).items() if "lora_B" in name and t.any()}
    assert any("multi_modal_projector" in name for name in moved)
    assert any("vision_tower" in name for name in moved) == targets.endswith("vision")


def test_bfloat16_loss_is_close_to_float32(settings: Settings, manifest: Any, tmp_path: Path) -> None:
    lora = {"rank": 4, "alpha": 8, "dropout": 0.0}
    single = run(settings(output=tmp_path / "a", lora=lora), manifest)
    half = run(settings(output=tmp_path / "b", lora=lora, checkpoint={"precision": "bfloat16"}), manifest)
    assert half.loss == pytest.approx(single.loss, rel=0.05)
    assert all(t.dtype == torch.float32 for t in load_file(half.adapter / adapters.WEIGHTS).values())


def test_full_fine_tuning_writes_a_checkpoint_that_loads(settings: Settings, manifest: Any) -> None:
    given = settings(lora=None, learning_rate=1e-3, max_steps=4, checkpoint={"precision": "bfloat16"})
    result = run(given, manifest)
    assert result.adapter.name == "model"
    assert result.adapted_modules == ()
    loaded = load(CheckpointSettings(name=str(result.adapter), precision="float32", device="cpu"), resolution=224)
    saved = load_file(given.output / "checkpoints" / f"{result.best_step:07d}" / checkpointing.WEIGHTS)
    assert all(torch.equal(p, saved[name]) for name, p in loaded.model.named_parameters())
    assert loaded.model.config.text_config.sliding_window > 10**6


def test_without_scores_the_lowest_loss_is_best(settings: Settings, manifest: Any) -> None:
    given = settings(eval_every=2, learning_rate=0.1)  # so high that it does not only fall
    result = run(given, manifest)
    losses = {
        int(line["step"]): line["validation_loss"]
        for line in read_log(given.output / "log.jsonl")
        if "validation_loss" in line
    }
    assert result.best_step == min(losses, key=lambda step: losses[step])
    assert result.validation["validation_loss"] == min(losses.values())


def test_training_on_studies_of_several_images_is_deterministic(
    settings: Settings, manifest: Any, tmp_path: Path
) -> None:
    """Kept features, features computed anew, and pixels through the whole model are the same run."""
    alone = manifest.studies

    def pairs(split: Any = None) -> list[Any]:
        return [
            dataclasses.replace(study, image_ids=(*study.image_ids, f"{split}-{i + 50}")) if i % 2 else study
            for i, study in enumerate(alone(split))
        ]

    manifest.studies = pairs
    lora = {"rank": 4, "alpha": 8, "dropout": 0.0}
    curves = []
    for name, cache, options in (
        ("kept", features.CACHE_BYTES, {}),
        ("anew", 0, {}),
        ("one", features.CACHE_BYTES, {"prompt": {"max_images": 1}}),
    ):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(features, "CACHE_BYTES", cache)
            given = settings(output=tmp_path / name, lora=lora, **{"prompt": {"max_images": 2}} | options)
            result = run(given, manifest)
        curves.append([value for _, value in losses(given.output)])
        assert AdapterCard.read(result.adapter).prompt.max_images == given.prompt.max_images
    assert curves[0] == pytest.approx(curves[1], abs=1e-5)
    assert curves[0] != pytest.approx(curves[2], abs=1e-3)


def test_no_validation_split(settings: Settings, manifest: Any) -> None:
    manifest.sizes = {split: 0 if split.value == "validate" else n for split, n in manifest.sizes.items()}
    assert run(settings(max_steps=2), manifest).validation == {}


def test_steps_from_epochs(settings: Settings, manifest: Any) -> None:
    assert run(settings(max_steps=None, epochs=1.5, eval_every=None, save_every=None), manifest).steps == 5
