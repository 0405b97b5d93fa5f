"""Annotate texts with RadGraph.

Annotations equal those of the package's own `RadGraph`, entity for entity and relation for relation. The encoder reads
several texts at once (`batched_model` explains why that changes no annotation), span fields are built as one tensor, a
word is split into word pieces once, weights are loaded as tensors only, and nothing is downloaded without permission.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal, Self

import torch

from cxrreport.errors import SettingsError, WeightsError
from cxrreport.evaluation.radgraph import compat
from cxrreport.evaluation.radgraph.archives import Archive, locate, package_version, read
from cxrreport.evaluation.radgraph.batched_model import BatchedModel, batches, span_table
from cxrreport.evaluation.radgraph.compat import PACKAGE_CACHE, Graph
from cxrreport.evaluation.radgraph.graph import Annotation, Entity
from cxrreport.records import Progress
from cxrreport.settings import weights_folder
from cxrreport.storage.memory import trim_heap
from cxrreport.storage.result_cache import ResultCache
from cxrreport.storage.torch_files import read_tensors

__all__ = ["PACKAGE_CACHE", "RadGraphAnnotator"]

logger = logging.getLogger(__name__)

_CHECK_TEXTS = ("There is a small left pleural effusion. No pneumothorax.", "The lungs are clear.")
"""Texts on which the batched model is compared with the package; of different lengths, so that one is padded."""


_LOOKED_UP = 500
"""Texts that are looked up in the cache at a time."""
_TRIMMED = 8
"""Batches after which the heap is trimmed."""


class RadGraphAnnotator:
    """RadGraph from the folder of an archive.

    Before its first use, the batched model is compared with the package on two short texts. If they disagree, a warning
    is logged and the package annotates the texts one by one, which is slower.

    Args:
        folder: folder with `config.json`, `weights.th`, `vocabulary/`; see `archives.locate`.
        device: `auto` uses the GPU if there is one, as the package does.
        cache: SQLite file for annotations; `None` for no cache.
        download: let transformers fetch the configuration and tokenizer of the encoder from the hub.

    Raises:
        WeightsError: a part is missing, does not fit or is not safe to load.
        OutputError: the cache cannot be used.
    """

    def __init__(
        self,
        folder: Path,
        *,
        device: Literal["auto", "cpu", "cuda"] = "auto",
        cache: Path | None = None,
        download: bool = False,
    ) -> None:
        self.archive = read(folder)
        if device == "cuda" and not torch.cuda.is_available():
            raise SettingsError("device: 'cuda' was requested for RadGraph, but there is no GPU; use 'auto' or 'cpu'")
        self.device = torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")
        self._download = download
        self._reader, self._model = self._load()
        self._checked = False
        self._batched: BatchedModel | None = None
        self._max_span_width: int = self.archive.config["dataset_reader"]["max_span_width"]
        made_by = [self.archive.fingerprint, self.archive.model_type, package_version(), self.device.type]
        if not compat.adds_special_tokens(self._reader):
            made_by.append("no special tokens")  # earlier versions added them, and cached other graphs
        maker = json.dumps(made_by)
        self._cache = ResultCache(cache, maker, "graphs") if cache is not None else None

    @classmethod
    def find(cls, name: str, root: Path | None, *, cache: Path, download: bool) -> Self:
        """The annotator of an archive by its name in the settings.

        Args:
            name: as for `archives.locate`.
            root: folder of the models; `None` for `CXRREPORT_WEIGHTS`, or else the cache of the radgraph package.
            cache: SQLite file for annotations.
            download: download a missing archive, configuration or tokenizer from the hub.

        Raises:
            WeightsError: as `archives.locate` and `RadGraphAnnotator`.
        """
        return cls(archive_folder(name, root, download=download), cache=cache, download=download)

    def _load(self) -> tuple[Any, Any]:
        folder = self.archive.folder
        try:
            vocabulary = compat.read_vocabulary(folder / "vocabulary")
            with compat.working_tokenizers(download=self._download):
                reader, model = compat.build_model(self.archive.config, vocabulary, encoder_name(self.archive))
        except (KeyError, TypeError) as error:
            raise WeightsError(f"{folder / 'config.json'}: not a RadGraph configuration ({error!r})") from error
        except (OSError, ValueError) as error:
            raise WeightsError(
                f"{folder}: configuration and tokenizer of its encoder {self.archive.encoder!r} cannot be loaded "
                f"({type(error).__name__}). Put the encoder's config.json and its tokenizer's files (no weights) into "
                f"{folder / 'encoder'}, or set `download: true` on a machine with a network"
            ) from error
        weights = folder / "weights.th"
        try:
            model.load_state_dict(read_tensors(weights), strict=True, assign=True)  # a copy would take twice the memory
        except (UnpicklingError, EOFError, OSError, ValueError) as error:
            raise WeightsError(
                f"{weights}: damaged, or not a file of tensors only; download the archive again"
            ) from error
        except (RuntimeError, TypeError, AttributeError) as error:
            raise WeightsError(
                f"{weights}: does not fit {folder / 'config.json'}; download the archive again"
            ) from error
        return reader, model.to(self.device, torch.float32).eval()

    def tokens(self, text: str) -> list[str]:
        """The tokens of `text` for this model. As in the package, an empty text is read as "None"."""
        return compat.tokenize(text, self.archive.model_type)

    def annotate(self, texts: Iterable[str], *, progress: Progress | None = None) -> list[Annotation]:
        """Annotate `texts`, each distinct one once.

        Returns:
            one annotation per text, in the order of `texts`. A text without tokens (white space only, on which the
            package fails) has no entities.
        """
        ordered = list(texts)
        annotations = dict(self.annotations(ordered, progress=progress))
        return [annotations[text] for text in ordered]

    def annotations(
        self, texts: Iterable[str], *, progress: Progress | None = None
    ) -> Iterator[tuple[str, Annotation]]:
        """Annotate each distinct text, in no particular order; see `annotate`.

        Only what is being annotated is in memory, so that the caller decides what to keep.
        """
        distinct = list(dict.fromkeys(texts))
        lengths: dict[str, int] = {}  # of the texts that are not cached
        done = 0
        for first in range(0, len(distinct), _LOOKED_UP):
            part = {text: self.tokens(text) for text in distinct[first : first + _LOOKED_UP]}
            graphs: dict[str, Graph] = {text: [] for text, tokens in part.items() if not tokens}
            if self._cache:
                graphs |= self._cache.read(text for text in part if text not in graphs)
            lengths |= {text: len(tokens) for text, tokens in part.items() if text not in graphs}
            for text, graph in graphs.items():
                yield text, _annotation(part[text], graph)
            done += len(graphs)
        missing = list(lengths)
        for number, batch in enumerate(batches(list(lengths.values())), start=1):
            tokens = {missing[place]: self.tokens(missing[place]) for place in batch}
            fresh = dict(zip(tokens, self._graphs(list(tokens.values())), strict=True))
            if self._cache:
                self._cache.write(fresh)
            done += len(fresh)
            if progress is not None:
                progress(done, len(distinct), "RadGraph")
            if number % _TRIMMED == 0:
                trim_heap()
            for text, graph in fresh.items():
                yield text, _annotation(tokens[text], graph)
        if progress is not None and not missing:
            progress(done, done, "RadGraph")

    @torch.inference_mode()
    def _graphs(self, texts: Sequence[list[str]]) -> list[Graph]:
        """The graphs of one batch of tokenised texts."""
        # Training in bfloat16 validates within autocast; annotations are always computed in float32.
        with torch.autocast(self.device.type, enabled=False):
            if not self._checked:
                self._batched, self._checked = self._checked_model(), True
            if self._batched is None:
                return [self._stock_graph(tokens) for tokens in texts]
            return self._batched.annotate([self._arguments(tokens) for tokens in texts])

    def _checked_model(self) -> BatchedModel | None:
        """The batched model, or `None` if it disagrees with the package."""
        tokens = [self.tokens(text) for text in _CHECK_TEXTS]
        expected = [self._stock_graph(one) for one in tokens]
        try:
            batched = BatchedModel(self._model, self.archive.model_type)
            problem = batched.differences([self._arguments(one) for one in tokens], expected)
        except Exception as error:  # whatever replaced parts of another version raise
            problem = f"{type(error).__name__}: {error}"
        if not problem:
            return batched
        logger.warning(
            "RadGraph in batches does not agree with the radgraph package (%s). Texts are annotated one by one by the "
            "package, which is slower; scores are not affected",
            problem,
        )
        self._reader, self._model = self._load()  # parts of the other one are replaced
        return None

    def _stock_graph(self, tokens: list[str]) -> Graph:
        return compat.stock_graph(self._reader, self._model, tokens, self.archive.model_type, self.device)

    def _arguments(self, tokens: list[str]) -> dict[str, Any]:
        spans = span_table(len(tokens), self._max_span_width)
        return compat.model_arguments(self._reader, self._model, tokens, self.archive.model_type, spans, self.device)


def archive_folder(name: str, root: Path | None, *, download: bool) -> Path:
    """The folder of an archive by its name in the settings; see `RadGraphAnnotator.find`.

    Raises:
        WeightsError: as `archives.locate`.
    """
    return locate(name, root or weights_folder() or PACKAGE_CACHE, download=download)


def encoder_name(archive: Archive) -> str:
    """The encoder that `config.json` names, as a folder if there is one.

    In this order: a folder of that name in the archive, a folder of that name, `encoder/` in the archive (a copy of the
    hub's configuration and tokenizer, for machines without a network), the name on the hub.
    """
    name = archive.encoder
    for folder in (archive.folder / name, Path(name), archive.folder / "encoder"):
        if (folder / "config.json").is_file():
            return str(folder)
    return name


def _annotation(tokens: list[str], graph: Graph) -> Annotation:
    return Annotation(
        tuple(tokens),
        tuple(
            Entity(" ".join(tokens[start : end + 1]), label, start, end, tuple((kind, aim) for kind, aim in relations))
            for start, end, label, relations in graph
        ),
    )
