"""When a study was made, by its header."""

from __future__ import annotations

from pydicom.dataset import Dataset

from cxrreport.ingestion.dicom.elements import text
from cxrreport.ingestion.moments import Moment, date_and_time, first_moment

_LEVELS = ("Study", "Acquisition", "Series", "Content")
DATE_TAGS = (
    *(f"{level}{part}" for level in _LEVELS for part in ("Date", "Time")),
    *("AcquisitionDateTime", "TimezoneOffsetFromUTC", "LongitudinalTemporalInformationModified"),
)
"""What `taken_in` reads."""


def taken_in(dataset: Dataset) -> Moment | None:
    """The first valid date of study, acquisition, series and content (PS3.3 C.7.2.1, C.7.3.1, C.7.6.1), with its time.

    `None` without one, or if the header states that dates were removed (PS3.3 C.12.1, PS3.15 E.3.6): others may stand
    in their place.
    """
    try:
        if text(dataset, "LongitudinalTemporalInformationModified").upper() == "REMOVED":
            return None
        offset = text(dataset, "TimezoneOffsetFromUTC")
        stated = [(text(dataset, f"{level}Date"), text(dataset, f"{level}Time"), offset) for level in _LEVELS]
        day, time, own = date_and_time(text(dataset, "AcquisitionDateTime"))
        stated.insert(2, (day, time, own or offset))
    except Exception:  # pydicom raises anything on a broken element, and the image does not depend on its date
        return None
    return first_moment(stated)
