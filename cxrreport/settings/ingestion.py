"""Settings of `ingest`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from cxrreport.settings.base import FolderOrName, PositiveInt, Resolution, Settings, Shard
from cxrreport.settings.tracking import CommandSettings

Layout = Literal["auto", "mimic-cxr", "chexpert-plus", "rexgradient", "openi", "folder", "table"]
_StudyColumn = Literal["study_id", "patient_id", "split", "study_date", "study_time", "study_order"]
ReportColumn = Literal[_StudyColumn, "report", "findings", "impression", "indication"]
Kept = Literal["not-a-radiograph", "not-a-chest", "colour", "multi-frame", "burned-in-annotation"]


class RewriterSettings(Settings):
    """A causal language model that edits sentences with mentions of prior studies, on this machine."""

    model: FolderOrName
    """Folder or hub id of a model that transformers loads for text generation."""
    revision: str | None = None
    """Commit, tag or branch on the hub; `None` for the latest."""
    prompt: str = (
        "The following sentence is from a chest X-ray report. Remove every mention of an earlier study and of change "
        "over time. Keep all other words in their order and add none. Answer with the sentence alone.\n{sentence}\n"
    )
    """Prompt of one sentence, which takes the place of `{sentence}`. The chat template of the model, if it has one, is
    applied to it."""
    batch_size: PositiveInt = 32
    """Sentences per forward pass."""
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    """dtype of the weights."""
    cache: Path | None = None
    """SQLite file for its answers, which several ingests and jobs can share. It holds text of reports. `None` for a
    file in the output folder that is removed at the end."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto`: CUDA if available."""

    @field_validator("prompt")
    @classmethod
    def _has_a_place(cls, prompt: str) -> str:
        if "{sentence}" not in prompt:
            raise ValueError("it must contain {sentence}")
        return prompt


class TextSettings(Settings):
    """What is done with identifiers in the text of reports."""

    deidentify: Literal["off", "mark", "surrogate"] = "off"
    """Names, dates, times, telephone and record numbers, addresses, hospitals, e-mail addresses, ages over 89 and
    identity numbers in the text: `mark` writes `___` as MIMIC-CXR does, `surrogate` writes other ones, the same for the
    same patient and key of `pseudonymize` (extra `deidentify`). No automatic method finds all of them. The publishers
    of MIMIC-CXR and Open-i have removed them already."""


class IngestSettings(CommandSettings):
    """Convert DICOM (or PNG, JPEG) and reports into a manifest and model-ready images."""

    input: Path
    """Folder of studies, a table of images (layout `table`), or one DICOM file (layout `folder`)."""
    output: Path
    """Output folder for manifest, exclusion log and images; new, or of an interrupted run with the same settings."""
    layout: Layout = "auto"
    """How the studies are arranged. `auto` recognises a layout by its files."""
    reports: Path | None = None
    """Table of reports (CSV, Excel, JSONL or Parquet with study_id and sections; optionally patient_id, split, and
    study_date and study_time, or study_order, for prior studies). In the layouts `mimic-cxr` and `openi` also a folder
    of reports, if they are not beside the images (MIMIC-CXR-JPG)."""
    columns: dict[ReportColumn, str] = Field(default={})
    """Columns of the table of reports that have other names, e.g. `{study_id: Order, report: Befund}`. Without
    `study_id`, StudyInstanceUID or the accession number is used."""
    sheet: str | None = None
    """Sheet of the workbook with the table of images or reports; `None` if only one visible sheet has data."""
    resolution: Resolution = 224
    """Side length of the square image, in pixels."""
    resize: Literal["squash", "pad"] = "squash"
    """`squash`: ignore the aspect ratio, as the reference implementation; `pad`: keep it and pad with black."""
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    """Both are antialiased."""
    views: Literal["best-frontal", "best-frontal+lateral", "frontal", "all"] = "best-frontal"
    """`best-frontal`: one per study, PA before AP before unknown; `best-frontal+lateral`: a lateral beside it, if there
    is one; `frontal`: every frontal; `all`: every frontal and lateral."""
    keep: tuple[Kept, ...] = ()
    """Reason codes that do not exclude an image; it is kept with the reason as a note. Multi-frame images keep the
    first frame, colour images their luminance. For laterals, use `views`."""
    require_report: bool = True
    """Exclude studies without findings and impression."""
    priors: Literal["training", "all", "keep"] = "training"
    """Mentions of prior studies ("stable", "new", "compared with") in findings and impression: `training` removes them
    from the training and validation splits and leaves the test references unchanged; `all` removes them everywhere;
    `keep` removes none."""
    priors_rewriter: str | None = None
    """What removes mentions of prior studies: `None` for the rules; `model` for the language model of `rewriter`, with
    the rules wherever its edit fails a check; or `module:function`, which takes a section and whose attribute `remote`
    states whether it sends the text to another machine."""
    rewriter: RewriterSettings | None = None
    """The language model of `priors_rewriter: model`."""
    allow_remote: bool = False
    """Allow functions that send reports to another machine."""
    placeholders: Literal["keep", "remove", "underscores"] = "keep"
    """Placeholders for text removed for privacy, `___` and `XXXX`: `keep` them, as published scores do (RadGraph scores
    depend on them), `remove` them, or write all as `___`."""
    texts: TextSettings = TextSettings()
    """What is done with identifiers in the text of reports."""
    pseudonymize: Path | None = None
    """File with a secret key of at least 16 random bytes; ids and names of files and folders become keyed hashes."""
    pseudonym_version: Literal[1, 2] = 2
    """How pseudonyms come from the key file. 1 gives the pseudonyms of data sets made before 0.2, and accepts keys that
    can be guessed."""
    burned_in: Literal["mark", "exclude", "ignore"] = "mark"
    """Images with text near a border, unless their header says that there is none: `mark` them with the note
    `burned-in-text` for a person to check, `exclude` them, or `ignore` the text. Images with BurnedInAnnotation YES are
    excluded unless `keep` names the reason."""
    max_pixels: PositiveInt = 60_000_000
    """Maximum rows x columns; larger images are refused before memory is allocated."""
    window: Annotated[int, Field(ge=0)] | str = 0
    """Window or VOI LUT to use if a file has several: the index from 0 or the explanation (`NORMAL`, `HARDER`). A file
    without it gets the first one and a note."""
    covariates: bool = False
    """Add sex, age band (90 and over pooled), AP or PA, and manufacturer to the manifest, for subgroup analysis."""
    workers: PositiveInt = 1
    """Worker processes."""
    shard: Shard | None = None
    """`i/n`: process only the i-th of n parts, for job arrays. Afterwards, the same settings without it collect the
    parts."""

    @model_validator(mode="after")
    def _rewriter_is_complete(self) -> Self:
        if (self.priors_rewriter == "model") != (self.rewriter is not None):
            raise ValueError("priors_rewriter: model and rewriter need each other; set both or neither")
        return self
