"""Radiographs at the resolution of their files, in a folder beside the page, which loads them on demand."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt
import PIL.Image

from cxrreport.errors import RefusedImage
from cxrreport.ingestion.dicom import read_radiograph
from cxrreport.ingestion.images import Radiograph, is_picture, read_picture
from cxrreport.records import Image, Progress
from cxrreport.storage.atomic_files import atomic_path

QUALITY = 90
_MAX_PIXELS = 60_000_000
_KEEP = ("colour", "multi-frame")


def jpeg(grey: npt.NDArray[np.uint8], side: int | None = None) -> bytes:
    """A JPEG of `uint8[H, W]`, its longer side at most `side` pixels."""
    image = PIL.Image.fromarray(grey)
    if side is not None and side < max(image.size):
        image.thumbnail((side, side))
    file = io.BytesIO()
    image.save(file, format="JPEG", quality=QUALITY)
    return file.getvalue()


def write_source_images(
    sources: Path,
    elements: Sequence[tuple[str, str]],
    images: Mapping[str, Image],
    folder: Path,
    progress: Progress | None = None,
) -> list[str]:
    """Write images as `<name>.jpg`.

    Args:
        sources: the input folder of `ingest`.
        elements: name on the page and image id of each image.
        images: image id to manifest row; `source` is relative to `sources`.
        folder: where to write.
        progress: called after each image.

    Returns:
        the names that were written. A file that is missing, cannot be read, or is not the image that was ingested is
        left out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for number, (name, image_id) in enumerate(elements, start=1):
        image = images[image_id]
        with suppress(RefusedImage, OSError):
            radiograph = _read(sources / image.source)
            same_size = (radiograph.rows, radiograph.columns) == (image.rows, image.columns)
            # MIMIC-CXR's image ids are not SOP Instance UIDs, and pictures have none.
            same_id = "." not in image_id or radiograph.image_id in ("", image_id)
            if same_size and same_id:
                with atomic_path(folder / f"{name}.jpg") as temporary:
                    temporary.write_bytes(jpeg(radiograph.grey))
                written.append(name)
        if progress is not None:
            progress(number, len(elements), "source images")
    return written


def _read(path: Path) -> Radiograph:
    if is_picture(path):
        return read_picture(path, max_pixels=_MAX_PIXELS, keep=_KEEP)
    return read_radiograph(path, max_pixels=_MAX_PIXELS, keep=_KEEP)
