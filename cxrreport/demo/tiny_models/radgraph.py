"""Train the project's tiny RadGraph: a small model in the published format, for the phantoms' grammar.

    python -m cxrreport.demo.tiny_models.radgraph --out FOLDER --seed 0

It is the model of the `radgraph` package (DyGIE++ with its span, entity and relation modules) on a two-layer BERT whose
vocabulary is that of the grammar and the filler words. It is only valid for reports of phantoms: its archive
contains `provenance.json` with `"synthetic": true`, and every score computed with it is labelled synthetic.

Training replaces some words outside of entities by filler words, so that the model does not memorise the templates.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import logging
import math
import re
import string
import sys
import time
from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cxrreport.demo.phantoms.annotated import LABELS, RELATIONS, AnnotatedText, TemplateEntity
from cxrreport.demo.phantoms.grammar import Templates, sample_annotated, sample_compared
from cxrreport.evaluation.radgraph import Annotation, Entity
from cxrreport.evaluation.radgraph.annotator import RadGraphAnnotator
from cxrreport.evaluation.radgraph.compat import (
    NON_PADDED,
    build_model,
    document_batch,
    read_vocabulary,
    working_tokenizers,
)
from cxrreport.storage.atomic_files import atomic_path, write_json

logger = logging.getLogger(__name__)

MODEL_TYPE = "radgraph-xl"
WIDTH = 96
LAYERS = 2
MAX_SPAN_WIDTH = 4
"""Maximum length of an entity in tokens; the longest of the grammar has two."""
STEPS = 1500
BATCH = 8
RATE = 2e-3
FILLER = 0.15
"""Fraction of the words outside of entities that training replaces by filler words."""
RANDOM_LETTERS = 0.2
"""Fraction of the filler words that are random letters, which teach the model to ignore unknown words."""

_ORDINARY = (
    "a an the is are was be been has have had of on in at to for from with by and or but as than that this these those "
    "which there here it its both each all any some other again also only now then more most less very quite rather "
    "seen noted shown made visible present evident identified demonstrated suggested appear appears appearing seem "
    "seems may might could can would should patient examination film image study view views finding findings evidence "
    "note notes projects projecting over under within along near about around between region area side base apex "
    "consistent compatible likely suspected concerning representing reflecting following since today currently"
)
_FILLERS = _ORDINARY.split()


def configuration() -> dict[str, Any]:
    """Return `config.json` in the published layout. The path of the encoder is relative to the archive."""
    bert = {"type": "pretrained_transformer_mismatched", "model_name": "encoder", "max_length": 512}
    return {
        "dataset_reader": {"type": "dygie", "max_span_width": MAX_SPAN_WIDTH, "token_indexers": {"bert": bert}},
        "model": {
            "type": "dygie",
            "embedder": {"token_embedders": {"bert": bert}},
            "initializer": {},
            "module_initializer": {},
            "feature_size": 16,
            "max_span_width": MAX_SPAN_WIDTH,
            "target_task": "relation",
            "feedforward_params": {"num_layers": 2, "hidden_dims": WIDTH, "dropout": 0.1},
            "loss_weights": {"ner": 1.0, "relation": 1.0, "coref": 0.0, "events": 0.0},
            "modules": {
                "ner": {},
                "relation": {"spans_per_word": 1.0},  # four fifths of the words of terse sentences are entities
                "coref": {"spans_per_word": 0.1, "max_antecedents": 1, "coref_prop": 0},
                "events": {"trigger_spans_per_word": 0.1, "argument_spans_per_word": 0.1, "loss_weights": {}},
            },
        },
    }


def write_encoder(folder: Path, texts: Iterable[str]) -> None:
    """Write a lower-casing word-piece tokenizer and the configuration of a small BERT.

    The vocabulary holds every word of `texts` and of the fillers, and single characters for other words. The trainer
    of the tokenizers library is not used: it breaks ties at random, and weights must be reproducible from the seed.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, PreTrainedTokenizerFast

    special = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    words = {word for text in [*texts, _ORDINARY] for word in re.findall(r"\w+|[^\w\s]", text.lower())}
    characters = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    pieces = [*special.values(), *characters, *(f"##{c}" for c in characters), *sorted(words - set(characters))]
    places = {piece: place for place, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(places, unk_token=special["unk_token"]))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    start, end = ((special[name], places[special[name]]) for name in ("cls_token", "sep_token"))
    tokenizer.post_processor = processors.BertProcessing(end, start)
    make_tokenizer: Callable[..., Any] = PreTrainedTokenizerFast
    make_tokenizer(tokenizer_object=tokenizer, model_max_length=512, **special).save_pretrained(folder)
    BertConfig(
        vocab_size=len(pieces),
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        intermediate_size=2 * WIDTH,
        max_position_embeddings=512,
        hidden_dropout_prob=0.1,
        attention_probs_dropout_prob=0.1,
    ).save_pretrained(folder)


def write_vocabulary(folder: Path) -> None:
    """Write the label files in the published layout. The empty entity label, index 0, means "no entity"."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / NON_PADDED).write_text("*tags\n*labels\n", encoding="utf-8")
    (folder / f"{MODEL_TYPE}__ner_labels.txt").write_text("\n".join(["", *LABELS.values()]) + "\n", encoding="utf-8")
    relations = "\n".join(RELATIONS.values()) + "\n"
    (folder / f"{MODEL_TYPE}__relation_labels.txt").write_text(relations, encoding="utf-8")


def with_fillers(text: AnnotatedText, rng: np.random.Generator) -> AnnotatedText:
    """Replace some words outside of entities by filler words. The graph does not change."""
    covered = {place for entity in text.entities for place in range(entity.start, entity.end + 1)}
    tokens = [
        _filler(rng)
        if place not in covered and token.isalpha() and token.lower() not in _CUES and rng.random() < FILLER
        else token
        for place, token in enumerate(text.tokens)
    ]
    return replace(text, tokens=tuple(tokens))


def _filler(rng: np.random.Generator) -> str:
    if rng.random() < RANDOM_LETTERS:
        return "".join(rng.choice(list(string.ascii_lowercase), size=int(rng.integers(2, 10))))
    return str(rng.choice(_FILLERS))


_CUES = frozenset({"no", "not", "neither", "nor", "without", "possible", "may"})
"""Words outside of entities that determine a label, and are never replaced."""


def document(texts: Sequence[AnnotatedText]) -> dict[str, Any]:
    """Return `texts` as one document in DyGIE++'s JSON: one sentence per text, positions relative to the document."""
    ner, relations, shift = [], [], 0
    for text in texts:
        spans = [(entity.start + shift, entity.end + shift) for entity in text.entities]
        ner.append([[*span, entity.label] for span, entity in zip(spans, text.entities, strict=True)])
        relations.append([[*spans[r.head], *spans[r.tail], r.kind] for r in text.relations])
        shift += len(text.tokens)
    return {
        "doc_key": "0",
        "dataset": MODEL_TYPE,
        "sentences": [list(text.tokens) for text in texts],
        "ner": ner,
        "relations": relations,
    }


def graph_f1(annotations: Sequence[Annotation], truths: Sequence[AnnotatedText]) -> tuple[float, float]:
    """Compute micro F1 of entities (span and label) and relations (both spans and type), each in [0, 1]."""
    pairs = list(zip(annotations, truths, strict=True))
    entities = [
        ({(e.start, e.end, e.label) for e in found.entities}, {(e.start, e.end, e.label) for e in true.entities})
        for found, true in pairs
    ]
    relations = [
        (
            {(_span(e), kind, _span(found.entities[tail])) for e in found.entities for kind, tail in e.relations},
            {(_span(true.entities[r.head]), r.kind, _span(true.entities[r.tail])) for r in true.relations},
        )
        for found, true in pairs
    ]
    return _micro_f1(entities), _micro_f1(relations)


def _span(entity: Entity | TemplateEntity) -> tuple[int, int]:
    return (entity.start, entity.end)


def _micro_f1(pairs: Sequence[tuple[Set[Any], Set[Any]]]) -> float:
    common = sum(len(found & true) for found, true in pairs)
    total = sum(len(found) + len(true) for found, true in pairs)
    return 2 * common / total if total else 1.0


def fit(reader: Any, model: Any, *, steps: int, seed: int) -> list[float]:
    """Train `model` in place; returns the loss per report of every step."""
    rng = np.random.default_rng(seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.01)
    warmup = max(1, steps // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser,
        lambda step: min((step + 1) / warmup, 0.5 * (1 + math.cos(math.pi * min(step / steps, 1.0))) + 1e-3),
    )
    model.train()
    losses = []
    for step in range(1, steps + 1):
        texts = [with_fillers(_sample(rng, "seen"), rng) for _ in range(BATCH)]
        loss = model(**document_batch(reader, model, document(texts)))["loss"] / BATCH
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimiser.step()
        schedule.step()
        losses.append(float(loss.detach()))
        if step % 100 == 0:
            logger.info("step %d of %d, loss %.3f", step, steps, np.mean(losses[-100:]))
    model.eval()
    return losses


def make(folder: Path, *, seed: int, steps: int = STEPS, judged: int = 300) -> dict[str, Any]:
    """Train the model and write its archive.

    Args:
        folder: folder of the archive, created if it does not exist.
        seed: random seed of the initial weights and the texts.
        steps: number of optimiser steps.
        judged: number of texts of each kind for the scores in `provenance.json`.

    Returns:
        The content of `provenance.json`.
    """
    began, worked = time.monotonic(), time.process_time()
    torch.manual_seed(seed)
    rng = np.random.default_rng([seed, 1])
    write_encoder(folder / "encoder", (_sample(rng, "seen").text for _ in range(2000)))
    write_vocabulary(folder / "vocabulary")
    write_json(folder / "config.json", configuration())
    with working_tokenizers():
        reader, model = build_model(configuration(), read_vocabulary(folder / "vocabulary"), str(folder / "encoder"))
    losses = fit(reader, model, steps=steps, seed=seed)
    weights = io.BytesIO()  # torch.save would store the name of a file in its bytes
    torch.save({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, weights)
    with atomic_path(folder / "weights.th") as temporary:
        temporary.write_bytes(weights.getvalue())
    provenance: dict[str, Any] = {
        "synthetic": True,
        "made_by": "python -m cxrreport.demo.tiny_models.radgraph",
        "seed": seed,
        "steps": steps,
        "batch": BATCH,
        "loss_first_100_steps": round(float(np.mean(losses[:100])), 4),
        "loss_last_100_steps": round(float(np.mean(losses[-100:])), 4),
        "seconds": round(time.monotonic() - began, 1),
        "cpu_seconds": round(time.process_time() - worked, 1),
        "weights_sha256": hashlib.sha256(weights.getvalue()).hexdigest(),
        "scores": judge(folder, texts=judged, seed=seed),
    }
    write_json(folder / "provenance.json", provenance)
    return provenance


def _sample(rng: np.random.Generator, templates: Templates) -> AnnotatedText:
    """Draw a text, every other time one that states changes since a prior study."""
    sample = sample_compared if rng.random() < 0.5 else sample_annotated
    return sample(rng, templates=templates)


def judge(folder: Path, *, texts: int, seed: int) -> dict[str, dict[str, float]]:
    """Compute entity and relation F1 on new texts, from seen and from held-out templates."""
    annotator = RadGraphAnnotator(folder, device="cpu")
    scores: dict[str, dict[str, float]] = {}
    kinds: tuple[Templates, Templates] = ("seen", "held-out")
    for number, kind in enumerate(kinds, start=2):
        rng = np.random.default_rng([seed, number])
        truths = [_sample(rng, kind) for _ in range(texts)]
        entity, relation = graph_f1(annotator.annotate([truth.text for truth in truths]), truths)
        scores[kind] = {"entity_f1": round(entity, 4), "relation_f1": round(relation, 4), "texts": texts}
    return scores


def main() -> None:
    """Run the command line of this module."""
    parser = argparse.ArgumentParser(description="Train the tiny (synthetic) RadGraph.")
    parser.add_argument("--out", type=Path, required=True, help="folder of the archive, created if it does not exist")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=STEPS, help="number of optimiser steps")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)  # floating-point sums, and so the weights, depend on the number of threads
    sys.stdout.write(json.dumps(make(given.out, seed=given.seed, steps=given.steps), indent=2) + "\n")


if __name__ == "__main__":
    main()
