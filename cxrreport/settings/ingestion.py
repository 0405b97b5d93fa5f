"""Settings of `ingest`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from cxrreport.settings.base import PositiveInt, Resolution, Settings, Shard
from cxrreport.settings.tracking import TrackingSettings

Layout = Literal["auto", "mimic-cxr", "openi", "folder", "table"]
PriorsPolicy = Literal["training", "all", "keep"]
Kept = Literal["not-a-radiograph", "not-a-chest", "colour", "multi-frame", "burned-in-annotation"]


class IngestSettings(Settings):
    """DICOM (or PNG/JPEG) and reports to a manifest and model-ready images."""

    input: Path
    """Folder that holds the studies; also a table of images (layout `table`), or one DICOM file (layout `folder`)."""
    output: Path
    """Folder for manifest, ledger and images; must be new, or one that an interrupted run of the same settings left."""
    layout: Layout = "auto"
    """How studies are laid out. `auto` looks for the layout's own files."""
    reports: Path | None = None
    """Table of reports (CSV or Parquet with study_id and sections), for the layouts `folder` and `table`; for
    `mimic-cxr`, the folder that holds the reports where they lie apart from the images (MIMIC-CXR-JPG)."""
    resolution: Resolution = 224
    """Side of the square image, pixels."""
    resize: Literal["squash", "pad"] = "squash"
    """`squash`: to the square, whatever the aspect, as the reference implementation; `pad`: keep it, pad black."""
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    """Antialiased in both cases."""
    views: Literal["best-frontal", "frontal", "all"] = "best-frontal"
    """`best-frontal`: one per study, PA before AP before unknown; `frontal`: every frontal; `all`: laterals too."""
    keep: tuple[Kept, ...] = ()
    """Reasons for which an image is not left out: it is kept, with the reason as a note. Of several frames the first
    is taken, of colours their luminance. Laterals are asked for with `views`."""
    require_report: bool = True
    """Leave out studies without findings and impression."""
    priors: PriorsPolicy = "training"
    """Mentions of earlier studies ("stable", "new", "compared with") in findings and impression: `training` removes
    them from the training and validation splits and leaves the references of the test split as they were written;
    `all` removes them there too; `keep` removes none."""
    priors_rewriter: str | None = None
    """`module:function` that takes the place of the rules of removal: section in, section out. The function says with
    its attribute `remote` whether it sends the text to another machine."""
    allow_remote: bool = False
    """Allow what sends reports to another machine."""
    placeholders: Literal["keep", "remove", "underscores"] = "keep"
    """Marks of text that was removed for privacy, `___` and `XXXX`: `keep` them, as published scores do (RadGraph
    scores shift with them), `remove` them, or write all as `___`."""
    pseudonymize: Path | None = None
    """File with a secret key, of 16 bytes or more: ids, and names of files and folders, become keyed hashes."""
    burned_in: Literal["mark", "exclude", "ignore"] = "mark"
    """Images on which text is found near a border and whose header does not say that there is none: `mark` them with
    the note `burned-in-text`, for a person to look at, `exclude` them, or do not look (`ignore`). Those whose header
    says BurnedInAnnotation YES are left out, unless `keep` names the reason."""
    max_pixels: PositiveInt = 60_000_000
    """Largest rows x columns that is decoded; larger headers are refused before anything is allocated."""
    window: Annotated[int, Field(ge=0)] | str = 0
    """Of several windows or VOI LUTs in a file, the index from 0 or the explanation (`NORMAL`, `HARDER`); the first
    where a file has none such, with a note."""
    covariates: bool = False
    """Add sex, age band (90 and over pooled), AP or PA, and manufacturer to the manifest, for subgroup analysis."""
    workers: PositiveInt = 1
    """Worker processes."""
    shard: Shard | None = None
    """`i/n`: do only the i-th of n parts of the work, for arrays of jobs; the same settings without it, once all have
    ended, put the parts together."""
    tracking: TrackingSettings = TrackingSettings()
