"""Time and memory of `evaluate` with all metrics; the last line is JSON.

    python benchmarks/evaluation.py                                # 3,000 pairs, five systems, small encoders
    python benchmarks/evaluation.py --size published --distinct 60 # random weights of the published sizes

Reports are those of phantoms, each text of every system another one, or `--distinct` different ones in every system,
in turn. A text or pair is read once, so fewer take less time; models and rows are the same. `published`: BERT-base for
CheXbert (its file in the format before torch 1.6, with the state of its optimizer; `--archive` for the later one) and
for each of both RadGraph models, distilroberta-base and distilbert-base for BERTScore, deberta-v3-base and a BERT-base
for RaTEScore, all with random weights. `small`: encoders of a few thousand weights, and the tiny RadGraph.
`peak_mb` is the greatest resident memory of the process as the kernel counts it, `imports_mb` what its libraries take;
`by_metric` has seconds and the greatest resident memory while the metric was computed, from samples.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).parent.parent)  # not this folder: a file beside this one has the name of a library

SYSTEMS = ("model", "shuffled", "blank", "nearest", "no_adapter")
METRICS = ("radgraph", "clinical", "bleu", "rouge_l", "cider", "chexbert")
METRICS += ("bertscore", "bertscore_radeval", "radcliq", "ratescore")
VOCABULARY = {"published": (30_522, 50_265, 128_100), "small": (2_000, 2_000, 2_000)}
"""Size of the vocabulary of the BERT models, of RoBERTa and of DeBERTa."""
WIDE = {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072}
NARROW = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=3_000)
    parser.add_argument("--distinct", type=int, help="different reports of each system; all, if not given")
    parser.add_argument("--archive", action="store_true", help="CheXbert in the format since torch 1.6")
    parser.add_argument("--systems", type=int, default=len(SYSTEMS))
    parser.add_argument("--size", choices=VOCABULARY, default="small")
    parser.add_argument("--metrics", nargs="+", default=METRICS)
    parser.add_argument("--weights", type=Path, help="folder for the random weights, which are kept")
    parser.add_argument("--output", type=Path, help="output folder of `evaluate`, which is kept")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        measured(options)
        return
    with tempfile.TemporaryDirectory() as temporary:
        weights = options.weights or Path(temporary) / "weights"
        if not weights.exists():
            write_weights(weights, options.size, archive=options.archive)
        given = ["--weights", str(weights), "--output", str(options.output or Path(temporary) / "scores")]
        command = [sys.executable, __file__, *sys.argv[1:], *given, "--child"]
        raise SystemExit(subprocess.run(command).returncode)


def measured(options: argparse.Namespace) -> None:
    os.environ["CXRREPORT_WEIGHTS"] = str(options.weights)
    from cxrreport.evaluation import evaluate as module
    from cxrreport.evaluation.radgraph.annotator import RadGraphAnnotator
    from cxrreport.settings import EvaluateSettings

    imported = resident_mb()
    sampled = Sampled()
    select = module.selected_metrics

    def selected(*arguments: Any) -> Any:
        found = select(*arguments)
        return found._replace(metrics=[watched(one) for one in found.metrics])

    def watched(metric: Any) -> Any:
        functions = {name: getattr(metric, name) for name in ("score", "prepare") if getattr(metric, name)}
        return replace(metric, **{name: sampled.during(metric.name, one) for name, one in functions.items()})

    module.selected_metrics = selected  # type: ignore[assignment]
    graphs = RadGraphAnnotator._graphs
    RadGraphAnnotator._graphs = sampled.during("RadGraph", graphs)  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_pairs(folder, options.pairs, SYSTEMS[: options.systems], options.distinct or options.pairs)
        with sampled.running():
            begun = time.perf_counter()
            evaluation = module.evaluate(
                EvaluateSettings(
                    predictions=folder / "model.jsonl",
                    references=folder / "references.jsonl",
                    baselines={name: folder / f"{name}.jsonl" for name in SYSTEMS[1 : options.systems]},
                    output=options.output,
                    metrics=tuple(options.metrics),
                    radgraph="radgraph-xl" if options.size == "published" else "tiny",
                    annotation_cache=folder / "annotations.sqlite",
                    most_frequent=False,
                )
            )
            seconds = time.perf_counter() - begun
    by_metric = {
        name: {"seconds": evaluation.seconds.get(name), "mb": round(peak)} for name, peak in sampled.peaks.items()
    }
    for name, one in by_metric.items():
        print(f"{name:20} {one['seconds'] or 0:9.1f} s {one['mb']:8} MB")
    result = {name: getattr(options, name) for name in ("pairs", "distinct", "systems", "size")}
    result |= {"seconds": round(seconds, 1), "load": os.getloadavg()[0]}
    result |= {"imports_mb": round(imported), "peak_mb": round(peak_mb()), "by_metric": by_metric}
    print(json.dumps(result | {"not_computed": sorted(evaluation.not_computed)}))


class Sampled:
    """The greatest resident memory by what the process was doing, MB, from samples of a thread."""

    def __init__(self) -> None:
        self.peaks: dict[str, float] = {}
        self._doing = ["other"]
        self._done = threading.Event()

    @contextmanager
    def running(self) -> Iterator[None]:
        thread = threading.Thread(target=self._sample, daemon=True)
        thread.start()
        yield
        self._done.set()
        thread.join()

    def _sample(self) -> None:
        while not self._done.wait(0.01):
            name = self._doing[-1]
            self.peaks[name] = max(self.peaks.get(name, 0.0), resident_mb())

    def during(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any, **named: Any) -> Any:
            self._doing.append(name)
            try:
                return function(*arguments, **named)
            finally:
                self._doing.pop()

        return called


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def peak_mb() -> float:
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024


def reports(count: int, seed: int) -> list[tuple[str, str]]:
    """Different reports of phantoms of two studies' findings, as FINDINGS and IMPRESSION."""
    import numpy as np

    from cxrreport.demo.phantoms.findings import sample_findings
    from cxrreport.demo.phantoms.grammar import write_report

    rng = np.random.default_rng(seed)
    found: dict[tuple[str, str], None] = {}
    while len(found) < count:
        one, other = (write_report(sample_findings(rng), rng).report for _ in range(2))
        found[f"{one.findings} {other.findings}", one.impression] = None
    return list(found)


def write_pairs(folder: Path, pairs: int, systems: tuple[str, ...], distinct: int) -> None:
    """References, and systems whose reports are other ones, some of them equal to the reference."""
    references = reports(distinct, 0)
    for place, name in enumerate(("references", *systems)):
        written = references if place == 0 else reports(distinct, place)
        lines = []
        for number in range(pairs):
            which = number % distinct
            findings, impression = references[which] if which % 7 == 0 else written[which]
            row = {"study_id": f"s{number:06}", "findings": findings, "impression": impression}
            lines.append(row | {"patient_id": f"p{number // 3}"})
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def write_weights(root: Path, size: str, *, archive: bool) -> None:
    """Random weights of every encoder, in the layout that `cxrreport weights` leaves."""
    import torch
    import transformers

    from benchmarks.radgraph import make_archive
    from cxrreport.assets import radgraph_folder
    from cxrreport.evaluation.metrics.chexbert import FINDINGS
    from cxrreport.evaluation.metrics.ratescore import KINDS

    torch.manual_seed(0)
    bert, roberta, deberta = VOCABULARY[size]
    width = WIDE if size == "published" else NARROW
    layers = 12 if size == "published" else 6
    corpus = [f"{findings} {impression}" for findings, impression in reports(2_000, 99)]
    tokenizer = word_pieces(corpus)

    def save(folder: Path, model: Any) -> None:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    robertas = transformers.RobertaConfig(
        vocab_size=roberta, num_hidden_layers=6, max_position_embeddings=514, pad_token_id=0, **width
    )
    save(root / "distilroberta-base", transformers.RobertaModel(robertas))
    distilled = {"dim": width["hidden_size"], "hidden_dim": width["intermediate_size"]}
    distilled |= {"n_heads": width["num_attention_heads"], "n_layers": 6}
    save(
        root / "distilbert-base-uncased",
        transformers.DistilBertModel(transformers.DistilBertConfig(vocab_size=bert, **distilled)),
    )
    labels = dict(enumerate(["O", *(f"{part}-{kind}" for kind in KINDS for part in "BI")]))
    relative = {"relative_attention": True, "position_buckets": 256, "norm_rel_ebd": "layer_norm"}
    relative |= {"share_att_key": True, "pos_att_type": ["p2c", "c2p"], "position_biased_input": False}
    relative |= {"type_vocab_size": 0, "max_relative_positions": -1, "pad_token_id": 0}
    named = transformers.DebertaV2Config(
        vocab_size=deberta, num_hidden_layers=layers, id2label=labels, **relative, **width
    )
    save(root / "ratescore/entities", transformers.DebertaV2ForTokenClassification(named))
    plain = transformers.BertConfig(vocab_size=bert, num_hidden_layers=layers, **width)
    save(root / "ratescore/terms", transformers.BertModel(plain))

    chexbert = root / "chexbert"
    chexbert.mkdir()
    words = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    (chexbert / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    (chexbert / "config.json").write_text(json.dumps({"vocab_size": bert, "num_hidden_layers": layers, **width}))
    state = {f"module.bert.{name}": one for name, one in transformers.BertModel(plain).state_dict().items()}
    for head in range(len(FINDINGS)):
        classes = 4 if head < len(FINDINGS) - 1 else 2
        state[f"module.linear_heads.{head}.weight"] = torch.randn(classes, width["hidden_size"])
        state[f"module.linear_heads.{head}.bias"] = torch.randn(classes)
    moments = {
        number: {"step": 1, "exp_avg": torch.zeros_like(one), "exp_avg_sq": torch.zeros_like(one)}
        for number, one in enumerate(state.values())
    }
    whole = {"epoch": 1, "model_state_dict": state, "optimizer_state_dict": {"state": moments, "param_groups": []}}
    torch.save(whole, chexbert / "chexbert.pth", _use_new_zipfile_serialization=archive)

    for seed, name in enumerate(("radgraph", "radgraph-xl")):
        if size == "published":
            make_archive(root / name, corpus[:6], seed)
        else:
            shutil.copytree(radgraph_folder(), root / name)


def word_pieces(texts: list[str]) -> Any:
    """A tokenizer of word pieces made from `texts`, in the class that reads any `tokenizer.json`."""
    from tokenizers import BertWordPieceTokenizer, processors
    from transformers import PreTrainedTokenizerFast

    trained = BertWordPieceTokenizer(lowercase=True)
    trained.train_from_iterator(texts, vocab_size=1_000)
    ends = [(token, trained.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    trained._tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    named = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=trained._tokenizer, model_max_length=512, **named)


if __name__ == "__main__":
    main()
