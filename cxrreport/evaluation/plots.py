"""Plots of an evaluation as PNG files; they contain no report text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cxrreport.evaluation.statistics import Floats
from cxrreport.evaluation.statistics.risk_coverage import Curve
from cxrreport.records import Interval
from cxrreport.storage.atomic_files import atomic_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MAIN, _OTHER, _OMITTED, _HALLUCINATED = "#1f5f99", "#8a97a5", "#d08a1d", "#b3285c"
_BINS = np.linspace(0.0, 1.0, 26)


def scores(path: Path, metric: str, values: Mapping[str, tuple[Floats, Interval]], note: str = "") -> None:
    """Plot the distribution of one score in [0, 1] over the studies, one row per system.

    Args:
        path: file to write.
        metric: name of the score.
        values: system to its scores by study and its mean with bounds; the first system is highlighted.
        note: line under the title.
    """
    figure = _figure(7.5, 1.2 + 0.95 * len(values))
    axes = figure.subplots(len(values), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for place, (axis, (system, (one, mean))) in enumerate(zip(axes, values.items(), strict=True)):
        colour = _OTHER if place else _MAIN
        axis.hist(one, bins=_BINS, weights=np.full(len(one), 100 / max(len(one), 1)), color=colour, alpha=0.55)
        if not math.isnan(mean.low):
            axis.axvspan(mean.low, mean.high, color=colour, alpha=0.3, linewidth=0)
        axis.axvline(mean.value, color=colour, linewidth=2)
        label = f"{_words(system)}  {_with_bounds(mean)}"
        axis.set_title(label, loc="left", fontsize=9.5, pad=3)
        axis.spines[["top", "right"]].set_visible(False)
    axes[-1].set(xlabel=f"{_words(metric)} per study", xlim=(0, 1))
    figure.supylabel("studies, %", fontsize=10)
    _save(figure, path, f"{_words(metric)} per study, with mean and 95% interval", note)


def findings(path: Path, table: Mapping[str, Mapping[str, Any]], note: str = "") -> None:
    """Plot F1 of presence with its interval, and the numbers of agreed, omitted and hallucinated findings.

    Args:
        path: file to write.
        table: `clinical.by_finding` of one system; findings that neither side has are not shown.
        note: line under the title.
    """
    rows = {name: row for name, row in table.items() if row["agreed"] + row["hallucinated"] + row["omitted"]}
    figure = _figure(9.5, 1.7 + 0.36 * len(rows))
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 4))
    widest = max((row["agreed"] + row["hallucinated"] + row["omitted"] for row in rows.values()), default=0)
    for place, row in enumerate(rows.values()):
        f1: Interval = row["presence_f1"]
        left.barh(place, f1.value, color=_MAIN, alpha=0.7, height=0.62)
        left.plot([f1.low, f1.high], [place, place], color="black", linewidth=1.3, marker="|", markersize=7)
        start = 0
        for name, colour in (("agreed", _MAIN), ("omitted", _OMITTED), ("hallucinated", _HALLUCINATED)):
            right.barh(place, row[name], left=start, color=colour, height=0.62, label=None if place else name)
            if row[name] > 0.03 * widest:
                right.text(
                    start + row[name] / 2, place, str(row[name]), ha="center", va="center", color="white", size=7
                )
            start += row[name]
    left.set(xlabel="F1 of presence, 95% interval", xlim=(0, 1))
    left.set_yticks(range(len(rows)), list(rows))
    left.set_ylim(len(rows) - 0.4, -0.6)
    right.set(xlabel="studies")
    right.locator_params(axis="x", integer=True)
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="x", alpha=0.25)
        axis.set_axisbelow(True)
    if rows:
        figure.legend(loc="outside lower right", ncols=3, frameon=False)
    _save(figure, path, "Findings in reference and generated reports", note)


def risk_coverage(path: Path, curves: Mapping[str, tuple[Curve, Interval]], confidence: str, note: str = "") -> None:
    """Plot risk-coverage curves, one panel per risk.

    Args:
        path: file to write.
        curves: name of the risk to its curve and its area with bounds.
        confidence: what orders the reports, for the title.
        note: line under the title.
    """
    figure = _figure(4.8 * len(curves), 4.2)
    axes: Sequence[Any] = figure.subplots(1, len(curves), squeeze=False)[0]
    for axis, (name, (curve, area)) in zip(axes, curves.items(), strict=True):
        axis.step(100 * curve.coverage, curve.risk, where="post", color=_MAIN, label="most confident first")
        axis.axhline(curve.risk[-1], color=_OTHER, linestyle="--", label="in random order")
        axis.set(xlabel="coverage, % of reports accepted", ylabel=name, xlim=(0, 100), ylim=(0, None))
        axis.set_title(f"area {_with_bounds(area)}", loc="left", fontsize=9.5)
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower right", ncols=2, frameon=False)
    _save(figure, path, f"Risk-coverage curves by {confidence}", note)


def differences(path: Path, table: Mapping[str, Interval], note: str = "") -> None:
    """Plot the difference of two systems with its interval, one row and one scale per number.

    Args:
        path: file to write.
        table: number to first minus second.
        note: line under the title.
    """
    figure = _figure(7.5, 1.2 + 0.6 * len(table))
    axes = figure.subplots(len(table), 1, squeeze=False)[:, 0]
    for axis, (number, one) in zip(axes, table.items(), strict=True):
        # There is no interval for one patient, or for an undefined score.
        widest = float(np.nanmax(np.abs([one.value, one.low, one.high, 1e-3])))
        axis.plot([one.low, one.high], [0, 0], color=_MAIN, linewidth=2)
        axis.plot(one.value, 0, "o", color=_MAIN)
        axis.axvline(0, color=_OTHER, linewidth=1)
        axis.set(xlim=(-1.1 * widest, 1.1 * widest), ylim=(-1, 1))
        axis.set_yticks([0], [_words(number)])
        axis.spines[["top", "right", "left"]].set_visible(False)
    axes[-1].set_xlabel("first system minus second")
    _save(figure, path, "Differences with 95% patient-level intervals", note)


def _with_bounds(one: Interval) -> str:
    """A value with its interval, which is undefined for one patient."""
    return f"{one.value:.3f} " + (
        "(interval undefined)" if math.isnan(one.low) else f"({one.low:.3f} to {one.high:.3f})"
    )


def _words(name: str) -> str:
    return name.replace("_", " ")


def _figure(width: float, height: float) -> Figure:
    # pyplot would keep figures in memory and choose a GUI backend.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _save(figure: Figure, path: Path, title: str, note: str) -> None:
    figure.suptitle(f"{title}\n{note}" if note else title, fontsize=11, x=0.01, ha="left")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=130, format="png")
