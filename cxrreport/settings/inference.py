"""Settings of `generate` and `export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from cxrreport.settings.base import EachOnce, PositiveInt, Settings, Shard
from cxrreport.settings.model import CheckpointSettings, PromptSettings
from cxrreport.settings.tracking import CommandSettings


class Greedy(Settings):
    """Choose the most probable token."""

    method: Literal["greedy"] = "greedy"
    """Decoding method."""


class Beam(Settings):
    """Beam search; slower, with more memory."""

    method: Literal["beam"] = "beam"
    """Decoding method."""
    beams: Annotated[int, Field(ge=2)] = 4
    """Number of beams."""
    length_penalty: float = 1.0
    """The summed log-probability is divided by the number of tokens to this power."""


class Sampling(Settings):
    """Sample a token by its probability; the text depends only on seed, study and prompt."""

    method: Literal["sample"] = "sample"
    """Decoding method."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Divisor of the logits."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Sample from the smallest set of tokens whose probabilities reach this sum."""


Decoding = Annotated[Greedy | Beam | Sampling, Field(discriminator="method")]


class ConsensusSettings(Settings):
    """How far two sampled reports agree, for `select: consensus`."""

    measure: Literal["radgraph", "findings"] = "radgraph"
    """`radgraph`: RadGraph F1, as the headline score of `evaluate`; `findings`: F1 of CheXpert's findings that both
    reports state as present or uncertain, with their sides."""
    radgraph: str = "radgraph-xl"
    """RadGraph model of both measures, as in `evaluate`."""
    weights: Path | None = None
    """As in `evaluate`."""
    download: bool = False
    """As in `evaluate`."""


class RaySettings(Settings):
    """Generation on many machines, as a Ray Data pipeline (extra `ray`)."""

    address: str | None = None
    """Address of a Ray cluster (`auto`, `ray://host:10001`); `local` for a temporary one on this machine; `None` for no
    Ray."""
    actors: PositiveInt = 1
    """Number of processes that hold the model."""
    cpus: Annotated[float, Field(gt=0)] = 1.0
    """CPUs of each actor."""
    gpus: Annotated[float, Field(ge=0)] = 0.0
    """GPUs of each actor; with 0.5, two actors share one."""


SplitName = Literal["train", "validate", "test"]
GeneratedBaseline = Literal["shuffled", "blank", "no_adapter", "nearest", "no_prior", "shuffled_prior"]
"""Baselines that `generate` can make."""


class GenerateSettings(CommandSettings):
    """Generate reports for studies, with or without an adapter."""

    input: Path
    """Output folder of `ingest`, a folder of DICOM, or one DICOM file."""
    output: Path
    """Output folder for the predictions; new, or of an interrupted run with the same settings."""
    checkpoint: CheckpointSettings | None = None
    """`None` for the base model of the adapter."""
    adapter: Path | None = None
    """Adapter folder of `train`; `None` for the base model alone."""
    prompt: PromptSettings | None = None
    """`None` for that of the adapter, or the defaults without an adapter."""
    pseudonymize: Path | None = None
    """As in `ingest`, for a folder of DICOM or one file; ignored for an ingest folder."""
    pseudonym_version: Literal[1, 2] = 2
    """As in `ingest`."""
    split: SplitName | None = "test"
    """Split of the ingest folder; `None` for all. Ignored for a folder of DICOM."""
    baseline: Literal["none"] | GeneratedBaseline = "none"
    """Baseline for evaluation. `shuffled`: another patient's image for every study; `blank`: a black image;
    `no_adapter`: the model before fine-tuning; `nearest`: the report of the most similar training image, by the
    features of that model; `no_prior`: the prior study is not shown; `shuffled_prior`: that of another patient."""
    prompts: tuple[str, ...] = ()
    """Prompts for the mix checkpoints (`caption en`, `detect effusion`; see `inference.mix_prompts`) instead of the
    report prompt; each image gets a prediction for each prompt."""
    draw_boxes: bool = False
    """Write a PNG for every answer with boxes, into `boxes` of the output folder."""
    engine: Literal["torch", "openvino", "transformers"] = "torch"
    """`openvino`: on a CPU, converted once per checkpoint and adapter (extra `openvino`). `transformers`: any
    image-text-to-text model that transformers loads, through its own processor and chat template, greedily."""
    prompt_template: Path | None = None
    """Prompt file of `engine: transformers` (`inference.chat.template.ChatTemplate`); `configs/prompts/` has those of
    public models."""
    quantize: Literal["none", "int8"] = "none"
    """`int8`: weights in 8 bits, with `engine: openvino` only. On CUDA, use `checkpoint.precision: nf4`."""
    converted: Path | None = None
    """Folder for converted models; `None` for `~/.cache/cxrreport`."""
    ray: RaySettings = RaySettings()
    """Distribution over machines, which must have input, checkpoint and adapter under the same paths. Only this process
    writes into `output`."""
    decoding: Decoding = Greedy()
    """Decoding method and its options; with `samples`, sampling at temperature 1 by default."""
    samples: PositiveInt = 1
    """Reports sampled for each study, of which one is kept. Images and prompt are read once for all."""
    select: Literal["consensus", "likelihood"] = "consensus"
    """The sample that is kept. `consensus`: the one with the highest mean agreement with the others (minimum Bayes
    risk); `likelihood`: the one with the highest mean log-probability per token."""
    consensus: ConsensusSettings = ConsensusSettings()
    """Agreement of two samples."""
    abstain_below: float | None = None
    """Mark predictions whose confidence is lower; `None` for no marks."""
    abstain_by: Literal["logprob", "agreement"] = "logprob"
    """The confidence: `logprob`, the mean natural-log probability per token, at most 0; `agreement`, the mean agreement
    of the kept sample with the others, from 0 to 1."""
    batch_size: PositiveInt | Literal["auto"] = "auto"
    """Texts generated together, fewer if memory is short. `auto`: 8 on a CPU, on a GPU as many as its memory holds."""
    max_new_tokens: PositiveInt = 256
    """Maximum report length in tokens, including EOS."""
    shard_size: PositiveInt = 64
    """Studies per shard; shards that were not complete are repeated after an interruption."""
    shard: Shard | None = None
    """`i/n`: process only the i-th of n parts, for job arrays. Afterwards, the same settings without it collect the
    parts."""
    devices: PositiveInt | Literal["auto"] = "auto"
    """Processes on this machine, each with a GPU and a part of the studies; `auto`: one for each GPU."""
    workers: PositiveInt = 1
    """Processes that read a folder of DICOM."""
    update: bool = False
    """Take in files that were added to a folder of DICOM after it was finished. Reports of unchanged studies stay."""
    max_failures: Annotated[int, Field(ge=0)] | None = None
    """Stop with an error when more studies and files than this could not be read; `None` to go on."""
    limit: PositiveInt | None = None
    """Process only the first studies, by id."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Random seed of `baseline: shuffled` and of sampling."""

    @model_validator(mode="before")
    @classmethod
    def _samples_are_sampled(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("samples", 1) != 1 and not values.get("decoding"):
            return values | {"decoding": Sampling()}
        return values

    @model_validator(mode="after")
    def _samples_fit(self) -> Self:
        if self.samples > 1:
            if not isinstance(self.decoding, Sampling):
                raise ValueError(f"samples: {self.samples} needs decoding.method: sample")
            if self.prompts or self.baseline == "nearest":
                raise ValueError("samples selects one report of a study; remove prompts and baseline: nearest")
        if self.abstain_below is not None:
            if self.abstain_by == "agreement" and (self.samples == 1 or self.select != "consensus"):
                raise ValueError("abstain_by: agreement needs samples of at least 2 and select: consensus")
            if self.abstain_by == "logprob" and self.abstain_below > 0:
                raise ValueError("abstain_below is a log-probability and at most 0, unless abstain_by is agreement")
        return self

    @model_validator(mode="after")
    def _engine_can(self) -> Self:
        if self.tracking.traces and (self.shard or self.ray.address or self.baseline == "nearest"):
            raise ValueError("tracking.traces: not with shard, ray.address or baseline: nearest; remove it")
        if self.baseline == "nearest" and self.prompts:
            raise ValueError("baseline: nearest copies reports; remove prompts")
        if self.prompts and self.prompt is not None and self.prompt.several_inputs:
            raise ValueError("prompts are about one image; remove prompt.views and prompt.prior")
        if self.quantize != "none" and self.engine != "openvino":
            raise ValueError(f"quantize: {self.quantize} needs engine: openvino")
        if (self.engine == "transformers") != (self.prompt_template is not None):
            raise ValueError("engine: transformers and prompt_template belong together; set both or neither")
        if self.engine == "transformers":
            apart = {
                "checkpoint: null": self.checkpoint is None,
                "adapter": self.adapter is not None,
                "prompt": self.prompt is not None,
                "prompts": bool(self.prompts),
                f"baseline: {self.baseline}": self.baseline in ("no_adapter", "nearest"),
                f"decoding.method: {self.decoding.method}": not isinstance(self.decoding, Greedy),
                "ray": self.ray.address is not None,
            }
            if wrong := [name for name, given in apart.items() if given]:
                raise ValueError(f"engine: transformers does not work with {', '.join(wrong)}")
        if self.engine == "openvino" and isinstance(self.decoding, Beam):
            raise ValueError("engine: openvino decodes greedily or by sampling; use engine: torch for beam search")
        return self


class ExportSettings(CommandSettings):
    """Export predictions as DICOM Structured Reports and FHIR resources."""

    predictions: Path
    """Output folder of `generate`."""
    output: Path
    """Output folder for the documents; new, or of an interrupted run with the same settings."""
    formats: Annotated[tuple[Literal["sr", "sc", "fhir", "imr", "rexrank"], ...], EachOnce] = ("sr", "fhir")
    """`sr`: DICOM Structured Report (extra `sr`); `sc`: Secondary Capture of the image with the report in its pixels;
    `fhir`: R4B DiagnosticReport; `imr`: transaction of IHE's Interactive Multimedia Report (both extra `fhir`);
    `rexrank`: one JSON file of all references and predictions, as ReXrank's leaderboard expects."""
    data: Path | None = None
    """Output folder of `ingest` for the predictions; `None` for the input of `generate`."""
    sources: Path | None = None
    """Folder of the DICOM files; `None` for the input of `ingest`."""
    language: Annotated[str, Field(pattern=r"^[A-Za-z]{2,3}(-[A-Za-z0-9]+)*$")] = "en"
    """Language of the reports, as an RFC 5646 tag."""
