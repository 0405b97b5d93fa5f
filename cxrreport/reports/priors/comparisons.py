"""Rules that remove the study that a sentence is compared with, and denials of a change."""

from __future__ import annotations

import re
from collections.abc import Callable

from cxrreport.reports.priors.vocabulary import (
    ASPECT,
    COMPARED,
    GROWN,
    NEGATION,
    NOTABLE,
    SAME,
    SEEN,
    SINCE,
    STUDY,
)

_FLAGS = re.IGNORECASE


def rule(pattern: str, replacement: str = "") -> Callable[[str], str]:
    """A function that replaces the matches of a pattern."""
    compiled = re.compile(pattern, _FLAGS)
    return lambda clause: compiled.sub(replacement, clause)


_NO_CHANGE = [
    # "Fracture without change in alignment": the phrase goes as a whole.
    rule(
        rf",?\s+(?:but\s+)?(?:with\s+no|without)\s+(?:any\s+)?{NOTABLE}(?:changes?|increase|decrease|growth|"
        rf"enlargement)"
        r"(?:\s+(?:in|of)\s+(?:the\s+)?(?:size|alignment|displacement|appearance|position|extent))?(?=\s*(?:$|[,;]))"
    ),
    rule(
        r",?\s+with\s+(?:an?\s+)?(?:(?:slight|mild|marked)\s+)?interval\s+(?:increase|decrease|improvement|"
        r"worsening)\s+(?:in|of)\s+"
        r"[^,;]+(?=$|[,;])"
    ),
    # "No change" has a negation but denies no finding: it becomes "unchanged" before negations are searched.
    rule(
        rf"\b(?:there (?:is|are|has been|have been|was)\s+)?(?:no|without|little)\s+{NOTABLE}changes?\s+"
        r"(?:in|of|to|involving)\s+(?:the\s+)?(?:(?:appearance|size|extent|position)\s+of\s+)?(?:the\s+)?",
        "unchanged ",
    ),
    rule(
        rf"\b(?:with\s+)?(?:there (?:is|has been)\s+)?(?:no|without|little)\s+{NOTABLE}changes?\b",
        "unchanged",
    ),
    rule(r"\b(?:has|is)\s+not\s+(?:been\s+)?(?:\w+ly\s+)?(?:interval\s+)?changed\b", "is unchanged"),
    rule(r"\b(?:have|are)\s+not\s+(?:been\s+)?(?:\w+ly\s+)?(?:interval\s+)?changed\b", "are unchanged"),
    rule(r"\bnot\s+(?:\w+ly\s+)?changed\b", "unchanged"),
]
_COMPARISON = [
    rule(rf"^(?:in\s+)?{COMPARED}\s*,\s*"),
    rule(rf"^(?:since|from|on)\s+{SINCE}\s*,\s*"),
    rule(rf"^(?:as\s+)?(?:\w+ly\s+)?{SEEN}\s+(?:on|in|at)\s+{STUDY}\s*,\s*"),
    rule(rf"^(?:new|increased)(?:\s+(?:since|from)\s+{SINCE})?\s+(is|are)\b", r"there \1"),
    rule(rf"\s*,\s+(?:as\s+|not\s+)?{SEEN}\s+previously\s*$"),
    rule(rf"^(?:as|like)\s+(?:(?:was|were)\s+)?(?:{SEEN}\s+)?(?:before|previously|earlier)\s*,\s*"),
    rule(r"^(?:in the (?:interval|interim)|(?:once )?again|currently|now)\s*,\s*"),
    rule(rf"\s*,?\s*\(?\b{COMPARED}\)?"),
    rule(
        r"\s*,?\s+(?:(?:and|but)\s+)?(?:which|that)\s+(?:was|were|is|are|has been|have been)\s+(?:not\s+)?"
        rf"(?:\w+ly\s+)?{SEEN}\s+(?:on|in|at)\s+{STUDY}"
    ),
    rule(rf"\s*,?\s+(?:which|that)\s+(?:has|have)\s+been\s+there\s+(?:on|in|at)\s+{STUDY}"),
    rule(rf"\s*,\s+(?:not\s+)?(?:\w+ly\s+)?{SEEN}\s+(?:on|in|at)\s+{STUDY}"),
    rule(
        rf"(?<!is)(?<!are)(?<!was)(?<!were)(?<!been)(?<!not)\s+(?:as\s+)?(?:\w+ly\s+)?{SEEN}\s+(?:on|in|at)\s+{STUDY}"
    ),
    rule(rf",?\s+(?:as|like)\s+(?:on|in)\s+{STUDY}"),
    rule(r",?\s+as\s+(?:before|previously)\b(?!\s+\w)"),
    rule(
        rf"\b(?P<same>{SAME}|{GROWN}|change\w*)(?P<aspect>{ASPECT})\s+(?:since|from|to|with|than|over|as)\s+{SINCE}",
        r"\g<same>\g<aspect>",
    ),
    rule(rf"\s*,?\s+\bsince\s+{SINCE}"),
    rule(rf"\s*,?\s+\b(?:from|than)\s+{STUDY}(?=\s*(?:$|[,;)]))"),
    rule(r"\s*,?\s+\b(?:in|over|during)\s+the\s+(?:interval|interim)\b"),
]

# "No effusion since the prior study" may deny new effusions only.
_NOT_SINCE = re.compile(
    rf"{NEGATION.pattern}(?:(?!\b{SAME}\b)[^,;])*?(?:\b{COMPARED}|\bsince\s+{SINCE}|\b(?:from|than)\s+{STUDY})", _FLAGS
)
# Without the comparison, these clauses are unclear.
_UNCLEAR_PATTERNS = (
    r"\b(?:has|have|had)\s+(?:X{3,}|___)|,\s*(?:unchanged|stable)\s+(?:X{3,}|___)",
    rf"\b(?:X{{3,}}|___)\s+(?:(?:as|when)\s+)?(?:compared|since\s+{SINCE})",
    (
        rf"\b(?:lower|higher|greater|fewer|larger|smaller|more|less|better|worse)\b(?!\s+(?:lobes?|left|right|"
        rf"zone|thora))"
        rf"(?:\s+[\w-]+){{0,4}}\s+(?:{COMPARED}|than\s+{SINCE}|since\s+{SINCE}|from\s+{STUDY})"
    ),
)
_UNCLEAR_COMPARISON = [re.compile(pattern, _FLAGS) for pattern in _UNCLEAR_PATTERNS]


def cannot_be_edited(body: str) -> bool:
    """True if deleting words would change the meaning of the sentence, whatever its clauses are."""
    return bool(_NOT_SINCE.search(_replace_no_change(body))) or any(
        pattern.search(body) for pattern in _UNCLEAR_COMPARISON
    )


def _replace_no_change(body: str) -> str:
    for rule in _NO_CHANGE:
        body = rule(body).strip()
    return body


def remove_comparison(body: str) -> str:
    """Remove the study that a sentence is compared with."""
    body = _replace_no_change(body)
    for rule in _COMPARISON:
        body = rule(body).strip()
    return body
