"""What a training run needs, before anything is spent: parameters, memory by part, operations, time and money.

Nothing is allocated. A model of two layers of the same shape is built on torch's meta device, its training step runs
there in the very forms that training uses, and what it would allocate and multiply is counted; the rest is
multiplication by the number of layers. The counts therefore follow the code: a change of the step changes the plan.
"""

from __future__ import annotations

from collections.abc import Iterator
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
"""Of a weight in 4 bits with scales that are quantised themselves, 0.127 bits of them (arXiv 2305.14314, section 3)."""
RUNTIME_BYTES = {"cuda": 640 * 2**20, "cpu": 75 * 2**20}
"""What libraries take for themselves: CUDA's context and the workspaces of its products; on a CPU the threads, and the
code that is loaded when first used."""
WORD_BYTES = {"cuda": 0, "cpu": 260}
"""Of the tokenizer, for every row of the table: 66 MB for 257,216."""
FRAGMENTATION = {"cuda": 0.05, "cpu": 0.3}
"""Part of activations that lies between blocks in use and is of no use itself: small on a GPU, whose allocator of torch
reuses them; on a CPU the C library keeps blocks below 32 MB, which is what a small model has."""
MARGIN = 1.1
"""Of memory, for what fits."""
_PAPER = {"paligemma2-3b-pt-896": 28.8, "paligemma2-10b-pt-896": 29.5}
"""In the order in which to take them: the larger one's gain costs 3.7 times as much."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What one configuration needs; memory in bytes, operations in multiplications and additions.

    Args:
        tokens: of one example, images, prefix and suffix.
        parameters: of the whole model.
        trained: of them, or added to them, that are trained.
        adapted: linear layers with LoRA.
        memory: bytes by part; their sum is the peak.
        flops: of one example by part; recomputation included where there is any.
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
        """Bytes."""
        return sum(self.memory.values())

    @property
    def operations(self) -> float:
        """Of one example, in one step of training."""
        return sum(self.flops.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """One configuration on one card.

    Args:
        fits: the peak, and a tenth more, is within the card's memory.
        seconds: of one example.
        hours: of one epoch.
        cost: of one epoch, US dollars.
    """

    need: Need
    gpu: Gpu
    fits: bool
    seconds: float
    hours: float
    cost: float

    def as_dict(self) -> dict[str, Any]:
        """JSON values, the peak and the sum of operations among them."""
        sums = {"peak": self.need.peak, "operations": self.need.operations}
        values = asdict(self)
        values["need"] |= sums
        return values


def plan(settings: PlanSettings) -> list[Offer]:
    """One configuration on every card of the table (what do I need), or every size on one card (which do I take).

    Args:
        settings: without a checkpoint, all nine pre-trained ones are planned; without a GPU, all cards.

    Raises:
        SettingsError: a GPU that is not in the table.
        WeightsError: the checkpoint's configuration cannot be had.
    """
    by_name = {gpu.name.lower(): gpu for gpu in GPUS}
    if settings.gpu is not None and settings.gpu.lower() not in by_name:
        raise SettingsError(f"gpu: '{settings.gpu}' is not known; known are {', '.join(gpu.name for gpu in GPUS)}")
    gpus = GPUS if settings.gpu is None else (by_name[settings.gpu.lower()],)
    if settings.checkpoint is not None:
        names = [settings.checkpoint]
    else:
        names = [name for name, entry in CHECKPOINTS.items() if entry.stage == "pt" and not entry.synthetic]
    return [_offer(one, gpu, settings) for one in (need(settings, name) for name in names) for gpu in gpus]


def answer(settings: PlanSettings, offers: list[Offer]) -> str:
    """What to take of the offers, in a few lines."""
    fitting = [one for one in offers if one.fits]
    if not fitting:
        smallest = min(offers, key=lambda one: one.need.peak)
        return (
            f"Nothing fits; {smallest.need.peak / 2**30:.1f} GiB are the least. What needs less: qlora, a batch of 1, "
            "recomputed activations, a lower resolution, several GPUs with sharding: full."
        )
    epoch = (
        f"An epoch is {settings.examples:,} examples at {settings.utilisation:.0%} of the card's peak, an expectation "
        "until you have measured yours (benchmarks/gpu.py)."
    )
    if settings.checkpoint is not None:
        smallest = min(fitting, key=lambda one: one.gpu.memory)
        cheapest = min(fitting, key=lambda one: one.cost)
        quickest = min(fitting, key=lambda one: one.seconds)
        choice = (
            f"Smallest card that fits: {smallest.gpu.name}. Cheapest: {cheapest.gpu.name}, ${cheapest.cost:,.0f} an "
            f"epoch. Quickest: {quickest.gpu.name}, {quickest.hours:,.1f} hours."
        )
    else:
        sizes = {one.need.checkpoint for one in fitting}
        best = next((name for name in _PAPER if name in sizes), None)
        choice = (
            "RadGraph F1 on MIMIC-CXR in the paper (arXiv 2412.03555, table 8), all weights tuned: "
            + "; ".join(f"{name} {score}" for name, score in _PAPER.items())
            + (
                f". Of what fits, take {best}."
                if best
                else ". Neither fits here; take the highest resolution that does."
            )
        )
    return f"{epoch}\n{choice}"


def _offer(one: Need, gpu: Gpu, settings: PlanSettings) -> Offer:
    seconds = one.operations / (gpu.flops * settings.utilisation)
    hours = seconds * settings.examples / 3600
    price = gpu.price if settings.price is None else settings.price
    fits = MARGIN * one.peak <= gpu.memory
    return Offer(need=one, gpu=gpu, fits=fits, seconds=seconds, hours=hours, cost=hours * price)


def need(settings: PlanSettings, checkpoint: str, device: str = "cuda") -> Need:
    """Count what one checkpoint needs.

    Args:
        settings: method, batch, precision and lengths.
        checkpoint: a line of the table, a hub id or a folder.
        device: `cuda` or `cpu`.

    Raises:
        WeightsError: the checkpoint's configuration cannot be had.
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
    """The step of two layers, counted, and what follows for all of them."""

    def __init__(
        self, config: Any, settings: PlanSettings, resolution: int, layers: int, tower_layers: int, device: str
    ) -> None:
        self.settings = settings
        self.layers, self.tower_layers = layers, tower_layers
        self.device = device
        self.dtype = torch.float32 if settings.precision == "float32" else torch.bfloat16
        # As `prefix_sdpa` does with narrow heads on a CPU.
        narrow = config.text_config.head_dim <= attention.NARROW_HEAD
        self.wide = device == "cpu" and self.dtype == torch.bfloat16 and narrow
        image_tokens = (resolution // config.vision_config.patch_size) ** 2
        self.images = settings.max_images
        self.prefix = self.images * image_tokens + settings.prefix_tokens
        self.tokens = self.prefix + settings.suffix_tokens
        with torch.device("meta"), _default_dtype(self.dtype):
            model = model_without_weights(config, attention.implementation(softcap=settings.softcap))
            model.requires_grad_(settings.method == "full")
            self.base = {name: p.numel() for name, p in model.named_parameters()}
            self.adapted, self.adapter_numbers = 0, 0
            if settings.method != "full":
                before = {id(p) for p in model.parameters()}
                model, names = adapters.attach(model, settings.lora)
                model.to(self.dtype)  # as they are within autocast
                fresh = {name: p.numel() for name, p in model.named_parameters() if id(p) not in before}
                self.adapted = self._scaled(dict.fromkeys(names, 1))
                self.adapter_numbers = self._scaled(fresh)
            model.train()
            inner = paligemma(model)
            with FlashAttention(self.wide), fused(model, inner.language_model, softcap=settings.softcap):
                self._count(model, inner, image_tokens)

    def _scaled(self, numbers: dict[str, int]) -> int:
        """Sum over the parameters of the whole model. Only two of its layers and one of the tower's are built."""
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
        patches = tensor(batch * self.images, image_tokens, width, grad=self.tower_trains)
        with torch.set_grad_enabled(self.tower_trains):
            self.tower = counted(partial(layer, patches, attention_mask=None))
        self.hidden_bytes = batch * self.tokens * text.hidden_size * self.dtype.itemsize
        self.feature_bytes = patches.numel() * self.dtype.itemsize
        self.pixel_bytes = batch * self.images * 3 * (model.config.vision_config.image_size**2) * 4

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
        if self.settings.method == "lora":
            return self.parameters * self.dtype.itemsize
        linear = {name: n for name, n in self.base.items() if ".layers." in name and name.endswith("proj.weight")}
        quantised = self._scaled({name: n for name, n in linear.items() if "language_model" in name})
        return int(quantised * NF4_BYTES) + (self.parameters - quantised) * self.dtype.itemsize

    def memory(self) -> dict[str, int]:
        """Bytes by part, at the moment of the peak."""
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
        # What the C library has once given out in small blocks stays with the process: that of the step before, too.
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
        # The update itself needs a copy of what it changes, when no activations are there any more.
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


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
