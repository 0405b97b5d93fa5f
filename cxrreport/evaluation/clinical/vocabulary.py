"""The words that name CheXpert's findings (Irvin et al. 2019, arXiv 1901.07031) in reports.

A rule is matched against one observation of an entity graph: `what` against its words and those of its modifiers,
`where` against these and the words of its anatomy. Patterns are stems. The matched stem is the concept, so "effusion"
and "effusions" are one concept, while "congestion" and "edema" (both `Edema`) are two.

Like CheXpert's labels, the rules follow what a report states, not what follows medically: pneumonia does not imply an
opacity. They were written from general knowledge of the language and are not validated against radiologists.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, StrEnum, auto


class Finding(StrEnum):
    """The 14 findings of CheXpert, in its order."""

    NO_FINDING = "No Finding"
    ENLARGED_CARDIOMEDIASTINUM = "Enlarged Cardiomediastinum"
    CARDIOMEGALY = "Cardiomegaly"
    LUNG_OPACITY = "Lung Opacity"
    LUNG_LESION = "Lung Lesion"
    EDEMA = "Edema"
    CONSOLIDATION = "Consolidation"
    PNEUMONIA = "Pneumonia"
    ATELECTASIS = "Atelectasis"
    PNEUMOTHORAX = "Pneumothorax"
    PLEURAL_EFFUSION = "Pleural Effusion"
    PLEURAL_OTHER = "Pleural Other"
    FRACTURE = "Fracture"
    SUPPORT_DEVICES = "Support Devices"


class Says(Enum):
    """What the presence (or absence) of the observation of a rule states about its findings."""

    PRESENT = auto()
    """They are present (or absent)."""
    DOUBTFUL = auto()
    """They are uncertain (or absent): the observation only suggests them."""
    NORMAL = auto()
    """They are absent (or not stated): "heart of normal size", "clear lungs"."""
    DENIED = auto()
    """They are not stated (or absent): an osseous abnormality may not be a fracture, but none excludes a fracture."""
    NO_PROCESS = auto()
    """They are not stated (or the study is normal)."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of the table.

    Args:
        what: pattern of the observation and its modifiers.
        where: pattern that must match too; `None` for no condition.
        unless: pattern that must not match; `None` for no condition.
    """

    findings: tuple[Finding, ...]
    what: re.Pattern[str]
    where: re.Pattern[str] | None
    unless: re.Pattern[str] | None
    says: Says


def _stems(words: str) -> re.Pattern[str]:
    """Compile word stems separated by white space; `_` is a space and `$` the end of a word."""
    return re.compile("|".join(rf"\b{word.replace('_', ' ').replace('$', chr(92) + 'b')}" for word in words.split()))


def _rule(
    findings: Finding | tuple[Finding, ...],
    what: str,
    where: str = "",
    *,
    unless: str = "",
    says: Says = Says.PRESENT,
) -> Rule:
    named = (findings,) if isinstance(findings, Finding) else findings
    return Rule(named, _stems(what), _stems(where) if where else None, _stems(unless) if unless else None, says)


_HEART = "heart cardiac$ cardiovascular ventric atri(?:um|a|al)$"
_MEDIASTINUM = "mediastin cardiomediastin"
_LUNG = "lung lobe lobar basilar$ bases$ pulmonary parenchym apex apices hemithora lingula"
_BONE = "osseous bon(?:e|y) skelet rib$ ribs$ spin(?:e|al) vertebra clavic sternum sternal scapula humer"
_HILUM = "hil(?:ar|um|a|i)$"
_NORMAL = "normal$ unremarkable within_limits within_expected nonenlarged non-enlarged nondilated"
_HIGH_NORMAL = "borderline top$ upper_limit upper_normal high_normal upper$"
_LARGE = "enlarge large$ larger$ widen wide$ prominen big$ dilat increased$ cardiomegal"
_ANGLE = "costophrenic cp_angle sulc"
_AIR = (Finding.LUNG_OPACITY, Finding.CONSOLIDATION, Finding.EDEMA, Finding.PNEUMONIA)
_PLEURAL = (Finding.PLEURAL_EFFUSION, Finding.PNEUMOTHORAX)

RULES: tuple[Rule, ...] = (
    # Heart and mediastinum. "Cardiac silhouette" is the heart, "cardiomediastinal silhouette" the mediastinum.
    _rule(Finding.CARDIOMEGALY, "cardiomegal"),
    _rule(Finding.CARDIOMEGALY, _LARGE, _HEART),
    _rule(Finding.CARDIOMEGALY, _NORMAL, _HEART, unless=f"valve {_HIGH_NORMAL}", says=Says.NORMAL),
    _rule(Finding.CARDIOMEGALY, _HIGH_NORMAL, _HEART, unless="enlarge cardiomegal", says=Says.DOUBTFUL),
    _rule(Finding.ENLARGED_CARDIOMEDIASTINUM, _LARGE, _MEDIASTINUM, unless="node lymph"),
    _rule(
        Finding.ENLARGED_CARDIOMEDIASTINUM,
        f"{_NORMAL} midline$",
        _MEDIASTINUM,
        unless=_HIGH_NORMAL,
        says=Says.NORMAL,
    ),
    # Lungs.
    _rule(
        Finding.LUNG_OPACITY,
        "opaci infiltrat haz(?:e|y|iness)$ ground_glass ground_-_glass ground-glass reticula honeycomb peribronchial "
        "cuffing$",
        unless="nodul mass$ mass-like mass_-_like mass_like masslike",
    ),
    _rule(
        Finding.LUNG_OPACITY,
        "marking pattern prominen thicken disease process change abnormalit",
        "interstiti reticul airspace air_space air_-_space alveolar bronchial",
        unless="nodul pleura edema",
    ),
    _rule(Finding.LUNG_OPACITY, "densit scar", _LUNG, unless="nodul pleura bon(?:e|y)"),
    _rule(
        Finding.LUNG_LESION,
        "nodul mass$ masses$ mass-like masslike mass_-_like mass_like lesion granuloma(?:s|ta)?$ cavit(?:y|ary|ation) "
        "tumou?r$ neoplas malignan carcinoma cancer metasta",
        unless="mediastin osseous bony skelet vertebra lytic sclerotic blastic breast thyroid adrenal soft_tissue "
        "pleura",
    ),
    _rule(Finding.EDEMA, "o?edema", unless="soft_tissue subcutaneous chest_wall"),
    _rule(
        Finding.EDEMA,
        "congest engorge cephali indistinct redistribut plethora prominen",
        "vascula vessel pulmonary perihilar",
        unless="mediastin arter",
    ),
    _rule(Finding.EDEMA, "failure$ chf$", "heart cardiac congestive chf ventric decompensat"),
    _rule(Finding.EDEMA, "overload", "fluid volume"),
    _rule(Finding.EDEMA, "kerley"),
    _rule(Finding.EDEMA, _NORMAL, "vascula vessel", says=Says.NORMAL),
    _rule(Finding.CONSOLIDATION, "consolidat"),
    _rule(Finding.PNEUMONIA, "pneumoni[ac] bronchopneumonia infecti"),
    _rule(Finding.ATELECTASIS, "atelecta"),
    _rule(Finding.ATELECTASIS, "collaps", _LUNG, unless=_BONE),
    _rule(_AIR, f"clear$ {_NORMAL}", "lung parenchym", unless="vascula volume inflat expan", says=Says.NORMAL),
    # Pleura.
    _rule(Finding.PNEUMOTHORAX, "pneumothora hydropneumothora hemopneumothora"),
    _rule(
        Finding.PLEURAL_EFFUSION,
        "effusion hydropneumothora h(?:a?e)mothora hydrothora empyema",
        unless="pericard joint",
    ),
    _rule(Finding.PLEURAL_EFFUSION, "fluid", f"pleura fissur subpulmonic {_ANGLE}", unless="effusion"),
    _rule(Finding.PLEURAL_EFFUSION, "blunt", f"angle {_ANGLE}", says=Says.DOUBTFUL),
    _rule(Finding.PLEURAL_EFFUSION, f"sharp clear$ {_NORMAL}", _ANGLE, says=Says.NORMAL),
    _rule(_PLEURAL, f"clear$ {_NORMAL}", "pleura", says=Says.NORMAL),
    _rule(_PLEURAL, "abnormalit disease process", "pleura", says=Says.DENIED),
    _rule(
        Finding.PLEURAL_OTHER,
        "thicken plaque scar calcif fibro cap$ capping$ mass$ nodul",
        "pleura fissur apical_cap",
        unless="effusion",
    ),
    _rule(Finding.PLEURAL_OTHER, "fibrothorax mesothelioma"),
    # Bones.
    _rule(Finding.FRACTURE, "fractur"),
    _rule(Finding.FRACTURE, f"intact$ {_NORMAL}", _BONE, unless="wire hardware", says=Says.NORMAL),
    _rule(Finding.FRACTURE, "abnormalit finding injur", _BONE, says=Says.DENIED),
    # Devices.
    _rule(
        Finding.SUPPORT_DEVICES,
        "tube$ tubes$ ett$ ngt$ ogt$ dobbhoff dobhoff catheter picc$ piccs$ port$ ports$ port-a portacath mediport "
        "pacemaker pacer pacing$ icd$ aicd$ defibrillator lead$ leads$ swan balloon_pump iabp$ impella ecmo$ lvad$ "
        "valve$ valves$ prosthe hardware device tracheostomy drain$ drains$ pigtail cannula stimulator recorder "
        "sheath$ stent$ stents$ arthroplast plate$ plates$ screw rod$ rods$",
        unless="calcif regurg steno atelecta opaci",
    ),
    _rule(
        Finding.SUPPORT_DEVICES,
        "line$ lines$",
        "picc central venous arterial subclavian jugular ij$ femoral dialysis monitor support",
        unless="kerley pleura",
    ),
    # Nothing.
    _rule(
        Finding.NO_FINDING,
        "process disease abnormalit finding patholog disorder",
        unless=f"{_BONE} {_HILUM} soft_tissue abdom diaphragm pleura airspace air_space interstiti parenchym lung$ "
        "lungs$ mediastin vascula infecti consolidat nodul granulomat",
        says=Says.NO_PROCESS,
    ),
    _rule(
        Finding.NO_FINDING,
        f"{_NORMAL} negative$",
        "chest radiograph x-?ray x_-_ray film exam study",
        unless=f"{_HEART} {_MEDIASTINUM} {_BONE} {_HILUM} lung pleura vascula size wall tube catheter aort diaphragm",
    ),
)

# Details of a finding.
BOTH_SIDES = _stems("bilateral both$ biapical bibasilar bibasal bi-apical bi-basilar")
LEFT = _stems("left lt$ lingula")
RIGHT = _stems("right rt$ middle_lobe")
UNSIDED = frozenset({Finding.NO_FINDING, Finding.CARDIOMEGALY, Finding.ENLARGED_CARDIOMEDIASTINUM})
"""Findings without a side ("enlarged left ventricle" is Cardiomegaly)."""
SEVERITIES = {
    1: _stems("mild minimal minor$ small$ smaller$ trace$ tiny slight subtle faint little$ minute$ thin$ borderline"),
    2: _stems("moderate medium"),
    3: _stems("severe large$ larger$ massive mark(?:ed|edly)$ extensive significant gross big$ huge substantial"),
}
"""Words for mild, moderate and severe, both of size and of degree."""
UNGRADED = frozenset({Finding.NO_FINDING, Finding.SUPPORT_DEVICES})
"""Findings without severity."""
DOUBT = _stems("possib probab likely suspect question suggest presum equivocal")
GONE = _stems("resolved resolution$ removed removal withdrawn cleared disappear")

# Scope of a denial.
NEUTRAL = _stems(
    "focal definit(?:e|ive) discrete convincing apprecia visible visuali evident evidence obvious confluent lung lobe "
    "pleura pulmonary parenchym space airspace cardiopulmonary thora hemithora chest rib$ ribs$ area region zone heart "
    "cardiac silhouette size$ of$ the$ in$ a$ and$ or$"
)
"""Words that do not narrow a denial: "no focal consolidation" denies any consolidation. All other words narrow it: "no
acute fracture" does not deny an old one, nor "no apical pneumothorax" a basal one."""
NARROWING = frozenset({"other", "additional", "further", "new", "acute", "recurrent", "residual"})
"""Words before a denied observation that narrow it even if they are not entities."""
EXCEPT = frozenset({"otherwise", "elsewhere", "except", "aside", "apart", "besides", "remaining", "remainder", "rest"})
"""Words that limit a general statement to the rest; such a sentence implies no finding."""
OLD = _stems("old$ healed healing chronic stable unchanged remote prior previous longstanding")
ACUTE = frozenset({Finding.EDEMA, Finding.CONSOLIDATION, Finding.PNEUMONIA, Finding.PNEUMOTHORAX})
"""Findings that contradict "no acute process" unless they are old."""
