"""PaliGemma 2 as two OpenVINO graphs: pixels to image features, tokens to logits.

The graphs are traced from the modules that torch runs. Keys and values are state of the language model's graph, so
that a decoding step passes one token and not the cache.
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
from cxrreport.model.compat import CACHE, image_features, set_attention

VISION, LANGUAGE = "vision.xml", "language.xml"


def import_openvino() -> Any:
    """Import openvino on first use.

    Raises:
        MissingExtraError: openvino is not installed.
    """
    try:
        import openvino
    except ImportError as error:
        raise MissingExtraError("engine: openvino", "openvino") from error
    return openvino


def convert_model(loaded: LoadedModel, folder: Path, *, quantize: Literal["none", "int8"]) -> None:
    """Write the two graphs of a loaded model into `folder`.

    Args:
        loaded: on the CPU, with its adapter merged; it cannot be used with torch afterwards. Weights in bfloat16 are
            stored in bfloat16 and converted to float32 in computations.
        folder: existing folder.
        quantize: `int8` stores the weights of linear layers and embeddings in 8 bits, with a scale and a zero point per
            row.

    Raises:
        MissingExtraError: openvino or nncf is not installed.
    """
    openvino = import_openvino()
    model, text = loaded.model, loaded.model.config.text_config
    if not loaded.softcap:
        # OpenVINO fuses the attention of transformers with the state; `model.attention` would give a graph with a loop.
        set_attention(text, "sdpa")
    heads = (int(text.num_key_value_heads), int(text.head_dim))
    pixels = torch.zeros(1, 3, loaded.resolution, loaded.resolution)
    step = (
        torch.ones(2, 3, dtype=torch.int64),
        torch.zeros(2, 3, text.hidden_size),
        torch.ones(2, 8, dtype=torch.int64),
        torch.arange(6, 9).expand(2, -1),
    )
    past = [torch.zeros(2, heads[0], 5, heads[1]) for _ in range(2 * text.num_hidden_layers)]
    with _silenced():
        with torch.no_grad(), _Float32Products():
            vision = openvino.convert_model(_Vision(model), example_input=(pixels,))
        vision.reshape([-1, *pixels.shape[1:]])
        _save(vision, folder / VISION, quantize)
        with torch.no_grad(), _Float32Products():
            language = openvino.convert_model(_Language(model, softcap=loaded.softcap), example_input=(*step, *past))
        _name_ports(language, text.num_hidden_layers, heads)
        _make_stateful(language, heads)
        _save(language, folder / LANGUAGE, quantize)


class _Vision(torch.nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return image_features(self.model, pixel_values)


class _Language(torch.nn.Module):
    """Logits, keys and values from ids, image features at their positions, mask, positions, keys and values."""

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
        # In generation, every position attends to all positions that are not padding.
        visible = attention_mask[:, None, None, :].bool().expand(-1, 1, input_ids.shape[1], -1)
        if self.softcap:  # eager attention adds its mask
            visible = torch.where(visible, 0.0, torch.finfo(torch.float32).min)
        cache = _TracedCache(past)
        output = self.model(
            inputs_embeds=torch.where(images, features, words),
            attention_mask=visible,
            position_ids=position_ids,
            **{CACHE: cache},
            use_cache=True,
            logits_to_keep=1,
        )
        return output.logits, *cache.tensors


class _TracedCache:
    """A cache of transformers that can be traced: it starts with tensors and concatenates."""

    is_initialized = True

    def __init__(self, tensors: tuple[torch.Tensor, ...]) -> None:
        self.tensors = list(tensors)

    def update(
        self, keys: torch.Tensor, values: torch.Tensor, layer: int, *_args: Any, **_kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        for place, new in ((2 * layer, keys), (2 * layer + 1, values)):
            self.tensors[place] = torch.cat([self.tensors[place], new], -2)
        return self.tensors[2 * layer], self.tensors[2 * layer + 1]


class _Float32Products(TorchFunctionMode):
    """Converts bfloat16 weights to float32 where they are used, so that the graph stores 16 bits and computes in 32."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _WIDENED_FUNCTIONS:
            return func(*map(_to_float32, args), **{name: _to_float32(value) for name, value in kwargs.items()})
        return func(*args, **kwargs)


# Includes the embedding, because OpenVINO shares its table with the output layer only if both are converted.
_WIDENED_FUNCTIONS = frozenset(
    {torch.nn.functional.linear, torch.nn.functional.embedding}
    | {torch.nn.functional.conv2d, torch.nn.functional.layer_norm}
)


def _to_float32(value: Any) -> Any:
    return value.float() if isinstance(value, torch.Tensor) and value.dtype == torch.bfloat16 else value


@contextmanager
def _silenced() -> Iterator[None]:
    """Suppress the output of tracer and quantiser."""
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
    import_openvino().save_model(graph, path, compress_to_fp16=False)


def _name_ports(graph: Any, layers: int, heads: tuple[int, int]) -> None:
    pairs = [f"{layer}.{kind}" for layer in range(layers) for kind in ("keys", "values")]
    inputs = ["input_ids", "features", "attention_mask", "position_ids", *(f"past.{pair}" for pair in pairs)]
    for port, name in zip(graph.inputs, inputs, strict=True):
        port.set_names({name})
        if name.startswith("past."):
            port.get_node().set_partial_shape(import_openvino().PartialShape([-1, heads[0], -1, heads[1]]))
    for port, name in zip(graph.outputs, ["logits", *(f"new.{pair}" for pair in pairs)], strict=True):
        port.set_names({name})
    graph.validate_nodes_and_infer_types()


def _make_stateful(graph: Any, heads: tuple[int, int]) -> None:
    """Turn keys and values into state. A new input `rows`, int32[B], selects the rows of the state to continue with."""
    from openvino import opset13 as ops
    from openvino.passes import MakeStateful, Manager

    rows = ops.parameter([-1], import_openvino().Type.i32, name="rows")
    rows.output(0).set_names({"rows"})
    graph.add_parameters([rows])
    results = {port.get_any_name(): port.get_node() for port in graph.outputs}
    pairs = []
    for port in graph.inputs:
        name = port.get_any_name()
        if name.startswith("past."):
            pairs.append((port.get_node(), results[name.replace("past.", "new.")]))
            readers = port.get_target_inputs()
            chosen = ops.gather(port, rows, ops.constant(0))
            for reader in readers:
                reader.replace_source_output(chosen.output(0))
    graph.validate_nodes_and_infer_types()
    manager = Manager()
    manager.register_pass(MakeStateful(pairs))
    manager.run_passes(graph)
    size = ops.gather(ops.shape_of(graph.input("input_ids")), ops.constant([0]), ops.constant(0))
    empty = ops.concat([size, *(ops.constant([part], dtype=np.int64) for part in (heads[0], 0, heads[1]))], 0)
    for node in graph.get_ops():
        if node.get_type_name() == "ReadValue":  # the initial state has the rows of the input and no positions
            node.set_arguments([ops.broadcast(ops.constant(0.0, dtype=np.float32), empty)])
    graph.validate_nodes_and_infer_types()
