"""Names of people in a report: after a title, a label or a verb, before a degree, or with a known first name."""

from __future__ import annotations

import importlib
import re
import unicodedata
from collections.abc import Iterator
from functools import cache

_LOCALES = (
    "cs_CZ da_DK de_DE en_GB en_IN en_NG en_NZ en_US es_ES es_MX fr_FR ha_NG hu_HU id_ID ig_NG it_IT nl_NL pl_PL pt_BR "
    "ro_RO sv_SE tr_TR"
)
_WORD = r"[A-ZÀ-ÖØ-Þ][\w'’-]{1,24}"
_INITIAL = r"[A-Z](?:\.|\b)"
_PARTICLE = r"(?:de|van|von|der|den|la|del|bin|al|el|da|dos|di|du|le|ter)"
_GAP = r"(?:[ \t]{1,3}|(?<=\.))"
_PART = rf"(?:{_WORD}|{_INITIAL})"
_FULL = rf"{_PART}(?:{_GAP}(?:{_PARTICLE}[ \t]{{1,3}}){{0,2}}{_PART}){{0,3}}"
_COMMA = rf"{_WORD}(?:[ \t]{_WORD})?,[ \t]{{0,2}}{_WORD}(?:[ \t]{_INITIAL})?"
_NAME = rf"(?P<name>(?:{_PARTICLE}[ \t]{{1,3}}){{0,2}}(?:{_COMMA}|{_FULL}))"
_DEGREE = r"(?:M\.?D|D\.?O|R\.?N|PA-C|P\.?A|N\.?P|Ph\.?D|MBBS|MBChB|FRCR|FRCP|DNP|CRNP|ARNP|RT\(R\)|RRT|LPN|APRN|CNP)"
_TITLE = (
    r"(?i:dr|drs|doctor|mr|mrs|ms|miss|mister|prof|professor|nurse|sister|staff nurse|physician assistant|baby boy|"
    r"baby girl|nurse practitioner|technologist|radiographer|sonographer)"
)
_ROLE = (
    r"dictated by|electronically signed by|digitally signed by|signed by|signed|reviewed by|read by|interpreted by|"
    r"transcribed by|typed by|verified by|approved by|reported by|ordered by|requested by|referred by|performed by|"
    r"authored by|"
    r"(?:ordering|referring|requesting|attending|reading|primary care|treating|consulting|interpreting)"
    r"(?: physician| provider| doctor| clinician| radiologist)?|"
    r"radiologist|resident|fellow|attending|physician|provider|consultant|registrar|dictator|transcriptionist|"
    r"technologist|tech|cc|notified|author"
)
_PATIENT = r"(?:patient|pt|patient's)?(?:[ \t]?name| is named)(?: is)?|patient|pt|re|name|next of kin|guardian"
_TOLD = (
    r"(?:discussed|reviewed|communicated|conveyed|relayed|reported|telephoned|phoned|called|paged|given|faxed|texted|sent|"
    r"spoke|notified|informed)(?: in person| directly| verbally| (?:by|over the) (?:tele)?phone)? (?:with|to|by) "
)
_SIGN = r"[ \t]{0,2}(?::|-|(?<= by)|(?<=cc))[ \t]{0,3}"
_AFTER_ROLE = re.compile(rf"(?i:\b(?:{_ROLE})){_SIGN}(?:{_TITLE}\.?[ \t]{{1,3}})?{_NAME}")
_AFTER_TITLE = re.compile(rf"\b{_TITLE}\.?(?:[ \t]{{1,3}}|(?<=\.)){_NAME}")
_AFTER_TITLE_IN_LOWER_CASE = re.compile(r"\b(?:dr|mr|mrs|ms)\.?[ \t]{1,3}(?P<name>[a-zà-öø-þ][\w'’-]{2,24})\b")
_AFTER_PATIENT = re.compile(rf"(?i:\b(?:{_PATIENT}))[ \t]{{0,2}}[:,;]?[ \t]{{1,3}}{_NAME}")
_AFTER_RELATION = re.compile(
    rf"(?i:\b(?:daughter|son|wife|husband|mother|father|sister|brother|spouse|partner|parents?|guardian|family) of )"
    rf"(?:{_TITLE}\.?[ \t]{{1,3}})?{_NAME}"
)
_AFTER_VERB = re.compile(rf"(?i:\b{_TOLD})(?:the )?(?:{_TITLE}\.?[ \t]{{1,3}})?{_NAME}")
_BEFORE_DEGREE = re.compile(rf"(?<![\w.]){_NAME}[ \t]{{0,2}},?[ \t]{{0,2}}{_DEGREE}(?![\w-])")
_WITH_FIRST_NAME = re.compile(
    rf"(?<![\w.'-])(?P<name>{_WORD}(?:[ \t]{{1,3}}{_INITIAL})?(?:[ \t]{{1,3}}{_PARTICLE}){{0,2}}[ \t]{{1,3}}{_WORD})"
)
_OF_DICOM = re.compile(r"(?<![\w^])[^\W\d_]{2,30}\^[^\W\d_]{1,30}(?:\^[^\W\d_]{0,30}){0,3}")  # LAST^FIRST
_LAST_AND_FIRST = re.compile(rf"(?<![\w.'-])(?P<last>{_WORD}),[ \t]{{0,2}}(?P<first>{_WORD})")
_PARTS = re.compile(rf"{_WORD}|{_INITIAL}")
_NO_WORD = re.compile(r"[Xx]{3,}|_|\d")
_TITLES = re.compile(rf"{_TITLE}|{_DEGREE}")

_NO_NAMES = frozenset(
    """
    a about above acute address age all am an and any ap apex apical approximately as at atelectasis attending
    before bilateral bone by call called cardiac catheter cc chest chf clear clinic cm compared comparison
    conclusion consolidation copd correlation ct cxr date department discussed dob doctor dr drain during ed edema
    effusion emergency endotracheal er ett exam examination fax female final findings floor following for frcr from
    frontal ftl given had has have he heart her hilar his history hospital iabp icu if image images imaging
    impression in indication interval is it kerley labs lateral left line lines lingula lobe lower lung lungs male
    mbbs md mediastinal medical mild mm moderate mri mrn name new ngt no nodule none normal not note notified now
    np number nurse of on one opacity or osseous our pa nursing pacemaker per page paged patient phd phone picc
    please pleural pm pneumonia pneumothorax po portable positive possible post ppd prior procedure provider
    pulmonary radiograph radiographs radiologist radiology re read reading record report resident results rib
    ribs right rn room rule said see seen service severe sex she signed small spine stable status study supine
    svc team tech technique tel telephone that the their there these they this thoracic to today trachea tube
    two unit unknown unremarkable upper upright verified view views ward was we were wet when which who will
    with within without x-ray xray yesterday you
    """.split()  # noqa: SIM905 - easier to read and to extend
)
"""Words that are capitalised in reports and are not a part of a name where a name can be."""
_EPONYMS = frozenset({"austin flint", "graham steell", "ann arbor", "marie curie", "christian weber", "von willebrand"})


def names(text: str) -> Iterator[tuple[int, int]]:
    """Start and end of every name; they may overlap.

    A name that a title, a label or a degree has shown is also found where it stands alone.
    """
    shown: set[str] = set()
    for start, end in {*_in_context(text), *_known(text)}:
        yield start, end
        shown.update(part for part in _PARTS.findall(text[start:end]) if len(part) > 3)
    shown -= {part for part in shown if _is_ordinary(part)}
    if shown:
        for match in _PARTS.finditer(text):
            if match.group() in shown or match.group().removesuffix("'s") in shown:
                yield match.span()


def _in_context(text: str) -> Iterator[tuple[int, int]]:
    for pattern in (_AFTER_ROLE, _AFTER_TITLE, _BEFORE_DEGREE):
        for match in pattern.finditer(text):
            yield from _trimmed(text, match, from_end=pattern is _BEFORE_DEGREE)
    yield from (match.span() for match in _OF_DICOM.finditer(text))
    for match in _AFTER_TITLE_IN_LOWER_CASE.finditer(text):
        if _plain(match["name"]) in last_names() and match["name"] not in _NO_NAMES:
            yield match.span("name")
    for pattern in (_AFTER_PATIENT, _AFTER_RELATION, _AFTER_VERB):
        for match in pattern.finditer(text):
            for start, end in _trimmed(text, match):
                # `Patient: Rotated` and `called to Surgery` are no names, `Patient: Mary Jones` is.
                parts = _PARTS.findall(text[start:end])
                known = any(_plain(part) in first_names() for part in parts)
                if len(parts) > 1 and (known or not any(_is_ordinary(part) for part in parts)):
                    yield start, end


def _known(text: str) -> Iterator[tuple[int, int]]:
    """A known first name and a capitalised word that is no ordinary one, or a known last name after an initial.

    In capitals both names have to be known.
    """
    for pair in _LAST_AND_FIRST.finditer(text):
        last, first = pair["last"], pair["first"]
        if (
            _plain(last) in last_names()
            and _plain(first) in first_names()
            and not {*map(str.casefold, (last, first))} & _NO_NAMES
        ):
            yield pair.span()
    at = 0
    while match := _WITH_FIRST_NAME.search(text, at):
        first, *middle, last = _PARTS.findall(match["name"])
        at = match.start() + len(first)
        knows_first, knows_last = _plain(first) in first_names(), _plain(last.removesuffix("'s")) in last_names()
        if last.casefold() in _NO_NAMES or first.casefold() in _NO_NAMES or first.isupper() != last.isupper():
            continue
        if match["name"].casefold() in _EPONYMS or (last.isupper() and not (knows_first and knows_last)):
            continue
        after_initial = knows_last and bool(middle) and middle[0].endswith(".") and not _is_ordinary(first)
        if (knows_first and knows_last) or ((knows_first or after_initial) and not _is_ordinary(last)):
            yield match.span()


def _trimmed(text: str, match: re.Match[str], *, from_end: bool = False) -> Iterator[tuple[int, int]]:
    """The part of a name before (or after) the first word that cannot belong to it; nothing if none is left."""
    parts = [part for part in _PARTS.finditer(text, *match.span("name")) if not _TITLES.fullmatch(part.group())]
    in_capitals = text[match.start() : match.end()].isupper()
    kept: list[re.Match[str]] = []
    for part in reversed(parts) if from_end else parts:
        word = part.group()
        is_initials = word.endswith(".") or (word.isupper() and len(word) < 3 and not kept and not in_capitals)
        if (word.casefold() in _NO_NAMES and not is_initials) or _NO_WORD.search(word):
            break
        kept.append(part)
    if kept:
        yield min(part.start() for part in kept), max(part.end() for part in kept)


def _is_ordinary(word: str) -> bool:
    return word.strip(".").casefold() in _NO_NAMES | common_words()


@cache
def first_names() -> frozenset[str]:
    """First names of Faker, in lower case without accents."""
    return _listed("first_names", "first_names_female", "first_names_male")


@cache
def last_names() -> frozenset[str]:
    """Last names of Faker, in lower case without accents."""
    return _listed("last_names")


@cache
def common_words() -> frozenset[str]:
    """Frequent English words, which Faker has for its texts."""
    provider = importlib.import_module("faker.providers.lorem.en_US").Provider
    return frozenset(provider.word_list)


def _listed(*attributes: str) -> frozenset[str]:
    found: set[str] = set()
    for locale in _LOCALES.split():
        provider = importlib.import_module(f"faker.providers.person.{locale}").Provider
        for attribute in attributes:
            found.update(map(_plain, getattr(provider, attribute, ())))
    return frozenset(found)


def _plain(name: str) -> str:
    """In lower case and without accents."""
    letters = unicodedata.normalize("NFKD", name.casefold())
    return "".join(letter for letter in letters if not unicodedata.combining(letter))
