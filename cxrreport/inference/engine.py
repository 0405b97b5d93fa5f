"""Images and prompts to text: greedy decoding in batches.

A loop of its own instead of `generate` of transformers, with the same tokens: every image is encoded once, the head
runs on the last position only, rows that have reached EOS leave the batch, nothing beside the chosen token's
log-probability is kept, and a batch that does not fit into memory is tried again in halves.
"""

from __future__ import annotations

import hashlib
import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling

from cxrreport.errors import InferenceError, MismatchError
from cxrreport.inference.cache import new_cache
from cxrreport.model.checkpoints import LoadedModel
from cxrreport.model.prompt import Encoded, PromptLayout, pixel_values, positions
from cxrreport.records import Report

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What one generated report needs.

    Args:
        study_id: for messages; results come in the order of the requests.
        image: uint8[R, R], R the resolution of the checkpoint.
        report: goes into the prefix (its indication); its sections are not read.
        further: more images of the study, like `image`, where the model sees several at once.
    """

    study_id: str
    image: npt.NDArray[np.uint8]
    report: Report
    further: tuple[npt.NDArray[np.uint8], ...] = ()

    @property
    def images(self) -> tuple[npt.NDArray[np.uint8], ...]:
        """All images, in the order in which the model sees them."""
        return (self.image, *self.further)


@dataclass(frozen=True, slots=True, kw_only=True)
class Generated:
    """What the model wrote for one request.

    Args:
        ids: all chosen tokens, EOS included where it was reached.
        text: of `ids`, special tokens left out.
        mean_logprob: mean natural-log probability of `ids`, over the tokens that are not suppressed.
        min_logprob: the least of them.
        finished: EOS was reached before the limit of new tokens.
    """

    study_id: str
    ids: tuple[int, ...]
    text: str
    mean_logprob: float
    min_logprob: float
    finished: bool

    @property
    def tokens(self) -> int:
        """Number of chosen tokens, EOS included."""
        return len(self.ids)


class Engine:
    """Greedy decoding of a loaded model.

    Args:
        loaded: the checkpoint, with or without adapter; used in evaluation mode and without gradients.
        layout: of the same tokenizer.
        batch_size: largest number of requests that run together.
        max_new_tokens: limit per request, EOS included.

    Raises:
        MismatchError: the layout counts other image tokens than the checkpoint.
    """

    def __init__(self, loaded: LoadedModel, layout: PromptLayout, *, batch_size: int, max_new_tokens: int) -> None:
        if layout.image_tokens != loaded.image_tokens:
            raise MismatchError(
                f"checkpoint '{loaded.name}' has {loaded.image_tokens} image tokens, the prompt layout "
                f"{layout.image_tokens}; build the layout from the loaded checkpoint"
            )
        if batch_size < 1 or max_new_tokens < 1:
            raise InferenceError(f"batch_size {batch_size} and max_new_tokens {max_new_tokens} must be at least 1")
        self.batch_size = batch_size
        """Requests per batch; smaller than asked for once a batch has not fitted into memory."""
        self._loaded = loaded
        self._layout = layout
        self._limit = max_new_tokens
        rows = loaded.model.get_input_embeddings().weight.shape[0]
        self._suppressed = torch.tensor(layout.suppressed(rows), device=loaded.device)
        self._features: OrderedDict[bytes, torch.Tensor] = OrderedDict()

    def generate(self, requests: Sequence[Request], done: Callable[[int], None] | None = None) -> list[Generated]:
        """Decode every request, batches of like prefix length together.

        Args:
            requests: in any order.
            done: told after each batch how many of `requests` are finished.

        Returns:
            one result per request, in their order.

        Raises:
            InferenceError: an image has another size than the checkpoint's, a batch of one does not fit into memory,
                or the model gives numbers that are not finite.
        """
        for request in requests:
            for image in request.images:
                if image.dtype != np.uint8 or image.shape != (self._loaded.resolution,) * 2:
                    raise InferenceError(
                        f"study {request.study_id}: the image is {image.dtype}{list(image.shape)}, the checkpoint "
                        f"takes uint8[{self._loaded.resolution}, {self._loaded.resolution}]; ingest again with "
                        f"resolution: {self._loaded.resolution}"
                    )
        encoded = [
            self._layout.encode(request.report, with_suffix=False, images=len(request.images)) for request in requests
        ]
        results: dict[int, Generated] = {}
        waiting = deque(sorted(range(len(requests)), key=lambda i: (encoded[i].images, len(encoded[i].prefix))))
        while waiting:
            batch = [waiting[place] for place in range(min(self.batch_size, len(waiting)))]
            try:
                made = self._decode([requests[index] for index in batch], [encoded[index] for index in batch])
            except (MemoryError, RuntimeError) as error:
                if not _out_of_memory(error):
                    raise
                made = None
            if made is None:  # Outside of the handler, whose traceback holds the tensors of the failed batch.
                self._halve(len(batch), requests[batch[0]].study_id)
                continue
            for index, one in zip(batch, made, strict=True):
                results[index] = one
                waiting.popleft()
            if done is not None:
                done(len(results))
        return [results[index] for index in range(len(requests))]

    def _halve(self, size: int, study_id: str) -> None:
        self._features.clear()
        if self._loaded.device.type == "cuda":
            torch.cuda.empty_cache()
        if size == 1:
            raise InferenceError(
                f"study {study_id}: not enough memory on {self._loaded.device} for a batch of one; set "
                "checkpoint.precision to bfloat16, take a smaller checkpoint or resolution, or another device"
            )
        self.batch_size = size // 2
        _LOG.warning("a batch of %d did not fit into memory; going on with %d", size, self.batch_size)

    @torch.inference_mode()
    def _decode(self, requests: Sequence[Request], encoded: Sequence[Encoded]) -> list[Generated]:
        model, device = self._loaded.model, self._loaded.device
        prompt = {name: part.to(device) for name, part in self._layout.collate_generation(encoded).items()}
        mask = prompt["attention_mask"]
        place = positions(mask)
        cache = new_cache()
        given: dict[str, Any] = {
            "input_ids": prompt["input_ids"],
            "token_type_ids": prompt["token_type_ids"],
            "mm_encoder_outputs": {"image": BaseModelOutputWithPooling(pooler_output=self._encode(requests))},
        }
        rows = list(range(len(requests)))
        ids: list[list[int]] = [[] for _ in rows]
        logprobs: list[list[float]] = [[] for _ in rows]
        for _ in range(self._limit):
            output = model(
                **given,
                attention_mask=mask,
                position_ids=place,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            logits = output.logits[:, -1].float().index_fill(1, self._suppressed, -torch.inf)
            chosen = logits.argmax(-1)
            values = logits.log_softmax(-1).gather(1, chosen[:, None])[:, 0]
            alive = []
            for number, (row, token, value) in enumerate(zip(rows, chosen.tolist(), values.tolist(), strict=True)):
                if not np.isfinite(value):
                    raise InferenceError(
                        f"study {requests[row].study_id}: the model's output is not finite; check the weights, and "
                        "that checkpoint.softcap and checkpoint.precision are as in training"
                    )
                ids[row].append(token)
                logprobs[row].append(value)
                if token != self._layout.eos_id:
                    alive.append(number)
            if not alive:
                break
            if len(alive) < len(rows):
                kept = torch.tensor(alive, device=device)
                rows = [rows[number] for number in alive]
                chosen, mask, place = chosen[kept], mask[kept], place[kept]
                cache.batch_select_indices(kept)
            mask = torch.cat([mask, mask.new_ones((len(rows), 1))], dim=1)
            place = place[:, -1:] + 1
            given = {"input_ids": chosen[:, None]}
        return [
            Generated(
                study_id=request.study_id,
                ids=tuple(tokens),
                text=self._layout.decode(tokens),
                mean_logprob=float(np.mean(values)),
                min_logprob=min(values),
                finished=tokens[-1] == self._layout.eos_id,
            )
            for request, tokens, values in zip(requests, ids, logprobs, strict=True)
        ]

    def _encode(self, requests: Sequence[Request]) -> torch.Tensor:
        """Image features, real[N, image tokens, width]; images that are equal, or were in the last batch, once."""
        images = [image for request in requests for image in request.images]
        keys = [hashlib.sha256(image.tobytes()).digest() for image in images]
        new = {key: image for key, image in zip(keys, images, strict=True) if key not in self._features}
        if new:
            pixels = pixel_values(list(new.values())).to(self._loaded.device)
            features = self._loaded.model.get_image_features(pixels).pooler_output
            self._features.update(zip(new, features, strict=True))
        together = torch.stack([self._features[key] for key in keys])
        for key in keys:
            self._features.move_to_end(key)
        while len(self._features) > max(self.batch_size, len(images)):
            self._features.popitem(last=False)
        return together


def _out_of_memory(error: BaseException) -> bool:
    # The CPU allocator has no exception type of its own.
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)
