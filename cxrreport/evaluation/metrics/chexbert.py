"""CheXbert (Smit et al. 2020, arXiv 2004.09167): 14 findings of a report by a BERT with one head each, and their F1.

The published weights are one file, `chexbert.pth`. No package loads it under transformers 5 (`f1chexbert` 0.0.2 fails),
so it is loaded here, tensors only and without downloads unless permitted. Labels and the handling of uncertainty equal
those of `f1chexbert`: positive and uncertain count as positive, negative and not mentioned as negative.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import is_zipfile

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import BertWordPieceTokenizer

from cxrreport.errors import WeightsError
from cxrreport.evaluation.metrics import Metric, Pairs
from cxrreport.evaluation.radgraph.archives import REPOSITORY, fetch
from cxrreport.evaluation.statistics import Floats, Measure, f1_of_counts, form
from cxrreport.settings import EvaluateSettings, weights_folder
from cxrreport.storage.atomic_files import file_sha256
from cxrreport.storage.decoding import parse_json
from cxrreport.storage.memory import release_unused_memory

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
_POSITIVE, _UNCERTAIN = 1, 3
_LONGEST = 512
_BATCH = 16


class _Labeller(torch.nn.Module):
    """CheXbert's network, with the module names of the published weights."""

    def __init__(self, config: Any) -> None:
        from transformers import BertModel

        super().__init__()
        self.bert = BertModel(config)
        classes = [4] * (len(FINDINGS) - 1) + [2]
        self.linear_heads = torch.nn.ModuleList(torch.nn.Linear(config.hidden_size, count) for count in classes)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """float32[texts, width]: the embedding of the first token."""
        first: torch.Tensor = self.bert(ids, attention_mask=mask)[0][:, 0]
        return first

    def classes(self, first: torch.Tensor) -> torch.Tensor:
        """int64[texts, findings]: the class chosen by each head."""
        return torch.stack([head(first).argmax(dim=1) for head in self.linear_heads], dim=1)


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
        self._model = _load(folder).to(self._device).eval()

    def positive(self, texts: Sequence[str]) -> NDArray[np.bool_]:
        """bool[texts, 14]: whether each finding is positive or uncertain, in the order of `FINDINGS`."""
        chosen = self._batched(texts, self._model.classes, len(FINDINGS))
        positive: NDArray[np.bool_] = (chosen == _POSITIVE) | (chosen == _UNCERTAIN)
        return positive

    def embeddings(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """float32[texts, width]: the embeddings of the first token, which SembScore compares."""
        return self._batched(texts, lambda first: first, self._model.bert.config.hidden_size)

    @torch.inference_mode()
    def _batched(
        self, texts: Sequence[str], read: Callable[[torch.Tensor], torch.Tensor], columns: int
    ) -> NDArray[np.float32]:
        rows = [np.array(self._ids(text), np.int32) for text in texts]
        order = sorted(range(len(rows)), key=lambda number: len(rows[number]))
        found = np.zeros((len(rows), columns), dtype=np.float32)
        for first in range(0, len(order), _BATCH):
            batch = order[first : first + _BATCH]
            ids = torch.nn.utils.rnn.pad_sequence(
                [torch.from_numpy(rows[number]).long() for number in batch], batch_first=True
            )
            lengths = torch.tensor([len(rows[number]) for number in batch])
            mask = (torch.arange(ids.shape[1]) < lengths[:, None]).float()
            found[batch] = read(self._model(ids.to(self._device), mask.to(self._device))).cpu().numpy()
        return found

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


def _load(folder: Path) -> _Labeller:
    from transformers import BertConfig

    path = folder / WEIGHTS
    try:
        config = parse_json((folder / CONFIG).read_text(encoding="utf-8")) if (folder / CONFIG).is_file() else {}
        # The file also has the state of the optimizer, which is twice as large; only torch's newer files can be mapped.
        stored = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zipfile(path))["model_state_dict"]
        release_unused_memory()
        model = _Labeller(BertConfig(**config))
        state = {name.removeprefix("module."): tensor for name, tensor in stored.items()}
        state.pop("bert.embeddings.position_ids", None)  # 0, 1, 2 ..., which newer versions do not store
        model.load_state_dict(state)
    except (UnpicklingError, EOFError, OSError) as error:
        raise WeightsError(f"{path}: damaged, or not a file of tensors only; download it again") from error
    except (KeyError, TypeError, AttributeError, ValueError, RuntimeError) as error:
        raise WeightsError(f"{path}: not CheXbert weights of the size in {CONFIG}; download them again") from error
    return model


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


def chexbert_metric(settings: EvaluateSettings) -> Metric:
    """CheXbert F1 as a metric.

    Raises:
        WeightsError: as `find`.
    """
    folder = find(settings)
    labels: dict[str, NDArray[np.bool_]] = {}
    loaded: list[CheXbert] = []  # from the first pairs that were not prepared

    def read(systems: Sequence[Pairs], *, keep: bool) -> None:
        texts = {text for pairs in systems for side in (pairs.references, pairs.candidates) for text in side.values()}
        if new := sorted(texts - labels.keys()):
            labeller = loaded[0] if loaded else CheXbert(folder)
            loaded[:] = [labeller] if keep else []
            labels.update(zip(new, labeller.positive(new), strict=True))

    def score(pairs: Pairs) -> Mapping[str, Measure]:
        read([pairs], keep=True)
        candidates, references = (
            np.stack([labels[text] for text in side.values()]) for side in (pairs.candidates, pairs.references)
        )
        return chexbert_f1(candidates, references)

    conditions = {
        "chexbert": "14 findings, or 5 (" + ", ".join(FIVE) + ")",
        "uncertain": "as positive; negative and not mentioned as negative (as f1chexbert)",
        "undefined": "a finding that nobody named has an F1 of 0",
        "weights_sha256": file_sha256(folder / WEIGHTS),
    }
    return Metric(name="chexbert", score=score, prepare=partial(read, keep=False), conditions=conditions)
