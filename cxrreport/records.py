"""The records that the verbs hand to each other.

Frozen, checked when built, and keyed by study id: a record that is wrong cannot be made, and two lists are never
matched by their order.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

Progress = Callable[[int, int, str], None]
"""`progress(done, total, label)`, called as the work goes on."""

REPORT_SECTIONS = ("indication", "technique", "comparison", "findings", "impression")


class Split(StrEnum):
    """The three parts of a data set, with MIMIC-CXR's names."""

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
        """True for PA, AP and unknown: a lateral says so in its header far more often than a frontal does."""
        return self is not View.LATERAL


class Reason(StrEnum):
    """Why a file, an image or a study was left out. The codes of the ledger."""

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
    PSEUDONYMISED = "source-pseudonymised"


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
    """One radiograph that was kept.

    Args:
        image_id: unique among all images (MIMIC-CXR: `dicom_id`).
        source: path of the file it came from, relative to the input folder, with `/`.
        rows: height of the source image in pixels.
        columns: width of the source image in pixels.
        notes: named notes on how it was read, e.g. `window-missing`.
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
class LeftOut:
    """One row of the ledger: what was left out, and why."""

    source: str
    reason: Reason
    detail: str = ""
    study_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """What one examination brings to training and generation: its images and its report."""

    study_id: str
    patient_id: str
    split: Split
    image_ids: tuple[str, ...]
    report: Report = field(default_factory=Report)

    def __post_init__(self) -> None:
        if not self.image_ids:
            raise ValueError(f"study {self.study_id!r} has no image")


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """Where something was found, in pixels of the source image (`Image.rows` x `Image.columns`), from its top left."""

    label: str
    top: float
    left: float
    bottom: float
    right: float

    def __post_init__(self) -> None:
        if not (0 <= self.top < self.bottom and 0 <= self.left < self.right):
            raise ValueError(f"Box {self.label!r}: {self.top}, {self.left}, {self.bottom}, {self.right} is no box")


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """The text generated for one study: its report, or the answer to one prompt.

    Args:
        image_ids: of the images that the model saw; none where they were replaced by a blank one. Where the report of a
            training image was copied, the last is that image.
        image_sha256: of each image that it saw, row by row, as in the manifest.
        prompt: the text that it read beside them.
        text: all that the model wrote; location and segment tokens as they are, other special tokens removed.
        mean_logprob: mean natural-log probability of the generated tokens, EOS included; <= 0.
        min_logprob: the least of them; <= `mean_logprob`.
        tokens: number of generated tokens, EOS included; 0 where a report was copied.
        finished: False where the limit of new tokens was reached before EOS.
        abstained: `mean_logprob` is below the threshold of the settings: better read by a person alone.
        boxes: what `text` locates, in the first image.
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
    boxes: tuple[Box, ...] = ()

    def __post_init__(self) -> None:
        if not self.study_id:
            raise ValueError("Prediction.study_id is empty")
        if math.isnan(self.mean_logprob) or math.isnan(self.min_logprob):
            raise ValueError(f"study {self.study_id!r}: a log-probability is NaN")


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with the bounds of its confidence interval (95% unless said otherwise)."""

    value: float
    low: float
    high: float
