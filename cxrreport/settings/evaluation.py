"""Settings of `evaluate`, and of `compare` and `review`, which read its scores."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from cxrreport.settings.base import Fraction, PositiveInt, Settings
from cxrreport.settings.inference import GeneratedBaseline
from cxrreport.settings.tracking import TrackingSettings


class EvaluateSettings(Settings):
    """Scores of predictions against the references of the manifest or of a table."""

    predictions: Path
    """Output folder of `generate`, or a JSONL, CSV or Parquet table with study_id and text (or sections)."""
    references: Path
    """Output folder of `ingest`, or a table with study_id, patient_id and sections."""
    output: Path
    """Folder for scores, tables and pictures."""
    baselines: dict[str, Path] = Field({})
    """Name to predictions of a baseline, each compared with `predictions` on the same studies."""
    generate_baselines: tuple[GeneratedBaseline, ...] = ()
    """Baselines that are generated first, with the settings of `predictions` (an output folder of `generate`), beside
    it: `reports` gets `reports-shuffled`. What they are: see `baseline` of `generate`."""
    most_frequent: bool = True
    """Add the baseline that answers every study with the most frequent report of the training split."""
    section: Literal["findings", "impression", "findings+impression"] = "findings+impression"
    """What is scored: one section, or both as one text."""
    metrics: tuple[str, ...] = ("radgraph", "clinical", "bleu", "rouge_l", "cider")
    """Names of metrics: of this package (also `chexbert`, which needs weights), of an installed one, or
    `module:metric`; see `evaluation.metrics`."""
    inputs: str | None = None
    """What the system was given ("frontal image and indication"), where its predictions are a table. A condition of
    every number; predictions of `generate` bring it along."""
    radgraph: str = "radgraph-xl"
    """`radgraph`, `radgraph-xl`, `modern-radgraph-xl`, `tiny` (the project's own, synthetic), or a folder that holds
    config.json, weights.th and vocabulary/."""
    weights: Path | None = None
    """Folder under which the RadGraph models lie; None: the radgraph package's cache."""
    chexbert: Path | None = None
    """Folder with CheXbert's `chexbert.pth` and the `vocab.txt` of its encoder; None: `~/.cache/chexbert`."""
    download: bool = False
    """Fetch RadGraph's archive, its encoder's tokenizer and CheXbert's files from the hub when they are not there."""
    allow_remote: bool = False
    """Allow metrics that send reports to another machine."""
    annotation_cache: Path | None = None
    """SQLite file in which annotations are kept, without text; None: `annotations.sqlite` beside the output folder."""
    lower_case: bool = True
    """Case rule of the scorer: True as the repository's head (July 2026), False as radgraph 0.1.18."""
    risks: tuple[Fraction, ...] = (0.05, 0.1, 0.2)
    """Risks for which selective generation names the least confidence that keeps them."""
    bootstrap_samples: PositiveInt = 1000
    """Resamples of the patients, for the intervals."""
    seed: Annotated[int, Field(ge=0)] = 0
    """For the resamples."""
    tracking: TrackingSettings = TrackingSettings()

    @model_validator(mode="after")
    def _baselines_once(self) -> Self:
        if twice := sorted(self.baselines.keys() & set(self.generate_baselines)):
            raise ValueError(f"generate_baselines: {', '.join(twice)} is among the baselines too; name it once")
        return self


class CompareSettings(Settings):
    """Two evaluations of the same studies side by side."""

    first: Path
    """Output folder of `evaluate`."""
    second: Path
    """Output folder of `evaluate`, of the other system."""
    output: Path
    """Folder for the table and the picture."""
    numbers: tuple[str, ...] = ()
    """Numbers to compare; none: the first of every metric. p-values are corrected for how many there are."""
    bootstrap_samples: PositiveInt = 1000
    """Resamples of the patients, for the intervals."""
    permutations: PositiveInt = 9999
    """Random exchanges of the two systems by patient, for the p-values."""
    seed: Annotated[int, Field(ge=0)] = 0
    """For the resamples and the exchanges."""
    tracking: TrackingSettings = TrackingSettings()
    """Where the run is logged."""


class ReviewSettings(Settings):
    """One HTML page with images, generated and reference reports and their entities."""

    evaluation: Path
    """Output folder of `evaluate`."""
    data: Path
    """Output folder of `ingest`, for the images."""
    output: Path
    """The HTML file."""
    limit: PositiveInt | None = None
    """Only the worst studies by RadGraph F1."""
    megabytes: Annotated[float, Field(gt=0)] = 150.0
    """About what the images of the page may take; where they take more, they are shrunk alike."""
    tracking: TrackingSettings = TrackingSettings()
