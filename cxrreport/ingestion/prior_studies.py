"""Which study is the prior of which: the latest earlier study of the same patient that was included."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import replace
from itertools import groupby
from typing import NamedTuple

from cxrreport.dataset import ManifestRow
from cxrreport.ingestion.moments import Moment
from cxrreport.records import View

LINKED, FIRST, NO_DATE, SEVERAL, NO_ORDER = "linked", "first", "no-date", "several-dates", "no-order"
"""Outcomes of a study: it has a prior; no earlier study of the patient is known; it is not the only one, and nothing
states when it was made; its images state several dates; it, or what would be its prior, has the date of another study,
and no time tells them apart."""


class Link(NamedTuple):
    """A prior study, and whole days between the local dates; `None` if they are not known."""

    study_id: str
    days: int | None


def link_priors(
    rows: Sequence[ManifestRow], moments: Mapping[str, Moment | None]
) -> tuple[list[ManifestRow], dict[str, int]]:
    """Rows with their prior studies. Reports with mentions stay with studies that have or are a prior.

    Args:
        rows: of all included studies; a study that is not among them is no prior.
        moments: by study; `None` if its images state several.

    Returns:
        The rows in their order, and numbers of studies by outcome.
    """
    of_patient: dict[tuple[str, str], set[str]] = defaultdict(set)
    for row in rows:
        of_patient[row.image.patient_id, row.image.split].add(row.image.study_id)
    links: dict[str, Link] = {}
    counts: Counter[str] = Counter()
    for studies in of_patient.values():
        if len(studies) == 1:
            counts[FIRST] += 1
            continue
        dated = {study: moments[study] for study in studies if study in moments}
        known = {study: moment for study, moment in dated.items() if moment is not None}
        found, unordered = _links(known)
        links |= found
        counts[NO_DATE] += len(studies) - len(dated)
        counts[SEVERAL] += len(dated) - len(known)
        counts[LINKED] += len(found)
        counts[NO_ORDER] += unordered
        counts[FIRST] += len(known) - len(found) - unordered
    needed = links.keys() | {link.study_id for link in links.values()}
    return [_with_link(row, links.get(row.image.study_id), needed) for row in rows], _sorted(counts)


def count_laterals(rows: Iterable[ManifestRow], listed: Set[str], *, views: str) -> dict[str, int]:
    """Numbers of included studies with a lateral (`kept`) and without, by the reason.

    Args:
        rows: of all included studies.
        listed: studies of which the input has a lateral.
        views: of the settings.

    Returns:
        `kept`; `none`: the study has no lateral; `views`: `views` excludes it; `not-usable`: it was excluded for
        another reason, which the exclusion log has.
    """
    kept: dict[str, bool] = defaultdict(bool)
    for row in rows:
        kept[row.image.study_id] |= row.image.view is View.LATERAL
    left_out = "views" if views in ("best-frontal", "frontal") else "not-usable"
    return _sorted(Counter("kept" if has else left_out if study in listed else "none" for study, has in kept.items()))


def _links(moments: Mapping[str, Moment]) -> tuple[dict[str, Link], int]:
    """Links among the studies of one patient, and the number of studies that have none for lack of an order."""
    links: dict[str, Link] = {}
    unordered = 0
    for dated in (True, False):
        groups = _in_order({study: one for study, one in moments.items() if one.dated is dated})
        for before, group in zip([[], *groups], groups, strict=False):
            if len(group) > 1 or len(before) > 1:
                unordered += len(group)
            elif before:
                links[group[0]] = Link(before[0], _days(moments[before[0]], moments[group[0]]))
    return links, unordered


def _in_order(moments: Mapping[str, Moment]) -> list[list[str]]:
    """Studies from early to late; those without an order among them are together."""
    # Local times of several zones can only be compared if every zone is known.
    universal = all(one.second is not None and one.offset is not None for one in moments.values())
    by_day: dict[int, list[tuple[float, str]]] = defaultdict(list)
    untimed = set()
    for study, one in moments.items():
        day, second = one.day, one.second
        if second is None:
            untimed.add(day)
        elif universal:
            ahead, second = divmod(second - (one.offset or 0) * 60, 86400)
            day += int(ahead)
        by_day[day].append((second or 0, study))
    groups = []
    for day in sorted(by_day):
        studies = sorted(by_day[day])
        if day in untimed:
            groups.append([study for _, study in studies])
        else:
            groups += [[study for _, study in same] for _, same in groupby(studies, key=lambda one: one[0])]
    return groups


def _days(earlier: Moment, later: Moment) -> int | None:
    # Across the date line the later study may have the earlier date.
    return max(later.day - earlier.day, 0) if later.dated else None


def _with_link(row: ManifestRow, link: Link | None, needed: set[str]) -> ManifestRow:
    if link is not None:
        return replace(row, prior_study_id=link.study_id, prior_days=link.days)
    if row.report_with_mentions is not None and row.image.study_id not in needed:
        return replace(row, report_with_mentions=None)
    return row


def _sorted(counts: Counter[str]) -> dict[str, int]:
    return {name: counts[name] for name in sorted(counts) if counts[name]}
