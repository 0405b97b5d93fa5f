"""One frozen model per verb. A YAML file in `configs/` is one of these models and nothing else.

Unknown fields are refused, relative paths are taken from the working folder, and every field says its unit and range.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cxrreport.errors import SettingsError

Resolution = Literal[224, 448, 896]
PositiveInt = Annotated[int, Field(ge=1)]
Kept = Literal["not-a-radiograph", "not-a-chest", "colour", "multi-frame", "burned-in-annotation"]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


class Settings(BaseModel):
    """Base of all settings: frozen, no unknown fields, defaults checked like given values."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, use_attribute_docstrings=True)

    @classmethod
    def from_yaml(cls, path: Path, **overrides: Any) -> Self:
        """Read `path`, replace what `overrides` names (None means: not given), and check the whole.

        An override that is a mapping replaces only the fields that it names, so `checkpoint={"name": "tiny"}` leaves
        the precision of the file as it is.

        Raises:
            SettingsError: the file is missing or is no YAML mapping, or a field is unknown, missing or out of range;
                the message names the file and the field.
        """
        try:
            loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise SettingsError(f"{path}: cannot read the configuration ({error.strerror})") from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise SettingsError(f"{path}: not a YAML file ({' '.join(str(error).split())})") from error
        if not isinstance(loaded, dict):
            raise SettingsError(f"{path}: expected a mapping of field names to values")
        return build(cls, merge(loaded, overrides), where=str(path))


def merge(values: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """`values` with what `overrides` names replaced, mappings field by field; None in `overrides` means: not given."""
    merged = dict(values)
    for name, value in overrides.items():
        if isinstance(value, dict):
            below = merged.get(name)
            inner = merge(below if isinstance(below, dict) else {}, value)
            if inner:
                merged[name] = inner
        elif value is not None:
            merged[name] = value
    return merged


S = TypeVar("S", bound=Settings)


def build(model: type[S], values: dict[str, Any], *, where: str) -> S:
    """Build `model` from `values`; a mistake names `where` and the field, and offers the known fields."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        lines = []
        for problem in error.errors():
            name = ".".join(str(part) for part in problem["loc"]) or "settings"
            if problem["type"] == "extra_forbidden":
                lines.append(f"{name}: unknown field; known are {', '.join(sorted(model.model_fields))}")
            else:
                lines.append(f"{name}: {problem['msg']}")
        raise SettingsError(f"{where}: " + "; ".join(lines)) from error


WEIGHTS = "CXRREPORT_WEIGHTS"


def weights_folder() -> Path | None:
    """Folder that `cxrreport weights` has filled, from the environment variable `CXRREPORT_WEIGHTS` (`--weights`).

    No field of a model: like the hub's `HF_HOME` it says where weights lie, not what is made with them.
    """
    folder = os.environ.get(WEIGHTS)
    return Path(folder).expanduser() if folder else None


class TrackingSettings(Settings):
    """Where the run is logged in MLflow."""

    uri: str | None = None
    """Tracking URI. None: `MLFLOW_TRACKING_URI`, else an SQLite file `mlflow.db` beside the output folder."""
    experiment: str = "cxrreport"
    """Name of the MLflow experiment; made when it does not exist."""
    parent_run_id: str | None = None
    """Run under which this one is nested."""
    enabled: bool = True
    """False: nothing is logged."""
    system_metrics_every: Annotated[float, Field(ge=1)] | None = 10.0
    """Seconds between samples of processor, memory, disk, network and GPU (with nvidia-ml-py), taken by a thread; None:
    none."""
    log_reports: bool = False
    """True: keep predictions, scores by study and the review page in MLflow too. They hold the text of reports."""


class IngestSettings(Settings):
    """DICOM (or PNG/JPEG) and reports to a manifest and model-ready images."""

    input: Path
    """Folder that holds the studies; also a table of images (layout `table`), or one DICOM file (layout `folder`)."""
    output: Path
    """Folder for manifest, ledger and images; must be new, or one that an interrupted run of the same settings left."""
    layout: Literal["auto", "mimic-cxr", "openi", "folder", "table"] = "auto"
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
    priors: Literal["training", "all", "keep"] = "training"
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
    shard: Annotated[str, Field(pattern=r"^[1-9]\d*/[1-9]\d*$")] | None = None
    """`i/n`: do only the i-th of n parts of the work, for arrays of jobs; the same settings without it, once all have
    ended, put the parts together."""
    tracking: TrackingSettings = TrackingSettings()

    @model_validator(mode="after")
    def _shard_of_so_many(self) -> Self:
        _check_shard(self.shard)
        return self


def _check_shard(shard: str | None) -> None:
    if shard is not None:
        number, count = map(int, shard.split("/"))
        if number > count:
            raise ValueError(f"shard {shard}: there are only {count}")


class PromptSettings(Settings):
    """What the model reads and writes. Travels with the adapter; a mismatch at generation is an error."""

    instruction: str = "generate the chest x-ray report"
    """First line of the prefix."""
    indication: bool = True
    """Put the study's indication into the prefix."""
    sections: tuple[Literal["findings", "impression"], ...] = ("findings", "impression")
    """Sections of the suffix, in this order, each with its header."""
    max_prefix_tokens: PositiveInt = 96
    """Longest prefix, tokens, image tokens not counted; longer indications are cut and counted."""
    max_suffix_tokens: PositiveInt = 256
    """Longest suffix, tokens, EOS included; longer reports are cut, keeping EOS, and counted."""
    max_images: PositiveInt = 1
    """Images that the model sees at once. 1: every image of a study is a sample of its own, and a report is generated
    from the study's best view; more: a study is one sample, with its first so many images, best view first."""

    @model_validator(mode="after")
    def _some_section(self) -> Self:
        if not self.sections or len(set(self.sections)) != len(self.sections):
            raise ValueError("sections must name findings, impression or both, each once")
        return self


class LoraSettings(Settings):
    """Low-rank adaptation (arXiv 2106.09685)."""

    rank: PositiveInt = 16
    """Inner size of the two matrices beside a layer."""
    alpha: PositiveInt = 32
    """The update is scaled by alpha / rank."""
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.05
    """Part of the inputs of those matrices that is zeroed while training."""
    targets: Literal["language", "language+projector", "language+projector+vision"] = "language"
    """Which linear layers are adapted: all seven projections of the language model, and more where named."""


class CheckpointSettings(Settings):
    """Which base model, and how it is run."""

    name: str
    """A line of the table of checkpoints (`paligemma2-3b-pt-896`), a hub id (`google/paligemma2-3b-pt-896`), a local
    folder, or `tiny` for the project's own model of phantoms."""
    revision: str | None = None
    """Commit, tag or branch on the hub; None: the newest."""
    softcap: bool = False
    """Soft-capping of attention and logits. Off for transfer, as in the paper; the untouched `-pt-` and the `-mix-`
    checkpoints run with it."""
    precision: Literal["float32", "bfloat16", "nf4"] = "bfloat16"
    """dtype in which the frozen weights are held and the matrix products run. `nf4`: the language model's linear layers
    in 4 bits, products in bfloat16 (QLoRA, arXiv 2305.14314); CUDA and the extra `qlora` only."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto`: CUDA where there is some."""


class ValidationSettings(Settings):
    """What is measured while training, beside the loss on the whole validation split, and what follows from it."""

    radgraph: str = "radgraph-xl"
    """Reports are generated and scored by this RadGraph, as in `evaluate`, and the step with the best F1 is kept;
    `none`: the step with the least validation loss is."""
    weights: Path | None = None
    """As in `evaluate`."""
    download: bool = False
    """As in `evaluate`."""
    studies: PositiveInt = 64
    """Studies of the validation split that get a report, chosen by a hash of their ids: always the same ones."""
    patience: PositiveInt | None = None
    """Validations in a row without a better one after which training stops; None: it goes on to the last step."""


class TrainSettings(Settings):
    """LoRA fine-tuning on the training split of an ingest folder."""

    data: Path
    """Output folder of `ingest`."""
    output: Path
    """Folder for the adapter, the checkpoints and the log."""
    checkpoint: CheckpointSettings
    prompt: PromptSettings = PromptSettings()
    lora: LoraSettings | None = LoraSettings()
    """None: full fine-tuning."""
    epochs: Annotated[float, Field(gt=0)] = 3.0
    """Passes over the training split."""
    max_steps: PositiveInt | None = None
    """Optimiser steps; overrides `epochs`."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    """Peak rate, after warm-up."""
    warmup_fraction: Fraction = 0.05
    """Part of the steps over which the rate rises linearly; then cosine to zero."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Of AdamW, per step and unit of the learning rate."""
    gradient_clip: Annotated[float, Field(gt=0)] = 1.0
    """Largest global L2 norm of the gradient."""
    batch_size: PositiveInt = 1
    """Samples per forward pass."""
    accumulation: PositiveInt = 16
    """Forward passes per optimiser step. Several processes share them, so that their number changes nothing else; it
    must divide this one."""
    sharding: Literal["none", "full"] = "none"
    """Of several processes, each holds the whole model (`none`), or a part of every layer (`full`, FSDP2), for what
    does not fit into one device."""
    loss: Literal["per-example", "per-token"] = "per-example"
    """Mean over each example's suffix and then over the batch, as the reference; or over all tokens of the batch."""
    gradient_checkpointing: bool = True
    """Recompute activations of the language model in the backward pass."""
    compile: bool = False
    """Compile the layers of the language model (torch.compile): minutes at the start and at new lengths, for quicker
    steps on a GPU. Needs a C++ compiler."""
    workers: Annotated[int, Field(ge=0)] = 0
    """Processes that read and change images ahead of the steps; 0: the training process itself does, between them."""
    augment: bool = False
    """Small rotations, shifts, scale, gamma and noise; never a left-right flip."""
    eval_every: PositiveInt | None = None
    """Optimiser steps between validations; None: once per epoch."""
    validation: ValidationSettings = ValidationSettings()
    """What is measured while training, and what decides which step is kept."""
    save_every: PositiveInt | None = None
    """Optimiser steps between checkpoints; None: as `eval_every`."""
    seed: Annotated[int, Field(ge=0)] = 0
    """For the order of samples, dropout and augmentation."""
    tracking: TrackingSettings = TrackingSettings()

    @model_validator(mode="after")
    def _four_bits_are_frozen(self) -> Self:
        if self.checkpoint.precision == "nf4" and (self.lora is None or self.sharding == "full"):
            field = "lora: null" if self.lora is None else "sharding: full"
            raise ValueError(f"checkpoint.precision: nf4 does not go with {field}; take bfloat16, or leave that out")
        return self


class Greedy(Settings):
    """Always the most probable token."""

    method: Literal["greedy"] = "greedy"
    """Tells the ways of decoding apart."""


class Beam(Settings):
    """Beam search: the most probable of several texts that are written side by side. Slower, and more memory."""

    method: Literal["beam"] = "beam"
    """Tells the ways of decoding apart."""
    beams: Annotated[int, Field(ge=2)] = 4
    """Texts side by side."""
    length_penalty: float = 1.0
    """The summed log-probability is divided by the number of tokens to this power."""


class Sampling(Settings):
    """A token drawn by its probability; the same text for the same seed, study and prompt."""

    method: Literal["sample"] = "sample"
    """Tells the ways of decoding apart."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Logits are divided by it."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Draw from the smallest set of tokens whose probabilities reach this sum."""


Decoding = Annotated[Greedy | Beam | Sampling, Field(discriminator="method")]


class RaySettings(Settings):
    """Shards on many machines, as a Ray Data pipeline (extra `ray`)."""

    address: str | None = None
    """Of a Ray cluster (`auto`, `ray://host:10001`); `local`: a cluster on this machine, for as long as the run goes;
    None: without Ray."""
    actors: PositiveInt = 1
    """Processes that hold the model."""
    cpus: Annotated[float, Field(gt=0)] = 1.0
    """Of each actor."""
    gpus: Annotated[float, Field(ge=0)] = 0.0
    """Of each actor; 0.5 lets two share one."""


class GenerateSettings(Settings):
    """Reports for studies, from a checkpoint with or without an adapter."""

    input: Path
    """Output folder of `ingest`, a folder of DICOM, or one DICOM file."""
    output: Path
    """Folder for the predictions; must be new, or one that an interrupted run of the same settings left."""
    checkpoint: CheckpointSettings | None = None
    """None: the one that the adapter was trained on."""
    adapter: Path | None = None
    """Adapter folder of `train`; None: the bare checkpoint."""
    prompt: PromptSettings | None = None
    """None: the adapter's, or the defaults where there is no adapter."""
    pseudonymize: Path | None = None
    """As in `ingest`, for a folder of DICOM or one file. Without meaning for an ingest folder."""
    split: Literal["train", "validate", "test"] | None = "test"
    """Part of the ingest folder; None: all. Without meaning for a folder of DICOM."""
    control: Literal["none", "shuffled", "blank"] = "none"
    """`shuffled`: every study sees another patient's image; `blank`: a black image. For controls in evaluation."""
    prompts: tuple[str, ...] = ()
    """What to ask of every image, in the words of the mix checkpoints (`caption en`, `detect effusion`; see
    `inference.prompts`), in the place of the report; a prediction for each."""
    draw_boxes: bool = False
    """Write a PNG with the boxes of every answer that has some, into `boxes` of the output folder."""
    engine: Literal["torch", "openvino"] = "torch"
    """`openvino`: on a CPU, converted once for each checkpoint and adapter (extra `openvino`)."""
    quantize: Literal["none", "int8"] = "none"
    """`int8`: weights in 8 bits; `engine: openvino` only. `checkpoint.precision: nf4` is that of CUDA."""
    converted: Path | None = None
    """Folder in which converted models are kept; None: `~/.cache/cxrreport`."""
    ray: RaySettings = RaySettings()
    """On which machines. All of them see input, checkpoint and adapter under the same paths; only this process writes
    into `output`."""
    decoding: Decoding = Greedy()
    """How tokens are chosen."""
    abstain_below: Annotated[float, Field(le=0)] | None = None
    """Mark predictions whose mean natural-log probability of a token is less than this; None: none."""
    batch_size: PositiveInt = 8
    """Texts that are written together; fewer where memory does not suffice."""
    max_new_tokens: PositiveInt = 256
    """Longest report, tokens, EOS included."""
    shard_size: PositiveInt = 64
    """Studies per shard: what is lost at most when the run is stopped."""
    shard: Annotated[str, Field(pattern=r"^[1-9]\d*/[1-9]\d*$")] | None = None
    """`i/n`: do only the i-th of n parts of an ingest folder, for arrays of jobs; the same settings without it, once
    all have ended, put the parts together."""
    limit: PositiveInt | None = None
    """Only the first studies, in the order of their ids."""
    seed: Annotated[int, Field(ge=0)] = 0
    """For the shuffling of `control`, and for sampling."""
    tracking: TrackingSettings = TrackingSettings()

    @model_validator(mode="after")
    def _shard_of_so_many(self) -> Self:
        _check_shard(self.shard)
        return self

    @model_validator(mode="after")
    def _engine_can(self) -> Self:
        if self.quantize != "none" and self.engine != "openvino":
            raise ValueError(f"quantize: {self.quantize} needs engine: openvino")
        if self.engine == "openvino" and isinstance(self.decoding, Beam):
            raise ValueError("engine: openvino decodes greedily or by sampling; take engine: torch for beams")
        return self


class EvaluateSettings(Settings):
    """Scores of predictions against the references of the manifest or of a table."""

    predictions: Path
    """Output folder of `generate`, or a JSONL, CSV or Parquet table with study_id and text (or sections)."""
    references: Path
    """Output folder of `ingest`, or a table with study_id, patient_id and sections."""
    output: Path
    """Folder for scores, tables and pictures."""
    controls: dict[str, Path] = {}
    """Name to predictions of a control, each compared with `predictions` on the same studies."""
    most_frequent: bool = True
    """Add the control that answers every study with the most frequent report of the training split."""
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


class ExportSettings(Settings):
    """Predictions as documents for other systems: DICOM Structured Report, FHIR."""

    predictions: Path
    """Output folder of `generate`."""
    output: Path
    """Folder for the documents; must be new, or one that an interrupted run of the same settings left."""
    formats: tuple[Literal["sr", "fhir"], ...] = ("sr", "fhir")
    """`sr`: DICOM Structured Report (extra `sr`); `fhir`: R4B DiagnosticReport (extra `fhir`)."""
    data: Path | None = None
    """Output folder of `ingest` that the predictions are about; None: the one that `generate` read."""
    sources: Path | None = None
    """Folder that the DICOM files lie in; None: the input of `ingest`."""
    language: Annotated[str, Field(pattern=r"^[A-Za-z]{2,3}(-[A-Za-z0-9]+)*$")] = "en"
    """RFC 5646 tag of the language that the reports are written in."""
    tracking: TrackingSettings = TrackingSettings()
    """Where the run is logged."""

    @model_validator(mode="after")
    def _some_format(self) -> Self:
        if not self.formats or len(set(self.formats)) != len(self.formats):
            raise ValueError("formats must name sr, fhir or both, each once")
        return self


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


class RegisterSettings(Settings):
    """A fine-tuned model as a version of a registered MLflow model, to be served."""

    adapter: Path
    """Adapter folder of `train`. The base checkpoint stays a reference: the server finds it as `generate` does."""
    name: str = "cxrreport"
    """Name of the registered model; made when it does not exist."""
    aliases: tuple[Annotated[str, Field(pattern=r"^[A-Za-z][\w-]*$")], ...] = ()
    """Names that point to this version from now on, e.g. `champion`."""
    batch_size: PositiveInt = 4
    """Rows of a request that run together."""
    max_new_tokens: PositiveInt = 256
    """Longest report, tokens."""
    max_pixels: PositiveInt = 60_000_000
    """Largest rows x columns that is decoded; larger ones are refused."""
    tracking: TrackingSettings = TrackingSettings()


class MergeSettings(Settings):
    """An adapter merged into its checkpoint, as a checkpoint that plain transformers loads."""

    adapter: Path
    """Adapter folder of `train`."""
    output: Path
    """Folder for the checkpoint."""
    checkpoint: CheckpointSettings | None = None
    """None: the one that the adapter was trained on; its precision is that of the merged weights."""
    shard_gb: Annotated[float, Field(gt=0)] = 5.0
    """Largest weight file, GB (10^9 bytes)."""
    tracking: TrackingSettings = TrackingSettings()


class PlanSettings(Settings):
    """What a training run needs, asked before anything is spent."""

    checkpoint: str | None = None
    """As `checkpoint.name` in training; None: each of the nine pre-trained ones."""
    resolution: Resolution | None = None
    """Side of the images, pixels; None: the checkpoint's own."""
    method: Literal["lora", "qlora", "full"] = "lora"
    """`qlora`: the frozen weights of the language model in 4 bits; `full`: all weights are trained, in float32."""
    lora: LoraSettings = LoraSettings()
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    """Of the matrix products, and of weights that are frozen."""
    softcap: bool = False
    """As `checkpoint.softcap` in training."""
    batch_size: PositiveInt = 1
    """Samples per forward pass."""
    gradient_checkpointing: bool = True
    """As in training."""
    max_images: PositiveInt = 1
    """Images of one example."""
    prefix_tokens: PositiveInt = 72
    """Of one example, BOS and separator included, image tokens not."""
    suffix_tokens: PositiveInt = 128
    """Of one example, EOS included."""
    examples: PositiveInt = 210_000
    """Of one epoch; MIMIC-CXR's training split has about so many studies with a frontal image and a report."""
    gpu: str | None = None
    """A line of `training.gpus`; None: all of them."""
    price: Annotated[float, Field(ge=0)] | None = None
    """US dollars per hour of the GPU; None: the round figure of `training.gpus`."""
    utilisation: Annotated[float, Field(gt=0, le=1)] = 0.4
    """Part of the GPU's peak that is expected to be reached."""

    @classmethod
    def of_training(cls, settings: TrainSettings, **overrides: Any) -> Self:
        """The question that a training configuration asks; its longest texts are taken for all of them."""
        checkpoint, prompt = settings.checkpoint, settings.prompt
        quantised = checkpoint.precision == "nf4"
        values = {
            "checkpoint": checkpoint.name,
            "method": "full" if settings.lora is None else "qlora" if quantised else "lora",
            "lora": settings.lora or LoraSettings(),
            "precision": "bfloat16" if quantised else checkpoint.precision,
            "softcap": checkpoint.softcap,
            "batch_size": settings.batch_size,
            "gradient_checkpointing": settings.gradient_checkpointing,
            "max_images": prompt.max_images,
            "prefix_tokens": prompt.max_prefix_tokens,
            "suffix_tokens": prompt.max_suffix_tokens,
        }
        return build(cls, merge(values, overrides), where="plan")


class DemoSettings(Settings):
    """The whole road on phantoms."""

    output: Path
    """Folder for everything."""
    resolution: Literal[224, 896] = 224
    """Side of the images, pixels."""
    patients: Annotated[int, Field(ge=20)] | None = None
    """Phantom patients over all splits, a fifth of them for testing; None: 900, at 896 pixels 120."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of phantoms, training and intervals."""
