"""A grey image in a terminal."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.color import Color
from rich.style import Style
from rich.text import Text

_SHADES = " .:-=+*#%@"
_UPPER_HALF = "▀"


def picture(grey: NDArray[np.uint8], columns: int, *, colours: bool) -> Text:
    """An image as lines of text, in its proportions: a character is twice as high as wide.

    Args:
        grey: uint8[H, W].
        columns: width of the text.
        colours: two pixels a character, in greys; otherwise one, as a letter that covers more or less of its cell.
    """
    rows = max(1, round(columns * grey.shape[0] / grey.shape[1] / 2))
    image = Image.fromarray(grey).resize((columns, 2 * rows if colours else rows), Image.Resampling.BOX)
    values = np.asarray(image)
    text = Text(no_wrap=True)
    if not colours:
        shades = values.astype(int) * len(_SHADES) // 256
        return text.append("\n".join("".join(_SHADES[shade] for shade in row) for row in shades))
    for upper, lower in zip(values[::2], values[1::2], strict=True):
        for top, bottom in zip(upper.tolist(), lower.tolist(), strict=True):
            front, back = Color.from_rgb(top, top, top), Color.from_rgb(bottom, bottom, bottom)
            text.append(_UPPER_HALF, Style(color=front, bgcolor=back))
        text.append("\n")
    text.rstrip()
    return text
