"""The plan: published numbers for the nine checkpoints, consistent sums, and the measured memory of a run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PaliGemmaForConditionalGeneration
from typer.testing import CliRunner

from cxrreport import cli
from cxrreport.errors import SettingsError, WeightsError
from cxrreport.model.catalogue import CHECKPOINTS
from cxrreport.settings import PlanSettings, TrainSettings, build
from cxrreport.training.planning.counting import counted
from cxrreport.training.planning.estimate import answer, need, plan
from cxrreport.training.planning.generation import plan_generation
from cxrreport.training.planning.gpus import GPUS, recognised

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.mark.parametrize(
    ("size", "billions", "lora", "modules", "kept", "recomputed"),
    [("3b", 3.04, 20.8, 182, 50, 70), ("10b", 9.67, 54.0, 294, 181, 259), ("28b", 27.7, 114, 322, 489, 719)],
)
def test_all_published_sizes_agree_with_an_independent_estimate(
    size: str, billions: float, lora: float, modules: int, kept: float, recomputed: float
) -> None:
    """Operations at 896 within a tenth of an independent estimate (4,296 tokens, one step, in TFLOP)."""
    peaks = []
    for resolution, tokens in ((224, 256), (448, 1024), (896, 4096)):
        one = need(PlanSettings(), f"paligemma2-{size}-pt-{resolution}")
        assert one.parameters / 1e9 == pytest.approx(billions, rel=0.005)
        assert one.trained / 1e6 == pytest.approx(lora, rel=0.005)
        assert (one.adapted, one.tokens, one.resolution) == (modules, tokens + 200, resolution)
        assert one.memory["weights"] == 2 * one.parameters
        peaks.append(one.peak)
    assert peaks == sorted(peaks)
    assert one.operations / 1e12 == pytest.approx(recomputed, rel=0.1)
    free = need(PlanSettings(gradient_checkpointing=False), one.checkpoint)
    assert free.operations / 1e12 == pytest.approx(kept, rel=0.1)
    assert free.peak > one.peak


def test_parameters_counted_from_two_layers_equal_those_of_the_whole_model() -> None:
    with torch.device("meta"):
        whole = PaliGemmaForConditionalGeneration(CHECKPOINTS["paligemma2-3b-pt-448"].config())
    full = need(PlanSettings(method="full"), "paligemma2-3b-pt-448")
    assert full.parameters == full.trained == whole.num_parameters()
    assert full.adapted == 0


def test_methods_and_batches() -> None:
    name = "paligemma2-3b-pt-448"
    lora, qlora, full = (need(PlanSettings.model_validate({"method": m}), name) for m in ("lora", "qlora", "full"))
    assert qlora.memory["weights"] < 0.6 * lora.memory["weights"]
    assert full.memory["optimiser"] == 8 * full.parameters
    assert full.peak > 16 * full.parameters
    assert full.flops["vision"] > 2 * lora.flops["vision"]
    four = need(PlanSettings(batch_size=4), name)
    assert four.operations == pytest.approx(lora.operations, rel=1e-6)
    assert four.memory["activations"] == pytest.approx(4 * lora.memory["activations"], rel=0.01)
    assert four.memory["logits"] < 1.1 * lora.memory["logits"]  # a block of rows at a time
    assert full.memory["logits"] > 1.5 * lora.memory["logits"]  # whole, as the head is trained
    wide = need(PlanSettings(lora={"rank": 16, "targets": "language+projector+vision"}), name)  # type: ignore[arg-type]
    assert wide.adapted == 182 + 1 + 162
    assert wide.memory["activations"] > lora.memory["activations"]
    capped = need(PlanSettings(softcap=True), name)
    assert capped.peak > lora.peak
    assert need(PlanSettings(max_images=2), name).tokens == 2 * 1024 + 200


@pytest.mark.parametrize(("pool", "tokens"), [(1, 12_288), (2, 6_144), (4, 4_608)])
def test_lateral_and_prior_are_counted_as_the_prompt_has_them(pool: int, tokens: int) -> None:
    """The language model reads fewer tokens with `pool`; the vision tower reads three images all the same."""
    prompt = {"views": "frontal+lateral", "prior": "report+image", "pool": pool}
    checkpoint = {"name": "paligemma2-3b-pt-896"}
    train = TrainSettings.model_validate({"data": "d", "output": "o", "checkpoint": checkpoint, "prompt": prompt})
    settings = PlanSettings.of_training(train)
    one, alone = need(settings, checkpoint["name"]), need(PlanSettings(), checkpoint["name"])
    assert one.tokens == tokens + train.prompt.longest_prefix + train.prompt.max_suffix_tokens
    assert train.prompt.longest_prefix == train.prompt.max_prefix_tokens + train.prompt.max_prior_tokens
    assert one.flops["vision"] == pytest.approx(3 * alone.flops["vision"])
    assert one.flops["forward"] > alone.flops["forward"] * tokens / 4096
    assert one.peak > alone.peak
    reading = PlanSettings.of_generation(train.checkpoint, train.prompt, gpu="H100")
    (offer,) = plan_generation(reading)
    assert offer.need.tokens == tokens + train.prompt.longest_prefix
    # The image of the prior study is stored once, with its own study.
    stored = plan_generation(PlanSettings(task="generation", checkpoint=checkpoint["name"], gpu="H100", max_images=2))
    assert offer.disk == stored[0].disk


def test_a_pool_without_images_to_average_is_refused() -> None:
    with pytest.raises(SettingsError, match="pool: 2 averages all images but the first"):
        build(PlanSettings, {"pool": 2}, where="plan")


def test_a_gpu_is_recognised_by_its_cuda_name() -> None:
    names = {
        "NVIDIA H100 80GB HBM3": "H100",
        "NVIDIA H100 PCIe": "H100-PCIe",
        "NVIDIA H200": "H200",
        "NVIDIA A100-SXM4-40GB": "A100-40GB",
        "NVIDIA A100-SXM4-80GB": "A100-80GB",
        "NVIDIA L4": "L4",
        "NVIDIA L40S": "L40S",
        "NVIDIA GeForce RTX 4090": "RTX-4090",
    }
    for device, name in names.items():
        found = recognised(device)
        assert found is not None
        assert found.name == name
    assert recognised("Tesla T4") is None


def test_time_and_cost_follow_from_peak_and_price() -> None:
    settings = PlanSettings(checkpoint="paligemma2-3b-pt-896", gpu="h100", price=4.0, examples=3600, utilisation=0.5)
    (offer,) = plan(settings)
    assert offer.seconds == pytest.approx(offer.need.operations / (0.5 * 989e12))
    assert offer.hours == pytest.approx(offer.seconds)
    assert offer.cost == pytest.approx(4 * offer.hours)
    with pytest.raises(SettingsError, match=r"gpu: 'K80' is not known; known are .*H100"):
        plan(PlanSettings(checkpoint="tiny", gpu="K80"))
    with pytest.raises(WeightsError, match="neither a folder"):
        plan(PlanSettings(checkpoint="absent"))


def test_answers_for_one_checkpoint_and_for_one_gpu() -> None:
    settings = PlanSettings(checkpoint="paligemma2-10b-pt-896")
    offers = plan(settings)
    assert [offer.gpu for offer in offers] == list(GPUS)
    assert [offer.fits for offer in offers] == [1.1 * offer.need.peak <= offer.gpu.memory for offer in offers]
    assert not offers[0].fits
    assert "Smallest GPU that fits: A100-40GB" in answer(settings, offers)
    sizes = PlanSettings(gpu="L4")
    offers = plan(sizes)
    assert len(offers) == 9
    assert "use paligemma2-3b-pt-896" in answer(sizes, offers)
    full = PlanSettings(checkpoint="paligemma2-28b-pt-224", method="full", gpu="H100")
    assert "Nothing fits" in answer(full, plan(full))


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("train-*.yaml")), ids=lambda path: path.stem)
def test_shipped_training_configurations_are_estimated(path: Path) -> None:
    train = TrainSettings.from_yaml(path)
    settings = PlanSettings.of_training(train, batch_size=3, price=None)
    assert (settings.batch_size, settings.price) == (3, None)
    assert settings.suffix_tokens == train.prompt.max_suffix_tokens
    assert settings.lora == train.lora
    assert PlanSettings.of_training(train).gradient_checkpointing == train.gradient_checkpointing


def test_plan_command_prints_a_table_or_json() -> None:
    runner = CliRunner(env={"COLUMNS": "80", "TERM": "dumb", "NO_COLOR": "1"})
    shown = runner.invoke(cli.app, ["plan", "paligemma2-3b-pt-896"])
    assert shown.exit_code == 0
    assert max(map(len, shown.stdout.splitlines())) <= 80
    for part in ("weights", "recomputation", "H100", "Smallest GPU"):
        assert part in shown.stdout
    found = runner.invoke(cli.app, ["plan", str(CONFIGS / "train-mimic-cxr-10b-896.yaml"), "--gpu", "H200", "--json"])
    values = json.loads(found.stdout)
    (offer,) = values["offers"]
    assert values["settings"]["suffix_tokens"] == 256
    assert offer["need"]["peak"] == sum(offer["need"]["memory"].values())
    assert offer["fits"] is True
    wrong = runner.invoke(cli.app, ["plan", "--gpu", "K80"])
    assert wrong.exit_code == 2


def test_live_bytes_are_counted_until_tensors_are_freed() -> None:
    x = torch.empty(10, 20, device="meta", requires_grad=True)
    w = torch.empty(30, 20, device="meta")

    def part() -> torch.Tensor:
        hidden = torch.nn.functional.linear(x, w)
        return torch.tanh(hidden * 2.0)

    count = counted(part)
    size = 10 * 30 * 4
    assert count.kept == size  # tanh keeps its output; both products are gone
    assert count.forward_extra == 2 * size  # while it runs, all three live
    assert (count.forward, count.backward) == (2 * 10 * 20 * 30,) * 2


MEASURE = Path(__file__).parent / "measure_peak.py"


def measured(*arguments: object) -> int:
    done = subprocess.run(
        [sys.executable, str(MEASURE), *map(str, arguments)], capture_output=True, text=True, check=True
    )
    return int(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The small model of the benchmarks, by resolution."""
    sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
    import random_paligemma

    def make(resolution: int) -> str:
        folder = tmp_path_factory.mktemp(f"small-{resolution}")
        random_paligemma.write(folder, random_paligemma.small_config(resolution))
        return str(folder)

    return make


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
@pytest.mark.parametrize("resolution", [224, 448])
@pytest.mark.parametrize("model", ["tiny", "small"])
def test_estimated_memory_agrees_with_a_training_run(model: str, resolution: int, small: Any, tmp_path: Path) -> None:
    """The rise of a process that trains, above what its imports left, within a fifth."""
    tiny = "tiny" if resolution == 224 else f"tiny-{resolution}"
    name = tiny if model == "tiny" else small(resolution)
    precision, checkpointing, batches = ("bfloat16", False, (4, 16)) if model == "tiny" else ("float32", True, (1, 2))
    for batch in batches:
        rise = measured(name, resolution, batch, precision, checkpointing, tmp_path / str(batch))
        settings = PlanSettings.model_validate(
            {
                "resolution": resolution,
                "lora": {"rank": 8, "alpha": 16, "dropout": 0.0},
                "precision": precision,
                "batch_size": batch,
                "gradient_checkpointing": checkpointing,
                "prefix_tokens": 12,
            }
        )
        planned = need(settings, name, "cpu").peak
        assert planned == pytest.approx(rise, rel=0.2), (batch, planned >> 20, rise >> 20)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_estimated_memory_of_lateral_and_prior_agrees_with_a_training_run(small: Any, tmp_path: Path) -> None:
    name = small(448)
    rise = measured(name, 448, 1, "float32", True, tmp_path, 2)
    lora = {"rank": 8, "alpha": 16, "dropout": 0.0}
    given = {"max_images": 2, "prior_image": True, "pool": 2, "prefix_tokens": 36, "lora": lora}
    settings = PlanSettings.model_validate(given | {"resolution": 448, "precision": "float32"})
    planned = need(settings, name, "cpu").peak
    assert planned == pytest.approx(rise, rel=0.2), (planned >> 20, rise >> 20)
