"""Write one self-contained HTML file with generated and reference reports, images, entities and scores.

The file works from disk without a network. No text of a report can become code: Jinja escapes text in HTML, the data is
JSON with `<`, `>`, `&` and `'` escaped, the script inserts text as text nodes only, and a Content Security Policy with
the hash of the script blocks all others. Images are stored in inert elements and decoded when their study is shown, so
the page stays fast with thousands of studies.
"""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import numpy as np
import numpy.typing as npt
import PIL.Image
from markupsafe import Markup

from cxrreport.errors import InputError
from cxrreport.records import Study
from cxrreport.review.marks import Piece
from cxrreport.review.studies import WORST_BY, Evaluated, FindingRow, ReviewedStudy, read_evaluation
from cxrreport.storage.atomic_files import atomic_path

if TYPE_CHECKING:
    from cxrreport.dataset import Manifest

QUALITY = 90
_SCRIPTS = ("data.js", "notes.js", "list.js", "study.js", "image.js", "events.js")
"""Joined into one script in this order."""
_SAMPLED = 16
"""Number of images from which the size of the page is estimated."""


def write_page(
    evaluation: Path, manifest: Manifest, output: Path, limit: int | None = None, megabytes: float = 150.0
) -> int:
    """Write the review page of an evaluation.

    Args:
        evaluation: output folder of `evaluate`.
        manifest: studies with their images; a study that it lacks is shown without image.
        output: HTML file; a failure leaves an existing file unchanged.
        limit: number of studies, the worst by RadGraph F1 (partial); `None` for all.
        megabytes: approximate size limit of all images; larger ones are all shrunk to one size.

    Returns:
        the number of studies on the page.

    Raises:
        InputError: the evaluation is incomplete or unreadable, or `limit` is below 1.
        OutputError: the file cannot be written.
    """
    if limit is not None and limit < 1:
        raise InputError(f"limit is {limit}; it must be at least 1")
    evaluated = read_evaluation(evaluation)
    shown = evaluated.studies[:limit]
    known = {study.study_id: study for study in manifest.studies()}
    images = [
        (f"image-{position}-{number}", image_id)
        for position, study in enumerate(shown)
        if study.study_id in known
        for number, image_id in enumerate(known[study.study_id].image_ids)
    ]
    side = _side(manifest, [image_id for _, image_id in images], megabytes)
    web = files("cxrreport.review") / "web"
    # Both are files of this package, not input, so they are not escaped.
    script = "\n".join((web / name).read_text(encoding="utf-8") for name in _SCRIPTS)
    style = (web / "page.css").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False}  # keep the order of the evaluation
    template = environment.from_string((web / "template.html").read_text(encoding="utf-8"))
    stream = template.stream(
        script=Markup(script),  # noqa: S704
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii"),
        style=Markup(style),  # noqa: S704
        evaluated=evaluated,
        conditions=_conditions(evaluated),
        systems=_systems(evaluated),
        shown=len(shown),
        data=_data(evaluated, shown, known),
        images=((element, image_uri(manifest.image(image_id), side)) for element, image_id in images),
        quality=QUALITY,
        side=side,
    )
    with atomic_path(output) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as handle:
        stream.enable_buffering(16)
        for chunk in stream:
            handle.write(chunk)
    return len(shown)


def _data(evaluated: Evaluated, shown: Sequence[ReviewedStudy], known: Mapping[str, Study]) -> dict[str, Any]:
    """Everything except the images, as JSON values for the script."""
    metrics = evaluated.summary["conditions"].get("metrics", {})
    return {
        "key": f"cxrreport-review-{evaluated.digest[:16]}",
        "orderedBy": WORST_BY,
        "headlines": [WORST_BY, *(one["numbers"][0] for one in metrics.values() if one.get("numbers"))],
        "studies": [
            {
                "id": study.study_id,
                "score": study.score,
                "scores": study.scores,
                "indication": known[study.study_id].report.indication if study.study_id in known else "",
                "generated": [_piece(piece) for piece in study.generated],
                "reference": [_piece(piece) for piece in study.reference],
                "missed": len(study.missed),
                "hallucinated": len(study.hallucinated),
                "findings": [_finding(finding) for finding in study.findings],
                "images": len(known[study.study_id].image_ids) if study.study_id in known else 0,
            }
            for study in shown
        ],
    }


def _finding(finding: FindingRow) -> list[Any]:
    return [finding.name, finding.candidate, finding.reference, finding.error, finding.contradiction]


def _piece(piece: Piece) -> list[str]:
    return [piece.text, piece.status, piece.label] if piece.status else [piece.text]


def _side(manifest: Manifest, images: Sequence[str], megabytes: float) -> int | None:
    """Longest side in pixels at which all images take about `megabytes`; `None` if they need not be shrunk."""
    sample = images[:: max(1, len(images) // _SAMPLED)]
    if not sample:
        return None
    bytes_each = sum(len(image_uri(manifest.image(image_id))) for image_id in sample) / len(sample)
    part = megabytes * 1e6 / (bytes_each * len(images))
    # The size of a JPEG is roughly proportional to its number of pixels.
    return None if part >= 1 else max(1, int(max(manifest.image(sample[0]).shape) * part**0.5))


def image_uri(grey: npt.NDArray[np.uint8], side: int | None = None) -> str:
    """The data URI of a JPEG of `uint8[H, W]`, its longer side at most `side` pixels."""
    image = PIL.Image.fromarray(grey)
    if side is not None and side < max(image.size):
        image.thumbnail((side, side))
    jpeg = io.BytesIO()
    image.save(jpeg, format="JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg.getvalue()).decode('ascii')}"


def _conditions(evaluated: Evaluated) -> list[tuple[str, str]]:
    return list(_flat(evaluated.summary["conditions"]))


def _flat(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{name} ")
        elif value not in (None, []):
            text = ", ".join(str(part) for part in value) if isinstance(value, list) else str(value)
            yield f"{above}{name}".replace("_", " "), text


def _systems(evaluated: Evaluated) -> list[tuple[str, list[tuple[str, str]]]]:
    """The metrics of each system as text with their intervals."""
    table = []
    for system, metrics in evaluated.summary.get("systems", {}).items():
        cells = []
        for metric, interval in metrics.items():
            text = "–" if interval["value"] is None else f"{interval['value']:.3f}"
            if interval.get("low") is not None and interval.get("high") is not None:
                text += f" ({interval['low']:.3f} to {interval['high']:.3f})"
            elif interval["value"] is not None:
                text += " (interval undefined)"
            cells.append((metric, text))
        table.append((system, cells))
    return table
