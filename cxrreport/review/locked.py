"""The files of one page, which one run at a time writes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import Timeout

from cxrreport.errors import OutputError
from cxrreport.storage.atomic_files import PARTIAL, remove_partial
from cxrreport.storage.locks import lock_file


def key_file(page: Path) -> Path:
    """The key of a blind page."""
    return page.with_name(f"{page.stem}-key.csv")


def images_folder(page: Path) -> Path:
    """The folder of images at the resolution of their files."""
    return page.with_name(f"{page.stem}-images")


@contextmanager
def locked_page(page: Path) -> Iterator[None]:
    """Lock a page, its key and its images for the block, and remove what a killed run has left of them.

    Raises:
        OutputError: another run is writing the page, or its folder cannot be written.
    """
    try:
        page.parent.mkdir(parents=True, exist_ok=True)
        lock = lock_file(page.with_name(f".{page.name}.lock"))
    except Timeout as error:
        raise OutputError(f"{page}: another run is writing this page; wait for it, or choose another file") from error
    except OSError as error:
        raise OutputError(f"{page}: cannot be written ({error.strerror})") from error
    try:
        for path in (page, key_file(page)):
            remove_partial(path)
        for leftover in images_folder(page).glob(f"{PARTIAL}*"):
            leftover.unlink(missing_ok=True)
        yield
    finally:
        lock.release()
