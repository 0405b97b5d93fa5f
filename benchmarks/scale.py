"""The data paths of the commands at the size of MIMIC-CXR, without its model: time and memory; the last line is JSON.

    python benchmarks/scale.py                                    # 377,000 images of 228,000 studies
    python benchmarks/scale.py --studies 2280 --pairs 200         # a hundredth

It writes an ingest folder whose images are a few phantoms in 1,800 shards (hard links), with texts of the length of
real reports, of patients with three studies each, and runs the commands on it, each in a process of its own. The tiny
checkpoint trains, so steps are quick; generation and graphs are replaced by fixed ones. Figures of training are the
difference to the same run on 64 studies:

- `train_process_mb`: resident memory of a training process at its second step, for its samples and the manifest.
- `worker_mb`: private memory of a worker process of its data loader after a few hundred samples.
- `first_batch_s`, `resume_s`: from the start of the command to its first step, new and resumed (imports included);
  `first_batch_cpu_s`, `resume_cpu_s`: the processor time of that, which other work on the machine does not change much.
- `processes_4`: the same with four processes and four workers each.
- `plan_generation_s`, `resume_generation_s`: until the first shard of all studies, new and resumed at the last shard.
- `evaluate_mb`: peak of an evaluation of 20,000 pairs with five systems; `evaluate_one_mb` with one.
- `review_s`, `review_mb`: the review page of that evaluation.
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
from dataclasses import replace
from pathlib import Path
from typing import Any

IMAGES_PER_STUDY, SHARDS, IMAGES = 377_000 / 228_000, 1_800, 16
OPENINGS = ("Frontal and lateral views of the chest were obtained.", "Single portable AP view of the chest.", "")
_STEPS = 192
SYSTEMS = ("model", "shuffled", "blank", "nearest", "no_adapter")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=228_000)
    parser.add_argument("--pairs", type=int, default=20_000)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 4], help="training processes, 1 first")
    parser.add_argument("--only", choices=("training", "generation", "evaluation"))
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        name, *arguments = options.child
        print(json.dumps(CHILDREN[name](*map(Path, arguments))))
        return
    result: dict[str, Any] = {"studies": options.studies, "load": round(os.getloadavg()[0], 1)}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write(folder / "data", options.studies)
        write(folder / "small", 64)
        result["images"] = round(options.studies * IMAGES_PER_STUDY)
        if options.only in (None, "training"):
            result |= training(folder, options.processes)
        if options.only in (None, "generation"):
            result |= child("generation", folder)
        if options.only in (None, "evaluation"):
            write_pairs(folder, options.pairs)
            result |= {"pairs": options.pairs, **child("evaluation", folder)}
            result |= {f"evaluate_one_{name}": v for name, v in child("one", folder).items() if name == "evaluate_mb"}
            result |= child("review", folder)
    print(json.dumps(result))


def child(name: str, *arguments: Path, processes: int = 1) -> dict[str, Any]:
    """Run one part in a process of its own, or in several as `torchrun` starts them."""
    start = [sys.executable]
    if processes > 1:
        start += ["-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
    command = [*start, __file__, "--child", name, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if not lines:  # the first of several processes ends early, for which their launcher has an error
        raise SystemExit(done.stderr[-4000:])
    found: dict[str, Any] = json.loads(lines[-1])
    print(name, processes, found, flush=True)
    return found


def training(folder: Path, several: list[int]) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for processes in several:
        small = child("train", folder / "small", folder / f"small-{processes}", processes=processes)
        first = child("train", folder / "data", folder / f"run-{processes}", processes=processes)
        again = child("train", folder / "data", folder / f"run-{processes}", processes=processes)
        found = {
            "train_process_mb": round(first["process_mb"] - small["process_mb"]),
            "worker_mb": round(first["worker_mb"]),
            "worker_small_mb": round(small["worker_mb"]),
            "first_batch_s": round(first["seconds"], 1),
            "first_batch_cpu_s": round(first["cpu_seconds"], 1),
            "resume_s": round(again["seconds"], 1),
            "resume_cpu_s": round(again["cpu_seconds"], 1),
            "small_s": round(small["seconds"], 1),
        }
        figures |= found if processes == 1 else {f"processes_{processes}": found}
    return figures


def train_child(data: Path, output: Path) -> dict[str, Any]:
    """Train for some steps more, and stop."""
    begun = time.time() - time.process_time()
    import psutil

    from cxrreport.dataset import Manifest
    from cxrreport.settings import TrainSettings
    from cxrreport.training import finetune, samples, vision_features

    # At 896 px neither the images nor their features are kept in memory.
    samples.IN_MEMORY_BYTES = vision_features.CACHE_BYTES = 0
    begun = psutil.Process().create_time() or begun
    found: dict[str, Any] = {}

    class Enough(BaseException):
        pass

    def progress(done: int, _total: int, label: str) -> None:
        if label == "training" and done > found.setdefault("begun_at", done):
            if "seconds" not in found:
                found.update(seconds=time.time() - begun, cpu_seconds=time.process_time())
            if done == found["begun_at"] + 2:
                found["process_mb"] = psutil.Process().memory_info().rss / 2**20
            if done == found["begun_at"] + _STEPS:
                workers = [one.memory_full_info().uss for one in psutil.Process().children() if _is_worker(one)]
                found["worker_mb"] = max(workers, default=0) / 2**20
                raise Enough

    settings = TrainSettings(
        data=data,
        output=output,
        checkpoint={"name": "tiny", "device": "cpu"},  # type: ignore[arg-type]
        max_steps=1000,
        batch_size=1,
        accumulation=max(1, int(os.environ.get("WORLD_SIZE", 1))),
        workers=4,
        save_every=64,
        validation={"radgraph": "none"},  # type: ignore[arg-type]
    )
    from cxrreport.runs import first_process

    try:
        ignore = progress if first_process() else (lambda *_: None)
        finetune.train(settings, Manifest.open(data), log=lambda values, step: None, progress=ignore)
    except Enough:
        print(json.dumps({name: value for name, value in found.items() if name != "begun_at"}), flush=True)
        for one in psutil.Process().children():
            one.kill()
        os._exit(0)  # the launcher ends the others
    return found


def _is_worker(process: Any) -> bool:
    return "resource_tracker" not in " ".join(process.cmdline())


def generation_child(folder: Path) -> dict[str, Any]:
    import logging

    from cxrreport.dataset import Manifest
    from cxrreport.inference.decoding import Engine, Generated
    from cxrreport.inference.generate import generate_predictions
    from cxrreport.model import checkpoints
    from cxrreport.model.prompt import PromptLayout
    from cxrreport.settings import CheckpointSettings, GenerateSettings, PromptSettings
    from cxrreport.storage.output_folder import output_folder

    logging.disable(logging.INFO)

    def fixed(_: Engine, take: Any) -> Iterator[tuple[int, Generated]]:
        while (group := take(True)) is not None:
            for one in group:
                yield (
                    one.index,
                    Generated(
                        study_id=one.request.study_id,
                        prompt="",
                        image_sha256=("0" * 64,),
                        ids=(5, 1),
                        text="FINDINGS: The lungs are clear. IMPRESSION: No acute process.",
                        mean_logprob=-0.5,
                        min_logprob=-1.0,
                        finished=True,
                    ),
                )

    Engine.stream = fixed  # type: ignore[method-assign, assignment]
    loaded = checkpoints.load(CheckpointSettings(name="tiny", device="cpu"), resolution=224)
    layout = PromptLayout(loaded.tokenizer, PromptSettings(), loaded.image_tokens)
    # Without images, whose reading takes the same time for every model.
    settings = GenerateSettings(input=folder / "data", output=folder / "reports", split=None, baseline="blank")
    figures: dict[str, Any] = {}

    def run(name: str) -> None:
        begun, before = time.perf_counter(), time.process_time()
        start: list[int] = []

        def progress(done: int, _total: int, _label: str) -> None:
            start.append(done)
            if done > start[0]:
                figures.setdefault(name, round(time.perf_counter() - begun, 1))
                figures.setdefault(name.replace("_s", "_cpu_s"), round(time.process_time() - before, 1))

        manifest = Manifest.open(folder / "data")
        record = settings.model_dump(mode="json")
        with output_folder(settings.output, command="generate", settings=record) as opened:
            generate_predictions(settings, manifest, loaded, layout, {}, progress, opened)

    run("plan_generation_s")
    shards = sorted((settings.output / "shards").glob("[0-9]*.jsonl"))
    shards[-1].unlink()
    record = json.loads((settings.output / "generate.json").read_text())
    (settings.output / "generate.json").write_text(json.dumps(record | {"finished": False}))
    run("resume_generation_s")
    return figures | {"generation_mb": round(peak_mb())}


def evaluation_child(folder: Path, systems: int = len(SYSTEMS)) -> dict[str, Any]:
    from cxrreport.evaluation.evaluate import evaluate
    from cxrreport.evaluation.radgraph.annotator import RadGraphAnnotator
    from cxrreport.settings import EvaluateSettings

    graphs = _Graphs(folder / "texts.jsonl")

    def annotations(_: Any, texts: Any, *, progress: Any = None) -> Iterator[tuple[str, Any]]:
        return ((text, graphs.of(text)) for text in dict.fromkeys(texts))

    RadGraphAnnotator.annotations = annotations  # type: ignore[method-assign]
    begun = time.perf_counter()
    evaluate(
        EvaluateSettings(
            predictions=folder / "pairs/model.jsonl",
            references=folder / "pairs/references.jsonl",
            output=folder / f"scores-{systems}",
            baselines={name: folder / f"pairs/{name}.jsonl" for name in SYSTEMS[1:systems]},
            section="findings",
            radgraph="tiny",
        )
    )
    return {"evaluate_mb": round(peak_mb()), "evaluate_s": round(time.perf_counter() - begun)}


def review_child(folder: Path) -> dict[str, Any]:
    from cxrreport.dataset import Manifest
    from cxrreport.review import read_evaluation, write_page

    begun = time.perf_counter()
    content = read_evaluation(folder / f"scores-{len(SYSTEMS)}", "reference")
    write_page(content, Manifest.open(folder / "data"), folder / "review.html")
    return {"review_s": round(time.perf_counter() - begun), "review_mb": round(peak_mb())}


CHILDREN: dict[str, Any] = {
    "train": train_child,
    "generation": generation_child,
    "evaluation": evaluation_child,
    "one": lambda folder: evaluation_child(folder, 1),
    "review": review_child,
}


def peak_mb() -> float:
    """Not getrusage: its peak begins with that of the process that started this one."""
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024


class _Graphs:
    """The graph of a text, made from the templates that it was written with when it is asked for."""

    def __init__(self, path: Path) -> None:
        self._seeds = {}
        for line in path.read_text().splitlines():
            row = json.loads(line)
            self._seeds[row["text"]] = row["seed"]

    def of(self, text: str) -> Any:
        return graph(_written(self._seeds[text]).graph) if text in self._seeds else graph(_written(0).graph)


def _written(seed: int) -> Any:
    import numpy as np

    from cxrreport.demo.phantoms.findings import sample_findings
    from cxrreport.demo.phantoms.grammar import write_report

    rng = np.random.default_rng(seed)
    return write_report(sample_findings(rng), rng)


def graph(text: Any) -> Any:
    from review_page import graph as of_text

    return of_text(text)


def write(folder: Path, studies: int) -> None:
    """An ingest folder."""
    import numpy as np

    from cxrreport.dataset import ManifestRow, encode_png, write_image_shard, write_manifest
    from cxrreport.records import Image, Report, Split, View

    rng = np.random.default_rng(0)
    pngs = [encode_png(rng.integers(0, 256, (224, 224), dtype=np.uint8)) for _ in range(IMAGES)]
    total = round(studies * IMAGES_PER_STUDY)
    shards = max(1, round(SHARDS * studies / 228_000))
    per_shard = -(-total // shards)
    first = folder / "images/00000.parquet"
    write_image_shard(first, [(str(n), pngs[n % IMAGES]) for n in range(per_shard)])
    for number in range(1, shards):
        os.link(first, folder / f"images/{number:05}.parquet")
    sentences = [sentence for seed in range(400) for sentence in _written(seed).graph.text.split(". ")]
    rows: list[ManifestRow] = []
    for number in range(studies):
        images = int((number + 1) * IMAGES_PER_STUDY) - int(number * IMAGES_PER_STUDY)
        chosen = rng.integers(0, len(sentences), 9)
        words = [sentences[one].rstrip(".") for one in chosen]
        report = Report(
            indication=f"{40 + number % 50}-year-old with cough and fever, evaluate for pneumonia",
            findings=f"{OPENINGS[number % 3]} {'. '.join(words[:7])}. Study {number % 9973}.".strip(),
            impression=f"{'. '.join(words[7:])}.",
        )
        person = number // 3  # of two with a prior; every other report lost a mention of it
        patient = f"{10_000_000 + person}"
        split = Split.TEST if person % 70 == 1 else Split.VALIDATE if person % 125 == 2 else Split.TRAIN
        prior = {"prior_study_id": f"{50_000_000 + number - 1}", "prior_days": number % 400} if number % 3 else {}
        full = replace(report, findings=f"{report.findings} Unchanged since the prior study.") if number % 2 else None
        for _ in range(max(1, images)):
            place = len(rows)
            name = f"{place:08x}-{place * 7919 % 2**32:08x}-{place * 104729 % 2**32:08x}-{place:08x}-{number:08x}"
            image = Image(
                image_id=name,
                study_id=f"{50_000_000 + number}",
                patient_id=patient,
                split=split,
                view=View.PA,
                source=f"files/p{patient[:2]}/p{patient}/s{50_000_000 + number}/{name}.dcm",
                rows=2544,
                columns=3056,
            )
            rows.append(
                ManifestRow(
                    image=image,
                    report=report,
                    image_sha256=f"{place:064x}",
                    shard=f"{place // per_shard:05}.parquet",
                    shard_row=place % per_shard,
                    report_with_mentions=full,
                    **prior,
                )
            )
    write_manifest(folder, rows, {"resolution": 224, "resize": "squash", "interpolation": "bilinear"})


def write_pairs(folder: Path, pairs: int) -> None:
    """References, and five systems with other texts for most studies; the texts with their seeds."""
    (folder / "pairs").mkdir()
    texts: dict[str, int] = {}

    def text(seed: int) -> str:
        written = _written(seed).graph.text
        texts.setdefault(written, seed)
        return str(written)

    for place, name in enumerate(("references", *SYSTEMS)):
        lines = []
        for number in range(pairs):
            row = {"study_id": f"{50_000_000 + number}", "patient_id": f"{10_000_000 + number // 3}"}
            lines.append(row | {"findings": text(number + (number % (place + 1)) * 31)})
        (folder / f"pairs/{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    rows = (json.dumps({"text": one, "seed": seed}) for one, seed in texts.items())
    (folder / "texts.jsonl").write_text("\n".join(rows))


if __name__ == "__main__":
    # At the end: a file beside this one has the name of a library.
    sys.path = [path for path in sys.path if Path(path) != Path(__file__).parent] + [str(Path(__file__).parent)]
    main()
