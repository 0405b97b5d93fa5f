"""The engine: requests in, texts out, with as many at once as memory allows.

It replaces `generate` of transformers and produces the same tokens. Each image is encoded once, the output layer runs
on the last position only, and nothing but the chosen token's log-probability is kept. Beam search calls transformers.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, Literal

import numpy as np
import torch

from cxrreport.errors import InferenceError, MismatchError
from cxrreport.inference.decoding.beam_search import beam_search
from cxrreport.inference.decoding.captured_steps import CapturedSteps, can_be_captured
from cxrreport.inference.decoding.forward import ForwardPasses, Step
from cxrreport.inference.decoding.kv_cache import SlotCache
from cxrreport.inference.decoding.memory import free_memory, is_out_of_memory
from cxrreport.inference.decoding.requests import Generated, PreparedRequest, Request, Take, prepare, result
from cxrreport.inference.decoding.slot_scheduling import Finished, RequestQueue, Slots, decode
from cxrreport.inference.decoding.token_choice import TokenChoice
from cxrreport.model import capacity
from cxrreport.model.adapters import paligemma
from cxrreport.model.checkpoints import LoadedModel
from cxrreport.model.fused import fused
from cxrreport.model.prompt import PromptLayout
from cxrreport.settings import Beam, Decoding, Greedy

_LOG = logging.getLogger(__name__)


class Engine:
    """Decoding of a loaded model.

    Args:
        loaded: the checkpoint, with or without adapter; used in evaluation mode and without gradients.
        layout: prompt layout of the same tokenizer.
        batch_size: largest number of texts generated together, reduced if memory does not suffice; `auto` for as many
            as the device does well (`model.capacity`).
        max_new_tokens: limit per request, EOS included.
        decoding: how tokens are chosen; greedily by default.
        seed: seed of sampling; a text depends on it, on the study and on the prompt alone.

    Raises:
        MismatchError: the layout has another number of image tokens than the checkpoint.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        layout: PromptLayout,
        *,
        batch_size: int | Literal["auto"],
        max_new_tokens: int,
        decoding: Decoding | None = None,
        seed: int = 0,
    ) -> None:
        if layout.image_tokens != loaded.image_tokens:
            raise MismatchError(
                f"checkpoint '{loaded.name}' has {loaded.image_tokens} image tokens, the prompt layout "
                f"{layout.image_tokens}; build the layout from the loaded checkpoint"
            )
        device = loaded.device.type
        if batch_size == "auto":
            batch_size = capacity.MOST_TEXTS[device]
        if batch_size < 1 or max_new_tokens < 1:
            raise InferenceError(f"batch_size {batch_size} and max_new_tokens {max_new_tokens} must be at least 1")
        self.batch_size = batch_size
        """Texts generated together; below the requested number after memory has run out."""
        self._loaded = loaded
        self._layout = layout
        self._max_new_tokens = max_new_tokens
        self._decoding = decoding or Greedy()
        self._read_at_once = capacity.READ_AT_ONCE[device]
        self._passes = ForwardPasses(loaded, layout)
        vocabulary = int(loaded.model.config.text_config.vocab_size)
        self._choice = TokenChoice(layout, vocabulary, loaded.device, self._decoding, seed)

    def generate(self, requests: Sequence[Request], done: Callable[[int], None] | None = None) -> list[Generated]:
        """Generate a text for every request.

        Args:
            requests: in any order; requests for the same images are processed together, to encode images once.
            done: called with the number of finished requests.

        Returns:
            One result per request, in their order.

        Raises:
            InferenceError: as `prepare` and `stream`.
        """
        groups = iter([self.prepare(requests)])
        results: dict[int, Generated] = {}
        for index, generated in self.stream(lambda _wait: next(groups, None)):
            results[index] = generated
            if done is not None:
                done(len(results))
        return [results[index] for index in range(len(requests))]

    def prepare(self, requests: Sequence[Request], *, first: int = 0) -> list[PreparedRequest]:
        """Encode a group of requests, numbered from `first` on, in the order in which they are best processed.

        May be called by another thread than the one that generates.

        Raises:
            InferenceError: an image has another size than the checkpoint takes.
        """
        self._check_images(requests)
        prepared = [
            prepare(index, request, self._layout, self._max_new_tokens) for index, request in enumerate(requests, first)
        ]
        longest: dict[tuple[str, ...], int] = {}
        for one in prepared:
            longest[one.image_sha256] = max(longest.get(one.image_sha256, 0), one.length)
        prepared.sort(key=lambda one: (longest[one.image_sha256], one.image_sha256, one.length))
        return prepared

    def stream(self, take: Take) -> Generator[tuple[int, Generated], None, None]:
        """Generate texts for groups of requests as one queue: slots that a group leaves are given to the next one.

        Args:
            take: returns the next group of `prepare`; a group is asked for when fewer requests wait than there is room
                for. It is only waited for while no text is being generated.

        Yields:
            Number and result of each request, in the order in which they are finished.

        Raises:
            InferenceError: memory does not suffice for one text, or the model's output is not finite.
        """
        queue = RequestQueue(take)
        while True:
            try:
                for request, ids, logprobs, started in self._decode(queue):
                    queue.finish(request)
                    yield request.index, result(request, ids, logprobs, started, self._layout)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error) or (oldest := queue.oldest) is None:
                    raise
            else:
                return
            # Outside of the handler, because its traceback still holds the tensors that did not fit.
            self._halve_batch(oldest.request.study_id)
            queue.restart()

    def _decode(self, queue: RequestQueue) -> Iterator[Finished]:
        passes, choice = self._passes, self._choice
        with self._fused():
            if isinstance(self._decoding, Beam):
                yield from beam_search(queue, self._decoding, passes, choice)
            else:
                limits = {"batch_size": self.batch_size, "read_at_once": self._read_at_once}
                yield from decode(queue, self._allocate, passes, choice, **limits)

    def _allocate(self, requests: Sequence[PreparedRequest]) -> Slots:
        """Slots for the longest request, as many as fit into memory; at least one, whose allocation may then fail."""
        config, device = self._loaded.model.config.text_config, self._loaded.device
        length = capacity.positions(max(one.positions for one in requests), device.type)
        size = capacity.slot_bytes(config, length, self._loaded.dtype.itemsize)
        fitting = int(capacity.MEMORY_SHARE[device.type] * free_memory(device) / size)
        most = min(self.batch_size, max(1, fitting))
        # An OpenVINO model keeps keys and values in its graph.
        make = getattr(self._loaded.model, "make_cache", partial(SlotCache, layers=config.num_hidden_layers))
        cache: SlotCache = make(min(len(requests), most), length)
        step: Step = partial(self._passes.read_tokens, cache=cache)
        if can_be_captured(self._loaded.model, device):
            step = CapturedSteps(self._passes, cache, device)
        return Slots(cache, length, most, step)

    def _fused(self) -> AbstractContextManager[None]:
        """Replace layers of a torch model by ones that make fewer passes over memory."""
        model: Any = self._loaded.model
        if not isinstance(model, torch.nn.Module):
            return nullcontext()
        return fused(model, paligemma(model).language_model, softcap=self._loaded.softcap, constant=True)

    def _check_images(self, requests: Sequence[Request]) -> None:
        side = self._loaded.resolution
        for request in requests:
            for image in request.images:
                if image.dtype != np.uint8 or image.shape != (side, side):
                    raise InferenceError(
                        f"study {request.study_id}: the image is {image.dtype}{list(image.shape)}, but the checkpoint "
                        f"takes uint8[{side}, {side}]; ingest again with resolution: {side}"
                    )

    def _halve_batch(self, study_id: str) -> None:
        self._passes.forget_features()
        if self._loaded.device.type == "cuda":
            torch.cuda.empty_cache()
        size = self.batch_size
        if size == 1 or isinstance(self._decoding, Beam):
            raise InferenceError(
                f"study {study_id}: not enough memory on {self._loaded.device} for one text; use greedy decoding, "
                "set checkpoint.precision to bfloat16, or use a smaller checkpoint, a lower resolution or another "
                "device"
            )
        self.batch_size = size // 2
        self._read_at_once //= 2
        _LOG.warning("a batch of %d did not fit into memory; continuing with %d", size, self.batch_size)
