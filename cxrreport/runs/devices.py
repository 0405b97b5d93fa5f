"""`generate` on all GPUs of a machine: one process for each, as the jobs of an array, which this process collects."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from pathlib import Path

from cxrreport.child_processes import module_command, module_environment
from cxrreport.errors import InferenceError
from cxrreport.records import Progress
from cxrreport.settings import GenerateSettings
from cxrreport.storage.job_arrays import part_folder
from cxrreport.storage.output_folder import read_state
from cxrreport.storage.run_progress import read_progress

_LABEL = "studies"


def generate_on_devices(settings: GenerateSettings, progress: Progress) -> None:
    """Run the jobs of an array on all devices, and wait for them; nothing is done if there is one device.

    Args:
        settings: of the whole generation. The run without `shard` that follows takes the parts over.
        progress: reports the studies of all processes.

    Raises:
        InferenceError: a process failed; what all have written is kept.
    """
    count = _count(settings)
    state = read_state(settings.output, "generate") if settings.output.is_dir() else None
    if count < 2 or (state is not None and state.get("finished") and not settings.update):
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "generate.yaml"
        values = settings.model_dump(mode="json") | {"devices": 1, "tracking": {"enabled": False}}
        file.write_text(json.dumps(values), encoding="utf-8")
        shards = [f"{number}/{count}" for number in range(1, count + 1)]
        logs = [Path(folder) / f"{number}.log" for number in range(count)]
        jobs = []
        try:
            for number, shard in enumerate(shards):
                with logs[number].open("w") as output:
                    command = module_command("cxrreport", "generate", str(file), "--shard", shard)
                    environment = module_environment({"CUDA_VISIBLE_DEVICES": _visible(number)})
                    jobs.append(subprocess.Popen(command, stdout=output, stderr=output, env=environment))
            while any(job.poll() is None for job in jobs) and not any(job.poll() for job in jobs):
                _report(settings, shards, progress)
                time.sleep(0.5)
        finally:
            for job in jobs:
                if job.poll() is None:
                    job.terminate()
            for job in jobs:
                job.wait()
        for shard, job, log in zip(shards, jobs, logs, strict=True):
            if job.returncode > 0:
                said = [line for line in log.read_text(errors="replace").splitlines() if "error" in line.lower()]
                raise InferenceError(
                    f"the process of part {shard} failed ({said[-1].strip() if said else f'exit {job.returncode}'}); "
                    "mend this and re-run the same command, which resumes"
                )


def _count(settings: GenerateSettings) -> int:
    if settings.shard is not None or settings.ray.address is not None or settings.baseline == "nearest":
        return 1
    from cxrreport.inference.preparation import is_ingest_folder

    if (settings.baseline != "none" or settings.limit is not None) and not is_ingest_folder(settings.input):
        return 1  # they need all studies of a folder of DICOM first
    if settings.devices != "auto":
        return settings.devices
    device = settings.checkpoint.device if settings.checkpoint is not None else "auto"
    if device == "cpu" or settings.engine == "openvino":
        return 1
    import torch

    return max(1, torch.cuda.device_count())


def _visible(number: int) -> str:
    """The GPU of a process: within those that this process may use."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    own = [one for one in given.split(",") if one] if given else []
    return own[number] if number < len(own) else str(number)


def _report(settings: GenerateSettings, shards: list[str], progress: Progress) -> None:
    found = [read_progress(part_folder(settings.output, shard)).get("stages", {}).get(_LABEL) for shard in shards]
    stages = [stage for stage in found if stage]
    if stages:
        progress(sum(int(one["done"]) for one in stages), sum(int(one["total"]) for one in stages), _LABEL)
