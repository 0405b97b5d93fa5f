"""The whole pipeline at the published size on a CPU, through the public commands alone; the last line is JSON.

    python benchmarks/real_size.py                    # 3B at 896 px in bfloat16: 14 GB, ten minutes of two cores
    python benchmarks/real_size.py --size small --resolution 224       # the same code in minutes

Random weights of the published shape; two radiographs of full size with reports, one for training and one for the test.
`ingest`, `train` for one optimiser step with LoRA, `generate` of 16 tokens with the adapter, `merge`, and the merged
folder in stock transformers. Its logits on one prompt are compared with ours, in bfloat16 and, where only the order of
sums differs, in float32. Each command is a process; printed are its seconds and its peak resident memory. For `train`
and `generate` the peak, without what the imports take, is beside what `plan` says for a CPU.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

NEW_TOKENS, LORA = 16, {"rank": 16, "alpha": 32}
REPORT = "The heart is normal in size. The lungs are clear. No pleural effusion or pneumothorax."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=("3b", "small"), default="3b")
    parser.add_argument("--resolution", type=int, choices=(224, 448, 896), default=896)
    parser.add_argument("--folder", type=Path, help="for weights and outputs; a temporary one otherwise")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        name, *arguments = options.child
        print(json.dumps(CHILDREN[name](*arguments)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.folder or Path(temporary)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        run(folder, options.size, options.resolution)


def run(folder: Path, size: str, resolution: int) -> None:
    result: dict[str, Any] = {"size": size, "resolution": resolution, "load": round(os.getloadavg()[0], 1)}

    def step(name: str, *arguments: str) -> dict[str, Any]:
        found = measured([sys.executable, *arguments])
        result[name] = {"seconds": round(found["seconds"], 1), "peak_mb": round(found["peak_mb"])}
        print(f"{name}: {found['seconds']:.0f} s, {found['peak_mb']:.0f} MB", flush=True)
        return found

    def child(name: str, *arguments: Any) -> dict[str, Any]:
        return step(name, __file__, "--child", name, *map(str, arguments))

    def command(name: str, *arguments: str) -> dict[str, Any]:
        return step(name, "-m", "cxrreport", name, *arguments, "--no-track")

    for name in ("data", "train", "reports", "merged"):
        shutil.rmtree(folder / name, ignore_errors=True)
    checkpoint, data, adapter = folder / "checkpoint", folder / "data", folder / "train/adapter"
    if not (checkpoint / "config.json").exists():
        child("weights", checkpoint, size, resolution)
    imports = child("imports")["peak_mb"]
    table = write_studies(folder / "in")
    given = ["--resolution", str(resolution), "--reports", str(table), "--layout", "folder"]
    command("ingest", "-i", str(folder / "in"), "-o", str(data), *given)
    training = {
        "data": str(data),
        "output": str(folder / "train"),
        "checkpoint": {"name": str(checkpoint), "precision": "bfloat16", "device": "cpu"},
        "lora": LORA,
        "max_steps": 1,
        "accumulation": 1,
        "validation": {"radgraph": "none"},
        "tracking": {"enabled": False},
    }
    (folder / "train.yaml").write_text(json.dumps(training))
    command("train", str(folder / "train.yaml"))
    rest = ["--set", f"max_new_tokens={NEW_TOKENS}", "--set", "checkpoint.device=cpu"]
    generating = ["-i", str(data), "-o", str(folder / "reports"), "-c", str(checkpoint), "-a", str(adapter)]
    command("generate", *generating, *rest)
    command("merge", str(adapter), str(folder / "merged"))
    compared = {}
    for precision in ("bfloat16", "float32"):
        logits = {side: folder / f"{side}-{precision}.pt" for side in ("ours", "stock")}
        ours, stock = (
            step(
                f"{side}_{precision}",
                __file__,
                "--child",
                side,
                str(folder / "merged"),
                str(data),
                str(path),
                precision,
            )["found"]
            for side, path in logits.items()
        )
        compared[precision] = compare(*logits.values())
    planned = child("planned", folder / "train.yaml", checkpoint)["found"]
    for name in ("train", "generate"):
        peak = result[name]["peak_mb"] - imports
        result[name] |= {"without_imports_mb": round(peak), "planned_mb": planned[name]}
        result[name]["planned_ratio"] = round(planned[name] / peak, 3)
        print(f"{name}: {peak:.0f} MB without imports, planned {planned[name]} MB")
    result |= {"logits": compared, "prompt_tokens": ours["tokens"], "stock_tokens": stock["tokens"]}
    print(json.dumps({name: value for name, value in result.items() if name != "planned"}))


def measured(command: list[str]) -> dict[str, Any]:
    """Seconds, peak memory in MB and the JSON object on the last line of a process; ends this one if it fails."""
    begun = time.perf_counter()
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(command, stdout=out, stderr=err, env=os.environ | {"MPLBACKEND": "agg"})
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        if process.returncode:
            raise SystemExit(f"{' '.join(command)}\n{err.read()[-4000:]}")
        lines = [line for line in out.read().splitlines() if line.startswith("{")]
    found = json.loads(lines[-1]) if lines else {}
    return {"seconds": time.perf_counter() - begun, "peak_mb": usage.ru_maxrss / 1024, "found": found}


def write_studies(folder: Path) -> Path:
    """Two radiographs of 3056 x 2544 pixels and 12 bits in DICOM, and their reports with official splits."""
    import numpy as np
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    folder.mkdir(exist_ok=True)
    rows = ["study_id,split,findings,impression"]
    for number, split in enumerate(("train", "test")):
        made = Dataset()
        made.file_meta = FileMetaDataset()
        made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        made.SOPClassUID, made.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1", f"1.2.3.{number}.1"
        made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID
        made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
        made.StudyInstanceUID, made.PatientID = f"1.2.3.{number}", f"P{number}"
        made.Modality, made.BodyPartExamined, made.ViewPosition = "CR", "CHEST", "PA"
        made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
        made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 16, 12, 11, 0
        down, across = np.mgrid[0:3056, 0:2544]
        light = 2000 + 1500 * np.sin(down / (300 + 50 * number)) * np.cos(across / 400)
        noise = np.random.default_rng(number).normal(0, 40, light.shape)
        pixels = (light + noise).clip(0, 4095).astype(np.uint16)
        made.Rows, made.Columns = pixels.shape
        made.PixelData = pixels.tobytes()
        made.save_as(folder / f"{number}.dcm", enforce_file_format=True)
        rows.append(f'1.2.3.{number},{split},"{REPORT}","No acute process."')
    table = folder.with_name("reports.csv")
    table.write_text("\n".join(rows) + "\n")
    return table


def write_weights(folder: str, size: str, resolution: str) -> dict[str, Any]:
    import torch
    from random_paligemma import make_tokenizer, small_config

    from cxrreport.model import attention
    from cxrreport.model.catalogue import CHECKPOINTS
    from cxrreport.model.compat import model_without_weights

    side = int(resolution)
    config = small_config(side) if size == "small" else CHECKPOINTS[f"paligemma2-3b-pt-{side}"].config()
    attention.prepare_config(config, softcap=False)
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    model = model_without_weights(config, attention.implementation(softcap=False))
    model.save_pretrained(folder, max_shard_size="2GB")
    make_tokenizer().save(str(Path(folder) / "tokenizer.json"))
    return {"parameters": sum(p.numel() for p in model.parameters())}


def imported() -> dict[str, Any]:
    """What the commands import, and nothing done with it."""
    import cxrreport.ingestion.ingest
    import cxrreport.training.finetune
    from cxrreport.inference.decoding import Engine
    from cxrreport.inference.generate import generate

    return {"modules": [Engine.__name__, generate.__name__, cxrreport.__name__]}


def prompt_of(data: str, layout: Any) -> tuple[dict[str, Any], Any]:
    """Ids, token types and mask of the prompt of the test study, and its pixels."""
    from cxrreport.dataset import Manifest
    from cxrreport.model.prompt import pixel_values
    from cxrreport.records import Split

    manifest = Manifest.open(Path(data))
    (study,) = manifest.studies(Split.TEST)
    encoded = layout.encode_prefix(layout.prefix(study.report))
    return layout.collate_generation([encoded]), pixel_values([manifest.image(study.image_ids[0])])


def our_logits(folder: str, data: str, out: str, precision: Any) -> dict[str, Any]:
    import torch

    from cxrreport.dataset import Manifest
    from cxrreport.inference.decoding.forward import ForwardPasses
    from cxrreport.inference.decoding.kv_cache import SlotCache
    from cxrreport.inference.decoding.requests import Request, prepare
    from cxrreport.model import checkpoints
    from cxrreport.model.adapters import paligemma
    from cxrreport.model.fused import fused
    from cxrreport.model.prompt import PromptLayout
    from cxrreport.records import Split
    from cxrreport.settings import CheckpointSettings, PromptSettings

    manifest = Manifest.open(Path(data))
    (study,) = manifest.studies(Split.TEST)
    loaded = checkpoints.load(
        CheckpointSettings(name=folder, device="cpu", precision=precision), resolution=manifest.resolution
    )
    layout = PromptLayout(loaded.tokenizer, PromptSettings(), loaded.image_tokens)
    images = (manifest.image(study.image_ids[0]),)
    request = prepare(0, Request(study_id="s", images=images, report=study.report), layout, NEW_TOKENS)
    cache = SlotCache(1, request.length + 1, layers=loaded.model.config.text_config.num_hidden_layers)
    language = paligemma(loaded.model).language_model
    with torch.inference_mode(), fused(loaded.model, language, softcap=False, constant=True):
        logits = ForwardPasses(loaded, layout).read_prompts([request], cache, first=0)
    torch.save(logits[0].clone(), out)
    return {"tokens": request.length}


def stock_logits(folder: str, data: str, out: str, precision: str) -> dict[str, Any]:
    """By transformers alone; only ids and pixels are ours."""
    import torch
    from transformers import AutoTokenizer, PaliGemmaForConditionalGeneration, PreTrainedTokenizerFast

    from cxrreport.model.prompt import PromptLayout
    from cxrreport.settings import PromptSettings

    stock = PaliGemmaForConditionalGeneration.from_pretrained(folder, dtype=getattr(torch, precision)).eval()
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError):
        tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(Path(folder) / "tokenizer.json"))
    patch = stock.config.vision_config.patch_size
    tokens = (stock.config.vision_config.image_size // patch) ** 2
    prompt, pixels = prompt_of(data, PromptLayout(tokenizer, PromptSettings(), tokens))
    with torch.inference_mode():
        logits = stock(**prompt, pixel_values=pixels.to(stock.dtype), logits_to_keep=1).logits
    torch.save(logits[0, -1].float(), out)
    return {"tokens": int(prompt["input_ids"].shape[1])}


def compare(one: Path, other: Path) -> dict[str, Any]:
    import torch

    ours, stock = torch.load(one), torch.load(other)
    return {
        "relative_difference": float(f"{float((ours - stock).norm() / stock.norm()):.3g}"),
        "largest_difference": float(f"{float((ours - stock).abs().max()):.3g}"),
        "same_token": bool(ours.argmax() == stock.argmax()),
    }


def planned(file: str, checkpoint: str) -> dict[str, Any]:
    """Peak memory in MB that `plan` gives for these processes."""
    import psutil

    from cxrreport.settings import PlanSettings, TrainSettings
    from cxrreport.training.planning.estimate import need
    from cxrreport.training.planning.generation import generation_need

    training = TrainSettings.from_yaml(Path(file))
    settings = PlanSettings.of_training(training, counted=1)
    free = psutil.virtual_memory().available
    # What the runs read: a prompt without indication, and a report of some thirty tokens.
    short = settings.model_copy(update={"prefix_tokens": 16, "suffix_tokens": 40})
    reading = settings.model_copy(update={"prefix_tokens": 16, "suffix_tokens": NEW_TOKENS})
    generation = generation_need(reading, checkpoint, memory=free, device="cpu", batch=1)
    return {
        "train": round(need(short, checkpoint, "cpu").peak / 2**20),
        "generate": round(generation.peak / 2**20),
    }


CHILDREN: dict[str, Any] = {
    "weights": write_weights,
    "imports": imported,
    "ours": our_logits,
    "stock": stock_logits,
    "planned": planned,
}

if __name__ == "__main__":
    # At the end: a file beside this one has the name of a library.
    sys.path = [path for path in sys.path if Path(path) != Path(__file__).parent] + [str(Path(__file__).parent)]
    main()
