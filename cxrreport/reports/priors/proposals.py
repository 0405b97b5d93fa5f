"""What a proposed edit may delete.

The guards hold for edits by rules, which delete known phrases only. Whoever else proposes an edit may delete anything:
"The prior pneumonia is no longer evident" and "The pneumonia" have the same polarity and no wrong word. So every run
of deleted words must be, as a whole and where it stands, one of a few phrases whose deletion is always true.
"""

from __future__ import annotations

import re
from difflib import SequenceMatcher

from cxrreport.reports.priors.guards import words
from cxrreport.reports.priors.vocabulary import ADVERB, ANATOMY, ASPECT, COMPARED, GROWN, NOTABLE, SAME, SINCE, STUDY

_PUNCTUATION = ",;:.!?"
_SEEN = r"(?:seen|noted|demonstrated|identified|visuali[sz]ed|present|redemonstrated|re-demonstrated)"
_ADVERBS = r"(?:once again|again|still|now|currently|newly|persistently)"
_ATTRIBUTE = (
    rf"(?:{_ADVERBS}|{SAME}|persistent|persisting|residual|ongoing|continued|new|progressive|"
    r"(?:interval )?(?:increased|increasing|decreased|decreasing|worsened|worsening|improved|improving)|"
    r"previously (?:seen|noted|described|identified|placed))"
)
_ATTRIBUTES = rf"{ADVERB}{_ATTRIBUTE}(?:,?\s+(?:and\s+|but\s+)?{ADVERB}{_ATTRIBUTE})*"
_COMPARISON = rf"(?:(?:in )?{COMPARED}|(?:since|from)\s+{SINCE})"
_STATE = (
    rf"(?:{ADVERB}(?:{SAME}|{GROWN})|not\s+{ADVERB}(?:changed|{GROWN})|again {_SEEN}|re-?demonstrated|new){ASPECT}"
    rf"(?:,?\s+(?:{_COMPARISON}|(?:to|with)\s+{STUDY}))?"
)
_STATES = rf"{_STATE}(?:,?\s+(?:and|but)\s+{_STATE})*"
_ANYWHERE = re.compile(_ADVERBS)
_BEFORE_A_NOUN = re.compile(_ATTRIBUTES)
_AT_THE_START = re.compile(
    rf"the|an?|{_COMPARISON}(?:,?\s*(?:the|an?|there (?:is|are)(?: an?)?))?(?:,?\s*{_ATTRIBUTES})?|"
    rf"(?:(?:the|an?|there (?:is|are)(?: an?)?)\s+)?{_ATTRIBUTES}|"
    rf"(?:there (?:is|has been) )?(?:an? )?{ADVERB}(?:interval )?"
    r"(?:worsening|progression|persistence|placement|insertion|development|appearance) (?:in|of)(?: the| an?)?"
)
_AT_THE_END = re.compile(
    rf"(?:(?:is|are|remains?|appears?|(?:has|have)(?: been)?)\s+{_STATES}|persists?|{_COMPARISON}|"
    rf"(?:has|have) {ADVERB}(?:developed|appeared)|"
    rf"(?:but )?(?:with no|without)(?: any)? {NOTABLE}(?:changes?|increase|decrease|growth)"
    rf"(?:{ASPECT}| in displacement)(?:,?\s+{_COMPARISON})?)"
)
_AFTER_A_COMMA = re.compile(_STATES)
_REPLACED = (
    (re.compile(r"remains|continues to be|persists as"), re.compile(r"is")),
    (re.compile(r"remain|continue to be|persist as"), re.compile(r"are")),
    (re.compile(rf"(?:(?:once )?again )?{_SEEN}"), re.compile(r"there")),
    (re.compile(rf"(?:(?:once )?again )?{_SEEN} is"), re.compile(r"there is")),
    (re.compile(rf"(?:(?:once )?again )?{_SEEN} are"), re.compile(r"there are")),
    (re.compile(rf"an? {_ATTRIBUTES}"), re.compile(r"an?")),
)
_NO_NOUN_PHRASE = re.compile(
    r"(?:of|to|by|from|than|as|per|with|without|in|on|at|within|along|over|under|near|for|about|into|through|until|since|"
    r"during|between|among|despite|via|due|and|or|but|nor|which|that|is|are|was|were|has|have|had|may|might|could|can|"
    r"should|appears?|seems?|shows?|remains?|represents?|suggests?|today|yesterday|earlier|performed|obtained|dated|"
    r"sizes?|positions?|positioning|appearances?|extent|degree|severity|configuration|alignment|location|course|number|"
    rf"distribution|volumes?|contours?|after|following|because|_+|x{{3,}}|{_SEEN})"
)
_DEGREE = re.compile(r"(?:\w+ly|once|very|more|less|somewhat|slight|much|quite|little)")
_CHANGED = re.compile(rf"(?:{SAME}|{GROWN}|new|changed|back)")
_FRAGMENT = re.compile(
    r"(?:^(?:the )?(?:size|extent|degree|severity|appearance|amount|number|position) of |"
    r"\b(?:although|though|while|whereas|because) )(?!.*\b(?:is|are|has|have|may|shows?)\b)",
    re.IGNORECASE,
)
_CHANGE_LEFT = re.compile(
    r"\b(?:worse|better|larger|smaller|removal|increase|decrease|improvement|worsening)\b|"
    r"\b(?:overall|interval|little|no|any|significant) changes?\b",
    re.IGNORECASE,
)
"""Words of change that `mentions_prior` lets pass in some places, which a proposal need not keep."""
_JOINED = re.compile(
    # "No effusion and stable nodules" denies no nodules; "decreased but persistent opacity" needs both words or none.
    rf"(?:\b(?:no|not|without|neither|absent|free|denies)\b[^;]*\b(?:and|or)|\bbut|\b{_ATTRIBUTE},?\s+(?:and|or))$"
)
_SECOND_SUBJECT = re.compile(r"\b(?:is|are|has|have)\b[^;.]*\band\b[^;.]*$")
"""The predicate of the first subject must not become that of the second: "The effusion is absent and the tube"."""
_PERFECT = re.compile(r"(?:ed|grown|worse|better)$")
_PAST = re.compile(r"\b(?:ended|terminated|measured|appeared|coursed|reached|lay)\b")
_NOW = re.compile(r"\b(?:now|currently|today|new|newly|this time)\b")
_THEN = re.compile(r"\b(?:prior|previous|previously|earlier|former|formerly|initial|initially|before|old|preceding)\b")


def deletes_known_phrases(before: str, after: str) -> bool:
    """True if an edit only deletes or replaces runs of words that are whole phrases which may go where they stand.

    All other words keep their spelling, numbers, symbols and punctuation.

    Args:
        before: the sentence as written, without its number and final punctuation.
        after: its proposed edit.
    """
    written, answered = before.split(), after.split()
    given, kept = before.lower().split(), after.lower().split()
    plain_given, plain_kept = ([token.strip(_PUNCTUATION) for token in tokens] for tokens in (given, kept))
    expected: list[str] = []
    gone = []
    for tag, i1, i2, j1, j2 in SequenceMatcher(None, plain_given, plain_kept, autojunk=False).get_opcodes():
        if tag == "equal":
            expected += written[i1:i2]
            continue
        added = " ".join(kept[j1:j2])
        if not may_go(given, i1, i2, added):
            return False
        gone.append(" ".join(given[i1:i2]))
        if expected and not added:
            expected[-1] = _ending(written[i1 - 1], written[i2 - 1], given[i2] if i2 < len(given) else "")
        expected += answered[j1:j2]
    if answered[1:] != expected[1:] or answered[0][0].lower() + answered[0][1:] not in _cases(expected[0]):
        return False
    if (
        _CHANGE_LEFT.search(after)
        or _FRAGMENT.search(after)
        or any(set(words(piece)) <= ANATOMY for piece in _pieces(after) - _pieces(before))
    ):
        return False
    past = _THEN.search(" ".join(gone))
    return not (past and (_NOW.search(" ".join(gone)) or _PAST.search(after.lower())))


def _cases(word: str) -> set[str]:
    """A word, and the word as it is inside of a sentence."""
    return {word, word[0].lower() + word[1:]}


def _pieces(text: str) -> set[str]:
    return set(re.split(r"[.;,]\s+|\s+and\s+", text.lower()))


def may_go(tokens: list[str], start: int, end: int, added: str) -> bool:
    """True if `tokens[start:end]` may be deleted, or replaced by the words `added`."""
    run = " ".join(tokens[start:end]).strip(_PUNCTUATION)
    following = tokens[end].strip(_PUNCTUATION) if end < len(tokens) else ""
    if added:
        inside = start > 0 and added.startswith("there")
        return (
            not inside
            and _article_fits(added, following)
            and any(old.fullmatch(run) and new.fullmatch(added) for old, new in _REPLACED)
        )
    before_a_noun = bool(following) and not _NO_NOUN_PHRASE.fullmatch(following)
    if start == 0:
        return before_a_noun and bool(_AT_THE_START.fullmatch(run))
    if _DEGREE.fullmatch(tokens[start - 1]) or not _article_fits(tokens[start - 1], following):
        return False
    if _ANYWHERE.fullmatch(run):
        return True
    phrase_ends = not following or tokens[end - 1][-1] in ",;"
    rest = " ".join(tokens[:start])
    if before_a_noun and not phrase_ends and _BEFORE_A_NOUN.fullmatch(run):
        return not _JOINED.search(rest) and not (tokens[start - 1] in {"has", "have", "had"} and _PERFECT.search(run))
    after_a_comma = tokens[start - 1][-1] in ",;"
    if _CHANGED.fullmatch(tokens[start - 1].strip(_PUNCTUATION)):
        return False  # "increased from the prior study" goes as a whole
    if _SECOND_SUBJECT.search(rest):
        return False
    return phrase_ends and bool(_AT_THE_END.fullmatch(run) or (after_a_comma and _AFTER_A_COMMA.fullmatch(run)))


def _article_fits(word: str, following: str) -> bool:
    return word not in {"a", "an"} or (word == "an") == (following[:1] in set("aeiou"))


def _ending(word: str, last_deleted: str, following: str) -> str:
    """The word before a deleted phrase, with the punctuation that it takes over from the end of the phrase."""
    plain = word.rstrip(_PUNCTUATION)
    own, taken = word[len(plain) :], last_deleted[len(last_deleted.rstrip(_PUNCTUATION)) :]
    between_commas = own == taken == ","
    if not following or (between_commas and _NO_NOUN_PHRASE.fullmatch(following)):
        return plain
    return plain + (taken or own)
