from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from batches import generation_batch
from generation import NEW, engine

from cxrreport.errors import InferenceError, MismatchError
from cxrreport.inference.decoding import Engine, Request
from cxrreport.inference.decoding.token_choice import sample
from cxrreport.inference.mix_prompts import parse_prompt
from cxrreport.model.prompt import PromptLayout, pixel_values, positions
from cxrreport.settings import Beam, PromptSettings, Sampling

pytestmark = pytest.mark.stock("transformers", "peft")


def test_the_test_model_ends_at_different_lengths(batched) -> None:
    lengths = {one.tokens for one in batched}
    assert len(lengths) >= 4
    assert {one.finished for one in batched} == {True, False}
    assert len({one.ids for one in batched}) >= 0.8 * len(batched)


def test_a_batch_equals_one_by_one(loaded, layout, requests, batched) -> None:
    alone = engine(loaded, layout, batch_size=1).generate(requests)
    assert [one.ids for one in alone] == [one.ids for one in batched]
    assert [one.study_id for one in batched] == [request.study_id for request in requests]
    np.testing.assert_allclose(
        [one.mean_logprob for one in alone], [one.mean_logprob for one in batched], rtol=1e-4, atol=1e-5
    )


def test_tokens_equal_those_of_transformers(loaded, layout, requests, batched) -> None:
    suppressed = layout.suppressed(loaded.model.get_input_embeddings().weight.shape[0])
    for request, ours in zip(requests, batched, strict=True):
        batch = generation_batch(layout, [request.report], [request.images[0]])
        theirs = loaded.model.generate(
            **batch, do_sample=False, max_new_tokens=NEW, eos_token_id=1, suppress_tokens=suppressed
        )
        new = theirs[0, batch["input_ids"].shape[1] :].tolist()
        assert tuple(new) == ours.ids


def test_several_images_of_a_study_equal_transformers(loaded, layout, requests) -> None:
    images = [request.images[0] for request in requests]
    three = dataclasses.replace(requests[0], images=(images[0], images[1], images[2]))
    turned = dataclasses.replace(requests[0], images=(images[2], images[1], images[0]))
    pair = dataclasses.replace(requests[1], images=(images[1], images[3]))
    given = [three, requests[0], turned, pair]
    together = engine(loaded, layout, batch_size=3).generate(given)
    suppressed = layout.suppressed(loaded.model.get_input_embeddings().weight.shape[0])
    for request, ours in zip(given, together, strict=True):
        encoded = layout.encode_prefix(layout.prefix(request.report), pools=(1,) * len(request.images))
        batch = layout.collate_generation([encoded])
        assert int((batch["input_ids"] == layout.image_id).sum()) == len(request.images) * loaded.image_tokens
        theirs = loaded.model.generate(
            **batch,
            pixel_values=pixel_values(request.images),
            do_sample=False,
            max_new_tokens=NEW,
            eos_token_id=1,
            suppress_tokens=suppressed,
        )
        assert tuple(theirs[0, batch["input_ids"].shape[1] :].tolist()) == ours.ids
    assert together[0].mean_logprob != together[2].mean_logprob  # the order of the images counts


def test_logprobs_equal_those_of_one_forward_pass(loaded, layout, requests, batched) -> None:
    suppressed = layout.suppressed(loaded.model.get_input_embeddings().weight.shape[0])
    for request, ours in zip(requests[:6], batched[:6], strict=True):
        prompt = layout.collate_generation([layout.encode_prefix(layout.prefix(request.report))])
        suffix = torch.tensor([ours.ids])
        ids = torch.cat([prompt["input_ids"], suffix], dim=1)
        types = torch.cat([prompt["token_type_ids"], torch.ones_like(suffix)], dim=1)
        mask = torch.ones_like(ids)
        with torch.no_grad():
            logits = loaded.model(
                input_ids=ids,
                token_type_ids=types,
                attention_mask=mask,
                position_ids=positions(mask),
                pixel_values=pixel_values([request.images[0]]),
            ).logits[0, prompt["input_ids"].shape[1] - 1 : -1]
        logits[:, suppressed] = -torch.inf
        expected = logits.log_softmax(-1).gather(1, suffix[0, :, None])[:, 0]
        assert ours.mean_logprob == pytest.approx(expected.mean().item(), abs=1e-4)
        assert ours.min_logprob == pytest.approx(expected.min().item(), abs=1e-4)
        assert ours.min_logprob <= ours.mean_logprob <= 0


def test_ids_past_the_text_are_never_written(loaded, layout, requests, batched) -> None:
    allowed = set(range(layout.first_special_id)) - {layout.pad_id, layout.bos_id}
    assert {token for one in batched for token in one.ids} <= allowed
    # They would be, if nothing were done: their rows of the table are the largest.
    batch = generation_batch(layout, [requests[0].report], [requests[0].images[0]])
    free = loaded.model.generate(**batch, do_sample=False, max_new_tokens=NEW, eos_token_id=1)
    assert set(free[0, batch["input_ids"].shape[1] :].tolist()) - allowed


def test_eos_ends_a_report_and_is_its_last_token(layout, batched) -> None:
    for one in batched:
        assert layout.eos_id not in one.ids[:-1]
        assert one.finished == (one.ids[-1] == layout.eos_id)
        assert one.finished or one.tokens == NEW
        assert "<" not in one.text


def test_the_image_and_the_indication_count(loaded, layout, requests) -> None:
    from cxrreport.records import Report

    first = requests[0]
    other_image = dataclasses.replace(first, images=requests[1].images)
    other_text = dataclasses.replace(first, report=Report(indication="chest pain fever"))
    written = engine(loaded, layout).generate([first, other_image, other_text, first])
    assert written[0].ids == written[3].ids
    assert len({one.mean_logprob for one in written[:3]}) == 3


def test_equal_images_are_encoded_once(loaded, layout, requests, monkeypatch) -> None:
    seen: list[int] = []
    encode = type(loaded.model).get_image_features

    def counting(self, pixel_values, **kwargs):
        seen.append(len(pixel_values))
        return encode(self, pixel_values, **kwargs)

    monkeypatch.setattr(type(loaded.model), "get_image_features", counting)
    same = [dataclasses.replace(request, images=requests[0].images) for request in requests]
    engine(loaded, layout, batch_size=3).generate(same)
    assert seen == [1]
    seen.clear()
    engine(loaded, layout, batch_size=3).generate(requests)
    assert sum(seen) == len(requests)


def test_beam_search_equals_that_of_transformers(loaded, layout, requests, batched) -> None:
    some = requests[:5]
    settings = Beam(method="beam", beams=3, length_penalty=0.5)
    one = Engine(loaded, layout, batch_size=5, max_new_tokens=NEW, decoding=settings)
    found = one.generate(some)
    suppressed = layout.suppressed(loaded.model.get_input_embeddings().weight.shape[0])
    for request, ours in zip(some, found, strict=True):
        batch = generation_batch(layout, [request.report], [request.images[0]])
        theirs = loaded.model.generate(
            **batch,
            num_beams=3,
            length_penalty=0.5,
            do_sample=False,
            max_new_tokens=NEW,
            eos_token_id=1,
            suppress_tokens=suppressed,
            renormalize_logits=True,
        )
        ids = theirs[0, batch["input_ids"].shape[1] :].tolist()
        assert layout.decode(ids) == ours.text
        assert ours.finished == (1 in ids)
    assert [ours.ids for ours in found] != [greedy.ids for greedy in batched[:5]]


def test_probabilities_of_beam_search_are_those_of_the_text(loaded, layout, requests, batched, monkeypatch) -> None:
    # The search finds what greedy decoding wrote: then its probabilities are known.
    def found(self, **given):
        new = torch.tensor([batched[0].ids])
        return torch.cat([given["input_ids"], new], dim=1)

    monkeypatch.setattr(type(loaded.model), "generate", found)
    one = Engine(loaded, layout, batch_size=1, max_new_tokens=NEW, decoding=Beam(method="beam")).generate(requests[:1])
    assert one[0].mean_logprob == pytest.approx(batched[0].mean_logprob, abs=1e-4)
    assert one[0].min_logprob == pytest.approx(batched[0].min_logprob, abs=1e-4)


def test_sampling_depends_on_seed_and_study_alone(loaded, layout, requests) -> None:
    def written(order: list[Request], *, size: int = 4, seed: int = 0, **how: float) -> dict[str, tuple[int, ...]]:
        settings = Sampling(method="sample", **how)
        one = Engine(loaded, layout, batch_size=size, max_new_tokens=NEW, decoding=settings, seed=seed)
        return {generated.study_id: generated.ids for generated in one.generate(order)}

    first = written(requests)
    assert written(requests[::-1][:9], size=1).items() <= first.items()
    other = written(requests, seed=1)
    assert sum(first[study] != other[study] for study in first) > len(first) // 2
    allowed = set(range(layout.first_special_id)) - {layout.pad_id, layout.bos_id}
    assert {token for ids in first.values() for token in ids} <= allowed
    same = [dataclasses.replace(requests[0], study_id=f"again {number}") for number in range(6)]
    assert len(set(written(same).values())) > 1
    cold = written(requests, temperature=1e-4)
    assert cold == {one.study_id: one.ids for one in engine(loaded, layout).generate(requests)}


def test_draws_have_the_distribution_of_the_model() -> None:
    probabilities = torch.tensor([0.1, 0.5, 0.15, 0.25])
    draws = (torch.arange(1000) + 0.5) / 1000

    def shares(**how: float) -> list[float]:
        logits = probabilities.log().expand(1000, 4)
        chosen = sample(logits, Sampling(method="sample", **how), draws)
        return (torch.bincount(chosen, minlength=4) / 1000).tolist()

    assert shares() == pytest.approx([0.1, 0.5, 0.15, 0.25], abs=2e-3)
    assert shares(top_p=0.7) == pytest.approx([0, 2 / 3, 0, 1 / 3], abs=2e-3)
    squares = probabilities.square() / probabilities.square().sum()
    assert shares(temperature=0.5) == pytest.approx(squares.tolist(), abs=2e-3)
    assert shares(top_p=1e-9) == [0, 1, 0, 0]


def test_locations_are_for_prompts_that_ask_for_them(loaded, layout, requests, batched) -> None:
    asked = [
        dataclasses.replace(requests[0], prompt=parse_prompt(text)) for text in ("detect effusion", "caption", "ocr")
    ]
    detected, captioned, read = engine(loaded, layout).generate(asked)
    assert [one.prompt for one in (detected, captioned, read)] == ["detect effusion", "caption en", "ocr"]
    locations = set(range(layout.first_special_id, layout.image_id))
    assert locations & set(detected.ids)
    assert max(detected.ids) < layout.image_id
    assert "<loc000" in detected.text
    assert not locations & {*captioned.ids, *read.ids}
    assert captioned.ids != batched[0].ids


def test_several_prompts_encode_an_image_once(loaded, layout, requests, monkeypatch) -> None:
    seen: list[int] = []
    encode = type(loaded.model).get_image_features

    def counting(self, pixel_values, **kwargs):
        seen.append(len(pixel_values))
        return encode(self, pixel_values, **kwargs)

    monkeypatch.setattr(type(loaded.model), "get_image_features", counting)
    asked = [
        dataclasses.replace(request, prompt=parse_prompt(text))
        for text in ("detect effusion", "caption", "answer en is there a tube in place ?")
        for request in requests[:5]
    ]
    engine(loaded, layout, batch_size=2).generate(asked)
    assert sum(seen) == 5


def test_a_request_can_have_its_own_limit(loaded, layout, requests, batched) -> None:
    limits = [1 + number % 30 for number in range(len(requests))]
    given = [dataclasses.replace(one, max_new_tokens=limit) for one, limit in zip(requests, limits, strict=True)]
    written = engine(loaded, layout).generate(given)
    for one, whole, limit in zip(written, batched, limits, strict=True):
        assert one.ids == whole.ids[:limit]


def test_digests_are_those_of_the_manifest(batched, requests) -> None:
    import hashlib

    assert batched[0].image_sha256 == (hashlib.sha256(requests[0].images[0].tobytes()).hexdigest(),)


@pytest.mark.parametrize("image", [np.zeros((28, 28), np.uint8), np.zeros((56, 56), np.float32)])
def test_a_wrong_image_is_named(loaded, layout, requests, image) -> None:
    wrong = dataclasses.replace(requests[2], images=(image,))
    with pytest.raises(InferenceError, match=r"study s002: the image is .* takes uint8"):
        engine(loaded, layout).generate([requests[0], wrong])


def test_a_layout_of_another_resolution_is_refused(loaded) -> None:
    other = PromptLayout(loaded.tokenizer, PromptSettings(), loaded.image_tokens * 4)
    with pytest.raises(MismatchError, match="16 image tokens, the prompt layout 64"):
        engine(loaded, other)


def test_a_long_answer_equals_that_of_transformers(loaded, layout, requests) -> None:
    one = max(engine(loaded, layout, new=150).generate(requests), key=lambda generated: generated.tokens)
    assert one.tokens == 150
    request = next(request for request in requests if request.study_id == one.study_id)
    batch = generation_batch(layout, [request.report], [request.images[0]])
    suppressed = layout.suppressed(loaded.model.get_input_embeddings().weight.shape[0])
    theirs = loaded.model.generate(
        **batch, do_sample=False, max_new_tokens=150, eos_token_id=1, suppress_tokens=suppressed
    )
    assert tuple(theirs[0, batch["input_ids"].shape[1] :].tolist()) == one.ids


def test_an_adapted_model_runs_and_differs(layout, requests, batched, fresh_loaded, with_adapter) -> None:
    adapted, _ = with_adapter(fresh_loaded.model, std=0.3, rank=2, alpha=32)
    written = engine(dataclasses.replace(fresh_loaded, model=adapted), layout).generate(requests)
    assert [one.ids for one in written] != [one.ids for one in batched]
    batch = generation_batch(layout, [requests[0].report], [requests[0].images[0]])
    suppressed = layout.suppressed(adapted.get_input_embeddings().weight.shape[0])
    theirs = adapted.generate(**batch, do_sample=False, max_new_tokens=NEW, eos_token_id=1, suppress_tokens=suppressed)
    assert tuple(theirs[0, batch["input_ids"].shape[1] :].tolist()) == written[0].ids


@pytest.mark.parametrize("changes", [{"softcap": True}, {"precision": "bfloat16"}])
def test_tokens_equal_those_of_transformers_in_other_ways_to_run(checkpoint_folder, requests, changes) -> None:
    from cxrreport.model.checkpoints import load
    from cxrreport.settings import CheckpointSettings

    given = {"name": str(checkpoint_folder), "precision": "float32", "device": "cpu"} | changes
    loaded = load(CheckpointSettings(**given), resolution=56)
    layout = PromptLayout(loaded.tokenizer, PromptSettings(), loaded.image_tokens)
    written = engine(loaded, layout, batch_size=1).generate(requests[:5])
    suppressed = layout.suppressed(loaded.model.get_input_embeddings().weight.shape[0])
    for request, ours in zip(requests[:5], written, strict=True):
        batch = generation_batch(layout, [request.report], [request.images[0]])
        theirs = loaded.model.generate(
            **batch, do_sample=False, max_new_tokens=NEW, eos_token_id=1, suppress_tokens=suppressed
        )
        assert tuple(theirs[0, batch["input_ids"].shape[1] :].tolist()) == ours.ids
