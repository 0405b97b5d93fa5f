"""CheXbert (Smit et al. 2020, arXiv 2004.09167): 14 findings of a report by a BERT with one head each, and their F1.

The published weights are one file, `chexbert.pth`. No package loads it under transformers 5 (`f1chexbert` 0.0.2 fails),
so it is loaded here, tensors only and without downloads unless permitted. Labels and the handling of uncertainty equal
those of `f1chexbert`: positive and uncertain count as positive, negative and not mentioned as negative.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import BertWordPieceTokenizer

from cxrreport.errors import WeightsError
from cxrreport.evaluation.metrics import Metric, Pairs
from cxrreport.evaluation.metrics.pair_scores import Compute, Pair, PairScores
from cxrreport.evaluation.radgraph.archives import REPOSITORY, fetch
from cxrreport.evaluation.statistics import Floats, Measure, f1_of_counts, form
from cxrreport.model.checkpoints import quiet
from cxrreport.settings import EvaluateSettings, weights_folder
from cxrreport.storage.atomic_files import file_sha256
from cxrreport.storage.decoding import parse_json
from cxrreport.storage.torch_files import read_tensors

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "chexbert"
"""Default folder of the weights, also that of `f1chexbert` on Linux."""
WEIGHTS, WORDS, CONFIG = "chexbert.pth", "vocab.txt", "config.json"
ENCODER = "google-bert/bert-base-uncased"
"""Hub repository of the vocabulary that the weights need."""
FILES = {WEIGHTS: REPOSITORY, WORDS: ENCODER}
"""Files to the hub repositories that have them."""

FINDINGS = (
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
    "No Finding",
)
"""In the order of the heads. Classes are not mentioned, positive, negative, uncertain; the last has only two."""
FIVE = ("Cardiomegaly", "Edema", "Consolidation", "Atelectasis", "Pleural Effusion")
_CLASSES = (4,) * 13 + (2,)
_POSITIVE, _UNCERTAIN = 1, 3
_BITS = 1 << np.arange(len(FINDINGS))
"""One bit per finding, with which the findings of a text are one number."""
_LONGEST = 512
_BATCH = 16


class CheXbert:
    """The labeller, from a folder with `chexbert.pth`, `vocab.txt` and, for other sizes than BERT-base, `config.json`.

    Args:
        folder: folder of the files; see `find`.

    Raises:
        WeightsError: a file does not fit or is not safe to load.
    """

    def __init__(self, folder: Path) -> None:
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._tokenizer = BertWordPieceTokenizer(str(folder / WORDS), lowercase=True)
        bert, heads = _load(folder)
        self._bert, self._heads = bert.to(self._device).eval(), heads.to(self._device)

    @torch.inference_mode()
    def read(self, texts: Sequence[str]) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
        """Findings and embeddings of texts in one pass.

        Returns:
            bool[texts, 14], whether each of `FINDINGS` is positive or uncertain; and float32[texts, width], the
            embeddings of the first token, which SembScore compares.
        """
        rows = [np.array(self._ids(text), np.int32) for text in texts]
        order = sorted(range(len(rows)), key=lambda number: len(rows[number]))
        positive = np.zeros((len(rows), len(FINDINGS)), dtype=np.bool_)
        embeddings = np.zeros((len(rows), self._bert.config.hidden_size), dtype=np.float32)
        for start in range(0, len(order), _BATCH):
            batch = order[start : start + _BATCH]
            ids = torch.nn.utils.rnn.pad_sequence(
                [torch.from_numpy(rows[number]).long() for number in batch], batch_first=True
            )
            lengths = torch.tensor([len(rows[number]) for number in batch])
            mask = (torch.arange(ids.shape[1]) < lengths[:, None]).float()
            first = self._bert(ids.to(self._device), attention_mask=mask.to(self._device))[0][:, 0]
            chosen = torch.stack([head(first).argmax(dim=1) for head in self._heads], dim=1)
            positive[batch] = ((chosen == _POSITIVE) | (chosen == _UNCERTAIN)).cpu().numpy()
            embeddings[batch] = first.cpu().numpy()
        return positive, embeddings

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(" ".join(text.split())).ids
        return ids if len(ids) <= _LONGEST else [*ids[: _LONGEST - 1], ids[-1]]


def find(settings: EvaluateSettings) -> Path:
    """The folder of the weights; missing files are downloaded if `download` is set.

    Raises:
        WeightsError: a file is missing.
    """
    root = weights_folder()
    folder = settings.chexbert or (root / "chexbert" if root is not None else CACHE)
    failure = ""
    for name, repository in FILES.items():
        if settings.download and not (folder / name).is_file():
            failure = failure or fetch(repository, name, folder)
    if lacking := [str(folder / name) for name in FILES if not (folder / name).is_file()]:
        where = root or "DIR"
        raise WeightsError(
            f"CheXbert was not found{failure}: missing {', '.join(lacking)}. Run `cxrreport weights chexbert --weights "
            f"{where}` on a machine with a network, and then `cxrreport --weights {where} evaluate`, or set `chexbert` "
            f"to a folder with {WEIGHTS} of {REPOSITORY} and {WORDS} of {ENCODER}"
        )
    return folder


def _load(folder: Path) -> tuple[Any, torch.nn.ModuleList]:
    """The BERT, and a head for each of `FINDINGS`."""
    from transformers import BertConfig, BertModel

    path = folder / WEIGHTS
    try:
        config = BertConfig(
            **(parse_json((folder / CONFIG).read_text(encoding="utf-8")) if (folder / CONFIG).is_file() else {})
        )
        stored = read_tensors(path, "model_state_dict")
        parts: dict[str, dict[str, torch.Tensor]] = {"bert": {}, "linear_heads": {}}
        for name, tensor in stored.items():
            part, _, rest = name.removeprefix("module.").partition(".")
            parts[part][rest] = tensor
        parts["bert"].pop("embeddings.position_ids", None)  # 0, 1, 2 ..., which newer versions do not store
        heads = torch.nn.ModuleList(torch.nn.Linear(config.hidden_size, count) for count in _CLASSES)
        heads.load_state_dict(parts["linear_heads"])
        with quiet():  # takes the tensors as they are, where a model that is filled would need twice their memory
            load: Any = BertModel.from_pretrained
            bert, found = load(
                None, config=config, state_dict=parts["bert"], output_loading_info=True, dtype=torch.float32
            )
        if wrong := [name for names in found.values() for name in names]:
            raise ValueError(wrong[0])
    except (UnpicklingError, OSError) as error:
        raise WeightsError(f"{path}: damaged, or not a file of tensors only; download it again") from error
    except (KeyError, TypeError, AttributeError, ValueError, RuntimeError) as error:
        raise WeightsError(f"{path}: not CheXbert weights of the size in {CONFIG}; download them again") from error
    return bert, heads


class PairReadings:
    """Findings and embeddings of pairs: one pass of the encoder, cached, for F1 and SembScore.

    Args:
        settings: where the weights are.
        cache: SQLite file; `None` for no cache.

    Raises:
        WeightsError: as `find`.
    """

    def __init__(self, settings: EvaluateSettings, cache: Path | None) -> None:
        self._folder = find(settings)
        self.weights_sha256 = file_sha256(self._folder / WEIGHTS)
        self._scores = PairScores(lambda _: self._load(), ["chexbert", self.weights_sha256], cache)
        self.prepare, self.release = self._scores.prepare, self._scores.release

    def _load(self) -> Compute:
        chexbert = CheXbert(self._folder)

        def compute(pairs: Sequence[Pair]) -> list[list[float]]:
            texts = list(dict.fromkeys(text for pair in pairs for text in pair))
            places = {text: place for place, text in enumerate(texts)}
            positive, vectors = chexbert.read(texts)
            numbers = positive @ _BITS
            found = []
            for one, other in ((places[candidate], places[reference]) for candidate, reference in pairs):
                norms = float(np.linalg.norm(vectors[one]) * np.linalg.norm(vectors[other]))
                cosine = float(vectors[one] @ vectors[other]) / norms if norms else 0.0
                found.append([cosine, float(numbers[one]), float(numbers[other])])
            return found

        return compute

    def cosines(self, pairs: Pairs) -> Floats:
        """SembScore, float64[studies]."""
        return self._scores(pairs)[:, 0]

    def findings(self, pairs: Pairs) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """bool[studies, 14] of the candidates and of the references, in the order of `FINDINGS`."""
        numbers = self._scores(pairs)[:, 1:].astype(np.int64)
        candidates, references = ((side[:, None] & _BITS) > 0 for side in numbers.T)
        return candidates, references


@form("macro-f1")
def macro_f1(sums: Floats) -> Floats:
    """Mean F1 over labels from their concatenated counts; a label that neither side has counts as zero."""
    scores: Floats = np.nan_to_num(f1_of_counts(sums.reshape(*sums.shape[:-1], -1, 3))).mean(axis=-1)
    return scores


def chexbert_f1(candidate: NDArray[np.bool_], reference: NDArray[np.bool_]) -> dict[str, Measure]:
    """Micro and macro F1 over 14 and over 5 findings; the values per study are micro F1.

    Args:
        candidate: bool[studies, 14], findings of the candidates in the order of `FINDINGS`.
        reference: bool[studies, 14], findings of the references.
    """
    agreement = [candidate & reference, candidate & ~reference, ~candidate & reference]
    counts = np.stack(agreement, axis=-1).astype(np.float64)
    measures = {}
    for names in (FINDINGS, FIVE):
        chosen = counts[:, [FINDINGS.index(name) for name in names]]
        total = chosen.sum(axis=1)
        values = np.nan_to_num(f1_of_counts(total))
        measures[f"chexbert_micro_{len(names)}"] = Measure(total, f1_of_counts, values)
        measures[f"chexbert_macro_{len(names)}"] = Measure(chosen.reshape(len(chosen), -1), macro_f1, values)
    return measures


def chexbert_metric(settings: EvaluateSettings, cache: Path | None) -> Metric:
    """CheXbert F1 as a metric.

    Raises:
        WeightsError: as `find`.
    """
    readings = PairReadings(settings, cache)
    conditions = {
        "chexbert": "14 findings, or 5 (" + ", ".join(FIVE) + ")",
        "uncertain": "as positive; negative and not mentioned as negative (as f1chexbert)",
        "undefined": "a finding that nobody named has an F1 of 0",
        "weights_sha256": readings.weights_sha256,
    }
    return Metric(
        name="chexbert",
        score=lambda pairs: chexbert_f1(*readings.findings(pairs)),
        prepare=readings.prepare,
        release=readings.release,
        conditions=conditions,
    )
