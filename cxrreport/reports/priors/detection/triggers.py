"""A quick test that a sentence has a word without which no pattern of `mentions` matches.

Most sentences have none, so the patterns are not searched in them. A test checks that no mention is left out.
"""

from __future__ import annotations

import re

_WHOLE = """
    accentuation accumulating admission aforementioned again ago already alter altered appearance appeared apr april
    archived arrival as aug august back baseline before began begun better bigger birth blossoming breaking brighter
    broader bulkier came cavitating change changed changes changing check childhood clearance cleared clearer
    clearing closing coalescing coarser come comes comparable comparison comparisons confirms constant contracting
    contraction convalescent correlates corresponding corresponds creeping ct current currently darker dates dating
    days dec december declined declining deepening deeper delayed denser deployed described development differ
    difference differences different differs disconnected dispersing dissipating dissolving down draining drifting
    dropped dropping drying dying each earlier earliest easing ebbing either emergence endure endures enlargement
    enlarging ensued escalating ever examinations exams expanding expansion explanted extension external extubated
    extubation f fading failed failing fails failure fainter falling feb february fell fewer filling films finer
    first flatter fluffier follow following followup formed former formerly forming fresh friday from fu fuller
    further getting given goes gone gradual greater grew growing grown growth had halving has have having hazier
    heal healing held heretofore higher hindsight hitherto hour hrct identical improved improvement index infant
    initial initially inserted insertion intensifying interim intubation involuting jan january jul july jun june
    keep keeps kept larger last later less lessened letting lifting lighter lingering longer longstanding loss lower
    mar march maturation maturing meantime meanwhile measured melting mend milder monday months more moved mri
    multiplied narrower neither neonatal never new newly next none not nothing nov november novo now nowhere oct
    october old older once ongoing onset opposed original originally out outside over overnight partial past
    patchier per pet placed placement planning poorer popped portables preop preoperative presently progress pulled
    questioned quietening quo re rebound rebounding recent recently redistribution reduced reference refractory
    relation relative relenting remission remitting remote removal removed repeat replaced replacement replaces
    reported response resurgence retains retreating revealed review rising rose rounder route running same saturday
    scans scout second sep sept september serial settling shallower sharper shorter showed similar since sinking
    slackening slow smaller spread spreading stable stably staging static stay stayed stays steady still straighter
    studies sunday surging swelling taken tapering tends than then thicker thinner third thursday tighter today
    transfer trauma trend trends tripling tuesday turning unabated underway unrelenting unremitting up upgraded used
    variation waning was waxing weakening weaker wednesday weeks went were when where whiter widening wider worse
    years yesterday yet
"""
_STEMS = """
    abat accum adjust advanc againn aggrav altera amelior antedat archive balloon becom begin compar concordan
    consecutiv contin decreas deteriorat develop dimin disappear discontinu dislodg doubl downsiz drain dwindl emerg
    evolut evolv exacerb exchang expanding fluct histor identic impro increas interv introduc invariab lessen linger
    migrat multipl mushroom noncha nonprog nonres normali persist plateau preced predat prev prior progre pull
    reabsorb reaccum readj reaer reapp recede receded receding recov recrudesc recur redemon reduc reexp refer
    regress reident reinfl reins reintub relaps reloc remain remov replac reposit resid resit resol resor restor
    retract retriev retrospect retu reva revers revert revis rewir sequen shrank shrink shrunk slid slip stabil
    subsid success superven swap tendenc transition unalter unch unimp unresol unvar upsiz vanish wane wax withdr
    worsen
"""
_WHOLE_WORDS = frozenset(_WHOLE.split())
_STEM_LENGTHS = sorted({len(stem) for stem in _STEMS.split()})
_STEM_SET = frozenset(_STEMS.split())
_WORD = re.compile(
    r"(?:(?<=left )|(?<=right )|(?<=bilateral ))lower\b|lower(?= (?:lobe|zone|lungs?\b(?! volume)))"
    r"|([a-z]+|\d[/.:-]\d|(?:19|20)\d\d|_{3})"
)
"""Words in the group; "lower" of a place is none."""


def may_mention(text: str) -> bool:
    """True if a text has a word with which a mention can begin, a date or a placeholder."""
    return any(
        word in _WHOLE_WORDS or not word.isalpha() or any(word[:length] in _STEM_SET for length in _STEM_LENGTHS)
        for word in _WORD.findall(text.lower())
        if word
    )
