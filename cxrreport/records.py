"""Records that commands pass to each other.

They are frozen, validated when created, and keyed by study id: lists are never matched by their order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

Progress = Callable[[int, int, str], None]
"""`progress(done, total, label)`, called repeatedly during long work."""

REPORT_SECTIONS = ("indication", "technique", "comparison", "findings", "impression")
STATEMENT_PARTS = ("", "_side", "_severity")
"""Endings of the columns with the statement of one report on a finding."""
FINDING_COLUMNS = (
    *("study_id", "system", "finding"),
    *(f"{report}{part}" for report in ("reference", "candidate") for part in STATEMENT_PARTS),
    *("error", "contradiction"),
)
"""Columns of `findings.parquet`, which `evaluate` writes and `review` reads."""


class Split(StrEnum):
    """The splits of a data set, with the names of MIMIC-CXR."""

    TRAIN = "train"
    VALIDATE = "validate"
    TEST = "test"


class View(StrEnum):
    """Projection of a chest radiograph (DICOM View Position (0018,5101), reduced)."""

    PA = "PA"
    AP = "AP"
    LATERAL = "LATERAL"
    UNKNOWN = "UNKNOWN"

    @property
    def frontal(self) -> bool:
        """Whether the view is PA, AP or unknown: headers name lateral views far more often than frontal ones."""
        return self is not View.LATERAL


class Reason(StrEnum):
    """Reason codes of the exclusion log: why a file, an image or a study was excluded."""

    NOT_DICOM = "not-dicom"
    NOT_READABLE = "not-readable"
    NO_PIXELS = "no-pixels"
    NOT_RADIOGRAPH = "not-a-radiograph"
    NOT_CHEST = "not-a-chest"
    NOT_FRONTAL = "not-frontal"
    OTHER_VIEW_CHOSEN = "other-view-chosen"
    COLOUR = "colour"
    MULTI_FRAME = "multi-frame"
    TOO_LARGE = "too-large"
    CONSTANT = "constant-image"
    BAD_PIXELS = "bad-pixel-data"
    BAD_LUT = "bad-lut"
    BURNED_IN = "burned-in-annotation"
    IMAGE_MISSING = "image-file-missing"
    NO_REPORT = "no-report"
    EMPTY_SECTIONS = "empty-sections"
    NO_SPLIT = "no-split"
    DUPLICATE = "duplicate-image"
    PATIENT_CONFLICT = "patient-conflict"
    SOURCE_CHANGED = "source-changed"
    UNAVAILABLE = "unavailable"
    """The file system failed, or the file changed meanwhile: the run fails, and the same command reads it again."""
    PSEUDONYMISED = "source-pseudonymised"
    OTHER_PATIENT = "other-patient"
    STUDY_UNKNOWN = "study-unknown"
    NOT_RETRIEVED = "not-retrieved"
    NOT_STORED = "not-stored"
    ROUTED_AWAY = "routed-away"
    ABSTAINED = "abstained"


class EntityStatus(StrEnum):
    """Whether a RadGraph entity is in both reports, only in the reference or only in the candidate."""

    MATCHED = "matched"
    MISSED = "missed"
    HALLUCINATED = "hallucinated"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The sections of one report; an absent section is an empty string."""

    indication: str = ""
    technique: str = ""
    comparison: str = ""
    findings: str = ""
    impression: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """One included radiograph.

    Args:
        image_id: unique among all images (MIMIC-CXR: `dicom_id`).
        source: path of its file, relative to the input folder, with `/`.
        rows: height of the source image in pixels, as it is displayed: upright, with square pixels.
        columns: width of the source image in pixels, as it is displayed.
        notes: names of irregularities found while reading, e.g. `window-missing`.
    """

    image_id: str
    study_id: str
    patient_id: str
    split: Split
    view: View
    source: str
    rows: int
    columns: int
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("image_id", "study_id", "patient_id"):
            if not getattr(self, name):
                raise ValueError(f"Image.{name} is empty (source {self.source!r})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Exclusion:
    """One row of the exclusion log: what was excluded, and why."""

    source: str
    reason: Reason
    detail: str = ""
    study_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PriorStudy:
    """The latest earlier study of the same patient, as its current study refers to it.

    Args:
        days: whole days before the current study; `None` if the order is known and the interval is not.
        image_ids: best view first; may be empty.
        report: with its mentions of even earlier studies; may be empty.
    """

    study_id: str
    days: int | None = None
    image_ids: tuple[str, ...] = ()
    report: Report = field(default_factory=Report)

    def __post_init__(self) -> None:
        if not self.study_id:
            raise ValueError("PriorStudy.study_id is empty")
        if self.days is not None and self.days < 0:
            raise ValueError(f"PriorStudy.days is {self.days}: a prior study is not later than the current one")


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """One examination: its images and its report.

    Args:
        image_ids: best view first.
        report: as it is when the prior study is not shown.
        prior: the latest earlier study of the patient in the same split; `None` if there is none.
        report_with_mentions: `report` before mentions of earlier studies were removed from it; `None` if none were.
            `ingest` keeps it for studies that have or are a prior study.
    """

    study_id: str
    patient_id: str
    split: Split
    image_ids: tuple[str, ...]
    report: Report = field(default_factory=Report)
    prior: PriorStudy | None = None
    report_with_mentions: Report | None = None

    def __post_init__(self) -> None:
        if not self.image_ids:
            raise ValueError(f"study {self.study_id!r} has no image")


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """A bounding box in pixels of the displayed image (`Image.rows` x `Image.columns`), from its top left corner."""

    label: str
    top: float
    left: float
    bottom: float
    right: float

    def __post_init__(self) -> None:
        if not (0 <= self.top < self.bottom and 0 <= self.left < self.right):
            raise ValueError(f"Box {self.label!r}: {self.top}, {self.left}, {self.bottom}, {self.right} is not a box")


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """The text generated for one study: its report, or the answer to one prompt.

    Args:
        image_ids: images in the input of the model; empty if they were replaced by a blank image. If the report of a
            training image was copied, the last id is that of this image.
        image_sha256: SHA-256 of the pixels of each of these images, as in the manifest.
        prompt: text in the input of the model.
        text: the complete output, with location and segment tokens but without other special tokens.
        mean_logprob: mean natural-log probability of the generated tokens, EOS included; <= 0.
        min_logprob: minimum of these log-probabilities; <= `mean_logprob`.
        tokens: number of generated tokens, EOS included; 0 if a report was copied.
        finished: False if the limit of new tokens was reached before EOS.
        abstained: whether the confidence is below the threshold in the settings.
        agreement: mean agreement with the other samples of the study, 0 to 1; `None` without a consensus of samples.
        prior_study_id: the prior study whose report or image the model read; empty if none was shown.
        boxes: bounding boxes that `text` contains, in the first image.
    """

    study_id: str
    patient_id: str
    image_ids: tuple[str, ...]
    image_sha256: tuple[str, ...] = ()
    prompt: str = ""
    text: str
    findings: str
    impression: str
    mean_logprob: float
    min_logprob: float
    tokens: int
    finished: bool
    abstained: bool = False
    agreement: float | None = None
    prior_study_id: str = ""
    boxes: tuple[Box, ...] = ()

    def __post_init__(self) -> None:
        if not self.study_id:
            raise ValueError("Prediction.study_id is empty")
        if math.isnan(self.mean_logprob) or math.isnan(self.min_logprob):
            raise ValueError(f"study {self.study_id!r}: a log-probability is NaN")


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with its confidence interval (95% unless stated otherwise)."""

    value: float
    low: float
    high: float


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The entries that differ, with both values; `None` for a side without the entry."""
    names = [*one, *(name for name in other if name not in one)]
    return {name: (one.get(name), other.get(name)) for name in names if one.get(name) != other.get(name)}
