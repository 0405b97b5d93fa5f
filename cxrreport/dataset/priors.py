"""The columns of the manifest on prior studies, and what is read from them.

The report of a prior study is in another row of the same file, anywhere in it. While studies are listed, the reports of
all priors are held as one block of memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

from cxrreport.dataset.columns import combined, numbers
from cxrreport.dataset.packed import PackedTexts
from cxrreport.records import REPORT_SECTIONS, Report

PRIOR_COLUMNS = pa.schema(
    [
        ("prior_study_id", pa.string()),
        ("prior_days", pa.int32()),
        ("findings_with_mentions", pa.string()),
        ("impression_with_mentions", pa.string()),
    ]
)
"""Null where there is no prior, no interval, or nothing was removed; only written if a row has a value."""
WITH_MENTIONS = {"findings_with_mentions": "findings", "impression_with_mentions": "impression"}
_UNKNOWN = -1


class PriorLinks(NamedTuple):
    """For each study, in the order of the manifest, the number of its prior and the days between them; -1 for none.

    Args:
        prior: int32[studies].
        days: int32[studies].
    """

    prior: NDArray[np.int32]
    days: NDArray[np.int32]

    @classmethod
    def none(cls, studies: int) -> PriorLinks:
        """No study has a prior."""
        none = np.full(studies, _UNKNOWN, np.int32)
        return cls(none, none)

    @classmethod
    def of_table(cls, table: pa.Table, first: NDArray[np.int64]) -> PriorLinks:
        """Links of a table whose rows are sorted by study.

        Args:
            table: of a manifest.
            first: the first row of each study.

        Raises:
            KeyError: of a row whose prior study is not in the table, or is of another patient or split.
        """
        if "prior_study_id" not in table.column_names or not len(first):
            return cls.none(len(first))
        used = ["study_id", "patient_id", "split", "prior_study_id", "prior_days"]
        studies = table.select(used).take(pa.array(first))
        ids = studies["prior_study_id"]
        prior = _filled(pa.compute.index_in(ids, value_set=studies["study_id"]))
        linked = np.flatnonzero(combined(ids).is_valid().to_numpy(zero_copy_only=False))
        wrong = prior[linked] == _UNKNOWN
        for name in ("patient_id", "split"):
            codes = numbers(combined(studies[name]).dictionary_encode().indices)
            wrong |= codes[prior[linked]] != codes[linked]
        if wrong.any():
            raise KeyError(int(first[linked[wrong.argmax()]]))
        return cls(prior, _filled(studies["prior_days"]))

    def of(self, study: int) -> int | None:
        """The number of the prior of a study."""
        prior = int(self.prior[study])
        return None if prior == _UNKNOWN else prior

    def days_of(self, study: int) -> int | None:
        """Days between a study and its prior, if they are known."""
        days = int(self.days[study])
        return None if days == _UNKNOWN else days

    def priors_of(self, studies: NDArray[np.int64]) -> NDArray[np.int64]:
        """The priors of some studies, sorted."""
        prior = np.unique(self.prior[studies])
        return np.array(prior[prior != _UNKNOWN], np.int64)


class PriorReports:
    """Reports of some studies by their number.

    Args:
        reports: numbers of studies in ascending order, each with its report.
    """

    def __init__(self, reports: Iterable[tuple[int, Report]]) -> None:
        self._texts = PackedTexts()
        numbers = []
        for number, report in reports:
            numbers.append(number)
            for section in REPORT_SECTIONS:
                self._texts.append(getattr(report, section))
        self._numbers = np.array(numbers, np.int32)

    def __getitem__(self, number: int) -> Report:
        start = int(np.searchsorted(self._numbers, np.int32(number))) * len(REPORT_SECTIONS)
        return Report(**dict(zip(REPORT_SECTIONS, self._texts[start : start + len(REPORT_SECTIONS)], strict=True)))


def _filled(column: pa.ChunkedArray) -> NDArray[np.int32]:
    return numbers(combined(column).fill_null(_UNKNOWN))
