"""Generation with OpenMP threads that spin while they wait (the default of libgomp) and with threads that sleep.

    python benchmarks/wait_policy.py                 # five rounds of each, alternating
    python benchmarks/wait_policy.py --beside 2      # beside two busy processes

Each run is a process of its own, with two threads and the tiny checkpoint. The last line is a JSON object with the best
and the median number of reports per second of each policy, and the load of the machine before the runs.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys

CODE = """
import os, time
if {spin}: os.environ["OMP_WAIT_POLICY"] = "ACTIVE"
import numpy as np, torch
torch.set_num_threads(2)
from cxrreport.inference.decoding import Engine, Request
from cxrreport.model import checkpoints
from cxrreport.model.prompt import PromptLayout
from cxrreport.records import Report
from cxrreport.settings import CheckpointSettings, PromptSettings
loaded = checkpoints.load(CheckpointSettings(name="tiny", device="cpu"), resolution=224)
layout = PromptLayout(loaded.tokenizer, PromptSettings(), loaded.image_tokens)
engine = Engine(loaded, layout, batch_size=8, max_new_tokens=48)
random = np.random.default_rng(0)
requests = [Request(study_id=str(n), images=(random.integers(0, 256, (224, 224), dtype=np.uint8),), report=Report())
            for n in range(24)]
engine.generate(requests[:8])
begun = time.perf_counter()
engine.generate(requests)
print(len(requests) / (time.perf_counter() - begun))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--beside", type=int, default=0, help="busy processes")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(options.beside)]
    rates: dict[str, list[float]] = {"spin": [], "sleep": []}
    try:
        for turn in range(options.rounds):
            for name, found in rates.items():
                code = CODE.format(spin=name == "spin")
                done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
                found.append(float(done.stdout))
                print(f"round {turn + 1}, {name}: {found[-1]:.2f} reports/s", flush=True)
    finally:
        for process in busy:
            process.kill()
    best = {f"{name}_best": round(max(found), 2) for name, found in rates.items()}
    middle = {f"{name}_median": round(statistics.median(found), 2) for name, found in rates.items()}
    print(json.dumps({"beside": options.beside, "load_before": round(load, 2)} | best | middle))


if __name__ == "__main__":
    main()
