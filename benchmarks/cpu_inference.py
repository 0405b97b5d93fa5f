"""PaliGemma 2 on a CPU: transformers in float32 beside OpenVINO in 8 bits; the last line is a JSON object.

    python benchmarks/cpu_inference.py --rounds 1   # 3B: up to 18 GB for stock, about 15 GB once for the conversion
    python benchmarks/cpu_inference.py --layers 4   # instead of 26 and 27, for a smaller machine

Random weights of the size of the 3B at 224 pixels; 260 tokens are read (256 of them for the image) and 32 are written.
Each run is a separate process with the same number of threads, and the two alternate: load the model, encode the image,
read the prompt, write. Stock is transformers as documented, `from_pretrained(dtype=float32)` with its own cache and
attention; ours is `inference.openvino`, whose one-time conversion does not count as loading. Memory is the peak
resident memory of the process, including interpreter and libraries.

Random weights write no reports, so the effect of 8 bits on quality is measured with the tiny model: the adapter and the
test phantoms of `--demo`, an output folder of `cxrreport demo` (made first if it is missing, which takes about seven
minutes), are written with torch, with OpenVINO and with OpenVINO in 8 bits, and scored.
"""

from __future__ import annotations

import argparse
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
IMAGE_TOKENS, PROMPT, NEW = 256, 260, 32
TABLE_9 = (
    ("M1 Max, 4 + 1 threads, 400 GB/s", 32, 12),
    ("AMD Milan, 8 + 1 threads, 204 GB/s", 53, 17),
    ("AMD Genoa, 8 + 1 threads, 461 GB/s", 147, 37),
)
"""arXiv 2412.03555, table 9: gemma.cpp, 3B at 224 pixels, tokens/s of prefill and decoding; the makers' bandwidth."""


def make(folder: Path, layers: int | None) -> None:
    """Random weights in bfloat16, as the published files are, written shard by shard."""
    import random_paligemma
    import torch
    from transformers import PaliGemmaForConditionalGeneration

    from cxrreport.model import attention
    from cxrreport.model.catalogue import CHECKPOINTS

    config = CHECKPOINTS["paligemma2-3b-pt-224"].config()
    if layers is not None:
        config.text_config.num_hidden_layers = config.vision_config.num_hidden_layers = layers
    config.text_config.layer_types = None
    attention.prepare_config(config, softcap=False)
    config.dtype = torch.bfloat16
    with torch.device("meta"):
        model = PaliGemmaForConditionalGeneration(config)
    model = model.to(torch.bfloat16).to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 1:
                weight.fill_(float("layernorm" in name.lower() and name.endswith("weight") and "vision" in name))
            else:  # a block of normal numbers again and again: quick to draw, and no row is like the next
                block = torch.randn(1_000_003, generator=generator).mul_(0.02).to(torch.bfloat16)
                flat = weight.view(-1)
                for start in range(0, len(flat), len(block)):
                    flat[start : start + len(block)] = block[: len(flat) - start]
    model.tie_weights()
    model.save_pretrained(folder)
    random_paligemma.make_tokenizer().save(str(folder / "tokenizer.json"))


def sample() -> tuple[np.ndarray, list[int]]:
    """Pixels float32[1, 3, 224, 224] and the ids of the prompt."""
    import random_paligemma

    pixels = np.random.default_rng(0).uniform(-1, 1, (1, 1, 224, 224)).astype(np.float32).repeat(3, 1)
    return pixels, [random_paligemma.IMAGE_ID] * IMAGE_TOKENS + [2, 300, 301, 108]


def stock(folder: Path) -> dict[str, Any]:
    """transformers in float32, greedy, its dynamic cache."""
    import torch
    from transformers import DynamicCache, PaliGemmaForConditionalGeneration

    begun = time.perf_counter()
    model = PaliGemmaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()
    loaded = time.perf_counter() - begun
    pixels, ids = sample()
    cache = DynamicCache(config=model.config.text_config)
    with torch.inference_mode():
        prompt = torch.tensor([ids])
        begun = time.perf_counter()
        output = model(
            input_ids=prompt,
            pixel_values=torch.from_numpy(pixels),
            token_type_ids=torch.zeros_like(prompt),
            attention_mask=torch.ones_like(prompt),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        token = output.logits[:, -1].argmax(-1, keepdim=True)
        read = time.perf_counter() - begun
        begun = time.perf_counter()
        for step in range(NEW - 1):
            mask = torch.ones(1, PROMPT + step + 1, dtype=torch.int64)
            output = model(input_ids=token, attention_mask=mask, past_key_values=cache, use_cache=True)
            token = output.logits[:, -1].argmax(-1, keepdim=True)
        written = time.perf_counter() - begun
    return _result(loaded, read, written)


def ours(folder: Path, converted: Path, precision: str) -> dict[str, Any]:
    """OpenVINO in 8 bits, driven as the engine drives it."""
    import torch

    from cxrreport.inference.openvino import load_openvino_model
    from cxrreport.model.compat import CACHE, image_arguments, image_features
    from cxrreport.settings import CheckpointSettings

    settings = CheckpointSettings(name=str(folder), precision=precision, device="cpu")
    begun = time.perf_counter()
    loaded = load_openvino_model(settings, None, resolution=224, quantize="int8", folder=converted)
    seconds = time.perf_counter() - begun
    model = loaded.model
    pixels, ids = sample()

    def run() -> tuple[float, float]:
        cache = model.make_cache(1, PROMPT + NEW)
        cache.begin_prompts(0, [0])
        begun = time.perf_counter()
        features = image_features(model, torch.from_numpy(pixels))
        output = model(
            input_ids=torch.tensor([ids]),
            position_ids=torch.arange(1, PROMPT + 1)[None],
            **{CACHE: cache},
            **image_arguments(features),
        )
        read = time.perf_counter() - begun
        begun = time.perf_counter()
        for step in range(NEW - 1):
            token = output.logits[:, -1].argmax(-1, keepdim=True)
            place = torch.tensor([PROMPT + step])
            cache.begin_step(place, PROMPT + step + 1)
            output = model(input_ids=token, position_ids=place[None] + 1, **{CACHE: cache})
        return read, time.perf_counter() - begun

    begun = time.perf_counter()
    run()  # OpenVINO lays the weights out in its first pass: part of loading, as stock has them laid out when loaded
    first = time.perf_counter() - begun
    read, written = run()
    return _result(seconds + first - read - written, read, written)


def _result(load: float, read: float, written: float) -> dict[str, Any]:
    peak = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024
    return {"load_s": load, "prefill": PROMPT / read, "decode": (NEW - 1) / written, "peak_mb": peak}


def quality(demo: Path, folder: Path) -> dict[str, dict[str, float]]:
    """RadGraph F1 (partial, the tiny RadGraph) of each way to write, and how many texts differ from torch's."""
    if not (demo / "summary.json").exists():
        cxrreport("demo", "--out", demo)
    found: dict[str, dict[str, float]] = {}
    texts: dict[str, list[str]] = {}
    ways = {"torch": (), "openvino": ("--engine", "openvino"), "int8": ("--engine", "openvino", "--quantize", "int8")}
    for way, options in ways.items():
        reports = folder / way
        given = ("--adapter", demo / "train/adapter", "--output", reports, "--no-track")
        cxrreport("generate", "--input", demo / "ingest", *given, *options)
        given = ("--references", demo / "ingest", "--output", folder / f"{way}-scores", "--no-track")
        scores = cxrreport("evaluate", "--predictions", reports, *given, "--radgraph", "tiny")
        lines = (reports / "predictions.jsonl").read_text().splitlines()
        texts[way] = [json.loads(line)["text"] for line in lines]
        found[way] = {
            "radgraph_f1": 100 * scores["radgraph_partial/model"]["value"],
            "studies": len(lines),
            "different": sum(a != b for a, b in zip(texts["torch"], texts[way], strict=True)),
        }
    return found


def cxrreport(*arguments: str | Path) -> dict[str, Any]:
    """A command and its summary. Not imported: beside this file, `radgraph` is a benchmark."""
    command = [sys.executable, "-m", "cxrreport", *map(str, arguments), "--json"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    summary: dict[str, Any] = json.loads(done.stdout)
    return summary


def child(*arguments: str, threads: int) -> dict[str, Any]:
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, __file__, "--child", *arguments]
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def bandwidth() -> float:
    """GB/s of reading memory with one thread: a sum over 1 GB."""
    numbers = np.ones(2**27)
    numbers.sum()
    begun = time.perf_counter()
    numbers.sum()
    return numbers.nbytes / (time.perf_counter() - begun) / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, help="of both towers, in place of 26 and 27")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of both sides")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="bfloat16", help="of ours' products")
    parser.add_argument("--folder", type=Path, help="where weights and conversion are kept; default: a temporary one")
    parser.add_argument("--demo", type=Path, default=Path("demo-out"), help="a folder of `cxrreport demo`, or none yet")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        side, folder, *rest = options.child
        if side == "make":
            make(Path(folder), int(rest[0]) or None)
            print("{}")
        else:
            print(json.dumps(stock(Path(folder)) if side == "stock" else ours(Path(folder), Path(rest[0]), rest[1])))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = options.folder or Path(name)
        model, converted = folder / "model", folder / "converted"
        if not (model / "tokenizer.json").exists():
            child("make", str(model), str(options.layers or 0), threads=options.threads)
        begun = time.perf_counter()
        first = child("ours", str(model), str(converted), options.precision, threads=options.threads)
        seconds = time.perf_counter() - begun
        print(f"conversion and a first run: {seconds:.0f} s, {first['peak_mb']:,.0f} MB peak", flush=True)
        results: dict[str, list[dict[str, Any]]] = {"stock float32": [], "ours int8": []}
        for _ in range(options.rounds):
            results["stock float32"].append(child("stock", str(model), threads=options.threads))
            own = child("ours", str(model), str(converted), options.precision, threads=options.threads)
            results["ours int8"].append(own)
        ways = quality(options.demo, folder / "quality")
    print(f"{'':34} {'load s':>8} {'prefill':>8} {'decode':>8} {'peak MB':>9}   tokens/s")
    middle = {
        side: {key: statistics.median(run[key] for run in runs) for key in runs[0]} for side, runs in results.items()
    }
    for side, one in middle.items():
        print(f"{side:34} {one['load_s']:8.1f} {one['prefill']:8.1f} {one['decode']:8.2f} {one['peak_mb']:9,.0f}")
    for machine, prefill, decode in TABLE_9:
        print(f"{machine:34} {'':8} {prefill:8} {decode:8}             gemma.cpp, table 9 of the paper")
    print(
        f"here: {os.cpu_count()} cores, {options.threads} threads, {bandwidth():.1f} GB/s with one; "
        f"load of the machine {os.getloadavg()[0]:.1f}; {options.layers or '26 and 27'} layers"
    )
    for way, one in ways.items():
        different = f"{one['different']} of {one['studies']} texts differ from torch's"
        print(f"tiny model, {way}: RadGraph F1 {one['radgraph_f1']:.2f}, {different}")
    mine, theirs = middle["ours int8"], middle["stock float32"]
    result = {
        "decode_speedup": round(mine["decode"] / theirs["decode"], 3),
        "prefill_speedup": round(mine["prefill"] / theirs["prefill"], 3),
        "peak_gb": round(mine["peak_mb"] / 1000, 3),
        "memory_ratio": round(mine["peak_mb"] / theirs["peak_mb"], 3),
        "load_ratio": round(mine["load_s"] / theirs["load_s"], 3),
        "radgraph_f1_lost": round(ways["openvino"]["radgraph_f1"] - ways["int8"]["radgraph_f1"], 3),
        "layers": options.layers,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
