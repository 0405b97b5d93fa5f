"""Write one self-contained HTML file with reports, images, entities and scores.

The file works from disk without a network. No text of a report can become code: Jinja escapes text in HTML, the data is
JSON with `<`, `>`, `&` and `'` escaped, the script inserts text as text nodes only, and a Content Security Policy with
the hash of the script blocks all others. Images are stored in inert elements and decoded when their study is shown, so
the page stays fast with thousands of studies.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from cxrreport.errors import InputError
from cxrreport.records import PriorStudy, Progress, Study
from cxrreport.review.content import Content, FindingRow, ReviewedStudy, ShownReport
from cxrreport.review.locked import images_folder
from cxrreport.review.marks import Piece
from cxrreport.review.priors import prior_of, prior_reports
from cxrreport.review.source_images import QUALITY, jpeg, write_source_images
from cxrreport.storage.atomic_files import atomic_path
from cxrreport.storage.decoding import without_controls

if TYPE_CHECKING:
    from cxrreport.dataset import Manifest

_SCRIPTS = ("data", "notes", "csv", "list", "errors", "study", "image", "print", "events")
"""Joined into one script in this order."""
_SAMPLED = 16
"""Number of images from which the size of the page is estimated."""


def write_page(
    content: Content,
    manifest: Manifest,
    output: Path,
    *,
    limit: int | None = None,
    megabytes: float = 150.0,
    sources: Path | None = None,
    priors: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> int:
    """Write the review page.

    Args:
        content: the studies, in the order of the page.
        manifest: studies with their images; a study that it lacks is shown without image.
        output: HTML file; a failure leaves an existing file unchanged.
        limit: number of studies, the first ones; `None` for all.
        megabytes: approximate size limit of all images; larger ones are all shrunk to one size.
        sources: input folder of `ingest`, from which images at the resolution of their files are written to the folder
            `<name of output>-images`; `None` for none.
        priors: study id to the id of the study that is its prior study, instead of that of the manifest. The images of
            the prior study are shown after those of the study, and its report after its reports.
        progress: called while source images are written.

    Returns:
        the number of studies on the page.

    Raises:
        InputError: `limit` is below 1.
        OutputError: a file cannot be written.
    """
    if limit is not None and limit < 1:
        raise InputError(f"limit is {limit}; it must be at least 1")
    shown = content.studies[:limit]
    known = {study.study_id: study for study in manifest.studies()}
    earlier = {
        study.study_id: prior
        for study in shown
        if study.study_id in known and (prior := prior_of(known[study.study_id], known, priors or {})) is not None
    }
    images = [
        (f"image-{position}-{number}", image_id)
        for position, study in enumerate(shown)
        if study.study_id in known
        for number, image_id in enumerate(
            (
                *known[study.study_id].image_ids,
                *(earlier[study.study_id].image_ids if study.study_id in earlier else ()),
            )
        )
    ]
    folder = images_folder(output)
    full = write_source_images(sources, images, manifest.images, folder, progress) if sources else []
    side = _side(manifest, [image_id for _, image_id in images], megabytes)
    web = files("cxrreport.review") / "web"
    # Both are files of this package, not input, so they are not escaped.
    script = "\n".join((web / f"{name}.js").read_text(encoding="utf-8") for name in _SCRIPTS)
    style = (web / "page.css").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False}  # keep the order of the evaluation
    template = environment.from_string((web / "template.html").read_text(encoding="utf-8"))
    stream = template.stream(
        script=Markup(script),  # noqa: S704
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii"),
        style=Markup(style),  # noqa: S704
        content=content,
        conditions=list(_flat(content.conditions)),
        systems=_systems(content),
        shown=len(shown),
        data={**_data(content, shown, known, earlier), "folder": folder.name if full else "", "full": full},
        images=((element, _uri(manifest.image(image_id), side)) for element, image_id in images),
        full=bool(full),
        quality=QUALITY,
        side=side,
    )
    with atomic_path(output) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as handle:
        stream.enable_buffering(16)
        for chunk in stream:
            handle.write(without_controls(chunk, "\ufffd"))
    return len(shown)


def _data(
    content: Content,
    shown: Sequence[ReviewedStudy],
    known: Mapping[str, Study],
    earlier: Mapping[str, PriorStudy],
) -> dict[str, Any]:
    """Everything except the images, as JSON values for the script."""
    metrics = content.conditions.get("metrics", {})
    names = [content.ordered_by] * bool(content.ordered_by)
    return {
        "key": f"cxrreport-review-{content.digest[:16]}",
        "blind": content.blind,
        "marked": content.marked,
        "orderedBy": content.ordered_by,
        "headlines": [*names, *(one["numbers"][0] for one in metrics.values() if one.get("numbers"))],
        "studies": [
            {
                "id": study.study_id,
                "score": study.score,
                "scores": study.scores,
                "indication": known[study.study_id].report.indication if study.study_id in known else "",
                "reports": [
                    _report(report) for report in (*study.reports, *prior_reports(earlier.get(study.study_id)))
                ],
                "notes": study.notes,
                "findings": [_finding(finding) for finding in study.findings],
                "own": (own := len(known[study.study_id].image_ids) if study.study_id in known else 0),
                "images": own + (len(earlier[study.study_id].image_ids) if study.study_id in earlier else 0),
            }
            for study in shown
        ],
    }


def _report(report: ShownReport) -> dict[str, Any]:
    return {
        "key": report.key,
        "title": report.title,
        "judged": report.judged,
        "sections": [
            [section.title, [[_piece(piece) for piece in sentence] for sentence in section.sentences]]
            for section in report.sections
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
    bytes_each = sum(len(_uri(manifest.image(image_id))) for image_id in sample) / len(sample)
    part = megabytes * 1e6 / (bytes_each * len(images))
    # The size of a JPEG is roughly proportional to its number of pixels.
    return None if part >= 1 else max(1, int(max(manifest.image(sample[0]).shape) * part**0.5))


def _uri(grey: npt.NDArray[np.uint8], side: int | None = None) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg(grey, side)).decode('ascii')}"


def _flat(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{name} ")
        elif value not in (None, []):
            text = ", ".join(str(part) for part in value) if isinstance(value, list) else str(value)
            yield f"{above}{name}".replace("_", " "), text


def _systems(content: Content) -> list[tuple[str, list[tuple[str, str]]]]:
    """The metrics of each system as text with their intervals."""
    table = []
    for system, metrics in content.summary.get("systems", {}).items():
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
