"""Layout token by token, limits that keep EOS, and parsing of what a model may write."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cxrreport.model.checkpoints import load_tokenizer
from cxrreport.model.prompt import IGNORED, PromptLayout, pixel_values
from cxrreport.records import Report
from cxrreport.settings import PromptSettings

REPORT = Report(
    indication="cough\nand  fever\n", findings="The heart is\nenlarged. No pneumothorax.", impression="Cardiomegaly.\n"
)
TOKENS = 16


@pytest.fixture
def layout(checkpoint_folder: Path) -> PromptLayout:
    return PromptLayout(load_tokenizer(checkpoint_folder), PromptSettings(), TOKENS)


def with_settings(layout: PromptLayout, **settings: object) -> PromptLayout:
    return PromptLayout(layout.tokenizer, PromptSettings.model_validate(settings), TOKENS)


def test_layout_of_the_reference(layout: PromptLayout) -> None:
    batch = layout.collate_training([layout.encode(REPORT)])
    ids = batch["input_ids"][0].tolist()
    newline = layout.tokenizer.convert_tokens_to_ids("\n")
    prefix = layout.tokenizer(layout.prefix(REPORT), add_special_tokens=False)["input_ids"]
    suffix = layout.tokenizer(layout.suffix(REPORT), add_special_tokens=False)["input_ids"]
    assert ids == [layout.image_id] * TOKENS + [layout.bos_id, *prefix, newline, *suffix, layout.eos_id]
    start = TOKENS + 2 + len(prefix)
    assert batch["token_type_ids"][0].tolist() == [0] * start + [1] * (len(suffix) + 1)
    assert batch["labels"][0].tolist() == [IGNORED] * start + [*suffix, layout.eos_id]
    assert batch["attention_mask"].all()


def test_texts_are_one_line(layout: PromptLayout) -> None:
    assert layout.prefix(REPORT) == "generate the chest x-ray report indication: cough and fever"
    assert layout.suffix(REPORT) == "FINDINGS: The heart is enlarged. No pneumothorax. IMPRESSION: Cardiomegaly."


def test_a_newline_at_the_end_of_the_prefix_does_not_merge_with_the_separator(layout: PromptLayout) -> None:
    merged = layout.tokenizer.convert_tokens_to_ids("\n\n")
    assert layout.tokenizer("\n\n", add_special_tokens=False)["input_ids"] == [merged]
    encoded = with_settings(layout, instruction="describe\n", indication=False).encode(REPORT)
    assert merged not in encoded.prefix
    assert encoded.prefix.count(layout.tokenizer.convert_tokens_to_ids("\n")) == 1


def test_special_tokens_in_a_text_stay_text(layout: PromptLayout) -> None:
    encoded = layout.encode(Report(indication="<image> <eos> <loc0001>", findings="<bos> <eos>"))
    assert layout.image_id not in encoded.prefix
    assert encoded.suffix.count(layout.eos_id) == 1
    assert max(encoded.prefix + encoded.suffix) < layout.first_special_id


def test_without_an_indication_in_data_or_prompt(layout: PromptLayout) -> None:
    assert layout.prefix(Report(findings="x")) == "generate the chest x-ray report"
    assert with_settings(layout, indication=False).prefix(REPORT) == "generate the chest x-ray report"


def test_sections_by_setting_in_order_and_without_empty_ones(layout: PromptLayout) -> None:
    assert with_settings(layout, sections=("impression",)).suffix(REPORT) == "IMPRESSION: Cardiomegaly."
    swapped = with_settings(layout, sections=("impression", "findings")).suffix(REPORT)
    assert swapped.index("IMPRESSION") < swapped.index("FINDINGS")
    assert layout.suffix(Report(impression="Normal.")) == "IMPRESSION: Normal."
    assert layout.suffix(Report(indication="cough", findings=" \n ")) == ""


def test_cutting_keeps_eos_and_is_reported(layout: PromptLayout) -> None:
    short = with_settings(layout, max_suffix_tokens=5, max_prefix_tokens=6)
    whole, cut = layout.encode(REPORT), short.encode(REPORT)
    assert (whole.suffix_cut, whole.prefix_cut) == (False, False)
    assert (cut.suffix_cut, cut.prefix_cut) == (True, True)
    assert cut.suffix == (*whole.suffix[:4], layout.eos_id)
    assert cut.prefix == (*whole.prefix[:5], whole.prefix[-1])
    exact = with_settings(layout, max_suffix_tokens=len(whole.suffix), max_prefix_tokens=len(whole.prefix))
    assert exact.encode(REPORT) == whole


def test_padding_sides(layout: PromptLayout) -> None:
    long = Report(indication="fever and cough and cough and fever", findings=REPORT.findings)
    samples = [layout.encode(long), layout.encode(Report(findings="Clear."))]
    training = layout.collate_training(samples)
    border, total = TOKENS + len(samples[0].prefix), training["input_ids"].shape[1]
    left, right = len(samples[0].prefix) - len(samples[1].prefix), total - border - len(samples[1].suffix)
    assert left > 0
    assert right > 0
    assert training["attention_mask"][1].tolist() == [0] * left + [1] * (total - left - right) + [0] * right
    assert training["token_type_ids"].tolist() == [[0] * border + [1] * (total - border)] * 2
    assert (training["labels"][:, :border] == IGNORED).all()
    assert training["labels"][1, border:].tolist() == [*samples[1].suffix, *[IGNORED] * right]
    assert training["position_ids"][1, left : total - right].tolist() == list(range(1, total - left - right + 1))
    generation = layout.collate_generation(samples)
    assert generation["attention_mask"][1, 0] == 0
    assert (generation["input_ids"][:, -1] == layout.tokenizer.convert_tokens_to_ids("\n")).all()
    assert (generation["token_type_ids"] == 0).all()


def test_pixels_are_minus_one_to_one_in_three_equal_channels() -> None:
    image = np.zeros((4, 4), dtype=np.uint8)
    image[0, 0], image[1, 1] = 255, 51
    pixels = pixel_values([image])
    assert pixels.shape == (1, 3, 4, 4)
    assert pixels.dtype == torch.float32
    assert pixels[0, :, 0, 0].tolist() == [1.0, 1.0, 1.0]
    assert pixels[0, :, 1, 1].tolist() == pytest.approx([-0.6] * 3)
    assert pixels.min() == -1.0


@pytest.mark.parametrize(
    ("text", "findings", "impression"),
    [
        ("FINDINGS: Clear. IMPRESSION: Normal.", "Clear.", "Normal."),
        ("findings :  Clear.\nImpressions: Normal.", "Clear.", "Normal."),
        ("IMPRESSION: Normal. FINDINGS: Clear.", "Clear.", "Normal."),
        ("Clear lungs.", "Clear lungs.", ""),
        ("Clear. IMPRESSION: Normal.", "Clear.", "Normal."),
        ("IMPRESSION:", "", ""),
        ("", "", ""),
        ("FINDINGS: a FINDINGS: b IMPRESSION: c", "a b", "c"),
        ("FINDINGS: no prefindings: here", "no prefindings: here", ""),
    ],
)
def test_parse(layout: PromptLayout, text: str, findings: str, impression: str) -> None:
    assert layout.parse(text) == (findings, impression)


def test_headless_text_belongs_to_the_only_section(layout: PromptLayout) -> None:
    assert with_settings(layout, sections=("impression",)).parse("Normal.") == ("", "Normal.")


def test_encode_decode_parse_round_trip(layout: PromptLayout) -> None:
    text = layout.decode([*layout.encode(REPORT).suffix, 17, 18])
    assert layout.parse(text) == ("The heart is enlarged. No pneumothorax.", "Cardiomegaly.")


def test_suppressed_ids_are_those_that_no_report_has(layout: PromptLayout) -> None:
    rows = layout.image_id + 40
    suppressed = set(layout.suppressed(rows))
    assert {layout.pad_id, layout.bos_id, layout.image_id, layout.first_special_id, rows - 1} <= suppressed
    assert layout.eos_id not in suppressed
    assert not suppressed & set(layout.encode(REPORT).suffix)
