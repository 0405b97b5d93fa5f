"""Decoding with continuous batching: the slot of a finished text is given to the next prompt.

Prompts are read a few at a time, because larger batches need more memory and are not faster.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from cxrreport.inference.decoding.forward import ForwardPasses
from cxrreport.inference.decoding.kv_cache import SlotCache
from cxrreport.inference.decoding.requests import PreparedRequest
from cxrreport.inference.decoding.token_choice import TokenChoice

Finish = Callable[[PreparedRequest, Sequence[int], Sequence[float]], None]
"""Receives a request with the tokens of its text and their log-probabilities."""


@dataclass(slots=True)
class _OpenText:
    """A text that is being generated; its slot holds `length` positions."""

    prepared: PreparedRequest
    length: int
    random: random.Random
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)


@torch.inference_mode()
def decode(
    requests: Sequence[PreparedRequest],
    cache: SlotCache,
    passes: ForwardPasses,
    choice: TokenChoice,
    *,
    read_at_once: int,
    finish: Finish,
) -> None:
    """Generate a text for every request, greedily or by sampling.

    Args:
        requests: in the order in which they get slots.
        cache: keys and values. Open texts occupy its first slots, in order.
        passes: the model.
        choice: chooses the next tokens.
        read_at_once: positions of prompts that are read in one pass, padding included; one prompt may have more.
        finish: called with every finished text.
    """
    waiting = deque(requests)
    texts: list[_OpenText] = []
    while waiting or texts:
        group: list[PreparedRequest] = []
        while waiting and len(texts) + len(group) < cache.slots and (cache.accepts_new_prompts or not texts):
            if group and (len(group) + 1) * max(group[0].length, waiting[0].length) > read_at_once:
                break
            group.append(waiting.popleft())
        if group:
            logits = passes.read_prompts(group, cache, first=len(texts))
            advanced = [_OpenText(one, one.length, choice.random_numbers(one)) for one in group]
            texts += advanced
        else:
            logits = passes.read_tokens([text.ids[-1] for text in texts], [text.length for text in texts], cache)
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
                    cache.copy_slot(len(texts), slot)
                    texts[slot] = last
                finish(text.prepared, text.ids, text.logprobs)
