"""Patterns for statements of a change by grammatical kind: tense, comparison, noun of change, event, return.

All are for `re.IGNORECASE`.
"""

from __future__ import annotations

from cxrreport.reports.priors.vocabulary import EARLIER, IMAGING, SEEN

_HOW = (
    r"(?:(?:not|never|also|now|since|all|both|nearly|almost|mostly|largely|perhaps|somewhat|otherwise|quite|slightly|"
    r"\w+ly|even|far|much|no|any|a bit|a little|but|further|yet)\s+){0,4}"
)
_CHANGED = (
    r"(?:increased|decreased|improved|worsened|progressed|regressed|diminished|reduced|lessened|grown|shrunk(?:en)?|"
    r"enlarged|expanded|contracted|cleared|resolved|receded|subsided|abated|recurred|appeared|disappeared|developed|"
    r"evolved|migrated|shifted|moved|rotated|advanced|retracted|withdrawn|pulled|repositioned|removed|placed|"
    r"inserted|"
    r"exchanged|replaced|discontinued|extubated|intubated|drained|evacuated|healed|normali[sz]ed|stabili[sz]ed|"
    r"plateaued|doubled|tripled|halved|changed|altered|varied|fluctuated|come|gone|fallen|risen|dropped|declined|"
    r"waned|"
    r"coalesced|cavitated|collapsed|spread|lowered|become|persisted|remained|continued|arisen|emerged|occurred|"
    r"returned|reverted|deteriorated|thickened|thinned|widened|narrowed|opened|slipped|dissipated|vanished|faded|"
    r"re-?\w+(?:ed|en)|taken out|intensified|consolidated|weaned|swapped|upsized|downsized)"
)
_COMPARATIVE = (
    r"(?:larger|smaller|bigger|greater|lower|higher|denser|wider|narrower|worse|better|thicker|thinner|milder|fuller|"
    r"clearer|deeper|shallower|fewer|fainter|sharper|(?:more|less)\s+(?!likely|common|typical|than|or\b|suggest|"
    r"often|X{3}|_)\w+)"
)
_ELSEWHERE = (
    r"(?!\s+(?:(?:than|to|from)\s+(?:(?:on|at|in)\s+)?(?:the\s+)?(?:right|left|normal|expected|usual|typical|average|"
    r"opposite|contralateral|other|upper|lower|\d)|lobes?\b|lungs?\b|zones?\b|limits?\b|in the|at the|on the lateral|"
    r"toward|along|within|over\b|on (?:this|today|the current|the frontal)))"
)
_GROWS = (
    r"(?:effusions?|pneumothora\w+|o?edema|consolidations?|opacit\w+|opacification|atelectasis|nodul\w+|mass(?:es)?|"
    r"infiltrat\w+|congestion|pneumonias?|collections?|hemothora\w+|cardiomegaly|\w*adenopathy|pneumomediastinum|"
    r"fluid|"
    r"collapse|haz(?:e|iness)|abscess|cavit\w+|lesions?|disease|metastas\w+|tumou?r|hematoma|swelling|process)"
)
_TUBES = (
    r"(?:tubes?|lines?|catheters?|drains?|picc|wires?|pigtail|swan[- ]ganz|pacemaker|device|sheath|balloon|"
    r"leads?|ett)"
)

CHANGES = (
    # Perfect tense of a verb of change, affirmed or denied; an organ that was removed is history.
    rf"(?<!gallbladder )(?<!breast )(?<!lobe )(?<!spleen )\b(?:has|have|had)\s+{_HOW}(?:been\s+)?{_HOW}{_CHANGED}\b",
    r"\b(?:was|were)\s+(?:\w+ly\s+)?(?:removed|repositioned|withdrawn|placed|exchanged|pulled|retracted|advanced)\b",
    r"\b(?:no longer|gone|disappear\w*|vanish\w*|extubated)\b|(?<!until )\bcleared\b|\bclearing\b",
    # Comparison without the other side ("is smaller", "no larger effusion", "not as dense").
    (
        rf"\b(?:is|are|be|being|appears?|looks?|seems?|now|but|and|though|although|perhaps|,)\s+{_HOW}{_COMPARATIVE}"
        rf"(?=\s*(?:$|[.,;)]|than|and\b|but\b|in\s+(?:size|extent|number|degree|volume|severity)|compared))"
        rf"{_ELSEWHERE}"
    ),
    # "Effusions are larger on the right" may compare with the left; "effusion, larger on the right" does.
    (
        r"^(?!.*\b(?:bilateral|both)\b).*\b(?:is|are)\s+(?:\w+ly\s+)?(?:larger|smaller|bigger|worse|better)\s+on the "
        r"(?:left|right)\W*$"
    ),
    rf"\b(?:no|not|not any|without|any)\s+(?:larger|smaller|bigger|worse|better|denser|wider|fewer)\b{_ELSEWHERE}",
    r"\bnot (?:quite |nearly )?(?:as|so) (?:\w+ly )?\w+(?=\s*(?:as\b|$|[.,;]))",
    (
        rf"\b(?:larger|smaller|worse|better|denser|wider|higher|lower|fewer|(?:more|less)\s+\w+)\s+than\s+"
        rf"(?:(?:it|they|that|those|was|were|is|are|had|has|been|the|one|on|in|at|seen|present)\s+)*(?:before|"
        rf"previous|prior|{EARLIER}|"
        rf"yesterday|___|X{{3,}})"
    ),
    # Noun of change.
    (
        r"\b(?:improvement|worsening|deterioration|regression|re-?accumulation|recurrence|re-?appearance|"
        r"re-?expansion|"
        r"re-?aeration|re-?inflation|re-?positioning|redistribution|accumulation|stabili[sz]ation)\s+(?:of|in)\b"
    ),
    (
        r"\b(?:no|any|without|with|slight|mild|minimal|moderate|marked|significant|substantial|definite|further|"
        r"some|gradual|"
        r"rapid|continued|little|there is an?|evidence of)\s+(?:increase|decrease|reduction|growth|progression|"
        r"enlargement)\b"
        r"(?!\s+(?:of|in)\s+(?:the\s+)?(?:\w+\s+)?(?:heart|cardiac|cardio\w+|silhouette|hil\w+|aort\w+|atri\w+|"
        r"ventric\w+|"
        r"pulmonary arter\w+|azygos|thyroid|lung volumes|\w*\s*markings))"
    ),
    rf"\b(?:increase|decrease|reduction|growth|development) (?:in|of) (?:the |an? )?(?:\w+ ){{0,4}}{_GROWS}\b",
    rf"\bno\s+(?:\w+ly\s+)?(?:increased|decreased|enlarging|increasing|worsened)\s+(?:\w+\s+){{0,4}}{_GROWS}\b",
    (
        rf"^(?:\d+[.)]\s*)?(?:\w+ly\s+)?(?:increased|decreased|reduced|diminished)\s+(?:(?:right|left|bilateral)\s+"
        rf"(?:[\w-]+\s+){{0,2}}opacit\w+|(?:(?!interstitial|markings|volumes?|with)[\w-]+\s+){{0,3}}(?!opaci|"
        rf"air\b){_GROWS}\b)"
    ),
    (
        r"\bthere (?:has|have) (?:also |now )?been (?:\w+ ){0,4}(?:improvement|progression|increase|decrease|"
        r"worsening|change|"
        r"reduction|clearing|development|removal|placement|resolution|insertion|withdrawal|advancement|repositioning|"
        r"retraction|growth|enlargement|shift|migration|exchange|recurrence|regression|deterioration)\b"
    ),
    # Event.
    (
        r"\b(?:removal|withdrawal|retraction|exchange|replacement|advancement|discontinuation)\s+of\s+(?:the\s+|"
        r"an?\s+|all\s+)?"
        r"(?:prior|previous(?:ly)?|old|support|monitoring|all)\b"
    ),
    rf"\b(?:prior|previous(?:ly)?)\s+(?:\w+\s+){{0,3}}{_TUBES}\b",
    (
        r"\b(?:growing|shrinking|receding|subsiding|fading|(?<!or )(?<!represent )(?<!reflect )(?<!early )"
        r"(?<!XX )evolving|waxing|waning|fluctuating|unresolved|unaltered)\b"
    ),
    r"\bre-?(?:aerat|expan|inflat|accumul|appear|demonstrat|identif|visuali[sz])\w*",
    # Return and time.
    (
        r"\b(?:back|return(?:s|ed)?|revert(?:s|ed)?) to (?:its |the |their |a )?(?:\w+ )?(?:normal|baseline|"
        r"previous|prior|original|"
        r"usual|standard|satisfactory|expected)"
    ),
    r"\bbaseline (?:appearance|size|study|film|radiograph|exam\w*)\b|\bfrom baseline\b|\bat baseline\b",
    (
        rf"\b(?:{SEEN}|than|as|like|since|from|worse|better|severe)\s+before\b(?!\s+\w)|\bas (?:was|were)?\s*"
        rf"(?:{SEEN}|described|stated)\s+(?:earlier|"
        rf"previously|before)\b"
    ),
    (
        r"\b(?:over time|serial (?:exam|stud|radiograph|film|imaging)\w*|in the meantime|meanwhile|over the "
        r"(?:past|last|intervening|"
        r"course)|in the (?:past|last) (?:few |\w+ )?(?:hours?|days?|weeks?|months?|years?)|since (?:admission|"
        r"surgery|the operation|"
        r"extubation|intubation|thoracentesis|bronchoscopy|then|this morning|last))\b"
    ),
    (
        r"\b(?:up|down) from (?:\d|___|the|a)|\b(?<!ranging )(?<!range )(?<!varying )from \d[\d.]*\s*(?:mm|"
        r"cm)? to \d[\d.]*\s*(?:mm|cm)"
    ),
    r"\b(?:formerly|heretofore|hitherto|at that time|in the past(?= (?:and|it|this|but))|since that time)\b",
    # Sameness.
    (
        r"\b(?:identical|essentially the same|much the same|the same as|no different|nothing new|no difference|"
        r"unvaried)\b"
        r"(?!\s+(?:to|as|from)\s+the\s+(?:right|left|other|opposite|contralateral))"
    ),
    rf"\b(?:consistent|concordant|in keeping|in line) with (?:the )?(?:prior|previous|earlier) (?:{IMAGING}|finding)",
    (
        r"\bstatus quo\b|\b(?:non|un)changing\b|\bwithout (?:any )?(?:\w+ )?(?:change|difference|progression|"
        r"improvement|growth)\b"
    ),
)
