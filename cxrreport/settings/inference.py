"""Settings of `generate`, and of `export`, which turns its predictions into documents."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from cxrreport.settings.base import PositiveInt, Settings, Shard
from cxrreport.settings.model import CheckpointSettings, PromptSettings
from cxrreport.settings.tracking import TrackingSettings


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


SplitName = Literal["train", "validate", "test"]
EngineName = Literal["torch", "openvino"]
Quantization = Literal["none", "int8"]
GeneratedBaseline = Literal["shuffled", "blank", "no_adapter", "nearest"]
"""Baselines of evaluation that are made of images and checkpoint."""


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
    split: SplitName | None = "test"
    """Part of the ingest folder; None: all. Without meaning for a folder of DICOM."""
    baseline: Literal["none"] | GeneratedBaseline = "none"
    """For baselines in evaluation. `shuffled`: every study sees another patient's image; `blank`: a black image;
    `no_adapter`: the checkpoint as it was before fine-tuning; `nearest`: the report of the training image that is most
    like the study's, by the features of that checkpoint."""
    prompts: tuple[str, ...] = ()
    """What to ask of every image, in the words of the mix checkpoints (`caption en`, `detect effusion`; see
    `inference.mix_prompts`), in the place of the report; a prediction for each."""
    draw_boxes: bool = False
    """Write a PNG with the boxes of every answer that has some, into `boxes` of the output folder."""
    engine: EngineName = "torch"
    """`openvino`: on a CPU, converted once for each checkpoint and adapter (extra `openvino`)."""
    quantize: Quantization = "none"
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
    shard: Shard | None = None
    """`i/n`: do only the i-th of n parts of an ingest folder, for arrays of jobs; the same settings without it, once
    all have ended, put the parts together."""
    limit: PositiveInt | None = None
    """Only the first studies, in the order of their ids."""
    seed: Annotated[int, Field(ge=0)] = 0
    """For the shuffling of `baseline`, and for sampling."""
    tracking: TrackingSettings = TrackingSettings()

    @model_validator(mode="after")
    def _engine_can(self) -> Self:
        if self.baseline == "nearest" and self.prompts:
            raise ValueError("baseline: nearest copies reports; leave prompts out")
        if self.quantize != "none" and self.engine != "openvino":
            raise ValueError(f"quantize: {self.quantize} needs engine: openvino")
        if self.engine == "openvino" and isinstance(self.decoding, Beam):
            raise ValueError("engine: openvino decodes greedily or by sampling; take engine: torch for beams")
        return self


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
