"""Settings of `evaluate`, `compare`, `agreement` and `review`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from cxrreport.settings.base import Fraction, PositiveInt, Settings
from cxrreport.settings.inference import GeneratedBaseline
from cxrreport.settings.tracking import CommandSettings, TrackingSettings

ScoredSection = Literal["findings", "impression", "findings+impression"]


class EvaluateSettings(CommandSettings):
    """Score predictions against the references of a manifest or of a table."""

    predictions: Path
    """Output folder of `generate`, or a JSONL, CSV, Excel or Parquet table with study_id and text (or sections)."""
    references: Path
    """Output folder of `ingest`, or a table with study_id, patient_id and sections."""
    output: Path
    """Output folder for scores, tables and plots."""
    baselines: dict[str, Path] = Field({})
    """Name to predictions of a baseline, which is scored on the same studies as `predictions`."""
    generate_baselines: tuple[GeneratedBaseline, ...] = ()
    """Baselines to generate first, with the settings of `predictions` (an output folder of `generate`) and in folders
    beside it, for example `reports-shuffled` beside `reports`. See `baseline` of `generate` for their meaning."""
    expected_studies: PositiveInt | None = None
    """Number of studies of a published cohort; another number is an error. `configs/evaluate-rexrank-*.yaml` have
    those of ReXrank."""
    most_frequent: bool = True
    """Add a baseline that uses the most frequent report of the training split for every study."""
    section: ScoredSection = "findings+impression"
    """Scored section, or both sections as one text."""
    metrics: tuple[str, ...] = ("radgraph", "clinical", "bleu", "rouge_l", "cider")
    """Names of built-in metrics (also `chexbert`, `bertscore`, `bertscore_radeval`, `radcliq` and `ratescore`, which
    need weights), of metrics of installed packages, or `module:metric`; see `evaluation.metrics`. A metric whose
    weights are missing is left out with a warning."""
    inputs: str | None = None
    """Inputs of a system whose predictions are a table, for example "frontal image and indication". They are a
    condition of every number; predictions of `generate` record them."""
    radgraph: str = "radgraph-xl"
    """`radgraph`, `radgraph-xl`, `modern-radgraph-xl`, `tiny` (trained on phantoms), or a folder with config.json,
    weights.th and vocabulary/."""
    weights: Path | None = None
    """Folder of the RadGraph models; `None` for the cache of the radgraph package."""
    chexbert: Path | None = None
    """Folder with CheXbert's `chexbert.pth` and the `vocab.txt` of its encoder; `None` for `~/.cache/chexbert`."""
    encoders: Path | None = None
    """Folder of the encoders of BERTScore and RaTEScore, as `cxrreport weights` fills it; `None` for that of
    `--weights`."""
    error_weights: Path | None = None
    """Table with the clinical weight of every error (columns finding, omitted, hallucinated, wrong_side, wrong_grade;
    values urgent, actionable, minor or none); `None` for `evaluation/clinical/error_weights.csv`."""
    download: bool = False
    """Download missing files from the hub: RadGraph's archive, the tokenizer of its encoder, CheXbert's files, and the
    encoders of BERTScore and RaTEScore."""
    allow_remote: bool = False
    """Allow metrics that send reports to another machine."""
    annotation_cache: Path | None = None
    """SQLite file for annotations, without text; `None` for `annotations.sqlite` beside the output folder."""
    lower_case: bool = True
    """Case rule of RadGraph F1: true as in the head of its repository (July 2026), false as in radgraph 0.1.18."""
    risks: tuple[Fraction, ...] = (0.05, 0.1, 0.2)
    """Target risks of selective prediction; for each, the lowest confidence that keeps the risk is reported."""
    bootstrap_samples: PositiveInt = 1000
    """Number of resamples of the patients for the intervals."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the resamples."""

    @model_validator(mode="after")
    def _baselines_once(self) -> Self:
        if twice := sorted(self.baselines.keys() & set(self.generate_baselines)):
            raise ValueError(f"generate_baselines: {', '.join(twice)} is among the baselines too; name it once")
        return self


class CompareSettings(CommandSettings):
    """Compare two evaluations of the same studies."""

    first: Path
    """Output folder of `evaluate`."""
    second: Path
    """Output folder of `evaluate` for the other system."""
    output: Path
    """Output folder for the table and the plot."""
    numbers: tuple[str, ...] = ()
    """Numbers to compare; empty for the first of every metric. p-values are corrected for their number."""
    bootstrap_samples: PositiveInt = 1000
    """Number of resamples of the patients for the intervals."""
    permutations: PositiveInt = 9999
    """Number of random exchanges of the two systems by patient for the p-values."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the resamples and the exchanges."""


class AgreementSettings(CommandSettings):
    """Compare readers with each other, and the metrics of an evaluation with the readers."""

    verdicts: Annotated[tuple[Path, ...], Field(min_length=1)]
    """Verdicts that the review page exports, of one or several readers, or tables with study_id, system, reader and
    errors."""
    scores: Path
    """Output folder of `evaluate` with the rated reports."""
    key: Path | None = None
    """Key of a blind page, with study_id, report and system."""
    output: Path
    """Output folder for the table."""
    bootstrap_samples: PositiveInt = 1000
    """Number of resamples of the patients for the intervals."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the resamples."""


class FeedbackSettings(Settings):
    """Attach the verdicts of readers to the traces of reports."""

    verdicts: Annotated[tuple[Path, ...], Field(min_length=1)]
    """Verdicts that the review page exported, of one or several readers."""
    predictions: Path
    """Output folder of `generate` with `tracking.traces`."""
    key: Path | None = None
    """Key of a blind page."""
    tracking: TrackingSettings = TrackingSettings()


class ReviewSettings(CommandSettings):
    """Write an HTML page with images and reports, from an evaluation or from predictions alone."""

    evaluation: Path | None = None
    """Output folder of `evaluate`."""
    predictions: Path | None = None
    """Output folder of `generate`, instead of `evaluation`: the page has neither references nor scores."""
    data: Path
    """Output folder of `ingest` with the images."""
    output: Path
    """HTML file to write."""
    blind: bool = False
    """Show two reports of each study as A and B, in random order and without scores and findings. Which is which is
    written to `<name of output>-key.csv`."""
    against: str = "reference"
    """The second report of a blind page: `reference`, or the name of another system of the evaluation."""
    seed: int = 0
    """Seed of the random order of a blind page."""
    sources: Path | None = None
    """Input folder of `ingest`, to write images at the resolution of their files beside the page."""
    priors: Path | None = None
    """Table with the columns study_id and prior_study_id, instead of the prior studies of `data`. The images and the
    report of the prior study are shown after those of the study, if `data` has them."""
    limit: PositiveInt | None = None
    """Number of studies, the first in the order of the page; `None` for all."""
    megabytes: Annotated[float, Field(gt=0)] = 150.0
    """Approximate size limit of all images, megabytes; larger ones are all shrunk to one size."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.evaluation is None) == (self.predictions is None):
            raise ValueError("set either evaluation or predictions")
        if self.blind and self.evaluation is None:
            raise ValueError("blind compares two reports of each study; set evaluation")
        if self.against != "reference" and not self.blind:
            raise ValueError("against needs blind: true")
        return self
