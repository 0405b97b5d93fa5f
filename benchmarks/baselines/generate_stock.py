"""Reports for a folder of DICOM with transformers as documented, on a CPU.

The processor and `generate`, one batch after another, with default settings: greedy, dynamic cache, eager attention
(the only one that transformers offers for Gemma 2). Images are read with pydicom's functions and passed to the
processor, whose Pillow backend prepares them without torchvision. The number of tokens of a study is set by a stopping
criterion.

    python generate_stock.py FOLDER BATCH STUDIES      # called by benchmarks/generate.py; prints one line of JSON
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import torch
from PIL import Image
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from transformers import AutoProcessor, PaliGemmaForConditionalGeneration, StoppingCriteria, StoppingCriteriaList

IMPORTED = int(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0]) / 1024


class Lengths(StoppingCriteria):
    """Every row ends after so many new tokens."""

    def __init__(self, prompt: int, lengths: list[int]) -> None:
        self.ends = prompt + torch.tensor(lengths)

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        return self.ends <= input_ids.shape[1]


def read(path: Path) -> Image.Image:
    """The radiograph as 8-bit RGB, bright is dense."""
    dataset = pydicom.dcmread(path)
    most = 2**dataset.BitsStored - 1
    values = apply_voi_lut(apply_modality_lut(dataset.pixel_array, dataset), dataset)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        values = most - values
    return Image.fromarray(np.rint(values * (255 / most)).astype(np.uint8)).convert("RGB")


def main() -> None:
    folder, size, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    processor = AutoProcessor.from_pretrained(folder / "model", local_files_only=True)
    processor.tokenizer.padding_side = "left"
    model = PaliGemmaForConditionalGeneration.from_pretrained(folder / "model", local_files_only=True)
    rows = json.loads((folder / "studies.json").read_text())[:count]
    texts: dict[str, str] = {}
    begun, before = time.perf_counter(), time.process_time()
    for start in range(0, len(rows), size):
        batch = rows[start : start + size]
        inputs = processor(
            text=[f"<image>{row['prompt']}" for row in batch],
            images=[read(folder / "dicom" / row["file"]) for row in batch],
            return_tensors="pt",
            padding="longest",
        )
        inputs.pop("labels")
        prompt = inputs["input_ids"].shape[1]
        lengths = [row["tokens"] for row in batch]
        ids = model.generate(
            **inputs,
            max_new_tokens=max(lengths),
            do_sample=False,
            stopping_criteria=StoppingCriteriaList([Lengths(prompt, lengths)]),
        )
        written = processor.batch_decode(ids[:, prompt:], skip_special_tokens=True)
        texts |= {row["study_id"]: text.strip() for row, text in zip(batch, written, strict=True)}
    seconds, used = time.perf_counter() - begun, time.process_time() - before
    peak = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024
    figures = {"seconds": seconds, "cpu_seconds": used, "imported_mb": IMPORTED, "peak_mb": peak}
    json.dump(figures | {"texts": texts}, sys.stdout)


if __name__ == "__main__":
    main()
