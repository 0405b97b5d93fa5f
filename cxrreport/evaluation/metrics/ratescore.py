"""RaTEScore (Zhao et al. 2024, arXiv 2406.16845), equal to the package `RaTEScore` 0.6.0 on equal sentences.

The package needs medspacy, whose dependencies do not run with NumPy 2 on Python 3.11, so its steps are done here:
entities of every sentence by a token classifier, the embedding of each, and for each the most similar one of the other
report.
Sentences are those of `reports.sentences`; the package splits with PyRuSH. A report without entities on either side
scores 0.5, as in the package.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from cxrreport.errors import WeightsError
from cxrreport.evaluation.metrics import Metric, Pairs
from cxrreport.evaluation.metrics.encoder import Encoder, LoadedEncoder, fingerprint
from cxrreport.evaluation.metrics.pair_scores import Compute, Pair, PairScores
from cxrreport.reports.sentences import sentences
from cxrreport.settings import EvaluateSettings
from cxrreport.storage.memory import release_unused_memory

_ANY = ("config.json", "model.safetensors", "pytorch_model.bin", "tokenizer*", "special_tokens_map.json")
ENTITIES = Encoder(
    folder="ratescore/entities",
    repository="Angelakeke/RaTE-NER-Deberta",
    entry="ratescore",
    files=(*_ANY, "added_tokens.json", "spm.model"),
)
TERMS = Encoder(
    folder="ratescore/terms",
    repository="FremyCompany/BioLORD-2023-C",
    entry="ratescore",
    files=(*_ANY, "vocab*"),
)
KINDS = ("ABNORMALITY", "ANATOMY", "DISEASE", "NON-ABNORMALITY", "NON-DISEASE")
AFFINITIES = (
    (0.4276119164393705, 0.6240929990607657, 0.0034478181112993847, 0.5431049700217344, 0.27005425386213877),
    (0.7487824274337533, 0.2856134859160784, 0.4592143222158069, 0.02097055139911715, 0.00013736314126696204),
    (0.8396510075734789, 0.9950209388542061, 0.8460555030578727, 0.9820689020512646, 0.3789136708096537),
    (0.16546764653692908, 0.018670610691852826, 0.719397354576018, 0.0009357166071730684, 0.0927333564267591),
    (0.7759420231214385, 0.1839139293714062, 0.10073046076318157, 0.03860183811876373, 0.34065681486566446),
)
"""Weight of a match by the kinds of its two entities, the package's matrix for long reports."""
NEGATION = 0.8716553966489615
"""Factor of a match of which one side is negated."""
NOTHING = 0.5
"""Score of a pair of which one side has no entity."""
_SHORTEST = 3
_LONGEST_TERM = 30
_OUTSIDE = "O"
_VECTORS = 20_000
"""Most embeddings of entities that are kept for the next pairs, 3 KB each."""


@dataclass(frozen=True, slots=True)
class Term:
    """An entity as the package reads it."""

    text: str
    kind: str


def spans(labels: Sequence[str]) -> list[tuple[int, int, str]]:
    """First and last token and kind of the entities in the labels of one sentence, special tokens included.

    This follows the package in its uneven cases: a single token between two beginnings is left open and may be read
    again, and an entity that runs into the last token ends before it.
    """
    found: list[tuple[int, int, str]] = []
    start: int | None = None
    end: int | None = None
    kind = ""
    for place in range(1, len(labels) - 1):
        label, following = labels[place], labels[place + 1]
        if label.startswith("B-"):
            if following.startswith("I-"):
                start, kind = place, label[2:]
            else:
                found.append((place, place, label[2:]))
                closed = following.startswith(_OUTSIDE)
                start, end, kind = (None, None, "") if closed else (place, place, label[2:])
        elif label.startswith("I-") and not following.startswith("I-"):
            if start is not None:
                found.append((start, place, kind))
            closed = following.startswith(_OUTSIDE)
            start, end, kind = (None, None, "") if closed else (place, place, label[2:])
    if start is not None and end is None:
        found.append((start, len(labels) - 2, kind))
    return found


def directed(one: torch.Tensor, other: torch.Tensor, kinds: Sequence[str], others: Sequence[str]) -> float:
    """Weighted mean similarity of the entities of one report to the most similar ones of the other.

    Args:
        one: float32[entities, width], embeddings of norm 1.
        other: float32[entities, width], embeddings of norm 1.
        kinds: kind of each entity of `one`.
        others: kind of each entity of `other`.
    """
    found = [torch.topk(other @ vector, 1) for vector in one]  # of equal ones the package takes what topk gives
    best, places = (torch.cat(part) for part in zip(*found, strict=True))
    total = weights = 0.0
    for kind, value, place in zip(kinds, best.tolist(), places.tolist(), strict=True):
        match = others[place]
        weight = AFFINITIES[KINDS.index(kind)][KINDS.index(match)]
        negated = "ANATOMY" not in (kind, match) and kind.startswith("NON-") != match.startswith("NON-")
        total += value * weight * (NEGATION if negated else 1.0)
        weights += weight
    return total / weights if weights else 0.0


class EntityReader:
    """The token classifier.

    Raises:
        WeightsError: it cannot be loaded, or its labels are not those of RaTE-NER.
    """

    def __init__(self, folder: Path) -> None:
        self._entities = LoadedEncoder(folder, "AutoModelForTokenClassification", longest=512)
        self._labels = {int(number): str(label) for number, label in self._entities.model.config.id2label.items()}
        if unknown := {label[2:] for label in self._labels.values() if label != _OUTSIDE} - set(KINDS):
            raise WeightsError(
                f"{folder}: the labels {', '.join(sorted(unknown))} are not those of {ENTITIES.repository}; "
                "download it again"
            )

    def terms(self, texts: Sequence[str]) -> list[list[Term]]:
        """The entities of each text."""
        tokenizer = self._entities.tokenizer
        split = [[one for one in sentences(text) if len(one) >= _SHORTEST] for text in texts]
        distinct = list(dict.fromkeys(sentence for ones in split for sentence in ones))
        rows = [self._entities.ids(sentence) for sentence in distinct]
        found: dict[str, list[Term]] = {}
        for place, logits in self._entities.outputs(rows):
            labels = [self._labels[number] for number in logits.argmax(dim=-1).tolist()]
            tokens = [str(token) for token in tokenizer.convert_ids_to_tokens(rows[place])]
            found[distinct[place]] = [
                Term(sys.intern(tokenizer.convert_tokens_to_string(tokens[first : last + 1])), kind)
                for first, last, kind in spans(labels)
            ]
        return [[term for sentence in ones for term in found[sentence]] for ones in split]


class _Scorer:
    """Scores of pairs. The two models are never in memory together.

    Args:
        entities: folder of the token classifier.
        terms: folder of the encoder of entities.
        pairs: pairs whose entities are read at once.
    """

    def __init__(self, entities: Path, terms: Path, pairs: Sequence[Pair]) -> None:
        self._folder = entities
        self._terms: dict[str, list[Term]] = {}
        self._read(pairs)
        self._encoder = LoadedEncoder(terms, longest=_LONGEST_TERM)
        self._vectors: dict[str, torch.Tensor] = {}

    def _read(self, pairs: Sequence[Pair]) -> None:
        if new := list(dict.fromkeys(text for pair in pairs for text in pair if text not in self._terms)):
            self._terms |= zip(new, EntityReader(self._folder).terms(new), strict=True)
            release_unused_memory()

    def __call__(self, pairs: Sequence[Pair]) -> list[list[float]]:
        self._read(pairs)
        listed = dict.fromkeys(term.text for pair in pairs for text in pair for term in self._terms[text])
        if len(self._vectors) > _VECTORS:
            self._vectors = {text: vector for text, vector in self._vectors.items() if text in listed}
        new = [text for text in listed if text not in self._vectors]
        for place, state in self._encoder.outputs([self._encoder.ids(text) for text in new], batch=64):
            self._vectors[new[place]] = _unit(state[0])
        return [[self._score(self._terms[candidate], self._terms[reference])] for candidate, reference in pairs]

    def _score(self, candidate: Sequence[Term], reference: Sequence[Term]) -> float:
        if not candidate or not reference:
            return NOTHING
        one, other = (torch.stack([self._vectors[term.text] for term in side]) for side in (reference, candidate))
        kinds, others = ([term.kind for term in side] for side in (reference, candidate))
        precision, recall = directed(one, other, kinds, others), directed(other, one, others, kinds)
        return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _unit(vector: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(vector, dim=0)


def ratescore_metric(settings: EvaluateSettings, cache: Path | None) -> Metric:
    """RaTEScore as a metric.

    Raises:
        WeightsError: one of the two models is missing.
    """
    entities, terms = ENTITIES.find(settings), TERMS.find(settings)
    conditions = {
        "ratescore": "as RaTEScore 0.6.0, matrix for long reports, 0.5 if either side has no entity",
        "sentences": "cxrreport.reports.sentences (the package: PyRuSH)",
        "entities_sha256": fingerprint(entities),
        "terms_sha256": fingerprint(terms),
    }

    def load(pairs: Sequence[Pair]) -> Compute:
        return _Scorer(entities, terms, pairs)

    scores = PairScores(load, conditions, cache)

    def score(pairs: Pairs) -> dict[str, float]:
        return dict(zip(pairs.references, scores(pairs)[:, 0].tolist(), strict=True))

    return Metric(name="ratescore", score=score, prepare=scores.prepare, release=scores.release, conditions=conditions)
