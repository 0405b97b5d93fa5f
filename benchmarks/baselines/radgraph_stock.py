"""`F1RadGraph` of the radgraph package as in its README, with the functions that transformers 5 removed restored.

Three short methods and one function replace those that transformers 5 removed. They cache nothing, and nothing else of
the package is changed.
"""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any

from radgraph import F1RadGraph
from radgraph.allennlp.common import cached_transformers
from transformers import AutoConfig, AutoModel, AutoTokenizer


def _tokenizer(name: str, **options: Any) -> Any:
    made = AutoTokenizer.from_pretrained(name, local_files_only=True, **options)

    def encode_plus(self: Any, text: str, text_pair: str | None = None, **given: Any) -> Any:
        return self(text, text_pair, **given)

    def batch_encode_plus(self: Any, texts: list[str], **given: Any) -> Any:
        return self(texts, **given)

    def build_inputs_with_special_tokens(self: Any, ids: list[int]) -> list[int]:
        return [self.cls_token_id, *ids, self.sep_token_id]

    for method in (encode_plus, batch_encode_plus, build_inputs_with_special_tokens):
        setattr(made, method.__name__, types.MethodType(method, made))
    return made


def _encoder(name: str, *_: object) -> Any:
    # The archive holds the encoder's weights; the package would fetch them from the hub first, only to replace them.
    return AutoModel.from_config(AutoConfig.from_pretrained(name, local_files_only=True))


def load(root: Path, model: str) -> F1RadGraph:
    """The scorer on the archive `root`/`model`, whose config.json names its encoder's folder."""
    cached_transformers.get_tokenizer, cached_transformers.get = _tokenizer, _encoder
    return F1RadGraph(reward_level="all", model_type=model, model_cache_dir=str(root), cuda=-1)
