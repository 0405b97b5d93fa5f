"""The only importer of the `radgraph` package: its names, what transformers 5 broke in it, and its private parts.

radgraph 0.1.18 calls two tokenizer methods that transformers 5 removed. They are added to the tokenizers that are made
within `working_tokenizers`, and to no others. A name that the installed versions lack is an `UnsupportedVersionError`
that states the versions.
"""

from __future__ import annotations

import json
import threading
import types
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from cxrreport import versions

PACKAGES = ("radgraph", "transformers", "torch")

supported_names = partial(versions.supported_names, PACKAGES)

with supported_names(), warnings.catch_warnings():
    # Importing the package resets the warning filters of the process and emits deprecation warnings.
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
    from radgraph.utils import batch_to_device, postprocess_reports, preprocess_reports

    _MAKERS = cached_transformers.get_tokenizer, cached_transformers.get

NON_PADDED = "non_padded_namespaces.txt"
PACKAGE_CACHE = Path(CACHE_DIR)
"""Folder in which the radgraph package keeps its models."""

Graph = list[tuple[int, int, str, list[tuple[str, int]]]]
"""Entities as (first token, last token, label, relations), a relation as (kind, index of the target)."""

_making = threading.Lock()


@contextmanager
def working_tokenizers(*, download: bool = False) -> Iterator[None]:
    """Make the package create tokenizers and encoders that work under transformers 5; one thread at a time.

    Args:
        download: let transformers fetch the configuration and tokenizer of an encoder from the hub.
    """
    from transformers import AutoConfig, AutoModel, AutoTokenizer
    from transformers.models.auto.tokenization_auto import get_tokenizer_config

    def tokenizer(model_name: str, **options: Any) -> Any:
        made = AutoTokenizer.from_pretrained(model_name, local_files_only=not download, **options)
        declared = get_tokenizer_config(model_name, local_files_only=not download).get("tokenizer_class")
        # The method of this class (ModernBERT has it) adds nothing under transformers 4, and that of others does.
        return _with_removed_methods(made, special_tokens=declared != "PreTrainedTokenizerFast")

    make: Callable[..., Any] = AutoModel.from_config

    def encoder(model_name: str, *_: object) -> Any:
        # The weights come from the archive, so the package need not download those of the encoder.
        return make(AutoConfig.from_pretrained(model_name, local_files_only=not download))

    with _making:
        cached_transformers.get_tokenizer, cached_transformers.get = tokenizer, encoder
        try:
            yield
        finally:
            cached_transformers.get_tokenizer, cached_transformers.get = _MAKERS


def _with_removed_methods(tokenizer: Any, *, special_tokens: bool) -> Any:
    """Add the methods of transformers 4 that the package calls to this tokenizer.

    Args:
        tokenizer: a tokenizer of transformers 5.
        special_tokens: whether `build_inputs_with_special_tokens` adds any.
    """
    encoded: dict[tuple[Any, ...], Any] = {}

    def encode_plus(self: Any, text: str, text_pair: str | None = None, **options: Any) -> Any:
        # The package encodes word by word, and reports share most of their words.
        key = (text, text_pair, *sorted(options.items()))
        if key not in encoded:
            encoded[key] = self(text, text_pair, **options)
        return encoded[key]

    def build_inputs_with_special_tokens(self: Any, ids: list[int]) -> list[int]:
        if not special_tokens:
            return ids
        bare = self("a", add_special_tokens=False)["input_ids"]
        framed = self("a", add_special_tokens=True)["input_ids"]
        place = framed.index(bare[0])
        return [*framed[:place], *ids, *framed[place + len(bare) :]]

    tokenizer.encode_plus = types.MethodType(encode_plus, tokenizer)
    tokenizer.build_inputs_with_special_tokens = types.MethodType(build_inputs_with_special_tokens, tokenizer)
    return tokenizer


def adds_special_tokens(reader: Any) -> bool:
    """Whether the tokenizer of a dataset reader adds special tokens to the segments of a text."""
    tokenizer = reader._token_indexers["bert"]._matched_indexer._tokenizer
    return bool(tokenizer.build_inputs_with_special_tokens([]))


def read_vocabulary(folder: Path) -> Any:
    """Read the vocabulary of an archive's `vocabulary/`, without the lock file of the package's own reader."""
    non_padded = (folder / NON_PADDED).read_text(encoding="utf-8").split()
    vocabulary = Vocabulary(non_padded_namespaces=non_padded)
    for file in sorted(folder.glob("*.txt")):
        if file.name != NON_PADDED:
            padded = not any(namespace_match(pattern, file.stem) for pattern in non_padded)
            vocabulary.set_from_file(str(file), padded, namespace=file.stem)
    return vocabulary


def build_model(config: dict[str, Any], vocabulary: Any, encoder: str) -> tuple[Any, Any]:
    """Build the package's dataset reader and model without weights; call it within `working_tokenizers`.

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


def document_batch(reader: Any, model: Any, document: dict[str, Any]) -> dict[str, Any]:
    """Convert one document in DyGIE++'s JSON, for training with `ner` and `relations`, into arguments of the model."""
    instance = reader.text_to_instance(document)
    instance.index_fields(model.vocab)
    batch: dict[str, Any] = allennlp_collate([instance])
    return batch


def tokenize(text: str, model_type: str) -> list[str]:
    """Split a text as the package does for this type of model; the package reads an empty text as "None"."""
    tokens: list[str] = preprocess_reports([text or "None"], model_type)[0]["sentences"][0]
    return tokens


def stock_graph(reader: Any, model: Any, tokens: Sequence[str], dataset: str, device: torch.device) -> Graph:
    """Annotate one text as the package does; `model` must not be that of a `BatchedModel`."""
    document = {"doc_key": "0", "dataset": dataset, "sentences": [list(tokens)]}
    output = model(**batch_to_device(document_batch(reader, model, document), device))
    entities = postprocess_reports([model.make_output_human_readable(output).to_json()])["0"]["entities"]
    return [
        (one["start_ix"], one["end_ix"], one["label"], [(kind, int(target) - 1) for kind, target in one["relations"]])
        for one in entities.values()
    ]


def model_arguments(
    reader: Any, model: Any, tokens: Sequence[str], dataset: str, spans: torch.Tensor, device: torch.device
) -> dict[str, Any]:
    """Arguments of the model for one text; `spans` is an int64[spans, 2], see `batched_model.span_table`."""
    with supported_names():
        words = [Token(reader._normalize_word(token)) for token in tokens]
        field = ListField([TextField(words, reader._token_indexers)])
    field.index(model.vocab)
    text = field.batch_tensors([field.as_tensor(field.get_padding_lengths())])
    document = Document.from_json({"doc_key": "0", "sentences": [list(tokens)], "dataset": dataset})
    arguments: dict[str, Any] = batch_to_device(
        {"text": text, "spans": spans[None, None], "metadata": [document]}, device
    )
    return arguments


@dataclass(frozen=True, slots=True)
class ModelParts:
    """Private parts of the package's model that `BatchedModel` replaces.

    Args:
        embedder: holds the encoder as `transformer_model`.
        max_length: longest input of the encoder, word pieces; `None` for no limit.
        mixes_layers: the embedding is a weighted sum of all layers, which need the encoder's own outputs.
        entities: module with a `predict` on the scores of entity labels.
        relations: module with a `predict` on the scores of relations.
        span_scorers: modules whose output decides which spans are considered for relations.
    """

    embedder: Any
    max_length: int | None
    mixes_layers: bool
    entities: Any
    relations: Any
    span_scorers: Sequence[torch.nn.Module]


def model_parts(model: Any) -> ModelParts:
    """Find the private parts of the package's model.

    Raises:
        UnsupportedVersionError: the installed radgraph names them differently.
    """
    with supported_names():
        embedder = model._embedder.token_embedder_bert._matched_embedder
        _ = embedder.transformer_model, model._ner.predict, model._relation.predict
        return ModelParts(
            embedder=embedder,
            max_length=embedder._max_length,
            mixes_layers=embedder._scalar_mix is not None,
            entities=model._ner,
            relations=model._relation,
            span_scorers=[pruner._scorer for pruner in model._relation._mention_pruners.values()],
        )


def packed_linear() -> tuple[Callable[..., torch.Tensor], Callable[..., torch.Tensor]] | None:
    """OneDNN's functions that pack the weights of a linear layer and that apply them; `None` if torch lacks them."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return None
    try:
        return torch.ops.mkldnn._reorder_linear_weight, torch.ops.mkldnn._linear_pointwise
    except AttributeError:
        return None
