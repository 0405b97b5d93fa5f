"""Resource estimate of a training run: parameters, memory by part, operations, time and cost.

Nothing is allocated. A model of the same shape with two layers is built on torch's meta device and runs the training
step there, with the same code as training. Its allocations and operations are counted and multiplied by the number of
layers. A change of the training step therefore changes the estimate.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch

from cxrreport.errors import SettingsError
from cxrreport.model import adapters, attention, checkpoints
from cxrreport.model.adapters import paligemma
from cxrreport.model.catalogue import CHECKPOINTS
from cxrreport.model.compat import SiglipEncoderLayer, model_without_weights
from cxrreport.model.fused import fused
from cxrreport.settings import CheckpointSettings, PlanSettings
from cxrreport.training.forward import row_losses
from cxrreport.training.planning.counting import FlashAttention, counted
from cxrreport.training.planning.gpus import GPUS, Gpu

NF4_BYTES = 0.516
"""Bytes per weight: 4 bits, and 0.127 bits for its quantised scale (arXiv 2305.14314, section 3)."""
RUNTIME_BYTES = {"cuda": 640 * 2**20, "cpu": 75 * 2**20}
"""Memory of the libraries: CUDA's context and workspaces, or on a CPU threads and code that is loaded on first use."""
WORD_BYTES = {"cuda": 0, "cpu": 260}
"""Memory of the tokenizer per row of the embedding table: 66 MB for 257,216 rows."""
FRAGMENTATION = {"cuda": 0.05, "cpu": 0.3}
"""Unusable memory between blocks, as a fraction of activations. torch's allocator reuses blocks on a GPU; on a CPU, the
C library keeps those below 32 MB, as small models have them."""
MARGIN = 1.1
"""Factor on the peak for the decision whether it fits."""
_PAPER = {"paligemma2-3b-pt-896": 28.8, "paligemma2-10b-pt-896": 29.5}
"""RadGraph F1, in order of preference: the larger model gains little and costs 3.7 times as much."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """Resources of one configuration; memory in bytes, operations in multiplications and additions.

    Args:
        tokens: tokens of one example: images, prefix and suffix.
        parameters: number of parameters of the model.
        trained: number of trained parameters, including those of the adapter.
        adapted: number of linear layers with LoRA.
        memory: bytes by part; their sum is the peak.
        flops: operations of one example by part, including recomputation.
    """

    checkpoint: str
    method: str
    resolution: int
    tokens: int
    parameters: int
    trained: int
    adapted: int
    memory: dict[str, int]
    flops: dict[str, float]

    @property
    def peak(self) -> int:
        """Peak memory in bytes."""
        return sum(self.memory.values())

    @property
    def operations(self) -> float:
        """Operations of one example in one training step."""
        return sum(self.flops.values())

    def described(self) -> dict[str, str]:
        """Rows of a table."""
        rows = {
            "parameters": f"{self.parameters / 1e9:.2f} billion",
            "trained": f"{self.trained / 1e6:.1f} million, {self.method}",
            "tokens of an example": f"{self.tokens:,}",
        }
        rows |= {name: f"{size / 2**30:.2f} GiB" for name, size in self.memory.items()}
        rows |= {"peak": f"{self.peak / 2**30:.1f} GiB"}
        return rows | {f"{name}, an example": f"{number / 1e12:.1f} TFLOP" for name, number in self.flops.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """One configuration on one GPU.

    Args:
        fits: the peak with a margin of 10% is within the GPU's memory.
        seconds: time of one example.
        hours: time of the run: all its epochs.
        cost: cost of the run in US dollars.
    """

    need: Need
    gpu: Gpu
    fits: bool
    seconds: float
    hours: float
    cost: float

    def described(self) -> dict[str, str]:
        """Columns of a table."""
        return {
            "GiB": f"{self.need.peak / 2**30:.1f}",
            "s each": f"{self.seconds:.3f}",
            "hours": f"{self.hours:,.1f}",
            "$": f"{self.cost:,.0f}",
        }

    def as_dict(self) -> dict[str, Any]:
        """All fields as JSON values, with peak and total operations."""
        sums = {"peak": self.need.peak, "operations": self.need.operations}
        values = asdict(self)
        values["need"] |= sums
        return values


def plan(settings: PlanSettings) -> list[Offer]:
    """Estimate a configuration on every GPU of the table, or all checkpoints on one GPU.

    Args:
        settings: without a checkpoint, all nine pre-trained ones are estimated; without a GPU, all GPUs.

    Raises:
        SettingsError: the GPU is not in the table.
        WeightsError: the checkpoint's configuration cannot be read.
    """
    names, gpus = chosen(settings)
    return [_offer(one, gpu, settings) for one in (need(settings, name) for name in names) for gpu in gpus]


def chosen(settings: PlanSettings) -> tuple[list[str], tuple[Gpu, ...]]:
    """The checkpoints and the GPUs that are estimated.

    Raises:
        SettingsError: the GPU is not in the table.
    """
    by_name = {gpu.name.lower(): gpu for gpu in GPUS}
    if settings.gpu is not None and settings.gpu.lower() not in by_name:
        raise SettingsError(f"gpu: '{settings.gpu}' is not known; known are {', '.join(gpu.name for gpu in GPUS)}")
    gpus = GPUS if settings.gpu is None else (by_name[settings.gpu.lower()],)
    if settings.checkpoint is not None:
        return [settings.checkpoint], gpus
    return [name for name, entry in CHECKPOINTS.items() if entry.stage == "pt" and not entry.synthetic], gpus


def answer(settings: PlanSettings, offers: list[Offer]) -> str:
    """A recommendation from the offers, in a few lines."""
    fitting = [one for one in offers if one.fits]
    if not fitting:
        smallest = min(offers, key=lambda one: one.need.peak)
        return (
            f"Nothing fits; the smallest needs {smallest.need.peak / 2**30:.1f} GiB. To use less memory: qlora, batch "
            "size 1, gradient checkpointing, a lower resolution, or several GPUs with sharding: full."
        )
    epoch = (
        f"The run is {settings.epochs:g} x {settings.examples:,} examples at {settings.utilisation:.0%} of the GPU's "
        "peak, which is an assumption; measure yours with benchmarks/gpu.py."
    )
    if settings.checkpoint is not None:
        smallest = min(fitting, key=lambda one: one.gpu.memory)
        cheapest = min(fitting, key=lambda one: one.cost)
        fastest = min(fitting, key=lambda one: one.seconds)
        choice = (
            f"Smallest GPU that fits: {smallest.gpu.name}. Cheapest: {cheapest.gpu.name}, ${cheapest.cost:,.0f}. "
            f"Fastest: {fastest.gpu.name}, {fastest.hours:,.1f} hours."
        )
    else:
        sizes = {one.need.checkpoint for one in fitting}
        best = next((name for name in _PAPER if name in sizes), None)
        choice = (
            "RadGraph F1 on MIMIC-CXR in the paper (arXiv 2412.03555, table 8), full fine-tuning: "
            + "; ".join(f"{name} {score}" for name, score in _PAPER.items())
            + (f". Of those that fit, use {best}." if best else ". Neither fits; use the highest resolution that does.")
        )
    return f"{epoch}\n{choice}"


def _offer(one: Need, gpu: Gpu, settings: PlanSettings) -> Offer:
    seconds = one.operations / (gpu.flops * settings.utilisation)
    hours = seconds * settings.examples * settings.epochs / 3600
    price = gpu.price if settings.price is None else settings.price
    fits = MARGIN * one.peak <= gpu.memory
    return Offer(need=one, gpu=gpu, fits=fits, seconds=seconds, hours=hours, cost=hours * price)


def need(settings: PlanSettings, checkpoint: str, device: str = "cuda") -> Need:
    """Estimate the resources of one checkpoint.

    Args:
        settings: method, batch, precision and lengths.
        checkpoint: a known name, a hub id or a folder.
        device: `cuda` or `cpu`.

    Raises:
        WeightsError: the checkpoint's configuration cannot be read.
    """
    config, resolution = checkpoints.architecture(CheckpointSettings(name=checkpoint))
    resolution = settings.resolution or resolution
    attention.prepare_config(config, softcap=settings.softcap)
    layers, tower_layers = config.text_config.num_hidden_layers, config.vision_config.num_hidden_layers
    config.text_config.num_hidden_layers, config.vision_config.num_hidden_layers = 2, 1
    config.text_config.layer_types = ["full_attention"] * 2
    config.vision_config.image_size = resolution
    step = _Step(config, settings, resolution, layers, tower_layers, device)
    return Need(
        checkpoint=checkpoint,
        method=settings.method,
        resolution=resolution,
        tokens=step.tokens,
        parameters=step.parameters,
        trained=step.trained,
        adapted=step.adapted,
        memory=step.memory(),
        flops=step.flops(),
    )


class _Step:
    """The counts of a training step with two layers, and the totals for all layers."""

    def __init__(
        self, config: Any, settings: PlanSettings, resolution: int, layers: int, tower_layers: int, device: str
    ) -> None:
        self.settings = settings
        self.layers, self.tower_layers = layers, tower_layers
        self.device = device
        self.dtype = torch.float32 if settings.precision == "float32" else torch.bfloat16
        # `prefix_sdpa` does so with narrow heads on a CPU.
        narrow = config.text_config.head_dim <= attention.NARROW_HEAD
        self.wide = device == "cpu" and self.dtype == torch.bfloat16 and narrow
        image_tokens = (resolution // config.vision_config.patch_size) ** 2
        self.prefix = settings.image_tokens(image_tokens) + settings.prefix_tokens
        self.tokens = self.prefix + settings.suffix_tokens
        with torch.device("meta"), default_dtype(self.dtype):
            model = model_without_weights(config, attention.implementation(softcap=settings.softcap))
            model.requires_grad_(settings.method == "full")
            self.base = {name: p.numel() for name, p in model.named_parameters()}
            self.adapted, self.adapter_numbers = 0, 0
            if settings.method != "full":
                before = {id(p) for p in model.parameters()}
                model, names = adapters.attach(model, settings.lora)
                model.to(self.dtype)  # as under autocast
                fresh = {name: p.numel() for name, p in model.named_parameters() if id(p) not in before}
                self.adapted = self._scaled(dict.fromkeys(names, 1))
                self.adapter_numbers = self._scaled(fresh)
            model.train()
            inner = paligemma(model)
            forms = fused(model, inner.language_model, softcap=settings.softcap, device=device)
            with FlashAttention(self.wide), forms:
                self._count(model, inner, image_tokens)

    def _scaled(self, numbers: dict[str, int]) -> int:
        """Sum over the whole model of numbers by name; only two of its layers and one of the tower are built."""
        total = 0
        for name, number in numbers.items():
            if ".layers." not in name:
                total += number
            elif "vision_tower" in name:
                total += number * self.tower_layers
            elif ".layers.0." in name:
                total += number * self.layers
        return total

    def _count(self, model: Any, inner: Any, image_tokens: int) -> None:
        batch, settings = self.settings.batch_size, self.settings
        text = model.config.text_config
        language = inner.language_model

        def tensor(*shape: int, grad: bool = True) -> torch.Tensor:
            return torch.empty(shape, dtype=self.dtype, requires_grad=grad)

        hidden = tensor(batch, self.tokens, text.hidden_size)
        rotary = tuple(tensor(batch, self.tokens, text.head_dim, grad=False) for _ in range(2))
        given: dict[str, Any] = {"position_embeddings": rotary}
        if settings.softcap:
            mask = tensor(batch, 1, self.tokens, self.tokens, grad=False)
        else:
            mask = attention.border_mask(torch.empty(batch, self.tokens, dtype=torch.int64), self.prefix)
            given |= {"prefix_length": self.prefix, "prefix_padded": batch > 1}
        self.mask_bytes = mask.nbytes
        given["attention_mask"] = mask
        self.middle, self.last = (counted(partial(one.forward, hidden, **given)) for one in language.layers)
        self.words = text.vocab_size
        rows = tensor(batch * settings.suffix_tokens, text.hidden_size)
        labels = torch.empty(len(rows), dtype=torch.int64)

        def head() -> torch.Tensor:
            output = model.get_output_embeddings()
            if not settings.softcap and settings.method != "full":
                with row_losses(output, labels):
                    losses: torch.Tensor = output(language.norm(rows))
                return losses.sum()
            loss: torch.Tensor = torch.nn.functional.cross_entropy(output(language.norm(rows)).float(), labels)
            return loss

        self.head = counted(head)
        tower = inner.vision_tower
        layer = next(module for module in tower.modules() if isinstance(module, SiglipEncoderLayer))
        self.tower_trains = any(p.requires_grad for p in tower.parameters())
        width = model.config.vision_config.hidden_size
        patches = tensor(batch * settings.images, image_tokens, width, grad=self.tower_trains)
        with torch.set_grad_enabled(self.tower_trains):
            self.tower = counted(partial(layer, patches, attention_mask=None))
        self.hidden_bytes = batch * self.tokens * text.hidden_size * self.dtype.itemsize
        self.feature_bytes = patches.numel() * self.dtype.itemsize
        self.pixel_bytes = batch * settings.images * 3 * (model.config.vision_config.image_size**2) * 4

    @property
    def parameters(self) -> int:
        return self._scaled(self.base)

    @property
    def trained(self) -> int:
        return self.adapter_numbers if self.settings.method != "full" else self.parameters

    def _weights(self) -> int:
        if self.settings.method == "full":
            # float32, and the copies in bfloat16 that autocast makes.
            return self.parameters * (4 if self.dtype == torch.float32 else 6)
        numbers = {name: self._scaled({name: number}) for name, number in self.base.items()}
        return linear_bytes(numbers, self.dtype.itemsize, four_bits=self.settings.method == "qlora")

    def memory(self) -> dict[str, int]:
        """Bytes by part at the peak."""
        checkpointing = self.settings.gradient_checkpointing
        middle, last, head = self.middle, self.last, self.head
        per_layer = self.hidden_bytes if checkpointing else middle.kept
        kept = self.hidden_bytes + (self.layers - 1) * per_layer + last.kept + self.feature_bytes + self.mask_bytes
        if self.tower_trains:
            kept += self.tower_layers * self.tower.kept
        logits = head.kept + max(head.forward_extra, head.backward_extra)
        recomputed = middle.kept - self.hidden_bytes if checkpointing else 0
        layers = max(
            middle.forward_extra + recomputed,
            middle.backward_extra + recomputed,
            self.tower.backward_extra if self.tower_trains else 0,
            self.pixel_bytes + self.tower.forward_extra - kept,  # before the language model has kept anything
        )
        # The C library keeps small blocks, also those of the step before.
        stays = max(middle.forward_extra, middle.backward_extra) + recomputed if self.device == "cpu" else 0
        extra = max(logits + stays, layers)
        unusable = int(FRAGMENTATION[self.device] * (kept + extra - logits))
        parts = {
            "weights": self._weights(),
            "adapters": 4 * self.adapter_numbers,
            "gradients": 4 * self.trained,
            "optimiser": 8 * self.trained,
            "activations": kept,
            "logits": logits,
            "workspace": extra - logits + unusable,
            "runtime": RUNTIME_BYTES[self.device] + WORD_BYTES[self.device] * self.words,
        }
        # The update needs a copy of the trained weights, after the activations have been freed.
        parts["workspace"] += max(0, 4 * self.trained - kept - extra)
        return parts

    def flops(self) -> dict[str, float]:
        """Operations of one example by part."""
        batch = self.settings.batch_size
        middle, last, head, tower = self.middle, self.last, self.head, self.tower
        parts = {
            "vision": self.tower_layers * (tower.forward + tower.backward),
            "forward": (self.layers - 1) * middle.forward + last.forward,
            "backward": (self.layers - 1) * middle.backward + last.backward,
            "head": head.forward + head.backward,
        }
        if self.settings.gradient_checkpointing:
            parts["recomputation"] = (self.layers - 1) * middle.forward
        return {name: value / batch for name, value in parts.items()}


def linear_bytes(numbers: Mapping[str, int], itemsize: int, *, four_bits: bool) -> int:
    """Bytes of the frozen weights of a model, from their numbers by name; `four_bits` for those that nf4 quantises."""
    total = sum(numbers.values())
    if not four_bits:
        return total * itemsize
    linear = (name for name in numbers if ".layers." in name and name.endswith("proj.weight"))
    quantised = sum(numbers[name] for name in linear if "language_model" in name)
    return int(quantised * NF4_BYTES) + (total - quantised) * itemsize


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Make new tensors of this type within the block."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
