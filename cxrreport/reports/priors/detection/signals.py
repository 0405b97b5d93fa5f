"""Words of change, sameness and other times that mention a prior study wherever they stand, by grammatical kind.

`changes` and `mentions` have the patterns for words that do so in some constructions only. What looks like a mention
and is none is deleted before (`context`). All patterns are for `re.IGNORECASE`.
"""

from __future__ import annotations

import re

from cxrreport.reports.priors.vocabulary import IMAGING, MONTH

_ABBREVIATIONS = (
    (r"\bw/o\b", "without"),
    (r"\bw/(?=\s)", "with"),
    (r"\bunch(?:g|gd|ged|'?d)?\b\.?", "unchanged"),
    (r"\bprev\b\.?", "previous"),
    (r"\b(?:chgs?|∆|Δ)(?!\w)\.?", "change"),
    (r"\bsig\b\.?(?=\s+(?:change|interval))", "significant"),
    (r"\binterv\b\.?|\bint\b\.?(?=\s+(?:change|increase|decrease|removal|placement))", "interval"),
    (r"\bincr\b\.?|↑+|⬆", " increased"),
    (r"\bdecr\b\.?|↓+|⬇", " decreased"),
    (r"\bsl\b\.?(?=\s+\w)", "slightly"),
    (r"\bthere['’]?s(?= been)", "there has"),
    (r"\bthere['’]?s\b", "there is"),
    (r"\bit['’]s\b", "it is"),
    (r"\bs/p\b", "status post"),
    (r"\b(?:has|have|is|are|does|do|did|was|were)n['’]t\b", "has not"),
)
_HAS_ABBREVIATION = re.compile(
    r"/o\b|\bw/|\bs/p|n['’]t|(?:there|it)['’]?s\b|\b(?:unch(?:g|gd|ged|'?d)?|prev|chgs?|sig|interv|int|incr|"
    r"decr|sl)\b|[∆Δ↑↓⬆⬇]",
    re.IGNORECASE,
)
_ABBREVIATION = [(re.compile(pattern, re.IGNORECASE), word) for pattern, word in _ABBREVIATIONS]

# Verbs that say how a finding develops, without those that also describe a single image ("an enlarged heart").
_VERBS = """
    abate accumulate advance ameliorate balloon blossom clear close coalesce contract creep decline decrease deepen
    deteriorate develop die diminish disappear disperse dissipate dissolve drain drift drop dry dwindle ease ebb emerge
    enlarge escalate evolve expand fade fall fluctuate form grow halve heal improve increase intensify involute lessen
    lift linger mature melt migrate multiply mushroom normalise normalize persist plateau progress quieten reabsorb
    reaccumulate reappear rebound recede recover recrudesce recur reduce regress reinflate relapse relent remit resolve
    resorb retreat reverse revert rise settle shrink sink slacken spread stabilise stabilize subside surge swell taper
    triple vanish wane wax weaken widen worsen change
"""


def _ing(verb: str) -> str:
    if verb in {"drop", "recur", "remit"}:
        verb += verb[-1]
    return "dying" if verb == "die" else f"{verb.removesuffix('e')}ing"


_VERB = "(?:" + "|".join(_VERBS.split()) + ")"
_GOING = (
    "(?:"
    + "|".join(_ing(verb) for verb in _VERBS.split())
    + r"|getting|becoming|turning|going (?:up|down|away)|coming (?:up|down|back|on)|filling in|breaking up|closing up|"
    r"opening up|letting up|thinning out|drying out|tapering off|catching up)"
)
_FINDINGS = (
    r"\b(?:effusions?|pneumothora\w+|o?edema|consolidations?|opacit\w+|opacification|atelectasis|nodul\w+|mass(?:es)?|"
    r"infiltrat\w+|congestion|pneumonias?|collections?|h(?:a)?emothora\w+|cardiomegaly|(?:lymph)?adenopathy|"
    r"fluid|collapse|"
    r"haz(?:e|iness)|abscess|cavit\w+|metastas\w+|h(?:a)?ematoma|shadow\w*|ptx|contusion|consolidative|airspace|"
    r"air|gas|emphysema|pneumomediastinum)"
)
_FILM = (
    r"(?:films?|stud(?:y|ies)|exam(?:ination)?s?|radiographs?|cxrs?|x-?rays?|cts?|scans?|mri|pet|hrct|ctpa|portables?|"
    r"imaging)"
)
_MEASURE = r"\d[\d.]*\s*(?:x\s*\d[\d.]*\s*)?(?:mm|cm|%)"
_EARLIER_WORD = r"(?:priors?|previous|previously|formerly|earlier|yesterday|before|originally|initially|last)"
_SIGNALS = (
    # One word is enough.
    (
        r"\b(?:priors|dwindl\w*|wan(?:e|es|ing|ed)|abat(?:e|es|ed|ing)|unabated|unremitting|unrelenting|relaps\w+|"
        r"recrudesc\w+|retrospect\w*|meantime|meanwhile|predat\w+|antedat\w+|superven\w+|ensued|endures?|trend\w*|"
        r"resurgence|rebound(?:ed|ing|s)?|re-?develop\w*|re-?emerg\w*|"
        r"re-?collaps\w*|re-?opacif\w*|re-?consolidat\w*|re-?enlarg\w*)\b"
    ),
    (
        r"\bde novo\b|\bstatus quo\b|\bas (?:it|they) (?:was|were)\b|\bone and the same\b|\bin the (?:past|"
        r"last) interval\b"
    ),
    # Progressive aspect and verbs of beginning, going on and not happening.
    (
        rf"(?<!there )\b(?:is|are|been|keeps?|kept)\s+(?:(?:now|still|also|not|only|just|"
        rf"\w+ly)\s+)*{_GOING}\b(?!\s+(?:a|"
        rf"an|the)\b)"
    ),
    (
        rf"\b(?:beg[iau]n\w*|start(?:s|ed|ing)?|cease[sd]?|continu\w+|tend(?:s|ed|ing)?|fail(?:s|ed|ing|ure)?|slow|yet|"
        rf"going|refus\w+|proved)\s+to\s+(?:come|go|fill|let|be)?\s*(?:{_VERB}|up|down|away|in|seen)\b"
    ),
    rf"\b(?:does|do|did|has|have)\s+not\s+(?:\w+ly\s+)?(?:{_VERB}|grow|go away|alter|move|shift|worsened)\b",
    (
        r"\b(?:has|have)\s+(?:\w+ly\s+)?(?:let up|set in|crept|come|put|sunk|shrunk|held|kept|become|begun|gone|"
        r"been\s+(?:\w+ly\s+)?"
        r"(?:constant|steady|static|absent|clear|the same|put|pulled|left|swapped|out))\b"
    ),
    (
        r"\b(?:holds|holding|held)\s+(?:steady|constant|stable)\b|\b(?:retains?|kept|keeps|retained|maintains?) (?:its|"
        r"their) (?:size|shape|"
        r"position|appearance|configuration)\b"
    ),
    # Comparison without its object.
    (
        r"\b(?:is|are|looks?|appears?|seems?|be|now|and|but|,)\s+(?:\w+ly\s+)?(?:a (?:bit|little|touch|shade|tad|lot|"
        r"trace|"
        r"fraction)|ever so slightly|somewhat|rather|far|much|marginally)\s+"
        r"(?:\w{3,}er|worse|less|more)(?=\s*(?:$|[.,;]|and\b|but\b|now\b|today\b))"
    ),
    (
        r"\b(?:is|are|looks?|appears?|seems?)\s+(?:bigger|larger|smaller|worse|better|poorer|clearer|fuller|denser)\s+"
        r"(?:to me|now|today|on today's|at present|this time|overall|here)\b"
    ),
    (
        rf"^(?:\d+[.)]\s*)?(?:slightly|somewhat|much|considerably|markedly)?\s*(?:more|less|"
        rf"fewer)\s+(?:\w+\s+){{0,2}}{_FINDINGS}\b"
    ),
    (
        r"\b(?:lower|higher|smaller|larger|poorer|better|shallower|deeper|greater|improved|fuller)\s+(?:lung volumes?|"
        r"inspirat\w+|inspiratory \w+|degree of inspiration)\b(?!\s+(?:would|could|may|on the (?:left|right)))"
    ),
    (
        r"\b(?:inspiration|inspiratory effort|lung volumes?|aeration|expansion)\s+(?:is|are)\s+(?:\w+ly\s+)?\w{3,}er\b"
        r"(?!\s+(?:than|on|in|at|left|right))"
    ),
    (
        r"^(?:\w+ly\s+)?(?:less|more|same)\W*$|^(?:\w+ly\s+)?(?:worse|better|smaller|larger|bigger|clearer)(?:\s+(?:on|"
        r"at|in)\s+(?:the\s+)?(?:right|left|"
        r"bases?|both sides))?\W*$"
    ),
    (
        r"\b(?:twice|half|double|triple|\w+ times)\s+(?:as (?:large|big|wide|thick|dense)|(?:the|its) (?:\w+ )?size)\b"
        r"(?!\s+(?:as|of|than)\s+(?:the\s+)?(?:left|right|other|normal|opposite|trachea))"
    ),
    # Sameness without its object.
    (
        r"\bsame\s*(?:[.,;)]|$)|\b(?:looks?|appears?|are|is)\s+(?:\w+ly\s+)?(?:much\s+)?the same\b(?!\s+(?:on both|"
        r"in both|bilat|"
        r"side|level|lobe|as the))|\bposition same\b"
    ),
    (
        r"\b(?:in|of)\s+(?:a\s+)?(?:similar|comparable|equivalent)\s+(?:position|location|placement|positioning|"
        r"extent)s?\b"
    ),
    r"\b(?:comparable|equivalent|similar)\s+(?:appearance|exam\w*|study|film|findings|picture|radiograph)\W*$",
    r"\blittle (?:\w+ )?(?:change|difference|alteration|progress|improvement)\b",
    r"^no chang(?:e|es)\W*$|\bthis is (?:a|an old|an interval|not a) (?:change|new|finding)\b",
    (
        r"\b(?:difference|change|differences|changes)\s+(?:in|of|from|between)\b[^.;]*\b(?:films?|studies|exams?|"
        r"radiographs|"
        r"images)\b"
    ),
    (
        r"\b(?:apparent|perceived|seeming|relative)\s+(?:increase|decrease|change|improvement|worsening|progression|"
        r"growth)\b"
    ),
    # An earlier study, in other words.
    (
        rf"(?:\b(?:vs\.?|versus|cf\.?|c/w|per|alongside|beside|against|with|from|on|to|of|than|like|since|match\w*|"
        rf"resembl\w+|mirror\w*)|[<>=])\s+(?:(?:the|that|those|most|her|his|multiple|several|of|on|seen)\s+)*"
        rf"{_EARLIER_WORD}\W*$"
    ),
    rf"\b(?:match\w*|resembl\w+|mirror\w*|reproduc\w+|echo(?:es|ing))\s+(?:\w+\s+){{0,4}}{_EARLIER_WORD}\b",
    rf"(?:\bvs\.?|\bversus|\bcf\.?|[<>=])\s+(?:the\s+)?{_EARLIER_WORD}\b",
    (
        rf"\b(?:prior|previous|earlier|preceding|older|outside|last|yesterday's)\s+(?:(?:chest|frontal|lateral|"
        rf"portable|"
        rf"ap|pa|day|most|"
        rf"hospital)\s+)*(?:views?|projections?|series|{IMAGING})\b"
    ),
    (
        rf"\b(?:than|from|on|to|with|since|of|by|at|in)\s+the\s+(?:immediate\s+)?(?:pre-?op\w*|post-?op\w*|"
        rf"post-?procedur\w*|"
        rf"admission|initial|presenting|same[- ]day|am|pm|morning|evening|pre-?extubation|post-?intubation|recent)\s+"
        rf"(?:(?:chest|frontal|lateral|portable|ap|pa)\s+)*(?:views?|projections?|series|(?!chest\b){IMAGING})\b"
    ),
    (
        r"\b(?:reviewed|read|interpreted|viewed|seen)\s+(?:\w+\s+)?(?:alongside|side[- ]by[- ]side|"
        r"together with|beside|"
        r"next to|"
        r"in conjunction with)\b"
    ),
    (
        r"\b(?:see|refer to|per|in|from|on)\s+(?:the\s+)?(?:\w+\s+)?(?:previous|prior|earlier|last|"
        r"recent)?\s*(?:report|"
        r"dictation)"
        r"\s+(?:of|from|dated)\b|\b(?:previous|prior|earlier|last|yesterday's)\s+(?:\w+\s+)?(?:report|"
        r"dictation|reading)\b"
    ),
    (
        r"\bas (?:already|earlier|just|was|had been)\s+\w+(?:ed|en)\b|\balready\s+(?:present|seen|noted|visible|known|"
        r"evident|"
        r"there|described|reported|demonstrated|on|in)\b(?!\s+(?:to|treatment|therapy|antibiotics))"
    ),
    (
        r"\bre-?peat(?:ed)?\s+(?:chest\s+)?(?:film|study|radiograph|imaging|examination|exam|x-?ray|view)\s+(?:shows?|"
        r"demonstrates?|"
        r"reveals?|today|now)\b|^on (?:the )?repeat\b"
    ),
    # Another time.
    (
        rf"\b(?:known|present|seen|noted|visible|followed|documented|dates?|dating|goes|going|trace\w*|"
        rf"recorded|there|back|"
        rf"stable|unchanged|from|new|since|until|measured|described|clear|normal)\s+(?:back\s+)?(?:(?:to|since|from|in|"
        rf"on|of|as of|"
        rf"for)\s+)?(?:at least\s+)?(?:(?:the\s+)?(?:{MONTH})\s+)?(?:(?:in|of)\s+)?(?:19|20)\d\d\b"
    ),
    (
        r"\b(?:placed|inserted|put in|sited|removed|pulled|advanced|withdrawn|repositioned|taken out|added|"
        r"started)\s+(?:earlier\s+)?"
        r"(?:today|overnight|yesterday|this morning|last night|since)\b"
    ),
    r"\b(?:came|went|slipped|popped|fell)\s+(?:out|in|back|up|down|away)\b",
    (
        r"\b(?:tubes?|drains?|lines?|catheters?|picc|ett|ngt)\s+(?:now\s+)?(?:out|pulled|gone|placed|inserted|removed|"
        r"advanced|"
        r"withdrawn)\s*(?:[.,;]|$|and\b)(?<!is placed)(?<!are placed)"
    ),
    r"\b(?:larger|smaller|bigger|present|there|visible|normal|clear|worse|better|seen|large|small)\s+before\W*$",
    (
        rf"{_MEASURE}[^.;]{{0,25}}\b(?:was|were|previous\w*|prior|earlier|before|formerly|initially|originally|against|"
        rf"from)\b[^;]{{0,20}}\d"
    ),
    (
        r"\bthe (?:size|extent|position|appearance) (?:it|they) (?:was|were|had)\b|\bwith reference to (?:the )?(?:___|"
        r"X{3}|\d|prior|previous)|"
        r"\b(?:better|worse)[- ]looking\b"
    ),
    r"\bmeasured\b[^.;]{1,40}\b(?:and|but)\s+(?:now\s+)?(?:measures?|is)\b",
    # Past tense: a report states what is there now, in the present. Procedures and messages are in the past, too.
    (
        r"(?<!patient )(?<!pt )(?<!he )(?<!she )(?<!who )(?<!inspiration )(?<!effort )(?<!exposure )(?<!technique "
        r")(?<!quality )"
        r"(?<!study )(?<!exam )(?<!views )(?<!view )(?<!images )(?<!there )\b(?:was|were)\b\s+(?!(?:(?:\w+ly|not|"
        r"also|all|both|then|being|never|again)\s+){0,3}"
        r"(?:\w+ed|\w+en|done|made|sent|cut|put|read|held|told|born|shown|supine|erect|upright|rotated)\b)\w"
    ),
    (
        rf"\b(?:was|were)\b[^.;]{{0,60}}\b(?:on|in|by|at)\s+(?:(?:the|an?|his|her|their)\s+)?(?:(?!this|today|current|"
        rf"present|lateral|frontal|pa\b|"
        rf"ap\b|supine|upright|erect|rotated|single|portable)[\w-]+\s+){{0,3}}{_FILM}\b"
    ),
    # Telegraphic predicates.
    (
        r"^(?:\d+[.)]\s*)?[\w/ -]{1,40}\b(?<!right )(?<!left )(?:worse|better|smaller|larger|bigger)(?:\s+(?:slightly|"
        r"a bit|now|today))?\s*(?:[.,;]|$)|"
        r"^(?:left|right|l|r)(?: side| base| lung)?:? (?:worse|better|smaller|larger|bigger|clearer|"
        r"improved)\s*(?:[.,;]|"
        r"$)"
    ),
    (
        rf"\b(?:{_FINDINGS}|size|heart|lungs?|volumes?|congestion|chf|markings)\s+(?:is |are |has |"
        rf"have )?(?:now |fully |"
        rf"slightly |a bit )*(?:up|down|less)\s*(?:to \d|[.,;]|$)|\bdown to \d"
    ),
    (
        r"\bonce[- ](?:large|small|clear|sharp|dense|collapsed|\w+ed)\b|\bas (?:noted|documented|described|known|seen|"
        r"reported|before)\W*$|\bas on (?:the )?(?:ct|mri|pet|\w+ ct)\b|"
        r"\bper (?:the )?(?:prior|previous|last|earlier)\b|\bnil (?:\w+ )?(?:change|new)\b|\bnil new\b|\bclearance\b|"
        r"\bunresolving\b"
    ),
    (
        r"\b(?:good|slow|satisfactory|poor|steady|some|no|further|continued|rapid|gradual) progress\b|\brefractory\b|"
        r"\bdespite (?:\w+ )?(?:drainage|treatment|therapy|"
        r"diuresis|diuretics|antibiotics)\b|\b(?:increased|decreased|improved|worsened|smaller|larger) (?:following|"
        r"after|post|since)\b"
    ),
    (
        rf"\b(?:in|since|from|of|on|until|by|late|early|mid)\s+(?:late |early |mid-?)?(?!may\b){MONTH}\b|"
        rf"\bformer\s+(?:\w+\s+){{0,2}}{_FINDINGS}\b|\b(?:one|two|both|all|none) (?:removed|pulled|"
        r"gone|added)\b|\b(?:upgraded|downgraded|converted|changed) (?:to|from)\b"
    ),
    (
        rf"\bcorrelation (?:is|was) made\b|\b(?:correlat(?:es?|ing)|correspond(?:s|ing)?)\s+(?:to|with)\b[^.;]*\b(?:ct|"
        rf"mri|pet|hrct|ctpa|{_EARLIER_WORD})\b|\b(?:ct|mri|pet|hrct|ctpa)\b"
        rf"[^.;]{{0,20}}\b(?:showed|demonstrated|revealed|(?<!be )confirmed)\b|\b(?:reported|questioned|referenced|"
        rf"described|aforementioned)\s+(?:\w+\s+){{0,3}}{_FINDINGS}\b|"
        rf"{_FINDINGS}\s+described\b|\bat least as \w+(?=\W*$| as)"
    ),
    (
        r"\binitially\b|\b(?:began|started) as\b|\bif anything\b|\babout the same\b|\bhealing phase\b|\bon the mend\b|"
        r"\bruns? its course\b|\brunning its course\b|\bconvalesc\w+|\bshrinkage\b|\bremission\b|"
        r"\bof the same (?:dimensions?|size|calibre|extent)\b(?! as)|\bat the same (?:level|position|place)\W*$|"
        r"\b\w{3,}er (?:following|after|since) \w+ation\b|"
        r"\bthe differences? (?:may|could|might|is|are|probably|likely)\b|^(?:clearer|fuller|denser|hazier|"
        r"sharper|wider|"
        r"fainter)\s+\w+s?\W*$"
    ),
    (
        r"\b(?:tubes?|ett?|tracheostomy|lines?|catheters?|drains?|picc)\b[^;.]{0,20}\b(?:replaces?|(?:is|are|"
        r"now) replaced)\b|\bdrainage of the \w+ has\b"
    ),
    r"^(?:new )?appearance of (?:an?|new|the new)\b",
    (
        r"(?<!attention )\bon (?:this |the |today's )?follow[- ]?up\b(?! (?:is|in|with|recommend\w*|advis\w*|"
        r"may|would|should|"
        r"imaging|films?|ct|radio\w+))|^follow[- ]?up:|"
        r"^repeat(?:ed)? (?:\w+ )?(?:lateral|pa|ap|frontal|film|view|study|radiograph)s?\b[^.;]{0,25}\b(?:shows?|"
        r"confirms?|demonstrates?|reveals?|is|now)\b(?! (?:recommended|"
        r"advised|suggested|needed|required))|\b\d+[- ](?:hours?|hrs?|days?|weeks?|months?) (?:delayed )?(?:film|"
        r"radiograph|study|cxr|x-?ray)\b(?! (?:is|may|would|should|recommended|advised))"
    ),
    # A film other than this one.
    (
        rf"\b(?:(?!may\b){MONTH}|(?:mon|tues|wednes|thurs|fri|satur|sun)day|(?:19|20)\d\d|neonatal|infant|"
        rf"childhood|birth|first|"
        rf"second|third|earliest|original|"
        rf"index|arrival|transfer|planning|staging|referring|referral|pre-?(?:op\w*|procedur\w*|treatment|extubation|"
        rf"intubation|drainage|"
        rf"therapy)|(?:night|day|morning|week|month|year|evening|yesterday|monday|sunday|"
        rf"hospital)['’]?s)\s+(?:(?:chest|"
        rf"portable|frontal|ap|pa|lateral)\s+)*{_FILM}\b"
        r"(?<!preoperative chest)"
    ),
    (
        r"\b(?:either|all|two|three|several|multiple|various|available|serial|sequential|successive|"
        r"consecutive|between|"
        r"recent|older|both)\s+(?:(?:the|of|"
        r"two|these|available|recent|portable|chest|radiographic)\s+){0,3}(?:films|studies|examinations|exams|"
        r"radiographs|x-?rays|cxrs|scans)\b"
    ),
    (
        rf"\b(?:either|each|neither)\s+(?:of the )?{_FILM}\b|\b{_FILM}\s+(?:to|on|after|by)\s+{_FILM}\b|\bday (?:to|"
        rf"by) day\b"
    ),
    (
        r"\b(?:described|seen|noted|reported|shown|demonstrated|visible|found|known|identified|evident|visuali[sz]ed|"
        r"present|characteri[sz]ed|depicted)\s+"
        r"(?:\w+ly\s+)?(?:on|at|in|by|from)\s+(?:(?:the|an?|his|her|outside|thoracic|"
        r"abdominal)\s+)*(?:chest\s+)?(?:hrct|ctpa|cta|ct|cts|mri|pet|pet[-/]ct|ultrasound|"
        r"echo\w*|mammogra\w+)\b"
    ),
    (
        r"\b(?:up|down) from\b|\b(?:go|goes|going|dates?|dating|stretch\w*|trac\w+) back\b|\bcom(?:es?|"
        r"ing) and go\w*\b|"
        r"\bhindsight\b|\bsince (?:the |his |her )?"
        r"(?:prior|previous|earlier|last|initial|first)\b|\bwhere (?:it|they) (?:was|were)\b|\blittle in the way of\b"
    ),
    (
        r"\bfurther (?:up|down|along|out|into|cranially|caudally|superiorly|inferiorly|laterally|medially|apically|"
        r"basally)\b"
    ),
    # Noun of change.
    (
        r"\b(?:improvement|deterioration|worsening|exacerbation|aggravation|reexpansion)\b|"
        r"(?<!caudal )(?<!cranial )\bprogression\b|\b(?:partial|good|excellent|"
        r"complete|poor|incomplete|favou?rable|some|no|treatment|marked|further) response\b|\bresponse to (?:treatment|"
        r"therapy|att|antibiotics|diure\w+|chemo\w*)\b"
    ),
    (
        r"^(?:\d+[.)]\s*)?(?:\w+ly\s+|somewhat\s+|much\s+)(?:more|less|fewer|greater|larger|smaller|higher|"
        r"lower|worse|"
        r"better|denser)\s+(?!than|on\b|in\b|at\b)[a-z]"
    ),
    (
        r"\bmore of the (?:left |right )?(?:lung|lobe|hemithorax|diaphragm|base)|\b(?:greater|lesser) (?:prominence|"
        r"extent|conspicuity|degree|density|opacity|amount|"
        r"volume)\b(?! (?:on|in|at) the (?:left|right)| than)"
    ),
    (
        rf"^(?:\d+[.)]\s*)?(?:\w+\s+)?(?:return|reversal|relapse|rebound|contraction|expansion|extension|spread|onset|"
        rf"loss)\s+of\s+"
        rf"(?:the\s+)?(?:\w+\s+){{0,3}}{_FINDINGS}\b"
    ),
    rf"\b(?:expanding|contracting|maturing|further|growing|additional new)\s+(?:\w+\s+){{0,2}}?{_FINDINGS}\b",
    (
        r"\b(?:increased|decreased|diminished|reduced|grown) in (?:size|number|extent|volume|degree|severity|"
        r"prominence|"
        r"conspicuity)\b"
    ),
    r"\bone of (?:\w+ )?(?:improvement|worsening|deterioration|progression|stability|resolution)\b",
    r"\b(?:is|are) back(?=\s*(?:[.,;]|$))|\b(?:is|are) back (?:up|down|in|again|to)\b",
    (
        rf"{_FINDINGS}\s+(?:\w+ly\s+)?(?:increased|decreased|improved|worsened|worse|better|less|"
        rf"cleared)(?:\s+\w+ly)?\s*(?:[.,;]|$)"
    ),
)
SIGNALS = [re.compile(pattern, re.IGNORECASE) for pattern in _SIGNALS]


def without_abbreviations(text: str) -> str:
    """Write common abbreviations and arrows of change as words."""
    if not _HAS_ABBREVIATION.search(text):
        return text
    for pattern, word in _ABBREVIATION:
        text = pattern.sub(word, text)
    return text
