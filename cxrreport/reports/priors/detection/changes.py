"""Patterns for statements of a change by grammatical kind: tense, comparison, noun of change, event, return.

All are for `re.IGNORECASE`.
"""

from __future__ import annotations

from cxrreport.reports.priors.vocabulary import EARLIER, IMAGING, MONTH, SEEN

_HOW = (
    r"(?:(?:not|never|also|now|since|all|both|nearly|almost|perhaps|somewhat|otherwise|quite|yet|just|"
    r"\w+ly|even|far|much|no|any|a bit|a little|but|further)\s+){0,4}"
)
# The perfect tense tells of an event since an earlier time, except for these verbs of history and procedure.
_NO_EVENT = (
    r"(?!(?:had|undergone|obtained|performed|reviewed|informed|notified|discussed|dictated|marked|excluded|"
    r"resected|repaired|"
    r"fused|treated|operated|diagnosed|described|suggested|recommended|ruled|known|done|included|coned|submitted|"
    r"cut|shown|"
    r"acquired|provided|labell?ed|made|used|requested|given|considered|associated|limited|healthy|bypassed|"
    r"irradiated|"
    r"interpreted|annotated|ordered|scanned|called|asked|seen by|read|signed|electronically|fixed|plated|"
    r"amputated|resurfaced|wired|stapled|sutured)\b)"
)
_EVENT = (
    rf"{_NO_EVENT}(?:\w{{2,}}ed|grown|shrunk(?:en)?|withdrawn|come|gone|fallen|risen|spread|become|arisen|taken|"
    rf"put|drawn|"
    r"worn|begun|broken|slid|sunk|lost|built|gotten|swollen)"
)
_GREW = (
    r"(?:increased|decreased|reduced|diminished|lessened|grown|shrunk(?:en)?|progressed|regressed|improved|worsened|"
    r"unaltered|reaccumulated|cleared|changed|evolved|advanced|receded)"
)
_COMPARATIVE = (
    r"(?:larger|smaller|bigger|greater|lower|higher|denser|wider|narrower|worse|better|thicker|thinner|milder|fuller|"
    r"clearer|deeper|shallower|fewer|fainter|sharper|tighter|straighter|longer|shorter|bulkier|hazier|patchier|"
    r"coarser|finer|rounder|flatter|darker|whiter|lighter|weaker|broader|fluffier|"
    r"(?:more|less)\s+(?!likely|common|typical|than|or\b|suggest|often|so\b|X{3}|_)\w+)"
)
_ELSEWHERE = (
    r"(?!\s+(?:than|to|from|lobes?\b|lungs?\b|zones?\b|limits?\b|in the|at the|on the lateral|toward|along|"
    r"within|over\b|"
    r"on (?:this|today|the current|the frontal)))"
)
_THAN_PRIOR = r"\b(?:[a-z]+er|worse|(?:more|less|fewer)\s+(?:[\w-]+))\s+(?:[\w-]+\s+){0,2}than\b"
_GROWS = (
    r"(?:effusions?|pneumothora\w+|o?edema|consolidations?|opacit\w+|opacification|atelectasis|nodul\w+|mass(?:es)?|"
    r"infiltrat\w+|congestion|pneumonias?|collections?|hemothora\w+|cardiomegaly|\w*adenopathy|pneumomediastinum|"
    r"fluid|"
    r"collapse|haz(?:e|iness)|abscess|cavit\w+|lesions?|disease|metastas\w+|tumou?r|hematoma|swelling|process|"
    r"failure|chf|"
    r"shadow\w*|ptx|emphysema|fibrosis)"
)
_TUBES = (
    r"(?:(?:et|ng|og|dht|chest|endotracheal|nasogastric|orogastric|enteric|feeding|tracheostomy|dobhoff|dobbhoff|"
    r"picc|central|venous|"
    r"drainage|thoracostomy|pigtail|pacing|pacer|swan[- ]ganz|picc|ij|subclavian|dialysis|support)\s+)*(?:tubes?|"
    r"lines?|catheters?|drains?|"
    r"picc|ett?|ngt|ogt|dht|icd|aicd|iabp|balloon|pump|pigtail|swan[- ]ganz|pacemaker|pacer|devices?|sheath|"
    r"leads?|cannula\w*|"
    r"ports?|port-a-cath|stent|tracheostomy|trach|wires?|peg|ppm|lvad|impella|ecmo|cvc|cvl|uac|uvc|cordis|introducer|"
    r"electrodes?)"
)
_MOVED = (
    r"(?:removed|re-?adjusted|adjusted|withdrawn|retracted|advanced|repositioned|re-?sited|pulled|exchanged|"
    r"changed|replaced|"
    r"reinserted|discontinued|disconnected|out(?! of)|taken out|swapped|upsized|downsized|moved|rewired|reinserted|"
    r"deployed|migrated|slipped|dislodged|d/?c'?ed|explanted)"
)
_CHANGE_NOUN = (
    r"(?:change|increase|decrease|improvement|progression|worsening|reduction|enlargement|alteration|growth|"
    r"deterioration|"
    r"variation|difference|evolution|extension|clearing|resolution|regression|shift|migration|displacement)s?"
)
_START = (
    r"^(?:(?:\d+|[a-h])[.)]\s*|[\w ]{1,20}:\s*){0,3}"
    r"(?:overall,?\s+|otherwise,?\s+|possible\s+|probable\s+|likely\s+)?"
)
_AGO = (
    r"(?:(?:\w+|\d+)[\s-](?:hours?|hrs?|days?|weeks?|wks?|months?|mos?|years?|yrs?)\s+(?:ago|later|earlier|before|"
    r"prior|previously|back)|"
    r"yesterday|overnight|last (?:night|week|month|year|film|exam\w*|time|study|radiograph|visit|admission|"
    r"x-?ray|ct|\w+day)|"
    r"(?:the )?(?:previous|prior|day[- ]before|preceding) (?:day|night|evening|morning|film|week|month|year)|"
    r"(?:the )?day[- ](?:before|prior))"
)

CHANGES = (
    # Perfect tense, affirmed or denied.
    rf"\b(?:has|have|having|had)\s+(?:to date\s+)?{_HOW}(?:been\s+{_HOW})?{_EVENT}\b",
    r"\b(?:was|were)\s+(?:\w+ly\s+)?(?:removed|repositioned|withdrawn|exchanged|pulled|retracted|advanced)\b",
    (
        r"\b(?:no longer|not any longer|gone|disappear\w*|vanish\w*|extubated|reabsorbed|resorbed)\b|"
        r"(?<!until )(?<!to )(?<!be )\bcleared\b|\bclearing\b|\bnot yet\b|\byet to\b|"
        r"\b(?:fails?|failed|failure|tendency|continu\w+|began|begun|slow|tends?) to (?:clear|resolve|change|"
        r"improve|progress|enlarge|grow|respond|re-?expand|"
        r"increase|decrease|worsen|shrink)\b"
    ),
    (
        r"\b(?:was|were)\s+(?:small|large|moderate|tiny|mild|severe|clear|normal|absent|present|"
        r"\d[\d.]*\s*[cm]m)\w*\s+(?:and|but|,)\s+(?:now\s+)?(?:is|are|measures?)\b"
    ),
    (
        r"\b(?:that|which|previously)\s+measured\b|\bwhere there (?:was|were|had)\b|\b(?:grew|rose|fell|shrank|"
        r"dropped|went|declined)\s+(?:from|to|by|in)\b"
    ),
    (
        r"\b(?:up|down) from (?:\d|___|the|a)|(?<!ranging )(?<!range )(?<!varying )(?<!sized )\bfrom \d[\d.]*\s*"
        r"(?:mm|cm)? to \d[\d.]*\s*(?:mm|cm)?"
    ),
    (
        rf"\b{IMAGING}\s+(?:at|of|from|on|dated|in)\s+[^,;]{{1,20}}\s(?:showed|demonstrated|revealed)\b|"
        rf"\b{EARLIER}\s+\w+\s+(?:showed|demonstrated|revealed|had)\b"
    ),
    # Comparison with another time.
    _THAN_PRIOR,
    (
        rf"\b(?:is|are|be|being|appears?|looks?|seems?|now|but|and|though|although|perhaps|,)\s+{_HOW}{_COMPARATIVE}"
        rf"(?=\s*(?:$|[.,;)]|and\b|but\b|in\s+(?:size|extent|number|degree|volume|severity|density|prominence)))"
        rf"(?<!\bupper and lower)"
    ),
    (
        rf"(?<!respectively ){_START}(?:\w+ly\s+)?(?:worse|better|larger|smaller|bigger|denser|fewer|wider|"
        rf"fainter|hazier|patchier|fuller|sharper|thicker|thinner|milder|(?:more|less)\s+(?!likely|than|or\b|"
        rf"of\b)\w+)\s+"
        rf"(?!than|on\b|in\b|at\b|of\b|seen|visuali|(?:left|right) (?:than|side)|or\b|lobe)[a-z]"
    ),
    (
        rf"\b(?:shows?|demonstrates?|reveals?|with)\s+(?:\w+ly\s+)?(?:larger|smaller|bigger|worse|better|denser|"
        rf"fewer|"
        rf"(?:reduced|improved|increased|decreased)(?!\s+(?:\w+\s+){{0,2}}opacit))\s+(?:(?:right|left|bilateral|"
        rf"small|"
        rf"pleural|basal|basilar)\s+)*{_GROWS}\b"
    ),
    (
        r"^(?!.*\b(?:bilateral|both)\b).*\b(?:is|are)\s+(?:\w+ly\s+)?(?:larger|smaller|bigger|worse|better)\s+on the "
        r"(?:left|right)\W*$"
    ),
    rf"\b(?:no|not|not any|without|any)\s+(?:larger|smaller|bigger|worse|better|denser|wider|fewer)\b{_ELSEWHERE}",
    r"\bnot (?:quite |nearly )?(?:as|so) (?:\w+ly )?(?:well )?\w+(?=\s*(?:as\b|$|[.,;]))|\bnowhere near (?:as|so)\b",
    r"\b(?:as|than|like)\s+(?:it|they|that|those|these|he|she)\s+(?:was|were|did|had|has)\b",
    (
        rf"\b(?:as|like)\s+(?:(?:in|on|at|of|per|with|for)\s+)?(?:the\s+)?(?:before|previously|earlier|yesterday|"
        rf"then|"
        rf"ever|{MONTH}|(?:19|20)\d\d|{_AGO})\b"
    ),
    # Noun of change.
    (
        r"\b(?:improvement|worsening|deterioration|regression|accentuation|aggravation|exacerbation|"
        r"re-?accumulation|recurrence|re-?appearance|"
        r"re-?expansion|"
        r"re-?aeration|re-?inflation|redistribution|accumulation|stabili[sz]ation|persistence)\s+(?:of|in)\b"
    ),
    (
        rf"{_START}(?:\w+\s+){{0,2}}(?:development|emergence|onset|recurrence|regression|resolution|diminution|"
        rf"abatement|healing|growth|"
        rf"progression|improvement|evolution|maturation|normali[sz]ation|recovery|restoration|"
        rf"disappearance)\s+of\b"
    ),
    (
        r"\bno\s+(?:(?:sig\.?|signif\.?|radiographic|radiological|perceptible|measurable|demonstrable|detectable|"
        r"material|meaningful|noticeable|"
        r"significant|interval|appreciable|substantial|definite|obvious|relevant|major|marked|apparent|"
        r"convincing|real|further|other|great|visible|"
        r"drastic|overt|gross|overall|evident|clear|discernible|particular|notable|new|intervening|serial|"
        r"important|such|clinically|radiographically)\s+){0,3}"
        r"(?:alteration|deterioration|variation|difference|evolution|progression|regression)s?\b"
    ),
    (
        r"\b(?:further|additional|ongoing|gradual|rapid|steady)\s+(?:increase|decrease|healing|consolidation|"
        r"clearing|collapse|"
        r"opacification|enlargement|loss|growth|resolution|progression|improvement|worsening|deterioration|"
        r"reduction|accumulation|expansion|re-?expansion)\b"
    ),
    (
        r"\b(?:incomplete|near[- ]complete|complete|partial)\s+(?:clearing|resolution|improvement|regression|healing|"
        r"re-?expansion)\b"
    ),
    (
        r"\b(?:no|any|without|with|slight|mild|minimal|moderate|marked|significant|substantial|definite|further|"
        r"some|gradual|"
        r"rapid|continued|little|there is an?|evidence of|and|an|a)\s+(?:increase|decrease|reduction|growth|"
        r"progression|enlargement)\s+(?:in|of)\b"
        r"(?!\s+(?:the\s+)?(?:\w+\s+)?(?:heart\b(?! size)|cardiac|cardio\w+|silhouette|hil\w+|aort\w+|atri\w+|"
        r"ventric\w+|"
        r"pulmonary arter\w+|azygos|thyroid|lung volumes|ap\b|anteroposterior|height|lucency|radiolucency|"
        r"\w*\s*markings|disc|disk|bone|mineral\w+))"
    ),
    (
        r"\bthe (?:increase|decrease|reduction|improvement|worsening|change|difference|progression) (?:in|from|"
        r"between)\b"
    ),
    rf"\b(?:increase|decrease|reduction|growth|development) (?:in|of) (?:the |an? )?(?:\w+ ){{0,4}}{_GROWS}\b",
    rf"\bno\s+(?:\w+ly\s+)?(?:increased|decreased|enlarging|increasing|worsened)\s+(?:\w+\s+){{0,4}}{_GROWS}\b",
    (
        rf"^(?:\d+[.)]\s*)?(?:\w+ly\s+)?(?:increased|decreased|reduced|diminished)\s+(?:(?:right|left|bilateral)\s+"
        rf"(?:[\w-]+\s+){{0,2}}opacit\w+|(?:(?!interstitial|markings|volumes?|with)[\w-]+\s+){{0,3}}(?!opaci|"
        rf"shadow|emphys|fibros){_GROWS}\b)"
    ),
    (
        rf"\bthere (?:has|have) (?:also |now )?been (?:\w+ ){{0,4}}(?:{_CHANGE_NOUN}|(?!(?:resec|fixa|transplanta|"
        rf"radia|reconstruc|augmenta|amputa|opera|emboli[sz]a|abla|exci)[st]?ion)\w{{4,}}tion|development|removal|"
        rf"placement|insertion|withdrawal|advancement|"
        rf"repositioning|retraction|exchange|recurrence|appearance|extubation|intubation)\b"
    ),
    r"\b(?:increase|decrease) (?:in|of) (?:the )?(?:left|right)\b",
    # Attribute of change.
    (
        r"\b(?:diminishing|emerging|(?<!represent )(?<!reflect )(?<!or )(?<!with )(?<!versus )(?<!vs )(?<!vs\. )"
        r"(?<!be )(?<!of )(?<!possible )(?<!possibly )(?<!suggest )(?<!early )developing|growing|shrinking|"
        r"receding|subsiding|fading|"
        r"deteriorating|(?<!or )(?<!represent )(?<!reflect )(?<!early )(?<!XX )evolving|waxing|waning|"
        r"fluctuating|unresolved|unaltered|lingering|"
        r"non-?resolv\w+|nonprogressive|unimproved|abating|re-?expanding|re-?accumulating)\b"
    ),
    (
        r"\blinger\w*\b|\bongoing\b|\bsteady\b|\bstatic\b|\bunvarying\b|\binvariable\b|\bconstant (?:appearance|size|"
        r"in|position)"
    ),
    (
        rf"[,;:]\s+(?:\w+ly\s+)?{_GREW}\s*(?:in (?:size|number|extent)|since|slightly|[.,;]|$)|\b(?:is|are|"
        rf"appears?|looks?)\s+(?:\w+ly\s+)?(?:reduced|lessened|diminished|changed|altered)"
        rf"(?=\s*(?:[.,;]|$))(?<!volumes are reduced)(?<!volumes are diminished)(?<!height is reduced)"
        rf"(?<!density is reduced)(?<!volume is reduced)"
    ),
    (
        r"\b(?:recently|newly|just)\s+(?:added|placed|inserted|sited|introduced|removed|implanted|developed|appeared|"
        r"seen)\b"
    ),
    # Event of a device.
    (
        rf"\b{_TUBES},?\s+(?:(?:has|have|is|are|was|were|been|now|all|also|since)\s+)*(?:\w+ly\s+)?{_MOVED}\b(?!\s+"
        rf"(?:should|by\b))"
    ),
    (
        rf"(?:{_START}|[,;]\s*)(?:the\s+)?(?:removal|withdrawal|retraction|exchange|replacement|advancement|"
        rf"discontinuation|placement|insertion|repositioning|re-?siting|"
        rf"introduction|extubation|re-?intubation)\s+of\s+(?:the\s+|an?\s+|all\s+)?(?:\w+\s+){{0,2}}?{_TUBES}\b"
    ),
    rf"\b(?:prior|previous(?:ly)?|former(?:ly)?|earlier|old)\s+(?:\w+\s+){{0,2}}{_TUBES}\b",
    r"\bre-?(?:aerat|expan|inflat|accumul|appear|demonstrat|identif|visuali[sz])\w*",
    (
        r":\s*(?:\w+ly\s+)?(?:improved|worse|better|same|stable|unchanged|increased|decreased|cleared|smaller|larger|"
        r"clearing|resolved)\b"
    ),
    (
        r"\b(?:is|are|appears?)\s+(?:\w+ly\s+)?(?:less|more|fewer)\s*(?:[.,;]|$)|\b(?:is|are)\s+(?:\w+ly\s+)?"
        r"(?:clearing|regressing|recovering|"
        r"accumulating|spreading|coalescing|migrating|advancing|retracting|progressing|abating|healing)\b|\b"
        r"(?:lessening|abating|regressing|recovering)\b"
    ),
    (
        r"\b(?:shows?|demonstrates?|reveals?)\s+(?:\w+\s+){0,2}(?:increase|decrease|growth|progress|progression|"
        r"resolution|improvement|worsening|deterioration|"
        r"clearing|recovery|re-?expansion)\b"
    ),
    (
        rf"{_START}(?:\w+\s+)?(?:decrease|improvement|progression|worsening|reduction|clearing|regression|"
        rf"deterioration)\s+(?!of life)\w"
    ),
    # Return and time.
    (
        r"\b(?:back|return(?:s|ed)?|revert(?:s|ed)?|restored) to (?:its |the |their |a )?(?:\w+ )?(?:normal|"
        r"baseline|previous|prior|original|"
        r"usual|standard|satisfactory|expected)"
    ),
    r"\bbaseline (?:appearance|size|study|film|radiograph|exam\w*)\b|\bfrom baseline\b|\bat baseline\b",
    (
        rf"\b(?:{SEEN}|than|as|like|since|from|worse|better|severe)\s+before\b(?!\s+\w)|\bas (?:was|were)?\s*"
        rf"(?:{SEEN}|described|stated)\s+(?:earlier|"
        rf"previously|before)\b|\b(?:{SEEN})\s+(?:earlier|previously|formerly)\b|\b(?:earlier|formerly)\s+"
        rf"(?:{SEEN}|clear|normal|large|small)\b|\bformer\s+(?:position|"
        r"location|site|size|level|appearance|place|extent)\b"
    ),
    rf"\b{_AGO}\b|\b(?:first|initially|originally) (?:{SEEN})\b",
    (
        rf"\b(?:than|since|from|until|by|of)\s+(?:in\s+)?(?:{MONTH}|(?:19|20)\d\d)\b(?<!of may)(?<!than may)"
        rf"(?<!from may)|\b{IMAGING}\s+(?:\w+\s+)?(?:in\s+)?(?:19|20)\d\d\b|"
        rf"\b{IMAGING}\s+(?:of|from|dated|on)?\s*\d{{1,2}}[/-]\d{{1,2}}\b(?!\s*(?:wks?|weeks?|mos?|months?|days?|"
        rf"hours?)\b)|^(?:comparisons?|priors?|previous|"
        rf"reference)\s*:|\bcompar\w+ with \d"
    ),
    (
        r"\b(?:over time|serial(?:ly)?|in the meantime|meanwhile|over (?:the (?:past|last|intervening|course)|"
        r"(?:\w+ )?(?:two|three|four|five|several|many|\d+) (?:hours|days|"
        r"weeks|months|years))|in the (?:past|last) (?:few |\w+ )?(?:hours?|days?|weeks?|months?|years?)|since "
        r"(?:the )?(?:admission|surgery|operation|"
        r"extubation|intubation|thoracentesis|bronchoscopy|then|this morning|last|drainage|procedure|event|first|"
        r"initial|recent|time)|intervening)\b"
    ),
    r"\b(?:heretofore|hitherto|at that time|in the past(?= (?:and|it|this|but))|since that time|longstanding on)\b",
    (
        rf"\b(?:the|from|on|with|than|of|to|since)\s+(?:admission|pre-?operative|pre-?op|initial|original|first|"
        rf"trauma|index|scout|earliest|baseline|"
        rf"referral|referring|outside|external|"
        rf"archived?|historical|same-day|sequential|successive|consecutive|serial|comparison)\s+(?:chest\s+|"
        rf"portable\s+)?(?!chest|images?\b){IMAGING}\b"
    ),
    (
        r"\b(?:on|since|from|than|of|last)\s+(?:monday|tuesday|wednesday|thursday|friday|saturday|sunday)\b|\bdat"
        r"(?:ing|es?) (?:from|back)\b"
    ),
    (
        rf"\bas\s+(?:{SEEN})\s+(?:at|during|on)\s+(?:the\s+)?(?:time|admission|presentation|last|first|initial|"
        rf"earlier)\b|\bat the time of admission\b"
    ),
    (
        rf"\b(?:which|that)\s+(?:was|were)\s+(?:not\s+|never\s+)?(?:\w+ly\s+)?{SEEN}\b|\b(?:was|were)\s+not\s+"
        rf"(?:\w+ly\s+)?{SEEN}\b"
    ),
    r"\b(?:was|were)\b[^.;,]{1,60}\b(?:and|but)\s+(?:is|are|has|have|measures?)\b",
    (
        r"(?<!volumes )(?<!volume )(?<!density )(?<!markings )(?<!vascularity )(?<!height )(?<!diameter )"
        r"(?<!space )(?<!spaces )(?<!lucency )(?<!are )(?<!is )(?<!appear )(?<!appears )"
        r"\b(?:\w+ly|much|somewhat|an? (?:little|bit|lot|touch))\s+(?:reduced|increased|decreased|improved|worse|"
        r"better|larger|smaller|bigger|diminished)\s*(?:[.,;]|$)"
    ),
    rf"{_START}(?:\w+\s+)?(?:improvement|progression|worsening|deterioration|regression|resolution)\W*$",
    (
        r"\bsince\s+(?:\w+\s+){0,4}(?:insertion|placement|removal|drainage|extubation|intubation|surgery|"
        r"operation|admission|procedure|injury|"
        r"thoracentesis|aspiration|therapy|treatment|diuresis|withdrawal|discharge|exchange)\b"
    ),
    (
        rf"\breference is made\b|\b\d{{1,2}}(?:st|nd|rd|th)?\s+(?:of\s+)?{MONTH}\b|\b{MONTH}\s+"
        rf"(?:the\s+)?\d{{1,2}}\b|\b\d[\d.]*\s*(?:mm|cm|%)\s+(?:larger|smaller|"
        r"bigger|longer|wider|thicker)\b(?!\s+than)"
    ),
    (
        r"\b(?:earlier|previously|formerly)\s+\w+(?:ed|en)\b|\b(?:better|worse|poorer|improved)\s+(?:\w+\s+)?"
        r"(?:expansion|aeration|inflation|inspiration|"
        r"inspiratory|ventilation|expanded|aerated|inflated|ventilated)\b"
    ),
    (
        r"\b(?:shows?|demonstrates?|reveals?|has|have|with)\s+(?:\w+ly\s+)?(?:larger|smaller|bigger|denser|wider|"
        r"narrower|thicker|thinner|milder|fuller|"
        r"clearer|deeper|fewer|fainter|sharper|worse|better)\s+(?!than\b|on\b|in\b|at\b|of\b|seen|visuali|left\b|"
        r"right\b)[a-z]"
    ),
    (
        r"\b(?:larger|smaller|greater) (?:amounts?|volumes?|degrees?|extent|quantity|"
        r"quantities) of\b"
    ),
    (
        r"\b(?:has|have) given (?:way|place|rise)\b|\bas (?:on|in|at|of) (?:the )?(?:\d|___|X{3})|\b(?:is|are)\s+"
        r"(?:\w+ly\s+)?(?:contracting|dissolving|"
        r"dispersing|settling|draining|cavitating|reabsorbing|normali[sz]ing|evolving|resolving|changing|fading|"
        r"reversing|re-?accumulating)\b"
    ),
    # Follow-up film.
    (
        rf"^(?:\d+[.)]\s*)?(?:follow[- ]?up|f/u|fu|review|progress|check)\s+(?:(?:chest|portable|frontal|pa|"
        rf"ap)\s+)*(?:{IMAGING}\b|of\s+(?!the\s+patient))(?!.*\b(?:recommend\w*|suggested|advised|may|would|"
        rf"should|could|can|indicated|warranted|required|needed|in (?:\w+|\d+-\d+) "
        r"(?:days|weeks?|months?)|(?:to|for) (?:assess|ensure|document|evaluate|confirm|exclude|resolution|"
        r"further))\b)"
    ),
    # An earlier state or study.
    (
        r"\bused to (?:be|lie|have|measure|show)\b|\bwent on to\b|\b(?:which|that) (?:was|were) [^,;]{1,40}, "
        r"(?:is|are|lies)\b|\(\s*\d[\d.]*\s*[cm]m\s+(?:before|earlier|prior|previously)"
    ),
    (
        rf"\b(?:per|on|with)\s+(?:the\s+)?(?:(?:multiple|several|both|all|many|two|three)\s+)?(?:priors\b|"
        rf"previous\W*$)|"
        rf"\b(?:previous|prior|last)\s+(?:two|three|four|few|several|\d)\s+{IMAGING}|"
        rf"^on (?:this|the|today's) follow[- ]?up\b"
    ),
    (
        r"\bunch\b|\bagain(?=noted|seen)|\bno progress\b|"
        r"\bspread of (?:\w+ )?\w+ (?:in)?to\b|^(?:\w+ly )?(?:increased|decreased|reduced|diminished) but\b|"
        r"^(?:considerably|markedly|significantly|substantially|greatly) (?:reduced|diminished|decreased)\b"
        r"(?! (?:lung|inspir|bone|volume|transparen|lucen))"
    ),
    rf"\b{_GROWS}\s+(?:up|down) (?:a bit|a little|slightly|somewhat)\b",
    # Sameness.
    (
        r"\b(?:identical|essentially the same|much the same|the same as|no different|nothing new|no difference|"
        r"unvaried)\b|"
        r"\bthe same\s+(?:degree|extent|amount|size|position|appearance|configuration|pattern|location|severity|"
        r"distribution|as)\b"
    ),
    (
        rf"\b(?:consistent|concordant|in keeping|in line|accordance) with (?:the )?(?:prior|previous|earlier) "
        rf"(?:{IMAGING}|finding)"
    ),
    r"\b(?:prior|previous|earlier) (?:evidence|finding|abnormal|change|suggest|question|mention)\w*",
    (
        r"\bof (?:a )?similar (?:severity|degree|extent)\b|\bneither\s+(?:\w+ly\s+)?(?:better|worse|larger|"
        r"smaller|bigger|increased|decreased|improved|worsened)\b|"
        r"\bnot\s+(?:\w+ly\s+)?(?:altered|different|dissimilar|changed)\b|\bchanged\b|\bfresh\b(?!\s+(?:blood|"
        r"frozen|fracture))|\b(?:stays?|stayed|keeps)\b|"
        r"\b(?:some|slight|subtle|minor|obvious|definite|little|any|further|marked|significant|"
        r"dramatic)\s+change\b(?!\s+of\b)|"
        r"\bstatus quo\b|\b(?:non|un)changing\b|\bwithout (?:any )?(?:\w+ )?(?:change|difference|progression|"
        r"improvement|growth|alteration)\b"
    ),
)
