"""Prompts of the mix checkpoints, and boxes in their answers.

The tasks are those of PaliGemma's training (arXiv 2407.07726, section 3.2.5):

    cap en                       a short caption              ocr                          text in the image
    caption en                   a caption                    answer en where is the tube  the answer to a question
    describe en                  a longer one                 question en left             a question to an answer
    detect effusion ; tube       boxes                        segment heart                a box and a mask
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image as PillowImage
from PIL import ImageDraw

from cxrreport.errors import SettingsError
from cxrreport.records import Box, Image

BINS = 1024
"""Location tokens per axis."""

_CAPTION_TASKS = frozenset({"cap", "caption", "describe"})
_QUESTION_TASKS = frozenset({"answer", "question"})
_LOCATION_TASKS = frozenset({"detect", "segment"})
_LANGUAGES = re.compile(
    "ar|bn|cs|da|de|el|en|es|fa|fi|fil|fr|he|hi|hr|hu|id|it|ja|ko|mi|nl|no|pl|pt|quz|ro|ru|sv|sw|te|th|tr|uk|vi|zh"
)
"""Languages of captions and questions in pre-training (those of XM3600, arXiv 2205.12522)."""
_BOX = re.compile(r"<loc(\d{4})><loc(\d{4})><loc(\d{4})><loc(\d{4})>((?:\s*<seg\d{3}>)*)([^;<]*)")
_COLOURS = ("#ff5c5c", "#4cc9ff", "#ffd34c", "#7dff7a", "#ff8cf0", "#ffa04c")


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """One prompt in the form that the model reads.

    Args:
        text: one line.
        locations: True if location and segment tokens may be generated; other tasks never use them.
    """

    text: str
    locations: bool


def parse_prompt(text: str) -> Prompt:
    """Check a prompt, and add the language `en` to tasks that need one.

    Words that are no task of the mix checkpoints are passed on unchanged, for checkpoints that were trained on others.

    Raises:
        SettingsError: the prompt is empty or incomplete.
    """
    words = text.split()
    if not words:
        raise SettingsError("prompts: one prompt is empty; write a task, for example 'caption' or 'detect effusion'")
    task, about = words[0], words[1:]
    if task in _CAPTION_TASKS and not about:
        about = ["en"]
    if task in _QUESTION_TASKS and (len(about) < 2 or not _LANGUAGES.fullmatch(about[0])):
        raise SettingsError(f"prompts: '{task}' needs a language and a text, for example '{task} en is there a tube'")
    if task in _LOCATION_TASKS and not about:
        raise SettingsError(f"prompts: '{task}' needs an object, for example '{task} effusion'")
    return Prompt(text=" ".join([task, *about]), locations=task in _LOCATION_TASKS)


def parse_boxes(text: str, image: Image, *, resize: str) -> tuple[Box, ...]:
    """Read the boxes in an answer, in pixels of the source image.

    Location tokens are top, left, bottom and right, in 1024ths of the square that the model reads. With `pad`, boxes
    are clipped to the part of the square that shows the image. Four tokens that do not form a box are ignored.

    Args:
        text: the generated text.
        image: the source image; `rows` and `columns` are used.
        resize: how the image was made square, `squash` or `pad` (`ingestion.images.resample`).
    """
    side = max(image.rows, image.columns)
    high, wide = (side, side) if resize == "pad" else (image.rows, image.columns)
    above, before = (high - image.rows) / 2, (wide - image.columns) / 2
    found = []
    for match in _BOX.finditer(text):
        top, left, bottom, right = (int(match[group]) / BINS for group in range(1, 5))
        top, bottom = (min(max(value * high - above, 0.0), image.rows) for value in (top, bottom))
        left, right = (min(max(value * wide - before, 0.0), image.columns) for value in (left, right))
        if top < bottom and left < right:
            found.append(Box(label=match[6].strip(), top=top, left=left, bottom=bottom, right=right))
    return tuple(found)


def draw_boxes(square: npt.NDArray[np.uint8], image: Image, boxes: Sequence[Box], *, resize: str) -> PillowImage.Image:
    """Draw boxes and their labels on the image that the model read, restored to its aspect ratio.

    Args:
        square: uint8[R, R] of the image store.
        image: the source image.
        boxes: boxes in pixels of the source image.
        resize: as in `parse_boxes`.
    """
    side = square.shape[0]
    scale = side / max(image.rows, image.columns)
    size = max(1, round(image.columns * scale)), max(1, round(image.rows * scale))
    picture = PillowImage.fromarray(square)
    if resize == "pad":
        left, top = (side - size[0]) // 2, (side - size[1]) // 2
        picture = picture.crop((left, top, left + size[0], top + size[1]))
    else:
        picture = picture.resize(size, PillowImage.Resampling.BILINEAR)
    picture = picture.convert("RGB")
    pen = ImageDraw.Draw(picture)
    labels = sorted({box.label for box in boxes})
    for box in boxes:
        colour = _COLOURS[labels.index(box.label) % len(_COLOURS)]
        corners = [value * scale for value in (box.left, box.top, box.right, box.bottom)]
        pen.rectangle(corners, outline=colour, width=max(1, side // 200))
        origin = (corners[0] + side // 100, max(corners[1], 0) + side // 100)
        background = pen.textbbox(origin, box.label, font_size=max(10, side // 40))
        pen.rectangle(background, fill="black")
        pen.text(origin, box.label, fill=colour, font_size=max(10, side // 40))
    return picture
