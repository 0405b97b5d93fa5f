"""Patterns for words that refer to a prior study. All are for `re.IGNORECASE`.

They cover prior *imaging*, and neither history (an operation, an old fracture, a chronic disease) nor recommendations
(a follow-up, documentation of resolution).
"""

from __future__ import annotations

import re

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
ASPECT = (
    r"(?:\s+in\s+(?:(?:its|their|overall|the)\s+)*"
    r"(?:size|appearance|position|positioning|extent|configuration|contours?|number|degree|severity|distribution|"
    r"location|volume|caliber|course|alignment|placement|prominence|conspicuity|density|width|morphology|shape)"
    r"(?:\s*(?:,|and|or|,\s*and)\s*(?:size|appearance|position|extent|configuration|contours?|number|degree|severity|"
    r"distribution|location|volume|caliber|course|alignment|morphology|shape))*)?"
)
MONTH = (
    r"(?:january|february|march|april|may|june|july|august|september|october|november|december|jan|feb|mar|apr|jun|"
    r"jul|aug|sept?|oct|nov|dec)"
)
DATE = (
    r"(?:(?:(?:through|and) ___|___|X{3,}|\d{1,2}:\d{2}\s*[ap]\.m\.|\d{1,4}(?:[-/.]\d{1,4})+|\d{4}|"
    r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?(?:\s+\d{1,2})?(?:,?\s+\d{4})?|yesterday|"
    r"today|at(?=\s+(?:___|X{3}|\d))|\d{1,2}:\d{2}(?:\s*[ap]\.?m\.?)?|earlier|the(?=\s+(?:same|earlier|"
    r"day|morning))|(?:the\s+)?same|day|"
    r"this(?=\s+(?:same|day|date|morning|admission))|date|morning|"
    r"(?:\d+|one|two|three|four|several)\s+(?:hours?|days?|weeks?|months?|years?)\s+(?:ago|prior|earlier|"
    r"before))(?:\b|(?<=m\.))"
    r"(?:,?\s+)?)+(?<!\s)(?<!,)"
)
IMAGING = (
    r"(?:stud(?:y|ies)|exam(?:ination)?s?|radiographs?|radiography|films?|x-?\s?rays?|x-X+|cts?|images?|imaging|scans?|"
    r"cxrs?|chests?|comparisons?|mri|pet|radiograms?|tomograms?|tomography|tracings?|angiogram|roentgenograms?|X{3,})"
)
EARLIER = r"(?:priors?|previous|earlier|preceding|last|recent|older|old|outside|comparison|baseline|remote|same[- ]day)"
KIND = (
    r"(?:chest|portable|ap|pa|frontal|lateral|and|single|view|two-view|thoracic|abdominal|ct|pet|pet-ct|of|x-?ray|"
    r"x-X+|X{3,}|___|most|more|available|plain|year's|month's|week's|yesterday's|day's|morning's|night's|the|both|multiple|several|many|\d+)"
)
STUDY = (
    rf"(?:(?:the|a|an|his|her|their|patient's|any|all|most|more|multiple|several|both|many|prior)\s+)*"
    rf"(?:{EARLIER}(?:\s+{EARLIER})*(?:\s+{KIND}){{0,6}}(?:\s+{IMAGING}(?:/{IMAGING})?)*"
    rf"|(?:(?:chest|portable|ap|pa|frontal|lateral|ct|X{{3,}})\s+){{0,3}}{IMAGING}"
    rf"(?=\s+(?:of|from|dated|performed|obtained|done|on|earlier|yesterday|X{{3,}}|___)\b))"
    rf"(?:,?\s+(?:of|from|dated|performed|obtained|done|acquired|taken|on|at)(?:\s+on)?\s+{DATE}|,?\s+{DATE})*"
)
"""A noun phrase for a prior study, with its date if there is one."""
SINCE = (
    rf"(?:at least )?(?:{STUDY}|(?:approximately\s+)?{DATE}|(?:that|the prior|the previous) (?:time|one)|then|before|"
    r"prior)"
)
SEEN = (
    r"(?:seen|present|noted|visuali[sz]ed|visible|identified|demonstrated|described|evident|apparent|appreciated|"
    r"there|shown|observed|imaged|reported|mentioned|documented|detected|depicted)"
)
COMPARED = (
    rf"(?:(?:as|when|if)\s+)?(?:compared|comparing|in comparison|by comparison|in relation|relative|allowing for)\s+"
    rf"(?:(?:to|with|and)\s+)?{SINCE}"
)
PLACE_OR_SIZE = (
    r"(?:right|left|bilateral|upper|lower|middle|lobe|basilar|basal|apical|pleural|pulmonary|small|tiny|"
    r"moderate|large|mild|"
    r"severe)"
)
_ANATOMY_WORDS = """
    heart cardiac cardio cardiomediastinal cardiopulmonary mediastinal mediastinum hilar hila hilum silhouette
    silhouettes contour contours size sizes lung lungs pulmonary vascularity vasculature vessels aeration inflation
    expansion volume volumes appearance appearances chest exam examination study radiograph radiographs film films
    x-ray findings finding overall right left both bilateral lower upper middle mid lobe lobes base bases basal zone
    zones hemithorax hemidiaphragm hemidiaphragms diaphragm diaphragms aorta aortic knob trachea tracheal pleura
    pleural spaces space bones bony osseous structures structure skeleton thorax thoracic spine ribs rib soft tissue
    tissues position positions configuration alignment caliber shape image images imaging view views process disease
    status condition general remainder remaining rest other otherwise the a an of and in at with is are its their this
    that these those pattern patterns and/or or as well severity degree extent number xxxx ___ clinical positioning
    location evaluation assessment comparison interval time lateral frontal ap pa portable demonstrate
    demonstrates show shows reveal reveals
"""
ANATOMY = frozenset(_ANATOMY_WORDS.split())
"""Words for normal anatomy and the examination: a phrase of these words alone states no finding."""
PLACES = frozenset(
    ["right", "left", "bilateral", "both", "upper", "lower", "middle", "mid", "base", "bases", "basal", "lobe", "lobes"]
)
"""Words for a side or zone, which an edit never deletes."""
ADDED_WORDS = frozenset(["is", "are", "there", "seen", "a", "an"])
"""The only words that an edit adds: verbs in place of verbs of change, and the article that fits the next word."""
_CHANGE_WORDS = """
    stable stably unchanged constant static similar same again once redemonstrated re-demonstrated redemonstration
    re-demonstration re-identified reidentified new newly interval intervally interim increased increasing increase
    decreased decreasing decrease improved improving improvement worsened worsening progressed progressing progression
    progressive progressively regressed regression diminished diminishing reduced reduction lessened grown growth
    shrunk larger smaller worse better enlarging evolving developed developing development reaccumulated
    reaccumulation recurred persistent persistently persisting persists persist persistence residual remain remains
    remained continued continues continuing continuation still now currently changed change changes progress placement
    insertion placed resolving longer appeared wider advanced
"""
CHANGE_WORDS = frozenset(_CHANGE_WORDS.split())
"""Words that state a change, or its absence."""
_MENTION_WORDS = """
    previously previous prior priors earlier preceding last recent older old outside comparison baseline remote
    same-day compared comparing when as in to with and the a an its their his her patient's any all most more multiple
    several both many since from of dated performed obtained done acquired taken on at than by if relative relation
    examination examinations exam exams study studies radiograph radiographs radiography film films x-ray x-rays ct
    cts image images imaging scan scans cxr cxrs chest mri pet radiogram portable ap pa frontal lateral single view
    two-view thoracic that time one then before through date this today yesterday day morning ago hours hour days
    weeks months years year am pm p m there is are has have been was were no not without little significant
    significantly appreciable appreciably substantial substantially definite relevant major apparent further overall
    otherwise essentially grossly relatively largely generally slightly slight mildly minimally minimal markedly
    marked somewhat also only much quite nearly continued some size appearance position positioning extent
    configuration number degree severity distribution location volume caliber course alignment prominence conspicuity
    standing or but which seen present noted visualized visible identified demonstrated described evident appreciated
    shown observed imaged reported mentioned documented patient received appear appears appearing
    seem seems look looks over
    during allowing for tracing amount least be january february march april may june july august september october
    november december jan feb mar apr jun jul aug sep oct nov dec gone up down approximately very
"""
MENTION_WORDS = frozenset(_MENTION_WORDS.split())
"""Words of a comparison, which an edit may delete beside a word of change."""
STATES = frozenset(
    [
        "small",
        "tiny",
        "trace",
        "large",
        "moderate",
        "mild",
        "severe",
        "massive",
        "dense",
        "patchy",
        "clear",
        "normal",
        "enlarged",
        "collapsed",
        "opacified",
        "minimal",
        "extensive",
        "low",
        "high",
        "diffuse",
        "focal",
    ]
)
"""Words for size and severity."""
FINDING = re.compile(
    r"effusion|pneumotho|o?edema|consolidat|opaci|opacif|atelecta|nodul|mass|cardiomeg|pneumon|fractur|granulom|hernia|"
    r"catheter|tube|line\b|lines\b|picc|port\b|pacemaker|pacer|lead|wire|device|stent|clip|drain|pigtail|swan|emphysem|"
    r"copd|fibros|scar|thicken|plaque|calcif|adenopath|lymph|collaps|congest|engorge|infiltrat|cyst|bleb|"
    r"bulla|air\b|gas|"
    r"fluid|haziness|haze|densit|marking|elevat|eventrat|scolio|kypho|deformit|degenerat|osteo|spur|"
    r"enlarg|tortuo|ectas|"
    r"aneurysm|dilat|promin|widen|shift|deviat|volume|hyperinfl|hyperexp|hyperlucen|disease|process|lesion|abnormal|"
    r"normal|clear|unremarkable|intact|size|silhouette|contour|heart|lungs?\b|aorta|mediastin|hil[au]|vascul|cavit|"
    r"bronch|interstiti|reticul|sternotomy|valve|prosthe|surg|postop|post-op|change|metasta|tumou?r|cancer|hemothor|"
    r"hydropneu|empyema|absces|sarcoid|tubercul|aspirat|hemorrh|contusion|crowding|blunt|tracheos|monitor|hardware|"
    r"anastomo|absence|x{3,}|icd|lucen|finding|support|diaphragm|ribs?\b|spine|bod(?:y|ies)\b|compress|hemithorax",
    re.IGNORECASE,
)
"""Stems of findings, devices and anatomy: an edited sentence has one of them."""
NEGATION = re.compile(
    r"\b(?:no|not|without|absent|absence|negative|free|nor|neither|never|none|rather than|denies|denied|cannot|"
    r"lack|lacks|unlikely|rules? out|ruled out|excluded?)\b",
    re.IGNORECASE,
)
"""Words that deny what follows or precedes them."""
