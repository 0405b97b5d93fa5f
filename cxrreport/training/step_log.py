"""`log.jsonl`, one line per step or validation, and its plot."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from cxrreport.storage.atomic_files import atomic_path
from cxrreport.training.best_checkpoint import SCORE

Log = Callable[[dict[str, float], int], None]


class StepLog:
    """Appends values to `log.jsonl` and logs them, each step once.

    A resumed run repeats the steps after its checkpoint. Their lines are removed from the file when it is opened, and
    values that were logged before are not logged again: the repeated step computes the same values.

    Args:
        path: of the file, which is created if missing.
        log: takes values and step, e.g. `tracking.Run.metrics`.
        resumed_at: step of the checkpoint that the run resumes from, 0 for a new run.
    """

    def __init__(self, path: Path, log: Log, *, resumed_at: int) -> None:
        self._path = path
        self._log = log
        lines = read_log(path)
        self._logged = {(line["step"], name) for line in lines for name in line}
        kept = [line for line in lines if line["step"] <= resumed_at]
        with atomic_path(path) as temporary:
            temporary.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")

    def __call__(self, values: dict[str, float], step: int) -> None:
        """Log the values that are new, then write the line."""
        line = {"step": step, **values}
        new = {name: value for name, value in values.items() if (step, name) not in self._logged}
        if new:
            self._log(new, step)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def read_log(path: Path) -> list[dict[str, float]]:
    """Read the lines of `log.jsonl`, none if it is missing, without a last line that a kill cut off."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in text.split("\n")[:-1] if line]


def draw_loss(lines: list[dict[str, float]], path: Path) -> None:
    """Draw loss and learning rate over the steps as a PNG.

    Args:
        lines: of `read_log`.
        path: of the picture.
    """
    # The object-oriented interface: pyplot would keep figures and pick a window system.
    from matplotlib.figure import Figure

    training = np.array([(line["step"], line["loss"], line["learning_rate"]) for line in lines if "loss" in line])
    validation = np.array([(line["step"], line["validation_loss"]) for line in lines if "validation_loss" in line])
    figure = Figure(figsize=(8, 5), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    if len(training):
        steps, loss, rate = training.T
        upper.plot(steps, loss, color="0.8", linewidth=0.8, label="training, each step")
        window = max(1, len(loss) // 40)
        smooth = np.convolve(loss, np.full(window, 1 / window), mode="valid")
        upper.plot(steps[window - 1 :], smooth, color="tab:blue", label=f"training, mean of {window}")
        lower.plot(steps, rate, color="tab:gray")
    if len(validation):
        upper.plot(*validation.T, "o-", color="tab:orange", markersize=4, label="validation")
    upper.set(ylabel="loss, nats per token", title="Training", yscale="log")
    upper.grid(alpha=0.3, which="both")
    upper.legend(loc="upper right")  # the curves fall
    lower.set(xlabel="optimiser step", ylabel="learning rate")
    lower.grid(alpha=0.3)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")


def draw_reward(lines: list[dict[str, float]], path: Path) -> None:
    """Draw reward and its parts, divergence, entropy, length, distinct reports and validation over the steps as a PNG.

    Args:
        lines: of `read_log`, from training on the metric.
        path: of the picture.
    """
    from matplotlib.figure import Figure

    curve = [line for line in lines if "reward" in line]
    steps = [line["step"] for line in curve]
    labels = {
        "reward": "reward",
        "kl": "KL\n(nats per token)",
        "entropy": "entropy\n(nats per token)",
        "tokens": "tokens\nper report",
        "distinct": "distinct reports\n(share)",
    }
    validated = [line for line in lines if SCORE in line]
    figure = Figure(figsize=(8, 11), layout="constrained")
    axes = figure.subplots(len(labels) + 1 + bool(validated), 1, sharex=True)
    for axis, (name, label) in zip(axes, labels.items(), strict=False):
        axis.plot(steps, [line[name] for line in curve])
        axis.set_ylabel(label)
    for name in sorted({name for line in curve for name in line if name.startswith("reward/")}):
        axes[len(labels)].plot(steps, [line.get(name, np.nan) for line in curve], label=name.removeprefix("reward/"))
    axes[len(labels)].set_ylabel("parts of\nthe reward")
    if validated:
        axes[-1].plot([line["step"] for line in validated], [line[SCORE] for line in validated], marker="o")
        axes[-1].set_ylabel("validation\nRadGraph F1")
    axes[-1].set_xlabel("optimiser step")
    figure.legend(loc="outside lower center", ncols=3)
    for axis in axes:
        axis.grid(alpha=0.3)
    axes[0].set_title("Training on the metric")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
