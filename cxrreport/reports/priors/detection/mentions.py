"""Patterns that detect mentions of prior studies; a sentence that matches one of them has a mention."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

from cxrreport.reports.priors.detection.changes import CHANGES
from cxrreport.reports.priors.detection.context import without_context
from cxrreport.reports.priors.detection.signals import SIGNALS, without_abbreviations
from cxrreport.reports.priors.detection.triggers import may_mention
from cxrreport.reports.priors.spelling import with_correct_changes
from cxrreport.reports.priors.vocabulary import (
    ADVERB,
    COMPARED,
    DATE,
    DEGREE,
    EARLIER,
    GROWN,
    IMAGING,
    KIND,
    NOTABLE,
    PLACE_OR_SIZE,
    SEEN,
)

# Words before a future resolution or change.
_FUTURE = (
    r"(?:ensure|document|confirm|assess|assure|insure|evaluate|until|verify|establish|to (?:show|demonstrate)|"
    r"exclude|to|"
    r"(?<!negative )for|check|monitor|prove)\s+"
    r"(?:(?:the|its|their|for|complete|full|interval|expected|any|possible|continued)\s+)*"
)
_FUTURE_CHANGE = re.compile(
    rf"\b{_FUTURE}(?:resolution|clearance|clearing|stability|progression|improvement|interval change|change|"
    r"(?:\w+ ){0,3}(?:resolution|stability|clearing|clearance))\b",
    re.IGNORECASE,
)
_MENTIONS = (
    r"\b(?:unchanged|redemonstrat\w*|re-demonstrat\w*|reidentified|re-identified)\b",
    (
        rf"(?<!clinically )(?<!hemodynamically )(?<!if )\bstabl[ey]\b|(?<!assess )(?<!establish )"
        rf"(?<!{'to '})\bstability\b"
    ),
    r"\bagain\b|\bonce more\b",
    (
        r"\binterval(?:ly)?\b(?!\s+(?:follow|chest\s+(?:ct|x)|ct\b|radiograph|imaging|x-ray|between))"
        r"(?<!short interval)(?<!short-interval)(?<!appropriate interval)(?<!an interval)"
    ),
    r"\bin the interim\b|\binterim\b",
    r"\b(?:no longer|not any longer|heretofore)\b",
    rf"\b(?:{COMPARED})",
    (
        r"\bcompar(?:ed|ison|e|able(?=\s+(?:to|with)|\W*$)|ative|isons)\b(?!\s+to\s+the\s+(?:left|right|other|"
        r"contralateral|opposite))"
    ),
    (
        rf"\b(?:since|from|than|over|on|in|with|to|by)\s+(?:(?:the|a|his|her|any|all|most|both|multiple)\s+)*"
        rf"{EARLIER}(?:\s+{EARLIER})*(?:\s+{KIND}){{0,6}}\s+{IMAGING}\b"
    ),
    (
        rf"\b(?:since|from|than|with|to|on)\s+(?:(?:the|most|his|her)\s+)*(?:priors?|previous|"
        rf"before)\s*(?:[.,;)]|$|(?={DATE}))"
    ),
    r"\bsince\s+(?:the\s+)?(?:___|X{3,}|\d|yesterday|last)",
    (
        rf"\b{EARLIER}\s+(?:{KIND}\s+){{0,5}}(?:stud(?:y|ies)|exam(?:ination)?s?|radiographs?|films?|x-?rays?|"
        rf"x-X+|images?"
        r"|imaging|scans?|cts?|cxrs?|comparisons?|reports?)\b"
    ),
    r"\bpreviously\b(?!\s+(?:healed|treated|operated|resected|repaired|fractured))",
    rf"\b(?:previous|prior)\s+(?:{SEEN})",
    rf"\b(?:no|not|without|nothing)\s+(?:\w+ly\s+)?{NOTABLE}chang(?:e|ed)\b(?!\s+in\s+(?:mental|clinical|symptom))",
    r"\b(?:no|without)\s+(?:\w+\s+)?interval\s+changes?\b|\bno\s+significant\s+changes\b",
    r"\blittle\s+(?:interval\s+)?change\b",
    (
        rf"\b(?:effusions?|pneumothora\w+|cardiomegaly|o?edema|consolidations?|nodules?|mass(?:es)?|atelectasis)\s+"
        rf"(?:is|are)\s+{ADVERB}(?:increased|decreased)\b"
    ),
    r"\b(?:has|have)\s+(?:(?:not|also|now|slightly|mildly|significantly|markedly)\s+){0,2}changed\b",
    (
        rf"\b(?:has|have|had)\s+(?:been\s+)?{ADVERB}(?:{GROWN}|developed|appeared|cleared|resolved|enlarged|recurred|"
        r"migrated|advanced|receded|re-?expanded|reaccumulated|been removed|been placed|been inserted|been withdrawn|"
        r"been repositioned|been advanced|been retracted|been extubated|been intubated|been exchanged|received)\b"
    ),
    (
        rf"\b(?:is|are|appears?|seems?)\s+{ADVERB}{GROWN}\s+in\s+(?:size|extent|number|degree|severity|volume|"
        rf"prominence)\b"
    ),
    (
        r"(?<!volumes )(?<!volume )\b(?:is|are|appears?)\s+(?:\w+ly\s+)?(?:improved|worsened|diminished|"
        r"resolved|better|worse)\b(?!\s+(?:on|in)\s+the)"
    ),
    r"(?<!right )(?<!left )\b(?:smaller|larger|worse)\s+than\s+(?:before|prior|previous|on|in)\b",
    (
        rf"^(?:\d+[.)]\s*)?{ADVERB}{DEGREE}(?:improvement|progression|increase|decrease|worsening|reduction|clearing|"
        r"resolution(?!\s+of\s+(?:the\s+)?(?:image|study|exam|film|radiograph)))\s+(?:in|of)\b"
    ),
    r"(?<!represent )(?<!reflect )(?<!versus )(?<!suggest )(?<!indicate )(?<!or )\b(?:resolving|resolved)\b",
    (
        r"(?<!high )(?<!high-)\bresolution\b(?!\s+(?:is\s+limited|of\s+(?:the\s+)?(?:images?|study|exam\w*|films?|"
        r"radiographs?)\b))"
    ),
    r"\b(?:a|an|interval)\s+(?:\w+\s+)?change\s+in\b",
    r"\benlargement of (?:the )?(?:\w+ ){0,3}(?:effusion|pneumothorax|mass|nodule|opacity)\b",
    r"^(?:\d+[.)]\s*)?(?:increased|decreased)\s+(?:size|extent|conspicuity|number)\s+of\b",
    rf"\bsince\s+(?:the\s+)?(?:\w+\s+){{0,3}}(?:{IMAGING}|removal|placement|intubation|extubation)\b",
    (
        r"\b(?:improved|worsened|improving|worsening|enlarging|decreasing|increasing|progressing)\b"
        r"(?!\s+(?:visuali|characteri|evaluat|assess|specific|sensitiv|symptom|dyspn|shortness|cough|pain|fever|"
        r"hypox))"
    ),
    (
        r"\b(?:decreased|increased|reduced)\s+(?:(?:right|left|bilateral|small|moderate|large|pleural|basilar|"
        r"apical|size"
        r"|of|the|loculated)\s+){0,4}(?:effusions?|pneumothora\w+|pneumomediastinum|pleural fluid)\b"
    ),
    r"\bpersist(?:ent|ently|s|ing|ed|ence)?\b(?<!concern persists)(?<!symptoms persist)(?<!pain persists)",
    (
        r"\b(?:remains?|remained)\b(?<!remains indeterminate)(?<!the remain)(?<!the remains)|"
        r"\bremaining\s+(?:\w+\s+){0,2}(?:effusions?|pneumothora\w+|fluid|opacit\w+|consolidations?|edema)\b"
    ),
    (
        r"\bcontinu(?:ed|es|ing)\b(?!\s+(?:follow|attention|surveillance|monitoring|clinical|concern|symptom|pain|"
        r"fever|cough|dyspn))"
    ),
    r"\bstill\b(?!\s+(?:not excluded|be considered|possible))",
    r"\bnow\b|^currently\b",
    r"\b(?:new|newly)\b(?!\s+york)",
    r"\bprogressive(?:ly)?\b(?!\s+(?:massive|systemic|dyspn|cough|shortness|short|symptom|hypox|weakness))",
    r"\bdisease progression\b|(?<!time )\bprogress(?:ed|ion)\b",
    (
        r"\b(?:more|less)\s+(?:prominent|conspicuous|apparent|extensive|dense|pronounced|evident|severe|"
        r"confluent|distinct)"
        r"\b(?!\s+(?:than|on|in|at|within|over|along|towards?)\b)"
    ),
    r"\b(?:better|less well|more poorly|less|more)\s+(?:aerated|inflated|expanded)\b(?!\s+(?:than|on the))",
    (
        r"^(?:\d+[.)]\s*)?(?:overall\s+)?similar\b|\b(?:appear|are|is|appears)\s+similar\b(?!\s+to the|"
        r"\s+(?:on|in) both)|"
        r"\bsimilar\s+(?:in|to)\s+(?:appearance|size|extent|the prior|prior|previous|before|position|that)"
    ),
    r"\b(?:has|have)\s+been\s+(?:interval\s+)?(?:removal|placement|insertion|removed|placed|extubat|intubat)",
    (
        r"\b(?:is|are)\s+(?:not\s+)?(?:\w+ly\s+)?(?:smaller|larger)\b"
        r"(?!\s+(?:than\s+)?(?:on\s+)?(?:the\s+)?(?:right|left|normal))"
    ),
    r"\bno\s+(?:significant\s+|definite\s+)?(?:increase|decrease|enlargement|worsening|improvement)\b",
    (
        r"\bthere (?:has|have) been\s+(?:\w+\s+){0,2}(?:improvement|progression|increase"
        r"|decrease|worsening|change|reduction)\b"
    ),
    r"\bas (?:before|previously)\b",
    (
        r"\b(?:decreased|reduced)\s+(?:opacity|opacities|consolidation|atelectasis)\b|"
        r"\b(?:increased|decreased)\s+(?:o?edema|cardiomegaly|consolidation|atelectasis)\b"
    ),
    r"\bsame (?:position|place|location|appearance|size)\b",
    r"\bno residual\b|\bresidual\s+(?:pneumothorax|effusion)",
    r"\b(?:change|changes|difference)\s+(?:since|compared)\b",
    (
        rf"\bchanges?\s+from\s+(?:the\s+)?(?:(?:prior|previous)(?=\s*(?:[.,;)]|$))|(?:prior|"
        rf"previous)\s+{IMAGING}|X{{3,}}|___|\d)"
    ),
    # A change that did not happen, or a return to an earlier state.
    (
        r"\b(?:has|have)\s+not\s+(?:\w+ly\s+)?(?:increased|decreased|cleared|resolved|improved|worsened|"
        r"progressed|enlarged|grown)\b"
    ),
    (
        r"\b(?:no|without|not)\s+(?:(?:any|further|significant|definite|interval)\s+)*(?:increase|growth|"
        r"enlargement|progression)\b"
    ),
    r"\breturned to (?:normal|baseline)\b|\bback to baseline\b|\b(?:pulled|drawn|moved) back\b",
    (
        r"(?<!markings )(?<!volumes )(?<!volume )(?<!density )(?<!vascularity )(?<!vasculature )(?<!attenuation )"
        r"(?<!diameter )(?<!lucency )(?<!kyphosis )(?<!mineralization )(?<!interstitium )"
        r"(?<!heart size )(?<!cardiac size )\b(?:is|are|appears?)\s+"
        r"(?:\w+ly\s+)?(?:increased|decreased|constant|lower|gone)(?=\s*(?:[.,;]|$))"
    ),
    (
        r"\bpartial(?:ly)?\s+clear(?:ing|ed)\b|\bresidual\b(?!\s+(?:contrast|barium|functional))|\brecurr(?:ent|ed|"
        r"ence)\b"
    ),
    r"\bhas\s+(?:drained|reaccumulated|recurred|become)\b|\bhave\s+(?:drained|become)\b",
    (
        r"\b(?:is|are|be|appears?)\s+(?:\w+ly\s+)?(?:no\s+)?(?:bigger|worse|better|wider|"
        r"denser)(?=\s*(?:[.,;]|$|and\b|but\b))"
    ),
    (
        r"\b(?:has|have)\s+(?:\w+ly\s+)?(?:normali[sz]ed|doubled|healed)\b|\bhad been\b|\bthere (?:is|"
        r"are) (?:\w+ly )?(?:less|more)\b"
    ),
    (
        r"\bnot\s+(?:increased|decreased|enlarged)\s+in\s+(?:size|extent)\b|\bno (?:further|"
        r"additional) (?:re-?expansion|progression)\b"
    ),
    (
        r"\b(?:no|without)\s+(?:evidence|sign)\s+of\s+(?:enlargement|growth|progression|improvement|"
        r"worsening|recurrence)\b"
    ),
    rf"[,;]\s+{ADVERB}(?:increased|decreased|improved|worsened)\s+(?:on|at|in)\b",
    r"\b(?:is|are)\s+not\s+(?:\w+ly\s+)?(?:increased|decreased|worse|better|larger|smaller|bigger)\b(?!\s+than)",
    (
        r"^(?:\w+ly\s+)?(?:worse|better|improved|increased|decreased)\W*$|\b(?:was|were)\s+(?:removed|repositioned|"
        r"withdrawn)\b"
    ),
    r"\bshows?\s+(?:\w+\s+)?(?:improvement|worsening|progression|clearing)\b",
    (
        r"\b(?:has|have)\s+been\s+(?:present|in\s+place|there|seen|noted)\b|\b(?:seen|noted|present)\s+on\s+___"
        r"(?!\s*views?)"
    ),
    r"\byesterday\b|\bearlier (?:today|in the day)\b|\bformerly\b|\bdating back\b|\bsince at least\b",
    r"\b(?:was|were)\b[^.;]{0,60}\bon\s+(?:the\s+study\s+of\s+)?___",
    rf"\b{IMAGING}\s+(?:of|from|on)\s+___",
    r"\b(?:markedly|slightly|mildly|significantly)\s+increased\s+opaci\w+|\bas severe as\b",
    (
        rf"(?<!of )(?<!from )\b(?:prior|previous|earlier)\s+(?:{PLACE_OR_SIZE}\s+){{0,5}}(?:effusions?|o?edema|"
        rf"consolidations?|"
        r"pneumothora\w+|opacit\w+|atelectasis|nodules?|pneumonias?|infiltrates?|congestion)\b"
    ),
)
_WINDOW = 500
_COMPILED = [*(re.compile(pattern, re.IGNORECASE) for pattern in (*_MENTIONS, *CHANGES)), *SIGNALS]


def mentions_prior(sentence: str) -> bool:
    """True if a sentence states something that cannot be known without a prior study of the patient.

    That is: stable, new, gone, changed, compared, or that no study is available for comparison. History (an old
    fracture, prior surgery) and recommendations (follow-up to resolution) are not mentions.
    """
    return _mentions_prior(sentence) if len(sentence) <= _WINDOW else _mentions_prior.__wrapped__(sentence)


@lru_cache(maxsize=1 << 16)  # reports repeat their sentences
def _mentions_prior(sentence: str) -> bool:
    plain = with_correct_changes(without_abbreviations(" ".join(sentence.split())))
    if not may_mention(plain):
        return False
    plain = without_future(plain)
    return any(_has_mention(window) for window in _windows(plain))


def statement_on_prior(sentence: str) -> str:
    """A sentence as its mentions are searched; empty if it mentions no prior study.

    Common abbreviations are written out, misspelt words of change are corrected, and advice, history and comparisons of
    two sides are left out.
    """
    if not mentions_prior(sentence):
        return ""
    plain = with_correct_changes(without_abbreviations(" ".join(sentence.split())))
    return without_context(without_future(plain)) if len(plain) <= _WINDOW else plain


def _has_mention(text: str) -> bool:
    plain = None  # most sentences match no pattern and need no reading of their context
    for pattern in _COMPILED:
        if pattern.search(text):
            plain = without_context(text) if plain is None else plain
            if pattern.search(plain):
                return True
    return False


def _windows(text: str) -> Iterator[str]:
    """Overlapping parts of a long text, so that the time to search it is linear in its length."""
    yield text[:_WINDOW]
    for start in range(_WINDOW // 2, len(text) - _WINDOW // 2, _WINDOW // 2):
        yield text[start : start + _WINDOW]


def without_future(text: str) -> str:
    """Remove future changes ("follow-up to resolution") from a text."""
    return _FUTURE_CHANGE.sub(" ", text) if len(text) <= _WINDOW else text
