"""Decoding with continuous batching: the slot of a finished text is given to the next prompt.

Prompts are read a few at a time, because larger batches need more memory and are not faster. A prompt that an open text
has already read, as the samples of one study do, is copied from its slot.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch

from cxrreport.inference.decoding.forward import ForwardPasses, Step
from cxrreport.inference.decoding.kv_cache import SlotCache
from cxrreport.inference.decoding.requests import PreparedRequest, Take
from cxrreport.inference.decoding.token_choice import TokenChoice

Finished = tuple[PreparedRequest, Sequence[int], Sequence[float], int]
"""A request with the tokens of its text, their log-probabilities, and `time_ns` before its prompt was read."""


class RequestQueue:
    """Requests that have not been finished, refilled from a source as they are taken.

    Args:
        take: the source.
    """

    def __init__(self, take: Take) -> None:
        self._take = take
        self._unfinished: dict[int, PreparedRequest] = {}
        self.waiting: deque[PreparedRequest] = deque()

    def refill(self, wanted: int, *, wait: bool) -> None:
        """Take groups of requests until `wanted` ones wait, or none is ready. With `wait`, wait for the first one."""
        while len(self.waiting) < wanted:
            group = self._take(wait and not self.waiting)
            if group is None:
                return
            self._unfinished.update((one.index, one) for one in group)
            self.waiting.extend(group)

    def finish(self, request: PreparedRequest) -> None:
        """Forget a request whose text is complete."""
        del self._unfinished[request.index]

    def restart(self) -> None:
        """Let all unfinished requests wait again."""
        self.waiting = deque(self._unfinished.values())

    @property
    def oldest(self) -> PreparedRequest | None:
        """The request that has been in the queue for longest."""
        return next(iter(self._unfinished.values()), None)


@dataclass(frozen=True, slots=True)
class Slots:
    """Slots of one allocation.

    Args:
        cache: keys and values. Open texts occupy its first slots, in order.
        length: positions of each slot.
        most: slots that an allocation for more requests would have.
        step: reads one token of each open text.
    """

    cache: SlotCache
    length: int
    most: int
    step: Step

    def fits(self, request: PreparedRequest) -> bool:
        """True if a slot has room for a request and its text."""
        return request.positions <= self.length

    def enough(self, requests: int) -> bool:
        """True if more slots would not be used by so many requests, or are not to be had."""
        return self.cache.slots >= min(self.most, requests)


@dataclass(slots=True)
class _OpenText:
    """A text that is being generated; its slot holds `length` positions.

    `prompt_logits`, float32[vocabulary], are those of its first token, for other texts with the same prompt.
    """

    prepared: PreparedRequest
    length: int
    random: random.Random
    prompt_logits: torch.Tensor
    started: int
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)


@torch.inference_mode()
def decode(
    queue: RequestQueue,
    allocate: Callable[[Sequence[PreparedRequest]], Slots],
    passes: ForwardPasses,
    choice: TokenChoice,
    *,
    batch_size: int,
    read_at_once: int,
) -> Iterator[Finished]:
    """Generate a text for every request, greedily or by sampling; yields texts as they are finished.

    Args:
        queue: requests in the order in which they get slots. Its source is only waited for while no text is open.
        allocate: makes slots for the requests that wait. It is called while no text is open: at the beginning, and when
            later requests need longer slots or more of them, for which open texts are first finished.
        passes: the model.
        choice: chooses the next tokens.
        batch_size: texts that are open at once, at most.
        read_at_once: positions of prompts that are read in one pass, padding included; one prompt may have more.
    """
    slots: Slots | None = None
    texts: list[_OpenText] = []
    while True:
        queue.refill(batch_size - len(texts), wait=not texts)
        waiting = queue.waiting
        if not (texts or waiting):
            return
        if slots is None or not (texts or (slots.fits(waiting[0]) and slots.enough(len(waiting)))):
            slots = None  # its memory is free before the next allocation
            slots = allocate(waiting)
        advanced, logits = _read_prompts(texts, waiting, slots, passes, choice, read_at_once)
        if not advanced:
            logits = slots.step([text.ids[-1] for text in texts], [text.length for text in texts])
            advanced = texts
            for text in texts:
                text.length += 1
        uniform = [text.random.random() for text in advanced]
        chosen = choice.choose(logits, [text.prepared for text in advanced], uniform)
        for text, (token, logprob) in zip(advanced, chosen, strict=True):
            text.ids.append(token)
            text.logprobs.append(logprob)
        for slot in reversed(range(len(texts))):
            text = texts[slot]
            if text.ids[-1] == choice.eos_id or len(text.ids) == text.prepared.max_new_tokens:
                last = texts.pop()
                if last is not text:
                    slots.cache.copy_slot(len(texts), slot)
                    texts[slot] = last
                yield text.prepared, text.ids, text.logprobs, text.started


def _read_prompts(
    texts: list[_OpenText],
    waiting: deque[PreparedRequest],
    slots: Slots,
    passes: ForwardPasses,
    choice: TokenChoice,
    read_at_once: int,
) -> tuple[list[_OpenText], torch.Tensor]:
    """Open texts for the next requests in free slots; returns these texts and their logits, float32[n, vocabulary]."""
    cache = slots.cache
    slot_of = {text.prepared.inputs: slot for slot, text in enumerate(texts)}
    unread: list[PreparedRequest] = []
    copies: list[PreparedRequest] = []
    while (
        waiting
        and len(texts) + len(unread) + len(copies) < cache.slots
        and slots.fits(waiting[0])
        and (not texts or (cache.accepts_new_prompts and slots.enough(len(texts) + len(waiting))))
    ):
        if waiting[0].inputs in slot_of:
            copies.append(waiting.popleft())
            continue
        if unread and (len(unread) + 1) * max(unread[0].length, waiting[0].length) > read_at_once:
            break
        slot_of[waiting[0].inputs] = len(texts) + len(unread)
        unread.append(waiting.popleft())
    if not (unread or copies):
        return [], torch.empty(0)
    opened, started = len(texts), time.time_ns()
    if unread:
        read = passes.read_prompts(unread, cache, first=opened)
        texts += [_open(one, choice, row, started) for one, row in zip(unread, read, strict=True)]
    for one in copies:
        source = slot_of[one.inputs]
        cache.copy_slot(source, len(texts))
        texts.append(_open(one, choice, texts[source].prompt_logits, started))
    return texts[opened:], torch.stack([text.prompt_logits for text in texts[opened:]])


def _open(prepared: PreparedRequest, choice: TokenChoice, prompt_logits: torch.Tensor, started: int) -> _OpenText:
    return _OpenText(prepared, prepared.length, choice.random_numbers(prepared), prompt_logits, started)
