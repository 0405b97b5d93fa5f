"""Tracked runs of `evaluate`, `compare`, `agreement` and `review`, and published results beside scores."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import yaml

from cxrreport.errors import InputError, MismatchError
from cxrreport.inference import INGESTED
from cxrreport.records import Progress
from cxrreport.runs.command import Summary, flat, log_data, phantoms, recorded, silent, tracked
from cxrreport.runs.pipeline import generate
from cxrreport.settings import (
    AgreementSettings,
    CompareSettings,
    EvaluateSettings,
    GenerateSettings,
    ReviewSettings,
    build,
)
from cxrreport.storage.atomic_files import file_sha256
from cxrreport.storage.output_folder import finished_record

if TYPE_CHECKING:
    from cxrreport.evaluation.agreement import Agreement
    from cxrreport.evaluation.compare import Comparison
    from cxrreport.evaluation.evaluate import Evaluation
    from cxrreport.evaluation.metrics import Metric
    from cxrreport.evaluation.published import Published
    from cxrreport.tracking import Run


_INTERVAL = ("value", "low", "high")


def evaluate(
    settings: EvaluateSettings,
    *,
    progress: Progress | None = None,
    extra_metrics: Sequence[Metric] = (),
) -> Summary[Evaluation]:
    """Score predictions with intervals, beside baselines on the same studies.

    The baselines of `generate_baselines` are generated first, each as a run of its own. Re-run the same command to
    resume after it was stopped.

    Args:
        settings: predictions, references, baselines and metrics.
        progress: called with the studies of each baseline, and with the annotated texts.
        extra_metrics: metrics in addition to those of the settings; see `evaluation.metrics`.

    Raises:
        InputError: baselines have to be generated, but the predictions are not from a finished `generate`.
        MismatchError: data or adapter have changed since the predictions were generated.
        CxrReportError: as `generate` and `evaluation.evaluate.evaluate`.
    """
    from cxrreport.evaluation.evaluate import MAIN
    from cxrreport.evaluation.evaluate import evaluate as score
    from cxrreport.evaluation.metrics.diversity import collapse

    if settings.generate_baselines:
        settings = _with_baselines(settings, progress or silent)
    with tracked("evaluate", settings) as (run, summarise):
        result = score(settings, progress=recorded("evaluate", settings, progress), extra_metrics=extra_metrics)
        facts = _log_evaluation(run, settings, result)
        diversity = result.analyses["diversity"]
        warnings = collapse(diversity["systems"][MAIN], diversity["references"])
        for lacking in dict.fromkeys(result.not_computed.values()):  # several metrics may lack the same weights
            names = [metric for metric, one in result.not_computed.items() if one == lacking]
            warnings += (f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} not computed. {lacking}",)
    return summarise(facts, result, (*phantoms(bool(result.conditions["synthetic"])), *warnings))


def _log_evaluation(run: Run, settings: EvaluateSettings, result: Evaluation) -> dict[str, Any]:
    """Log inputs, scores, conditions and plots; returns the facts of the summary."""
    from cxrreport.evaluation.evaluate import MAIN
    from cxrreport.evaluation.results import plain

    conditions, counts = result.conditions, result.counts
    run.dataset("references", conditions["references"], "evaluation", studies=counts["scored"])
    for system, digest in conditions["predictions"].items():
        run.dataset("predictions" if system == MAIN else f"predictions of {system}", digest, "evaluation")
    run.link("cxrreport.predictions_run", "predictions", conditions["predictions"][MAIN])
    adapter = _adapter_digest(settings.predictions)
    if adapter:
        run.link("cxrreport.model_run", "adapter", adapter, parent=True)
    scores = {
        f"{metric}/{system}": plain(one)  # `None` for undefined values, because JSON has no NaN
        for system, metrics in result.systems.items()
        for metric, one in metrics.items()
    }
    # About a dozen numbers that MLflow can plot and compare; the tables and scores.json have the rest.
    numbers = {name: one["numbers"][0] for name, one in conditions["metrics"].items()}
    first = next(iter(result.systems[MAIN]))
    for system, metrics in result.systems.items():
        headlines = flat({number: plain(metrics[number]) for number in (first, *numbers.values()) if number in metrics})
        values = {name: value for name, value in headlines.items() if "/" not in name or name.startswith(f"{first}/")}
        if system == MAIN:
            run.metrics(values | {name: float(counts[name]) for name in ("scored", "excluded")})
            run.model_scores(adapter, values, conditions["references"])
        else:
            run.child(system, values)
    rows = [[*name.rsplit("/", 1), *map(one.get, _INTERVAL)] for name, one in scores.items()]
    run.table("all_scores", ("metric", "system", *_INTERVAL), rows)
    run.table("analyses", ("name", "value"), list(flat(plain(result.analyses)).items()))
    run.table("seconds", ("metric", "seconds"), [list(one) for one in result.seconds.items()])
    run.text("conditions.yaml", yaml.safe_dump(json.loads(json.dumps(conditions)), sort_keys=False, width=100))
    run.tags({f"conditions.{name}": str(conditions[name]) for name in ("section", "synthetic", "cohort")})
    described = {name: str(conditions[name]) for name in ("section", "cohort")}
    described |= {name: str(counts[name]) for name in ("scored", "patients")}
    run.data("references", conditions["references"], described)
    run.dataset("scores", file_sha256(settings.output / "scores.json"), "output")
    run.artifact(settings.output / "scores.json")
    for plot in sorted(settings.output.glob("*.png")):
        run.artifact(plot)
    if settings.tracking.log_reports:
        run.artifact(settings.output / "studies.parquet")
    headline, *others = result.systems[MAIN]
    return {
        "scored": counts["scored"],
        "excluded": counts["excluded"],
        **{f"{headline}/{system}": scores[f"{headline}/{system}"] for system in result.systems},
        **{number: scores[f"{number}/{MAIN}"] for number in others},
        "seconds": dict(result.seconds),
    }


def _with_baselines(settings: EvaluateSettings, progress: Progress) -> EvaluateSettings:
    """Generate the baselines beside the predictions, with the same settings."""
    predictions = settings.predictions.absolute()
    generated = finished_record(predictions, "generate")
    ingested = predictions / INGESTED  # if the input was a folder of DICOM
    source = {"input": ingested, "split": None, "pseudonymize": None} if ingested.is_dir() else {}
    baselines = dict(settings.baselines)
    for name in settings.generate_baselines:
        baselines[name] = predictions.with_name(f"{predictions.name}-{name.replace('_', '-')}")
        values = {"baseline": name, "output": baselines[name], "tracking": settings.tracking, "draw_boxes": False}
        wanted = build(GenerateSettings, generated["settings"] | source | values, where=f"baseline '{name}'")
        generate(wanted, progress=_labelled(name, progress))
        same = ("data", "prompt") if name in ("no_adapter", "nearest") else ("data", "prompt", "base", "adapter")
        inputs = finished_record(baselines[name], "generate")["inputs"]
        if changed := [one for one in same if inputs[one] != generated["inputs"][one]]:
            raise MismatchError(
                f"{baselines[name]}: {', '.join(changed)} changed since {predictions} was generated; remove this "
                "folder, and generate the predictions again into a new one"
            )
    return settings.model_copy(update={"baselines": baselines})


def _labelled(baseline: str, progress: Progress) -> Progress:
    return lambda done, total, label: progress(done, total, f"{baseline}: {label}")


def _adapter_digest(predictions: Path) -> str:
    """Digest of the adapter behind predictions; empty without an adapter, or if `generate` did not write them."""
    with suppress(InputError):
        return str(finished_record(predictions, "generate").get("provenance", {}).get("adapter") or "")
    return ""


def compare(settings: CompareSettings, *, progress: Progress | None = None) -> Summary[Comparison]:
    """Compare two evaluations: paired differences, intervals and p-values, if the conditions agree.

    Raises:
        CxrReportError: as `evaluation.compare.compare`.
    """
    from cxrreport.evaluation.compare import compare as compare_evaluations
    from cxrreport.evaluation.results import plain

    with tracked("compare", settings) as (run, summarise):
        result = compare_evaluations(settings, progress=progress)
        differences = {  # `None` for undefined bounds and p-values, because JSON has no NaN
            number: plain(one.difference)
            | plain({"first": one.first, "second": one.second, "p": one.p, "p_corrected": one.p_corrected})
            for number, one in result.differences.items()
        }
        run.metrics(flat(differences))
        for name in ("differences.json", "compare.png"):
            run.artifact(settings.output / name)
        facts = {"studies": result.studies, "patients": result.patients, "differences": differences}
        facts |= {"refused": {number: sorted(ones) for number, ones in result.refused.items()}}
    return summarise(facts, result, phantoms(result.synthetic))


def agreement(settings: AgreementSettings, *, progress: Progress | None = None) -> Summary[Agreement]:
    """Agreement between readers, and of every metric with the readers. MLflow gets neither ids nor names of readers.

    Raises:
        CxrReportError: as `evaluation.agreement.agreement`.
    """
    from cxrreport.evaluation.agreement import agreement as compare_readers
    from cxrreport.evaluation.results import plain

    with tracked("agreement", settings) as (run, summarise):
        result = compare_readers(settings, progress=progress)
        between = {
            outcome: {name: one for name, one in values.items() if name != "pairs"}
            for outcome, values in result.between_readers.items()
        }
        scores: dict[str, Any] = plain({"between_readers": between, "kendall_tau_b": result.metrics})
        counts = {"readers": len(result.readers), **result.counts}
        digest = file_sha256(settings.scores / "scores.json")
        run.dataset("scores", digest, "evaluation")
        taus = {
            outcome: {number: one for number, one in ones.items() if number in result.first_numbers}
            for outcome, ones in scores["kendall_tau_b"].items()
        }
        main = flat({"between_readers": scores["between_readers"], "kendall_tau_b": taus})
        main = {name: value for name, value in main.items() if not name.endswith(("/low", "/high"))}
        run.link("cxrreport.evaluation_run", "scores", digest, values=main)
        run.metrics(flat(scores) | flat({"counts": counts}))
    warnings = list(phantoms(result.synthetic))
    if len(result.readers) == 1:
        warnings.append("one reader: agreement between readers is not computed")
    elif not any(values["reports"] for values in result.between_readers.values()):
        warnings.append("no report was rated by two readers: agreement between readers is not computed")
    if not any(result.metrics.values()):
        warnings.append("one rated report: agreement of metrics with readers needs two")
    return summarise(counts | scores, result, tuple(warnings))


def published(evaluation: Path) -> list[Published]:
    """Published results for the numbers of an evaluation, each with the conditions that differ.

    Raises:
        InputError: the folder is not the output of `evaluate`.
    """
    from cxrreport.evaluation.published import beside, published_results
    from cxrreport.storage.command_files import read_scores

    return beside(read_scores(evaluation), published_results())


def review(settings: ReviewSettings, *, progress: Progress | None = None) -> Summary[int]:
    """Write one HTML page with the reports of an evaluation or of predictions. The result is the number of studies.

    Raises:
        CxrReportError: as `review.read_evaluation`, `review.read_predictions`, `review.locked_page` and
            `review.write_page`.
    """
    from cxrreport.dataset import Manifest
    from cxrreport.review import (
        blinded,
        key_file,
        locked_page,
        read_evaluation,
        read_predictions,
        read_priors,
        write_key,
        write_page,
    )

    with tracked("review", settings) as (run, summarise), locked_page(settings.output):
        report = progress or silent
        report(0, 1, "page")
        manifest = Manifest.open(settings.data)
        log_data(run, manifest, "review")
        if settings.evaluation is not None:
            content = read_evaluation(settings.evaluation, settings.against)
        else:
            content = read_predictions(cast(Path, settings.predictions))
        known = {study.study_id: study for study in manifest.studies()}
        priors = read_priors(settings.priors, known) if settings.priors is not None else None
        if settings.blind:
            content, key = blinded(content, settings.seed)
            write_key(key_file(settings.output), key)
        studies = write_page(
            content,
            manifest,
            settings.output,
            limit=settings.limit,
            megabytes=settings.megabytes,
            sources=settings.sources,
            priors=priors,
            progress=report,
        )
        report(1, 1, "page")
        facts = {"studies": studies, "megabytes": settings.output.stat().st_size / 1e6}
        run.metrics(flat(facts))
        if settings.tracking.log_reports:
            run.artifact(settings.output)
    return summarise(facts, studies)
