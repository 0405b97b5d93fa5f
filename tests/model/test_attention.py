"""The traps of attention: which tokens see which."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from batches import generation_batch, training_batch
from transformers import PaliGemmaConfig, PaliGemmaForConditionalGeneration

from cxrreport.model import attention, compat
from cxrreport.model.checkpoints import load
from cxrreport.model.prompt import PromptLayout, positions
from cxrreport.records import Report
from cxrreport.settings import CheckpointSettings, PromptSettings

pytestmark = pytest.mark.stock("transformers")

REPORTS = [
    Report(
        indication="cough and fever", findings="The heart is enlarged. No pneumothorax.", impression="Cardiomegaly."
    ),
    Report(findings="The lungs are clear."),
]


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (224, 224), dtype=np.uint8) for _ in REPORTS]


def loaded(folder: Path, *, softcap: bool = False) -> Any:
    return load(
        CheckpointSettings(name=str(folder), precision="float32", softcap=softcap, device="cpu"), resolution=224
    )


@pytest.fixture(scope="module")
def model(checkpoint_folder: Path) -> Any:
    return loaded(checkpoint_folder)


@pytest.fixture(scope="module")
def batch(model: Any, images: list[np.ndarray]) -> dict[str, torch.Tensor]:
    layout = PromptLayout(model.tokenizer, PromptSettings(), model.image_tokens)
    return training_batch(layout, REPORTS[:1], images[:1])


def logits(model: Any, batch: dict[str, torch.Tensor], **changes: torch.Tensor) -> torch.Tensor:
    inputs = {key: value for key, value in batch.items() if key != "labels"} | changes
    with torch.no_grad():
        return model.model(**inputs).logits


def test_no_earlier_token_attends_to_a_suffix_token(model: Any, batch: dict[str, torch.Tensor]) -> None:
    place = batch["input_ids"].shape[1] - 5
    ids = batch["input_ids"].clone()
    ids[0, place] += 1
    before, after = logits(model, batch), logits(model, batch, input_ids=ids)
    assert torch.equal(before[:, :place], after[:, :place])
    assert not torch.allclose(before[:, place + 1 :], after[:, place + 1 :])


def test_earlier_prefix_tokens_attend_to_later_ones(model: Any, batch: dict[str, torch.Tensor]) -> None:
    place = int((batch["token_type_ids"] == 0).sum()) - 3
    ids = batch["input_ids"].clone()
    ids[0, place] += 1
    before, after = logits(model, batch), logits(model, batch, input_ids=ids)
    changed = (before - after).abs().amax(-1)[0]
    assert (changed[: place + 5] > 1e-6).all()


def test_without_token_types_it_is_an_error_and_not_another_mask(model: Any, batch: dict[str, torch.Tensor]) -> None:
    inputs = {key: batch[key] for key in ("input_ids", "pixel_values", "attention_mask")}
    with pytest.raises(ValueError, match="token_type_ids"):
        model.model(**inputs)


def test_sdpa_without_softcapping_equals_eager(checkpoint_folder: Path, batch: dict[str, torch.Tensor]) -> None:
    config = PaliGemmaConfig.from_pretrained(checkpoint_folder)
    attention.prepare_config(config, softcap=False)
    eager = PaliGemmaForConditionalGeneration.from_pretrained(
        checkpoint_folder, config=config, attn_implementation="eager", dtype=torch.float32
    ).eval()
    ours = loaded(checkpoint_folder)
    inputs = {key: value for key, value in batch.items() if key != "labels"}
    with torch.no_grad():
        torch.testing.assert_close(logits(ours, batch), eager(**inputs).logits, rtol=1e-4, atol=1e-5)


def test_softcapping_is_a_setting_and_runs_eager(
    checkpoint_folder: Path, model: Any, batch: dict[str, torch.Tensor]
) -> None:
    capped = loaded(checkpoint_folder, softcap=True)
    assert capped.model.config.text_config._attn_implementation == "eager"
    assert capped.model.config.text_config.attn_logit_softcapping == 50.0
    assert model.model.config.text_config.attn_logit_softcapping is None
    assert model.model.config.text_config.final_logit_softcapping is None
    stock = PaliGemmaForConditionalGeneration.from_pretrained(
        checkpoint_folder, attn_implementation="eager", dtype=torch.float32
    ).eval()
    inputs = {key: value for key, value in batch.items() if key != "labels"}
    with torch.no_grad():
        torch.testing.assert_close(logits(capped, batch), stock(**inputs).logits, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(logits(capped, batch), logits(model, batch), atol=1e-3)


def test_sdpa_refuses_softcapping() -> None:
    q = torch.zeros(1, 1, 2, 4)
    with pytest.raises(ValueError, match="soft-cap"):
        attention.prefix_sdpa(torch.nn.Module(), q, q, q, torch.ones(1, 1, 2, 2, dtype=torch.bool), softcap=50.0)


def test_no_sliding_window(checkpoint_folder: Path, batch: dict[str, torch.Tensor]) -> None:
    """With the window that the configuration names, half of the layers do not attend to the first image tokens."""
    config = PaliGemmaConfig.from_pretrained(checkpoint_folder)
    config.text_config.sliding_window = 12
    config.text_config.attn_logit_softcapping = config.text_config.final_logit_softcapping = None
    windowed = PaliGemmaForConditionalGeneration.from_pretrained(
        checkpoint_folder, config=config, attn_implementation="eager", dtype=torch.float32
    ).eval()
    inputs = {key: value for key, value in batch.items() if key != "labels"}
    with torch.no_grad():
        narrow = windowed(**inputs).logits
    ours = logits(loaded(checkpoint_folder), batch)
    assert not torch.allclose(narrow, ours, atol=1e-3)
    attention.prepare_config(config, softcap=False)
    full = PaliGemmaForConditionalGeneration.from_pretrained(
        checkpoint_folder, config=config, attn_implementation="eager", dtype=torch.float32
    ).eval()
    with torch.no_grad():
        torch.testing.assert_close(full(**inputs).logits, ours, rtol=1e-4, atol=1e-5)


def test_padding_changes_nothing(model: Any, images: list[np.ndarray]) -> None:
    layout = PromptLayout(model.tokenizer, PromptSettings(), model.image_tokens)
    together = training_batch(layout, REPORTS, images)
    both = logits(model, together)
    for row, report in enumerate(REPORTS):
        single = training_batch(layout, [report], [images[row]])
        present = together["attention_mask"][row].bool()
        torch.testing.assert_close(both[row, present], logits(model, single)[0], rtol=1e-4, atol=2e-5)


def test_prefix_queries_need_only_prefix_keys(model: Any, images: list[np.ndarray]) -> None:
    layout = PromptLayout(model.tokenizer, PromptSettings(), model.image_tokens)
    for count in (1, 2):
        batch = training_batch(layout, REPORTS[:count], images[:count])
        length = int((batch["token_type_ids"][0] == 0).sum())
        inputs = {key: value for key, value in batch.items() if key != "labels"}
        with torch.no_grad():
            mask = attention.border_mask(batch["attention_mask"], length)
            assert mask.shape == (count, 1, 1 + inputs["input_ids"].shape[1] - length, inputs["input_ids"].shape[1])
            split = model.model(
                **inputs | {"attention_mask": mask}, prefix_length=length, prefix_padded=count > 1
            ).logits
        present = batch["attention_mask"].bool()
        torch.testing.assert_close(split[present], logits(model, batch)[present], rtol=1e-4, atol=2e-5)


def test_generation_of_a_batch_equals_one_by_one(model: Any, images: list[np.ndarray]) -> None:
    layout = PromptLayout(model.tokenizer, PromptSettings(), model.image_tokens)
    options = {"max_new_tokens": 8, "output_logits": True, "return_dict_in_generate": True}
    together = model.model.generate(**generation_batch(layout, REPORTS, images), **options)
    for row, report in enumerate(REPORTS):
        alone = model.model.generate(**generation_batch(layout, [report], [images[row]]), **options)
        for step, own in enumerate(alone.logits):
            torch.testing.assert_close(together.logits[step][row], own[0], rtol=1e-4, atol=1e-4)


def test_generation_sees_what_training_saw(model: Any, images: list[np.ndarray]) -> None:
    """First generated token: the logits after the separator, from padding on the left as from padding on the right."""
    layout = PromptLayout(model.tokenizer, PromptSettings(), model.image_tokens)
    training = training_batch(layout, REPORTS, images)
    generation = generation_batch(layout, REPORTS, images)
    generation["position_ids"] = positions(generation["attention_mask"])
    expected = logits(model, training)[:, int((training["token_type_ids"][0] == 0).sum()) - 1]
    torch.testing.assert_close(logits(model, generation)[:, -1], expected, rtol=1e-4, atol=2e-5)


def test_soft_capping_without_the_matrix_of_logits_equals_eager(
    checkpoint_folder: Path, images: list[np.ndarray]
) -> None:
    """What a GPU runs: a padded batch with both kinds of mask, and one query with an added mask."""
    model = loaded(checkpoint_folder, softcap=True)
    layout = PromptLayout(model.tokenizer, PromptSettings(), model.image_tokens)
    batch = training_batch(layout, REPORTS, images)
    config = model.model.model.language_model.config
    assert config.attn_logit_softcapping == 50.0
    config.attn_logit_softcapping = 0.02  # the logits of a random model are small
    for layer in model.model.model.language_model.layers:
        layer.self_attn.attn_logit_softcapping = 0.02
    eager = logits(model, batch)
    with compat.attention_set_to(attention.SOFTCAP, config):
        flex = logits(model, batch)
    seen = batch["attention_mask"].bool()
    assert torch.allclose(flex[seen], eager[seen], atol=1e-5)
    for layer in model.model.model.language_model.layers:
        layer.self_attn.attn_logit_softcapping = 1e4
    assert not torch.allclose(logits(model, batch)[seen], eager[seen], atol=1e-5)  # the cap matters here


def test_soft_capped_queries_need_a_mask_of_either_kind() -> None:
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, heads, 5, 8, generator=generator) for heads in (4, 2, 2))
    seen = torch.rand(2, 1, 5, 5, generator=generator) > 0.4
    seen[..., 0] = True
    added = torch.zeros(seen.shape).masked_fill(~seen, -torch.inf)
    layer = torch.nn.Module()
    one, two = (
        attention.softcap_flex(layer, query, key, value, mask, scaling=0.3, softcap=0.5)[0] for mask in (seen, added)
    )
    keys, values = (each.repeat_interleave(2, dim=1) for each in (key, value))
    weights = (0.5 * torch.tanh(query @ keys.transpose(2, 3) * 0.3 / 0.5) + added).softmax(-1)
    expected = (weights @ values).transpose(1, 2)
    assert torch.allclose(one, expected, atol=1e-6)
    assert torch.allclose(two, expected, atol=1e-6)
    last = attention.softcap_flex(layer, query[:, :, -1:], key, value, seen[:, :, -1:], scaling=0.3, softcap=0.5)[0]
    assert torch.allclose(last, expected[:, -1:], atol=1e-6)
    with pytest.raises(ValueError, match="no attention mask"):
        attention.softcap_flex(layer, query, key, value, None, scaling=0.3, softcap=0.5)
