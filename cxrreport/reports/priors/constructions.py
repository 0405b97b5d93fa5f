"""Constructions that the rules may edit, each known whole: only known phrases are deleted, where they may go.

`proposals` knows the phrases that anybody may delete. The rules may also delete whole clauses, nouns of change and
predicates, because they read the clause around them.
"""

from __future__ import annotations

import re
from difflib import SequenceMatcher

from cxrreport.reports.priors.detection import context_of, without_context
from cxrreport.reports.priors.proposals import may_go
from cxrreport.reports.priors.vocabulary import (
    ADVERB,
    ANATOMY,
    ASPECT,
    CHANGE,
    COMPARED,
    DEGREE,
    GROWING,
    GROWN,
    NOTABLE,
    SAME,
    SEEN,
    SINCE,
    STUDY,
)

_PUNCTUATION = ",;:.!?()"
_MEASURE = (
    r"(?:size|extent|degree|severity|amount|volume|appearance|prominence|conspicuity|number|position|positioning|"
    r"configuration|placement|alignment)"
)
_MEASURES = rf"{_MEASURE}(?:\s*(?:,|/|and|or)\s*{_MEASURE})*"
_ARTICLE = r"(?:\s+(?:the|an?))?"
_WHEN = (
    rf"(?:{COMPARED}|(?:since|from|than|over|to|with)\s+{SINCE}|as (?:before|previously)|"
    r"in the (?:interval|interim)|previously)"
)
_SAME = rf"(?:not {ADVERB}(?:changed|{GROWN})|{ADVERB}(?:{SAME}|{GROWN}|{GROWING}|new|static|persistent))"
_STATE = (
    rf"{_SAME}(?:\s+(?:to|or|and|but)\s+{_SAME})?{ASPECT}(?:\s+(?:slightly|significantly|markedly|mildly))?"
    rf"(?:,?\s+(?:{_WHEN}|(?:to|with)\s+{STUDY})){{0,2}}"
)
_NO_CHANGE = (
    rf"(?:no|without|little)\s+(?:any\s+)?{NOTABLE}(?:interval\s+)?(?:changes?|increase|decrease|growth|difference)"
    rf"(?:\s+in\s+(?:the\s+)?(?:{_MEASURES}|displacement))?(?:,?\s+{_WHEN})?"
)
_IS = r"(?:is|are|was|has been|have been|has|have|appears?|looks?|seems?|remains?)"
_ADJECTIVE = (
    rf"(?:not\s+)?{ADVERB}(?:{SAME}(?:[\s-]appearing)?|changed|stably|persistent(?:ly)?|persisting|residual|"
    rf"continued|continuing|ongoing|"
    rf"new|newly|{GROWING}|{GROWN}|interval|(?:once |yet )?again(?: {SEEN})?|still|now|re-?demonstrated|unresolved|"
    rf"further|progressive|"
    rf"(?:previously|prior|previous)\s+(?:\w+ly\s+)?{SEEN})"
)
_ADJECTIVES = rf"{_ADJECTIVE}(?:(?:,|\s+and|\s+or|\s+to|\s+but|/)?\s*{_ADJECTIVE})*(?:\s+(?:and|but))?"
_NOUN = rf"(?:{CHANGE}|re-?demonstration|persistence|evolution|recurrence|resolution|clearing|regression|decrease)"
_ANATOMY = "(?:" + "|".join(re.escape(word) for word in sorted(ANATOMY, key=len, reverse=True)) + ")"
_AT_THE_START = re.compile(
    rf"(?:there (?:is|are|has been|have been)\s+)?(?:(?:an?|the)\s+)?{ADVERB}{DEGREE}(?:(?:interval|further|"
    rf"continued|new|partial|"
    rf"gradual)\s+)*{DEGREE}{_NOUN}(?:\s*(?:/|and|or)\s*{_NOUN})?(?:\s+(?:in|of){_ARTICLE}\s+{_MEASURES})?\s+(?:in|"
    rf"of){_ARTICLE}"
    rf"|(?:there (?:is|are|has been|have been)\s+)?{_NO_CHANGE}(?:\s+(?:in|of|to|"
    rf"involving){_ARTICLE}(?:\s+{_MEASURES}\s+of{_ARTICLE})?)?"
    rf"|(?:increased|decreased|{SAME})\s+(?:in\s+)?{_MEASURES}\s+of{_ARTICLE}"
    rf"|(?:(?:the|an?|there (?:is|are)(?: an?)?)\s+)?{_ADJECTIVES}(?:\s+{_MEASURES}\s+of{_ARTICLE})?"
    rf"|(?:the\s+)?(?:{_ADJECTIVES}\s+)?(?:{_ANATOMY}\s+){{1,5}}(?:(?:is|are|"
    rf"appears?)\s+)?(?:{_STATE},?\s+)?with{_ARTICLE}"
    rf"|(?:as|like)\s+(?:before|previously|(?:{SEEN}\s+)?(?:on|in|at) {STUDY}),?{_ARTICLE}"
    rf"|in the (?:interval|interim),?{_ARTICLE}"
    rf"|{_STATE},?\s+(?:with|there (?:is|are))?{_ARTICLE}"
    rf"|(?:the )?patient (?:has|had) (?:now )?received{_ARTICLE}(?:\s+new)?",
    re.IGNORECASE,
)
_AT_THE_END = re.compile(
    rf"(?:,?\s*(?:and|but|though|although)\s+)?(?:(?:both|all|each)\s+)?(?:{_IS}\s+(?:also\s+|to be\s+|"
    rf"seen\s+)?)?(?:been\s+)?{_STATE}"
    rf"|(?:and|but|which|that)?\s*(?:{_IS}\s+)?(?:persists?|remains?|persistent)"
    rf"|(?:(?:has|have)\s+)?(?:interval(?:ly)?\s+|newly\s+)?(?:developed|appeared|persisted)"
    rf"|(?:(?:and|but|with)\s+)?(?:there is\s+)?{_NO_CHANGE}"
    rf"|(?:and|but)?\s*(?:without|with no|no)\s+(?:any\s+)?(?:evidence of\s+)?(?:new|interval|significant|increasing|"
    rf"enlarging|worsening)\b.*"
    rf"|(?:which|that)\s+{_IS}\s+(?:been\s+)?(?:{_STATE}|not {SEEN} {_WHEN})"
    rf"|(?:{_IS}\s+)?(?:in|with)\s+{_ARTICLE.strip()}\s*{ADVERB}(?:{SAME}|same)\s+{_MEASURES}"
    rf"|(?:as|like)\s+(?:before|previously|seen previously|{SEEN}\s+(?:on|in|at)\s+{STUDY}|(?:on|in)\s+{STUDY})"
    rf"|(?:also\s+)?(?:not\s+)?(?:\w+ly\s+)?{SEEN}\s+(?:previously|before|(?:on|in|at)\s+{STUDY})"
    rf"|(?:which|that)\s+(?:was|were)\s+(?:not\s+)?{SEEN}\s+(?:previously|before|(?:on|in|at)\s+{STUDY})"
    rf"|with\s+(?:an?\s+)?(?:(?:slight|mild|marked)\s+)?interval\s+(?:increase|decrease|improvement|"
    rf"worsening)\s+(?:in|of)\s+.*"
    rf"|{SEEN}\s+(?:on|in|at)\s+{STUDY}\s+(?:persists?|remains?|{_IS}\s+{_STATE})"
    rf"|{_WHEN}",
    re.IGNORECASE,
)
_BEFORE_A_VERB = re.compile(
    rf"(?:{_IS}\s+(?:been\s+)?)?{_STATE},?\s+(?:and|but)|(?:which|that)\s+{_IS}\s+(?:been\s+)?{_STATE}|{_STATE}|"
    rf"(?:\w+ly\s+)?{SEEN}"
    rf"\s+(?:on|in|at)\s+{STUDY}|{_WHEN}",
    re.IGNORECASE,
)
_VERB = re.compile(
    r"(?:is|are|has|have|may|might|could|likely|probably|most|measures?|measuring|projects?|terminates?|extends?|"
    r"obscures?|"
    r"represents?|suggests?|reflects?|ends?|overlies|abuts?|compress\w*|displac\w*|causes?|contains?|appears?)",
    re.IGNORECASE,
)
_PREPOSITION = re.compile(
    r"(?:with|without|in|at|on|along|within|over|near|consistent|compatible|suggesting|suggestive|representing|"
    r"likely|probably|"
    r"measuring|terminating|ending|projecting|overlying|extending|involving|most|concerning|worrisome|tip)",
    re.IGNORECASE,
)
_ADVERBS = r"(?:(?:once |yet )?again|still|now|currently|newly|persistently)"
_NO_NOUN = re.compile(
    rf"{_PREPOSITION.pattern}|after|following|since|from|than|to|by|of|for|from|despite|under|above|below|and|or|but|"
    rf"which|that|is|are|has|have|"
    r"finding|findings|change|changes|appearance|sizes?|positions?",
    re.IGNORECASE,
)
_BESIDE_A_STATE = re.compile(
    rf"{ADVERB}(?:{SAME})\s+(?:and|but)|(?:and|but)\s+{ADVERB}(?:{SAME})(?:{ASPECT})", re.IGNORECASE
)
_PREDICATE = re.compile(r"(?:is|are|appears?|remains?)", re.IGNORECASE)
_REPLACED = tuple(
    (re.compile(old, re.IGNORECASE), frozenset(new))
    for old, new in (
        (r"(?:has|have) (?:interval(?:ly)? |newly |now )?(?:developed|appeared)", ("is seen", "are seen")),
        (r"(?:redemonstrated|re-demonstrated|reidentified|re-identified)", ("seen",)),
        (r"(?:remains?|persists?|(?:has|have) remained|continues? to be|appears?)", ("is", "are")),
        (
            r"(?:there )?(?:remains?|persists?|continues? to be|has been|have been)",
            ("there is", "there are", "is", "are"),
        ),
        (
            (
                rf"(?:(?:new|increased|decreased)(?:\s+(?:since|from)\s+{SINCE})?|(?:(?:once )?again {SEEN}|"
                rf"re-?demonstrated|re-?identified)"
                r"(?: (?:is|are))?)"
            ),
            ("there", "there is", "there are"),
        ),
        (rf"{_IS}\s+(?:been\s+)?{_STATE}\s+(?:and|but)\s+(?:is|are)(?:\s+now)?", ("is", "are")),
        (rf"{_IS}\s+(?:been\s+)?{_STATE}\s+(?:and|but)", ("is", "are")),
        (rf"(?:an?|the)\s+{_ADJECTIVES}", ("a", "an", "the")),
        (r"(?:an?|the)", ("a", "an", "there is a", "there is an", "there are")),
        (r"", ("a", "an", "there is", "there are", "there is a", "there is an")),
    )
)
_LINKS = frozenset(["and", "but", "while", "although", "though", "however"])
_FINITE = re.compile(r"is|are|has|have|was|were|there|no|(?:appear|remain|persist|show|demonstrate|resolve|continue)s?")
_SUBORDINATE = re.compile(r"(?:although|though|while|whereas)\b", re.IGNORECASE)
_INVERTED = re.compile(
    r"(?:[,;]|\band|\bbut)\s+(?:seen|noted|demonstrated|identified|visuali[sz]ed|present) (?:is|are)\b", re.IGNORECASE
)
_VERB_INSIDE = re.compile(
    r"\b(?:is|are|has|have|may|could|appears?|remains?|shows?|demonstrates?|persists?|overlies|overlie|ends|lies|"
    r"suggests?|represents?|"
    r"obscures?|abuts|projects?|terminates?|extends?|measures?|continues?)\b",
    re.IGNORECASE,
)
_JOINT = re.compile(
    r",\s+(?:(?:and|but)\s+)?(?=the\b|a\b|an\b|this\b|both\b)|,?\s+(?:and|but|while|although|though|whereas)\s+",
    re.IGNORECASE,
)
_MAY_BE_TORN = re.compile(
    r"\b(?:patient|condition|function|status|densit|similar|interval|history|clinical|symptom|cough|fever|pain|"
    r"dyspn|recommend|"
    r"suggest|advis|should|if|continued|surveillance|than|post|prior|previous|old|resolution|residual|remain)",
    re.IGNORECASE,
)
"""Words of the parts that `context_of` finds; the search of all its patterns is slow."""
_COMMA_VERB = re.compile(r"\w+,\s+(?:could|may|might|is|are|has|have)\b")
_PERFECT = re.compile(r"(?:ed|grown|worse|better)$")
_NOT_SEEN = re.compile(
    r"\b(?:not (?:\w+ly )?well|less|poorly|not as|not so|not (?:clearly|definitely))\b[^,;.]{0,20}(?:seen|visuali|"
    r"evident|appreciated|"
    r"identified|visible|apparent|conspicuous|demonstrated)",
    re.IGNORECASE,
)
_THEN = re.compile(r"\b(?:prior|previous|previously|earlier|former|formerly|before|known)\b", re.IGNORECASE)
_LEFT = re.compile(
    r"\b(?:today'?s?|against|same|(?:worse|better|larger|smaller|bigger|fewer)(?! than (?:the )?(?:left|right|other)|"
    r" on the (?:left|right))|removal|increase|decrease|improvement|worsening|"
    r"progress\w*|resolv\w+|resolution|unchanged|stable|interval|again|previous\w*|earlier|yesterday|now|new|newly|"
    r"since|"
    r"compar\w+|this (?:exam|study|film|examination|radiograph)|(?:overall|little|significant|any) changes?|"
    r"developing|evolving|"
    r"(?:more|less) \w+ (?:than )?(?:before|prior))\b|\bin question\b|\bat the site of the\b|\b(?:generator|tube|"
    r"line|catheter|drain) changes?\b|"
    r"\bif anything\b|\b(?:began|initially|once)\b|\babout the\W*$|[↑↓∆Δ]|\bwith (?:\w+ )?(?:chemo\w*|treatment|"
    r"therapy|antibiotics|diure\w+|steroids|drainage)|(?:shows?|demonstrates?|has|have|with) (?:alignment|position|"
    r"size)\b",
    re.IGNORECASE,
)


def is_known_whole(before: str, after: str) -> bool:
    """True if an edit by the rules deletes only whole phrases that may go where they stand, or whole clauses.

    Args:
        before: the sentence as written, without its number and final punctuation.
        after: its edit.
    """
    given, kept = before.lower().split(), after.lower().split()
    plain_given, plain_kept = ([token.strip(_PUNCTUATION) for token in tokens] for tokens in (given, kept))
    gone = []
    for tag, i1, i2, j1, j2 in SequenceMatcher(None, plain_given, plain_kept, autojunk=False).get_opcodes():
        if tag == "equal":
            continue
        gone.append(" ".join(given[i1:i2]))
        if not _may_go(given, i1, i2, " ".join(plain_kept[j1:j2])):
            return False
        comma = 0 < i1 < i2 < len(given) and given[i2 - 1][-1] == "," and given[i1 - 1][-1] != "," != kept[j1 - 1][-1]
        if comma and not (_VERB.fullmatch(plain_given[i2]) or _PREPOSITION.fullmatch(plain_given[i2])):
            return False  # "Chest stable, lines in place" is not "Chest lines in place"
    if _SUBORDINATE.match(before) and not _SUBORDINATE.match(after):
        return False  # "Although ..., the lungs are clear" without its first half is two sentences
    if set(_COMMA_VERB.findall(after.lower())) - set(_COMMA_VERB.findall(before.lower())):
        return False
    if _loses_a_verb(before, after) or _INVERTED.search(after):
        return False
    if _MAY_BE_TORN.search(before) and any(_is_torn(part.lower(), after.lower()) for part in context_of(before)):
        return False
    if _LEFT.search(after) and _LEFT.search(without_context(after)):
        return False
    return not (_THEN.search(" ".join(gone)) and _NOT_SEEN.search(after))


def _is_torn(part: str, after: str) -> bool:
    """True if words are deleted in a part that tells of the patient, of history or of space ("in stable condition")."""
    return part not in after and any(
        re.search(rf"\b{re.escape(word)}\b", after) for word in re.findall(r"[a-z]{5,}", part)
    )


def _loses_a_verb(before: str, after: str) -> bool:
    """True if the last part of a sentence with several parts has lost its verb: "The tube is low, the effusion"."""
    last, rest = _last_part(after)
    given, _ = _last_part(before)
    contrast = re.search(r"\b(?:but|while|although|though|whereas)\W*$", rest)
    return bool(
        _VERB_INSIDE.search(given) and not _VERB_INSIDE.search(last) and (contrast or _VERB_INSIDE.search(rest))
    )


def _last_part(text: str) -> tuple[str, str]:
    sentence = re.split(r"[;.]\s", text.lower())[-1]
    start = max((found.end() for found in _JOINT.finditer(sentence)), default=0)
    return sentence[start:], sentence[:start]


def _may_go(tokens: list[str], start: int, end: int, added: str) -> bool:
    """True if a run of tokens, or each of two parts of it, may be deleted or replaced where it stands."""
    if _is_phrase(tokens, start, end, added, first=start == 0):
        return True
    if added:
        return False
    return any(
        _is_phrase(tokens, start, middle, "", first=start == 0)
        and _is_phrase(tokens, middle, end, "", first=start == 0)
        for middle in range(start + 1, end)
    )


def _is_phrase(tokens: list[str], start: int, end: int, added: str, *, first: bool) -> bool:
    run = " ".join(tokens[start:end]).strip(_PUNCTUATION + " ").replace("(", "").replace(")", "")
    following = tokens[end].strip(_PUNCTUATION) if end < len(tokens) else ""
    ends = not following or tokens[end - 1][-1] in ",;)" or tokens[end][:1] == "("
    if added:
        return any(old.fullmatch(run) and added in new for old, new in _REPLACED)
    before = tokens[start - 1].strip(_PUNCTUATION) if start else ""
    attribute = re.fullmatch(_ADJECTIVES, run, re.IGNORECASE) and not re.fullmatch(_ADVERBS, run, re.IGNORECASE)
    inverted = start > 1 and tokens[start - 2] in {"there", "seen", "noted", "demonstrated", "also"}
    if attribute and _PREDICATE.fullmatch(before) and not (inverted or ends or _BESIDE_A_STATE.fullmatch(run)):
        return False  # "is new finding"
    if may_go(tokens, start, end, added):
        return True
    if _is_clause(tokens, start, end):
        return True
    if first and following and _AT_THE_START.fullmatch(run):
        return True
    if start == 0:
        return False
    if run in {"the", "a", "an"} and (tokens[start - 1][-1] in ";,." or tokens[start - 1] in _LINKS):
        return True
    if (
        (ends or following in {"and", "but", "with", "without"})
        and _AT_THE_END.fullmatch(run)
        and not _PREDICATE.fullmatch(before)
    ):
        return True
    if _VERB.fullmatch(following) and _BEFORE_A_VERB.fullmatch(run) and not _PREDICATE.fullmatch(before):
        return True
    if _PREPOSITION.fullmatch(following) and _AT_THE_END.fullmatch(run) and not _PREDICATE.fullmatch(before):
        return True
    if _BESIDE_A_STATE.fullmatch(run):
        return True
    if not following or _NO_NOUN.fullmatch(following):
        return False
    perfect = before in {"has", "have", "had"} and _PERFECT.search(run)
    return bool(re.fullmatch(_ADVERBS, run, re.IGNORECASE) or (attribute and not perfect))


def _is_clause(tokens: list[str], start: int, end: int) -> bool:
    """True if a run is all that stands between two of: the ends of the sentence, `;`, `.`, `, no`, and conjunctions."""
    after_a_stop = start == 0 or tokens[start - 1][-1] in ";."
    before_a_stop = end == len(tokens) or tokens[end - 1][-1] in ";."
    if after_a_stop and before_a_stop:
        return True
    opens = after_a_stop or tokens[start] in _LINKS
    closes = (
        before_a_stop or tokens[end - 1] in _LINKS or (tokens[end - 1][-1] == "," and tokens[end] in {"no", "there"})
    )
    clauses = before_a_stop or tokens[end] in _LINKS
    return (
        opens and (closes or clauses) and any(_FINITE.fullmatch(word.strip(_PUNCTUATION)) for word in tokens[start:end])
    )
