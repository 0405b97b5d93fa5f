"""One of several processes: trains with each of the given settings, and reports what is sharded.

Started by `torchrun` or `accelerate launch`, see `test_distributed.py`: `several.py OUT SETTINGS...`, each a JSON of
`TrainSettings`.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch.distributed as dist
from conftest import MemoryManifest, Reports
from torch.distributed.tensor import DTensor

from cxrreport.settings import TrainSettings
from cxrreport.training import finetune


class StoppedError(Exception):
    """In all processes at once; for the folder it is a kill."""


fit = finetune.fit


def watched(run: finetune.Run) -> str:
    """Record how many of its parameters this process holds, before and after training."""
    before = held(run.loaded.model)

    def progress(done: int, total: int, label: str) -> None:
        if (done, label) == (12, "training") and run.folder.name == "stopped" and not run.resumed_at:
            raise StoppedError

    stopped = fit(dataclasses.replace(run, progress=progress))
    facts = {"logged": len(logged), "resumed_at": run.resumed_at, "written": run.validate.written}
    found.append({"before": before, "after": held(run.loaded.model)} | facts)
    return stopped


def held(model: Any) -> dict[str, int]:
    parameters = list(model.parameters())
    local = [p.to_local() if isinstance(p, DTensor) else p for p in parameters]
    return {
        "tensors": len(parameters),
        "sharded": sum(isinstance(p, DTensor) for p in parameters),
        "numbers": sum(p.numel() for p in parameters),
        "here": sum(p.numel() for p in local),
    }


found: list[dict[str, Any]] = []
logged: list[int] = []

if __name__ == "__main__":
    finetune.fit = watched
    dist.init_process_group("gloo")
    for given in sys.argv[2:]:
        settings = TrainSettings.model_validate_json(Path(given).read_text())
        with suppress(StoppedError):
            finetune.train(
                settings,
                MemoryManifest(),
                log=lambda values, step: logged.append(step),
                progress=lambda *_: None,
                validate=Reports(),
            )
    dist.destroy_process_group()
    Path(sys.argv[1], f"found-{os.environ['RANK']}.json").write_text(json.dumps(found))
