"""Dates and times of headers and tables, as far as the order of studies needs them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

from cxrreport.ingestion.dicom import read_header
from cxrreport.ingestion.moments import Moment, earliest, moment_in_table, moment_of

DAY = date(2019, 3, 14).toordinal()
MORNING = 8 * 3600 + 51 * 60


@pytest.mark.parametrize(
    ("day", "time", "second"),
    [
        ("20190314", "085100", MORNING),
        ("20190314", "0851", MORNING),
        ("20190314", "08", 8 * 3600),
        ("20190314", "085143.156", MORNING + 43.156),
        ("2019.03.14", "08:51:43", MORNING + 43),  # ACR-NEMA
        ("2019-03-14", "", None),
        ("20190314", "85143", None),  # is not a value of TM
        ("20190314", "2500", None),
        ("20190314", "noon", None),
    ],
)
def test_values_of_dicom(day: str, time: str, second: float | None) -> None:
    assert moment_of(day, time) == Moment(DAY, second)


@pytest.mark.parametrize(
    ("day", "time", "expected"),
    [
        ("20190314", "85143.156", Moment(DAY, MORNING + 43.156)),  # a number without its leading zero
        ("20190314.0", "851.0", Moment(DAY, MORNING)),
        ("20190314", "85143", Moment(DAY, MORNING + 43)),
        ("2019-03-14 08:51:00", "", Moment(DAY, MORNING)),
        ("2019-03-14T08:51:00-05:00", "", Moment(DAY, MORNING, -300)),
        ("2019-03-14T08:51:00Z", "", Moment(DAY, MORNING, 0)),
        ("2019-03-14", "8:51", Moment(DAY)),
    ],
)
def test_cells_of_tables(day: str, time: str, expected: Moment) -> None:
    assert moment_in_table(day, time) == expected


def test_mimic_times_always_have_seconds() -> None:
    assert moment_in_table("21800506", "1234", padded=True).second == 12 * 60 + 34
    assert moment_in_table("21800506", "0.0", padded=True).second == 0
    assert moment_in_table("21800506", "213014.53100000003", padded=True).second == pytest.approx(77414.531)


@pytest.mark.parametrize(
    "day", ["", "0", "20190231", "00000000", "19000101", "19010101", "14.03.2019", "03/14/2019", "unknown"]
)
def test_what_is_no_date(day: str) -> None:
    assert moment_of(day, "0851") is None and moment_in_table(day, "0851") is None


def test_a_study_begins_with_its_first_image() -> None:
    late, early, untimed = Moment(DAY, MORNING + 60), Moment(DAY, MORNING), Moment(DAY)
    assert earliest([late, untimed, early]) == early
    assert earliest([Moment(DAY + 1, 60), Moment(DAY, 86000)]) == Moment(DAY, 86000)  # it passes midnight
    assert earliest([early, Moment(DAY + 2, MORNING)]) is None
    assert earliest([Moment(1, dated=False), Moment(2, dated=False)]) is None
    assert earliest([Moment(1, dated=False), early]) is None


def taken(make_file: Callable[..., Path], **elements: str) -> Moment | None:
    return read_header(make_file(**elements), max_pixels=10**6).taken


def test_a_header_states_its_date_in_several_places(make_file: Callable[..., Path]) -> None:
    assert taken(make_file) is None
    assert taken(make_file, StudyDate="20190314", StudyTime="0851") == Moment(DAY, MORNING)
    assert taken(make_file, StudyDate="20190314", StudyTime="0851", ContentDate="20200101") == Moment(DAY, MORNING)
    # the time of another level counts if its date is the same
    assert taken(make_file, StudyDate="20190314", AcquisitionDate="20190314", AcquisitionTime="0851").second == MORNING
    assert taken(make_file, StudyDate="20190314", AcquisitionDate="20190315", AcquisitionTime="0851").second is None
    assert taken(make_file, StudyDate="19000101", SeriesDate="20190314") == Moment(DAY)
    assert taken(make_file, AcquisitionDateTime="20190314085100.000000-0500") == Moment(DAY, MORNING, -300)
    assert taken(make_file, StudyDate="20190314", StudyTime="0851", TimezoneOffsetFromUTC="+0530").offset == 330
    assert taken(make_file, StudyDate="20190314", LongitudinalTemporalInformationModified="REMOVED") is None
    assert taken(make_file, StudyDate="20190314", LongitudinalTemporalInformationModified="MODIFIED") == Moment(DAY)


@pytest.mark.parametrize("value", ["garbage", "20190314\\20190315", "2019", "9" * 64])
def test_a_broken_date_does_not_exclude_an_image(make_file: Callable[..., Path], value: str) -> None:
    assert taken(make_file, StudyDate=value) in (None, Moment(DAY))
