"""The rows of a request: radiographs and texts of a study, and what a model does with them."""

from __future__ import annotations

import base64
import math
import os
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxrreport.dataset import ImageRole
from cxrreport.errors import InputError, RefusedImage
from cxrreport.inference.decoding import Request
from cxrreport.ingestion.dicom import read_radiograph
from cxrreport.ingestion.images import Radiograph, to_square
from cxrreport.model.card import AdapterCard
from cxrreport.records import PriorStudy, Reason, Report, View
from cxrreport.reports.plain_text import MOST_CHARACTERS, TooLongError, plain_text
from cxrreport.reports.sections import parse_report
from cxrreport.settings import PromptSettings

ROOT = "CXRREPORT_SERVING_ROOT"
"""Environment variable of the server: the folder for paths in requests. Without it, paths are refused."""
COLUMNS = ("dicom", "path", "indication", "lateral", "prior", "prior_report", "prior_days")
"""Columns of a request. They are checked here and not by a signature, because MLflow drops columns that it does not
know, and repeats the rows of a request in its errors."""
_MOST_DAYS = 150 * 366

Grey = npt.NDArray[np.uint8]


def other_inputs(prompt: PromptSettings) -> dict[str, bool]:
    """Whether a model with this prompt reads the columns besides the frontal radiograph and the indication."""
    return {
        "lateral": prompt.views == "frontal+lateral",
        "prior": prompt.shows_prior_image,
        "prior_report": prompt.prior in ("report", "report+image"),
        "prior_days": prompt.prior != "none",
    }


def files_of(prompt: PromptSettings) -> int:
    """Most files of a row."""
    read = other_inputs(prompt)
    return 1 + read["lateral"] + read["prior"]


class RowReader:
    """Makes requests to the engine of rows.

    Args:
        card: of the adapter; its prompt says what the model reads.
        max_pixels: largest radiograph.
    """

    def __init__(self, card: AdapterCard, max_pixels: int) -> None:
        self._card = card
        self._max_pixels = max_pixels
        self._read = other_inputs(card.prompt)

    def request(self, number: int, row: Mapping[Hashable, Any]) -> tuple[Request, tuple[str, ...]]:
        """The request of a row, and the notes on its images; those on other images than the frontal name them.

        Raises:
            RefusedImage: a file is no radiograph that the model can read.
            InputError: the row has no frontal radiograph, or a value that is not allowed or that the model ignores.
        """
        given = {name: _text_or_none(name, row.get(name)) for name in COLUMNS if name != "prior_days"}
        days = _days(row.get("prior_days"))
        for name, read in self._read.items():
            if not read and (days if name == "prior_days" else given[name]) is not None:
                raise InputError(f"{name}: this model was trained without it; send the row without {name}")
        images = [self._frontal(given["dicom"], given["path"])]
        for name in ("lateral", "prior"):
            if given[name] is not None:
                try:
                    images.append(self._other(name, given[name]))
                except InputError as error:
                    raise InputError(f"{name}: {error}") from None
        indication = given["indication"] or ""
        if isinstance(indication, bytes):
            raise InputError("indication: send a text")
        report = _report(given["prior_report"], self._card.prompt)
        prior = None
        if report is not None or given["prior"] is not None:
            prior = PriorStudy(study_id=f"row {number}", days=days, image_ids=(), report=report or Report())
        elif days is not None:
            raise InputError("prior_days: there is no prior study in this row; send prior or prior_report as well")
        request = Request(
            study_id=f"row {number}",
            images=tuple(image for image, _, _ in images),
            report=Report(indication=indication),
            roles=tuple(role for _, role, _ in images),
            prior=prior,
        )
        return request, tuple(note for _, _, notes in images for note in notes)

    def _frontal(self, dicom: Any, path: Any) -> tuple[Grey, ImageRole, tuple[str, ...]]:
        if (dicom is None) == (path is None):
            raise InputError("give either dicom, the content of a DICOM file, or path, a file on the server")
        file = resolve_below_root(os.fsdecode(path)) if path is not None else _decoded("dicom", dicom)
        radiograph = read_radiograph(file, max_pixels=self._max_pixels)
        if not radiograph.view.frontal:
            raise RefusedImage(Reason.NOT_FRONTAL, "the model describes frontal radiographs")
        return self._square(radiograph), ImageRole.FRONTAL, radiograph.notes

    def _other(self, name: str, dicom: Any) -> tuple[Grey, ImageRole, tuple[str, ...]]:
        role = ImageRole(name)
        file = _decoded("", dicom)
        radiograph = read_radiograph(file, max_pixels=self._max_pixels)
        if role is ImageRole.LATERAL and radiograph.view is View.UNKNOWN:  # and was read as a frontal
            radiograph = read_radiograph(file, max_pixels=self._max_pixels, view=View.LATERAL)
        if role is ImageRole.LATERAL and radiograph.view.frontal:
            raise InputError(f"the view of this file is {radiograph.view}; send a lateral radiograph")
        if role is ImageRole.PRIOR and not radiograph.view.frontal:
            raise RefusedImage(Reason.NOT_FRONTAL, "the model compares frontal radiographs")
        return self._square(radiograph), role, tuple(f"{name}: {note}" for note in radiograph.notes)

    def _square(self, radiograph: Radiograph) -> Grey:
        resampling = {name: self._card.preprocessing[name] for name in ("resize", "interpolation")}
        return to_square(radiograph.grey, resolution=self._card.resolution, **resampling)


def _report(text: str | bytes | None, prompt: PromptSettings) -> Report | None:
    """The sections of a report, as `ingest` finds them.

    Raises:
        InputError: it is too long, or has none of the sections that the model reads.
    """
    if text is None:
        return None
    if isinstance(text, bytes):
        raise InputError("prior_report: send a text")
    try:
        report = parse_report(plain_text(text))
    except TooLongError:
        raise InputError(f"prior_report: more than {MOST_CHARACTERS:,} characters; send one report") from None
    if not any(getattr(report, section) for section in prompt.sections):
        raise InputError(f"prior_report: no {' or '.join(prompt.sections)} in it; send the text of the prior report")
    return report


def _days(value: Any) -> int | None:
    """A whole number of days; `None` if the cell is empty. A column with empty cells arrives as floats.

    Raises:
        InputError: it is something else.
    """
    if _is_missing(value):
        return None
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not 0 <= value <= _MOST_DAYS or value != int(value):
        raise InputError(f"prior_days: send the days between both studies, a whole number from 0 to {_MOST_DAYS:,}")
    return int(value)


def _decoded(name: str, dicom: bytes | str) -> bytes:
    """The content of a file; JSON has no bytes, so it may be in Base64.

    Raises:
        InputError: it is a text, but not Base64.
    """
    if isinstance(dicom, bytes):
        return dicom
    try:
        return base64.b64decode("".join(dicom.split()), validate=True)
    except ValueError:
        where = f"{name}: " if name else ""
        raise InputError(f"{where}not Base64; encode the content of the DICOM file") from None


def _text_or_none(name: str, value: Any) -> str | bytes | None:
    """The value of a cell; `None` if it is missing or empty.

    Raises:
        InputError: it is neither a text nor bytes.
    """
    if _is_missing(value):
        return None
    if not isinstance(value, (str, bytes)):
        raise InputError(f"{name}: send a text, or leave it out")
    return value or None


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value)) or value is pd.NA


def table_rows(table: Any) -> list[dict[Hashable, Any]]:
    """The rows of a request.

    Raises:
        InputError: it is no table of `COLUMNS`, or has no rows.
    """
    try:
        frame = pd.DataFrame(table)
    except (TypeError, ValueError):
        raise InputError(f"not a table; give one with the columns {', '.join(COLUMNS)}") from None
    if unknown := len(set(frame.columns).difference(COLUMNS)):
        raise InputError(f"{unknown} unknown columns; known are {', '.join(COLUMNS)}")
    if frame.empty:
        raise InputError(f"no rows; give at least one with {' or '.join(COLUMNS[:2])}")
    return frame.to_dict("records")


def resolve_below_root(path: str) -> Path:
    """Resolve the path of a request below the folder of the environment variable `ROOT`.

    Raises:
        InputError: the variable is not set, the path leaves that folder (by `..`, an absolute path or a link), or the
            file does not exist. The message is the same for files outside and files that do not exist.
    """
    root = os.environ.get(ROOT)
    if not root:
        raise InputError(f"path: this server takes no paths ({ROOT} is not set); send the file as dicom")
    below = Path(root).resolve()
    try:
        file = (below / path).resolve()
        inside = file.is_relative_to(below) and file.is_file()
    except (OSError, ValueError):  # a name that is too long or contains a zero byte
        inside = False
    if not inside:
        raise InputError("path: no such file below the root folder of this server; use a path relative to that folder")
    return file
