"""Transfer syntaxes that the installed decoders read."""

from __future__ import annotations

from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import (
    UID,
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

_COMPRESSED: tuple[UID, ...] = (
    RLELossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEG2000Lossless,
    HTJ2KLossless,
)


def installed_decoders() -> dict[str, tuple[str, ...]]:
    """Map each compressed transfer syntax that archives use to the installed plugins that decode it."""
    return {syntax.name: tuple(get_decoder(syntax).available_plugins) for syntax in _COMPRESSED}
