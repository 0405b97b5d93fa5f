"""Resource estimate of a generation: memory, texts at once, studies per hour, time, cost and disk for an archive.

Reading a prompt is bound by arithmetic, so its time follows from operations, counted as in `estimate`. A step of
decoding is bound by memory: it reads all weights once, and the keys and values of every text. On a GPU it also takes
the time to launch its operations.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch

from cxrreport.model import attention, capacity, checkpoints
from cxrreport.model.adapters import paligemma
from cxrreport.model.compat import SiglipEncoderLayer, model_without_weights
from cxrreport.model.fused import fused
from cxrreport.settings import CheckpointSettings, PlanSettings
from cxrreport.training.planning.counting import FlashAttention, counted
from cxrreport.training.planning.estimate import (
    FRAGMENTATION,
    MARGIN,
    RUNTIME_BYTES,
    WORD_BYTES,
    chosen,
    default_dtype,
    linear_bytes,
)
from cxrreport.training.planning.gpus import Gpu

LAUNCHES = 26
"""Operations of a layer and step of decoding (`tests/model/test_gpu_layers.py`)."""
LAUNCH_SECONDS = 4e-6
"""Time to launch one. From experience, not measured here."""
BANDWIDTH_SHARE = 0.7
"""Share of the memory bandwidth of the data sheet that decoding reaches. From experience, not measured here."""
IMAGE_BYTES = 0.75
"""Bytes of a pixel in the image store: PNG at its lowest level, for radiographs of 8 bits."""
TEXT_BYTES = 4096
"""Bytes of a study in shards, tables and manifest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationNeed:
    """Resources of generation with one checkpoint on one device.

    Args:
        tokens: positions of a prompt: images and prefix.
        batch: texts generated together.
        memory: bytes by part; their sum is the peak.
        prompt_flops: operations of reading one prompt, with its images.
        step_bytes: bytes that a step of decoding reads.
        layers: of the language model.
        disk: bytes of the images and texts of a study.
    """

    checkpoint: str
    resolution: int
    tokens: int
    parameters: int
    batch: int
    memory: dict[str, int]
    prompt_flops: float
    step_bytes: int
    layers: int
    disk: int

    @property
    def peak(self) -> int:
        """Peak memory in bytes."""
        return sum(self.memory.values())

    def described(self) -> dict[str, str]:
        """Rows of a table."""
        rows = {"parameters": f"{self.parameters / 1e9:.2f} billion", "tokens of a prompt": f"{self.tokens:,}"}
        rows |= {"texts at once": f"{self.batch}"}
        rows |= {name: f"{size / 2**30:.2f} GiB" for name, size in self.memory.items()}
        rows |= {"peak": f"{self.peak / 2**30:.1f} GiB", "disk, a study": f"{self.disk / 1e6:.2f} MB"}
        return rows | {"reading a prompt": f"{self.prompt_flops / 1e12:.1f} TFLOP"}


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationOffer:
    """Generation on one GPU.

    Args:
        fits: weights and at least one text fit with a margin of 10%.
        studies_per_hour: of one GPU.
        hours: time of the archive on one GPU.
        cost: cost of the archive in US dollars.
        disk: bytes of the archive's images and texts.
    """

    need: GenerationNeed
    gpu: Gpu
    fits: bool
    studies_per_hour: float
    hours: float
    cost: float
    disk: int

    def described(self) -> dict[str, str]:
        """Columns of a table."""
        return {
            "GiB": f"{self.need.peak / 2**30:.1f}",
            "at once": str(self.need.batch),
            "studies/h": f"{self.studies_per_hour:,.0f}",
            "hours": f"{self.hours:,.1f}",
            "$": f"{self.cost:,.0f}",
        }

    def as_dict(self) -> dict[str, Any]:
        """All fields as JSON values, with the peak."""
        values = asdict(self)
        values["need"]["peak"] = self.need.peak
        return values


def plan_generation(settings: PlanSettings) -> list[GenerationOffer]:
    """Estimate the generation of an archive on every GPU of the table, or with all checkpoints on one GPU.

    Raises:
        SettingsError: the GPU is not in the table.
        WeightsError: the checkpoint's configuration cannot be read.
    """
    names, gpus = chosen(settings)
    models = [_Reading(settings, name, "cuda") for name in names]
    return [_offer(model, gpu, settings) for model in models for gpu in gpus]


def generation_need(settings: PlanSettings, checkpoint: str, *, memory: int, device: str, batch: int) -> GenerationNeed:
    """Estimate generation with a given batch.

    Args:
        settings: precision and lengths.
        checkpoint: a known name, a hub id or a folder.
        memory: bytes of the device.
        device: `cuda` or `cpu`.
        batch: most texts generated together.

    Raises:
        WeightsError: the checkpoint's configuration cannot be read.
    """
    return _Reading(settings, checkpoint, device).need(memory, batch)


def answer_generation(settings: PlanSettings, offers: list[GenerationOffer]) -> str:
    """A recommendation from the offers, in a few lines."""
    fitting = [one for one in offers if one.fits]
    if not fitting:
        smallest = min(offers, key=lambda one: one.need.peak)
        return f"Nothing fits; the smallest needs {smallest.need.peak / 2**30:.1f} GiB. Use a lower resolution or nf4."
    cheapest, fastest = min(fitting, key=lambda one: one.cost), max(fitting, key=lambda one: one.studies_per_hour)
    return (
        f"The archive is {settings.studies:,} studies with reports of {settings.suffix_tokens} tokens; its images and "
        f"texts take {cheapest.disk / 1e9:,.0f} GB. Shares of peak and bandwidth are assumptions; measure yours with "
        f"benchmarks/gpu.py.\nCheapest: {cheapest.need.checkpoint} on {cheapest.gpu.name}, ${cheapest.cost:,.0f}. "
        f"Fastest: {fastest.need.checkpoint} on {fastest.gpu.name}, {fastest.hours:,.1f} hours; divide by the number "
        "of GPUs (devices: auto, or --shard)."
    )


def _offer(model: _Reading, gpu: Gpu, settings: PlanSettings) -> GenerationOffer:
    need = model.need(gpu.memory, capacity.MOST_TEXTS["cuda"])
    step = max(need.step_bytes / (BANDWIDTH_SHARE * gpu.bandwidth), need.layers * LAUNCHES * LAUNCH_SECONDS)
    seconds = need.prompt_flops / (settings.utilisation * gpu.flops) + settings.suffix_tokens * step / need.batch
    hours = settings.studies * seconds / 3600
    return GenerationOffer(
        need=need,
        gpu=gpu,
        fits=MARGIN * need.peak <= gpu.memory,
        studies_per_hour=3600 / seconds,
        hours=hours,
        cost=hours * (gpu.price if settings.price is None else settings.price),
        disk=settings.studies * need.disk,
    )


class _Reading:
    """Counts of reading one prompt with two layers, for all layers."""

    def __init__(self, settings: PlanSettings, checkpoint: str, device: str) -> None:
        config, resolution = checkpoints.architecture(CheckpointSettings(name=checkpoint))
        resolution = settings.resolution or resolution
        # Its logits are capped one by one on a GPU, which takes no memory; on a CPU it would take that of training.
        attention.prepare_config(config, softcap=False)
        text, vision = config.text_config, config.vision_config
        self.settings, self.checkpoint, self.resolution, self.device = settings, checkpoint, resolution, device
        self.layers, tower_layers = text.num_hidden_layers, vision.num_hidden_layers
        self.dtype = torch.float32 if settings.precision == "float32" else torch.bfloat16
        image_tokens = (resolution // vision.patch_size) ** 2
        self.tokens = settings.image_tokens(image_tokens) + settings.prefix_tokens
        self.slot = capacity.slot_bytes(
            text, capacity.positions(self.tokens + settings.suffix_tokens, device), self.dtype.itemsize
        )
        self.words, self.width = text.vocab_size, text.hidden_size
        self.together = max(1, capacity.READ_AT_ONCE[device] // self.tokens)
        text.num_hidden_layers, vision.num_hidden_layers, vision.image_size = 2, 1, resolution
        text.layer_types = ["full_attention"] * 2
        with torch.device("meta"), default_dtype(self.dtype), torch.no_grad():
            model = model_without_weights(config, attention.implementation(softcap=False))
            base = {name: p.numel() for name, p in model.named_parameters()}
            inner = paligemma(model.eval())
            language, tower = inner.language_model, inner.vision_tower
            narrow = device == "cpu" and self.dtype == torch.bfloat16 and text.head_dim <= attention.NARROW_HEAD
            hidden = torch.empty(self.together, self.tokens, self.width)
            rotary = tuple(torch.empty(self.together, self.tokens, text.head_dim) for _ in range(2))
            mask = torch.empty(self.together, 1, 1, self.tokens, dtype=torch.bool)
            given: dict[str, Any] = {"position_embeddings": rotary, "attention_mask": mask}
            given |= {"prefix_length": self.tokens, "prefix_padded": False}
            with FlashAttention(narrow), fused(model, language, softcap=False, device=device):
                middle, last = (counted(partial(one.forward, hidden, **given)) for one in language.layers)
                block = next(module for module in tower.modules() if isinstance(module, SiglipEncoderLayer))
                images = self.together * settings.images
                patches = torch.empty(images, image_tokens, vision.hidden_size)
                seen = counted(partial(block, patches, attention_mask=None))
        scale = {"vision_tower": tower_layers, "language_model": self.layers}

        def whole(name: str, number: int) -> int:
            if ".layers." not in name:
                return number
            return number * next(count for part, count in scale.items() if part in name) if ".layers.0." in name else 0

        self.numbers = {name: whole(name, number) for name, number in base.items()}
        head = self.width * self.words * 2.0 * self.together
        flops = (self.layers - 1) * middle.forward + last.forward + tower_layers * seen.forward + head
        self.flops = flops / self.together
        pixels = 3 * resolution**2 * 4 * images
        reading = hidden.nbytes + max(middle.kept + middle.forward_extra, last.kept + last.forward_extra)
        self.workspace = max(reading, pixels + patches.nbytes + seen.kept + seen.forward_extra)

    def need(self, memory: int, most: int) -> GenerationNeed:
        device, parameters = self.device, sum(self.numbers.values())
        weights = linear_bytes(self.numbers, self.dtype.itemsize, four_bits=self.settings.method == "qlora")
        runtime = RUNTIME_BYTES[device] + WORD_BYTES[device] * self.words
        free = memory - weights - runtime
        batch = max(1, min(most, int(capacity.MEMORY_SHARE[device] * free / self.slot)))
        logits = 3 * 4 * self.words * max(batch, self.together)
        parts = {
            "weights": weights,
            "keys and values": batch * self.slot,
            "prompts": self.workspace + int(FRAGMENTATION[device] * self.workspace),
            "logits": logits,
            "runtime": runtime,
        }
        return GenerationNeed(
            checkpoint=self.checkpoint,
            resolution=self.resolution,
            tokens=self.tokens,
            parameters=parameters,
            batch=batch,
            memory=parts,
            prompt_flops=self.flops,
            step_bytes=weights + batch * self.slot,
            layers=self.layers,
            disk=int(self.settings.max_images * IMAGE_BYTES * self.resolution**2) + TEXT_BYTES,
        )
