"""The words by which a report speaks of an earlier study. All patterns are for `re.IGNORECASE`.

Earlier *imaging* is meant. History stays: a prior operation, an old fracture, a chronic disease. So does what is asked
of the future: a follow-up, resolution that is to be documented.
"""

from __future__ import annotations

ADVERB = (
    r"(?:(?:very|essentially|grossly|relatively|largely|overall|otherwise|generally|likely|probably|possibly|slightly|"
    r"mildly|moderately|minimally|markedly|significantly|substantially|somewhat|also|only|much|quite|nearly|mostly|"
    r"perhaps|considerably|dramatically|roughly|fairly|overtly|appreciably|subtly|partially|definitely|clearly)\s+)*"
)
DEGREE = r"(?:(?:slight|mild|moderate|minimal|marked|significant|substantial|some|further|continued|little)\s+)*"
SAME = r"(?:stable|unchanged|constant|similar|static)"
GROWN = (
    r"(?:increased|decreased|improved|worsened|progressed|regressed|diminished|reduced|lessened|grown|shrunk|advanced|"
    r"larger|smaller|worse|better)"
)
GROWING = r"(?:increasing|decreasing|improving|worsening|enlarging|progressing|resolving|evolving|diminishing)"
CHANGE = (
    r"(?:increase|decrease|improvement|worsening|progression|reduction|regression|growth|development|"
    r"appearance|placement|insertion|progress|re-?accumulation|accumulation|exacerbation|diminution)"
)
NOTABLE = (
    r"(?:(?:significant|interval|appreciable|substantial|definite|obvious|gross|overall|relevant|major|marked|apparent|"
    r"discernible|convincing|important|clinically|other|great|evident|visible|real|further)\s+){0,3}"
)
WHEREIN = (
    r"(?:\s+in\s+(?:(?:its|their|overall|the)\s+)*"
    r"(?:size|appearance|position|positioning|extent|configuration|contours?|number|degree|severity|distribution|"
    r"location|volume|caliber|course|alignment|placement|prominence|conspicuity|density|width|morphology|shape)"
    r"(?:\s*(?:,|and|or|,\s*and)\s*(?:size|appearance|position|extent|configuration|contours?|number|degree|severity|"
    r"distribution|location|volume|caliber|course|alignment|morphology|shape))*)?"
)
_DATE = (
    r"(?:(?:___|X{3,}|\d{1,4}(?:[-/.]\d{1,4})+|\d{4}|"
    r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?(?:\s+\d{1,2})?(?:,?\s+\d{4})?|yesterday|"
    r"today|at|\d{1,2}:\d{2}(?:\s*[ap]\.?m\.?)?|earlier|the|same|day|this|morning|"
    r"(?:\d+|one|two|three|four|several)\s+(?:hours?|days?|weeks?|months?|years?)\s+(?:ago|prior|earlier|before))\b"
    r"(?:,?\s+)?)+(?<!\s)(?<!,)"
)
_IMAGING = (
    r"(?:stud(?:y|ies)|exam(?:ination)?s?|radiographs?|radiography|films?|x-?\s?rays?|x-X+|cts?|images?|imaging|scans?|"
    r"cxrs?|chests?|comparisons?|mri|pet|radiograms?|tomograms?|tomography|angiogram|roentgenograms?|X{3,})"
)
_EARLIER = (
    r"(?:priors?|previous|earlier|preceding|last|recent|older|old|outside|comparison|baseline|remote|same[- ]day)"
)
_KIND = (
    r"(?:chest|portable|ap|pa|frontal|lateral|and|single|view|two-view|thoracic|abdominal|ct|pet|pet-ct|of|x-?ray|"
    r"x-X+|X{3,}|___|most|more|available|plain|the|both|multiple|several|many|\d+)"
)
STUDY = (
    rf"(?:(?:the|a|an|his|her|their|patient's|any|all|most|more|multiple|several|both|many|prior)\s+)*"
    rf"(?:{_EARLIER}(?:\s+{_EARLIER})*(?:\s+{_KIND}){{0,6}}(?:\s+{_IMAGING}(?:/{_IMAGING})?)*"
    rf"|(?:(?:chest|portable|ap|pa|frontal|lateral|ct|X{{3,}})\s+){{0,3}}{_IMAGING}"
    rf"(?=\s+(?:of|from|dated|performed|obtained|done|on|earlier|yesterday|X{{3,}}|___)))"
    rf"(?:,?\s+(?:of|from|dated|performed|obtained|done|acquired|taken|on|at)(?:\s+on)?\s+{_DATE}|,?\s+{_DATE})*"
)
"""A noun phrase that names an earlier study, with its date where it has one."""
SINCE = rf"(?:{STUDY}|(?:approximately\s+)?{_DATE}|(?:that|the prior|the previous) (?:time|one)|then|before|prior)"
SEEN = (
    r"(?:seen|present|noted|visuali[sz]ed|visible|identified|demonstrated|described|evident|apparent|appreciated|"
    r"there|shown|observed|imaged|reported|mentioned|documented|detected|depicted)"
)
COMPARED = (
    rf"(?:(?:as|when|if)\s+)?(?:compared|comparing|in comparison|by comparison|in relation|relative|allowing for)\s+"
    rf"(?:(?:to|with|and)\s+)?{SINCE}"
)
FUTURE = (
    r"(?:ensure|document|confirm|assess|assure|insure|evaluate|until|verify|demonstrate|establish|show|exclude|to|"
    r"(?<!negative )for|check|monitor|prove)\s+"
    r"(?:(?:the|its|their|for|complete|full|interval|expected|any|possible|continued)\s+)*"
)
"""What stands before a resolution (or a change) that is yet to come."""
UNCLEAR = (
    rf"\b(?:X{{3,}}|___)\s+(?:(?:as|when)\s+)?(?:compared|since\s+{SINCE})",
    (
        rf"\b(?:lower|higher|greater|fewer|larger|smaller|more|less|better|worse)\b(?!\s+(?:lobes?|left|right|zone|thora))"
        rf"(?:\s+[\w-]+){{0,4}}\s+(?:{COMPARED}|than\s+{SINCE}|since\s+{SINCE}|from\s+{STUDY})"
    ),
)
"""What is compared here cannot be told once the comparison is gone."""

MENTIONS = (
    r"\b(?:unchanged|redemonstrat\w*|re-demonstrat\w*|reidentified|re-identified)\b",
    rf"(?<!clinically )(?<!hemodynamically )(?<!if )\bstabl[ey]\b|(?<!assess )(?<!establish )(?<!{'to '})\bstability\b",
    r"\bagain\b|\bonce more\b",
    (
        r"\binterval(?:ly)?\b(?!\s+(?:follow|chest\s+(?:ct|x)|ct\b|radiograph|imaging|x-ray|between))"
        r"(?<!short interval)(?<!short-interval)(?<!appropriate interval)(?<!an interval)"
    ),
    r"\bin the interim\b|\binterim\b",
    r"\b(?:no longer|not any longer|heretofore)\b",
    rf"\b(?:{COMPARED})",
    r"\bcompar(?:ed|ison|e|able|ative|isons)\b(?!\s+to\s+the\s+(?:left|right|other|contralateral|opposite))",
    (
        rf"\b(?:since|from|than|over|on|in|with|to|by)\s+(?:(?:the|a|his|her|any|all|most|both|multiple)\s+)*"
        rf"{_EARLIER}(?:\s+{_EARLIER})*(?:\s+{_KIND}){{0,6}}\s+{_IMAGING}\b"
    ),
    rf"\b(?:since|from|than|with|to|on)\s+(?:(?:the|most|his|her)\s+)*(?:priors?|previous|before)\s*(?:[.,;)]|$|(?={_DATE}))",
    r"\bsince\s+(?:the\s+)?(?:___|X{3,}|\d|yesterday|last)",
    (
        rf"\b{_EARLIER}\s+(?:{_KIND}\s+){{0,5}}(?:stud(?:y|ies)|exam(?:ination)?s?|radiographs?|films?|x-?rays?|x-X+|images?"
        r"|imaging|scans?|cts?|cxrs?|comparisons?|reports?)\b"
    ),
    r"\bpreviously\b(?!\s+(?:healed|treated|operated|resected|repaired|fractured))",
    rf"\b(?:previous|prior)\s+(?:{SEEN})",
    rf"\b(?:no|not|without|nothing)\s+(?:\w+ly\s+)?{NOTABLE}chang(?:e|ed)\b",
    r"\b(?:no|without)\s+(?:\w+\s+)?interval\s+changes?\b|\bno\s+significant\s+changes\b",
    r"\blittle\s+(?:interval\s+)?change\b",
    (
        rf"\b(?:effusions?|pneumothora\w+|cardiomegaly|o?edema|consolidations?|nodules?|mass(?:es)?|atelectasis)\s+"
        rf"(?:is|are)\s+{ADVERB}(?:increased|decreased)\b"
    ),
    r"\b(?:has|have)\s+(?:(?:not|also|now|slightly|mildly|significantly|markedly)\s+){0,2}changed\b",
    (
        rf"\b(?:has|have|had)\s+(?:been\s+)?{ADVERB}(?:{GROWN}|developed|appeared|cleared|resolved|enlarged|recurred|"
        r"migrated|advanced|receded|re-?expanded|reaccumulated|been removed|been placed|been inserted|been withdrawn|"
        r"been repositioned|been advanced|been retracted|been extubated|been intubated|been exchanged|received)\b"
    ),
    rf"\b(?:is|are|appears?|seems?)\s+{ADVERB}{GROWN}\s+in\s+(?:size|extent|number|degree|severity|volume|prominence)\b",
    r"\b(?:is|are|appears?)\s+(?:\w+ly\s+)?(?:improved|worsened|diminished|resolved|better|worse)\b(?!\s+(?:on|in)\s+the)",
    r"(?<!right )(?<!left )\b(?:smaller|larger|worse)\s+than\s+(?:before|prior|previous|on|in)\b",
    (
        rf"^(?:\d+\.\s*)?{ADVERB}{DEGREE}(?:improvement|progression|increase|decrease|worsening|reduction|clearing|"
        r"resolution)\s+(?:in|of)\b"
    ),
    r"(?<!represent )(?<!reflect )(?<!versus )(?<!suggest )(?<!indicate )(?<!or )\b(?:resolving|resolved)\b",
    r"(?<!high )(?<!high-)\bresolution\b",
    r"\b(?:a|an|interval)\s+(?:\w+\s+)?change\s+in\b",
    r"\benlargement of (?:the )?(?:\w+ ){0,3}(?:effusion|pneumothorax|mass|nodule|opacity)\b",
    r"^(?:\d+\.\s*)?(?:increased|decreased)\s+(?:size|extent|conspicuity|number)\s+of\b",
    rf"\bsince\s+(?:the\s+)?(?:\w+\s+){{0,3}}(?:{_IMAGING}|removal|placement|intubation|extubation)\b",
    (
        r"\b(?:improved|worsened|improving|worsening|enlarging|decreasing|increasing|progressing)\b"
        r"(?!\s+(?:visuali|characteri|evaluat|assess|specific|sensitiv|symptom|dyspn|shortness|cough|pain|fever|hypox))"
    ),
    (
        r"\b(?:decreased|increased|reduced)\s+(?:(?:right|left|bilateral|small|moderate|large|pleural|basilar|apical|size"
        r"|of|the|loculated)\s+){0,4}(?:effusions?|pneumothora\w+|pneumomediastinum|pleural fluid)\b"
    ),
    r"\bpersist(?:ent|ently|s|ing|ed|ence)?\b(?<!concern persists)(?<!symptoms persist)(?<!pain persists)",
    r"\b(?:remains?|remained|remaining)\b(?<!remains indeterminate)(?<!the remaining)(?<!the remain)(?<!the remains)",
    r"\bcontinu(?:ed|es|ing)\b(?!\s+(?:follow|attention|surveillance|monitoring|clinical))",
    r"\bstill\b(?!\s+(?:not excluded|be considered|possible))",
    r"\bnow\b|^currently\b",
    r"\b(?:new|newly)\b(?!\s+york)",
    r"\bprogressive(?:ly)?\b(?!\s+(?:massive|systemic|dyspn|cough|shortness|short|symptom|hypox|weakness))",
    r"\bdisease progression\b|(?<!time )\bprogress(?:ed|ion)\b",
    (
        r"\b(?:more|less)\s+(?:prominent|conspicuous|apparent|extensive|dense|pronounced|evident|severe|confluent|distinct)"
        r"\b(?!\s+(?:than|on|in|at|within|over|along|towards?)\b)"
    ),
    r"\b(?:better|less well|more poorly|less|more)\s+(?:aerated|inflated|expanded)\b(?!\s+(?:than|on the))",
    (
        r"^(?:\d+\.\s*)?(?:overall\s+)?similar\b|\b(?:appear|are|is|appears)\s+similar\b(?!\s+to the)|"
        r"\bsimilar\s+(?:in|to)\s+(?:appearance|size|extent|the prior|prior|previous|before|position|that)"
    ),
    r"\b(?:has|have)\s+been\s+(?:interval\s+)?(?:removal|placement|insertion|removed|placed|extubat|intubat)",
    (
        r"\b(?:is|are)\s+(?:not\s+)?(?:\w+ly\s+)?(?:smaller|larger)\b"
        r"(?!\s+(?:than\s+)?(?:on\s+)?(?:the\s+)?(?:right|left|normal))"
    ),
    r"\bno\s+(?:significant\s+|definite\s+)?(?:increase|decrease|enlargement|worsening|improvement)\b",
    (
        r"\bthere (?:has|have) been\s+(?:\w+\s+){0,2}(?:improvement|progression|increase"
        r"|decrease|worsening|change|reduction)\b"
    ),
    r"\bas (?:before|previously)\b",
    (
        r"\b(?:decreased|reduced)\s+(?:opacity|opacities|consolidation|atelectasis)\b|"
        r"\b(?:increased|decreased)\s+(?:o?edema|cardiomegaly|consolidation|atelectasis)\b"
    ),
    r"\bsame (?:position|place|location|appearance|size)\b",
    r"\bno residual\b|\bresidual\s+(?:pneumothorax|effusion)",
    r"\b(?:change|changes|difference)\s+(?:since|compared)\b",
    r"\bchanges?\s+from\s+(?:the\s+)?(?:prior|previous|X{3,}|___|\d)",
)
"""Each is enough to say that a sentence mentions an earlier study."""

NEVER_EDITED = (
    r"\b(?:resol(?:ved|ution|ves)|cleared|clearing|clearance)\b",
    r"\bno longer\b|\bnot any longer\b|\bdisappear",
    (
        r"\b(?:removal|removed|extubat\w*|withdrawn|withdrawal|retracted|discontinued|taken out|exchanged?|advanced|"
        r"repositioned|replaced|migrat\w+)\b"
    ),
    r"\b(?:if|should)\b.*\b(?:prior|old|older|previous|comparison|outside)\b",
    r"\b(?:interval enlargement|enlargement of (?:the )?(?:\w+ ){0,3}(?:effusion|pneumothorax|mass|nodule|opacity))\b",
    (
        r"\b(?:comparison|prior|priors|old|previous)\s+(?:[\w,]+\s+){0,4}"
        r"(?:available|unavailable|helpful|useful|obtained|requested|recommended)\b"
    ),
    (
        rf"\b(?:no|without|absence of|lack of|not|unavailable)\s+(?:\w+\s+){{0,2}}(?:prior|previous|comparison|old)\s+"
        rf"(?:\w+\s+){{0,3}}{_IMAGING}"
    ),
    r"\b(?:correlat\w+|comparison|compare|review)\s+(?:\w+\s+){0,2}(?:with|to|of)\s+(?:any\s+)?(?:prior|old|previous|outside)",
    r"\bprogression\b(?!\s+(?:of|in)\b)|\brecurren\w+\b",
    (
        r"\b(?:could|may|might|should|would|can)\s+(?:\w+\s+){0,2}(?:stable|unchanged|new|interval|compar\w+|improv\w+|"
        r"worsen\w*|increas\w+)\b"
    ),
    r"\b(?:more|less|better|worse|larger|smaller|fewer)\b(?!\s+(?:than|on|in)\s+(?:the\s+)?(?:right|left))",
    r"\b(?:difference|different|differs?|differing)\b",
    r"\bat least (?:as|since)\b|\bdating back\b",
    r"\b(?:waxing|waning|fluctuat\w+|alternat\w+)\b",
    r"\bunless\b|\bwhether\b|\bcannot\b",
)
"""What a deletion of words could turn into something else: such a clause is left out as a whole."""

ANATOMY = frozenset(
    [
        "heart",
        "cardiac",
        "cardio",
        "cardiomediastinal",
        "cardiopulmonary",
        "mediastinal",
        "mediastinum",
        "hilar",
        "hila",
        "hilum",
        "silhouette",
        "silhouettes",
        "contour",
        "contours",
        "size",
        "sizes",
        "lung",
        "lungs",
        "pulmonary",
        "vascularity",
        "vasculature",
        "vessels",
        "aeration",
        "inflation",
        "expansion",
        "volume",
        "volumes",
        "appearance",
        "appearances",
        "chest",
        "exam",
        "examination",
        "study",
        "radiograph",
        "radiographs",
        "film",
        "films",
        "x-ray",
        "findings",
        "finding",
        "overall",
        "right",
        "left",
        "both",
        "bilateral",
        "lower",
        "upper",
        "middle",
        "mid",
        "lobe",
        "lobes",
        "base",
        "bases",
        "basal",
        "zone",
        "zones",
        "hemithorax",
        "hemidiaphragm",
        "hemidiaphragms",
        "diaphragm",
        "diaphragms",
        "aorta",
        "aortic",
        "knob",
        "trachea",
        "tracheal",
        "pleura",
        "pleural",
        "spaces",
        "space",
        "bones",
        "bony",
        "osseous",
        "structures",
        "structure",
        "skeleton",
        "thorax",
        "thoracic",
        "spine",
        "ribs",
        "rib",
        "soft",
        "tissue",
        "tissues",
        "position",
        "positions",
        "configuration",
        "alignment",
        "caliber",
        "shape",
        "image",
        "images",
        "imaging",
        "view",
        "views",
        "process",
        "disease",
        "status",
        "condition",
        "overall",
        "general",
        "remainder",
        "remaining",
        "rest",
        "other",
        "otherwise",
        "the",
        "a",
        "an",
        "of",
        "and",
        "in",
        "at",
        "with",
        "is",
        "are",
        "its",
        "their",
        "this",
        "that",
        "these",
        "those",
        "pattern",
        "patterns",
        "and/or",
        "or",
        "as",
        "well",
        "severity",
        "degree",
        "extent",
        "number",
        "xxxx",
        "___",
        "status",
        "clinical",
        "positioning",
        "location",
        "evaluation",
        "assessment",
        "comparison",
        "interval",
        "time",
        "lateral",
        "frontal",
        "ap",
        "pa",
        "portable",
    ]
)
"""Words that name what is always there: a phrase of nothing else is no finding."""
