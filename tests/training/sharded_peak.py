"""One of several processes that load a checkpoint in shards and gather its weights: the memory of both.

Started by `torchrun`: `sharded_peak.py CHECKPOINT OUT`.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist

from cxrreport.model.adapters import paligemma
from cxrreport.model.checkpoints.sharded import load_without_weights, read_shards, without_memory
from cxrreport.settings import CheckpointSettings
from cxrreport.training.checkpointing import trained_weights
from cxrreport.training.distributed import ProcessGroup, shard


def memory() -> float:
    """MB that this process allocated; pages of files, which the system can take back, are not among them."""
    return int(Path("/proc/self/status").read_text().split("RssAnon:")[1].split()[0]) / 1024


@contextmanager
def peak(into: dict[str, float], name: str) -> Iterator[None]:
    """Largest increase of `memory` within the block, in samples every two milliseconds."""
    before, ended = memory(), threading.Event()
    into[name] = 0.0

    def watch() -> None:
        while not ended.is_set():
            into[name] = max(into[name], memory() - before)
            time.sleep(0.002)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


if __name__ == "__main__":
    dist.init_process_group("gloo")
    processes = ProcessGroup(dist.get_rank(), dist.get_world_size(), sharded=True)
    settings = CheckpointSettings(name=sys.argv[1], precision="float32", device="cpu")
    found: dict[str, float] = {}
    with peak(found, "loading"):
        loaded = load_without_weights(settings, resolution=224)
        loaded.model.requires_grad_(True)
        without_memory(loaded.model)
        shard(loaded.model, paligemma(loaded.model).language_model, torch.device("cpu"))
        read_shards(loaded.model, settings)
    found["loaded_mb"] = sum(p.to_local().nbytes for p in loaded.model.parameters()) / 2**20
    with peak(found, "gathering"):
        weights = trained_weights(loaded.model, processes)
    found["gathered_mb"] = sum(weight.nbytes for weight in weights.values()) / 2**20
    Path(sys.argv[2], f"peak-{os.environ['RANK']}.json").write_text(json.dumps(found))
    dist.destroy_process_group()
