"""Generation from a frontal, a lateral and the prior study, some of them averaged over squares of patches."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from generation import NEW, engine

from cxrreport.dataset import ImageRole
from cxrreport.inference.decoding import Engine, Request
from cxrreport.model.checkpoints import LoadedModel
from cxrreport.model.prompt import PromptLayout, pixel_values, pooled, positions
from cxrreport.records import PriorStudy, Report
from cxrreport.settings import Beam, PromptSettings, Sampling

FRONTAL, LATERAL, PRIOR = ImageRole
EARLIER = PriorStudy(study_id="earlier", days=3, report=Report(findings="Small left effusion."))


@pytest.fixture(params=[1, 2])
def several(loaded: LoadedModel, request: pytest.FixtureRequest) -> PromptLayout:
    settings = {"views": "frontal+lateral", "prior": "report+image", "pool": request.param}
    return PromptLayout(loaded.tokenizer, PromptSettings.model_validate(settings), loaded.image_tokens)


@pytest.fixture
def mixed(requests: list[Request]) -> list[Request]:
    images = [request.images[0] for request in requests]
    given: list[tuple[tuple[ImageRole, ...], tuple[int, ...], PriorStudy | None]] = [
        ((FRONTAL, LATERAL, PRIOR), (0, 1, 2), EARLIER),
        ((FRONTAL,), (0,), None),
        ((FRONTAL, PRIOR), (0, 1), EARLIER),
        ((FRONTAL, LATERAL), (0, 1), None),
        ((FRONTAL, LATERAL, PRIOR), (0, 2, 1), EARLIER),
        ((FRONTAL, PRIOR), (1, 0), EARLIER),
        ((FRONTAL,), (2,), dataclasses.replace(EARLIER, days=None)),
    ]
    return [
        dataclasses.replace(
            request, images=tuple(images[place] for place in places), roles=roles, prior=prior, sample=number
        )
        for number, (request, (roles, places, prior)) in enumerate(zip(requests, given, strict=False))
    ]


def reference_logits(loaded: LoadedModel, layout: PromptLayout, request: Request, written: list[int]) -> torch.Tensor:
    """Logits of the next token, by a forward pass of transformers on embeddings that are put together here."""
    pools = [1 if role is FRONTAL else layout.settings.pool for role in request.roles]
    features = loaded.model.get_image_features(pixel_values(request.images)).pooler_output
    parts = []
    for image, pool in zip(features, pools, strict=True):
        grid = image.T.reshape(1, image.shape[1], 4, 4)
        parts.append(torch.nn.functional.avg_pool2d(grid, pool).flatten(2)[0].T)
    images = torch.cat(parts)
    prefix = layout.encode_prefix(layout.prefix(request.report), layout.context(request.roles, request.prior)).prefix
    text = torch.tensor([[*prefix, *written]])
    embedded = torch.cat([images[None], loaded.model.get_input_embeddings()(text)], dim=1)
    types = torch.ones(embedded.shape[:2], dtype=torch.int64)
    types[:, : len(images) + len(prefix)] = 0
    mask = torch.ones_like(types)
    output = loaded.model(
        inputs_embeds=embedded, token_type_ids=types, attention_mask=mask, position_ids=positions(mask), use_cache=False
    )
    logits: torch.Tensor = output.logits[0, -1]
    return logits


def restricted(loaded: LoadedModel, layout: PromptLayout, logits: torch.Tensor) -> torch.Tensor:
    logits[layout.suppressed(loaded.model.get_input_embeddings().weight.shape[0])] = -torch.inf
    return logits.log_softmax(-1)


@torch.no_grad()
def test_texts_are_those_of_the_model_on_the_same_embeddings(
    loaded: LoadedModel, several: PromptLayout, mixed: list[Request]
) -> None:
    for request, ours in zip(mixed, engine(loaded, several, batch_size=3).generate(mixed), strict=True):
        written: list[int] = []
        while len(written) < NEW and written[-1:] != [several.eos_id]:
            logprobs = restricted(loaded, several, reference_logits(loaded, several, request, written))
            written.append(int(logprobs.argmax()))
        assert ours.ids == tuple(written)
        assert ours.prompt == several.prefix(request.report) + several.context(request.roles, request.prior)


@pytest.mark.parametrize("decoding", [None, Sampling(), Beam(method="beam", beams=3)])
def test_each_alone_and_all_together(
    loaded: LoadedModel, several: PromptLayout, mixed: list[Request], decoding: Any
) -> None:
    def written(size: int, some: list[Request]) -> list[tuple[int, ...]]:
        one = Engine(loaded, several, batch_size=size, max_new_tokens=NEW, decoding=decoding)
        return [generated.ids for generated in one.generate(some)]

    together = written(4, mixed)
    assert together == [written(1, [request])[0] for request in mixed]
    assert together == written(3, mixed[::-1])[::-1]
    assert len(set(together)) > 3


@torch.no_grad()
def test_beam_search_keeps_the_order_of_images(
    loaded: LoadedModel, several: PromptLayout, mixed: list[Request]
) -> None:
    """Features are repeated for the beams of transformers; those of several images must stay together."""
    search = Beam(method="beam", beams=3, length_penalty=0.0)
    one = Engine(loaded, several, batch_size=1, max_new_tokens=2, decoding=search)
    for request in mixed[:6]:
        first = restricted(loaded, several, reference_logits(loaded, several, request, []))
        first[several.eos_id] = -torch.inf
        found = {}
        for token in first.topk(3).indices.tolist():
            second = restricted(loaded, several, reference_logits(loaded, several, request, [token]))
            found[token, int(second.argmax())] = float(first[token] + second.max())
        best = max(found, key=lambda pair: found[pair])
        ours = one.generate([request])[0].ids
        assert ours == best or ours == (several.eos_id,)


def test_averaging_keeps_constant_images_and_equals_a_plain_mean() -> None:
    features = torch.randn(2, 64, 5)
    found = pooled(features, (4, 1))
    assert found.shape == (1, 4 + 64, 5)
    np.testing.assert_allclose(found[0, 4:], features[1])
    lower_right = [features[0, 8 * row + column] for row in range(4, 8) for column in range(4, 8)]
    torch.testing.assert_close(found[0, 3], torch.stack(lower_right).mean(0))
    assert pooled(features, (1, 1)) is features
