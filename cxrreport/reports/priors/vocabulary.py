"""Patterns for words that refer to a prior study. All are for `re.IGNORECASE`.

They cover prior *imaging*, and neither history (an operation, an old fracture, a chronic disease) nor recommendations
(a follow-up, documentation of resolution).
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
ASPECT = (
    r"(?:\s+in\s+(?:(?:its|their|overall|the)\s+)*"
    r"(?:size|appearance|position|positioning|extent|configuration|contours?|number|degree|severity|distribution|"
    r"location|volume|caliber|course|alignment|placement|prominence|conspicuity|density|width|morphology|shape)"
    r"(?:\s*(?:,|and|or|,\s*and)\s*(?:size|appearance|position|extent|configuration|contours?|number|degree|severity|"
    r"distribution|location|volume|caliber|course|alignment|morphology|shape))*)?"
)
DATE = (
    r"(?:(?:___|X{3,}|\d{1,4}(?:[-/.]\d{1,4})+|\d{4}|"
    r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?(?:\s+\d{1,2})?(?:,?\s+\d{4})?|yesterday|"
    r"today|at|\d{1,2}:\d{2}(?:\s*[ap]\.?m\.?)?|earlier|the|same|day|this|morning|"
    r"(?:\d+|one|two|three|four|several)\s+(?:hours?|days?|weeks?|months?|years?)\s+(?:ago|prior|earlier|before))\b"
    r"(?:,?\s+)?)+(?<!\s)(?<!,)"
)
IMAGING = (
    r"(?:stud(?:y|ies)|exam(?:ination)?s?|radiographs?|radiography|films?|x-?\s?rays?|x-X+|cts?|images?|imaging|scans?|"
    r"cxrs?|chests?|comparisons?|mri|pet|radiograms?|tomograms?|tomography|angiogram|roentgenograms?|X{3,})"
)
EARLIER = r"(?:priors?|previous|earlier|preceding|last|recent|older|old|outside|comparison|baseline|remote|same[- ]day)"
KIND = (
    r"(?:chest|portable|ap|pa|frontal|lateral|and|single|view|two-view|thoracic|abdominal|ct|pet|pet-ct|of|x-?ray|"
    r"x-X+|X{3,}|___|most|more|available|plain|the|both|multiple|several|many|\d+)"
)
STUDY = (
    rf"(?:(?:the|a|an|his|her|their|patient's|any|all|most|more|multiple|several|both|many|prior)\s+)*"
    rf"(?:{EARLIER}(?:\s+{EARLIER})*(?:\s+{KIND}){{0,6}}(?:\s+{IMAGING}(?:/{IMAGING})?)*"
    rf"|(?:(?:chest|portable|ap|pa|frontal|lateral|ct|X{{3,}})\s+){{0,3}}{IMAGING}"
    rf"(?=\s+(?:of|from|dated|performed|obtained|done|on|earlier|yesterday|X{{3,}}|___)))"
    rf"(?:,?\s+(?:of|from|dated|performed|obtained|done|acquired|taken|on|at)(?:\s+on)?\s+{DATE}|,?\s+{DATE})*"
)
"""A noun phrase for a prior study, with its date if there is one."""
SINCE = rf"(?:{STUDY}|(?:approximately\s+)?{DATE}|(?:that|the prior|the previous) (?:time|one)|then|before|prior)"
SEEN = (
    r"(?:seen|present|noted|visuali[sz]ed|visible|identified|demonstrated|described|evident|apparent|appreciated|"
    r"there|shown|observed|imaged|reported|mentioned|documented|detected|depicted)"
)
COMPARED = (
    rf"(?:(?:as|when|if)\s+)?(?:compared|comparing|in comparison|by comparison|in relation|relative|allowing for)\s+"
    rf"(?:(?:to|with|and)\s+)?{SINCE}"
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
    location evaluation assessment comparison interval time lateral frontal ap pa portable
"""
ANATOMY = frozenset(_ANATOMY_WORDS.split())
"""Words for normal anatomy and the examination: a phrase of these words alone states no finding."""
