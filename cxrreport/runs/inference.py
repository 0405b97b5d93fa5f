"""From images to reports, and from reports to documents."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxrreport.errors import InputError, SettingsError
from cxrreport.records import Progress
from cxrreport.runs.command import Summary, flat, log_data, shown, silent, tracked
from cxrreport.runs.ingestion import ingest_facts
from cxrreport.settings import (
    CheckpointSettings,
    ExportSettings,
    GenerateSettings,
    IngestSettings,
    PromptSettings,
    RaySettings,
    build,
)
from cxrreport.storage.files import output_folder, part_folder

if TYPE_CHECKING:
    from cxrreport.dataset.manifest import Manifest
    from cxrreport.export.documents import ExportSummary
    from cxrreport.inference.generate import GenerateSummary
    from cxrreport.model.card import AdapterCard

INGEST_FILES = ("manifest.parquet", "ingest.json")
"""Files that tell an output folder of `ingest`, finished or not, from a folder of DICOM."""
INGESTED = "ingested"
"""Folder in the output of `generate` for the images of a folder of DICOM."""


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
    from cxrreport.dataset.pseudonyms import unnamed_input
    from cxrreport.inference import backends as loading
    from cxrreport.inference.generate import generate as work
    from cxrreport.model import checkpoints
    from cxrreport.model.prompt import PromptLayout

    settings = _adapter_told_apart(settings)
    with (
        tracked("generate", settings) as (run, summarise),
        unnamed_input(settings),
        output_folder(
            part_folder(settings.output, settings.shard),
            verb="generate",
            settings=shown(settings).model_dump(mode="json"),
        ) as folder,
    ):
        checkpoint, prompt, card = _what_belongs_together(settings)
        if settings.control in ("no_adapter", "nearest"):
            settings, checkpoint = _not_tuned(settings, checkpoint, card)
        manifest, settings, facts = _images(settings, checkpoint, card, progress or silent)
        if card is not None:
            card.check_images(manifest.resolution, manifest.preprocessing)
        loaded = loading.load(settings, checkpoint, resolution=manifest.resolution)
        provenance: dict[str, Any] = {"run_id": run.run_id, "data_digest": manifest.digest}
        log_data(run, manifest, "inference")
        run.dataset("checkpoint", loaded.fingerprint, "model", checkpoint=checkpoint.name)
        if settings.adapter is not None:
            provenance["adapter"] = checkpoints.fingerprint(settings.adapter)
            run.dataset("adapter", provenance["adapter"], "model")
            run.link("cxrreport.model_run", "adapter", provenance["adapter"])
        layout = PromptLayout(loaded.tokenizer, prompt, loaded.image_tokens)
        settings = settings.model_copy(update={"checkpoint": checkpoint})
        result = work(settings, manifest, loaded, layout, provenance, progress or silent, folder=folder)
        facts |= {
            "studies": result.studies,
            "predictions": result.predictions,
            "failed": result.failed,
            "unfinished": result.unfinished,
            "abstained": result.abstained,
            "mean_logprob": result.mean_logprob,
            "studies_per_second": (result.studies - result.resumed) / result.seconds if result.seconds else None,
        }
        run.metrics(flat(facts))
        run.artifact(folder.path / "generate.json")
        if settings.shard is not None:
            return summarise(facts, result, (result.warning,) if result.warning else ())
        run.dataset("predictions", _sha256(settings.output / "predictions.parquet"), "output")
        if settings.tracking.log_reports:
            run.artifact(settings.output / "predictions.parquet")
    return summarise(facts, result, (result.warning,) if result.warning else ())


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
    from cxrreport.model.card import CARD, AdapterCard
    from cxrreport.model.catalogue import is_published

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


def _not_tuned(
    settings: GenerateSettings, checkpoint: CheckpointSettings, card: AdapterCard | None
) -> tuple[GenerateSettings, CheckpointSettings]:
    """What was there before fine-tuning, for the controls that ask for it."""
    if card is None and settings.control == "no_adapter":
        raise SettingsError(
            f"control 'no_adapter': checkpoint '{checkpoint.name}' has no adapter that could be left out; give an "
            "adapter, or leave this control out"
        )
    changes: dict[str, Any] = {"adapter": None}
    if settings.control == "nearest":  # one pass of the vision tower over each image, in this process
        changes |= {"engine": "torch", "quantize": "none", "ray": RaySettings()}
    if card is not None and settings.adapter is None:  # fine-tuned as a whole, or merged
        checkpoint = card.checkpoint
    return settings.model_copy(update=changes), checkpoint


def _images(
    settings: GenerateSettings, checkpoint: CheckpointSettings, card: AdapterCard | None, progress: Progress
) -> tuple[Manifest, GenerateSettings, dict[str, Any]]:
    """The images to describe, ingested first where need be; settings and facts that go with them."""
    from cxrreport.dataset.manifest import Manifest
    from cxrreport.ingestion.ingest import ingest as work
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
    facts = {name: value for name, value in ingest_facts(result).items() if "split" not in name}
    return Manifest.open(ingested.output), settings.model_copy(update={"split": None}), facts


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def export(settings: ExportSettings, *, progress: Progress | None = None) -> Summary[ExportSummary]:
    """Predictions as DICOM Structured Reports and FHIR resources that refer to the images they are about.

    Raises:
        MissingExtraError: highdicom or fhir.resources is not installed.
        CxrReportError: another of its kinds; see `export.documents.export`.
    """
    from cxrreport.dataset.manifest import Manifest
    from cxrreport.export.documents import export as work

    with (
        tracked("export", settings) as (run, summarise),
        output_folder(settings.output, verb="export", settings=settings.model_dump(mode="json")) as folder,
    ):
        generated = finished(settings.predictions, "generate")
        own = settings.predictions / INGESTED
        data = settings.data or (own if own.is_dir() else Path(generated["settings"]["input"]))
        ingested = finished(data, "ingest")
        manifest = Manifest.open(data)
        log_data(run, manifest, "export")
        result = work(settings, manifest, generated, ingested, progress or silent, folder)
        facts = {"predictions": result.predictions, "exported": result.exported, "refused": dict(result.refused)}
        run.metrics(flat(facts))
        run.artifact(settings.output / "export.json")
    nothing = f"nothing was exported; {settings.output / 'ledger.parquet'} says why, study by study"
    return summarise(facts, result, () if result.exported else (nothing,))


def finished(folder: Path, verb: str) -> dict[str, Any]:
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
