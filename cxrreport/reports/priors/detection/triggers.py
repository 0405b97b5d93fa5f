"""A quick test that a sentence has a word without which no pattern of `mentions` matches.

Most sentences have none, so the patterns are not searched in them. A test checks that no mention is left out.
"""

from __future__ import annotations

import re

_WHOLE = """
    accentuation accumulating admission again ago alter altered appeared apr april archived as aug august back
    baseline before began begun better bigger brighter broader bulkier cavitating change changed changes changing
    check clearance cleared clearer clearing coalescing coarser come comparable comparison comparisons constant
    contracting current currently darker dates dating dec december declined deeper denser deployed development differ
    difference different differs disconnected dispersing dissolving down draining dropped earlier earliest emergence
    enlargement enlarging ever expanding explanted external extubated extubation f fading failed fails failure fainter
    feb february fell fewer finer first flatter fluffier follow following followup formed former formerly fresh friday
    from fu fuller further given gone gradual greater grew growing grown growth had has have having hazier heal
    healing heretofore higher hitherto identical improved improvement index initial initially insertion interim
    intubation jan january jul july jun june keeps larger last later less lessened lighter lingering longer
    longstanding lower mar march maturation meantime meanwhile measured milder monday more moved multiplied narrower
    neither never new newly next none not nothing nov november now nowhere oct october old older ongoing onset opposed
    original originally out outside over overnight partial past patchier per placed placement poorer preop
    preoperative presently progress pulled quo re recent recently redistribution reduced reference relation relative
    remote removal removed repeat replaced replacement revealed review rose rounder same saturday scout sep sept
    september serial settling shallower sharper shorter showed similar since slow smaller spread spreading stable
    stably static stay stayed stays steady still straighter sunday taken tends than then thicker thinner thursday
    tighter today trauma tuesday up used variation waning was waxing weaker wednesday went were when where whiter
    wider worse yesterday yet
"""
_STEMS = """
    abat accum adjust advanc againn aggrav altera archive becom begin compar concordan consecutiv contin decreas
    deteriorat develop dimin disappear discontinu dislodg doubl downsiz drain emerg evolut evolv exacerb exchang
    expanding fluct histor identic impro increas interv introduc invariab lessen linger migrat noncha nonprog nonres
    normali persist plateau preced prev prior progre pull reabsorb reaccum readj reaer reapp recede receded receding
    recov recur redemon reduc reexp refer regress reident reinfl reins reintub reloc remain remov reposit resid resit
    resol resor restor retract retriev retu reva revers revert revis rewir sequen shrank shrink shrunk slid slip
    stabil subsid success swap tendenc transition unalter unch unimp unresol unvar upsiz vanish wane wax withdr worsen
"""
_WHOLE_WORDS = frozenset(_WHOLE.split())
_STEM_LENGTHS = sorted({len(stem) for stem in _STEMS.split()})
_STEM_SET = frozenset(_STEMS.split())
_WORD = re.compile(r"[a-z]+|\d[/.:-]\d|(?:19|20)\d\d|_{3}")


def may_mention(text: str) -> bool:
    """True if a text has a word with which a mention can begin, a date or a placeholder."""
    return any(
        word in _WHOLE_WORDS or not word.isalpha() or any(word[:length] in _STEM_SET for length in _STEM_LENGTHS)
        for word in _WORD.findall(text.lower())
    )
