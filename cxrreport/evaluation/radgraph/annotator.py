"""The door to the `radgraph` package: the only importer of it.

radgraph 0.1.18 calls two tokenizer methods that transformers 5 removed. They are added to the tokenizers that this
module makes, and nowhere else. Annotations equal those of the package's own `RadGraph`, entity for entity and relation
for relation. What differs is around its model: the encoder reads several texts at once (`batched_model` says why that
changes no annotation), span fields are built as one tensor instead of one object per span, a word is cut into word
pieces once, no gradients are kept, weights are loaded as tensors only, and nothing is downloaded unless asked.
"""

from __future__ import annotations

import json
import threading
import types
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal

import torch

from cxrreport.errors import SettingsError, WeightsError
from cxrreport.evaluation.radgraph.annotation_cache import AnnotationCache, Graph
from cxrreport.evaluation.radgraph.archives import Archive, package_version, read
from cxrreport.evaluation.radgraph.batched_model import BatchedModel, batches
from cxrreport.evaluation.radgraph.graph import Annotation, Entity
from cxrreport.records import Progress

with warnings.catch_warnings():
    # Importing the package resets the process's warning filters and deprecates itself; keep that to the import.
    warnings.simplefilter("ignore")
    from radgraph.allennlp.common import cached_transformers
    from radgraph.allennlp.common.util import namespace_match
    from radgraph.allennlp.data import Vocabulary
    from radgraph.allennlp.data.dataloader import allennlp_collate
    from radgraph.allennlp.data.fields import ListField, TextField
    from radgraph.allennlp.data.token_indexers import PretrainedTransformerMismatchedIndexer
    from radgraph.allennlp.data.tokenizers import Token
    from radgraph.allennlp.modules.text_field_embedders import BasicTextFieldEmbedder
    from radgraph.allennlp.modules.token_embedders import PretrainedTransformerMismatchedEmbedder
    from radgraph.dygie.data.dataset_readers.document import Document
    from radgraph.dygie.data.dataset_readers.dygie import DyGIEReader
    from radgraph.dygie.models.dygie import DyGIE
    from radgraph.radgraph import CACHE_DIR
    from radgraph.utils import batch_to_device, preprocess_reports

NON_PADDED = "non_padded_namespaces.txt"
PACKAGE_CACHE = Path(CACHE_DIR)
"""The folder in which the radgraph package itself keeps its models."""

_making = threading.Lock()


@contextmanager
def transformers5(*, download: bool = False) -> Iterator[None]:
    """Inside, the package makes tokenizers and encoders that work under transformers 5.

    Replaces the two functions of the package's own module by which it makes them; one thread at a time.

    Args:
        download: let transformers fetch an encoder's configuration and tokenizer from the hub.
    """
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    def tokenizer(model_name: str, **options: Any) -> Any:
        made = AutoTokenizer.from_pretrained(model_name, local_files_only=not download, **options)
        return with_removed_methods(made)

    make: Callable[..., Any] = AutoModel.from_config

    def encoder(model_name: str, *_: object) -> Any:
        # Weights come from the archive. The package keeps one more copy of every encoder; this does not.
        return make(AutoConfig.from_pretrained(model_name, local_files_only=not download))

    with _making:
        before = cached_transformers.get_tokenizer, cached_transformers.get
        cached_transformers.get_tokenizer, cached_transformers.get = tokenizer, encoder
        try:
            yield
        finally:
            cached_transformers.get_tokenizer, cached_transformers.get = before


def with_removed_methods(tokenizer: Any) -> Any:
    """Add to this one tokenizer the methods of transformers 4 that the package calls."""
    known: dict[tuple[Any, ...], Any] = {}

    def encode_plus(self: Any, text: str, text_pair: str | None = None, **options: Any) -> Any:
        # The package encodes word by word, and reports share most of their words.
        key = (text, text_pair, *sorted(options.items()))
        if key not in known:
            known[key] = self(text, text_pair, **options)
        return known[key]

    def build_inputs_with_special_tokens(self: Any, ids: list[int]) -> list[int]:
        bare = self("a", add_special_tokens=False)["input_ids"]
        framed = self("a", add_special_tokens=True)["input_ids"]
        place = framed.index(bare[0])
        return [*framed[:place], *ids, *framed[place + len(bare) :]]

    tokenizer.encode_plus = types.MethodType(encode_plus, tokenizer)
    tokenizer.build_inputs_with_special_tokens = types.MethodType(build_inputs_with_special_tokens, tokenizer)
    return tokenizer


def read_vocabulary(folder: Path) -> Any:
    """The package's vocabulary from an archive's `vocabulary/`, without the lock file that its own reader leaves."""
    padded_not = (folder / NON_PADDED).read_text(encoding="utf-8").split()
    vocabulary = Vocabulary(non_padded_namespaces=padded_not)
    for file in sorted(folder.glob("*.txt")):
        if file.name != NON_PADDED:
            padded = not any(namespace_match(pattern, file.stem) for pattern in padded_not)
            vocabulary.set_from_file(str(file), padded, namespace=file.stem)
    return vocabulary


def encoder_name(archive: Archive) -> str:
    """The encoder that `config.json` names, as a folder where there is one.

    In this order: a folder of that name inside the archive, a folder of that name, `encoder/` inside the archive (a
    copy of the hub's configuration and tokenizer, for machines without a network), the name on the hub.
    """
    name = archive.encoder
    for folder in (archive.folder / name, Path(name), archive.folder / "encoder"):
        if (folder / "config.json").is_file():
            return str(folder)
    return name


def build_model(config: dict[str, Any], vocabulary: Any, encoder: str) -> tuple[Any, Any]:
    """The package's reader and model, weights not loaded; to be called inside `transformers5`.

    Args:
        config: `config.json` of an archive.
        vocabulary: see `read_vocabulary`.
        encoder: folder or hub name of the encoder.
    """
    indexer_config = config["dataset_reader"]["token_indexers"]["bert"]
    indexer = PretrainedTransformerMismatchedIndexer(model_name=encoder, max_length=indexer_config.get("max_length"))
    reader = DyGIEReader(max_span_width=config["dataset_reader"]["max_span_width"], token_indexers={"bert": indexer})
    embedder_config = config["model"]["embedder"]["token_embedders"]["bert"]
    embedder = PretrainedTransformerMismatchedEmbedder(model_name=encoder, max_length=embedder_config.get("max_length"))
    rest = {
        name: value
        for name, value in json.loads(json.dumps(config["model"])).items()
        if name not in ("type", "embedder", "initializer", "module_initializer")
    }
    return reader, DyGIE(vocab=vocabulary, embedder=BasicTextFieldEmbedder({"bert": embedder}), **rest)


def training_batch(reader: Any, model: Any, document: dict[str, Any]) -> dict[str, Any]:
    """One document in DyGIE++'s JSON, with `ner` and `relations`, as the tensors that the model takes."""
    instance = reader.text_to_instance(document)
    instance.index_fields(model.vocab)
    batch: dict[str, Any] = allennlp_collate([instance])
    return batch


class RadGraphAnnotator:
    """RadGraph from an archive's folder.

    Args:
        folder: `config.json`, `weights.th`, `vocabulary/`; see `archives.locate`.
        device: `auto` takes the GPU where there is one, as the package does.
        cache: SQLite file in which annotations are kept; None: they are not.
        download: let transformers fetch the encoder's configuration and tokenizer from the hub.

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
            raise SettingsError("device: 'cuda' was asked for RadGraph and there is no GPU; use 'auto' or 'cpu'")
        self.device = torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")
        self._reader, model = self._load(download)
        self._vocabulary = model.vocab
        self._model = BatchedModel(model, self.archive.model_type)
        self._max_span_width: int = self.archive.config["dataset_reader"]["max_span_width"]
        maker = json.dumps([self.archive.fingerprint, self.archive.model_type, package_version(), self.device.type])
        self._cache = AnnotationCache(cache, maker) if cache is not None else None

    def _load(self, download: bool) -> tuple[Any, Any]:
        folder = self.archive.folder
        try:
            vocabulary = read_vocabulary(folder / "vocabulary")
            encoder = encoder_name(self.archive)
            with transformers5(download=download):
                reader, model = build_model(self.archive.config, vocabulary, encoder)
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
            state = torch.load(weights, map_location=self.device, weights_only=True)
        except (UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
            raise WeightsError(f"{weights}: not a file of tensors only, or damaged; get the archive again") from error
        try:
            model.load_state_dict(state, strict=True)
        except (RuntimeError, TypeError, AttributeError) as error:
            raise WeightsError(f"{weights}: does not fit {folder / 'config.json'}; get the archive again") from error
        return reader, model.to(self.device).eval()

    def tokens(self, text: str) -> list[str]:
        """`text` as this model reads it. An empty text is read as "None", which is the package's rule."""
        report = preprocess_reports([text or "None"], self.archive.model_type)[0]
        tokens: list[str] = report["sentences"][0]
        return tokens

    def annotate(self, texts: Iterable[str], *, progress: Progress | None = None) -> list[Annotation]:
        """Annotate `texts`, each distinct one once.

        Returns:
            one annotation per text, in the order of `texts`. A text without any token (white space only, on which the
            package fails) has no entities.
        """
        wanted = list(texts)
        tokens = {text: self.tokens(text) for text in dict.fromkeys(wanted)}
        graphs: dict[str, Graph] = {text: [] for text, one in tokens.items() if not one}
        if self._cache:
            graphs |= self._cache.read(text for text in tokens if text not in graphs)
        missing = [text for text in tokens if text not in graphs]
        for batch in batches([len(tokens[text]) for text in missing]):
            part = [missing[number] for number in batch]
            fresh = dict(zip(part, self._graphs([tokens[text] for text in part]), strict=True))
            graphs |= fresh
            if self._cache:
                self._cache.write(fresh)
            if progress is not None:
                progress(len(graphs), len(tokens), "RadGraph")
        if progress is not None and not missing:
            progress(len(tokens), len(tokens), "RadGraph")
        made = {text: _annotation(one, graphs[text]) for text, one in tokens.items()}
        return [made[text] for text in wanted]

    def _graphs(self, texts: Sequence[list[str]]) -> list[Graph]:
        """The graphs of one batch of tokenised texts."""
        return self._model.annotate([self._arguments(tokens) for tokens in texts])

    def _arguments(self, tokens: list[str]) -> dict[str, Any]:
        # As the package's reader and collate function: a batch of one document with one sentence.
        words = [Token(self._reader._normalize_word(token)) for token in tokens]
        field = ListField([TextField(words, self._reader._token_indexers)])
        field.index(self._vocabulary)
        text = field.batch_tensors([field.as_tensor(field.get_padding_lengths())])
        document = Document.from_json({"doc_key": "0", "sentences": [tokens], "dataset": self.archive.model_type})
        spans = span_table(len(tokens), self._max_span_width)[None, None]
        arguments: dict[str, Any] = batch_to_device({"text": text, "spans": spans, "metadata": [document]}, self.device)
        return arguments


def span_table(tokens: int, widest: int) -> torch.Tensor:
    """All spans of at most `widest` of `tokens` tokens, in the package's order: int64[spans, 2], both ends included."""
    starts = torch.arange(tokens)[:, None].expand(tokens, widest)
    ends = starts + torch.arange(widest)
    return torch.stack([starts, ends], dim=-1)[ends < tokens]


def _annotation(tokens: list[str], graph: Graph) -> Annotation:
    return Annotation(
        tuple(tokens),
        tuple(
            Entity(" ".join(tokens[start : end + 1]), label, start, end, tuple((kind, aim) for kind, aim in relations))
            for start, end, label, relations in graph
        ),
    )
