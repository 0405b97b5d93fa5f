"""Reports per minute and peak memory of `generate`, beside a stock loop; the last line is a JSON object.

    python benchmarks/generate.py                          # 32 studies, about ten minutes on two idle cores
    python benchmarks/generate.py --studies 8 --trial 4    # a third of it

Random weights (vision width 192, 4 layers; language model width 256, 6 layers; the real vocabulary of 257,216) at 896
pixels; generated CR files of 3056 x 2544 pixels and 12 bits, with indications of 5 to 60 words. Random weights do not
end a text sensibly, so the number of new tokens, 24 to 96, is drawn per study and is the same for both: by a stopping
criterion in stock, and by a limit per request in ours. No token of the vocabulary can end a text earlier.

Each run is a separate process with the same number of threads: the stock loop with 1, 2 and 4 studies at a time on the
first 8 studies, then the fastest of these on all studies, between two runs of ours, whose mean counts. The time is from
the folder of DICOM to the last text (ours: to the files of predictions), with the model loaded before. Memory is the
peak of the process, including interpreter, libraries and weights.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
RESOLUTION = 896
FEWEST, MOST = 24, 96
INSTRUCTION = "w200 w201 w202"


def make(folder: Path, count: int) -> None:
    """Model, DICOM, and what both sides know of the studies, in `folder`."""
    import pydicom
    import random_paligemma
    from ingest import make_cr

    random_paligemma.write(folder / "model", random_paligemma.small_config(RESOLUTION), writes=True)
    draw = np.random.default_rng(0)
    (folder / "dicom").mkdir()
    rows = []
    for number in range(count):
        file = folder / f"dicom/{number:03d}.dcm"
        make_cr(file, 3056, 2544, seed=number)
        indication = " ".join(f"w{i}" for i in draw.integers(300, random_paligemma.WORDS, draw.integers(5, 61)))
        rows.append(
            {
                "study_id": str(pydicom.dcmread(file, stop_before_pixels=True).StudyInstanceUID),
                "file": file.name,
                "indication": indication,
                "prompt": f"{INSTRUCTION} indication: {indication}",
                "tokens": int(draw.integers(FEWEST, MOST + 1)),
            }
        )
    (folder / "studies.json").write_text(json.dumps(rows))
    with (folder / "reports.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["study_id", "indication"])
        writer.writerows((row["study_id"], row["indication"]) for row in rows)


def ours(folder: Path) -> dict[str, Any]:
    """Ingest and generate, as `cxrreport generate` does with a folder of DICOM."""
    from cxrreport.dataset import Manifest
    from cxrreport.inference.decoding import Engine
    from cxrreport.inference.generate import generate_predictions
    from cxrreport.ingestion.ingest import ingest
    from cxrreport.model import checkpoints
    from cxrreport.model.prompt import PromptLayout
    from cxrreport.settings import CheckpointSettings, GenerateSettings, IngestSettings, PromptSettings
    from cxrreport.storage.output_folder import output_folder

    imported = _memory("VmRSS")
    checkpoint = CheckpointSettings(name=str(folder / "model"), precision="float32")
    loaded = checkpoints.load(checkpoint, resolution=RESOLUTION)
    layout = PromptLayout(loaded.tokenizer, PromptSettings(instruction=INSTRUCTION), loaded.image_tokens)
    rows = json.loads((folder / "studies.json").read_text())
    limits = {row["study_id"]: row["tokens"] for row in rows}
    unforced = Engine.prepare

    def forced(self: Any, requests: Any, **options: Any) -> Any:
        limited = [dataclasses.replace(one, max_new_tokens=limits[one.study_id]) for one in requests]
        return unforced(self, limited, **options)

    Engine.prepare = forced  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory(dir=folder) as name:
        work = Path(name)
        begun, before = time.perf_counter(), time.process_time()
        ingest(
            IngestSettings(
                input=folder / "dicom",
                output=work / "data",
                layout="folder",
                reports=folder / "reports.csv",
                resolution=RESOLUTION,
                interpolation="bicubic",  # as the processor
                require_report=False,
            )
        )
        manifest = Manifest.open(work / "data")
        # Every text at a time is 26 MB of cache; fewer read the head's 263 MB once a token for themselves, and short
        # shards leave slots empty at their ends. The images of a shard and of the next one are in memory together.
        given = {"input": work / "data", "output": work / "reports", "split": None}
        settings = GenerateSettings(**given, batch_size=4, shard_size=16)
        with output_folder(settings.output, command="generate", settings=settings.model_dump(mode="json")) as output:
            generate_predictions(settings, manifest, loaded, layout, {}, lambda done, total, label: None, output)
        seconds, used = time.perf_counter() - begun, time.process_time() - before
        lines = (work / "reports/predictions.jsonl").read_text().splitlines()
    predictions = [json.loads(line) for line in lines]
    if any(one["tokens"] != limits[one["study_id"]] for one in predictions):
        raise SystemExit("a text of ours has another length than was to be")
    texts = {one["study_id"]: one["text"] for one in predictions}
    figures = {"seconds": seconds, "cpu_seconds": used, "imported_mb": imported, "peak_mb": _memory("VmHWM")}
    return figures | {"texts": texts}


def _memory(field: str) -> float:
    return int(Path("/proc/self/status").read_text().split(f"{field}:")[1].split()[0]) / 1024


def run(command: list[str], threads: int) -> dict[str, Any]:
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, *command], env=environment, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=32)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of both sides")
    parser.add_argument("--stock", type=int, nargs="+", default=[1, 2, 4], help="batch sizes of the stock loop")
    parser.add_argument("--trial", type=int, default=8, help="studies that choose the stock loop's batch size")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(ours(options.child)))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder, options.studies)

        def measured(side: str, count: int, *command: str) -> dict[str, Any]:
            one = run([*command], options.threads)
            rate, cpu, peak = 60 * count / one["seconds"], one["cpu_seconds"] / count, one["peak_mb"]
            print(f"{side:22} {rate:6.2f} studies/min {cpu:6.2f} s of CPU each {peak:7.0f} MB peak", flush=True)
            return one

        def stock(size: int, count: int) -> dict[str, Any]:
            script = str(HERE / "baselines/generate_stock.py")
            return measured(f"stock, batch of {size}", count, script, str(folder), str(size), str(count))

        def own() -> dict[str, Any]:
            return measured("cxrreport", options.studies, __file__, "--child", str(folder))

        trials = {size: stock(size, min(options.trial, options.studies))["seconds"] for size in options.stock}
        first = own()
        best = stock(min(trials, key=trials.__getitem__), options.studies)
        both = [first, own()]
    different = sum(best["texts"][study] != text for study, text in both[0]["texts"].items())
    if different:
        print(f"{different} of {options.studies} texts differ")
    # On a machine that others use too, the share of the CPU that a process gets blurs wall time, and this less.
    used = best["cpu_seconds"] / statistics.median(one["cpu_seconds"] for one in both)
    print(f"CPU time of stock over ours: {used:.2f}")
    print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, {options.threads} threads each")
    result = {
        "speedup": round(best["seconds"] / statistics.median(one["seconds"] for one in both), 3),
        "memory_ratio": round(statistics.median(one["peak_mb"] for one in both) / best["peak_mb"], 3),
        "identical": all(one["texts"] == best["texts"] for one in both),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
