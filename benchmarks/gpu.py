"""Training PaliGemma 2 3B at 896 px on one GPU beside stock transformers and peft; the last line is a JSON object.

    python benchmarks/gpu.py                              # one CUDA GPU with 40 GB or more; no network
    python benchmarks/gpu.py --batch 4 --more             # other ways to run ours as well
    python benchmarks/gpu.py --device cpu --size small --resolution 224    # the same code without a GPU

Random weights of the published shape, bfloat16, LoRA r=16 on the language model, gradient checkpointing for both, 128
suffix tokens. Each run is a separate process and the two alternate. The first steps of a process are excluded, and
medians are compared. Operations are those of `cxrreport plan`: `share_of_peak` counts the forward and backward pass,
`hardware_share` also the recomputation. Peak memory is the peak that torch allocated on the GPU.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))

from random_paligemma import PREFIX_WORDS, SUFFIX_TOKENS, small_config, write, write_samples
from train_step import STOCK, command, order, run

from cxrreport.model.catalogue import CHECKPOINTS
from cxrreport.settings import PlanSettings
from cxrreport.training.planning.estimate import need
from cxrreport.training.planning.gpus import recognised

GOAL = {"examples_per_second": 2.5, "share_of_peak": 0.4}
"""On an H100."""


def summary(runs: list[dict[str, Any]], batch: int, warm_up: int) -> dict[str, float]:
    """Medians over the runs of one side."""
    seconds = statistics.median(second for one in runs for second in one["seconds"][warm_up:])
    peaks = [one["gpu_peak_mb"] or one["peak_mb"] for one in runs]
    return {"examples_per_second": batch / seconds, "peak_mb": statistics.median(peaks), "loss": runs[0]["losses"][0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--size", choices=("3b", "10b", "small"), default="3b")
    parser.add_argument("--resolution", type=int, choices=(224, 448, 896), default=896)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--steps", type=int, default=12, help="of each process, warm-up included")
    parser.add_argument("--warm-up", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--more", action="store_true", help="also compiled, and without gradient checkpointing")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch sees no CUDA device here; --device cpu --size small runs the same code without one")
    if not 0 < options.warm_up < options.steps:
        parser.error("--warm-up: at least 1, and fewer than --steps")

    small = options.size == "small"
    line = f"paligemma2-{options.size}-pt-{options.resolution}"
    config = small_config(options.resolution) if small else CHECKPOINTS[line].config()
    ours = {
        "checkpoint": {"device": options.device, "precision": "bfloat16"},
        "lora": {"rank": 16, "alpha": 32},
        "batch_size": options.batch,
        "gradient_checkpointing": True,
    }
    samples = options.steps * options.batch + 1
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, config, dtype=torch.bfloat16, device=options.device)
        write_samples(folder, samples, options.resolution)
        indices = order(samples, options.steps * options.batch)
        stock = [str(STOCK), name, indices, "--checkpointing", "--bfloat16", "--rank", "16"]
        sides = {
            "stock": [*stock, "--device", options.device, "--batch", str(options.batch)],
            "ours": command(folder, options.steps, **ours),
        }
        if options.more:
            sides["ours, compiled"] = command(folder, options.steps, **ours, compile=True)
            free = ours | {"gradient_checkpointing": False}
            sides["ours, kept activations"] = command(folder, options.steps, **free)
            sides["ours, kept activations, compiled"] = command(folder, options.steps, **free, compile=True)
        runs: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
        for turn in range(options.rounds):
            for side, arguments in sides.items():
                runs[side].append(run(arguments))
                seconds = ", ".join(f"{second:.3f}" for second in runs[side][-1]["seconds"])
                print(f"round {turn + 1}, {side}: {seconds} s", flush=True)
        settings = PlanSettings(
            method="lora",
            lora={"rank": 16, "alpha": 32, "dropout": 0.0},  # type: ignore[arg-type]
            batch_size=options.batch,
            prefix_tokens=PREFIX_WORDS + 2,
            suffix_tokens=SUFFIX_TOKENS,
        )
        planned = need(settings, name, options.device)

    device = torch.cuda.get_device_name() if options.device == "cuda" else "CPU"
    card = recognised(device)
    useful = planned.operations - planned.flops["recomputation"]
    found = {side: summary(each, options.batch, options.warm_up) for side, each in runs.items()}
    print(f"{device}; {planned.parameters / 1e9:.2f} billion parameters, {planned.tokens} tokens per example")
    print(f"{useful / 1e12:.1f} TFLOP per example, {planned.operations / 1e12:.1f} with recomputation")
    print(f"{'':34}{'examples/s':>12}{'TFLOP/s':>10}{'peak MB':>10}")
    for side, values in found.items():
        rate = values["examples_per_second"]
        print(f"{side:34}{rate:12.3f}{rate * useful / 1e12:10.1f}{values['peak_mb']:10.0f}")
    own, other = found["ours"], found["stock"]
    rate = own["examples_per_second"]
    result: dict[str, Any] = {
        "device": device,
        "examples_per_second": rate,
        "share_of_peak": rate * useful / card.flops if card else None,
        "hardware_share": rate * planned.operations / card.flops if card else None,
        "peak_mb": own["peak_mb"],
        "planned_peak_mb": planned.peak / 2**20,
        "speedup": rate / other["examples_per_second"],
        "memory_ratio": own["peak_mb"] / other["peak_mb"],
        "loss_difference": abs(own["loss"] - other["loss"]),
    }
    if options.more:
        result["fastest"] = max(found, key=lambda side: found[side]["examples_per_second"])
        result["fastest_examples_per_second"] = found[result["fastest"]]["examples_per_second"]
    print(f"goal on an H100: {GOAL}")
    print(json.dumps({k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in result.items()}))


if __name__ == "__main__":
    main()
