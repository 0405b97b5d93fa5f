"""Compare two evaluations: paired differences with intervals and corrected p-values, if the conditions agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cxrreport.errors import ScoreError
from cxrreport.evaluation import plots
from cxrreport.evaluation.conditions import of_number
from cxrreport.evaluation.evaluate import MAIN
from cxrreport.evaluation.metrics.cider import cider
from cxrreport.evaluation.results import plain
from cxrreport.evaluation.statistics import FORMS, Measure, PatientBootstrap, holm, p_value
from cxrreport.records import Interval, Progress, differing
from cxrreport.settings import CompareSettings
from cxrreport.storage.atomic_files import write_json
from cxrreport.storage.command_files import current, read_evaluated, read_scores
from cxrreport.storage.output_folder import output_folder

_TEXTS = ("candidate", "reference")
NO_FORM = {"form": ("a score that cannot be recomputed from terms.parquet", None)}


@dataclass(frozen=True, slots=True)
class Difference:
    """One number of two systems.

    Args:
        first: value of the first system.
        second: value of the second system.
        difference: first minus second, with its 95% interval.
        p: two-sided p-value of the paired permutation test by patient.
        p_corrected: p-value corrected for the number of comparisons (Holm).
    """

    first: float
    second: float
    difference: Interval
    p: float
    p_corrected: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """The result of a comparison.

    Args:
        differences: number to its difference.
        refused: number to the conditions that differ, with both values.
        studies: number of compared studies.
        patients: number of their patients.
        synthetic: true if a number depends on weights that this project has trained on phantoms.
    """

    differences: Mapping[str, Difference]
    refused: Mapping[str, Mapping[str, tuple[Any, Any]]]
    studies: int
    patients: int
    synthetic: bool


@dataclass(frozen=True, slots=True)
class _Side:
    conditions: Mapping[str, Any]
    studies: pa.Table
    terms: Mapping[str, tuple[str, Any]]

    @classmethod
    def read(cls, folder: Path) -> _Side:
        conditions = read_scores(folder)["conditions"]
        studies = read_evaluated(folder / "studies.parquet", "system", *_TEXTS)
        table = read_evaluated(folder / "terms.parquet", "metric", "form", "terms").to_pydict()
        terms = dict(zip(current(table["metric"]), zip(table["form"], table["terms"], strict=True), strict=True))
        return cls(conditions, studies.filter(pc.field("system") == MAIN), terms)

    def numbers(self) -> list[str]:
        """The first number of every metric."""
        return [one["numbers"][0] for one in self.conditions["metrics"].values() if one["numbers"][0] in self.terms]

    def measure(self, number: str) -> Measure | None:
        """A number with the terms of its resamples; `None` if the files do not contain them."""
        if number == "cider":
            return cider(*(self.studies[name].to_pylist() for name in _TEXTS))
        form, terms = self.terms.get(number, ("", None))
        if form not in FORMS:
            return None
        values = self.studies[number].to_numpy(zero_copy_only=False).astype(np.float64)
        return Measure(np.array(terms, dtype=np.float64), FORMS[form], values)


def compare(settings: CompareSettings, *, progress: Progress | None = None) -> Comparison:
    """Compare two evaluations number by number, and write `differences.json` and `compare.png`.

    Raises:
        InputError: a folder is not the output of `evaluate`.
        ScoreError: a requested number is missing, or the conditions agree for no number; the message lists the
            conditions that differ.
        OutputError: the output folder is in use, or belongs to another command.
    """
    first, second = _Side.read(settings.first), _Side.read(settings.second)
    names = settings.numbers or tuple(number for number in first.numbers() if number in second.terms)
    pairs, refused = _comparable(first, second, names)
    if not pairs:
        reasons = "; ".join(f"{number}: {', '.join(ones)}" for number, ones in refused.items())
        raise ScoreError(
            f"{settings.first} and {settings.second} cannot be compared: the conditions agree for no number"
            + (f" (differences: {reasons})" if reasons else "")
        )
    patients = first.studies["patient_id"].to_pylist()
    found = _differences(pairs, patients, settings, progress)
    synthetic = bool(first.conditions["synthetic"] or second.conditions["synthetic"])
    comparison = Comparison(found, refused, len(patients), len(set(patients)), synthetic)
    with output_folder(settings.output, command="compare", settings=settings.model_dump(mode="json")) as folder:
        plots.differences(
            folder.path / "compare.png",
            {number: one.difference for number, one in found.items()},
            note="made with weights trained on phantoms only" if synthetic else "",
        )
        write_json(folder.path / "differences.json", _plain(comparison, first))
        folder.finish()
    return comparison


def _comparable(
    first: _Side, second: _Side, names: Sequence[str]
) -> tuple[dict[str, tuple[Measure, Measure]], dict[str, Mapping[str, tuple[Any, Any]]]]:
    pairs: dict[str, tuple[Measure, Measure]] = {}
    refused: dict[str, Mapping[str, tuple[Any, Any]]] = {}
    for number in names:
        sides = [of_number(side.conditions, number, MAIN) for side in (first, second)]
        if differ := differing(*sides):
            refused[number] = differ
            continue
        one, other = first.measure(number), second.measure(number)
        if one is None or other is None:
            refused[number] = NO_FORM
        else:
            pairs[number] = one, other
    return pairs, refused


def _differences(
    pairs: Mapping[str, tuple[Measure, Measure]],
    patients: Sequence[str],
    settings: CompareSettings,
    progress: Progress | None,
) -> dict[str, Difference]:
    bootstrap = PatientBootstrap(patients, samples=settings.bootstrap_samples, seed=settings.seed)
    intervals, chances = {}, {}
    for done, (number, (one, other)) in enumerate(pairs.items(), start=1):
        intervals[number] = bootstrap.difference(one, other)
        chances[number] = p_value(one, other, patients, samples=settings.permutations, seed=settings.seed)
        if progress is not None:
            progress(done, len(pairs), "numbers")
    corrected = holm(chances)
    return {
        number: Difference(one.value, other.value, intervals[number], chances[number], corrected[number])
        for number, (one, other) in pairs.items()
    }


def _plain(comparison: Comparison, side: _Side) -> dict[str, Any]:
    values: dict[str, Any] = plain(asdict(comparison))
    for number, one in values["differences"].items():
        one["conditions"] = of_number(side.conditions, number, MAIN)
    return values
