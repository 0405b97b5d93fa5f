"""RadCliQ-v1 (Yu et al. 2023, Patterns 4:100802) and its parts, as ReXrank and RadEval compute them.

A linear combination of RadGraph F1 (mean of entity and relation F1, model `radgraph`), BERTScore, the cosine of
CheXbert's embeddings (SembScore) and BLEU-2. It predicts a number of errors, so lower is better; ReXrank's table shows
the inverse of its mean. ReXrank's BERTScore weighs all tokens alike (`USE_IDF = False` of CXR-Report-Metric), RadEval's
weighs them by inverse document frequencies of the references.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from cxrreport.errors import WeightsError
from cxrreport.evaluation.metrics import Metric, Pairs
from cxrreport.evaluation.metrics.bertscore import REXRANK, BertScore
from cxrreport.evaluation.metrics.chexbert import PairReadings, find
from cxrreport.evaluation.radgraph import PackedAnnotations, archives, rexrank
from cxrreport.evaluation.radgraph.annotator import RadGraphAnnotator, archive_folder
from cxrreport.evaluation.statistics import Floats, Measure, form, mean, ratio
from cxrreport.settings import EvaluateSettings, weights_folder
from cxrreport.storage.memory import release_unused_memory

MEANS = np.array([0.53792312, 0.61757256, 0.76479421, 0.44738335])
SCALES = np.array([0.30282584, 0.22430938, 0.25394391, 0.29892717])
COEFFICIENTS = np.array([-3.77083683e-01, -3.70300100e-01, -2.52616218e-01, 4.31504841e-12])
INTERCEPT = 2.46655256e-10
"""Of the published `radcliq-v1.pkl`, for RadGraph, BERTScore, SembScore and BLEU-2 in this order."""
RADGRAPH = "radgraph"
EXPECTED = (
    ("No acute findings.", "No acute cardiopulmonary process.", 0.8346),
    (
        "Bilateral pleural effusions and basilar atelectasis.",
        "Small bilateral pleural effusions with bibasilar atelectasis.",
        0.0416,
    ),
    ("Mild cardiomegaly with clear lungs.", "Mild cardiomegaly. No pleural effusion.", 0.3987),
)
"""Candidate, reference and RadCliQ-v1 with the published weights, from RadEval's `tests/test_radcliq.py`."""
_ORDERS = (1, 2)
_EPSILON = 0.1


def radcliq_v1(radgraph: Floats, bertscore: Floats, semb: Floats, bleu2: Floats) -> Floats:
    """RadCliQ-v1 of studies from its parts, float64[studies] each."""
    parts = np.column_stack([radgraph, bertscore, semb, bleu2])
    combined: Floats = (parts - MEANS) / SCALES @ COEFFICIENTS + INTERCEPT
    return combined


def bleu2(candidate: str, reference: str) -> float:
    """Sentence BLEU-2 as in CXR-Report-Metric: lower case, full stops apart, `fast_bleu` with NLTK's smoothing 1."""
    sides = [text.lower().replace(".", " .").split() for text in (candidate, reference)]
    words, wanted = sides
    logarithms = 0.0
    for order in _ORDERS:
        counts, known = (
            Counter(tuple(side[first : first + order]) for first in range(len(side) - order + 1)) for side in sides
        )
        common = (counts & known).total()
        if order == 1 and not common:
            return 0.0
        logarithms += math.log((common or _EPSILON) / max(1, counts.total())) / len(_ORDERS)
    penalty = 1.0 if len(words) > len(wanted) else math.exp(1 - len(wanted) / len(words))
    return penalty * math.exp(logarithms)


@form("inverse_mean")
def inverse_mean(sums: Floats) -> Floats:
    """One over the mean, from sum and count."""
    with np.errstate(divide="ignore"):
        inverse: Floats = 1 / ratio(sums)
    return inverse


def _inverse(values: Floats) -> Measure:
    return Measure(mean(values).terms, inverse_mean, values)


def _check_weights(settings: EvaluateSettings) -> None:
    """Raise one `WeightsError` about all parts whose weights are missing."""
    parts: dict[str, Callable[[], Path]] = {
        REXRANK.encoder.entry: partial(REXRANK.encoder.find, settings),
        "chexbert": partial(find, settings),
        RADGRAPH: partial(archive_folder, RADGRAPH, settings.weights, download=settings.download),
    }
    lacking: dict[str, WeightsError] = {}
    for name, found in parts.items():
        try:
            found()
        except WeightsError as error:
            lacking[name] = error
    if len(lacking) == 1:
        raise next(iter(lacking.values()))
    if lacking:
        names, where = " ".join(lacking), weights_folder() or "DIR"
        raise WeightsError(
            f"RadCliQ-v1 lacks the weights {', '.join(lacking)}. Run `cxrreport weights {names} --weights {where}` on "
            f"a machine with a network, and then `cxrreport --weights {where} evaluate`"
        )


def radcliq_metric(settings: EvaluateSettings, cache: Path | None) -> Metric:
    """RadCliQ-v1 by both conventions, with its parts.

    Raises:
        WeightsError: weights of a part are missing.
    """
    _check_weights(settings)
    bertscore = BertScore(REXRANK, REXRANK.encoder.find(settings), cache)
    chexbert = PairReadings(settings, cache)
    archive = archives.read(archive_folder(RADGRAPH, settings.weights, download=settings.download))

    def prepare(systems: Sequence[Pairs]) -> None:
        bertscore.prepare(systems)
        chexbert.prepare(systems)
        release_unused_memory()
        texts = {text for pairs in systems for side in (pairs.references, pairs.candidates) for text in side.values()}
        annotator = RadGraphAnnotator(archive.folder, cache=cache, download=settings.download)
        for text, annotation in annotator.annotations(sorted(text for text in texts if text not in graphs)):
            graphs.add(text, annotation)

    graphs = PackedAnnotations()

    def release() -> None:
        bertscore.release()
        chexbert.release()
        graphs.clear()

    def score(pairs: Pairs) -> Mapping[str, Measure]:
        if not all(text in graphs for side in (pairs.references, pairs.candidates) for text in side.values()):
            prepare([pairs])
        texts = [(pairs.candidates[study], reference) for study, reference in pairs.references.items()]
        parts = {
            "radcliq_radgraph": np.array(
                [rexrank(graphs[one], graphs[two], lower_case=False).f1 for one, two in texts]
            ),
            "radcliq_bertscore": bertscore(pairs)[:, 0],
            "semb_score": chexbert.cosines(pairs),
            "radcliq_bleu2": np.array([bleu2(one, two) for one, two in texts]),
        }
        radgraph, plain, cosine, bleu = parts.values()
        scores = {
            "": radcliq_v1(radgraph, plain, cosine, bleu),
            "_radeval": radcliq_v1(radgraph, bertscore(pairs)[:, 1], cosine, bleu),
        }
        found = {f"radcliq_v1{suffix}": mean(values) for suffix, values in scores.items()}
        found |= {f"inverse_radcliq_v1{suffix}": _inverse(values) for suffix, values in scores.items()}
        return found | {name: mean(values) for name, values in parts.items()}

    return Metric(
        name="radcliq",
        score=score,
        prepare=prepare,
        release=release,
        conditions={
            "radcliq": "v1, published coefficients; radeval: BERTScore with idf of the references",
            "radgraph_sha256": archive.weights_sha256,
            "chexbert_sha256": chexbert.weights_sha256,
            **bertscore.conditions,
        },
        synthetic=archive.synthetic,
    )
