"""Prompts of the mix checkpoints, and boxes out of what they answer.

The words are those on which PaliGemma was trained (arXiv 2407.07726, section 3.2.5):

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
"""Location tokens of each axis."""

_ALONE = frozenset({"cap", "caption", "describe"})
_ASKED = frozenset({"answer", "question"})
_LOCATED = frozenset({"detect", "segment"})
_LANGUAGES = frozenset(
    {
        "ar",
        "bn",
        "cs",
        "da",
        "de",
        "el",
        "en",
        "es",
        "fa",
        "fi",
        "fil",
        "fr",
        "he",
        "hi",
        "hr",
        "hu",
        "id",
        "it",
        "ja",
        "ko",
        "mi",
        "nl",
        "no",
        "pl",
        "pt",
        "quz",
        "ro",
        "ru",
        "sv",
        "sw",
        "te",
        "th",
        "tr",
        "uk",
        "vi",
        "zh",
    }
)
"""Of the captions and questions of pre-training (those of XM3600, arXiv 2205.12522)."""
_BOX = re.compile(r"<loc(\d{4})><loc(\d{4})><loc(\d{4})><loc(\d{4})>((?:\s*<seg\d{3}>)*)([^;<]*)")
_COLOURS = ("#ff5c5c", "#4cc9ff", "#ffd34c", "#7dff7a", "#ff8cf0", "#ffa04c")


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """One prompt as the model reads it.

    Args:
        text: one line.
        locations: location and segment tokens may be written; they never belong into a text of another task.
    """

    text: str
    locations: bool


def prompt(text: str) -> Prompt:
    """A prompt as it was given, with the language of the mix checkpoints, `en`, where their syntax needs one.

    Words that are no task of theirs are taken as they are, for checkpoints that were trained on others.

    Raises:
        SettingsError: it is empty, or a task lacks what it is about.
    """
    words = text.split()
    if not words:
        raise SettingsError("prompts: one is empty; write a task, e.g. 'caption' or 'detect effusion'")
    task, about = words[0], words[1:]
    if task in _ALONE and not about:
        about = ["en"]
    if task in _ASKED and (len(about) < 2 or about[0] not in _LANGUAGES):
        raise SettingsError(f"prompts: '{task}' needs a language and words after it, e.g. '{task} en is there a tube'")
    if task in _LOCATED and not about:
        raise SettingsError(f"prompts: '{task}' needs to be told what, e.g. '{task} effusion'")
    return Prompt(text=" ".join([task, *about]), locations=task in _LOCATED)


def boxes(text: str, image: Image, *, resize: str) -> tuple[Box, ...]:
    """The boxes in an answer, in pixels of the image as it was before ingest.

    Tokens come as top, left, bottom, right, in 1024ths of the square that the model saw. With `pad` the square has a
    border that the image has not: what lies there is cut off. Four tokens whose order makes no box are passed over;
    they stand in the text.

    Args:
        text: what the model wrote.
        image: of the source image, `rows` and `columns` are needed.
        resize: how it was made square, `squash` or `pad` (`ingestion.images.resample`).
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


def draw(square: npt.NDArray[np.uint8], image: Image, found: Sequence[Box], *, resize: str) -> PillowImage.Image:
    """The image that the model saw, in its own aspect again, with boxes and their labels.

    Args:
        square: uint8[R, R] of the image store.
        image: its source.
        found: boxes in pixels of the source.
        resize: as in `boxes`.
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
    labels = sorted({box.label for box in found})
    for box in found:
        colour = _COLOURS[labels.index(box.label) % len(_COLOURS)]
        corners = [value * scale for value in (box.left, box.top, box.right, box.bottom)]
        pen.rectangle(corners, outline=colour, width=max(1, side // 200))
        where = (corners[0] + side // 100, max(corners[1], 0) + side // 100)
        around = pen.textbbox(where, box.label, font_size=max(10, side // 40))
        pen.rectangle(around, fill="black")
        pen.text(where, box.label, fill=colour, font_size=max(10, side // 40))
    return picture
