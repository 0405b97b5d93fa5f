"""One training step at 896 px beside stock transformers and peft; the last line is a JSON object.

    python benchmarks/train_step.py                 # about ten minutes on two idle cores
    python benchmarks/train_step.py --more          # also with gradient checkpointing, and stock in bfloat16
    python benchmarks/train_step.py --resolution 224 --rounds 1    # a minute

The model is small and random, with the real vocabulary of 257,216: vision width 192, 4 layers; language model width
256, 6 layers; LoRA r=8; batch 1; 128 suffix tokens. Each run is a separate process and the two alternate. The first
step of a process is excluded, and medians are compared. For cxrreport, the whole command `training.finetune.train` is
measured, including reading of images; for stock, only the step itself. Peak memory is the peak resident size of the
process with its imports (`memory_ratio`), or without what the imports take (`rise_ratio`). `speedup` is of wall time;
`cpu_speedup` is of processor time, which depends less on other work on the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

HERE = Path(__file__).parent
STOCK = HERE / "baselines" / "train_step_stock.py"
SAMPLES = 8
"""More than the number of steps: no image occurs twice, so cached features of the vision tower give no advantage."""


def status(field: str) -> float:
    """A line of this process's memory, MB. Not getrusage: its peak begins with that of the process that started it."""
    return int(Path("/proc/self/status").read_text().split(f"{field}:")[1].split()[0]) / 1024


class Samples:
    """The samples of `random_paligemma.write_samples` as an ingest folder."""

    preprocessing = {"resize": "squash", "interpolation": "bilinear"}  # noqa: RUF012
    digest = "0" * 64

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows = json.loads((folder / "samples.json").read_text())
        self.resolution = self.image(self.rows[0]["image"]).shape[0]

    def studies(self, split: Any = None) -> list[Any]:
        from cxrreport.records import Report, Split, Study

        if split is not Split.TRAIN:
            return []
        return [
            Study(
                study_id=str(number),
                patient_id=str(number),
                split=split,
                image_ids=(row["image"],),
                report=Report(indication=row["indication"], impression=row["impression"]),
            )
            for number, row in enumerate(self.rows)
        ]

    def each_study(self, split: Any, **_: bool) -> Iterator[Any]:
        return iter(self.studies(split))

    def image(self, image_id: str) -> Any:
        return np.asarray(Image.open(self.folder / image_id))


def ours(folder: Path, steps: int, options: dict[str, Any]) -> None:
    """The child process of our side; `options` replace fields of the settings."""
    import torch

    from cxrreport.settings import TrainSettings, merge
    from cxrreport.training.finetune import train

    imported = status("VmRSS")
    lines: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as output:
        values = {
            "data": folder,
            "output": output + "/train",
            "checkpoint": {"name": str(folder), "precision": "float32", "device": "cpu"},
            "prompt": {"instruction": "report", "sections": ["impression"]},
            "lora": {"rank": 8, "alpha": 16, "dropout": 0.0},
            "learning_rate": 1e-3,
            "warmup_fraction": 0.0,
            "max_steps": steps,
            "batch_size": 1,
            "accumulation": 1,
            "gradient_checkpointing": False,
        }
        train(
            TrainSettings.model_validate(merge(values, options)),
            Samples(folder),
            log=lambda values, _: lines.append(values | {"processor": time.process_time()}),
            progress=lambda *_: None,
        )
    steps_only = [line for line in lines if "loss" in line]
    clock = [line["processor"] for line in steps_only]
    found = {
        "seconds": [line["seconds"] for line in steps_only],
        "processor": [after - before for before, after in zip(clock[:1] + clock, clock, strict=False)],
        "losses": [line["loss"] for line in steps_only],
        "imported_mb": imported,
        "peak_mb": status("VmHWM"),
        "gpu_peak_mb": torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else None,
    }
    print(json.dumps(found))


def command(folder: Path, steps: int, **options: Any) -> list[str]:
    """What starts a process of our side."""
    return [str(HERE / "train_step.py"), "--child", str(folder), str(steps), json.dumps(options)]


def order(samples: int, items: int) -> str:
    """Indices in which a run of ours takes its samples, for the other side."""
    from cxrreport.training.samples import RunOrder

    ours_is = RunOrder(samples, items, 0)
    return ",".join(str(ours_is[position][1]) for position in range(items))


def run(arguments: list[str]) -> dict[str, Any]:
    """The JSON that a child process printed last."""
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)} ended with {done.returncode}\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def summary(runs: list[dict[str, Any]]) -> dict[str, float]:
    """Medians over the runs of one side."""
    return {
        "seconds": statistics.median(second for one in runs for second in one["seconds"][1:]),
        "processor": statistics.median(second for one in runs for second in one["processor"][1:]),
        "peak": statistics.median(one["peak_mb"] for one in runs),
        "rise": statistics.median(one["peak_mb"] - one["imported_mb"] for one in runs),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="processes of each side, in turns")
    parser.add_argument("--steps", type=int, default=3, help=f"of each process, 2 to {SAMPLES - 1}")
    parser.add_argument("--resolution", type=int, choices=(224, 448, 896), default=896)
    parser.add_argument("--more", action="store_true", help="other settings of both sides")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        folder, steps, values = options.child
        ours(Path(folder), int(steps), json.loads(values))
        return
    if not 2 <= options.steps < SAMPLES:
        parser.error(f"--steps: 2 to {SAMPLES - 1}")

    import random_paligemma

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        random_paligemma.write(folder, random_paligemma.small_config(options.resolution))
        random_paligemma.write_samples(folder, SAMPLES, options.resolution)
        sides = {
            "stock": [str(STOCK), name, order(SAMPLES, options.steps)],
            "ours": command(folder, options.steps),
        }
        if options.more:
            sides |= {
                "stock, checkpointing": [*sides["stock"], "--checkpointing"],
                "stock, bfloat16": [*sides["stock"], "--bfloat16"],
                "ours, checkpointing": command(folder, options.steps, gradient_checkpointing=True),
            }
        runs: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
        for turn in range(options.rounds):
            for side, arguments in sides.items():
                runs[side].append(run(arguments))
                seconds = ", ".join(f"{second:.2f}" for second in runs[side][-1]["seconds"])
                print(f"round {turn + 1}, {side}: {seconds} s", flush=True)

    found = {side: summary(each) for side, each in runs.items()}
    print(f"{'':22}{'s / step':>10}{'CPU s':>10}{'peak MB':>10}{'rise MB':>10}")
    for side, values in found.items():
        print(
            f"{side:22}{values['seconds']:10.2f}{values['processor']:10.2f}{values['peak']:10.0f}{values['rise']:10.0f}"
        )
    stock, own = found["stock"], found["ours"]
    first, second = runs["stock"][0]["losses"], runs["ours"][0]["losses"]
    result = {
        "speedup": stock["seconds"] / own["seconds"],
        "cpu_speedup": stock["processor"] / own["processor"],
        "memory_ratio": own["peak"] / stock["peak"],
        "rise_ratio": own["rise"] / stock["rise"],
        "loss_difference": max(abs(a - b) for a, b in zip(first, second, strict=True)),
    }
    if options.more:
        rivals = [values for side, values in found.items() if side.startswith("stock")]
        small = found["ours, checkpointing"]
        result |= {
            "speedup_over_quickest_stock": min(values["seconds"] for values in rivals) / own["seconds"],
            "memory_ratio_of_smallest": small["peak"] / min(values["peak"] for values in rivals),
        }
    print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print(json.dumps({key: float(f"{value:.4g}") for key, value in result.items()}))


if __name__ == "__main__":
    main()
