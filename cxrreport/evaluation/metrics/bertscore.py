"""BERTScore (Zhang et al. 2020, arXiv 1904.09675), equal to the package `bert-score` 0.3.13.

The package holds the embeddings of all texts at once, 3 GB for 3,000 pairs of five systems; here they are in memory for
at most 256 pairs. Tests compare the two.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from cxrreport.evaluation.metrics import Metric, Pairs
from cxrreport.evaluation.metrics.encoder import Encoder, LoadedEncoder, fingerprint
from cxrreport.evaluation.metrics.pair_scores import Compute, Pair, PairScores
from cxrreport.evaluation.statistics import Floats, mean
from cxrreport.settings import EvaluateSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Convention:
    """A convention of BERTScore.

    Args:
        layers: number of layers of the encoder that are used.
        baseline: F of unrelated sentences in this layer, from the package's `rescale_baseline/en`.
    """

    encoder: Encoder
    layers: int
    baseline: float


REXRANK = Convention(
    encoder=Encoder(folder="distilroberta-base", repository="distilbert/distilroberta-base", entry="bertscore"),
    layers=5,
    baseline=0.8473319,
)
"""ReXrank's, and that of RadCliQ: `distilroberta-base`, layer 5."""
RADEVAL = Convention(
    encoder=Encoder(
        folder="distilbert-base-uncased", repository="distilbert/distilbert-base-uncased", entry="bertscore-radeval"
    ),
    layers=5,
    baseline=0.66620487,
)
"""RadEval's: `distilbert-base-uncased`, layer 5."""
_EMPTY = 2
"""Number of tokens of an empty text: the special ones."""

Weights = Callable[[int], float]
"""From token id to its weight."""


def similarity(
    candidate: torch.Tensor, reference: torch.Tensor, weights: tuple[Sequence[float], Sequence[float]]
) -> float:
    """F of the greedy matching of two texts before rescaling.

    Args:
        candidate: float32[tokens, width], embeddings of norm 1.
        reference: float32[tokens, width], embeddings of norm 1.
        weights: weight of each token of the candidate and of the reference.

    Returns:
        F; 0 if it is undefined because the weights of a side sum to zero (an empty text has special tokens only).
    """
    cosines = candidate @ reference.T
    sides = []
    for best, given in zip((cosines.amax(dim=1), cosines.amax(dim=0)), weights, strict=True):
        weight = torch.tensor(given)
        sides.append(float((best * (weight / weight.sum())).sum()))
    precision, recall = sides
    found = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    return 0.0 if math.isnan(found) else found


def inverse_document_frequencies(references: Iterable[Sequence[int]], total: int) -> Weights:
    """Weights of tokens by the `total` references, as token ids with special tokens."""
    counts = Counter(token for ids in references for token in set(ids))
    unknown = math.log(total + 1)
    known: Mapping[int, float] = defaultdict(
        lambda: unknown, {token: math.log((total + 1) / (count + 1)) for token, count in counts.items()}
    )
    return lambda token: known.get(token, unknown)


class BertScore:
    """F of pairs, rescaled, without and with the weights of inverse document frequencies.

    Args:
        convention: encoder, layer and baseline.
        folder: folder of the encoder.
        cache: SQLite file; `None` for no cache.
    """

    def __init__(self, convention: Convention, folder: Path, cache: Path | None) -> None:
        self._convention = convention
        self._folder = folder
        self._cache = cache
        self._scores: dict[str, PairScores] = {}
        self.conditions = {
            "bertscore": f"{convention.encoder.repository}, layer {convention.layers}, F, rescaled by "
            f"{convention.baseline}",
            "weights_sha256": fingerprint(folder),
        }

    def prepare(self, systems: Sequence[Pairs]) -> None:
        """Compute the pairs of several systems."""
        for pairs in systems:
            self._of(pairs)
        for scores in self._scores.values():
            scores.prepare([one for one in systems if self._of(one) is scores])

    def release(self) -> None:
        """Forget all scores."""
        self._scores.clear()

    def __call__(self, pairs: Pairs) -> Floats:
        """float64[studies, 2]: F without and with inverse document frequencies of all references."""
        return self._of(pairs)(pairs)

    def _of(self, pairs: Pairs) -> PairScores:
        references = [_plain(text) for text in pairs.references.values()]
        digest = hashlib.sha256(json.dumps(references).encode()).hexdigest()
        if digest not in self._scores:
            maker = ["bertscore", self.conditions, digest]
            self._scores[digest] = PairScores(lambda _: self._load(references), maker, self._cache)
        return self._scores[digest]

    def _load(self, references: Sequence[str]) -> Compute:
        encoder = LoadedEncoder(self._folder, layers=self._convention.layers)
        special = {encoder.tokenizer.cls_token_id, encoder.tokenizer.sep_token_id}
        weights: tuple[Weights, ...] = (
            lambda token: float(token not in special),
            inverse_document_frequencies(map(encoder.ids, references), len(references)),
        )

        def compute(pairs: Sequence[Pair]) -> list[list[float]]:
            texts = list(dict.fromkeys(_plain(text) for pair in pairs for text in pair))
            ids = {text: encoder.ids(text) for text in texts}
            vectors = {
                texts[place]: state / state.norm(dim=-1, keepdim=True)
                for place, state in encoder.outputs(list(ids.values()))
            }
            found = []
            for candidate, reference in (map(_plain, pair) for pair in pairs):
                sides = vectors[candidate], vectors[reference]
                given = [[[of(token) for token in ids[text]] for text in (candidate, reference)] for of in weights]
                empty = min(len(ids[candidate]), len(ids[reference])) == _EMPTY
                raw = [0.0 if empty else similarity(*sides, (one, other)) for one, other in given]
                found.append([self._rescaled(value) for value in raw])
            return found

        return compute

    def _rescaled(self, value: float) -> float:
        return (value - self._convention.baseline) / (1 - self._convention.baseline)


def _plain(text: str) -> str:
    return re.sub(r" +", " ", text)


def bertscore_metric(name: str, convention: Convention, settings: EvaluateSettings, cache: Path | None) -> Metric:
    """BERTScore of a convention as a metric.

    Raises:
        WeightsError: the encoder is missing.
    """
    scores = BertScore(convention, convention.encoder.find(settings), cache)
    return Metric(
        name=name,
        score=lambda pairs: {name: mean(scores(pairs)[:, 0])},
        prepare=scores.prepare,
        release=scores.release,
        conditions={**scores.conditions, "idf": False},
    )
