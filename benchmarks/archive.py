"""Memory and time of a whole archive, from DICOM to predictions with a fixed text; the last line is a JSON object.

    python benchmarks/archive.py                            # 2,000 and 20,000 studies
    python benchmarks/archive.py --studies 500 2000 8000    # other sizes; the first and the last are compared

Studies are CR of 256 x 256 pixels in the layout of MIMIC-CXR with a report each, hard links to one file. `ingest` and
`generate` run as usual, at 224 pixels and with the tiny checkpoint loaded, except that the engine answers every request
at once. Each size is a separate process. Memory is the peak of the process, including interpreter and libraries;
`imported` is what these take before anything is read.

Keys: `memory_ratio`, peak of the largest size divided by that of the smallest; `kilobytes_per_study`, the increase
between them; `time_ratio`, seconds per study of the largest size divided by those of the smallest; `cpu_ratio`, the
same for CPU time, which depends less on other work on the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
TEXT = "FINDINGS: The heart is normal. No effusion. IMPRESSION: No acute process."


def run(tree: Path, output: Path, count: int) -> dict[str, float]:
    """Ingest and generate in this process; seconds of each and memory in MB."""
    import pyarrow.parquet as pq

    from cxrreport.dataset import Manifest
    from cxrreport.inference.decoding import Engine, Generated
    from cxrreport.inference.generate import generate_predictions
    from cxrreport.ingestion.ingest import ingest
    from cxrreport.model import checkpoints
    from cxrreport.model.prompt import PromptLayout
    from cxrreport.settings import CheckpointSettings, GenerateSettings, IngestSettings, PromptSettings
    from cxrreport.storage.output_folder import output_folder

    def fixed(_: Engine, take: Any) -> Iterator[tuple[int, Generated]]:
        while (group := take(True)) is not None:
            for one in group:
                yield (
                    one.index,
                    Generated(
                        study_id=one.request.study_id,
                        prompt="generate the chest x-ray report",
                        image_sha256=("0" * 64,),
                        ids=(5, 1),
                        text=TEXT,
                        mean_logprob=-0.5,
                        min_logprob=-1.0,
                        finished=True,
                    ),
                )

    loaded = checkpoints.load(CheckpointSettings(name="tiny"), resolution=224)
    layout = PromptLayout(loaded.tokenizer, PromptSettings(), loaded.image_tokens)
    figures = {"imported": memory("VmRSS")}
    begun, before = time.perf_counter(), time.process_time()
    ingest(IngestSettings(input=tree, output=output / "data"))
    figures |= {"ingest_seconds": time.perf_counter() - begun, "ingest_peak": memory("VmHWM")}
    Engine.stream = fixed  # type: ignore[method-assign, assignment]
    begun = time.perf_counter()
    settings = GenerateSettings(input=output / "data", output=output / "reports", split=None)
    manifest = Manifest.open(output / "data")
    with output_folder(settings.output, command="generate", settings=settings.model_dump(mode="json")) as folder:
        generate_predictions(settings, manifest, loaded, layout, {}, lambda done, total, label: None, folder)
    figures |= {"generate_seconds": time.perf_counter() - begun, "peak": memory("VmHWM")}
    figures["cpu_seconds"] = time.process_time() - before
    if pq.read_metadata(output / "reports/predictions.parquet").num_rows != count:
        raise SystemExit("some studies have no prediction")
    return figures


def memory(field: str) -> float:
    return int(Path("/proc/self/status").read_text().split(f"{field}:")[1].split()[0]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, nargs="+", default=[2000, 20000], help="sizes, ascending")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        tree, output, count = options.child
        print(json.dumps(run(Path(tree), Path(output), int(count))))
        return
    from ingest import make_cr, make_tree

    figures: dict[int, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_cr(folder / "image.dcm", 256, 256, seed=0)
        for count in options.studies:
            tree = make_tree(folder / f"tree-{count}", folder / "image.dcm", count)
            command = [sys.executable, __file__, "--child", str(tree), str(folder / f"out-{count}"), str(count)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            one = figures[count] = json.loads(done.stdout.splitlines()[-1])
            print(
                f"{count:6} studies: ingest {one['ingest_seconds']:6.1f} s, generate {one['generate_seconds']:6.1f} s, "
                f"{one['cpu_seconds']:.1f} s of CPU; "
                f"imported {one['imported']:.0f} MB, peak {one['ingest_peak']:.0f} MB after ingest, "
                f"{one['peak']:.0f} MB in the end",
                flush=True,
            )
    few, many = options.studies[0], options.studies[-1]
    seconds = {count: one["ingest_seconds"] + one["generate_seconds"] for count, one in figures.items()}
    print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    result = {
        "memory_ratio": round(figures[many]["peak"] / figures[few]["peak"], 3),
        "kilobytes_per_study": round(1024 * (figures[many]["peak"] - figures[few]["peak"]) / max(1, many - few), 2),
        "time_ratio": round(seconds[many] / many / (seconds[few] / few), 3),
        "cpu_ratio": round(figures[many]["cpu_seconds"] / many / (figures[few]["cpu_seconds"] / few), 3),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
