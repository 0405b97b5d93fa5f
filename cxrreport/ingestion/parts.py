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
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import cxrreport
from cxrreport.dataset import IMAGES, Covariates, ManifestRow, write_image_shard
from cxrreport.ingestion.study import StudyResult
from cxrreport.ingestion.study_plan import StudyPlan
from cxrreport.records import Exclusion, Image, Reason, Report, Split, View
from cxrreport.storage.atomic_files import atomic_path, write_json
from cxrreport.storage.decoding import parse_json
from cxrreport.storage.job_arrays import parts_of
from cxrreport.storage.output_folder import OutputFolder

PARTS = ".parts"


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
        digest = hashlib.sha256(json.dumps([cxrreport.__version__, self._rewriter]).encode())
        for study in self.studies:
            values = asdict(study)
            for candidate in values["candidates"]:
                for file in (candidate, *candidate["copies"]):
                    del file["path"]
            digest.update(json.dumps(values, sort_keys=True).encode())
        return digest.hexdigest()


def collect_job_parts(folder: OutputFolder, output: Path, shards: Sequence[Shard]) -> None:
    """Copy the parts that the jobs of an array have saved with these settings.

    Args:
        folder: of the collecting run.
        output: the output folder in the settings of the jobs.
        shards: the studies of each part.

    Raises:
        OutputError: a job used other settings.
    """
    for other in parts_of(folder, output):
        for path in sorted((other / PARTS).glob("*.json")):
            index = int(path.stem)
            if index >= len(shards) or load_part(folder.path, index, shards[index]) is not None:
                continue
            if load_part(other, index, shards[index]) is None:
                continue  # the input has changed since
            images = Path(IMAGES) / f"{index:05}.parquet"
            for name in (images, Path(PARTS) / path.name):  # the part last: it says that its images are there
                if (other / name).is_file():
                    with atomic_path(folder.path / name) as temporary:
                        shutil.copyfile(other / name, temporary)


Part = tuple[list[ManifestRow], list[Exclusion], Counter[str]]
"""Rows of the manifest and of the exclusion log, and counts of the removal of mentions of prior studies."""


def save_part(folder: Path, index: int, shard: Shard, result: StudyResult) -> Part:
    """Write the images, then the part that says what is in it."""
    images = folder / IMAGES / f"{index:05}.parquet"
    if result.kept:
        write_image_shard(images, [(row.image.image_id, png) for row, png in result.kept])
    else:
        images.unlink(missing_ok=True)
    write_json(
        folder / PARTS / f"{index:05}.json",
        {
            "plan": shard.fingerprint,
            "kept": [
                asdict(row.image)
                | {"image_sha256": row.image_sha256, "covariates": asdict(row.covariates) if row.covariates else None}
                for row, _ in result.kept
            ],
            "reports": {row.image.study_id: asdict(row.report) for row, _ in result.kept},
            "texts": result.texts,
            "left_out": [asdict(row) for row in result.excluded],
        },
    )
    return [row for row, _ in result.kept], result.excluded, result.texts


def load_part(folder: Path, index: int, shard: Shard) -> Part | None:
    """The part that an earlier run saved for the same studies; `None` if there is none."""
    try:
        part: dict[str, Any] = parse_json((folder / PARTS / f"{index:05}.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    if part["plan"] != shard.fingerprint:
        return None  # the input has changed since
    if part["kept"] and not (folder / IMAGES / f"{index:05}.parquet").is_file():
        return None
    reports = {study_id: Report(**sections) for study_id, sections in part["reports"].items()}
    rows = []
    for values in part["kept"]:
        sha256, known = values.pop("image_sha256"), values.pop("covariates")
        covariates = Covariates(**known) if known else None
        image = Image(**values | {"split": Split(values["split"]), "view": View(values["view"])})
        image = replace(image, notes=tuple(image.notes))
        report = reports[image.study_id]
        rows.append(ManifestRow(image=image, report=report, image_sha256=sha256, covariates=covariates))
    excluded = [Exclusion(**values | {"reason": Reason(values["reason"])}) for values in part["left_out"]]
    return rows, excluded, Counter(part["texts"])
