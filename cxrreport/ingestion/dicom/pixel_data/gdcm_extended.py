"""JPEG Extended of 12 bits by GDCM itself: pydicom asks it for 8 bits only, and the other decoder is GPLv3."""

from __future__ import annotations

from typing import Any

import gdcm
import numpy as np
from numpy.typing import NDArray
from pydicom.uid import JPEGExtended12Bit


def decode_extended(frame: bytes, options: dict[str, Any]) -> NDArray[np.uint16]:
    """Decode one grey frame (ITU-T T.81, processes 2 and 4). To be called where GDCM may abort.

    Args:
        frame: the codestream.
        options: rows, columns and bits_stored, of more than 8 and at most 12 bits, unsigned.

    Returns:
        uint16[rows, columns].

    Raises:
        ValueError: the frame does not decode to so many pixels.
    """
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(frame)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((options["columns"], options["rows"], 1))
    image.SetDataElement(element)
    grey = gdcm.PhotometricInterpretation.GetPIType("MONOCHROME2")
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(grey))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(str(JPEGExtended12Bit))))
    bits = options["bits_stored"]
    image.SetPixelFormat(gdcm.PixelFormat(1, 16, bits, bits - 1, 0))
    decoded = image.GetBuffer().encode("utf-8", "surrogateescape")  # bytes, which the bindings give as text
    return np.frombuffer(decoded, "<u2").astype(np.uint16).reshape(options["rows"], options["columns"])
