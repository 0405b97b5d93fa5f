"""Time of RadGraph F1, beside `F1RadGraph` of the radgraph package; the last line is a JSON object.

    python benchmarks/radgraph.py             # 400 pairs, about eight minutes on two cores
    python benchmarks/radgraph.py --pairs 40

Two evaluations in a row, as in a project: the predictions of one model against the references, then those of another
model against the same references. Texts are different reports of phantoms. The encoder has the size of BERT-base with
random weights; spans and heads are DyGIE++'s defaults, and the bias of the entity head is set so that reports get about
as many entities as real ones. Both methods alternate block by block in this process, with the same threads; loading the
model is not counted.

`first_run` and `second_run`: seconds of stock divided by seconds of cxrreport; with `_cpu` the same for CPU time, which
depends less on other work on the machine. `identical`: annotations are equal entity for entity and relation for
relation, and so are the scores of every pair at every level.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import BertConfig

sys.path[0] = str(Path(__file__).parent.parent)  # not this folder: this file has the name of the package

from benchmarks.baselines import radgraph_stock
from cxrreport.assets import radgraph_folder
from cxrreport.demo.phantoms.grammar import sample_annotated
from cxrreport.evaluation.radgraph import Annotation, Level, agreement
from cxrreport.evaluation.radgraph.annotator import RadGraphAnnotator
from cxrreport.evaluation.radgraph.compat import build_model, read_vocabulary, working_tokenizers

MODEL = "radgraph-xl"
SPAN_WIDTH = 8
ENTITIES_PER_TOKEN = 0.45
BLOCK = 40
"""Pairs that each side scores before the other one's turn."""


def reports(count: int, seed: int) -> list[str]:
    """Different reports of phantoms."""
    rng = np.random.default_rng(seed)
    found: dict[str, None] = {}
    while len(found) < count:
        found[sample_annotated(rng, templates="seen").text] = None
    return list(found)


def make_archive(folder: Path, texts: Sequence[str], seed: int = 0) -> None:
    """An archive in the published layout with an encoder of BERT-base size and random weights."""
    tiny = radgraph_folder()
    (folder / "encoder").mkdir(parents=True)
    (folder / "vocabulary").mkdir()
    for file in ("vocabulary", "encoder"):
        for source in (tiny / file).iterdir():
            (folder / file / source.name).write_bytes(source.read_bytes())
    BertConfig().save_pretrained(folder / "encoder")
    config = json.loads((tiny / "config.json").read_text())
    config["dataset_reader"]["max_span_width"] = config["model"]["max_span_width"] = SPAN_WIDTH
    config["model"]["feature_size"] = 20
    config["model"]["feedforward_params"] = {"num_layers": 2, "hidden_dims": 150, "dropout": 0.4}
    config["model"]["modules"]["relation"]["spans_per_word"] = 0.5
    for part in (config["dataset_reader"]["token_indexers"], config["model"]["embedder"]["token_embedders"]):
        part["bert"]["model_name"] = str(folder / "encoder")
    (folder / "config.json").write_text(json.dumps(config))
    torch.manual_seed(seed)
    with working_tokenizers():
        _, model = build_model(config, read_vocabulary(folder / "vocabulary"), str(folder / "encoder"))
    torch.save(model.state_dict(), folder / "weights.th")
    calibrate(folder, texts)


def calibrate(folder: Path, texts: Sequence[str]) -> None:
    """Lower the bias of the entity head until reports have as many entities as they should."""
    state = torch.load(folder / "weights.th", weights_only=True)
    (bias,) = (name for name in state if "_ner_scorers" in name and name.endswith("1._module.bias"))
    low, high = -3.0, 3.0
    for _ in range(12):
        state[bias] = torch.full_like(state[bias], (low + high) / 2)
        torch.save(state, folder / "weights.th")
        found = RadGraphAnnotator(folder, device="cpu").annotate(texts)
        many = sum(len(one.entities) for one in found) > ENTITIES_PER_TOKEN * sum(len(one.tokens) for one in found)
        low, high = (low, (low + high) / 2) if many else ((low + high) / 2, high)


class Sides:
    """Both sides on one archive, with what they came to."""

    def __init__(self, root: Path, cache: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.stock = radgraph_stock.load(root, MODEL)
        self.ours = RadGraphAnnotator(root / MODEL, device="cpu", cache=cache)
        self.identical = True
        self.entities = 0

    def run(self, candidates: Sequence[str], references: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Seconds of each block, of stock and of cxrreport, on the clock and of CPU: float64[blocks, 2, 2]."""
        seconds = []
        for block in np.array_split(np.arange(len(references)), max(1, len(references) // BLOCK)):
            some, others = [candidates[n] for n in block], [references[n] for n in block]
            started = clocks()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                _, scores, *graphs = self.stock(refs=others, hyps=some)
            between = clocks()
            found = self.ours.annotate([*some, *others])
            pairs = list(zip(found[: len(some)], found[len(some) :], strict=True))
            f1 = [[agreement(*pair, level, lower_case=False).f1 for pair in pairs] for level in Level]
            seconds.append([between - started, clocks() - between])
            expected = [entities(graph) for graph in (*graphs[0], *graphs[1])]
            self.identical &= [as_stock(one) for one in found] == expected and f1 == [list(one) for one in scores]
            self.entities += sum(len(one.entities) for one in found)
        return np.array(seconds)


def clocks() -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array([time.perf_counter(), time.process_time()])


def entities(graph: dict[str, Any]) -> dict[str, Any]:
    return dict(graph["entities"])


def as_stock(annotation: Annotation) -> dict[str, Any]:
    return {
        str(number): {
            "tokens": one.words,
            "label": one.label,
            "start_ix": one.start,
            "end_ix": one.end,
            "relations": [[kind, str(aim + 1)] for kind, aim in one.relations],
        }
        for number, one in enumerate(annotation.entities, start=1)
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pairs", type=int, default=400)
    pairs = parser.parse_args().pairs
    texts = reports(3 * pairs, seed=0)
    references, first, second = texts[:pairs], texts[pairs : 2 * pairs], texts[2 * pairs :]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_archive(root / MODEL, reports(6, seed=1))
        sides = Sides(root, root / "annotations.sqlite")
        runs = {"first_run": sides.run(first, references), "second_run": sides.run(second, references)}
    result: dict[str, float | int | bool] = {}
    for name, seconds in runs.items():
        stock, ours = seconds[..., 0].sum(axis=0)
        print(f"{name}: stock {stock:.1f} s, cxrreport {ours:.1f} s, {pairs} pairs")
        wall, cpu = np.median(seconds[:, 0] / seconds[:, 1], axis=0)
        result |= {name: round(wall, 3), f"{name}_cpu": round(cpu, 3)}
    result |= {"identical": sides.identical, "pairs": pairs, "entities": sides.entities}
    result |= {"threads": torch.get_num_threads()}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
