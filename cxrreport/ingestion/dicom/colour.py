"""Convert radiographs that were stored in colour, such as captures and scans, to grey."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from cxrreport.errors import PixelError
from cxrreport.ingestion.dicom.greyscale import lookup_table
from cxrreport.ingestion.images.greyscale import luminance
from cxrreport.records import Reason

PALETTE = "PALETTE COLOR"
SAMPLES = {"RGB": 3, "YBR_FULL": 3, "YBR_FULL_422": 3, "YBR_RCT": 3, "YBR_ICT": 3, PALETTE: 1}
"""Photometric interpretations of colour that are read, and their samples per pixel (PS3.3 C.7.6.3.1.2)."""
PALETTE_TAGS = [
    f"{colour}PaletteColorLookupTable{part}" for colour in ("Red", "Green", "Blue") for part in ("Descriptor", "Data")
]


def grey_of_palette(indices: NDArray[np.integer], dataset: Dataset) -> NDArray[np.uint8]:
    """The luminance of what a palette shows (PS3.3 C.7.9); indices beyond its ends take the nearest entry.

    Args:
        indices: unsigned[rows, columns].
        dataset: with the three lookup tables; segmented ones are not read, as a short text makes a long table.

    Returns:
        uint8[rows, columns].

    Raises:
        PixelError: `bad-lut`.
    """
    tables = []
    for colour in ("Red", "Green", "Blue"):
        keyword = f"{colour}PaletteColorLookupTable"
        if f"{keyword}Descriptor" not in dataset or f"{keyword}Data" not in dataset:
            raise PixelError(Reason.BAD_LUT, f"{keyword} is missing or segmented")
        descriptor, data = dataset[f"{keyword}Descriptor"].value, dataset[f"{keyword}Data"].value
        tables.append(lookup_table(descriptor, data, dataset, keyword, signed=False))
    first, bits = tables[0].first, tables[0].bits
    if any((table.first, table.bits, len(table.entries)) != (first, bits, len(tables[0].entries)) for table in tables):
        raise PixelError(Reason.BAD_LUT, "the lookup tables of the three colours are of different forms")
    entries = np.stack([table.entries for table in tables], axis=1)[np.newaxis]
    shown = (luminance(entries, "RGB")[0] >> (bits - 8)).astype(np.uint8)
    grey: NDArray[np.uint8] = shown[np.clip(indices.astype(np.int64) - first, 0, len(shown) - 1)]
    return grey
