"""A quick test that a sentence has a word without which no pattern of `mentions` matches.

Most sentences have none, so the patterns are not searched in them. A test checks that no mention is left out.
"""

from __future__ import annotations

import re

_WHOLE = """
    accentuation again ago alter altered appeared apr april as aug august back better bigger broader change
    changed check clearance cleared clearer clearing coarser come comparison comparisons constant current
    currently darker dates dating dec december deeper denser development differ difference different differs
    down earlier earliest emergence enlargement enlarging ever extubated extubation f fading failed fails
    fainter feb february fell fewer finer first flatter fluffier follow following followup formed former
    formerly fresh friday from fu fuller further gone greater grew growing grown growth had has have having
    hazier heal healing heretofore higher hitherto identical improved improvement index initial initially
    insertion interim intubation jan january jul july jun june keeps larger last less lessened lighter lingering
    longer lower mar march maturation measured milder monday more moved multiplied narrower neither new newly
    next none not nothing nov november now oct october old older ongoing onset opposed original originally out
    outside over overnight partial patchier placed placement preop preoperative presently progress pulled quo re
    recent recently reduced reference remote removal removed repeat review rose rounder same saturday sep sept
    september serial shallower sharper shorter similar since slow smaller stable stably static stay stayed stays
    steady still straighter sunday than then thicker thinner thursday tighter today trauma tuesday up waning was
    waxing weaker wednesday were when where whiter wider worse yesterday yet
"""
_STEMS = """
    abat accum adjust advanc aggrav altera becom begin compar concordan consecutiv contin decreas deteriorat
    develop dimin disappear discontinu dislodg doubl downsiz drain emerg evolut evolv exacerb exchang expanding
    fluct histor identic impro increas interv introduc invariab lessen linger migrat noncha nonprog nonres
    normali persist plateau preced prev prior progre pull reabsorb reaccum readj reaer reapp recede receded
    receding recov recur redemon reduc reexp refer regress reident reinfl reins reintub reloc remain remov
    reposit resid resit resol resor restor retract retriev retu reva revers revert revis rewir sequen shrank
    shrink shrunk slid slip stabil subsid success swap tendenc transition unalter unch unimp unresol unvar upsiz
    vanish wane wax withdr worsen
"""
_WHOLE_WORDS = frozenset(_WHOLE.split())
_STEM_LENGTHS = sorted({len(stem) for stem in _STEMS.split()})
_STEM_SET = frozenset(_STEMS.split())
_WORD = re.compile(r"[a-z]+|\d+[/.:-]\d|(?:19|20)\d\d|_{3}")


def may_mention(text: str) -> bool:
    """True if a text has a word with which a mention can begin, a date or a placeholder."""
    return any(
        word in _WHOLE_WORDS or not word.isalpha() or any(word[:length] in _STEM_SET for length in _STEM_LENGTHS)
        for word in _WORD.findall(text.lower())
    )
