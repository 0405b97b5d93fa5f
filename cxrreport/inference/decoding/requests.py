"""Requests to the engine, and its results."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from cxrreport.dataset import ImageRole, ModelInput
from cxrreport.inference.mix_prompts import Prompt
from cxrreport.model.prompt import Encoded, PromptLayout
from cxrreport.records import PriorStudy, Report


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The inputs of one generated text.

    Args:
        study_id: for messages, and for the random numbers of sampling.
        images: uint8[R, R] each, R the resolution of the checkpoint, in the order in which the model reads them; one,
            or several of a study for models that take several at once.
        report: its indication goes into the prefix if there is no `prompt`; its sections are not read.
        roles: of the images; empty if all are of one kind.
        prior: the prior study that is shown, if the layout's settings show one.
        prompt: prompt that replaces the layout's instruction; `None` for a report.
        max_new_tokens: limit of this text, EOS included; the engine's limit also applies.
        sample: number of this text among the samples of one prompt; each has its own random numbers.
    """

    study_id: str
    images: tuple[npt.NDArray[np.uint8], ...]
    report: Report
    roles: tuple[ImageRole, ...] = ()
    prior: PriorStudy | None = None
    prompt: Prompt | None = None
    max_new_tokens: int | None = None
    sample: int = 0

    @classmethod
    def of(cls, study_id: str, given: ModelInput, images: Sequence[npt.NDArray[np.uint8]], **rest: Any) -> Self:
        """The request of a study.

        Args:
            study_id: of the study.
            given: what the model reads of it.
            images: the images of `given`, or others in their place.
            rest: other fields.
        """
        return cls(
            study_id=study_id,
            images=tuple(images),
            report=given.report,
            roles=given.roles,
            prior=given.prior,
            **rest,
        )

    @property
    def locations(self) -> bool:
        """True if location and segment tokens may be generated."""
        return self.prompt is not None and self.prompt.locations


@dataclass(frozen=True, slots=True, kw_only=True)
class Generated:
    """The text generated for one request.

    Args:
        prompt: the text that the model read after the images.
        image_sha256: hashes of the images that the model read, over their pixels row by row.
        ids: all chosen tokens, including EOS if it was reached.
        text: `ids` as text; location and segment tokens as `<loc0123>`, without other special tokens.
        mean_logprob: mean natural-log probability of `ids` at temperature 1, over the tokens that are not suppressed.
        min_logprob: minimum of the same probabilities.
        finished: EOS was reached before the limit of new tokens.
        times: nanoseconds since 1970 when the model began to read the prompt, and when it had written the last token.
    """

    study_id: str
    prompt: str
    image_sha256: tuple[str, ...]
    ids: tuple[int, ...]
    text: str
    mean_logprob: float
    min_logprob: float
    finished: bool
    times: tuple[int, int] = field(default=(0, 0), compare=False)

    @property
    def tokens(self) -> int:
        """Number of chosen tokens, including EOS."""
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class PreparedRequest:
    """A request with its encoded prefix, which has `length` positions; `index` is its place in the list of requests."""

    index: int
    request: Request
    prompt: str
    encoded: Encoded
    image_sha256: tuple[str, ...]
    max_new_tokens: int
    length: int

    @property
    def positions(self) -> int:
        """Positions of the prefix and of the longest text."""
        return self.length + self.max_new_tokens

    @property
    def inputs(self) -> tuple[tuple[str, ...], Encoded]:
        """What the model reads, for requests that can share it: hashes of the images, and the prefix."""
        return self.image_sha256, self.encoded


Take = Callable[[bool], Sequence[PreparedRequest] | None]
"""Where requests come from: returns the next group; `None` at the end or, if its argument is False, if none is ready
yet."""


def prepare(index: int, request: Request, layout: PromptLayout, max_new_tokens: int) -> PreparedRequest:
    """Encode the prefix of a request."""
    roles = request.roles or (ImageRole.FRONTAL,) * len(request.images)
    prompt = request.prompt.text if request.prompt is not None else layout.prefix(request.report)
    context = layout.context(roles, request.prior)
    encoded = layout.encode_prefix(prompt, context, pools=layout.pools(roles))
    return PreparedRequest(
        index=index,
        request=request,
        prompt=prompt + context,
        encoded=encoded,
        image_sha256=tuple(hashlib.sha256(image.tobytes()).hexdigest() for image in request.images),
        max_new_tokens=min(request.max_new_tokens or max_new_tokens, max_new_tokens),
        length=layout.tokens_of(encoded) + len(encoded.prefix),
    )


class TextEngine(Protocol):
    """What the commands need of an engine; see `engine.Engine`."""

    batch_size: int

    def prepare(self, requests: Sequence[Request], *, first: int = 0) -> Sequence[Any]:
        """Number and encode a group of requests, in another thread than that of `stream`."""

    def stream(self, take: Callable[[bool], Any]) -> Generator[tuple[int, Generated], None, None]:
        """Yield number and text of the requests of all groups that `take` returns, as they are finished."""


def result(
    prepared: PreparedRequest, ids: Sequence[int], logprobs: Sequence[float], started: int, layout: PromptLayout
) -> Generated:
    """Build the result of a request from its tokens, their log-probabilities, and the time before it was read."""
    return Generated(
        study_id=prepared.request.study_id,
        prompt=prepared.prompt,
        image_sha256=prepared.image_sha256,
        ids=tuple(ids),
        text=layout.decode(ids),
        mean_logprob=float(np.mean(logprobs)),
        min_logprob=min(logprobs),
        finished=ids[-1] == layout.eos_id,
        times=(started, time.time_ns()),
    )
