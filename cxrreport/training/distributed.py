"""Several processes that train one model, as `torchrun` and `accelerate launch` start them.

The first one writes, locks the output folder and reports; all of them step through the run together. Either each holds
the whole model and gradients are averaged (DDP, which Trainer sets up), or every layer is cut into parts (`shard`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from cxrreport.model import checkpoints
from cxrreport.settings import CheckpointSettings

T = TypeVar("T")
R = TypeVar("R")

_PATIENCE = timedelta(hours=2)
"""For how long processes wait for the first one, which scores reports and writes checkpoints alone."""


@dataclass(frozen=True, slots=True)
class Processes:
    """One process among its likes.

    Args:
        rank: its number; the first one, 0, writes and reports.
        count: of them all.
        sharded: each holds a part of every layer, so that all must run the same passes.
    """

    rank: int = 0
    count: int = 1
    sharded: bool = False

    @property
    def first(self) -> bool:
        """True for the process that writes."""
        return self.rank == 0

    def once(self, work: Callable[[], R]) -> R:
        """Do `work` in the first process; what it returns, in all."""
        if self.count == 1:
            return work()
        box: list[Any] = [work() if self.first else None]
        dist.broadcast_object_list(box, src=0)
        result: R = box[0]
        return result

    def spread(self, work: Callable[[Sequence[T]], Sequence[R]], items: Sequence[T]) -> list[R]:
        """`work` over `items`, each process on its share of them; all results in the order of `items`, in all.

        Where the model is sharded every process does all items: no pass can be run by one of them alone.
        """
        if self.count == 1 or self.sharded:
            return list(work(items))
        parts: list[Any] = [None] * self.count
        dist.all_gather_object(parts, list(work(items[self.rank :: self.count])))
        return [parts[place % self.count][place // self.count] for place in range(len(items))]

    def wait(self) -> None:
        """Until all have come here."""
        if self.count > 1:
            dist.barrier()


@contextmanager
def joined(settings: CheckpointSettings, *, sharded: bool) -> Iterator[Processes]:
    """Join the processes that `torchrun` or `accelerate launch` started beside this one; alone without them.

    A process group that the caller has made is used and left as it is: a program that trains more than once makes one.

    Args:
        settings: on which device the model is to run; with CUDA each process takes the GPU of its number.
        sharded: see `Processes`.

    Raises:
        SettingsError: CUDA is asked for where there is none.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Processes(sharded=sharded)
        return
    device = checkpoints.choose_device(settings.device)
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    own = not dist.is_initialized()
    if own:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_PATIENCE)
    yield Processes(dist.get_rank(), count, sharded)
    if own:  # not after an error: leaving a group waits for the others, who wait for this one
        dist.destroy_process_group()


def shard(model: Any, language: Any, device: torch.device) -> None:
    """Cut every parameter into one part per process (FSDP2), a layer of the language model at a time.

    Args:
        model: in main memory, with or without LoRA; its parts move to `device`.
        language: its language model.
        device: of this process.
    """
    mesh = dist.device_mesh.init_device_mesh(device.type, (dist.get_world_size(),))
    for layer in language.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    # Called by itself when reports are generated for validation.
    register_fsdp_forward_method(model, "get_image_features")


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """The whole of a tensor that may be sharded, in main memory; all processes have to call this."""
    full: torch.Tensor = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return full.detach().cpu().contiguous()


def like(tensor: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """`tensor`, the same in all processes, on the device of `target` and sharded where that is."""
    tensor = tensor.to(target.device)
    return distribute_tensor(tensor, target.device_mesh, target.placements) if isinstance(target, DTensor) else tensor
