"""How data sets are arranged on disk. Each layout is a module that lists the images of an input.

To add one: write a module with the functions of `base.Layout`, and add it below and to `settings.ingestion.Layout`.
"""

from __future__ import annotations

from cxrreport.errors import InputError
from cxrreport.ingestion.layouts import chexpert_plus, folder, mimic_cxr, openi, rexgradient, table
from cxrreport.ingestion.layouts.base import Layout, Listing, Source, StudyRow
from cxrreport.ingestion.layouts.files import is_regular
from cxrreport.settings import IngestSettings

__all__ = ["Layout", "Listing", "Source", "StudyRow", "detect", "list_sources"]

_LAYOUTS: dict[str, Layout] = {
    "mimic-cxr": mimic_cxr,
    "chexpert-plus": chexpert_plus,
    "rexgradient": rexgradient,
    "table": table,
    "openi": openi,
    "folder": folder,
}
"""In the order of detection; `folder` accepts everything."""


def list_sources(settings: IngestSettings) -> Listing:
    """List the images of `settings.input` in the given or detected layout.

    Raises:
        InputError: the input is missing, is not of this layout, or one of its tables cannot be read.
    """
    if not settings.input.exists():
        raise InputError(f"{settings.input}: the input does not exist; give the folder, table or file with the studies")
    if settings.reports is not None and not settings.reports.exists():
        raise InputError(f"{settings.reports}: the table of reports does not exist")
    if not (settings.input.is_dir() or is_regular(settings.input)):
        raise InputError(f"{settings.input}: neither a folder nor a regular file (a FIFO, a socket or a device)")
    try:
        layout = detect(settings) if settings.layout == "auto" else settings.layout
        return _LAYOUTS[layout].list_images(settings)
    except OSError as error:
        raise InputError(
            f"{settings.input}: the input cannot be read ({error.strerror}); re-run the same command when it can"
        ) from error


def detect(settings: IngestSettings) -> str:
    """Name of the first layout that recognises the input."""
    return next(name for name, layout in _LAYOUTS.items() if layout.recognises(settings))
