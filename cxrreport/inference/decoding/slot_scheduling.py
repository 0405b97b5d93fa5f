"""Decoding with continuous batching: the slot of a finished text is given to the next prompt.

Prompts are read a few at a time, because larger batches need more memory and are not faster. A prompt that an open text
has already read, as the samples of one study do, is copied from its slot.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from cxrreport.inference.decoding.forward import ForwardPasses
from cxrreport.inference.decoding.kv_cache import SlotCache
from cxrreport.inference.decoding.requests import PreparedRequest
from cxrreport.inference.decoding.token_choice import TokenChoice

Finish = Callable[[PreparedRequest, Sequence[int], Sequence[float], int], None]
"""Receives a request with the tokens of its text, their log-probabilities, and `time_ns` before its prompt was read."""


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
        slot_of = {text.prepared.inputs: slot for slot, text in enumerate(texts)}
        unread: list[PreparedRequest] = []
        copies: list[PreparedRequest] = []
        while (
            waiting
            and len(texts) + len(unread) + len(copies) < cache.slots
            and (cache.accepts_new_prompts or not texts)
        ):
            if waiting[0].inputs in slot_of:
                copies.append(waiting.popleft())
                continue
            if unread and (len(unread) + 1) * max(unread[0].length, waiting[0].length) > read_at_once:
                break
            slot_of[waiting[0].inputs] = len(texts) + len(unread)
            unread.append(waiting.popleft())
        if unread or copies:
            started = time.time_ns()
            if unread:
                read = passes.read_prompts(unread, cache, first=len(texts))
                texts += [_open(one, choice, row, started) for one, row in zip(unread, read, strict=True)]
            for one in copies:
                source = slot_of[one.inputs]
                cache.copy_slot(source, len(texts))
                texts.append(_open(one, choice, texts[source].prompt_logits, started))
            advanced = texts[len(texts) - len(unread) - len(copies) :]
            logits = torch.stack([text.prompt_logits for text in advanced])
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
                finish(text.prepared, text.ids, text.logprobs, text.started)


def _open(prepared: PreparedRequest, choice: TokenChoice, prompt_logits: torch.Tensor, started: int) -> _OpenText:
    return _OpenText(prepared, prepared.length, choice.random_numbers(prepared), prompt_logits, started)
