"""Read the JSON files of ReXrank: an object of studies, with references, context and model_prediction."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from cxrreport.errors import InputError
from cxrreport.records import Split
from cxrreport.storage.decoding import parse_json
from cxrreport.storage.tables import Table

logger = logging.getLogger(__name__)

_SECTIONS = ("section_findings", "section_impression", "findings", "impression")
_SPLITS = {"val": Split.VALIDATE, "valid": Split.VALIDATE, "validation": Split.VALIDATE}
# Folders of patients in MIMIC-CXR and CheXpert, and the beginning of study ids in IU X-ray.
_PATIENT = re.compile(r"(?:^|/)(p\d{8}|patient\d+|CXR\d+)(?=[/_])")


def read_rexrank(path: Path, part: Literal["references", "predictions"]) -> Table:
    """Read a ReXrank file as a table with one row per study.

    References have findings, impression, split and patient_id: `subject_id` or, without it, what the path of the image
    or the study id shows; a study of an unknown patient counts as a patient of its own, with a warning. Predictions
    have the text of `model_prediction`, `None` where it is missing.

    Raises:
        InputError: the file is not JSON, not an object of objects, names a study twice, or has no reference sections or
            no `model_prediction` at all.
    """
    try:
        studies = parse_json(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_once)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except KeyError as error:
        raise InputError(f"{path}: {error.args[0]!r} occurs twice; keep one of them") from None
    except ValueError:
        raise InputError(f"{path}: not a JSON file") from None
    if not isinstance(studies, dict) or not all(isinstance(entry, dict) for entry in studies.values()):
        raise InputError(f"{path}: expected the format of ReXrank, an object with one object for each study id")
    names = ("model_prediction",) if part == "predictions" else _SECTIONS
    for study, entry in studies.items():
        if wrong := [
            name for name in names if not isinstance(entry.get(name), str | None) and entry[name] == entry[name]
        ]:
            raise InputError(f"{path}: {wrong[0]} of study {study!r} is no text; write a string or null")
    if part == "predictions":
        rows = [{"study_id": study, "text": entry.get("model_prediction")} for study, entry in studies.items()]
        if rows and not any("model_prediction" in entry for entry in studies.values()):
            raise InputError(f"{path}: no study has model_prediction; pass the file that inference wrote")
        return Table(path, ("study_id", "text"), rows)
    rows = [{"study_id": study, **_reference(study, entry)} for study, entry in studies.items()]
    if rows and not any(row["findings"] or row["impression"] for row in rows):
        raise InputError(f"{path}: no study has section_findings or section_impression")
    unknown = sum(row["patient_id"] == row["study_id"] for row in rows)
    if unknown:
        logger.warning("%s: %d studies have no patient; each counts as a patient of its own", path, unknown)
    return Table(path, ("study_id", "patient_id", "split", "findings", "impression"), rows)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise KeyError(name)
        found[name] = value
    return found


def _reference(study: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    images = entry.get("image_path")
    places = [str(one) for one in (images if isinstance(images, list) else [images]) if one]
    found = next((match for place in (*places, study) if (match := _PATIENT.search(place))), None)
    split = entry.get("split")
    return {
        "patient_id": str(entry.get("subject_id") or (found and found[1]) or study),
        "split": _SPLITS.get(split, split) if isinstance(split, str) else split,
        **{name: entry.get(f"section_{name}", entry.get(name)) for name in ("findings", "impression")},
    }
