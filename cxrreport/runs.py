"""The verbs, for the command line and for notebooks alike: open a tracked run, do the work, log it.

    from pathlib import Path
    from cxrreport import runs
    from cxrreport.settings import IngestSettings

    summary = runs.ingest(IngestSettings(input=Path("mimic-cxr"), output=Path("data")))

Importing this module is quick: each verb loads its room when it is called.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from cxrreport import tracking
from cxrreport.errors import InputError, SettingsError
from cxrreport.files import output_folder, part_folder
from cxrreport.records import Progress
from cxrreport.settings import (
    CheckpointSettings,
    CompareSettings,
    EvaluateSettings,
    ExportSettings,
    GenerateSettings,
    IngestSettings,
    MergeSettings,
    PlanSettings,
    PromptSettings,
    ReviewSettings,
    TrackingSettings,
    TrainSettings,
    build,
)

if TYPE_CHECKING:
    from cxrreport.evaluation.compare import Comparison
    from cxrreport.evaluation.evaluate import Evaluation
    from cxrreport.evaluation.metrics import Metric
    from cxrreport.evaluation.published import Published
    from cxrreport.inference.export import ExportSummary
    from cxrreport.inference.generate import GenerateSummary
    from cxrreport.ingestion.manifest import Manifest
    from cxrreport.ingestion.pipeline import IngestSummary
    from cxrreport.model.adapters import AdapterCard
    from cxrreport.training.plan import Offer
    from cxrreport.training.train import TrainResult, Validate

R = TypeVar("R")
Verb = (
    IngestSettings
    | TrainSettings
    | MergeSettings
    | GenerateSettings
    | EvaluateSettings
    | CompareSettings
    | ExportSettings
    | ReviewSettings
)
INGEST_FILES = ("manifest.parquet", "ingest.json")
"""Files that tell an output folder of `ingest`, finished or not, from a folder of DICOM."""
INGESTED = "ingested"
"""Folder in the output of `generate` for the images of a folder of DICOM."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary(Generic[R]):
    """What a verb came to.

    Args:
        verb: its name.
        output: folder or file that it wrote.
        seconds: wall time, tracking included.
        run_id: MLflow's id of the run; empty when nothing was tracked.
        tracking_uri: of the store that holds the run; empty when nothing was tracked.
        facts: the numbers worth a look, as JSON values; scores as `{value, low, high}`.
        warnings: what the reader must know to read the results rightly.
        result: all that the verb itself returned.
    """

    verb: str
    output: Path
    seconds: float
    run_id: str
    tracking_uri: str
    facts: Mapping[str, Any]
    warnings: tuple[str, ...] = ()
    result: R = field(repr=False)

    def as_dict(self) -> dict[str, Any]:
        """Everything but `result`, as JSON values."""
        return {
            "verb": self.verb,
            "output": str(self.output),
            "seconds": round(self.seconds, 3),
            "run_id": self.run_id,
            "tracking_uri": self.tracking_uri,
            **self.facts,
            "warnings": list(self.warnings),
        }


def ingest(
    settings: IngestSettings, *, progress: Progress | None = None, rewriter: Callable[[str], str] | None = None
) -> Summary[IngestSummary]:
    """DICOM (or PNG, JPEG) and reports to a manifest and model-ready images.

    Args:
        settings: what to read, and how.
        progress: told about headers, reports and studies.
        rewriter: takes mentions of earlier studies out of a section, in the place of the rules.

    Raises:
        CxrReportError: one of its kinds; see `ingestion.pipeline.ingest`.
    """
    from cxrreport.ingestion.manifest import Manifest
    from cxrreport.ingestion.pipeline import ingest as work

    with _tracked("ingest", settings) as (run, summarise):
        result = work(settings, progress or _silent, rewriter=rewriter)
        facts = {"layout": result.layout} | _ingest_facts(result)
        run.metrics(_flat(facts))
        run.artifact(result.folder / "ingest.json")
        if settings.shard is not None:
            return summarise(facts, result)
        _log_data(run, Manifest.open(settings.output), "output")
        run.artifact(settings.output / "contact_sheet.png")
    nothing = f"nothing was kept; {settings.output / 'ledger.parquet'} says why, file by file"
    return summarise(facts, result, () if result.kept else (nothing,))


def train(
    settings: TrainSettings, *, progress: Progress | None = None, validate: Validate | None = None
) -> Summary[TrainResult]:
    """Fine-tuning on the training split of an ingest folder, in one process or in those that `torchrun` started.

    Args:
        settings: what to do.
        progress: told about the steps.
        validate: takes the place of RadGraph F1 on generated reports, see `training.train`.

    Raises:
        CxrReportError: one of its kinds; see `training.train.train`.
    """
    from cxrreport.ingestion.manifest import Manifest
    from cxrreport.model import checkpoints
    from cxrreport.training.train import train as work

    first = first_process()
    if not first:
        settings = settings.model_copy(update={"tracking": TrackingSettings(enabled=False)})
    report = progress if progress is not None and first else _silent
    with _tracked("train", settings) as (run, summarise):
        manifest = Manifest.open(settings.data)
        _log_data(run, manifest, "training")
        if validate is None and settings.validation.radgraph != "none":
            from cxrreport.validation import ReportValidation

            reports = ReportValidation(settings, manifest, first=first, progress=report)
            validate = reports if reports.studies else None
        if validate is not None:
            run.tags({f"validation.{name}": str(value) for name, value in validate.conditions.items()})
        result = work(settings, manifest, log=run.metrics, progress=report, validate=validate)
        facts = {
            "steps": result.steps,
            "best_step": result.best_step,
            "loss": result.loss,
            **result.validation,
            "seconds_per_step": result.seconds_per_step,
            "peak_memory_mb": result.peak_memory / 2**20,
            "samples": result.samples,
            "cut_reports": result.cut_reports,
            "cut_prefixes": result.cut_prefixes,
            "without_text": result.without_text,
            "trained_parameters": result.trained_parameters,
            "adapted_modules": len(result.adapted_modules),
            "adapter": str(result.adapter),
        }
        run.metrics({f"final/{name}": value for name, value in _flat(facts).items()})
        run.dataset(result.adapter.name, checkpoints.fingerprint(result.adapter), "output", steps=result.steps)
        for name in ("train.json", "log.jsonl", "loss.png"):
            run.artifact(settings.output / name)
        if settings.lora is not None:  # after full fine-tuning it is gigabytes; its place is its folder
            run.artifact(result.adapter)
    return summarise(facts, result, _phantoms(result.synthetic))


def generate(settings: GenerateSettings, *, progress: Progress | None = None) -> Summary[GenerateSummary]:
    """Reports for the studies of an ingest folder, of a folder of DICOM, or for one DICOM file.

    Where an adapter is given, its card says which checkpoint, prompt and preprocessing belong to it; an adapter's
    folder given as the checkpoint is taken as the adapter. Without either card, a published checkpoint runs with
    soft-capping unless the settings say otherwise. A folder without manifest is ingested first, into `ingested` of the
    output folder, and gets a report for every study.

    Raises:
        SettingsError: neither checkpoint nor adapter is given.
        MismatchError: adapter, checkpoint, prompt and images do not belong together.
        CxrReportError: another of its kinds; see `inference.generate.generate`.
    """
    from cxrreport.inference import loading
    from cxrreport.inference.generate import generate as work
    from cxrreport.ingestion.pseudonyms import unnamed_input
    from cxrreport.model import checkpoints
    from cxrreport.model.prompt import PromptLayout

    settings = _adapter_told_apart(settings)
    with (
        _tracked("generate", settings) as (run, summarise),
        unnamed_input(settings),
        output_folder(
            part_folder(settings.output, settings.shard),
            verb="generate",
            settings=_shown(settings).model_dump(mode="json"),
        ) as folder,
    ):
        checkpoint, prompt, card = _what_belongs_together(settings)
        manifest, settings, facts = _images(settings, checkpoint, card, progress or _silent)
        if card is not None:
            card.check_images(manifest.resolution, manifest.preprocessing)
        loaded = loading.load(settings, checkpoint, resolution=manifest.resolution)
        provenance: dict[str, Any] = {"run_id": run.run_id, "data_digest": manifest.digest}
        _log_data(run, manifest, "inference")
        run.dataset("checkpoint", loaded.fingerprint, "model", checkpoint=checkpoint.name)
        if settings.adapter is not None:
            provenance["adapter"] = checkpoints.fingerprint(settings.adapter)
            run.dataset("adapter", provenance["adapter"], "model")
            run.link("cxrreport.model_run", "adapter", provenance["adapter"])
        layout = PromptLayout(loaded.tokenizer, prompt, loaded.image_tokens)
        settings = settings.model_copy(update={"checkpoint": checkpoint})
        result = work(settings, manifest, loaded, layout, provenance, progress or _silent, folder=folder)
        facts |= {
            "studies": result.studies,
            "predictions": result.predictions,
            "failed": result.failed,
            "unfinished": result.unfinished,
            "abstained": result.abstained,
            "mean_logprob": result.mean_logprob,
            "studies_per_second": (result.studies - result.resumed) / result.seconds if result.seconds else None,
        }
        run.metrics(_flat(facts))
        run.artifact(folder.path / "generate.json")
        if settings.shard is not None:
            return summarise(facts, result, (result.warning,) if result.warning else ())
        run.dataset("predictions", _sha256(settings.output / "predictions.parquet"), "output")
        if settings.tracking.log_reports:
            run.artifact(settings.output / "predictions.parquet")
    return summarise(facts, result, (result.warning,) if result.warning else ())


def evaluate(
    settings: EvaluateSettings,
    *,
    progress: Progress | None = None,
    extra_metrics: Sequence[Metric] = (),
) -> Summary[Evaluation]:
    """Scores of predictions, with intervals, beside controls on the same studies.

    Args:
        settings: what to score, and how.
        progress: told about the annotation.
        extra_metrics: computed beside those that the settings name; see `evaluation.metrics`.

    Raises:
        CxrReportError: one of its kinds; see `evaluation.evaluate.evaluate`.
    """
    from cxrreport.evaluation.conditions import of_number
    from cxrreport.evaluation.evaluate import MAIN
    from cxrreport.evaluation.evaluate import evaluate as work
    from cxrreport.evaluation.results import plain

    with _tracked("evaluate", settings) as (run, summarise):
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
        run.metrics(_flat(scores) | _flat({"counts": dict(result.counts)}))
        by_finding = result.analyses.get("findings", {}).get(MAIN, {})
        details = _flat(plain({**result.analyses, "findings": by_finding}))
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
    return summarise(facts, result, _phantoms(bool(result.conditions["synthetic"])))


def compare(settings: CompareSettings, *, progress: Progress | None = None) -> Summary[Comparison]:
    """Two evaluations of the same studies side by side: differences, intervals, p-values, where conditions agree.

    Raises:
        CxrReportError: one of its kinds; see `evaluation.compare.compare`.
    """
    from cxrreport.evaluation.compare import compare as work

    with _tracked("compare", settings) as (run, summarise):
        result = work(settings, progress=progress)
        differences = {
            number: {"value": one.difference.value, "low": one.difference.low, "high": one.difference.high}
            | {"first": one.first, "second": one.second, "p": one.p, "p_corrected": one.p_corrected}
            for number, one in result.differences.items()
        }
        run.metrics(_flat(differences))
        for name in ("differences.json", "compare.png"):
            run.artifact(settings.output / name)
        facts = {"studies": result.studies, "patients": result.patients, "differences": differences}
        facts |= {"refused": {number: sorted(ones) for number, ones in result.refused.items()}}
    return summarise(facts, result, _phantoms(result.synthetic))


def published(evaluation: Path) -> list[Published]:
    """Published results beside an evaluation's numbers, each with the conditions in which the two differ.

    Raises:
        InputError: the folder is not the output of `evaluate`.
    """
    from cxrreport.evaluation.published import beside, table

    file = evaluation / "scores.json"
    try:
        conditions = json.loads(file.read_text(encoding="utf-8"))["conditions"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file}: cannot be read; give the output folder of a finished evaluate") from error
    return beside(conditions, table())


def export(settings: ExportSettings, *, progress: Progress | None = None) -> Summary[ExportSummary]:
    """Predictions as DICOM Structured Reports and FHIR resources that refer to the images they are about.

    Raises:
        MissingExtraError: highdicom or fhir.resources is not installed.
        CxrReportError: another of its kinds; see `inference.export.export`.
    """
    from cxrreport.inference.export import export as work
    from cxrreport.ingestion.manifest import Manifest

    with (
        _tracked("export", settings) as (run, summarise),
        output_folder(settings.output, verb="export", settings=settings.model_dump(mode="json")) as folder,
    ):
        generated = _finished(settings.predictions, "generate")
        own = settings.predictions / INGESTED
        data = settings.data or (own if own.is_dir() else Path(generated["settings"]["input"]))
        ingested = _finished(data, "ingest")
        manifest = Manifest.open(data)
        _log_data(run, manifest, "export")
        result = work(settings, manifest, generated, ingested, progress or _silent, folder)
        facts = {"predictions": result.predictions, "exported": result.exported, "refused": dict(result.refused)}
        run.metrics(_flat(facts))
        run.artifact(settings.output / "export.json")
    nothing = f"nothing was exported; {settings.output / 'ledger.parquet'} says why, study by study"
    return summarise(facts, result, () if result.exported else (nothing,))


def _finished(folder: Path, verb: str) -> dict[str, Any]:
    """What `<verb>.json` of a finished run says.

    Raises:
        InputError: it is not there, or the run has not come to its end.
    """
    path = folder / f"{verb}.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read; give the output folder of `cxrreport {verb}`") from error
    if not isinstance(record, dict) or not record.get("finished"):
        raise InputError(f"{folder}: {verb} has not finished here; give the same {verb} command again")
    return record


def review(settings: ReviewSettings, *, progress: Progress | None = None) -> Summary[int]:
    """One HTML page to read generated against reference reports, worst first. Its result is the number of studies.

    Raises:
        CxrReportError: one of its kinds; see `review.page.write_page`.
    """
    from cxrreport.ingestion.manifest import Manifest
    from cxrreport.review.page import write_page

    with _tracked("review", settings) as (run, summarise):
        report = progress or _silent
        report(0, 1, "page")
        manifest = Manifest.open(settings.data)
        _log_data(run, manifest, "review")
        studies = write_page(settings.evaluation, manifest, settings.output, settings.limit, settings.megabytes)
        report(1, 1, "page")
        facts = {"studies": studies, "megabytes": settings.output.stat().st_size / 1e6}
        run.metrics(_flat(facts))
        if settings.tracking.log_reports:
            run.artifact(settings.output)
    return summarise(facts, studies)


def merge(settings: MergeSettings, *, progress: Progress | None = None) -> Summary[Path]:
    """An adapter merged into its checkpoint, as a folder that plain transformers loads. Its result is that folder.

    Raises:
        WeightsError: the adapter is not there, damaged, or a pickle; the checkpoint cannot be had.
        MismatchError: the adapter belongs to another checkpoint.
        OutputError: the folder is in use or holds something else, or the disk is full.
    """
    from cxrreport.model import adapters, checkpoints
    from cxrreport.model.export import write_checkpoint

    report = progress or _silent
    with (
        _tracked("merge", settings) as (run, summarise),
        output_folder(settings.output, verb="merge", settings=settings.model_dump(mode="json")) as folder,
    ):
        card = adapters.AdapterCard.read(settings.adapter)
        checkpoint = settings.checkpoint or card.checkpoint
        if checkpoint.precision == "nf4":  # what is merged is whole again
            checkpoint = checkpoint.model_copy(update={"precision": "bfloat16"})
        adapter = checkpoints.fingerprint(settings.adapter)
        run.dataset("adapter", adapter, "model")
        if not folder.finished:
            report(0, 2, "merging")
            loaded = adapters.load(settings.adapter, checkpoints.load(checkpoint, resolution=card.resolution))
            merged = replace(loaded, model=loaded.model.merge_and_unload())
            report(1, 2, "merging")
            card = card.model_copy(update={"merged": True})
            base = checkpoints.locate(checkpoint)
            write_checkpoint(settings.output, merged, card, base=base, shard_bytes=int(settings.shard_gb * 1e9))
            folder.finish(adapter=adapter, fingerprint=checkpoints.fingerprint(settings.output))
        run.dataset("checkpoint", folder.record["fingerprint"], "output")
        run.artifact(settings.output / "merge.json")
        report(2, 2, "merging")
        files = sorted(settings.output.glob("*.safetensors"))
        facts = {"files": len(files), "gigabytes": sum(file.stat().st_size for file in files) / 1e9}
        run.metrics(_flat(facts))
    return summarise(facts, settings.output, _phantoms(card.synthetic))


def plan(settings: PlanSettings) -> tuple[list[Offer], str]:
    """What a training run needs, on which card, for how long and at what cost; and what to take, in words.

    Nothing is run, so nothing is tracked.

    Raises:
        SettingsError: the GPU is not known.
        WeightsError: the checkpoint's configuration cannot be had.
    """
    from cxrreport.training.plan import answer
    from cxrreport.training.plan import plan as work

    offers = work(settings)
    return offers, answer(settings, offers)


def sync(folder: Path, uri: str | None = None) -> int:
    """Send what runs with an output in `folder` could not send to MLflow; the number of runs.

    Raises:
        TrackingError: the store cannot be reached, or what lies here belongs to another one.
    """
    return tracking.sync(folder, uri)


def first_process() -> bool:
    """True in the one of several processes, started by `torchrun` or `accelerate launch`, that tracks and reports."""
    return os.environ.get("RANK", "0") == "0"


def _silent(_done: int, _total: int, _label: str) -> None:
    """No one wants to know."""


@contextmanager
def _tracked(verb: str, settings: Verb) -> Iterator[tuple[tracking.Run, Callable[..., Summary[Any]]]]:
    """The run of one verb, and what makes its summary from facts, result and warnings."""
    begun = time.monotonic()
    output = settings.output
    with tracking.start(verb, _shown(settings), settings.tracking, output=output) as run:
        uri = tracking.store_uri(settings.tracking, output) if run.run_id else ""

        def summarise(facts: Mapping[str, Any], result: Any, warnings: tuple[str, ...] = ()) -> Summary[Any]:
            return Summary(
                verb=verb,
                output=output,
                seconds=time.monotonic() - begun,
                run_id=run.run_id,
                tracking_uri=uri,
                facts=facts,
                warnings=warnings,
                result=result,
            )

        yield run, summarise


def _shown(settings: Verb) -> Verb:
    """Settings as MLflow and state files may show them: where ids become pseudonyms, the input's name does too."""
    if not isinstance(settings, (IngestSettings, GenerateSettings)) or settings.pseudonymize is None:
        return settings
    from cxrreport.ingestion.pseudonyms import recorded_input

    hidden = {name: Path(value) for name, value in recorded_input(settings).items()}
    return settings.model_copy(update=hidden)


def _log_data(run: tracking.Run, manifest: Manifest, context: str) -> None:
    run.dataset("manifest", manifest.digest, context, studies=len(manifest.studies()), resolution=manifest.resolution)


def _ingest_facts(result: IngestSummary) -> dict[str, Any]:
    return {
        "read": result.read,
        "kept": result.kept,
        "left_out": dict(result.left_out),
        "notes": dict(result.notes),
        "split": dict(result.studies),
        "reports_in_several_splits": result.reports_in_several_splits,
        "near_duplicate_reports": result.near_duplicate_reports,
        "mentions_of_earlier_studies": dict(result.texts),
    }


def _adapter_told_apart(settings: GenerateSettings) -> GenerateSettings:
    """With the folder of an adapter as `adapter`, where it was given as the checkpoint's."""
    from cxrreport.model.adapters import CONFIG

    if settings.adapter is not None or settings.checkpoint is None:
        return settings
    folder = Path(settings.checkpoint.name)
    if not (folder / CONFIG).is_file():
        return settings
    return settings.model_copy(update={"adapter": folder, "checkpoint": None})


def _what_belongs_together(
    settings: GenerateSettings,
) -> tuple[CheckpointSettings, PromptSettings, AdapterCard | None]:
    """Checkpoint and prompt of a generation, and the card that they come from where there is one."""
    from cxrreport.model.adapters import CARD, AdapterCard
    from cxrreport.model.table import is_published

    card = None
    if settings.adapter is not None:
        card = AdapterCard.read(settings.adapter)
    elif settings.checkpoint is not None and (Path(settings.checkpoint.name) / CARD).is_file():
        card = AdapterCard.read(Path(settings.checkpoint.name))  # a whole checkpoint, from full fine-tuning
    checkpoint = settings.checkpoint or (card.checkpoint if card is not None else None)
    if checkpoint is None:
        raise SettingsError("generate: neither checkpoint nor adapter is given; name at least one of them")
    if card is None:
        if "softcap" not in checkpoint.model_fields_set and is_published(checkpoint.name):
            # Only a transfer turns it off (arXiv 2412.03555, section 3), and this one has had none.
            checkpoint = checkpoint.model_copy(update={"softcap": True})
        return checkpoint, settings.prompt or PromptSettings(), None
    if settings.prompt is not None:
        card.check_prompt(settings.prompt)
    return checkpoint, card.prompt, card


def _images(
    settings: GenerateSettings, checkpoint: CheckpointSettings, card: AdapterCard | None, progress: Progress
) -> tuple[Manifest, GenerateSettings, dict[str, Any]]:
    """The images to describe, ingested first where need be; settings and facts that go with them."""
    from cxrreport.ingestion.manifest import Manifest
    from cxrreport.ingestion.pipeline import ingest as work
    from cxrreport.model import checkpoints

    if any((settings.input / name).exists() for name in INGEST_FILES):
        return Manifest.open(settings.input), settings, {}
    if settings.shard is not None:
        raise SettingsError(
            f"{settings.input}: shard needs an ingest folder; ingest first, then generate from its output"
        )
    values = {
        "input": settings.input,
        "output": settings.output / INGESTED,
        "layout": "folder",
        "resolution": card.resolution if card else checkpoints.resolution_of(checkpoint),
        "require_report": False,
        "pseudonymize": settings.pseudonymize,
    }
    if card is not None:
        values |= {name: card.preprocessing[name] for name in ("resize", "interpolation") if name in card.preprocessing}
    ingested = build(IngestSettings, values, where=f"images for checkpoint '{checkpoint.name}'")

    def ingesting(done: int, total: int, label: str) -> None:
        progress(done, total, f"ingesting {label}")

    result = work(ingested, ingesting)
    if not result.kept:
        reasons = ", ".join(f"{reason}: {count}" for reason, count in result.left_out.items()) or "there is none"
        ledger = ingested.output / "ledger.parquet"
        raise InputError(f"{settings.input}: not one of {result.read} files becomes an image ({reasons}); see {ledger}")
    facts = {name: value for name, value in _ingest_facts(result).items() if "split" not in name}
    return Manifest.open(ingested.output), settings.model_copy(update={"split": None}), facts


def _adapter_of(predictions: Path) -> str:
    """Digest of the adapter that wrote the predictions in an output folder of `generate`; empty where there is none."""
    with suppress(OSError, ValueError, AttributeError):
        record = json.loads((predictions / "generate.json").read_text(encoding="utf-8"))
        return str(record.get("provenance", {}).get("adapter") or "")
    return ""


def _phantoms(synthetic: bool) -> tuple[str, ...]:
    return ("synthetic: made with models that have only seen phantoms",) if synthetic else ()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flat(facts: Mapping[str, Any]) -> dict[str, float]:
    """The finite numbers of nested facts, names joined by `/`; the `value` of a score under the score's own name."""
    flat: dict[str, float] = {}
    for name, value in facts.items():
        if isinstance(value, Mapping):
            below = _flat(value)
            flat |= {name if inner == "value" else f"{name}/{inner}": number for inner, number in below.items()}
        elif isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
            flat[name] = float(value)
    return flat
