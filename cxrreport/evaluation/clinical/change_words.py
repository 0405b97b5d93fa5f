"""The words that state how a finding has changed since an earlier study, and the names of findings beside them.

All patterns are for lower-case text. A cue is matched in the order of `CUES` and its characters are used once, so a
longer construction ("has not resolved") comes before the word in it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from cxrreport.evaluation.clinical.vocabulary import Finding


class Change(StrEnum):
    """How a finding has changed since an earlier study."""

    NEW = "new"
    WORSE = "worse"
    UNCHANGED = "unchanged"
    IMPROVED = "improved"
    RESOLVED = "resolved"


@dataclass(frozen=True, slots=True)
class Cue:
    """A pattern that states a change.

    Args:
        change: `None` for a cue without a change of its own ("no new ...").
        weak: the finding persists, which a change of the same finding in the sentence makes redundant ("improved but
            persistent").
        device: the cue names a device itself ("extubated").
    """

    pattern: re.Pattern[str]
    change: Change | None
    weak: bool = False
    device: bool = False


def _cue(pattern: str, change: Change | None, *, weak: bool = False, device: bool = False) -> Cue:
    return Cue(re.compile(rf"\b(?:{pattern})"), change, weak, device)


_HOW = (
    r"(?:(?:\w+ly|no|any|much|very|also|now|since|been|further|so far|yet|as yet|quite|in the interim|in the interval|"
    r"a bit|a little|somewhat|all) ){0,4}"
)
_NOTABLE = r"(?:(?!new\b)[\w-]+ ){0,3}"
_PARTLY = (
    r"(?:near(?:ly)?|almost|partial(?:ly)?|partly|mostly|largely|incomplete(?:ly)?|substantial(?:ly)?|"
    r"considerabl[ey]|for the most part|not (?:yet |quite )?(?:completely|entirely|fully)|essentially|virtually)"
    r"(?: completely| entirely| fully)?"
)
_GONE = (
    r"(?:resolved|cleared|disappeared|vanished|gone|absorbed|resorbed|reabsorbed|subsided|abated|normali[sz]ed|"
    r"evacuated)\b"
)
_GOING = r"(?:resolution|clearing|clearance|disappearance|resorption|absorption|normali[sz]ation)\b"
_UP = (
    r"(?:increas(?:e|es|ed|ing)|worse(?:n|ns|ned|ning)?|progress(?:ed|es|ing|ion|ive|ively)|progredient|"
    r"(?:re-?)?accumulat(?:ed|ing|ion)|enlarging|enlarge|(?:interval|further) enlargement|"
    r"enlargement(?= of (?:the )?(?:\w+ ){0,3}(?:effusion|pneumothora|mass|nodul|opacit|collection))|"
    r"grown|growing|growth|expanding|extended|spread|"
    r"deteriorat\w+|exacerbat\w+|accentuat\w+|aggravat\w+|intensif\w+|deepen\w+|advanced|coalesc\w+)\b"
)
_DOWN = (
    r"(?:decreas(?:e|es|ed|ing)|diminish(?:ed|ing)|diminution|reduc(?:ed|ing|tion)|lessen(?:ed|ing)|improv\w+|"
    r"regress(?:ed|es|ing|ion)|regredient|reced(?:ed|ing)|shrunk(?:en)?|shrink(?:ing)?|shrinkage|declin(?:ed|ing)|"
    r"fad(?:ed|ing)|subsiding|abating|wan(?:ed|ing))\b"
)
_MORE = (
    r"(?:larger|bigger|greater|worse|denser|wider|thicker|bulkier|hazier|"
    r"more (?=\w)(?!likely\b|than\b|rotated\b|lordotic\b|kyphotic\b|penetrated\b)|more than (?:on|in|at|the))\b"
)
_LESS = (
    r"(?:(?:smaller|better|thinner|fainter|milder|fewer|lesser|sharper|clearer)\b|"
    r"less (?=\w)(?!likely\b|than\b)|less(?=$))"
)
_SEEN = (
    r"(?:seen|present|visuali[sz]ed|visible|identified|demonstrated|demonstrable|evident|apparent|appreciated|there|"
    r"shown|observed|detected|detectable|noted|recogni[sz]able)\b"
)
_BEFORE = r"(?:prior|previous|previously|earlier|before|last|yesterday|preceding|then|in (?:19|20)\d\d|at that time)\b"
_CHANGED = r"(?:chang(?:e|es|ed)|alter(?:ed|ation)s?|differen(?:t|ce)s?|evolution)\b"
_PLACED = r"(?:placed|deployed|inserted|introduced|implanted|sited|positioned|added)\b"
_REMOVED = r"(?:removed|(?:withdrawn|pulled)(?! (?:back|up|by|to|into|slightly|about|approximately|\d|from the))|"
_REMOVED += r"discontinued|explanted|taken out|come out|out(?! of\b))\b|came out\b"
_OF_DEVICE = r"(?:placement|insertion|introduction|implantation|intubation)\b"

CUES: tuple[Cue, ...] = (
    # Denied changes.
    _cue(rf"(?:no|not|without|never) {_SEEN} {_BEFORE}", Change.NEW),
    _cue(
        rf"not (?:appear to be |definitely |well |clearly )?{_SEEN}(?: (?:on|in|at))?"
        rf"(?: the| any| an)?(?: \w+)? {_BEFORE}",
        Change.NEW,
    ),
    _cue(rf"not (?:previously|formerly|before) {_SEEN}", Change.NEW),
    _cue(rf"(?:no|not any) longer(?: \w+ly)?(?: {_SEEN}| [\w-]+)?", Change.RESOLVED),
    _cue(rf"(?:has|have|had|is|are) not {_HOW}{_PARTLY} {_GONE}", Change.IMPROVED, weak=True),
    _cue(
        rf"(?:not|fail(?:s|ed|ure)? to|yet to|slow to) {_HOW}"
        rf"(?:(?:appear|seem)(?:s|ed)? (?:to (?:have |be )?)?)?(?:{_UP}|{_DOWN}|{_GONE}|{_MORE}|{_LESS}|"
        r"resolve\b|clear\b|improve\b)"
        r"(?: in (?:size|extent|number|severity|volume))?",
        Change.UNCHANGED,
        weak=True,
    ),
    _cue(r"(?:has|have|is|are|did|does) not$", Change.UNCHANGED, weak=True),
    _cue(rf"(?:no|not|without|nor) {_HOW}{_NOTABLE}{_CHANGED}(?: in)?\b", Change.UNCHANGED),
    _cue(r"(?:or|nor) (?:(?:significant|interval|acute|relevant|appreciable|any) )+change$", Change.UNCHANGED),
    _cue(
        rf"(?:little|minimal|hardly any) (?:in the way of |interval |overall |significant )?{_CHANGED}|"
        r"no tendency to \w+|not (?:moved|migrated)\b",
        Change.UNCHANGED,
    ),
    _cue(
        rf"(?:no|without) (?:evidence of |sign of )?{_NOTABLE}(?:{_UP}|{_DOWN}|{_MORE}|{_LESS}|{_GOING})"
        r"(?: (?:in|of))?",
        Change.UNCHANGED,
        weak=True,
    ),
    _cue(r"no (?:evidence of |sign of )?(?:residual|remaining)\b", Change.RESOLVED),
    _cue(
        r"(?:no|without|or|nor|not) (?:evidence of |sign of |any |definite |obvious |other |significant )*"
        r"(?:new|newly(?: \w+ed)?|recurrent|recurrence of|fresh|developing|development of|interval development of)\b",
        None,
    ),
    # Gone, entirely or in part.
    _cue(
        rf"{_PARTLY} {_GONE}|{_GONE} (?:to a large extent|for the most part|in part|partially|partly)", Change.IMPROVED
    ),
    _cue(r"not (?:quite |nearly )?(?:as|so) \w+|(?:returned|back) to baseline\b", Change.IMPROVED),
    _cue(rf"(?:interval )?{_PARTLY}(?: complete)? (?:interval )?{_GOING}", Change.IMPROVED),
    _cue(
        r"(?<!non-)(?<!non )resolving\b|clearing\b(?! of)|continues to (?:clear|resolve|improve)\b|"
        r"(?:partial |good |favou?rable )?response\b",
        Change.IMPROVED,
    ),
    _cue(r"extubated\b|extubation\b", Change.RESOLVED, device=True),
    _cue(r"(?<!\bis )intubated\b|(?:interval|new) intubation\b", Change.NEW, device=True),
    _cue(r"clearing of\b", Change.IMPROVED),
    _cue(rf"(?:completely )?(?:{_GONE}|{_GOING})", Change.RESOLVED),
    _cue(
        rf"(?:has|have|had|was|were|is|are|been|now)(?: \w+ly)? (?:been )?{_REMOVED}|removal\b|{_REMOVED}$",
        Change.RESOLVED,
    ),
    _cue(r"(?:returned|back|reverted) to normal\b", Change.RESOLVED),
    # Unchanged.
    _cue(
        r"(?:un-?changed|unaltered|stabl[ey]|stability|constant|static|non-?progressive)\b|"
        r"similar\b(?! to that on the)|"
        r"(?:(?:about|approximately|much) )?the same\b|same (?:size|position|appearance|location|place|extent)\b|"
        r"as (?:before|previously|(?:on|in) the (?:prior|previous|earlier|last))\b",
        Change.UNCHANGED,
    ),
    # New.
    _cue(
        rf"developing\b|new(?:ly)?\b(?: (?:appeared|developed|seen|noted|placed|inserted))?|fresh\b|{_OF_DEVICE}|"
        r"(?:has|have) (?:now |since |also )?(?:arisen|emerged|occurred|formed|(?=collapsed|fractured))\b|"
        r"(?:has|have) (?:\w+ly |now |since |also |again )?(?:been )?(?:developed|appeared|re-?appeared|recurred)\b|"
        r"(?:(?:interval |interim )?(?:development|emergence|onset|occurrence)|(?:interval|interim) appearance)(?= of)|"
        r"recurren(?:t|ce)\b|"
        rf"(?:has|have|had|was|were|been)(?: now| since)? (?:been )?{_PLACED}|"
        r"there (?:is|are) now\b|now (?:in (?:place|situ|position)|present|seen|visible|noted|evident|there|shows|"
        r"demonstrates|has)\b|first (?:seen|noted) (?:today|on this)",
        Change.NEW,
    ),
    # A direction; what it means depends on what has it (`AERATION`).
    _cue(
        rf"(?:interval |further |continued )?(?:{_UP}|{_MORE})|(?:has|have)(?: now| since| \w+ly)? enlarged\b",
        Change.WORSE,
    ),
    _cue(rf"(?:interval |further |continued )?(?:{_DOWN}|{_LESS})|re-?expan(?:ded|sion|ding)\b", Change.IMPROVED),
    # It is still there.
    _cue(
        r"persist\w*|remain(?:s|ed)?\b|still\b|again\b|once more\b|redemonstrat\w+|re-demonstrat\w+|re-?identified\b|"
        r"continu(?:es|ed|ing)\b|ongoing\b|unresolved\b|non-?\s?resolving\b",
        Change.UNCHANGED,
        weak=True,
    ),
)

GRADES = {
    "trace": 1, "tiny": 1, "minimal": 1, "small": 2, "mild": 2, "partial": 2, "slight": 2, "moderate": 3,
    "large": 4, "severe": 4, "extensive": 4, "complete": 4, "massive": 5,
}  # fmt: skip
"""Words of size and degree in their order, to compare a finding with what it was previously."""
AERATION = re.compile(r"\b(?:aerat|ventilat|re-?expan|inflat|expan(?:ded|sion)|transparen|well aerated)\w*")
"""What improves when it increases."""
PLACE_ONLY = re.compile(
    r"\b(?:over|overl\w+|behind|obscur\w+|adjacent to|silhouett\w+|project\w+ over) (?:the )?"
    r"(?:\w+ )?(?:heart|mediastin\w+|cardiac|cardio-?mediastin\w+)|\b(?:right|left) (?:heart|cardiac)\b"
)
"""The heart and the mediastinum as the place of something else."""
ANATOMY: tuple[tuple[Finding, re.Pattern[str]], ...] = tuple(
    (finding, re.compile(rf"\b(?:{pattern})"))
    for finding, pattern in (
        (
            Finding.CARDIOMEGALY,
            (
                r"heart\b(?! (?:border|failure|valve))|cardiac (?:silhouette|size|shadow|contour|enlargement|"
                r"diameter|width)s?|cor\b|cardiothoracic ratio"
            ),
        ),
        (
            Finding.ENLARGED_CARDIOMEDIASTINUM,
            (
                r"cardio-?mediastin\w+|mediastinal (?:and (?:\w+ )?)?(?:silhouettes?|contours?|width|widening|shadow|"
                r"structures?)|mediastinum\b"
            ),
        ),
        (Finding.EDEMA, r"(?:pulmonary )?vascularity|(?:pulmonary )?vasculature|pulmonary vessels|pulmonary venous"),
        (
            Finding.LUNG_OPACITY,
            (
                r"(?:lungs|(?:left|right) lung)\b(?! (?:nodul|mass|lesion))|lung (?:fields?|bases?|apex|apices)|"
                r"aerat\w+|ventilation|opacification|shadowing|parenchymal changes"
            ),
        ),
        (Finding.FRACTURE, r"osseous structures?|bony (?:structures?|thorax)|bones\b"),
    )
)
"""Anatomy whose change is that of a finding ("the heart is unchanged in size"), where no finding is named beside it."""
NAMES: tuple[tuple[Finding, re.Pattern[str]], ...] = (
    (
        Finding.SUPPORT_DEVICES,
        re.compile(
            r"\blines\b|\bline (?:position|tip|placement)|\bsupport apparatus|\bmonitoring\b|\bwires\b|\bclips\b|"
            r"\bdobb?hoff\b|\b[rl]?ij\b|\bswan"
        ),
    ),
    (Finding.EDEMA, re.compile(r"\bcongestion\b")),
    (Finding.PNEUMOTHORAX, re.compile(r"\bpleural air\b")),
)
"""Names beside those of `vocabulary`, whose rules expect the entities of a graph."""
ABBREVIATIONS = (
    (re.compile(r"\bp(?:n)?tx\b"), "pneumothorax"),
    (re.compile(r"\batx\b"), "atelectasis"),
    (re.compile(r"\b(?:ett|et tube|ngt|ng tube|ogt)\b"), "tube"),
    (re.compile(r"\b(?:rt|r)\b(?=\.? )"), "right"),
    (re.compile(r"\b(?:lt|l)\b(?=\.? )"), "left"),
    (re.compile(r"\b(?:rul|rml|rll|lul|lll)\b"), "lobe"),
)
"""Abbreviations that radiologists use without explanation."""
WHOLE = re.compile(
    r"\b(?:chest|stud(?:y|ies)|exam\w*|radiograph\w*|films?|x-?rays?|x-x+|appearances?|findings?|overall|otherwise|interval|other|"
    r"status|picture|image|images|condition|condition|normal|impression|conclusion|relevant|significant|acute|"
    r"radiographically|radiographic|radiological|disease|process|cardiopulmonary|abnormality|"
    r"continued|slight|slightly|mild|mildly|minimal|minimally|little|"
    r"is|are|there|has|have|been|was|were|be|no|of|to|in|on|at|with|from|by|for|the|a|an|as|and|or|any|this|these|"
    r"appears?|shows?|demonstrates?|evidence|compared?|comparison|technique|differences?|allowing|portable|single|ap|pa|"
    r"frontal|lateral|views?|current|today|s)\b"
)
"""Words of a statement on the whole study."""
