"""What looks like a mention of a prior study and is none: advice, the patient, history, space, technique, sides.

`without_context` deletes it from a sentence before mentions are searched.
"""

from __future__ import annotations

import re

from cxrreport.reports.priors.vocabulary import EARLIER, MONTH

_SYMPTOM = (
    r"(?:clinical(?:ly)? (?:condition|status|course|picture|state|exam\w*)|general condition|cough\w*|fevers?|"
    r"febrile|pain\w*|dyspn\w+|breathless\w*|symptom\w*|short(?:ness)? of breath|unwell|hypox\w+|"
    r"hypotens\w+|hypertens\w+|diabet\w+|weakness|weight loss|wheez\w+|hemoptysis|haemoptysis|vomiting|nausea|"
    r"leukocytosis|(?:white|wbc) count|(?:renal|liver|kidney|hepatic|cardiac|mental|lung|respiratory) "
    r"(?:function|status)|"
    r"oxygen\w*|sats?|saturations?|confusion|fatigue|distress|sepsis|creatinine|anemia|anaemia|smok\w+|"
    r"edema of the (?:legs?|feet|arms?)|(?:leg|ankle|pedal) (?:o?edema|swelling)|murmur|infections? in|delirium|"
    r"encephalopathy|tachycardia|bradycardia|arrhythmia|angina|headache|neurolog\w+|headaches|asthma|"
    r"asymptomatic|medications?|appetite|"
    r"jvp|air entry|breath sounds|clinically|bowel habit|palpitations|swelling of the|gcs|vision|sensorium)"
)
_TREATED = (
    r"(?:infections?|infarct\w*|inflammat\w*|pleurisy|empyema|trauma\w*|injur\w+|fractur\w*|surg\w+|operati\w+|"
    r"tubercul\w+|"
    r"granulom\w+|histoplasm\w+|radiation|radiotherapy|exposure|malignan\w+|cancer|\w+ectomy|\w+plasty|\w+otomy|"
    r"repair|resection|"
    r"stenosis|chemo\w*|mi\b|myocardial|stroke|pregnan\w+|varicella|chickenpox|measles|covid\w*|influenza|"
    r"occupation\w*|ablation|emboli[sz]ation|biops\w+|pleurodesis|bypass|smok\w+|graft\w*|replacement|fusion|"
    r"fixation|stent\w*|cabg|tb|kochs?|transplant\w*)"
)
_DISEASE = (
    rf"(?:{_TREATED}|pneumonias?|pneumonitis|effusions?|pleur\w+|h(?:a)?emothorax|aspiration|abscess|disease|"
    rf"process|contusion|"
    r"pneumothorax|h(?:a)?emorrhage)"
)
_PRIOR_OBJECT = (
    rf"(?:(?:on|in|at|seen|noted|shown|with)\s+)?(?:the\s+|an?\s+|his\s+|her\s+)?(?:most\s+)?(?:before|priors?|"
    rf"previous\w*|"
    rf"formerly|{EARLIER}|yesterday|___|X{{3,}}|then|it|they|that|those|he|she|was|were|{MONTH}|(?:19|20)\d\d|"
    rf"\d{{1,2}}[/-]\d[\d/.-]*|\d+ \w+ (?:ago|earlier|before|prior)|"
    rf"(?:(?!lateral|frontal|pa\b|ap\b)[\w'-]+\s+){{0,3}}(?:film|study|radiograph|ct|scan|examination|exam|x-?ray|"
    rf"portable)s?\b|"
    rf"(?:day \d+|\d+[- ]hours?|admission|arrival|presentation|discharge|referral|transfer|initial\w*|any|ever)\b|"
    rf"(?:\w+\s+){{1,2}}(?:ago|earlier|before)|(?:film|study|radiograph|ct|x-?ray|image|exam\w*)\s+(?:of|from|"
    rf"dated|on)|"
    rf"the (?:day|night))\b"
)
_EVENT_OF_LIFE = (
    rf"(?:patient|pt|he|she|h/o|c/o|cabg|avr|mvr|stroke|surgery|operation|procedure|injury|accident|trauma|fall|fell|admitted|admission|onset|"
    rf"began|"
    rf"started|biopsy|transfusion|dialysis|\w+ectomy|\w+plasty|{_SYMPTOM})"
)
_NO_IMAGE = (
    r"(?:(?!extubat|intubat|\bett|\bngt|picc|tube|line|catheter|drain|film|image|radiograph|stud|effusion|pneumoth|than|compar|lung|"
    r"opaci|larg|small)[^,;.])"
)
_TIME_AGO = (
    r"(?:yesterday|overnight|tonight|last (?:night|week|month|year|\w+day)|(?:\w+ ){0,2}(?:hours?|days?|weeks?|"
    r"months?|years?|yrs|wks|hrs) "
    r"(?:ago|earlier|prior|before|back)|(?:since|for|x) (?:about |approximately )?(?:\d+|one|two|three|four|five|six|"
    r"several|many|few) (?:hours?|days?|weeks?|months?|years?)|"
    r"(?:since|until|on|for|over|in|during) (?:the )?(?:last|past|\w+day\b|yesterday)"
    r"(?! film| stud| exam| radiograph| x-?ray| cxr| image| ct)(?: \w+){0,2})"
)
_MASKS = (
    (
        rf"\b(?:(?:new|worse\w*|progress\w*|increas\w*|persist\w*|recurr\w*|ongoing|decreas\w*|"
        rf"continu\w*)\s+(?:\w+\s+)?)?{_EVENT_OF_LIFE}\b{_NO_IMAGE}{{0,40}}\b{_TIME_AGO}\b"
    ),
    rf"\b{_TIME_AGO}\b,?\s+(?:of\s+)?{_NO_IMAGE}{{0,20}}\b{_EVENT_OF_LIFE}\b",
    # The section's name: what follows is about the patient.
    (
        r"^(?:clinical (?:information|history|indication|details|data|context)|indications?|history|reason for "
        r"(?:exam\w*|study)|"
        r"technique)\s*:[^;.]*"
    ),
    # Advice, condition, possibility, question.
    (
        r"\b(?:rule out|r/o|eval(?:uate)?(?: for)?|assess(?: for)?|check(?:ing)? for|look(?:ing)? for|please (?:check|"
        r"assess|evaluate)|reason(?: for \w+)?:)\s[^;.]*"
    ),
    (
        r"\b(?:serial|sequential|repeat|further) (?:films?|radiographs?|imaging|studies) (?:is|are|may be|would be|"
        r"should be) (?:recommended|advised|suggested|"
        r"helpful|required|needed|warranted|obtained)\b[^,;.]*"
    ),
    r"\b(?:now|currently) (?:presents|presenting|admitted)\b[^,;.]*",
    r"\bif\b[^;.]{0,80}\b(?:does|do|has|have) not\b[^,;.]*",
    (
        r"\b(?:developing|resolving|evolving|worsening|early|new)\s+(?:\w+\s+){1,2}(?:cannot|can not|could not|"
        r"is not) (?:be )?"
        r"(?:entirely )?excluded\b|\b(?:developing|resolving|evolving)\s+\w+\s+(?:is|are|would be|remains?)\s+(?:in|"
        r"on|among|"
        r"one|also)\b"
    ),
    (
        r"\b(?:should|could|would|may|might|must|can|needs? to|ought to|to)\s+be\s+(?:\w+ly\s+)?(?:advanced|"
        r"withdrawn|retracted|"
        r"repositioned|removed|replaced|pulled(?: back)?|exchanged|adjusted|readjusted|reassessed|repeated|"
        r"obtained|followed|"
        r"monitored|improved|inserted|placed)\b"
    ),
    (
        r"\b(?:advanc|withdraw|retract|reposition|pull|remov|replac|readjust|adjust)(?:e|ing|al|ement|ment|"
        r"ion)?\s+(?:back\s+)?(?:of\s+)?(?:the\s+)?"
        r"(?:[\w-]+\s+){0,4}(?:by|(?:is|are)\s+(?:recommended|advised|suggested)|should|would|for optimal)\b"
    ),
    (
        r"\b(?:consider|recommend\w*|suggest|advise|requires?|(?<!negative )for)\s+(?:advanc|withdraw|retract|"
        r"reposition|pull|"
        r"remov|replac|adjust|interval|"
        r"continued|repeat|progress(?!i)|serial)\w*(?:\s+(?:back|follow-?\s?up|chest|film|radiographs?|imaging|ct))*"
    ),
    (
        rf"\bif\s+(?:(?:the|clinical|clinically|there (?:is|are)|patient|no|not|still|any|further|his|her)\s+)*"
        rf"(?:\w+\s+)?(?:{_SYMPTOM}|concern\w*|"
        rf"suspic\w+|indicated|warranted|needed|improv\w+|persist\w*|worsen\w*|deteriorat\w+)\b[^,;.]*"
    ),
    (
        r"\b(?:follow\w*|followed|repeat\w*|re-?image)(?:[- ]?up)?\s+(?:\w+\s+){0,4}(?:to|until|for|after)\s+"
        r"(?:\w+\s+){0,3}(?:clear\w*|resol\w+|"
        r"stab\w+|improv\w+|heal\w+|treat\w+|diuresis|therapy|change)\b"
    ),
    (
        r"\b(?:improved|better|deeper|full|optimal) (?:inspirat\w+|inspiratory \w+|position\w*|technique|"
        r"centring|centering|exposure)\s+"
        r"(?:on|at|with|in) (?:an? |the )?(?:repeat|follow|further|next|future|subsequent)\b"
    ),
    r"\b(?:repeat|further|follow-?up)\b[^,;.]{0,40}\b(?:improved|better|deeper|new|interval)\s+\w+",
    (
        r"\b(?:worse|better|increased|decreased|more \w+|less \w+)\s+(?:on|in|with|during)\s+(?:forced\s+)?"
        r"(?:expiration|inspiration|exertion|valsalva)\b|"
        r"\bremains?\s+to\s+be\b"
    ),
    # The patient.
    (
        rf"\b(?:worse\w*|improv\w+|increas\w+|decreas\w+|progress\w+|persist\w*|new(?:\s+onset(?:\s+of)?)?|newly|"
        rf"recurr\w+|continu\w+|"
        rf"ongoing|chang\w+|resolv\w+|stable|deteriorat\w+|again|still|now|currently|residual|unchanged|"
        rf"fluctuating)\s+(?:with\s+)?(?:\w+\s+){{0,2}}?{_SYMPTOM}\b"
    ),
    (
        rf"\b{_SYMPTOM}\s+(?:(?:is|are|has|have|been|not|now|and|still|\w+ly)\s+){{0,4}}(?:worse\w*|improv\w+|"
        rf"increas\w+|decreas\w+|progress\w+|"
        rf"persist\w*|resolv\w+|stable|since\s+\w+|continu\w+|recurr\w+|settled|deteriorat\w+)(?:\s+(?:on|despite|"
        rf"with|after)\s+\w+)?\b"
    ),
    (
        r"\b(?:clinically|h(?:a)?emodynamically|medically|vitally|neurologically)\s+(?:stable|unchanged|improv\w+|"
        r"worse\w*|better|deteriorat\w+)\b"
    ),
    (
        r"\bstable\s+(?:angina|patient|vitals?|vital signs|condition|clinical\w*|h(?:a)?emodynamic\w*|copd|"
        r"on room air|for discharge)\b"
    ),
    (
        r"\b(?:previously|formerly)\s+(?:healthy|well|fit|asymptomatic|premature|an?\b|treated|operated|healed|"
        r"resected|repaired|fractured|"
        r"irradiated|employed|smok\w+|diagnosed|active|independent|exposed|transplanted|abused)"
    ),
    (
        r"\bnew(?:ly)?\s+(?:patient|admission|admitted|employee|hire|student|recruit|immigrant|arrival|"
        r"diagnos\w+|transplant|job|onset|resident|"
        r"bone|baseline)\b(?!\s+effusion)"
    ),
    (
        r"\b(?:evolving|progressive|recurrent|recurring|resolving|improving|worsening)\s+(?:stroke|infections|"
        r"infarct|sepsis|mi\b|stemi|nstemi|"
        r"shock|aki|systemic|massive|supranuclear|multiple|muscular|laryngeal|respiratory|chest infections|uti|"
        r"admissions|falls|syncope)"
    ),
    (
        r"\b(?:informed|notified|communicated|discussed|paged|telephoned|phoned|conveyed|relayed|dialy[sz]ed|"
        r"discharged|admitted|hospitali[sz]ed|"
        r"transfused|diagnosed|treated|vaccinated|immuni[sz]ed|travel\w*|emigrated|operated|presented|consulted|"
        r"seen in clinic)\b(?:(?! (?:and|but) (?:the|there|now))[^;.])*"
    ),
    (
        r"\bpatient\s+(?:is|was|remains|appears|has been|continues)\s+(?:\w+ly\s+)?(?:stable|improv\w+|worse\w*|"
        r"better|unchanged|well|unwell)\b"
    ),
    (
        rf"\b{_SYMPTOM}\s+(?:that|which)\s+(?:has|have|is|are)\s+(?:been\s+)?\w+|\bnew\s+(?:mother|father|parent|"
        rf"partner|murmur|rash|therapy|medication|drug)\b"
    ),
    (
        r"\b(?:currently|now)\s+(?:on (?:treatment|therapy|antibiotics|steroids|dialysis|\w+ therapy)|presenting|"
        r"presents|receiving|undergoing|\d+ (?:days?|weeks?|months?) (?:post|after|status))\b[^,;.]*"
    ),
    # History.
    (
        r"\b(?:\w+ectomy|\w+plasty|\w+otomy|surg\w+|operat\w+|resect\w+|repair\w*|cabg|transplant\w*|graft\w*|"
        r"replacement|radiation|radiotherapy|"
        r"chemo\w*|history|diagnos\w+|underwent|treated|cancer|carcinoma|lymphoma|tb|"
        r"tubercul\w+)\b[^.;]{0,40}\b(?:in|on|of|from|since)\s+"
        rf"(?:(?:early|late|\d+)\s+)?(?:{MONTH}\b(?:\s+(?:of\s+)?(?:19|20)\d\d)?|(?:19|20)\d\d|\d{{1,2}}/\d+)"
    ),
    rf"\b(?:prior|previous|earlier|old|remote|past|former|recent)\s+(?:(?!new\b|and\b)[\w-]+\s+){{0,3}}?{_TREATED}\b",
    (
        rf"\b(?:suggest\w*|sequelae?|due to|related to|relate to|secondary to|from|reflect\w*|represent\w*|"
        rf"history|evidence|indicat\w+|"
        rf"consistent with|keeping with|compatible with|residua|scar\w*|given|following|after)\s+(?:of\s+)?"
        rf"(?:an?\s+|the\s+|his\s+|her\s+)?"
        rf"(?:prior|previous|earlier|old|remote|recent|resolved|treated|recurrent)\s+"
        rf"(?:[\w-]+\s+){{0,3}}?{_DISEASE}\b"
    ),
    (
        r"\b(?:rib|lobe|lung|breast|gallbladder|kidney|spleen|clavicle|thyroid|scapula|testis|ovary|uterus|"
        r"stomach|colon|esophagus|larynx|"
        r"oesophagus|muscle|head|disc|appendix|tonsils|vertebra|sternum|arm|leg)\s+(?:has|have|had|was|were)\s+"
        r"(?:been\s+)?(?:\w+ly\s+)?"
        r"(?:removed|resected|excised|replaced|amputated)\b"
    ),
    (
        r"\b(?:now|currently|still|again)\s+(?:on (?:\w+ )?(?:chemo\w*|treatment|therapy|dialysis|oxygen|"
        r"steroids|antibiotics|insulin)|advised|"
        r"taking|living|working|attending|under|followed by)\b|\bnew(?:ly)? (?:gp|to clinic|referral|arrived|"
        r"registered|to the|start\w*)\b|"
        r"\b(?:previous|prior|old) (?:records?|notes?|medical|history|admissions?|hospitali\w+|treatment)\b|"
        r"\bthere (?:is|are) (?:\w+ly )?(?:more|less|fewer) [^.;]{1,30} than (?:on |in |at )?the (?:left|right|other)|"
        r"\b(?:better|improved|deeper|fuller) (?:inspiration|positioning|centring) (?:would|may|could|might|"
        r"should|is advised)\b"
    ),
    # Examination of the body; what is asked of the future; age of a finding.
    (
        rf"^.*\bauscultation\b.*|\b(?:resolution|improvement|worsening|progression) (?:of|in) (?:the |his |"
        rf"her )?(?:\w+ )?{_SYMPTOM}\b"
    ),
    (
        r"\b(?:stability|resolution|change|improvement|clearance|clearing)\s+(?:should|could|can|may|needs?|must|"
        r"would|to)\b|\brecurrent (?:chest )?(?:aspiration|infections?)\b|"
        r"\bif (?:\w+ )?(?:stable|unchanged|resolved|persistent|new|worse|larger|no change|enlarging|growing)\b[^,;.]*|"
        r"\b(?:later|delayed|subsequent|future|additional) (?:films?|images?|views?|imaging|radiographs?|"
        r"studies) (?:may|should|could|would|can|is|are)\b"
    ),
    (
        r"\b(?:old|acute|chronic|recent) (?:versus|vs\.?|or|from) new\b|\bnew (?:versus|vs\.?|or|from) (?:old|"
        r"chronic)\b|,\s*advanced\b|"
        r"\b(?:progressive|developing|evolving|resolving) \w+ (?:is|are|would be) (?:a|an|in|on|among|one)\b"
    ),
    (
        r"\bincreased (?:size|prominence|width) of the (?:heart|cardiac|hil\w+|aort\w+|pulmonary arter\w+)|"
        r"\bfad\w+ towards?\b|"
        r"\b(?:contrast|barium)\b[^;.]{0,40}\b(?:from|of|after) (?:an? |the )?(?:recent|prior|previous|"
        r"earlier)\b[^;.]*|"
        r"\bsimilar\b[^;.]{0,30}\b(?:on both|in both|bilaterally|to each other|to one another)\b|"
        r"\bchange (?:of|in) (?:the )?position (?:of the patient|was|is (?:not )?(?:possible|needed|required))|"
        r"\bposition change\b"
    ),
    # Space, technique and other meanings.
    (
        r"\b(?:two|both) (?:sides|lungs|hemithoraces|bases|hila|apices) are (?:\w+ly )?(?:similar|identical|the same|"
        r"comparable)|"
        r"\bmechanically stable\b|\bbetter suited\b|\bunresolved question\b|\bintervals? of \d|"
        r"\b(?:has|have)\s+(?:increased|decreased|reduced)\s+(?:density|attenuation|lucency|trabecul\w+|mineral\w+)\b|"
        r"\b(?:no|without) (?:\w+ )?(?:evidence|sign|signs|suspicion) of (?:\w+ ){0,2}recurrence\b(?! of)|"
        r"\brecurrent (?:disease|tumou?r|malignancy|cancer|carcinoma|lymphoma|laryngeal)\b"
    ),
    (
        r"\b(?:hold|keep|lie|sit|stay) still\b|\bstill (?:image|frame|picture|shot)s?\b|"
        r"\b(?:wall|spinal|spine|joint|sternal|mechanical) stability\b|\bwhether\b[^:;,]{0,80}\bremains?\b"
    ),
    (
        r"\b(?:more|less) \w+ (?:when )?compared (?:to|with) (?:that (?:of|on) )?(?:the )?(?:left|right|other|opposite|"
        r"contralateral)\b"
    ),
    r"\bpersistent\s+(?:left\s+|right\s+)?(?:svc|superior vena cava|ductus|foramen|truncus|trigeminal|fetal)\b",
    (
        r"\b(?:placement|position(?:ing)?|insertion)\s+of\s+[^,;.]{1,40}\s(?:is|are|appears?)\s+(?:satisfactory|"
        r"adequate|appropriate|good|normal|"
        r"standard|confirmed|optimal|acceptable|suboptimal|correct)\b"
    ),
    (
        r"\b(?:acromioclavicular|coracoclavicular|ac|cc|atlantoaxial|intercostal|regular|irregular|qt|pr|rib|"
        r"disc|disk|joint|equal|time)\s+intervals?\b|"
        r"\bintervals?\s+between\b|\bintervals?\s+(?:is|are)\s+(?:widened|narrowed|normal|increased)|\bat "
        r"(?:\w+ )?intervals\b"
    ),
    (
        r"\b(?:spatial|image|temporal|contrast|low|high|poor|limited|screen|monitor|display)[- ]resolution\b|"
        r"\bresolution\s+(?:of\s+(?:the\s+)?(?:\w+\s+)?"
        r"(?:images?|study|exam\w*|films?|radiographs?)|(?:is|was)\s+(?:poor|limited|suboptimal|good|adequate|low))"
    ),
    (
        r"\bsince\s+(?:(?:the|this|only|there|an?|it|no|they|its|both|much|part|patient)\s+)(?!prior|previous|last|"
        r"earlier|initial)(?:[\w/-]+\s+){0,4}?"
        r"(?:is|are|was|were|has|have|cannot|could|does|do)\b"
        r"(?!\s+(?:seen|present|noted|performed|obtained|done)\b)"
    ),
    r"\bsince\s+(?:birth|childhood|infancy|adolescence|youth)\b",
    (
        r"\bresidual\s+(?:volumes?(?:\s+(?:is|are|appears?)\s+\w+)?|contrast|barium|functional|lung|thym\w+|"
        r"bullets?|cement|breast|stump|metal\w*|foreign|shrapnel|oral|"
        r"fragments?|enteric|gastric|urine|stool|capacity)\b"
    ),
    (
        r"\bcontinues?\s+(?:into|below|beyond|past|through|along|inferiorly|superiorly|caudally|down|off|out of|"
        r"across|distally|as\b|to (?:the|a))\b"
    ),
    (
        r"\b(?:increas|decreas|enlarg|progress|diminish)\w+\s+(?:in (?:size|density|number)\s+)?(?:(?:from\s+"
        r"(?:the\s+)?(?:apex|apices|base|bases|top|"
        r"hilum|center|centre|cranial|superior))|towards?|caudally|inferiorly|with (?:inspiration|expiration|age|"
        r"depth))\b"
    ),
    (
        r"\bnew\s+(?:york|brunswick|zealand|jersey|mexico|england|delhi|orleans|hampshire|guinea|south wales|"
        r"caledonia|haven)\b"
    ),
    r"\bgrowth\s+(?:plates?|arrest|disturbance|lines?|recovery|centers?|factor|retardation|hormone)\b",
    (
        r"\b(?:constant|stable|persistent)\s+(?:line|pressure|across|on both views|on (?:multiple|all|the two|two) "
        r"(?:views|projections))\b"
    ),
    (
        r"\bbetter\s+(?:seen|visuali[sz]ed|appreciated|evaluated|assessed|depicted|delineated|demonstrated|"
        r"defined|shown|characteri[sz]ed|imaged|"
        r"displayed|viewed|evident|profiled)\b(?!\s+(?:than|as compared|compared|today|now|on (?:today|"
        r"the current|this)))"
    ),
    # Two sides or places, not two times.
    rf"\b(?:[a-z]+er|worse|(?:more|less)\s+[\w-]+)\s+(?:[\w-]+\s+){{0,2}}than\s+(?!{_PRIOR_OBJECT})",
    (
        r"\b(?:compared|comparing|comparison|relative|similar|identical|equal|equivalent|comparable|contrast)\s+"
        r"(?:to|with)\s+(?:that\s+(?:of|on|in)\s+)?(?:the\s+|its\s+|an?\s+)?"
        r"(?:left|right|lateral|frontal|contralateral|opposite|opposing|other|adjacent|rest|remainder|upper|"
        r"lower|expected|apic\w+|bas\w+|ipsilateral|"
        r"surrounding|normal|body|trachea|thora\w+|vertebra\w+|liver|spleen|neighbou?ring|width|pa (?:view|"
        r"projection))\b"
    ),
    (
        r"\b(?:the\s+)?same\s+(?:size|level|density|height|side|appearance|degree|position|location)\s+as\s+"
        r"(?:the\s+)?(?:left|right|other|opposite|contralateral|adjacent)\b"
    ),
    (
        r"\b(?:of|with)\s+(?:a\s+)?(?:similar|identical|the same|equal)\s+(?:size|density|calib\w+|appearance|"
        r"shape)s?\b(?!\s+(?:to|as|compared))"
    ),
)
_MASK = [re.compile(mask, re.IGNORECASE) for mask in _MASKS]


def without_context(text: str) -> str:
    """Delete advice, the patient's condition, history and comparisons of sides from a sentence."""
    for mask in _MASK:
        text = mask.sub(" ", text)
    return text


def context_of(text: str) -> list[str]:
    """The parts of a sentence that `without_context` deletes."""
    return [found.group().strip() for mask in _MASK for found in mask.finditer(text)]
