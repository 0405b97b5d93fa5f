"""Inputs of a generation: checkpoint, adapter and prompt that belong together, and images, ingested if necessary."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxrreport.dataset import Manifest
from cxrreport.errors import InputError, SettingsError
from cxrreport.inference import INGESTED
from cxrreport.inference.chat.template import read_template
from cxrreport.model import checkpoints
from cxrreport.model.adapters import CONFIG
from cxrreport.model.card import CARD, AdapterCard
from cxrreport.model.catalogue import is_published
from cxrreport.records import Progress
from cxrreport.settings import CheckpointSettings, GenerateSettings, IngestSettings, PromptSettings, RaySettings, build

if TYPE_CHECKING:
    from cxrreport.ingestion.summary import IngestSummary

_INGEST_FILES = ("manifest.parquet", "ingest.json")
"""Files that distinguish an ingest folder, finished or not, from a folder of DICOM."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationInputs:
    """What a generation reads.

    Args:
        settings: settings of the generation, with `checkpoint`, `adapter` and `split` as they are used.
        resolution: side length of the images in pixels.
        manifest: studies and images; `None` if they come from `ingestion`, portion by portion.
        ingestion: for a folder of DICOM; `None` for an ingest folder.
        adapter_digest: fingerprint of the adapter; `None` without an adapter.
        ingested: summary of a finished ingestion.
    """

    settings: GenerateSettings
    checkpoint: CheckpointSettings
    prompt: PromptSettings
    resolution: int
    manifest: Manifest | None
    ingestion: IngestSettings | None = None
    adapter_digest: str | None
    ingested: IngestSummary | None = None


def separate_adapter(settings: GenerateSettings) -> GenerateSettings:
    """Move the folder of an adapter to `adapter` if it was given as the checkpoint."""
    if settings.adapter is not None or settings.checkpoint is None:
        return settings
    folder = Path(settings.checkpoint.name)
    if not (folder / CONFIG).is_file():
        return settings
    return settings.model_copy(update={"adapter": folder, "checkpoint": None})


def prepare_inputs(settings: GenerateSettings, progress: Progress) -> GenerationInputs:
    """Find checkpoint, prompt and images of a generation. A folder of DICOM is ingested into the output folder.

    Reports are written while the folder is ingested, unless something needs all studies first: a baseline, a limit, or
    Ray. The caller holds the lock of the output folder.

    Raises:
        SettingsError: neither checkpoint nor adapter is given, or the baseline needs one that is missing.
        MismatchError: adapter, checkpoint, prompt and images do not belong together.
        InputError: no file of a folder of DICOM becomes an image.
    """
    checkpoint, prompt, card = matching_settings(settings)
    if settings.baseline in ("no_prior", "shuffled_prior") and prompt.prior == "none":
        raise SettingsError(
            f"baseline '{settings.baseline}': the prompt of this model shows no prior study; omit this baseline"
        )
    if settings.baseline in ("no_adapter", "nearest"):
        settings, checkpoint = _before_fine_tuning(settings, checkpoint, card)
    manifest, ingestion, ingested = None, None, None
    if is_ingest_folder(settings.input):
        if settings.update:
            raise SettingsError(f"{settings.input}: update is for a folder of DICOM; ingest again into a new folder")
        manifest = Manifest.open(settings.input)
    else:
        whole = [name for name in ("baseline", "limit") if getattr(settings, name) not in (None, "none")]
        whole += ["ray"] if settings.ray.address is not None else []
        whole += ["prompt.prior"] if prompt.prior != "none" else []
        if whole and (settings.shard is not None or settings.update):
            raise SettingsError(
                f"{settings.input}: {whole[0]} needs all studies of a folder of DICOM, so shard and update cannot be "
                "used with it; ingest first, then generate from the output folder of ingest"
            )
        ingestion = image_settings(settings, checkpoint, card, prompt)
        if whole:
            manifest, ingested = _ingest(ingestion, progress)
        settings = settings.model_copy(update={"split": None})
    source = manifest or ingestion
    if card is not None and manifest is not None:
        card.check_images(manifest.resolution, manifest.preprocessing)
    return GenerationInputs(
        settings=settings.model_copy(update={"checkpoint": checkpoint}),
        checkpoint=checkpoint,
        prompt=prompt,
        resolution=source.resolution if source is not None else 0,
        manifest=manifest,
        ingestion=ingestion,
        adapter_digest=None if settings.adapter is None else checkpoints.fingerprint(settings.adapter),
        ingested=ingested,
    )


def is_ingest_folder(path: Path) -> bool:
    """True for an output folder of `ingest`, finished or not; other folders hold DICOM."""
    return any((path / name).exists() for name in _INGEST_FILES)


def matching_settings(settings: GenerateSettings) -> tuple[CheckpointSettings, PromptSettings, AdapterCard | None]:
    """Checkpoint and prompt of a generation, and the card of the adapter or fine-tuned checkpoint, if there is one."""
    card = None
    if settings.adapter is not None:
        card = AdapterCard.read(settings.adapter)
    elif settings.checkpoint is not None and (Path(settings.checkpoint.name) / CARD).is_file():
        card = AdapterCard.read(Path(settings.checkpoint.name))  # full fine-tuning, or merged
    checkpoint = settings.checkpoint or (card.checkpoint if card is not None else None)
    if checkpoint is None:
        raise SettingsError("generate: neither checkpoint nor adapter is set; set at least one of them")
    if card is None:
        if "softcap" not in checkpoint.model_fields_set and is_published(checkpoint.name):
            # Soft-capping is only switched off for fine-tuning (arXiv 2412.03555, section 3).
            checkpoint = checkpoint.model_copy(update={"softcap": True})
        return checkpoint, settings.prompt or PromptSettings(), None
    if settings.prompt is not None:
        card.check_prompt(settings.prompt)
    # Prompts that are given are about one image, whatever else the model has learned to read.
    return checkpoint, card.prompt.alone() if settings.prompts else card.prompt, card


def _before_fine_tuning(
    settings: GenerateSettings, checkpoint: CheckpointSettings, card: AdapterCard | None
) -> tuple[GenerateSettings, CheckpointSettings]:
    """Settings and checkpoint of the model before fine-tuning, for the baselines that use it."""
    if card is None and settings.baseline == "no_adapter":
        raise SettingsError(
            f"baseline 'no_adapter': checkpoint '{checkpoint.name}' has no adapter; set an adapter, or omit this "
            "baseline"
        )
    changes: dict[str, Any] = {"adapter": None}
    if settings.baseline == "nearest":  # only runs the vision tower, in this process
        changes |= {"engine": "torch", "quantize": "none", "ray": RaySettings()}
    if card is not None and settings.adapter is None:  # full fine-tuning, or merged
        checkpoint = card.checkpoint
    return settings.model_copy(update=changes), checkpoint


def image_settings(
    settings: GenerateSettings, checkpoint: CheckpointSettings, card: AdapterCard | None, prompt: PromptSettings
) -> IngestSettings:
    """How a folder of DICOM is ingested for a checkpoint: with the preprocessing of its adapter, if there is one."""
    values = {
        "input": settings.input,
        "output": settings.output / INGESTED,
        "layout": "folder",
        "require_report": False,
        "pseudonymize": settings.pseudonymize,
        "pseudonym_version": settings.pseudonym_version,
        "workers": settings.workers,
        "shard": settings.shard,
        **({"views": "best-frontal+lateral"} if prompt.views == "frontal+lateral" else {}),
    }
    if settings.prompt_template is not None:
        template = read_template(settings.prompt_template)
        values |= {"resolution": template.resolution, "resize": template.resize}
    elif card is None:
        values["resolution"] = checkpoints.architecture(checkpoint)[1]
    else:
        values |= {name: card.preprocessing[name] for name in ("resize", "interpolation") if name in card.preprocessing}
        values["resolution"] = card.resolution
    return build(IngestSettings, values, where=f"images for checkpoint '{checkpoint.name}'")


def _ingest(ingestion: IngestSettings, progress: Progress) -> tuple[Manifest, IngestSummary]:
    from cxrreport.ingestion.ingest import ingest  # not needed for an ingest folder

    summary = ingest(ingestion, lambda done, total, label: progress(done, total, f"ingesting {label}"))
    if not summary.kept:
        raise nothing_kept(ingestion, summary)
    return Manifest.open(ingestion.output), summary


def nothing_kept(ingestion: IngestSettings, summary: IngestSummary) -> InputError:
    """The error for a folder of DICOM without any image."""
    reasons = ", ".join(f"{reason}: {count}" for reason, count in summary.left_out.items()) or "no file found"
    return InputError(
        f"{ingestion.input}: none of {summary.read} files became an image ({reasons}); "
        f"see {ingestion.output / 'ledger.parquet'}"
    )
