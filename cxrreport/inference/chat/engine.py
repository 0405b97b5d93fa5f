"""Texts of a chat model by `generate` of transformers, greedily."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Generator, Sequence
from typing import Any, Literal

import torch
from PIL import Image
from transformers import LogitsProcessor, LogitsProcessorList

from cxrreport.errors import InferenceError
from cxrreport.inference.chat.template import ChatLayout
from cxrreport.inference.decoding import Generated, Request
from cxrreport.inference.decoding.memory import is_out_of_memory
from cxrreport.model.checkpoints import LoadedModel

_LOG = logging.getLogger(__name__)

_AUTO = 8


class _ChosenLogprobs(LogitsProcessor):
    """Keeps the log-probability of every chosen token, and the distribution of one step only."""

    def __init__(self) -> None:
        self._last: torch.Tensor | None = None
        self._chosen: list[torch.Tensor] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self._choose(input_ids[:, -1])
        self._last = scores.float().log_softmax(dim=-1)
        return scores

    def _choose(self, tokens: torch.Tensor) -> None:
        if self._last is not None:
            self._chosen.append(self._last.gather(1, tokens[:, None])[:, 0].cpu())

    def of(self, sequences: torch.Tensor) -> list[list[float]]:
        """Log-probabilities of the tokens of each text, whose last token no step has read."""
        self._choose(sequences[:, -1])
        found: list[list[float]] = torch.stack(self._chosen, dim=1).tolist()
        return found


class ChatEngine:
    """Decoding of a chat model.

    Args:
        loaded: of `load_chat_model`.
        layout: prompt and sections.
        batch_size: texts generated together, 8 for `auto`; halved if memory does not suffice.
        max_new_tokens: limit of a text, EOS included.
    """

    def __init__(
        self, loaded: LoadedModel, layout: ChatLayout, *, batch_size: int | Literal["auto"], max_new_tokens: int
    ) -> None:
        self.batch_size = _AUTO if batch_size == "auto" else batch_size
        self._loaded = loaded
        self._layout = layout
        self._max_new_tokens = max_new_tokens
        stop = loaded.model.generation_config.eos_token_id
        self._stop = set(stop if isinstance(stop, list) else [stop])

    def generate(self, requests: Sequence[Request], done: Callable[[int], None] | None = None) -> list[Generated]:
        """One text per request, in their order; `done` is called with the number of finished ones.

        Raises:
            InferenceError: memory does not suffice for one text, or the model's output is not finite.
        """
        groups = iter([self.prepare(requests)])
        results: list[Generated] = []
        for _, generated in self.stream(lambda _wait: next(groups, None)):
            results.append(generated)
            if done is not None:
                done(len(results))
        return results

    def prepare(self, requests: Sequence[Request], *, first: int = 0) -> list[tuple[int, Request]]:
        """The requests, numbered from `first` on."""
        return list(enumerate(requests, first))

    def stream(
        self, take: Callable[[bool], Sequence[tuple[int, Request]] | None]
    ) -> Generator[tuple[int, Generated], None, None]:
        """As `Engine.stream`. A batch ends with its longest text, so nothing is gained by joining groups."""
        while (group := take(True)) is not None:
            remaining = list(group)
            while remaining:
                part = remaining[: self.batch_size]
                texts = self._batch_or_fewer([request for _, request in part])
                yield from zip((number for number, _ in part), texts, strict=False)
                del remaining[: len(texts)]

    def _batch_or_fewer(self, requests: Sequence[Request]) -> list[Generated]:
        """Texts of the first requests, as many as memory suffices for."""
        while True:
            try:
                return self._batch(requests[: self.batch_size])
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                if self.batch_size == 1:
                    raise InferenceError(
                        f"study {requests[0].study_id}: memory does not suffice for one text of "
                        f"'{self._loaded.name}'; use a larger GPU, or fewer max_images"
                    ) from error
                self.batch_size //= 2
                _LOG.warning("memory does not suffice; going on with batch_size %d", self.batch_size)

    @torch.inference_mode()
    def _batch(self, requests: Sequence[Request]) -> list[Generated]:
        processor, model = self._loaded.tokenizer, self._loaded.model
        conversations = [
            self._layout.messages(one.report, [Image.fromarray(image).convert("RGB") for image in one.images])
            for one in requests
        ]
        inputs: Any = processor.apply_chat_template(
            conversations,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={"padding": True, "padding_side": "left"},
        ).to(self._loaded.device, dtype=self._loaded.dtype)
        logprobs, started = _ChosenLogprobs(), time.time_ns()
        sequences = model.generate(
            **inputs,
            max_new_tokens=self._max_new_tokens,
            do_sample=False,
            num_beams=1,
            logits_processor=LogitsProcessorList([logprobs]),
        )
        length = inputs["input_ids"].shape[1]
        rows = zip(requests, sequences[:, length:].tolist(), logprobs.of(sequences), strict=True)
        return [self._result(*row, times=(started, time.time_ns())) for row in rows]

    def _result(self, request: Request, ids: list[int], logprobs: list[float], *, times: tuple[int, int]) -> Generated:
        end = next((place + 1 for place, token in enumerate(ids) if token in self._stop), len(ids))
        chosen = logprobs[:end]
        if not all(value > float("-inf") for value in chosen):
            raise InferenceError(
                f"study {request.study_id}: the output of '{self._loaded.name}' is not finite; use precision: float32"
            )
        return Generated(
            study_id=request.study_id,
            prompt=self._layout.prompt(request.report),
            image_sha256=tuple(hashlib.sha256(image.tobytes()).hexdigest() for image in request.images),
            ids=tuple(ids[:end]),
            text=self._layout.answer(self._loaded.tokenizer.decode(ids[:end], skip_special_tokens=True)),
            mean_logprob=sum(chosen) / len(chosen),
            min_logprob=min(chosen),
            finished=ids[end - 1] in self._stop,
            times=times,
        )
