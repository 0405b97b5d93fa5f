"""Rules that remove the mention of a prior study from one clause by deleting words other than negations."""

from __future__ import annotations

import re

from cxrreport.reports.priors.comparisons import rule
from cxrreport.reports.priors.detection import without_future
from cxrreport.reports.priors.vocabulary import (
    ADVERB,
    ANATOMY,
    ASPECT,
    CHANGE,
    DEGREE,
    GROWING,
    GROWN,
    IMAGING,
    NEGATION,
    SAME,
    SEEN,
    SINCE,
)

_FLAGS = re.IGNORECASE
# Deleting words from such a clause could change its meaning, so the whole clause is dropped.
_NOT_EDITABLE_PATTERNS = (
    r"\b(?:resol(?:ved|ution|ves)|cleared|clearing|clearance)\b",
    r"\bno longer\b|\bnot any longer\b|\bdisappear",
    (
        r"\b(?:removal|removed|extubat\w*|withdrawn|withdrawal|retracted|discontinued|taken out|exchanged?|advanced|"
        r"repositioned|replaced|migrat\w+)\b"
    ),
    r"\b(?:if|should)\b.*\b(?:prior|old|older|previous|comparison|outside)\b",
    (
        r"\b(?:interval enlargement|enlargement of (?:the )?(?:\w+ ){0,3}(?:effusion|pneumothorax|mass|nodule|"
        r"opacity))\b"
    ),
    (
        r"\b(?:comparison|prior|priors|old|previous)\s+(?:[\w,]+\s+){0,4}"
        r"(?:available|unavailable|helpful|useful|obtained|requested|recommended)\b"
    ),
    (
        rf"\b(?:no|without|absence of|lack of|not|unavailable)\s+(?:\w+\s+){{0,2}}(?:prior|previous|comparison|"
        rf"old)\s+"
        rf"(?:\w+\s+){{0,3}}{IMAGING}"
    ),
    (
        r"\b(?:correlat\w+|comparison|compare|review)\s+(?:\w+\s+){0,2}(?:with|to|of)\s+(?:any\s+)?(?:prior|old|"
        r"previous|outside)"
    ),
    r"\bprogression\b(?!\s+(?:of|in)\b)|\brecurren\w+\b",
    (
        r"\b(?:could|may|might|should|would|can)\s+(?:\w+\s+){0,2}(?:stable|unchanged|new|interval|compar\w+|"
        r"improv\w+|"
        r"worsen\w*|increas\w+)\b"
    ),
    (
        rf"\b(?:{GROWN}|{GROWING})\s+(?:\w+\s+){{0,2}}(?:aeration|inflation|expansion|inspiration|inspiratory|"
        rf"ventilation)|\b(?:improved|improving|worsened|worsening)\s+lung volumes?"
    ),
    rf"\b(?:aeration|inflation|expansion|inspiration|ventilation)\b[^,;]*\b(?:{GROWN}|{GROWING})",
    r"\bcomparison\b.*\b(?:would|could|may|recommended|suggested|advised|helpful|useful)\b",
    r"\b(?:more|less|better|worse|larger|smaller|fewer)\b(?!\s+(?:than|on|in)\s+(?:the\s+)?(?:right|left))",
    r"\b(?:difference|different|differs?|differing)\b",
    (
        r"\b(?:marked|markedly|significant|substantial|dramatic|near[- ]complete|great)\s+(?:interval\s+)?"
        r"(?:improvement|decrease|reduction|regression)\b"
    ),
    r"(?<!, )(?<!,)\b(?:worsening|improvement|progression|deterioration|regression)\s*(?:[,;]|$|with\b)",
    r"\bat least (?:as|since)\b|\bdating back\b",
    r"\b(?:waxing|waning|fluctuat\w+|alternat\w+)\b",
    r"\bunless\b|\bwhether\b|\bcannot\b",
)
_NOT_EDITABLE = [re.compile(pattern, _FLAGS) for pattern in _NOT_EDITABLE_PATTERNS]
VERB = re.compile(
    r"\b(?:is|are|was|were|has|have|had|be|been|may|might|could|can|should|would|will|do|does|did|shows?|"
    r"demonstrates?|"
    r"represents?|suggests?|projects?|overlies|overlie|terminates?|ends|courses|enters|appears?|lies|remains?|"
    r"reflects?|contains?|extends?|"
    r"indicates?|reveals?|seems?|persists?|continues?|obscures|abuts|tracks|reaches|deviates|causes|displaces|"
    r"effaces|involves|encases|"
    r"compresses|crosses|occupies|narrows|measures|spans|blunts|impinges|surrounds|recommend\w*|consider)\b",
    _FLAGS,
)
_PRONOUN = re.compile(
    r"^(?:this|these|those|it|they|both|that|which|he|she|all|findings?|results?)\b(?!\s+\w+\s+\w+)", _FLAGS
)
_CHANGED = re.compile(
    rf"\b(?:new|newly|interval|{GROWING}|{GROWN}|progressive|progression|developed|developing|further|additional|"
    rf"{CHANGE}|chang\w+|stable|unchanged)\b",
    _FLAGS,
)


_REMAINS = [
    rule(rf"\bthere (is|are) (?:again|once again|still) {SEEN}\b", r"there \1"),
    rule(rf"^(?:(?:again|once again)\s+{SEEN}|re-?demonstrated|re-?identified)\s+(is|are)\b", r"There \1"),
    rule(r"\b(is|are) (?:redemonstrated|re-demonstrated|reidentified|re-identified)\b", r"\1 seen"),
    rule(r"\b(?:there (?:is|are)\s+)?(?:re-?demonstration|persistence|continuation) of\s+(?:the\s+)?"),
    rule(r"\b(?:redemonstrated|re-demonstrated)\s+"),
    rule(r"\bthere (?:remains|persists|continues to be)\b", "there is"),
    rule(r"\bthere remain\b", "there are"),
    rule(r"\b(?:remains?|persists?|(?:is|are) persistent|(?:has|have) persisted)\s*$"),
    rule(r"\b(?:remains|has remained|continues to be)\b(?=\s+\w)", "is"),
    rule(r"\b(?:remain|have remained|continue to be)\b(?=\s+\w)", "are"),
    rule(r"\bpersists?\b(?=\s+(?:in|at|on|within)\b)"),
    rule(r"\bcontinues to (show|demonstrate)\b", r"\1s"),
    rule(r"\bcontinue to (show|demonstrate)\b", r"\1"),
    rule(r"^(?:the )?patient (?:has|had) (?:now )?received\s+(?:the\s+)?(?:new\s+)?"),
    rule(r"\s*\b(?:once again|yet again|again|still|now|once more)\b"),
    rule(rf"\b(?:previously|prior|previous)\s+(?:\w+ly\s+)?{SEEN}\s+"),
    rule(r"\b(?:has|have)\s+(?:interval(?:ly)?\s+|newly\s+)?(?:developed|appeared)\s*$"),
    rule(
        r"\bhas\s+(?:interval(?:ly)?\s+|newly\s+)?(?:developed|appeared)\b(?=\s+(?:in|at|on|within|"
        r"along)\b)",
        "is seen",
    ),
    rule(
        r"\bhave\s+(?:interval(?:ly)?\s+|newly\s+)?(?:developed|appeared)\b(?=\s+(?:in|at|on|within|along)\b)",
        "are seen",
    ),
]
_POSITION = [
    # "Catheter unchanged in position": no verb before.
    rule(
        rf"^((?:(?!\b(?:is|are|was|were|has|have|appears?|remains?|looks?)\b)[^,;])+?)\s+{ADVERB}(?:{SAME}|{GROWN})"
        rf"(?=\s+in\s){ASPECT}(?=\s*(?:$|[,;]))",
        r"\1",
    ),
    rule(
        rf"\s+(?:is|are|appears?|(?:is|are)\s+seen|remains?)\s+in\s+(?:an?\s+|the\s+)?{ADVERB}(?:{SAME}|same|"
        rf"similar)\s+"
        r"(?:positions?|positioning|locations?|alignment|configuration)\b"
    ),
    rule(
        rf",?\s+(?:in|with)\s+(?:an?\s+|the\s+)?{ADVERB}(?:{SAME}|same|similar)\s+"
        r"(?:positions?|positioning|locations?|alignment|configuration)\b"
        r"(?=\s*(?:$|[,;)]|(?:with|without|and|as|on|in|at|terminat\w+|overly\w+|project\w+)\b))"
    ),
    rule(rf"\b{SAME}\s+position\s+(?=(?:right|left|dual|cardiac)\b)"),
    rule(r"^(?:increased|decreased)\s+(?:size|extent|conspicuity|number)\s+of\s+(?:the\s+)?"),
    rule(
        rf"\b{ADVERB}{SAME}\s+(?:in\s+)?(?:appearance|position|positioning|size|extent|degree|configuration)\s+of\s+"
        r"(?:the\s+)?"
    ),
    rule(
        rf"^(?:overall\s+)?(?:{ADVERB}{SAME})\s+"
        r"(?:(?:exam|examination|chest|appearance|study|radiographs?|chest x-\w+)\s+)"
        r"with\s+(?=\w)"
    ),
]
_ACTS = (
    r"(?:measure|project|terminate|obscure|abut|cause|extend|overlie|end|course|lie|cross|occup[yi]e?|displace|"
    r"efface|"
    r"silhouette|contain|involve|encase|narrow|compress|reache?|enter|show|demonstrate|span|blunt|track|layer|indent|"
    r"deviate|conform|follow|impinge|border|fill|replace|surround|arise|pass|curl|loop|kink|sit|rest|point|fold)s?"
)
_ASIDE = rule(
    rf",\s*(?:(?:which|that)\s+(?:is|are|appears?|remains?|has been|have been|has|have)\s+(?:been\s+)?)?{ADVERB}"
    rf"(?:{SAME}|{GROWN}){ASPECT}\s*,\s+(?=(?:is|are|has|have|may|could|\w+s|{_ACTS})\s+(?!with\b))",
    " ",
)
_RELATIVE = rule(
    rf"\s*,?\s*\b(?:which|that)\s+(?:is|are|appears?|remains?|has been|have been|has|have)\s+(?:been\s+)?{ADVERB}"
    rf"(?:{SAME}|{GROWN}){ASPECT}"
)
_BESIDE_A_STATE = rule(
    rf"\b{ADVERB}{SAME}\s+(?:and|but)\s+(?=(?:\w+ly\s+)?(?:within|normal|unremarkable|clear|intact|enlarged|"
    rf"tortuous)\b)"
)
_APPOSITION = rule(
    rf"\s*(?:,\s*(?:but|and|though|although)?|\bbut\b|\band\b|\(|--?)\s*(?:(?:appears?|is|are)\s+)?(?:(?:all|both|"
    rf"each)\s+)?{ADVERB}"
    rf"(?:{SAME}|{GROWN}|{GROWING}){ASPECT}\)?(?=\s*(?:$|,|\bwith\b|\band\b|\bwithout\b))"
)
_THERE_CHANGED = re.compile(
    rf"^(?:there (?:is|are|has been|have been)\s+)?(?:an?\s+|the\s+)?{ADVERB}{DEGREE}(?:(?:interval|new)\s+)?{DEGREE}"
    rf"{CHANGE}(?:\s*(?:/|and|or)\s*{CHANGE})?(?:\s+(?:in|of)\s+(?:the\s+)?(?:size|extent|degree|severity|amount|"
    rf"volume|"
    r"appearance|prominence|conspicuity))?\s+(?:in|of)\s+(?:the\s+|an?\s+)?(?P<what>.+)$",
    _FLAGS,
)
_PREDICATE = re.compile(
    r"^(?P<subject>.+?)(?:\s+also)?,?\s+(?P<verb>is|are|has been|have been|has|have|appears?|looks?|seems?)"
    rf"(?:\s+to (?:be|have))?(?:\s+been)?\s+{ADVERB}(?P<state>{SAME}|{GROWN}|new)"
    rf"(?:\s+(?:to|or|and)\s+{ADVERB}(?:{GROWN}|{SAME}))?{ASPECT}"
    r"(?:\s+(?:slightly|significantly|markedly|mildly))?(?P<rest>\s*$|,?\s+(?:with|without|and|but|at|on|in)\b.*|"
    r",\s.*)$",
    _FLAGS,
)
_STATES = re.compile(
    r"^\s*,?\s*(?:and|but)\s+(?P<state>(?:(?:mildly|moderately|severely|markedly|slightly|grossly|otherwise)\s+)?"
    r"(?:within|normal|enlarged|unremarkable|clear|top|borderline|upper|prominent|tortuous|elevated|intact)\b.*)$",
    _FLAGS,
)
_NEW_STATE = re.compile(rf"^\s*,?\s*(?:and|but)\s+(?P<state>(?:is|are|appears?|{_ACTS})\s+.+)$", _FLAGS)
_INTERPRETATION = re.compile(r"^\s*,?\s*and\s+(?P<meaning>(?:may|could|might|likely|probably)\b.*)$", _FLAGS)
_EXPLAINED = re.compile(
    r"^(?:\s*,)?\s*(?:X{3,}|___|with|without|at|on|in|likely|probably|most|consistent|compatible|suggest\w+|"
    r"represent\w+|"
    r"(?:measur|terminat|end|project|overly|extend|involv|obscur)ing)\b",
    _FLAGS,
)
_ADJECTIVE = (
    rf"{ADVERB}(?:{SAME}(?:[\s-]appearing)?|stably|persistent|persistently|persisting|continued|continuing|newly|new|"
    rf"{GROWING}|improved|worsened|progressive|progressively|residual|(?:increased|decreased|reduced)"
    r"(?=\s+(?:[\w-]+\s+){0,4}(?:effusions?|pneumothora\w+|pneumomediastinum|fluid|opacity|opacities|o?edema|"
    r"cardiomegaly|"
    r"consolidation|atelectasis)\b))"
)
_ATTRIBUTE = re.compile(
    rf"\b{_ADJECTIVE}(?:(?:\s*,\s*|\s*/\s*|\s+(?:and|or|and/or|to|but)\s+){_ADJECTIVE})*"
    r"(?:\s*,\s*(?:and\s+|but\s+)?|\s+(?:and|but)\s+(?=\w+ly\s+placed|mild|moder|small|large)|\s+|$)",
    _FLAGS,
)
_BESIDE = re.compile(
    rf"\b(unremarkable|normal|clear|intact|enlarged|tortuous|small|mild|moderate)\s+(?:and|but)\s+{_ADJECTIVE}\s+",
    _FLAGS,
)
_PERSISTENCE = re.compile(r"^(?:persist\w*|residual|remain\w*)$", _FLAGS)
_HANGING = re.compile(
    r"(?:^|\s)(?:is|are|was|were|has|have|been|and|or|but|with|without|no|of|in|the|a|an|to|appears?|there|from|"
    r"by|as|"
    r"which|that|than|since|on|at|there (?:is|are)(?: an?)?)$",
    _FLAGS,
)


STATES_A_CHANGE = re.compile(rf"\b(?:{GROWN}|{GROWING}|changes? in)\b(?!\s+than\s+(?:the\s+)?(?:right|left))", _FLAGS)


def edit_clause(clause: str) -> str:
    """Remove the mention from a clause; empty if no safe edit exists."""
    plain = without_future(clause)
    if any(pattern.search(plain) for pattern in _NOT_EDITABLE):
        return ""
    if re.match(r"unchanged\b.*\b(?:or|OR)\b", clause):
        return ""  # "no change in A or B" does not state which of them is present
    clause = _RELATIVE(_ASIDE(clause))
    for edit in _POSITION + _REMAINS:
        clause = edit(clause).strip()
    clause = _before_negated_change(_APPOSITION(_BESIDE_A_STATE(clause)))
    changed = _THERE_CHANGED.match(clause)
    if changed:
        clause = re.sub(rf"\s+(?:from|since)\s+{SINCE}$", "", changed["what"], flags=_FLAGS)
        if _PRONOUN.match(clause) or re.match(r"(?:aeration|lung volumes?|inflation|visuali)", clause, _FLAGS):
            return ""
    clause = _remove_predicate(clause)
    clause = _ATTRIBUTE.sub("", _BESIDE.sub(r"\1 ", clause)).strip()
    clause = _remove_anatomy_head(tidy(clause))
    return "" if _HANGING.search(clause) or _PRONOUN.fullmatch(clause) or is_anatomy_only(clause) else clause


def _before_negated_change(clause: str) -> str:
    """The text before a negated word of change ("without new opacity"); empty if it is incomplete.

    "No persistent pneumothorax" does not count: it means that there is no pneumothorax.
    """
    for negation in NEGATION.finditer(clause):
        reached = [word for word in _CHANGED.finditer(clause, negation.end()) if not _PERSISTENCE.match(word.group())]
        if not reached:
            continue
        before = re.sub(r"(?:\s*,)?(?:\s+(?:and|but|with|or))?\s*$", "", clause[: negation.start()], flags=_FLAGS)
        if not before or _HANGING.search(before) or "," in before or NEGATION.search(before):
            return ""
        return before
    return clause


def _remove_predicate(clause: str) -> str:
    """`The effusion is unchanged` to `The effusion`; another state beside it is kept."""
    match = _PREDICATE.match(clause)
    if not match:
        return clause
    subject, rest = match["subject"], match["rest"]
    if VERB.search(subject) or NEGATION.search(subject) or _PRONOUN.match(subject):
        return ""
    grown = not re.fullmatch(SAME, match["state"], _FLAGS)
    interpretation = _INTERPRETATION.match(rest)
    if interpretation and not (grown and is_anatomy_only(subject)):
        return f"{subject} {interpretation['meaning']}"
    new_state = _NEW_STATE.match(rest)
    if new_state and not is_anatomy_only(subject):
        return f"{subject} {new_state['state']}"
    state = _STATES.match(rest)
    if state and not grown:
        verb = "are" if match["verb"].lower() in {"are", "have been", "have", "appear", "look", "seem"} else "is"
        return f"{subject} {verb} {state['state']}"
    if not rest.strip():
        return subject
    if _EXPLAINED.match(rest) and not (grown and (is_anatomy_only(subject) or NEGATION.search(rest))):
        return f"{subject}{rest}"
    return ""


_HEAD = re.compile(
    r"^(?P<head>[\w /-]+?)(?P<link>,\s+|\s+and\s+(?=no\b)|\s+with(?:out|\s+no)?\s+)(?P<tail>.+)$", _FLAGS
)
_PLACE = re.compile(
    r"\b(?:right|left|upper|lower|mid|middle|bilateral|both|base|bases|lobe|hilar|hilum|apical)\b", _FLAGS
)

_OF_A_SIZE = re.compile(r"\b(?:heart|cardi\w+|size|silhouettes?|contours?|aorta|aortic)\b", _FLAGS)


def _remove_anatomy_head(text: str) -> str:
    """`Chest with hiatal hernia` to `Hiatal hernia`, `Lung volumes without effusion` to `No effusion`."""
    match = _HEAD.match(text)
    if not match or not is_anatomy_only(match["head"]) or _PLACE.search(match["head"]) or VERB.search(match["head"]):
        return text
    link = match["link"].lower().strip()
    if re.search(r"X{3,}|_", match["head"]) or (link == "," and _OF_A_SIZE.search(match["head"])):
        return text  # the tail may describe the head: "Heart size, moderately enlarged"
    if link in {"without", "with no"}:
        return f"No {match['tail']}"
    return tidy(match["tail"])


def tidy(text: str) -> str:
    """Correct spaces, commas, articles and the initial capital."""
    text = re.sub(r"\s+", " ", text).strip(" ,;")
    text = re.sub(r"\s+([,;.])", r"\1", re.sub(r",(?:\s*,)+", ",", text))
    text = re.sub(r"^(?:and|but|while|although|however|with)\s+", "", text, flags=_FLAGS)
    if not VERB.search(text):
        text = re.sub(r"^(?:the|an?)\s+", "", text, flags=_FLAGS)
    text = re.sub(r"\b([Aa])n (?=[b-df-gj-np-tv-z]|h(?!our|eir|onest))", r"\1 ", text)
    text = re.sub(r"\b([Aa]) (?=(?:[aio]|e(?!u)|u(?!ni|s))[a-z])", r"\1n ", text)
    return text[:1].upper() + text[1:]


def is_anatomy_only(text: str) -> bool:
    """True if every word names normal anatomy or the examination ("Cardiac silhouette")."""
    return all(word in ANATOMY for word in re.findall(r"[a-z_]+(?:[-/][a-z]+)*", text.lower()))
