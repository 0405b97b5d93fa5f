"""The policy that decides from header values whether a file is a chest radiograph.

An image that is refused by policy, not because it is unreadable, can be kept by setting; its reason becomes a note.
"""

from __future__ import annotations

import errno
from collections.abc import Collection

from cxrreport.errors import RefusedImage
from cxrreport.records import Reason

_FOR_PROCESSING = "1.2.840.10008.5.1.4.1.1.1.1.1"  # Digital X-Ray Image Storage - For Processing
_SOP_CLASSES = frozenset(
    {
        "1.2.840.10008.5.1.4.1.1.1",  # Computed Radiography Image Storage
        "1.2.840.10008.5.1.4.1.1.1.1",  # Digital X-Ray Image Storage - For Presentation
        _FOR_PROCESSING,
        "1.2.840.10008.5.1.4.1.1.7",  # Secondary Capture Image Storage
        "1.2.840.10008.5.1.4.1.1.7.2",  # Multi-frame Grayscale Byte Secondary Capture Image Storage
        "1.2.840.10008.5.1.4.1.1.7.3",  # Multi-frame Grayscale Word Secondary Capture Image Storage
    }
)
_RADIOGRAPHS = frozenset({"CR", "DX", "DR", "RG"})
_SAYS_NOTHING = frozenset({"", "OT", "SC"})
_OTHER_MODALITIES = frozenset(
    {"CT", "MR", "US", "NM", "PT", "MG", "XA", "RF", "IO", "PX", "ES", "XC", "ECG", "SR", "PR", "KO", "SEG", "OP", "SM"}
    | {"RTIMAGE", "RTDOSE", "RTSTRUCT", "RTPLAN", "DOC", "BI", "IVUS", "OCT", "REG", "HD", "EPS", "BMD", "GM"}
)
_CHEST = ("CHEST", "THORAX", "LUNG", "TORAX", "CXR")
# Defined terms of PS3.16 Annex L, and how they are commonly written, that name a part which is not the chest.
_NOT_CHEST_TERMS = """
    HIP PELVIS HEAD SKULL BRAIN NECK JAW FACE ORBIT SINUS NOSE NASAL EAR TEETH MANDIBLE MAXILLA ZYGOMA TMJ
    KNEE LEG FOOT FEET TOE ANKLE HEEL CALCANEUS FEMUR THIGH TIBIA FIBULA PATELLA EXTREMITY CEXTREMITY
    HAND FINGER THUMB WRIST ARM FOREARM ELBOW HUMERUS RADIUS ULNA SHOULDER CLAVICLE SCAPULA BREAST
    SPINE CSPINE TSPINE LSPINE SSPINE COCCYX SACRUM SIJOINT ABDOMEN
"""
_NOT_CHEST = frozenset(_NOT_CHEST_TERMS.split())


_LASTING = {errno.EACCES, errno.EPERM, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO, errno.ENODEV}
"""Errors that another attempt does not change."""


def refused_by_system(error: OSError) -> RefusedImage:
    """The refusal of a file that the system does not open or read: for good (permissions), or `unavailable`."""
    reason = Reason.NOT_READABLE if error.errno in _LASTING else Reason.UNAVAILABLE
    return RefusedImage(reason, error.strerror or type(error).__name__)


def refused_unless(kept: Collection[str], reason: Reason, detail: str) -> tuple[str, ...]:
    """Return the reason as a note if it is in `kept`.

    Raises:
        RefusedImage: it is not in `kept`.
    """
    if reason in kept:
        return (reason.value,)
    raise RefusedImage(reason, detail)


def check_modality(
    *, sop_class: str, sop_class_name: str, modality: str, is_image: bool, keep: Collection[str] = ()
) -> tuple[str, ...]:
    """Accept radiographs, and captures without a stated modality.

    Args:
        sop_class: SOP Class UID, empty where missing.
        sop_class_name: its name in the standard, empty if it has none.
        modality: Modality (0008,0060) in capitals, empty where missing.
        is_image: the header has rows.
        keep: reasons that become notes.

    Returns:
        Notes: `for-processing`, `modality-missing`, `not-a-radiograph`.

    Raises:
        RefusedImage: `not-a-radiograph`, `no-pixels` for objects without an image, or `not-dicom` if SOP class,
            modality and rows are all missing.
    """
    if not modality and not sop_class and not is_image:
        raise RefusedImage(Reason.NOT_DICOM, "no SOP class, no modality and no rows")
    if sop_class and sop_class not in _SOP_CLASSES:
        what = f"SOP class {sop_class_name}" if sop_class_name else "an unknown SOP class"
        if not is_image:
            raise RefusedImage(Reason.NO_PIXELS, f"{what}, without an image")
        return refused_unless(keep, Reason.NOT_RADIOGRAPH, what)
    if modality not in _RADIOGRAPHS and modality not in _SAYS_NOTHING:
        named = f"modality {modality}" if modality in _OTHER_MODALITIES else "a modality that is not radiography"
        return refused_unless(keep, Reason.NOT_RADIOGRAPH, named)
    notes = ("for-processing",) if sop_class == _FOR_PROCESSING else ()
    return notes + (("modality-missing",) if modality in _SAYS_NOTHING else ())


def check_body_part(part: str, keep: Collection[str] = ()) -> tuple[str, ...]:
    """Refuse parts that are clearly not a chest; accept a missing or unclear part with a note.

    Args:
        part: Body Part Examined (0018,0015), empty where missing.
        keep: reasons that become notes.

    Returns:
        Notes: `bodypart-missing`, `bodypart-unclear`, `not-a-chest`.

    Raises:
        RefusedImage: `not-a-chest`.
    """
    part = part.upper()
    if not part:
        return ("bodypart-missing",)
    if any(word in part for word in _CHEST):
        return ()
    for word in "".join(letter if letter.isalpha() else " " for letter in part).split():
        if word in _NOT_CHEST:
            return refused_unless(keep, Reason.NOT_CHEST, f"BodyPartExamined names {word}")
    return ("bodypart-unclear",)
