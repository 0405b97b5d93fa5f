"""PaliGemma 2 3B at 896 px on one GPU: training beside stock transformers and peft, and generation beside `generate` of
transformers and vLLM. The last line is a JSON object.

    python benchmarks/gpu.py                              # one CUDA GPU with 40 GB or more; no network
    python benchmarks/gpu.py --only training --more       # other ways to run ours as well
    python benchmarks/gpu.py --device cpu --size small --resolution 224    # the same code without a GPU

Training: random weights of the published shape, bfloat16, LoRA r=16 on the language model, gradient checkpointing for
both, 128 suffix tokens. Each run is a separate process and the two alternate. The first steps of a process are left
out, and medians are compared. Without `--batch`, each side has the largest batch (a power of two) that `plan` expects
to fit, halved as long as memory runs out. Operations are those of `cxrreport plan`: `share_of_peak` counts the forward
and backward pass, `hardware_share` also the recomputation. Peak memory is the peak that torch allocated on the GPU.

Generation: see `gpu_generation.py`. Rates count only if the texts of both sides agree.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))

from gpu_generation import measure, write_studies
from random_paligemma import PREFIX_WORDS, SUFFIX_TOKENS, small_config, write, write_samples
from train_step import STOCK, command, order

from cxrreport.inference.decoding.memory import is_out_of_memory
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


def run_child(arguments: list[str]) -> dict[str, Any]:
    """The JSON that a child process printed last.

    Raises:
        MemoryError: its memory did not suffice.
    """
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True)
    if done.returncode:
        if is_out_of_memory(RuntimeError(done.stderr)):
            raise MemoryError
        raise SystemExit(f"{' '.join(arguments)} ended with {done.returncode}\n{done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def plan_of(batch: int) -> PlanSettings:
    return PlanSettings(
        method="lora",
        lora={"rank": 16, "alpha": 32, "dropout": 0.0},  # type: ignore[arg-type]
        batch_size=batch,
        prefix_tokens=PREFIX_WORDS + 2,
        suffix_tokens=SUFFIX_TOKENS,
    )


def planned_batch(model: str, device: str) -> int:
    """The largest power of two whose estimated peak leaves a tenth of the GPU."""
    if device == "cpu":
        return 1
    memory = torch.cuda.get_device_properties(0).total_memory
    fitting = [batch for batch in (1, 2, 4, 8, 16, 32, 64) if need(plan_of(batch), model, device).peak <= 0.9 * memory]
    return fitting[-1] if fitting else 1


def training(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    wanted = options.batch or planned_batch(str(folder), options.device)
    samples = options.steps * wanted + 1
    write_samples(folder, samples, options.resolution)

    def stock(batch: int) -> list[str]:
        chosen = order(samples, options.steps * batch)
        settings = ["--checkpointing", "--bfloat16", "--rank", "16", "--device", options.device, "--batch", str(batch)]
        return [str(STOCK), str(folder), chosen, *settings]

    def ours(batch: int, **more: Any) -> list[str]:
        checkpoint = {"device": options.device, "precision": "bfloat16"}
        values = {"checkpoint": checkpoint, "lora": {"rank": 16, "alpha": 32}, "gradient_checkpointing": True}
        return command(folder, options.steps, **values | {"batch_size": batch} | more)

    sides: dict[str, Callable[[int], list[str]]] = {"stock": stock, "ours": ours}
    if options.more:
        sides |= {
            "ours, compiled": partial(ours, compile=True),
            "ours, kept activations": partial(ours, gradient_checkpointing=False),
            "ours, kept activations, compiled": partial(ours, gradient_checkpointing=False, compile=True),
        }
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    batches = dict.fromkeys(sides, wanted)
    for turn in range(options.rounds):
        for side, arguments in sides.items():
            while True:
                try:
                    runs[side].append(run_child(arguments(batches[side])))
                except MemoryError:
                    if batches[side] == 1:
                        raise SystemExit(f"training, {side}: one example does not fit into memory") from None
                    batches[side], runs[side] = batches[side] // 2, []
                else:
                    break
            seconds = ", ".join(f"{second:.3f}" for second in runs[side][-1]["seconds"])
            print(f"round {turn + 1}, {side}, batch {batches[side]}: {seconds} s", flush=True)
    planned = need(plan_of(batches["ours"]), str(folder), options.device)
    device = torch.cuda.get_device_name() if options.device == "cuda" else "CPU"
    card = recognised(device)
    useful = planned.operations - planned.flops["recomputation"]
    found = {side: summary(each, batches[side], options.warm_up) for side, each in runs.items()}
    print(f"{device}; {planned.parameters / 1e9:.2f} billion parameters, {planned.tokens} tokens per example")
    print(f"{useful / 1e12:.1f} TFLOP per example, {planned.operations / 1e12:.1f} with recomputation")
    print(f"{'':34}{'batch':>6}{'examples/s':>12}{'TFLOP/s':>10}{'peak MB':>10}")
    for side, values in found.items():
        rate, tera = values["examples_per_second"], values["examples_per_second"] * useful / 1e12
        print(f"{side:34}{batches[side]:6}{rate:12.3f}{tera:10.1f}{values['peak_mb']:10.0f}")
    own, other = found["ours"], found["stock"]
    rate = own["examples_per_second"]
    result: dict[str, Any] = {
        "examples_per_second": rate,
        "training_batch": batches["ours"],
        "stock_training_batch": batches["stock"],
        "share_of_peak": rate * useful / card.flops if card else None,
        "hardware_share": rate * planned.operations / card.flops if card else None,
        "peak_mb": own["peak_mb"],
        "planned_peak_mb": planned.peak / 2**20,
        "speedup": rate / other["examples_per_second"],
        "memory_ratio": own["peak_mb"] / other["peak_mb"],
    }
    if batches["ours"] == batches["stock"]:  # otherwise their first steps are of other samples
        result["loss_difference"] = abs(own["loss"] - other["loss"])
    if options.more:
        result["fastest"] = max(found, key=lambda side: found[side]["examples_per_second"])
        result["fastest_examples_per_second"] = found[result["fastest"]]["examples_per_second"]
    print(f"goal on an H100: {GOAL}")
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--size", choices=("3b", "10b", "small"), default="3b")
    parser.add_argument("--resolution", type=int, choices=(224, 448, 896), default=896)
    parser.add_argument("--only", choices=("training", "generation"))
    parser.add_argument("--batch", type=int, help="examples of a pass in training, instead of what fits")
    parser.add_argument("--steps", type=int, default=12, help="of each process, warm-up included")
    parser.add_argument("--warm-up", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--more", action="store_true", help="also compiled, and without gradient checkpointing")
    parser.add_argument("--studies", type=int, default=256, help="of the comparison of generation")
    parser.add_argument("--tokens", type=int, nargs=2, default=(30, 200), help="fewest and most new tokens of a text")
    parser.add_argument("--stock-batches", type=int, nargs="+", default=(1, 4, 16, 64), help="of stock generation")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch sees no CUDA device here; --device cpu --size small runs the same code without one")
    if not 0 < options.warm_up < options.steps:
        parser.error("--warm-up: at least 1, and fewer than --steps")

    small = options.size == "small"
    line = f"paligemma2-{options.size}-pt-{options.resolution}"
    config = small_config(options.resolution) if small else CHECKPOINTS[line].config()
    device = torch.cuda.get_device_name() if options.device == "cuda" else "CPU"
    result: dict[str, Any] = {"device": device}
    with tempfile.TemporaryDirectory() as name:
        if options.only in (None, "training"):
            folder = Path(name) / "trained"
            write(folder, config, dtype=torch.bfloat16, device=options.device)
            result |= training(folder, options)
            shutil.rmtree(folder)
        if options.only in (None, "generation"):
            folder = Path(name) / "writing"
            write(folder, config, dtype=torch.bfloat16, device=options.device, writes=True)
            fewest, most = options.tokens
            write_studies(folder, options.studies, options.resolution, (fewest, most + 1))
            result |= measure(folder, options.studies, options.device, options.stock_batches, run_child)
    print(json.dumps({k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in result.items()}))


if __name__ == "__main__":
    main()
