"""Names of the columns of a table, as all commands read them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cxrreport.errors import InputError

IDS = frozenset({"study_id", "prior_study_id", "patient_id", "image_id", "subject_id", "dicom_id", "uid"})
_OTHERS = frozenset({"study_date", "study_time"})
_STUDY_IDS = ("studyinstanceuid", "study_instance_uid", "study_uid", "accession_number", "accessionnumber", "accession")
"""Columns that stand for `study_id` in a table without it, as hospitals export them."""
_WITHOUT_SEPARATOR = {name.replace("_", ""): name for name in IDS | _OTHERS}


def column_name(name: str) -> str:
    """A column name in lower case with single underscores: `Study ID`, `study-id` and `StudyID` are `study_id`."""
    plain = re.sub(r"[\s_-]+", "_", name.strip().lower())
    return _WITHOUT_SEPARATOR.get(plain, plain)


@dataclass(frozen=True, slots=True)
class WantedColumns:
    """Which columns of a table are read; arguments as in `read_table`."""

    path: Path
    columns: Collection[str] | None
    used: Collection[str] | None
    renamed: Mapping[str, str]
    others: Mapping[str, str]

    def of(self, names: Iterable[str]) -> dict[str, str]:
        """The wanted columns with their `column_name`; columns without a name are left out.

        Raises:
            InputError: several columns have one name that is used.
        """
        pairs = self._named(names)
        counts = Counter(normal for _, normal in pairs if self.columns is None or normal in self.columns)
        repeated = {normal for normal, count in counts.items() if count > 1}
        if unclear := sorted(repeated if self.used is None else repeated.intersection(self.used)):
            raise InputError(f"{self.path}: several columns are named {', '.join(unclear)}; keep one")
        return {name: normal for name, normal in pairs if counts[normal] == 1}

    def known(self, names: Iterable[str]) -> int:
        """How many different names of a row are those of columns that a reader asks for, or of ids."""
        asked = {
            *(self.columns or ()),
            *(self.used or ()),
            *IDS,
            *_STUDY_IDS,
            *self.others,
            *map(column_name, self.renamed),
        }
        return len(asked.intersection(map(column_name, names)))

    def _named(self, names: Iterable[str]) -> list[tuple[str, str]]:
        """Names in the file with the names under which they are read."""
        found = [(name, column_name(name)) for name in names if name.strip()]
        known = {normal for _, normal in found}
        renamed = {column_name(name): target for name, target in self.renamed.items()}
        # A column that is named to stand for another takes its place.
        pairs = [
            (name, renamed.get(normal, normal))
            for name, normal in found
            if normal in renamed or normal not in renamed.values()
        ]
        others = {**self.others, **dict.fromkeys(_STUDY_IDS, "study_id")}
        for target in dict.fromkeys(others.values()):
            if all(normal != target for _, normal in pairs):
                other = next((one for one in others if others[one] == target and one in known), None)
                pairs = [(name, target if normal == other else normal) for name, normal in pairs]
        return pairs
