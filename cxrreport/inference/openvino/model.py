"""A checkpoint on the CPU through OpenVINO, with the interface that the engine expects of a torch model.

The graphs are converted once and kept in a folder whose name is a hash of weights and options. Later runs map them into
memory and do not load torch weights.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import logging
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from transformers import PaliGemmaConfig
from transformers.modeling_outputs import CausalLMOutput

from cxrreport.errors import InputError, SettingsError
from cxrreport.inference.openvino.graphs import LANGUAGE, VISION, convert_model, import_openvino
from cxrreport.model import adapters, checkpoints
from cxrreport.model.checkpoints import LoadedModel
from cxrreport.model.compat import CACHE, BaseModelOutputWithPooling, features_in
from cxrreport.settings import CheckpointSettings
from cxrreport.storage.output_folder import finished_record, output_folder

_LOG = logging.getLogger(__name__)
_RECORD = "openvino"
_LAYOUT = 2
"""Version of the graphs; increase it to convert all checkpoints again."""


def load_openvino_model(
    checkpoint: CheckpointSettings,
    adapter: Path | None,
    *,
    resolution: int,
    quantize: Literal["none", "int8"],
    folder: Path | None = None,
) -> LoadedModel:
    """Load a checkpoint with its adapter merged, as `OpenVinoModel`; convert it if that has not been done.

    Args:
        checkpoint: the base model; `precision` is that of matrix products.
        adapter: adapter folder of `train`.
        resolution: side length of the images in pixels.
        quantize: `int8` for weights of linear layers and embeddings in 8 bits.
        folder: folder for converted models; `None` for `~/.cache/cxrreport`.

    Raises:
        MissingExtraError: openvino or nncf is not installed.
        SettingsError: the settings name a GPU, or a precision that only CUDA supports.
        WeightsError, MismatchError: as `model.checkpoints.load` and `model.adapters.load`.
        OutputError: another process is converting the same model, or the folder cannot be written.
    """
    openvino = import_openvino()
    if checkpoint.device == "cuda" or checkpoint.precision == "nf4":
        raise SettingsError(
            "engine: openvino runs on the CPU, in float32 or bfloat16; set checkpoint.device to cpu and "
            "checkpoint.precision to one of them (and quantize to int8 for less memory), or use engine: torch"
        )
    checkpoint = checkpoint.model_copy(update={"device": "cpu"})
    described = checkpoints.describe(checkpoint, resolution=resolution)
    key = {
        "base": described.fingerprint,
        "adapter": None if adapter is None else checkpoints.fingerprint(adapter),
        "softcap": described.softcap,
        "dtype": str(described.dtype),
        "resolution": resolution,
        "quantize": quantize,
        "layout": _LAYOUT,
        "version": openvino.__version__,
    }
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    converted = (folder or Path("~/.cache/cxrreport")).expanduser() / name
    if not _is_finished(converted):
        with output_folder(converted, command=_RECORD, settings=key) as output:
            if not output.finished:
                _LOG.warning("converting '%s' for OpenVINO into %s; later runs reuse it", checkpoint.name, converted)
                loaded = checkpoints.load(checkpoint, resolution=resolution)
                if adapter is not None:
                    adapters.load(adapter, loaded).model.merge_and_unload()  # in place
                convert_model(loaded, converted, quantize=quantize)
                loaded.model.config.save_pretrained(converted)
                output.finish()
    return replace(described, model=OpenVinoModel(converted, precision=checkpoint.precision))


def _is_finished(converted: Path) -> bool:
    """True if a conversion is complete. Read without the lock, so that several runs can use it."""
    with suppress(InputError):
        return bool(finished_record(converted, _RECORD))
    return False


class OpenVinoModel:
    """The graphs of one conversion, with the interface of the torch model that the engine uses.

    Args:
        folder: folder of the graphs.
        precision: precision of matrix products, keys and values.
    """

    def __init__(self, folder: Path, *, precision: str) -> None:
        openvino = import_openvino()
        self.config: Any = PaliGemmaConfig.from_pretrained(folder)
        element = "f32" if precision == "float32" else "bf16"
        options = {
            "INFERENCE_PRECISION_HINT": element,
            "KV_CACHE_PRECISION": element,  # 8 bits by default
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
        }
        core = openvino.Core()
        self._infer_requests = {
            file: core.compile_model(folder / file, "CPU", options).create_infer_request()
            for file in (VISION, LANGUAGE)
        }
        self._unread_weights = {file: (folder / file).with_suffix(".bin") for file in self._infer_requests}

    def make_cache(self, slots: int, _length: int) -> GraphStateCache:
        """Make the cache of this model, whose slots grow as needed."""
        return GraphStateCache(slots)

    def get_image_features(self, pixel_values: torch.Tensor) -> BaseModelOutputWithPooling:
        """Image features float32[N, image tokens, width] of float32[N, 3, R, R], as `pooler_output`."""
        return BaseModelOutputWithPooling(pooler_output=self._run(VISION, [pixel_values.numpy()]))

    def __call__(
        self,
        *,
        input_ids: torch.Tensor,
        position_ids: torch.Tensor,
        **inputs: Any,
    ) -> CausalLMOutput:
        """Compute the logits float32[B, 1, vocabulary] of the last position.

        Args:
            input_ids: int64[B, T].
            position_ids: int64[B, T], from 1.
            inputs: `GraphStateCache` as `CACHE`, and image features; masks are ignored.
        """
        cache: GraphStateCache = inputs[CACHE]
        features = torch.zeros(*input_ids.shape, self.config.text_config.hidden_size)
        if (image_features := features_in(inputs)) is not None:
            features[input_ids == self.config.image_token_id] = image_features.flatten(0, 1)
        mask, rows, is_first = cache.advance(input_ids.shape[1])
        if is_first:
            self._infer_requests[LANGUAGE].reset_state()
        logits = self._run(
            LANGUAGE,
            {
                "input_ids": input_ids.numpy(),
                "features": features.numpy(),
                "attention_mask": mask,
                "position_ids": position_ids.numpy(),
                "rows": rows,
            },
        )
        return CausalLMOutput(logits=logits)

    def _run(self, file: str, inputs: Any) -> torch.Tensor:
        request = self._infer_requests[file]
        if weights := self._unread_weights.pop(file, None):
            with _dropping_pages(weights):
                request.infer(inputs)
        else:
            request.infer(inputs)
        return torch.from_numpy(request.get_output_tensor(0).data.copy())


class GraphStateCache:
    """The counterpart of `SlotCache`: selects the rows of the graph's state that continue, and holds their padding.

    All rows of a state have the same length. Prompts are therefore read together, and no new prompt is accepted while
    texts are being generated.
    """

    accepts_new_prompts = False

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self._padding: list[int] = []
        self._rows: list[int] = []
        self._length = 0

    def begin_prompts(self, _first: int, padding: Sequence[int]) -> None:
        """Announce a pass over whole prompts, left-padded by `padding` positions."""
        self._padding = list(padding)
        self._rows = list(range(len(padding)))
        self._length = 0

    def begin_step(self, places: torch.Tensor, _width: int) -> None:
        """Announce a pass over one token for each of the first `len(places)` rows."""
        del self._rows[len(places) :]

    def copy_slot(self, source: int, target: int) -> None:
        """Continue row `target` with the state of row `source`; a row after the last one is added."""
        for rows in (self._rows, self._padding):
            rows[target : target + 1] = [rows[source]]

    def advance(self, new: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], bool]:
        """Inputs of the graph for the next pass, over `new` positions.

        Returns:
            Mask int64[B, positions], 0 on padding; rows int32[B] of the state to continue with; True for prompts.
        """
        is_first, count = self._length == 0, len(self._rows)
        self._length += new
        mask = np.arange(self._length) >= np.array(self._padding[:count])[:, None]
        rows = np.array(self._rows, np.int32)
        self._rows = list(range(count))
        return mask.astype(np.int64), rows, is_first


@contextmanager
def _dropping_pages(weights: Path) -> Iterator[None]:
    """Within the block, drop pages of a mapped file from memory after they have been read (Linux only).

    In its first pass OpenVINO copies the weights into another layout and keeps the mapped file in memory as well, which
    doubles the memory of the model. A page that is needed again is read from the file.
    """
    if sys.platform != "linux":
        yield
        return
    done = threading.Event()
    thread = threading.Thread(target=_drop_pages_until, args=(done, os.path.realpath(weights)), daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _drop_pages_until(done: threading.Event, file: str) -> None:
    madvise = ctypes.CDLL(None, use_errno=True).madvise
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    last = False
    while not last:
        last = done.wait(0.05)
        for line in Path("/proc/self/maps").read_text().splitlines():
            address, permissions, *_, path = line.split(maxsplit=5)
            if path == file and permissions.startswith("r--"):
                start, end = (int(part, 16) for part in address.split("-"))
                madvise(start, end - start, 4)  # MADV_DONTNEED; the pages are read-only
