"""Several processes that train one model, as `torchrun` and `accelerate launch` start them.

The first process locks the output folder, writes and reports. Either each process holds the whole model and gradients
are averaged (DDP), or every layer is split across the processes (`shard`).
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from cxrreport.errors import SettingsError
from cxrreport.model import checkpoints
from cxrreport.settings import CheckpointSettings, TrainSettings
from cxrreport.tracking import peak_memory_mb

T = TypeVar("T")
R = TypeVar("R")

_PATIENCE = timedelta(hours=2)
"""How long processes wait for the first one, which scores reports and writes checkpoints alone."""


@dataclass(frozen=True, slots=True)
class ProcessGroup:
    """The processes that train one model, as one of them sees them.

    Args:
        rank: number of the process; the first, 0, writes and reports.
        count: number of processes.
        sharded: True if each holds a part of every layer, so that all must run the same passes.
    """

    rank: int = 0
    count: int = 1
    sharded: bool = False

    @property
    def first(self) -> bool:
        """True for the process that writes and reports."""
        return self.rank == 0

    def on_first(self, work: Callable[[], R]) -> R:
        """Call `work` in the first process and return its result in all."""
        if self.count == 1:
            return work()
        box: list[Any] = [work() if self.first else None]
        dist.broadcast_object_list(box, src=0)
        result: R = box[0]
        return result

    def distribute(self, work: Callable[[Sequence[T]], Sequence[R]], items: Sequence[T]) -> list[R]:
        """Call `work` with a share of `items` in each process; return all results, in the order of `items`, in all.

        If the model is sharded, every process does all items, because no process can run a pass alone.
        """
        if self.count == 1 or self.sharded:
            return list(work(items))
        parts: list[Any] = [None] * self.count
        dist.all_gather_object(parts, list(work(items[self.rank :: self.count])))
        return [parts[place % self.count][place // self.count] for place in range(len(items))]

    def total(self, count: int) -> int:
        """The sum of a number over the processes, in all."""
        if self.count == 1:
            return count
        counts: list[Any] = [0] * self.count
        dist.all_gather_object(counts, count)
        return int(sum(counts))

    def mean(self, value: torch.Tensor) -> float:
        """The mean of a scalar over the processes, in all."""
        if self.count > 1:
            values = [torch.empty_like(value) for _ in range(self.count)]
            dist.all_gather(values, value)
            value = torch.stack(values).mean()
        return float(value)

    def wait(self) -> None:
        """Wait until all processes have come here."""
        if self.count > 1:
            dist.barrier()


@contextmanager
def join(settings: CheckpointSettings, *, sharded: bool) -> Iterator[ProcessGroup]:
    """Join the processes that `torchrun` or `accelerate launch` started together with this one.

    A process group that exists already is used and not destroyed, for programs that train more than once.

    Args:
        settings: device of the model; with CUDA, each process uses the GPU of its local rank.
        sharded: see `ProcessGroup`.

    Raises:
        SettingsError: CUDA is requested but not available.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield ProcessGroup(sharded=sharded)
        return
    device = checkpoints.choose_device(settings.device)
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    own = not dist.is_initialized()
    if own:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_PATIENCE)
    yield ProcessGroup(dist.get_rank(), count, sharded)
    if own:  # not after an error: destroying a group waits for the others, which wait for this process
        dist.destroy_process_group()


def shard(model: Any, language: Any, device: torch.device) -> None:
    """Split every parameter across the processes (FSDP2), one layer of the language model at a time.

    Args:
        model: in main memory, with or without LoRA; its parts move to `device`.
        language: the language model of `model`.
        device: of this process.
    """
    mesh = dist.device_mesh.init_device_mesh(device.type, (dist.get_world_size(),))
    for layer in language.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    # Validation calls it without the model's forward pass.
    register_fsdp_forward_method(model, "get_image_features")


@contextmanager
def quiet_sharding() -> Iterator[None]:
    """Suppress a warning about outputs of a sharded model that are views; nothing here writes into them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
        yield


def gathered(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor that may be sharded as a whole tensor in main memory. Must be called in all processes."""
    full: torch.Tensor = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return full.detach().cpu().contiguous()


def placed_like(tensor: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """`tensor`, equal in all processes, on the device of `target` and sharded as `target` is."""
    tensor = tensor.to(target.device)
    return distribute_tensor(tensor, target.device_mesh, target.placements) if isinstance(target, DTensor) else tensor


def check_processes(settings: TrainSettings, processes: ProcessGroup) -> None:
    """Check the number of processes.

    Raises:
        SettingsError: it does not fit `accumulation` or `sharding`.
    """
    if settings.accumulation % processes.count:
        raise SettingsError(
            f"accumulation: {settings.accumulation} forward passes cannot be shared by {processes.count} processes; "
            "use a multiple of their number, or another number of processes"
        )
    if processes.sharded and processes.count == 1:
        raise SettingsError(
            "sharding: full needs several processes (torchrun --nproc-per-node N -m cxrreport train ...), "
            "or use sharding: none"
        )


def peak_memory(device: torch.device) -> int:
    """Peak allocation on a GPU, or peak resident size of this process, in bytes."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return round(peak_memory_mb(children=False) * 2**20)
