"""Images and prompts to text.

A loop of its own instead of `generate` of transformers, with the same tokens: every image is encoded once, the head
runs on the last position only, nothing beside the chosen token's log-probability is kept, and a prompt takes the place
of each text that has reached its end, so that a step of decoding always serves as many as there is room for. Prompts
are read a few at a time, because reading gains nothing from larger batches and memory does. Beam search is
transformers' own, behind the same door.
"""

from __future__ import annotations

import hashlib
import logging
import random
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling

from cxrreport.errors import InferenceError, MismatchError
from cxrreport.inference.kv_cache import Slots, free_memory
from cxrreport.inference.mix_prompts import Prompt
from cxrreport.inference.sampling import drawn
from cxrreport.model.checkpoints import LoadedModel
from cxrreport.model.compat import CACHE
from cxrreport.model.fused import fused
from cxrreport.model.prompt import Encoded, PromptLayout, pixel_values, positions
from cxrreport.records import Report
from cxrreport.settings import Beam, Decoding, Greedy, Sampling

_LOG = logging.getLogger(__name__)

_READ_AT_ONCE = {"cpu": 4608, "cuda": 36864}
"""Positions of prompts that are read in one forward pass: one image of 896 pixels and its text, or eight of them."""
_SHARE = 0.5
"""Part of the free memory that slots may take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What one generated text needs.

    Args:
        study_id: for messages, and for the random numbers of sampling; results come in the order of the requests.
        image: uint8[R, R], R the resolution of the checkpoint.
        report: goes into the prefix (its indication) where there is no `prompt`; its sections are not read.
        further: more images of the study, like `image`, where the model sees several at once.
        prompt: what to ask, in the place of the layout's instruction; None: the report.
        max_new_tokens: limit of this text, EOS included; None, or more than the engine's: the engine's.
    """

    study_id: str
    image: npt.NDArray[np.uint8]
    report: Report
    further: tuple[npt.NDArray[np.uint8], ...] = ()
    prompt: Prompt | None = None
    max_new_tokens: int | None = None

    @property
    def images(self) -> tuple[npt.NDArray[np.uint8], ...]:
        """All images, in the order in which the model sees them."""
        return (self.image, *self.further)


@dataclass(frozen=True, slots=True, kw_only=True)
class Generated:
    """What the model wrote for one request.

    Args:
        prompt: the text that it has read beside the images.
        image_sha256: of the images that it has seen, row by row.
        ids: all chosen tokens, EOS included where it was reached.
        text: of `ids`; location and segment tokens as `<loc0123>`, other special tokens left out.
        mean_logprob: mean natural-log probability of `ids` at temperature 1, over the tokens that are not suppressed.
        min_logprob: the least of them.
        finished: EOS was reached before the limit of new tokens.
    """

    study_id: str
    prompt: str
    image_sha256: tuple[str, ...]
    ids: tuple[int, ...]
    text: str
    mean_logprob: float
    min_logprob: float
    finished: bool

    @property
    def tokens(self) -> int:
        """Number of chosen tokens, EOS included."""
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class _Job:
    """A request made ready: what is read, of which images, and how much of a slot it takes."""

    index: int
    request: Request
    asked: str
    encoded: Encoded
    images: tuple[str, ...]
    limit: int
    length: int


@dataclass(slots=True)
class _Row:
    """A job on its way: how much its slot holds, and what has been chosen."""

    job: _Job
    place: int
    draw: random.Random
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)


class Engine:
    """Decoding of a loaded model.

    Args:
        loaded: the checkpoint, with or without adapter; used in evaluation mode and without gradients.
        layout: of the same tokenizer.
        batch_size: largest number of texts that are written together; fewer where memory does not suffice.
        max_new_tokens: limit per request, EOS included.
        decoding: how a token is chosen.
        seed: of sampling; the text of a request depends on it, on the study and on the prompt alone.

    Raises:
        MismatchError: the layout counts other image tokens than the checkpoint.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        layout: PromptLayout,
        *,
        batch_size: int,
        max_new_tokens: int,
        decoding: Decoding | None = None,
        seed: int = 0,
    ) -> None:
        if layout.image_tokens != loaded.image_tokens:
            raise MismatchError(
                f"checkpoint '{loaded.name}' has {loaded.image_tokens} image tokens, the prompt layout "
                f"{layout.image_tokens}; build the layout from the loaded checkpoint"
            )
        if batch_size < 1 or max_new_tokens < 1:
            raise InferenceError(f"batch_size {batch_size} and max_new_tokens {max_new_tokens} must be at least 1")
        self.batch_size = batch_size
        """Texts that are written together; smaller than asked for once they have not fitted into memory."""
        self._loaded = loaded
        self._layout = layout
        self._limit = max_new_tokens
        self._decoding = decoding or Greedy()
        self._seed = seed
        self._read_at_once = _READ_AT_ONCE[loaded.device.type]
        rows = int(loaded.model.config.text_config.vocab_size)
        self._suppressed = {locations: layout.suppressed(rows, locations=locations) for locations in (False, True)}
        self._forbidden = torch.zeros(2, rows, dtype=torch.bool, device=loaded.device)
        for locations, ids in self._suppressed.items():
            self._forbidden[int(locations), ids] = True
        self._features: dict[str, torch.Tensor] = {}

    def generate(self, requests: Sequence[Request], done: Callable[[int], None] | None = None) -> list[Generated]:
        """A text for every request.

        Args:
            requests: in any order; those of one study are worked on together, so that its images are encoded once.
            done: told how many of `requests` are finished.

        Returns:
            one result per request, in their order.

        Raises:
            InferenceError: an image has another size than the checkpoint's, memory does not suffice for one text, or
                the model gives numbers that are not finite.
        """
        self._check(requests)
        jobs = [self._job(index, request) for index, request in enumerate(requests)]
        longest: dict[tuple[str, ...], int] = {}
        for job in jobs:
            longest[job.images] = max(longest.get(job.images, 0), job.length)
        jobs.sort(key=lambda job: (longest[job.images], job.images, job.length))
        results: dict[int, Generated] = {}
        search = self._decoding if isinstance(self._decoding, Beam) else None
        tell = done or _silent
        while waiting := [job for job in jobs if job.index not in results]:
            try:
                if search is not None:
                    self._search(search, waiting, results, tell)
                else:
                    with self._fused():
                        self._write(waiting, results, tell)
            except (MemoryError, RuntimeError) as error:
                if not _out_of_memory(error):
                    raise
            else:
                break
            # Outside of the handler, whose traceback holds the tensors of what did not fit.
            self._halve(next(job.request.study_id for job in waiting if job.index not in results))
        return [results[index] for index in range(len(requests))]

    def _fused(self) -> AbstractContextManager[None]:
        """The model with fewer passes over memory, where it is one of torch."""
        model: Any = self._loaded.model
        if not isinstance(model, torch.nn.Module):
            return nullcontext()
        base: Any = getattr(model, "get_base_model", lambda: model)()  # where there is an adapter around it
        return fused(model, base.model.language_model, softcap=self._loaded.softcap)

    def _check(self, requests: Sequence[Request]) -> None:
        side = self._loaded.resolution
        for request in requests:
            for image in request.images:
                if image.dtype != np.uint8 or image.shape != (side, side):
                    raise InferenceError(
                        f"study {request.study_id}: the image is {image.dtype}{list(image.shape)}, the checkpoint "
                        f"takes uint8[{side}, {side}]; ingest again with resolution: {side}"
                    )

    def _job(self, index: int, request: Request) -> _Job:
        asked = request.prompt.text if request.prompt is not None else self._layout.prefix(request.report)
        encoded = self._layout.encode_prefix(asked, images=len(request.images))
        return _Job(
            index=index,
            request=request,
            asked=asked,
            encoded=encoded,
            images=tuple(hashlib.sha256(image.tobytes()).hexdigest() for image in request.images),
            limit=min(request.max_new_tokens or self._limit, self._limit),
            length=self._layout.image_tokens * encoded.images + len(encoded.prefix),
        )

    def _halve(self, study_id: str) -> None:
        self._features.clear()
        if self._loaded.device.type == "cuda":
            torch.cuda.empty_cache()
        size = self.batch_size
        if size == 1 or isinstance(self._decoding, Beam):
            raise InferenceError(
                f"study {study_id}: not enough memory on {self._loaded.device} for one text; take greedy decoding, "
                "set checkpoint.precision to bfloat16, or take a smaller checkpoint or resolution, or another device"
            )
        self.batch_size = size // 2
        self._read_at_once //= 2
        _LOG.warning("a batch of %d did not fit into memory; going on with %d", size, self.batch_size)

    @torch.inference_mode()
    def _write(self, jobs: Sequence[_Job], results: dict[int, Generated], done: Callable[[int], None]) -> None:
        """Greedy decoding and sampling. The rows that are being written stand in the first slots, in order."""
        waiting = deque(jobs)
        length = max(job.length + job.limit for job in jobs)
        layers = self._loaded.model.config.text_config.num_hidden_layers
        # A model that is not torch's keeps its own.
        make = getattr(self._loaded.model, "slots", partial(Slots, layers=layers))
        cache = make(min(self.batch_size, len(jobs), self._room(length)), length)
        rows: list[_Row] = []
        while waiting or rows:
            group: list[_Job] = []
            while waiting and len(rows) + len(group) < cache.slots and (cache.joins or not rows):
                if group and (len(group) + 1) * max(group[0].length, waiting[0].length) > self._read_at_once:
                    break
                group.append(waiting.popleft())
            if group:
                fresh = [
                    _Row(job, job.length, random.Random(f"{self._seed}\0{job.request.study_id}\0{job.asked}"))
                    for job in group
                ]
                self._choose(fresh, self._read(group, cache, first=len(rows)))
                rows += fresh
            else:
                self._choose(rows, self._step(rows, cache))
            for slot in reversed(range(len(rows))):
                row = rows[slot]
                if row.ids[-1] == self._layout.eos_id or len(row.ids) == row.job.limit:
                    results[row.job.index] = self._generated(row.job, row.ids, row.logprobs)
                    last = rows.pop()
                    if last is not row:
                        cache.move(len(rows), slot)
                        rows[slot] = last
                    done(len(results))

    def _room(self, length: int) -> int:
        """How many slots of `length` positions there is memory for; at least one, which may then fail."""
        config = self._loaded.model.config.text_config
        numbers = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * length
        return max(1, int(_SHARE * free_memory(self._loaded.device) / (numbers * self._loaded.dtype.itemsize)))

    def _read(self, jobs: Sequence[_Job], cache: Slots, *, first: int) -> torch.Tensor:
        """Read prompts into slots, and give the logits of what follows them, float32[n, vocabulary]."""
        prompt = self._prompt(jobs)
        mask = prompt.pop("attention_mask")
        padding = [mask.shape[1] - job.length for job in jobs]
        cache.reading(first, padding)
        # Within a prompt attention is full: the same keys for every query, and no mask at all where none is padding.
        border = {} if any(padding) else {"prefix_length": mask.shape[1], "prefix_padded": False}
        return self._forward(
            cache, mask[:, None, None].bool(), position_ids=positions(mask), **border, **prompt, **self._encoded(jobs)
        )

    def _step(self, rows: Sequence[_Row], cache: Slots) -> torch.Tensor:
        """Read the last chosen token of every row, and give the logits of what follows, float32[n, vocabulary]."""
        device = self._loaded.device
        places = torch.tensor([row.place for row in rows], device=device)
        width = max(row.place for row in rows) + 1
        cache.writing(places, width)
        for row in rows:
            row.place += 1
        return self._forward(
            cache,
            (torch.arange(width, device=device) <= places[:, None])[:, None, None],
            position_ids=places[:, None] + 1,  # counted from 1
            input_ids=torch.tensor([[row.ids[-1]] for row in rows], device=device),
        )

    def _forward(self, cache: Slots, mask: torch.Tensor, **given: Any) -> torch.Tensor:
        if self._loaded.softcap:  # eager attention adds its mask
            mask = torch.zeros_like(mask, dtype=self._loaded.dtype).masked_fill(~mask, -torch.inf)
        output = self._loaded.model(**given, **{CACHE: cache}, attention_mask=mask, use_cache=True, logits_to_keep=1)
        logits: torch.Tensor = output.logits[:, -1].float()
        return logits

    def _choose(self, rows: Sequence[_Row], logits: torch.Tensor) -> None:
        """Add the next token to every row."""
        kinds = [int(_locations(row.job)) for row in rows]
        logits = logits.masked_fill(self._forbidden[torch.tensor(kinds, device=logits.device)], -torch.inf)
        if isinstance(self._decoding, Sampling):
            draws = [row.draw.random() for row in rows]
            chosen = drawn(logits, self._decoding, torch.tensor(draws, device=logits.device))
        else:
            chosen = logits.argmax(-1)
        values = logits.gather(1, chosen[:, None])[:, 0] - logits.logsumexp(-1)
        for row, token, value in zip(rows, chosen.tolist(), values.tolist(), strict=True):
            self._check_finite(row.job, value)
            row.ids.append(token)
            row.logprobs.append(value)

    def _check_finite(self, job: _Job, value: float) -> None:
        if not np.isfinite(value):
            raise InferenceError(
                f"study {job.request.study_id}: the model's output is not finite; check the weights, and that "
                "checkpoint.softcap and checkpoint.precision are as in training"
            )

    @torch.inference_mode()
    def _search(
        self, search: Beam, jobs: Sequence[_Job], results: dict[int, Generated], done: Callable[[int], None]
    ) -> None:
        """Beam search, one request after another; then one more pass, for the probabilities of what was found."""
        model = self._loaded.model
        for job in jobs:
            prompt = self._prompt([job])
            found = model.generate(
                **prompt,
                **self._encoded([job]),
                num_beams=search.beams,
                length_penalty=search.length_penalty,
                do_sample=False,
                max_new_tokens=job.limit,
                eos_token_id=self._layout.eos_id,
                suppress_tokens=self._suppressed[_locations(job)],
                renormalize_logits=True,
            )
            new = found[:, job.length :]
            ids: list[int] = new[0].tolist()
            if self._layout.eos_id in ids:
                ids = ids[: ids.index(self._layout.eos_id) + 1]
            new = new[:, : len(ids)]
            ones = torch.ones_like(new)
            mask = torch.cat([prompt["attention_mask"], ones], dim=1)
            output = model(
                input_ids=torch.cat([prompt["input_ids"], new], dim=1),
                token_type_ids=torch.cat([prompt["token_type_ids"], ones], dim=1),
                attention_mask=mask,
                position_ids=positions(mask),
                use_cache=False,
                logits_to_keep=len(ids) + 1,
                **self._encoded([job]),
            )
            logits = output.logits[0, :-1].float().masked_fill(self._forbidden[int(_locations(job))], -torch.inf)
            values = (logits.gather(1, new[0, :, None])[:, 0] - logits.logsumexp(-1)).tolist()
            self._check_finite(job, min(values))
            results[job.index] = self._generated(job, ids, values)
            done(len(results))

    def _generated(self, job: _Job, ids: Sequence[int], logprobs: Sequence[float]) -> Generated:
        return Generated(
            study_id=job.request.study_id,
            prompt=job.asked,
            image_sha256=job.images,
            ids=tuple(ids),
            text=self._layout.decode(ids),
            mean_logprob=float(np.mean(logprobs)),
            min_logprob=min(logprobs),
            finished=ids[-1] == self._layout.eos_id,
        )

    def _prompt(self, jobs: Sequence[_Job]) -> dict[str, torch.Tensor]:
        batch = self._layout.collate_generation([job.encoded for job in jobs])
        return {name: part.to(self._loaded.device) for name, part in batch.items()}

    def _encoded(self, jobs: Sequence[_Job]) -> dict[str, Any]:
        """Image features, real[images, image tokens, width]; images that are equal, or were in the last call, once."""
        images = {key: image for job in jobs for key, image in zip(job.images, job.request.images, strict=True)}
        new = {key: image for key, image in images.items() if key not in self._features}
        if new:
            pixels = pixel_values(list(new.values())).to(self._loaded.device)
            features = self._loaded.model.get_image_features(pixels).pooler_output
            self._features = {key: one for key, one in self._features.items() if key in images}
            self._features.update(zip(new, features, strict=True))
        parts = [self._features[key] for job in jobs for key in job.images]
        together = torch.stack(parts) if len(parts) > 1 else parts[0][None]  # one image needs no copy
        return {"mm_encoder_outputs": {"image": BaseModelOutputWithPooling(pooler_output=together)}}


def _silent(_count: int) -> None:
    """No one wants to know."""


def _locations(job: _Job) -> bool:
    return job.request.prompt is not None and job.request.prompt.locations


def _out_of_memory(error: BaseException) -> bool:
    # The CPU allocator has no exception type of its own.
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(
        sign in str(error) for sign in ("can't allocate memory", "bad_alloc")
    )
