"""Generation on one GPU beside `generate` of transformers and, where it is installed, vLLM; used by `gpu.py`.

Random weights do not end a text sensibly, so the number of new tokens is drawn per study and is the same for all sides.
The first studies are written in float32 by both, and the texts must be equal; then all are written in bfloat16, where
random weights have near ties, and the share of equal texts is reported. Images are noise and are in memory; the time is
from images and indications to texts, with the model loaded and one batch of each side written before.

    python gpu_generation.py SIDE FOLDER STUDIES PRECISION DEVICE BATCH     # a child process; prints one line of JSON
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

HERE = Path(__file__).parent
INSTRUCTION = "w200 w201 w202"
CHECKED = 4
"""Studies that are compared in float32."""

Row = dict[str, Any]


def write_studies(folder: Path, count: int, side: int, tokens: tuple[int, int]) -> None:
    """Images, indications of 5 to 60 words and numbers of new tokens, in `studies.json`."""
    from random_paligemma import WORDS

    draw = np.random.default_rng(1)
    rows = []
    for number in range(count):
        Image.fromarray(draw.integers(0, 256, (side, side), dtype=np.uint8)).save(folder / f"study{number}.png")
        words = " ".join(f"w{i}" for i in draw.integers(300, WORDS, draw.integers(5, 61)))
        rows.append({"image": f"study{number}.png", "indication": words, "tokens": int(draw.integers(*tokens))})
    (folder / "studies.json").write_text(json.dumps(rows))


def measure(folder: Path, studies: int, device: str, batches: Sequence[int], run: Callable[..., Any]) -> dict[str, Any]:
    """Rates of all sides, and whether their texts agree.

    Args:
        folder: the model, and `write_studies`.
        studies: number of studies of the comparison of rates.
        device: `cuda` or `cpu`.
        batches: batch sizes that the stock loop is tried with.
        run: runs a child process and returns its JSON; raises `MemoryError` if its memory did not suffice.
    """

    def child(side: str, count: int, precision: str, batch: int | str) -> dict[str, Any]:
        return run([str(HERE / "gpu_generation.py"), side, str(folder), str(count), precision, device, str(batch)])

    few = min(CHECKED, studies)
    exact = [child("ours", few, "float32", "auto"), child("stock", few, "float32", 1)]
    if exact[0]["texts"] != exact[1]["texts"]:
        raise SystemExit("generation: texts in float32 differ from those of transformers, so rates are not comparable")
    tried: dict[int, float] = {}
    for batch in batches:
        try:
            tried[batch] = child("stock", min(max(8, 2 * batch), studies), "bfloat16", batch)["studies_per_second"]
        except MemoryError:
            break
    best = max(tried, key=tried.__getitem__)
    stock, own = child("stock", studies, "bfloat16", best), child("ours", studies, "bfloat16", "auto")

    def agreement(other: dict[str, Any]) -> float:
        return sum(one == two for one, two in zip(own["texts"], other["texts"], strict=True)) / studies

    found = {
        "studies_per_second": own["studies_per_second"],
        "batch": own["batch"],
        "stock_studies_per_second": stock["studies_per_second"],
        "stock_batch": best,
        "generation_speedup": own["studies_per_second"] / stock["studies_per_second"],
        "texts_equal_float32": len(exact[0]["texts"]),
        "texts_equal_bfloat16": agreement(stock),
    }
    if device == "cuda" and find_spec("vllm") is not None:
        vllm = child("vllm", studies, "bfloat16", "auto")
        found |= {"vllm_studies_per_second": vllm["studies_per_second"], "vllm_texts_equal": agreement(vllm)}
    return found


def timed(write: Callable[[list[Row]], list[str]], rows: list[Row], warm_up: int) -> dict[str, Any]:
    """Write the texts of the first studies once before, and of all against the clock."""
    write(rows[:warm_up])
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    begun = time.perf_counter()
    texts = write(rows)
    return {"studies_per_second": len(rows) / (time.perf_counter() - begun), "texts": texts}


def ours(folder: Path, rows: list[Row], precision: str, device: str, batch: str) -> dict[str, Any]:
    from cxrreport.inference.decoding import Engine, Request
    from cxrreport.model import checkpoints
    from cxrreport.model.prompt import PromptLayout
    from cxrreport.records import Report
    from cxrreport.settings import CheckpointSettings, PromptSettings

    settings = CheckpointSettings.model_validate({"name": str(folder), "precision": precision, "device": device})
    loaded = checkpoints.load(settings, resolution=rows[0]["pixels"].shape[0])
    layout = PromptLayout(loaded.tokenizer, PromptSettings(instruction=INSTRUCTION), loaded.image_tokens)
    most = max(row["tokens"] for row in rows)
    engine = Engine(loaded, layout, batch_size="auto" if batch == "auto" else int(batch), max_new_tokens=most)

    def write(some: list[Row]) -> list[str]:
        requests = [
            Request(
                study_id=row["image"],
                images=(row["pixels"],),
                report=Report(indication=row["indication"]),
                max_new_tokens=row["tokens"],
            )
            for row in some
        ]
        return [one.text for one in engine.generate(requests)]

    return timed(write, rows, 8) | {"batch": engine.batch_size}


def stock(folder: Path, rows: list[Row], precision: str, device: str, batch: str) -> dict[str, Any]:
    from transformers import AutoProcessor, PaliGemmaForConditionalGeneration, StoppingCriteriaList

    sys.path.insert(0, str(HERE / "baselines"))
    from generate_stock import Lengths

    dtype = getattr(torch, precision)
    processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
    processor.tokenizer.padding_side = "left"
    model = PaliGemmaForConditionalGeneration.from_pretrained(folder, dtype=dtype, local_files_only=True).to(device)
    size = int(batch)

    def write(some: list[Row]) -> list[str]:
        texts: list[str] = []
        for start in range(0, len(some), size):
            part = some[start : start + size]
            inputs = processor(
                text=[f"<image>{prompt(row)}" for row in part],
                images=[Image.fromarray(row["pixels"]).convert("RGB") for row in part],
                return_tensors="pt",
                padding="longest",
            ).to(device, dtype=dtype)
            inputs.pop("labels", None)
            length, limits = inputs["input_ids"].shape[1], [row["tokens"] for row in part]
            stop = Lengths(length, limits)
            stop.ends = stop.ends.to(device)
            ids = model.generate(
                **inputs,
                max_new_tokens=max(limits),
                do_sample=False,
                stopping_criteria=StoppingCriteriaList([stop]),
            )
            written = zip(ids[:, length:], limits, strict=True)
            cut = [one[:limit] for one, limit in written]
            texts += [text.strip() for text in processor.batch_decode(cut, skip_special_tokens=True)]
        return texts

    return timed(write, rows, size)


def vllm(folder: Path, rows: list[Row], precision: str, _device: str, _batch: str) -> dict[str, Any]:
    from vllm import LLM, SamplingParams

    model = LLM(model=str(folder), dtype=precision, limit_mm_per_prompt={"image": 1})

    def write(some: list[Row]) -> list[str]:
        inputs = [
            {
                "prompt": f"{prompt(row)}\n",
                "multi_modal_data": {"image": Image.fromarray(row["pixels"]).convert("RGB")},
            }
            for row in some
        ]
        limits = [SamplingParams(temperature=0.0, max_tokens=row["tokens"], ignore_eos=True) for row in some]
        return [one.outputs[0].text.strip() for one in model.generate(inputs, limits, use_tqdm=False)]

    return timed(write, rows, 8)


def prompt(row: Row) -> str:
    return f"{INSTRUCTION} indication: {row['indication']}"


SIDES = {"ours": ours, "stock": stock, "vllm": vllm}


def main() -> None:
    side, name, count, precision, device, batch = sys.argv[1:]
    folder = Path(name)
    rows: list[Row] = json.loads((folder / "studies.json").read_text())[: int(count)]
    for row in rows:
        row["pixels"] = np.asarray(Image.open(folder / row["image"]))
    print(json.dumps(SIDES[side](folder, rows, precision, device, batch)))


if __name__ == "__main__":
    main()
