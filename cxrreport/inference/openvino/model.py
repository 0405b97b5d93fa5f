"""A checkpoint on the CPU through OpenVINO, in the place of the torch model; with `openvino_graphs` the only importer.

The graphs are converted once and kept in a folder whose name follows from the weights and from how they are run; later
runs map them into memory and load no torch weights. `OpenVinoModel` stands where the engine expects the torch model.
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
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from transformers import PaliGemmaConfig
from transformers.modeling_outputs import BaseModelOutputWithPooling, CausalLMOutput

from cxrreport.errors import SettingsError
from cxrreport.inference.openvino.graphs import LANGUAGE, VISION, convert, library
from cxrreport.model import adapters, checkpoints
from cxrreport.model.checkpoints import LoadedModel
from cxrreport.model.compat import CACHE
from cxrreport.settings import CheckpointSettings
from cxrreport.storage.files import output_folder

_LOG = logging.getLogger(__name__)
_RECORD = "openvino"
_LAYOUT = 2
"""Of the graphs; a new number makes them again."""


def load(
    checkpoint: CheckpointSettings,
    adapter: Path | None,
    *,
    resolution: int,
    quantize: Literal["none", "int8"],
    folder: Path | None = None,
) -> LoadedModel:
    """A checkpoint and its adapter, merged, as `OpenVinoModel`.

    Args:
        checkpoint: `precision` is that of the products; the CPU is the only device.
        adapter: adapter folder of `train`.
        resolution: side of the images, pixels.
        quantize: `int8`: weights of linear layers and the table of words in 8 bits.
        folder: where converted models are kept; None: `~/.cache/cxrreport`.

    Raises:
        MissingExtraError: openvino or nncf is not installed.
        SettingsError: a GPU or a precision that only CUDA has is asked for.
        WeightsError, MismatchError: as `model.checkpoints.load` and `model.adapters.load`.
        OutputError: another process converts the same model at this moment, or the folder cannot be written.
    """
    openvino = library()
    if checkpoint.device == "cuda" or checkpoint.precision == "nf4":
        raise SettingsError(
            "engine: openvino runs on the CPU, in float32 or bfloat16; set checkpoint.device to cpu and "
            "checkpoint.precision to one of them (and quantize to int8 for less memory), or take engine: torch"
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
    place = (folder or Path("~/.cache/cxrreport")).expanduser() / name
    if not _whole(place):
        with output_folder(place, verb=_RECORD, settings=key) as made:
            if not made.finished:
                _LOG.warning("converting '%s' for OpenVINO, once, into %s", checkpoint.name, place)
                loaded = checkpoints.load(checkpoint, resolution=resolution)
                if adapter is not None:
                    adapters.load(adapter, loaded).model.merge_and_unload()  # in place
                convert(loaded, place, quantize=quantize)
                loaded.model.config.save_pretrained(place)
                made.finish()
    return replace(described, model=OpenVinoModel(place, precision=checkpoint.precision))


def _whole(place: Path) -> bool:
    """A conversion is there and has come to its end. Asked without its lock, so that several runs share it."""
    try:
        record = json.loads((place / f"{_RECORD}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(record, dict) and record.get("finished") is True


class OpenVinoModel:
    """The graphs in a folder, called as the engine calls the torch model.

    Args:
        place: folder of the graphs.
        precision: of the products, and of keys and values.
    """

    def __init__(self, place: Path, *, precision: str) -> None:
        openvino = library()
        self.config: Any = PaliGemmaConfig.from_pretrained(place)
        element = "f32" if precision == "float32" else "bf16"
        options = {
            "INFERENCE_PRECISION_HINT": element,
            "KV_CACHE_PRECISION": element,  # in 8 bits where nothing is said
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
        }
        core = openvino.Core()
        self._requests = {
            file: core.compile_model(place / file, "CPU", options).create_infer_request() for file in (VISION, LANGUAGE)
        }
        self._unused = {file: (place / file).with_suffix(".bin") for file in self._requests}

    def slots(self, slots: int, length: int) -> States:
        """The cache that goes with this model."""
        return States(slots, length)

    def get_image_features(self, pixel_values: torch.Tensor) -> BaseModelOutputWithPooling:
        """Features float32[N, image tokens, width] of float32[N, 3, R, R], as `pooler_output`."""
        return BaseModelOutputWithPooling(pooler_output=self._run(VISION, [pixel_values.numpy()]))

    def __call__(
        self,
        *,
        input_ids: torch.Tensor,
        position_ids: torch.Tensor,
        mm_encoder_outputs: dict[str, BaseModelOutputWithPooling] | None = None,
        **given: Any,
    ) -> CausalLMOutput:
        """Logits float32[B, 1, vocabulary] of the last position.

        Args:
            input_ids: int64[B, T].
            position_ids: int64[B, T], from 1.
            mm_encoder_outputs: features of images, where the prompt has any.
            given: what else transformers' model takes: `States` as its `CACHE`; masks, of which nothing is needed.
        """
        states: States = given[CACHE]
        features = torch.zeros(*input_ids.shape, self.config.text_config.hidden_size)
        if mm_encoder_outputs is not None:
            pooled: Any = mm_encoder_outputs["image"].pooler_output
            features[input_ids == self.config.image_token_id] = pooled.flatten(0, 1)
        mask, rows, begins = states.advance(input_ids.shape[1])
        if begins:
            self._requests[LANGUAGE].reset_state()
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
        request = self._requests[file]
        if weights := self._unused.pop(file, None):
            with _let_go(weights):
                request.infer(inputs)
        else:
            request.infer(inputs)
        return torch.from_numpy(request.get_output_tensor(0).data.copy())


class States:
    """What the engine takes as a cache: which rows of the graph's state go on, and where they are padded.

    All rows of a state grow together, so prompts are read together, and none joins while others are being written.
    """

    joins = False

    def __init__(self, slots: int, length: int) -> None:
        self.slots = slots
        self.length = length
        self._padding: list[int] = []
        self._rows: list[int] = []
        self._held = 0

    def reading(self, _first: int, padding: Sequence[int]) -> None:
        """The next pass reads whole prompts, left-padded by `padding` positions."""
        self._padding = list(padding)
        self._rows = list(range(len(padding)))
        self._held = 0

    def writing(self, places: torch.Tensor, _width: int) -> None:
        """The next pass reads one more token for each of the first rows, as many as `places` has."""
        del self._rows[len(places) :]

    def move(self, source: int, target: int) -> None:
        """Row `target` goes on with what row `source` holds."""
        self._rows[target], self._padding[target] = self._rows[source], self._padding[source]

    def advance(self, new: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], bool]:
        """What the graph is told of the next pass, of `new` positions.

        Returns:
            the mask int64[B, positions], 0 on padding; the rows int32[B] of the state that go on; whether it begins.
        """
        begins, count = self._held == 0, len(self._rows)
        self._held += new
        mask = np.arange(self._held) >= np.array(self._padding[:count])[:, None]
        rows = np.array(self._rows, np.int32)
        self._rows = list(range(count))
        return mask.astype(np.int64), rows, begins


@contextmanager
def _let_go(weights: Path) -> Iterator[None]:
    """Within the block, pages of a mapped file that have been read do not stay in memory.

    In its first pass OpenVINO copies the weights into a layout of its own and keeps both, which is twice the model.
    What is needed once more is read from the file again. On Linux; elsewhere the system does so when memory is short.
    """
    if sys.platform != "linux":
        yield
        return
    done = threading.Event()
    thread = threading.Thread(target=_drop_until, args=(done, os.path.realpath(weights)), daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _drop_until(done: threading.Event, file: str) -> None:
    madvise = ctypes.CDLL(None, use_errno=True).madvise
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    last = False
    while not last:
        last = done.wait(0.05)
        for line in Path("/proc/self/maps").read_text().splitlines():
            address, permissions, *_, path = line.split(maxsplit=5)
            if path == file and permissions.startswith("r--"):
                start, end = (int(part, 16) for part in address.split("-"))
                madvise(start, end - start, 4)  # MADV_DONTNEED: a shared file's pages, which nobody has written to
