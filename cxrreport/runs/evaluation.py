"""Scores, their comparison, published results beside them, and the page to read them on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxrreport.errors import InputError, MismatchError
from cxrreport.inference import INGESTED
from cxrreport.records import Progress
from cxrreport.runs.command import Summary, flat, log_data, phantoms, silent, tracked
from cxrreport.runs.inference import generate
from cxrreport.settings import CompareSettings, EvaluateSettings, GenerateSettings, ReviewSettings, build
from cxrreport.storage.output_folder import finished_record

if TYPE_CHECKING:
    from cxrreport.evaluation.compare import Comparison
    from cxrreport.evaluation.evaluate import Evaluation
    from cxrreport.evaluation.metrics import Metric
    from cxrreport.evaluation.published import Published


def evaluate(
    settings: EvaluateSettings,
    *,
    progress: Progress | None = None,
    extra_metrics: Sequence[Metric] = (),
) -> Summary[Evaluation]:
    """Scores of predictions, with intervals, beside controls on the same studies.

    The controls of `generate_controls` are generated first, each a run of its own; stopped and given again, the same
    command goes on where it was.

    Args:
        settings: what to score, and how.
        progress: told about the studies of each control, and the annotation.
        extra_metrics: computed beside those that the settings name; see `evaluation.metrics`.

    Raises:
        InputError: controls are to be generated, and the predictions are not of a finished `generate`.
        MismatchError: ... or data or adapter have changed since.
        CxrReportError: another of its kinds; see `generate` and `evaluation.evaluate.evaluate`.
    """
    from cxrreport.evaluation.conditions import of_number
    from cxrreport.evaluation.evaluate import MAIN
    from cxrreport.evaluation.evaluate import evaluate as work
    from cxrreport.evaluation.results import plain

    if settings.generate_controls:
        settings = _with_controls(settings, progress or silent)
    with tracked("evaluate", settings) as (run, summarise):
        result = work(settings, progress=progress, extra_metrics=extra_metrics)
        run.dataset("references", result.conditions["references"], "evaluation", studies=result.counts["scored"])
        for system, digest in result.conditions["predictions"].items():
            run.dataset("predictions" if system == MAIN else f"predictions of {system}", digest, "evaluation")
        run.link("cxrreport.predictions_run", "predictions", result.conditions["predictions"][MAIN])
        if adapter := _adapter_of(settings.predictions):
            run.link("cxrreport.model_run", "adapter", adapter, parent=True)
        scores = {
            f"{metric}/{system}": plain(one)  # None for what is not defined: JSON has no NaN
            for system, metrics in result.systems.items()
            for metric, one in metrics.items()
        }
        run.metrics(flat(scores) | flat({"counts": dict(result.counts)}))
        by_finding = result.analyses.get("findings", {}).get(MAIN, {})
        details = flat(plain({**result.analyses, "findings": by_finding}))
        # Hundreds of numbers, each one row of the store: their bounds stay in scores.json.
        run.metrics({name: value for name, value in details.items() if not name.endswith(("/low", "/high"))})
        numbers = {name: one["numbers"][0] for name, one in result.conditions["metrics"].items()}
        run.tags(
            {
                f"conditions.{name}": json.dumps(of_number(result.conditions, number, MAIN))
                for name, number in numbers.items()
            }
        )
        run.artifact(settings.output / "scores.json")
        for picture in sorted(settings.output.glob("*.png")):
            run.artifact(picture)
        if settings.tracking.log_reports:
            run.artifact(settings.output / "studies.parquet")
        facts: dict[str, Any] = {"scored": result.counts["scored"], "excluded": result.counts["excluded"]}
        headline, *others = result.systems[MAIN]
        facts |= {f"{headline}/{system}": scores[f"{headline}/{system}"] for system in result.systems}
        facts |= {number: scores[f"{number}/{MAIN}"] for number in others}
    return summarise(facts, result, phantoms(bool(result.conditions["synthetic"])))


def _with_controls(settings: EvaluateSettings, progress: Progress) -> EvaluateSettings:
    """The controls that are to be generated, beside the predictions and with all of their settings."""
    predictions = settings.predictions.absolute()
    made = finished_record(predictions, "generate")
    own = predictions / INGESTED  # of a folder of DICOM
    source = {"input": own, "split": None, "pseudonymize": None} if own.is_dir() else {}
    controls = dict(settings.controls)
    for name in settings.generate_controls:
        controls[name] = predictions.with_name(f"{predictions.name}-{name.replace('_', '-')}")
        values = {"control": name, "output": controls[name], "tracking": settings.tracking, "draw_boxes": False}
        wanted = build(GenerateSettings, made["settings"] | source | values, where=f"control '{name}'")
        generate(wanted, progress=_of(name, progress))
        same = ("data", "prompt") if name in ("no_adapter", "nearest") else ("data", "prompt", "base", "adapter")
        inputs = finished_record(controls[name], "generate")["inputs"]
        if changed := [one for one in same if inputs[one] != made["inputs"][one]]:
            raise MismatchError(
                f"{controls[name]}: {', '.join(changed)} changed since {predictions} was generated; remove this folder "
                "and generate the predictions again, into a new one"
            )
    return settings.model_copy(update={"controls": controls})


def _of(control: str, progress: Progress) -> Progress:
    return lambda done, total, label: progress(done, total, f"{control}: {label}")


def _adapter_of(predictions: Path) -> str:
    """Digest of the adapter behind predictions; empty without an adapter, or if `generate` did not write them."""
    with suppress(InputError):
        return str(finished_record(predictions, "generate").get("provenance", {}).get("adapter") or "")
    return ""


def compare(settings: CompareSettings, *, progress: Progress | None = None) -> Summary[Comparison]:
    """Two evaluations of the same studies side by side: differences, intervals, p-values, where conditions agree.

    Raises:
        CxrReportError: one of its kinds; see `evaluation.compare.compare`.
    """
    from cxrreport.evaluation.compare import compare as work

    with tracked("compare", settings) as (run, summarise):
        result = work(settings, progress=progress)
        differences = {
            number: {"value": one.difference.value, "low": one.difference.low, "high": one.difference.high}
            | {"first": one.first, "second": one.second, "p": one.p, "p_corrected": one.p_corrected}
            for number, one in result.differences.items()
        }
        run.metrics(flat(differences))
        for name in ("differences.json", "compare.png"):
            run.artifact(settings.output / name)
        facts = {"studies": result.studies, "patients": result.patients, "differences": differences}
        facts |= {"refused": {number: sorted(ones) for number, ones in result.refused.items()}}
    return summarise(facts, result, phantoms(result.synthetic))


def published(evaluation: Path) -> list[Published]:
    """Published results beside an evaluation's numbers, each with the conditions in which the two differ.

    Raises:
        InputError: the folder is not the output of `evaluate`.
    """
    from cxrreport.evaluation.published import beside, published_results

    file = evaluation / "scores.json"
    try:
        conditions = json.loads(file.read_text(encoding="utf-8"))["conditions"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file}: cannot be read; give the output folder of a finished evaluate") from error
    return beside(conditions, published_results())


def review(settings: ReviewSettings, *, progress: Progress | None = None) -> Summary[int]:
    """One HTML page to read generated against reference reports, worst first. Its result is the number of studies.

    Raises:
        CxrReportError: one of its kinds; see `review.page.write_page`.
    """
    from cxrreport.dataset.manifest import Manifest
    from cxrreport.review import write_page

    with tracked("review", settings) as (run, summarise):
        report = progress or silent
        report(0, 1, "page")
        manifest = Manifest.open(settings.data)
        log_data(run, manifest, "review")
        studies = write_page(settings.evaluation, manifest, settings.output, settings.limit, settings.megabytes)
        report(1, 1, "page")
        facts = {"studies": studies, "megabytes": settings.output.stat().st_size / 1e6}
        run.metrics(flat(facts))
        if settings.tracking.log_reports:
            run.artifact(settings.output)
    return summarise(facts, studies)
