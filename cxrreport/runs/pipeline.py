"""Tracked runs of the commands that make reports: ingest, train, plan, merge, generate, export."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxrreport.records import Progress, Report
from cxrreport.runs.command import (
    Summary,
    first_process,
    flat,
    log_data,
    log_state,
    phantoms,
    recorded,
    silent,
    tracked,
)
from cxrreport.runs.devices import generate_on_devices
from cxrreport.runs.traces import tracer
from cxrreport.settings import (
    ExportSettings,
    GenerateSettings,
    IngestSettings,
    MergeSettings,
    PlanSettings,
    TrackingSettings,
    TrainSettings,
    read_yaml,
)
from cxrreport.storage.atomic_files import file_sha256
from cxrreport.storage.job_arrays import part_folder

if TYPE_CHECKING:
    from cxrreport.export import ExportSummary
    from cxrreport.inference.completion import GenerateSummary
    from cxrreport.inference.preparation import GenerationInputs
    from cxrreport.ingestion.summary import IngestSummary
    from cxrreport.model.checkpoints import LoadedModel
    from cxrreport.training.planning.estimate import Offer
    from cxrreport.training.planning.generation import GenerationOffer
    from cxrreport.training.run import TrainResult, Validator

_DEIDENTIFIED = frozenset({"mimic-cxr", "openi"})
"""Layouts of data sets whose publishers have removed names and numbers from the reports."""


def ingest(
    settings: IngestSettings, *, progress: Progress | None = None, rewriter: Callable[[str], str] | None = None
) -> Summary[IngestSummary]:
    """Convert DICOM (or PNG, JPEG) and reports into a manifest and model-ready images.

    Args:
        settings: input, layout, image and report options.
        progress: called with completed and total headers, reports and studies.
        rewriter: removes mentions of prior studies from a section, instead of the rules or `settings.rewriter`.

    Raises:
        CxrReportError: see `ingestion.ingest.ingest`.
    """
    from cxrreport.dataset import Manifest
    from cxrreport.ingestion.ingest import ingest as work

    with tracked("ingest", settings) as (run, summarise):
        model = None
        if rewriter is None and settings.rewriter is not None:
            from cxrreport.ingestion.parts import PARTS
            from cxrreport.model.sentence_editor import ModelEditor

            folder = part_folder(settings.output, settings.shard) / PARTS
            model = ModelEditor(settings.rewriter, folder / "answers.sqlite")
        result = work(settings, recorded("ingest", settings, progress), rewriter=model or rewriter)
        facts = {"layout": result.layout} | ingest_facts(result)
        run.metrics(flat(facts))
        log_state(run, result.folder / "ingest.json", settings)
        if settings.shard is not None:
            return summarise(facts, result)
        manifest = Manifest.open(settings.output)
        log_data(run, manifest, "output")
        run.artifact(settings.output / "contact_sheet.png")
    warnings = []
    if not result.kept:
        warnings.append(f"nothing was kept; {settings.output / 'ledger.parquet'} says why, file by file")
    elif (
        settings.texts.deidentify == "off"
        and result.layout not in _DEIDENTIFIED
        and any(study.report != Report() for study in manifest.each_study())
    ):
        warnings.append(
            "names, dates and numbers in the text of reports were kept as they are; if they are of patients, set "
            "texts.deidentify to mark or surrogate"
        )
    return summarise(facts, result, tuple(warnings))


def ingest_facts(result: IngestSummary) -> dict[str, Any]:
    """Counts of an ingest as JSON values."""
    return {
        "read": result.read,
        "kept": result.kept,
        "excluded": dict(result.left_out),
        "notes": dict(result.notes),
        "split": dict(result.studies),
        "priors": dict(result.priors),
        "laterals": dict(result.laterals),
        "reports_in_several_splits": result.reports_in_several_splits,
        "near_duplicate_reports": result.near_duplicate_reports,
        "mentions_of_earlier_studies": result.mentions,
        "identifiers": result.identifiers,
        "reports_in_other_languages": result.texts.get("other_language", 0),
    }


def train(
    settings: TrainSettings, *, progress: Progress | None = None, validate: Validator | None = None
) -> Summary[TrainResult]:
    """Fine-tune on the training split of an ingest folder, in one process or in those that `torchrun` started.

    Args:
        settings: of the run.
        progress: called with completed and total steps.
        validate: replaces RadGraph F1 on generated reports, see `training.finetune`.

    Raises:
        CxrReportError: see `training.finetune.train`.
    """
    from cxrreport.dataset import Manifest
    from cxrreport.model import checkpoints
    from cxrreport.model.card import AdapterCard
    from cxrreport.training import finetune

    first = first_process()
    if not first:
        settings = settings.model_copy(update={"tracking": TrackingSettings(enabled=False)})
    if settings.objective == "reward" and settings.reward.adapter is not None:
        card = AdapterCard.read(settings.reward.adapter)
        settings = settings.model_copy(update={"prompt": card.prompt, "lora": card.lora})
    report = recorded("train", settings, progress) if first else silent
    with tracked("train", settings) as (run, summarise):
        manifest = Manifest.open(settings.data)
        log_data(run, manifest, "training")
        if validate is None and settings.validation.radgraph != "none":
            from cxrreport.scoring.validation import ReportValidation

            reports = ReportValidation(settings, manifest, first=first, progress=report)
            validate = reports if reports.studies else None
        if validate is not None:
            run.tags({f"validation.{name}": str(value) for name, value in validate.conditions.items()})

        def log(values: Mapping[str, float], step: int) -> None:
            # `seconds` is the wall time of every run.
            run.metrics({"step_seconds" if name == "seconds" else name: value for name, value in values.items()}, step)

        fitting = None
        if settings.objective == "reward":
            from cxrreport.scoring.rewards import RewardSampler
            from cxrreport.training import reward

            fitting = partial(reward.fit, sampler=RewardSampler(settings, manifest))
        result = finetune.train(settings, manifest, log=log, progress=report, validate=validate, fitting=fitting)
        counts = ("samples", "cut_reports", "cut_prefixes", "without_text", "trained_parameters")
        facts = {
            **{name: getattr(result, name) for name in ("steps", "best_step", "loss")},
            **result.validation,
            "seconds_per_step": result.seconds_per_step,
            "peak_memory_mb": result.peak_memory / 2**20,
            **{name: getattr(result, name) for name in counts},
            "adapted_modules": len(result.adapted_modules),
            "adapter": str(result.adapter),
        }
        run.metrics({f"final/{name}": value for name, value in flat(facts).items()})
        run.dataset(result.adapter.name, checkpoints.fingerprint(result.adapter), "output", steps=result.steps)
        for name in ("train.json", "log.jsonl", "loss.png"):
            run.artifact(settings.output / name)
        # After full fine-tuning the files are gigabytes; their place is their folder.
        files = result.adapter if settings.lora is not None else None
        chosen = {"base": settings.checkpoint.name, "rank": str(settings.lora.rank if settings.lora else "full")}
        run.model(settings.output.name, checkpoints.fingerprint(result.adapter), files, chosen)
    notes = [f"training was stopped after step {result.steps}: {result.stopped}"] if result.stopped else []
    if result.best_step == 0:
        notes.append("no validation was better than that of the starting adapter, which is therefore kept")
    return summarise(facts, result, (*phantoms(result.synthetic), *notes))


def plan(settings: PlanSettings) -> tuple[list[Offer] | list[GenerationOffer], str]:
    """Estimate memory, time and cost on GPUs of training or generation; also returns a recommendation as text.

    Nothing is run, so nothing is tracked.

    Raises:
        SettingsError: the GPU is not known.
        WeightsError: the checkpoint's configuration cannot be read.
    """
    if settings.task == "generation":
        from cxrreport.training.planning.generation import answer_generation, plan_generation

        generation = plan_generation(settings)
        return generation, answer_generation(settings, generation)
    from cxrreport.training.planning.estimate import answer
    from cxrreport.training.planning.estimate import plan as work

    offers = work(settings)
    return offers, answer(settings, offers)


def plan_settings(path: Path, overrides: Mapping[str, Any]) -> PlanSettings:
    """Settings for the estimate of what a settings file of `train` or `generate` describes.

    Examples of training, and studies of generation, are counted if the data are there.

    Raises:
        SettingsError: the file cannot be read, or a field is unknown, missing or out of range.
    """
    from cxrreport.dataset import MANIFEST, Manifest, samples_of
    from cxrreport.records import Split

    generation = "input" in read_yaml(path)
    if generation:
        from cxrreport.inference.preparation import matching_settings

        wanted = GenerateSettings.from_yaml(path)
        if "studies" not in overrides and (wanted.input / MANIFEST).is_file():
            manifest = Manifest.open(wanted.input)
            split = Split(wanted.split) if wanted.split else None
            overrides = {"studies": max(1, sum(1 for _ in manifest.each_study(split, priors=False))), **overrides}
        checkpoint, prompt, _ = matching_settings(wanted)
        return PlanSettings.of_generation(checkpoint, prompt, **overrides)
    settings = TrainSettings.from_yaml(path)
    counted = None
    if (settings.data / MANIFEST).is_file():
        manifest, prompt = Manifest.open(settings.data), settings.prompt
        samples = (
            sum(1 for _ in samples_of(study, manifest, prompt))
            for study in manifest.each_study(Split.TRAIN, priors=False)  # they change no number
            if any(getattr(study.report, section) for section in prompt.sections)
        )
        counted = sum(samples) or None
    return PlanSettings.of_training(settings, counted=counted, **overrides)


def merge(settings: MergeSettings, *, progress: Progress | None = None) -> Summary[Path]:
    """Merge an adapter into its checkpoint, as a folder that plain transformers loads; the result is that folder.

    Raises:
        WeightsError, MismatchError, OutputError: as `model.merging.merge`.
    """
    from cxrreport.model import merging

    with tracked("merge", settings) as (run, summarise):
        merged = merging.merge(settings, recorded("merge", settings, progress))
        run.dataset("adapter", merged.adapter, "model")
        run.dataset("checkpoint", merged.fingerprint, "output")
        run.artifact(settings.output / "merge.json")
        facts = {"files": merged.files, "gigabytes": merged.gigabytes}
        run.metrics(flat(facts))
    return summarise(facts, settings.output, phantoms(merged.synthetic))


def generate(settings: GenerateSettings, *, progress: Progress | None = None) -> Summary[GenerateSummary]:
    """Generate reports for an ingest folder, for a folder of DICOM, or for one DICOM file.

    The folder of an adapter can also be passed as the checkpoint.

    Raises:
        CxrReportError: as `inference.generate.generate`.
    """
    from cxrreport.inference.generate import generate as generate_reports
    from cxrreport.inference.preparation import separate_adapter

    settings = separate_adapter(settings)
    facts: dict[str, Any] = {}
    with tracked("generate", settings) as (run, summarise):
        generate_on_devices(settings, progress or silent)

        def log_inputs(inputs: GenerationInputs, loaded: LoadedModel) -> None:
            if inputs.manifest is not None:
                log_data(run, inputs.manifest, "inference")
            run.dataset("checkpoint", loaded.fingerprint, "model", checkpoint=inputs.checkpoint.name)
            if inputs.adapter_digest is not None:
                run.dataset("adapter", inputs.adapter_digest, "model")
                run.link("cxrreport.model_run", "adapter", inputs.adapter_digest)

        def log_ingested(ingested: IngestSummary) -> None:
            found = ingest_facts(ingested)
            facts.update({name: value for name, value in found.items() if "split" not in name})
            if ingested.digest:
                studies = sum(ingested.studies.values())
                run.dataset("manifest", ingested.digest, "inference", studies=studies)

        similarity = None
        if settings.samples > 1 and settings.select == "consensus":
            from cxrreport.scoring.consensus import ReportSimilarity

            similarity = ReportSimilarity(settings.consensus, settings.output.absolute().parent / "annotations.sqlite")
        observe = tracer(run, settings.tracking, settings.output) if settings.tracking.traces and run.run_id else None
        result = generate_reports(
            settings,
            recorded("generate", settings, progress),
            run_id=run.run_id,
            log_inputs=log_inputs,
            log_ingested=log_ingested,
            similarity=similarity,
            observe=observe,
        )
        names = ("studies", "predictions", "failed", "unfinished", "abstained", "mean_logprob")
        facts |= {name: getattr(result, name) for name in names}
        facts["studies_per_second"] = (result.studies - result.resumed) / result.seconds if result.seconds else None
        run.metrics(flat(facts))
        folder = part_folder(settings.output, settings.shard)
        log_state(run, folder / "generate.json", settings)
        if settings.shard is None:
            facts["files"] = "reports.csv, predictions.parquet, predictions.jsonl"
            predictions = folder / "predictions.parquet"
            run.dataset("predictions", file_sha256(predictions), "output")
            if settings.tracking.log_reports:
                run.artifact(predictions)
    warnings = [result.warning] if result.warning else []
    if result.new_files:
        warnings.append(
            f"{settings.input} has {result.new_files} new files without reports; re-run the same command with --update"
        )
    return summarise(facts, result, tuple(warnings))


def export(settings: ExportSettings, *, progress: Progress | None = None) -> Summary[ExportSummary]:
    """Export predictions as DICOM Structured Reports and FHIR resources that refer to their images.

    Raises:
        MissingExtraError: highdicom or fhir.resources is not installed.
        CxrReportError: as `export.documents.export`.
    """
    from cxrreport.export import export as export_documents
    from cxrreport.export import read_inputs

    with tracked("export", settings) as (run, summarise):
        inputs = read_inputs(settings)
        log_data(run, inputs.manifest, "export")
        result = export_documents(settings, inputs, recorded("export", settings, progress))
        facts = {"predictions": result.predictions, "exported": result.exported, "refused": dict(result.refused)}
        run.metrics(flat(facts))
        run.artifact(settings.output / "export.json")
    nothing = f"nothing was exported; {settings.output / 'ledger.parquet'} gives the reason for every study"
    return summarise(facts, result, () if result.exported else (nothing,))
