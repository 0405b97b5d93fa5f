from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxrreport.errors import SettingsError
from cxrreport.inference.mix_prompts import draw_boxes, parse_boxes, parse_prompt
from cxrreport.records import Box, Image, Split, View


def image(rows: int, columns: int) -> Image:
    return Image(
        image_id="i",
        study_id="s",
        patient_id="p",
        split=Split.TEST,
        view=View.PA,
        source="i.dcm",
        rows=rows,
        columns=columns,
    )


@pytest.mark.parametrize(
    ("given", "text", "locations"),
    [
        ("cap", "cap en", False),
        ("caption de", "caption de", False),
        (" describe \n en ", "describe en", False),
        ("ocr", "ocr", False),
        ("answer en is there an effusion?", "answer en is there an effusion?", False),
        ("question en left", "question en left", False),
        ("detect effusion ; tube", "detect effusion ; tube", True),
        ("segment heart", "segment heart", True),
        ("generate the chest x-ray report", "generate the chest x-ray report", False),
    ],
)
def test_tasks_of_the_mix_checkpoints(given: str, text: str, locations: bool) -> None:
    assert parse_prompt(given).text == text
    assert parse_prompt(given).locations is locations


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("  ", "one prompt is empty"),
        ("detect", "'detect' needs an object, for example 'detect effusion'"),
        ("segment", "'segment' needs an object"),
        ("answer is there a tube", "'answer' needs a language and a text, for example 'answer en is there a tube'"),
        ("question en", "'question' needs a language and a text"),
    ],
)
def test_half_a_prompt_is_an_error_with_an_example(given: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        parse_prompt(given)


def test_boxes_in_pixels_of_the_source() -> None:
    text = "<loc0256><loc0000><loc0512><loc1023> left effusion ; <loc0000><loc0512><loc0768><loc0768> tube"
    assert parse_boxes(text, image(2048, 1024), resize="squash") == (
        Box(label="left effusion", top=512, left=0, bottom=1024, right=1023),
        Box(label="tube", top=0, left=512, bottom=1536, right=768),
    )


def test_padding_is_undone_and_clipped() -> None:
    # 2048 x 1024 in a square of 2048: 512 columns of border on either side.
    text = "<loc0256><loc0000><loc0512><loc1023> effusion ; <loc0000><loc0512><loc0768><loc0768> tube"
    assert parse_boxes(text, image(2048, 1024), resize="pad") == (
        Box(label="effusion", top=512, left=0, bottom=1024, right=1024),
        Box(label="tube", top=0, left=512, bottom=1536, right=1024),
    )
    # 1024 x 2048: the border is above and below.
    assert parse_boxes(text, image(1024, 2048), resize="pad") == (
        Box(label="effusion", top=0, left=0, bottom=512, right=2046),
        Box(label="tube", top=0, left=1024, bottom=1024, right=1536),
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no effusion",
        "<loc0001><loc0002><loc0003> three are no box",
        "<loc0512><loc0000><loc0256><loc1023> bottom above top",
        "<loc0000><loc0000><loc0100><loc0000> empty",
    ],
)
def test_invalid_boxes_are_dropped(text: str) -> None:
    assert parse_boxes(text, image(100, 100), resize="squash") == ()


def test_a_box_inside_the_padding_is_dropped() -> None:
    assert parse_boxes("<loc0000><loc0000><loc1023><loc0200> left border", image(2048, 1024), resize="pad") == ()


def test_a_segment_has_its_box_and_its_label() -> None:
    mask = "".join(f"<seg{number:03d}>" for number in range(16))
    (box,) = parse_boxes(f"<loc0000><loc0000><loc0512><loc0512>{mask} heart", image(1024, 1024), resize="squash")
    assert box == Box(label="heart", top=0, left=0, bottom=512, right=512)


@given(
    st.tuples(*[st.integers(0, 1023)] * 4),
    st.integers(1, 5000),
    st.integers(1, 5000),
    st.sampled_from(["squash", "pad"]),
)
def test_boxes_lie_within_the_image(corners: tuple[int, ...], rows: int, columns: int, resize: str) -> None:
    text = "".join(f"<loc{corner:04d}>" for corner in corners)
    for box in parse_boxes(text, image(rows, columns), resize=resize):
        assert 0 <= box.top < box.bottom <= rows
        assert 0 <= box.left < box.right <= columns


@pytest.mark.parametrize("resize", ["squash", "pad"])
@pytest.mark.parametrize("sides", [(400, 200), (200, 400), (300, 300)])
def test_a_drawn_box_surrounds_its_finding(resize: str, sides: tuple[int, int]) -> None:
    from cxrreport.ingestion.images.resample import to_square

    rows, columns = sides
    grey = np.zeros(sides, np.uint8)
    grey[rows // 4 : rows // 2, columns // 4 : columns // 2] = 255
    square = to_square(grey, resolution=224, resize=resize)  # type: ignore[arg-type]
    box = Box(label="block", top=rows / 4, left=columns / 4, bottom=rows / 2, right=columns / 2)
    picture = np.asarray(draw_boxes(square, image(*sides), [box], resize=resize)).astype(int)
    scale = 224 / max(sides)
    assert picture.shape[:2] == (round(rows * scale), round(columns * scale))
    coloured = (picture.max(-1) - picture.min(-1)) > 80
    bright = picture.min(-1) > 200
    found, seen = (np.argwhere(mask) for mask in (coloured, bright))
    assert np.abs(found.min(0) - seen.min(0)).max() <= 3
    assert np.abs(found[:, 0].max() - seen[:, 0].max()) <= 3


def test_an_impossible_box_cannot_be_made() -> None:
    box = Box(label="x", top=0, left=0, bottom=1, right=1)
    with pytest.raises(ValueError, match="is not a box"):
        dataclasses.replace(box, right=0)
