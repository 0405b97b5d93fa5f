"""PaliGemma 2 as two OpenVINO graphs: pixels to image features, tokens to logits.

Traced from the very modules that torch runs, so that there is one description of the model. Keys and values are state
of the language model's graph: a step moves one token, not the cache.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

from cxrreport.errors import MissingExtraError
from cxrreport.model.checkpoints import LoadedModel
from cxrreport.model.compat import CACHE

VISION, LANGUAGE = "vision.xml", "language.xml"


def library() -> Any:
    """openvino, imported when it is needed.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import openvino
    except ImportError as error:
        raise MissingExtraError("engine: openvino", "openvino") from error
    return openvino


def convert(loaded: LoadedModel, folder: Path, *, quantize: Literal["none", "int8"]) -> None:
    """Write the two graphs of a loaded model into `folder`.

    Args:
        loaded: on the CPU, its adapter merged; not to be used with torch afterwards. Weights in bfloat16 are stored as
            they are and computed with in float32.
        folder: exists.
        quantize: `int8`: the weights of all linear layers and of the table of words, with a scale and a zero point for
            each row.

    Raises:
        MissingExtraError: openvino or nncf is not installed.
    """
    openvino = library()
    model, text = loaded.model, loaded.model.config.text_config
    if not loaded.softcap:
        # Attention in transformers' own form, which OpenVINO knows how to fuse with the state. In ours, with the heads
        # that share keys as one, it makes a graph with a loop.
        text._attn_implementation = "sdpa"
    heads = (int(text.num_key_value_heads), int(text.head_dim))
    pixels = torch.zeros(1, 3, loaded.resolution, loaded.resolution)
    step = (
        torch.ones(2, 3, dtype=torch.int64),
        torch.zeros(2, 3, text.hidden_size),
        torch.ones(2, 8, dtype=torch.int64),
        torch.arange(6, 9).expand(2, -1),
    )
    past = [torch.zeros(2, heads[0], 5, heads[1]) for _ in range(2 * text.num_hidden_layers)]
    with _quiet():
        with torch.no_grad(), _Widened():
            vision = openvino.convert_model(_Vision(model), example_input=(pixels,))
        vision.reshape([-1, *pixels.shape[1:]])
        _save(vision, folder / VISION, quantize)
        with torch.no_grad(), _Widened():
            language = openvino.convert_model(_Language(model, softcap=loaded.softcap), example_input=(*step, *past))
        _name(language, text.num_hidden_layers, heads)
        _keep_state(language, heads)
        _save(language, folder / LANGUAGE, quantize)


class _Vision(torch.nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.model.get_image_features(pixel_values).pooler_output
        return features


class _Language(torch.nn.Module):
    """Ids, image features in their places, padding, positions, keys and values to logits, keys and values."""

    def __init__(self, model: Any, *, softcap: bool) -> None:
        super().__init__()
        self.model = model
        self.softcap = softcap

    def forward(
        self,
        input_ids: torch.Tensor,
        features: torch.Tensor,
        attention_mask: torch.Tensor,
        position_ids: torch.Tensor,
        *past: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        words = self.model.get_input_embeddings()(input_ids)
        images = (input_ids == self.model.config.image_token_id)[..., None]
        # Whatever is read when generating, prompt or own token, attends to all that is not padding.
        seen = attention_mask[:, None, None, :].bool().expand(-1, 1, input_ids.shape[1], -1)
        if self.softcap:  # eager attention adds its mask
            seen = torch.where(seen, 0.0, torch.finfo(torch.float32).min)
        cache = _Past(past)
        output = self.model(
            inputs_embeds=torch.where(images, features, words),
            attention_mask=seen,
            position_ids=position_ids,
            **{CACHE: cache},
            use_cache=True,
            logits_to_keep=1,
        )
        return output.logits, *cache.tensors


class _Past:
    """What transformers takes as a cache, as the tracer understands it: begins with tensors and concatenates."""

    is_initialized = True

    def __init__(self, tensors: tuple[torch.Tensor, ...]) -> None:
        self.tensors = list(tensors)

    def update(
        self, keys: torch.Tensor, values: torch.Tensor, layer: int, *_args: Any, **_kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        for place, new in ((2 * layer, keys), (2 * layer + 1, values)):
            self.tensors[place] = torch.cat([self.tensors[place], new], -2)
        return self.tensors[2 * layer], self.tensors[2 * layer + 1]


class _Widened(TorchFunctionMode):
    """Weights in bfloat16 become float32 where they are used, so that the graph holds them small and computes wide."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _PRODUCTS:
            return func(*map(_wide, args), **{name: _wide(value) for name, value in kwargs.items()})
        return func(*args, **kwargs)


# The table of words too: widened after the look-up it would not be recognised as the compressed table of the head.
_PRODUCTS = frozenset(
    {torch.nn.functional.linear, torch.nn.functional.embedding}
    | {torch.nn.functional.conv2d, torch.nn.functional.layer_norm}
)


def _wide(value: Any) -> Any:
    return value.float() if isinstance(value, torch.Tensor) and value.dtype == torch.bfloat16 else value


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep tables, bars and remarks of tracer and quantiser out of our output."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def _save(graph: Any, path: Path, quantize: str) -> None:
    if quantize == "int8":
        try:
            import nncf
        except ImportError as error:
            raise MissingExtraError("quantize: int8", "openvino") from error
        graph = nncf.compress_weights(graph, mode=nncf.CompressWeightsMode.INT8_ASYM)
    library().save_model(graph, path, compress_to_fp16=False)


def _name(graph: Any, layers: int, heads: tuple[int, int]) -> None:
    pairs = [f"{layer}.{kind}" for layer in range(layers) for kind in ("keys", "values")]
    inputs = ["input_ids", "features", "attention_mask", "position_ids", *(f"past.{pair}" for pair in pairs)]
    for port, name in zip(graph.inputs, inputs, strict=True):
        port.set_names({name})
        if name.startswith("past."):
            port.get_node().set_partial_shape(library().PartialShape([-1, heads[0], -1, heads[1]]))
    for port, name in zip(graph.outputs, ["logits", *(f"new.{pair}" for pair in pairs)], strict=True):
        port.set_names({name})
    graph.validate_nodes_and_infer_types()


def _keep_state(graph: Any, heads: tuple[int, int]) -> None:
    """Make keys and values state, of which a new input `rows`, int32[B], chooses what goes on."""
    from openvino import opset13 as ops
    from openvino._offline_transformations import apply_make_stateful_transformation

    rows = ops.parameter([-1], library().Type.i32, name="rows")
    rows.output(0).set_names({"rows"})
    graph.add_parameters([rows])
    pairs = {}
    for port in graph.inputs:
        name = port.get_any_name()
        if name.startswith("past."):
            pairs[name] = name.replace("past.", "new.")
            readers = port.get_target_inputs()
            chosen = ops.gather(port, rows, ops.constant(0))
            for reader in readers:
                reader.replace_source_output(chosen.output(0))
    graph.validate_nodes_and_infer_types()
    apply_make_stateful_transformation(graph, pairs)
    size = ops.gather(ops.shape_of(graph.input("input_ids")), ops.constant([0]), ops.constant(0))
    none = ops.concat([size, *(ops.constant([part], dtype=np.int64) for part in (heads[0], 0, heads[1]))], 0)
    for node in graph.get_ops():
        if node.get_type_name() == "ReadValue":  # at first the state has the rows of the input, and no length
            node.set_arguments([ops.broadcast(ops.constant(0.0, dtype=np.float32), none)])
    graph.validate_nodes_and_infer_types()
