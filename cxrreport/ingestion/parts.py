"""Saved parts of an ingest, so that a stopped run resumes and a job array is collected.

A part is an image shard and a small file in `.parts/` that is written after it and says what is in it. A run resumes
with the first shard that has no such file. Its manifest has the same content (`content_digest`) as that of an
uninterrupted run.

Each job of an array (`shard: i/n`) saves every n-th part in its own folder beside the output. The run without `shard`
collects them and does what is missing.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any

import cxrreport
from cxrreport.dataset import IMAGES, Covariates, ManifestRow, write_image_shard
from cxrreport.ingestion.study import StudyResult
from cxrreport.ingestion.study_plan import StudyPlan
from cxrreport.records import Exclusion, Image, Reason, Report, Split, View
from cxrreport.storage.atomic_files import atomic_path, write_json
from cxrreport.storage.decoding import parse_json

PARTS = ".parts"
_FORMAT = 2  # of a part


class Shard:
    """The studies of one part.

    Args:
        studies: sorted by study id.
        rewriter: what removes mentions of prior studies from their reports (`texts.name_of`).
    """

    def __init__(self, studies: Sequence[StudyPlan], rewriter: str) -> None:
        self.studies = studies
        self._rewriter = rewriter

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of all that decides what is made of the studies, besides settings and pixels."""
        # Another version may prepare texts and images in another way.
        digest = hashlib.sha256(json.dumps([cxrreport.__version__, self._rewriter, _FORMAT]).encode())
        for study in self.studies:
            values = asdict(study)
            for candidate in values["candidates"]:
                for file in (candidate, *candidate["copies"]):
                    # Neither path nor date is in what is made of a study, and a date stays out of every file.
                    del file["path"], file["taken"]
            digest.update(json.dumps(values, sort_keys=True).encode())
        return digest.hexdigest()


Part = tuple[list[ManifestRow], list[Exclusion], Counter[str]]
"""Rows of the manifest and of the exclusion log, and counts of the removal of mentions of prior studies."""


def divide(
    studies: Sequence[StudyPlan], rewriter: str, *, size: int, folder: Path, jobs: Sequence[Path] = ()
) -> tuple[dict[int, Shard], dict[int, Part]]:
    """Divide the studies of a plan into numbered shards, and find those that are saved.

    A saved part keeps its studies and its number while they are unchanged. All other studies form new shards, so files
    that were added to the input leave finished work as it is.

    Args:
        studies: sorted by study id.
        rewriter: as in `Shard`.
        size: studies of a new shard.
        folder: output folder, whose parts come first.
        jobs: folders of the jobs of an array; their parts are copied.

    Returns:
        All shards by number, and the saved parts among them.
    """
    remaining = {study.study_id: study for study in studies}
    shards: dict[int, Shard] = {}
    parts: dict[int, Part] = {}
    for where in (folder, *jobs):
        for path in sorted((where / PARTS).glob("*.json")):
            saved = parse_json(path.read_text(encoding="utf-8"))
            ids = saved.get("studies", [""])
            if not all(study_id in remaining for study_id in ids):
                continue
            number = int(path.stem)
            shard = Shard([remaining[study_id] for study_id in ids], rewriter)
            if not _is_of(saved, where, number, shard):
                continue
            if where != folder:
                number = number if number not in shards else _free(shards)
                _copy_part(where, int(path.stem), folder, number)
            shards[number], parts[number] = shard, _from_json(saved, number)
            for study_id in ids:
                del remaining[study_id]
    left = list(remaining.values())
    for start in range(0, len(left), size):
        shards[_free(shards)] = Shard(left[start : start + size], rewriter)
    return dict(sorted(shards.items())), parts


def _free(shards: Mapping[int, Shard]) -> int:
    return next(number for number in count() if number not in shards)


def _copy_part(source: Path, number: int, target: Path, new: int) -> None:
    # The part last: it says that its images are there.
    for old, name in (
        (image_file(source, number), image_file(target, new)),
        (part_file(source, number), part_file(target, new)),
    ):
        if old.is_file():
            with atomic_path(name) as temporary:
                shutil.copyfile(old, temporary)


def image_file(folder: Path, number: int) -> Path:
    """The images of a part."""
    return folder / IMAGES / f"{number:05}.parquet"


def part_file(folder: Path, number: int) -> Path:
    """The file that says what is in a part."""
    return folder / PARTS / f"{number:05}.json"


def remove_other_parts(folder: Path, shards: Collection[int]) -> None:
    """Remove parts that belong to none of `shards`: the input was another one when they were saved."""
    for path in (*(folder / IMAGES).glob("*.parquet"), *(folder / PARTS).glob("*.json")):
        if not path.stem.isdigit() or int(path.stem) not in shards:
            path.unlink()


def save_part(folder: Path, number: int, shard: Shard, result: StudyResult) -> Part:
    """Write the images, then the part that says what is in it."""
    images = image_file(folder, number)
    if result.kept:
        write_image_shard(images, [(row.image.image_id, png) for row, png in result.kept])
    else:
        images.unlink(missing_ok=True)
    write_json(
        part_file(folder, number),
        {
            "plan": shard.fingerprint,
            "studies": [study.study_id for study in shard.studies],
            "kept": [
                asdict(row.image)
                | {"image_sha256": row.image_sha256, "covariates": asdict(row.covariates) if row.covariates else None}
                for row, _ in result.kept
            ],
            "reports": {row.image.study_id: asdict(row.report) for row, _ in result.kept},
            "with_mentions": {
                row.image.study_id: asdict(row.report_with_mentions)
                for row, _ in result.kept
                if row.report_with_mentions
            },
            "texts": result.texts,
            "left_out": [asdict(row) for row in result.excluded],
        },
    )
    rows = [replace(row, shard=images.name, shard_row=place) for place, (row, _) in enumerate(result.kept)]
    return rows, result.excluded, result.texts


def load_part(folder: Path, number: int, shard: Shard) -> Part | None:
    """The part that an earlier run saved for the same studies; `None` if there is none."""
    try:
        saved: dict[str, Any] = parse_json(part_file(folder, number).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return _from_json(saved, number) if _is_of(saved, folder, number, shard) else None


def _is_of(saved: Mapping[str, Any], folder: Path, number: int, shard: Shard) -> bool:
    """False if the input has changed since the part was saved, or its images are gone."""
    return saved["plan"] == shard.fingerprint and (not saved["kept"] or image_file(folder, number).is_file())


def _from_json(saved: Mapping[str, Any], number: int) -> Part:
    reports, with_mentions = (
        {study_id: Report(**sections) for study_id, sections in saved[name].items()}
        for name in ("reports", "with_mentions")
    )
    rows = []
    for place, values in enumerate(saved["kept"]):
        sha256, known = values.pop("image_sha256"), values.pop("covariates")
        image = Image(**values | {"split": Split(values["split"]), "view": View(values["view"])})
        image = replace(image, notes=tuple(image.notes))
        rows.append(
            ManifestRow(
                image=image,
                report=reports[image.study_id],
                image_sha256=sha256,
                covariates=Covariates(**known) if known else None,
                shard=f"{number:05}.parquet",
                shard_row=place,
                report_with_mentions=with_mentions.get(image.study_id),
            )
        )
    excluded = [Exclusion(**values | {"reason": Reason(values["reason"])}) for values in saved["left_out"]]
    return rows, excluded, Counter(saved["texts"])
