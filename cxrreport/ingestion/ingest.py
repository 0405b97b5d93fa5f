"""The command `ingest`: studies on disk to manifest, model-ready images, exclusion log and contact sheet."""

from __future__ import annotations

import logging
import shutil
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cxrreport
from cxrreport.dataset import (
    EXCLUSION_LOG,
    IMAGES,
    MANIFEST,
    ImageStore,
    ManifestRow,
    Pseudonyms,
    hide_identifiers,
    hide_input_name,
    key_version,
    recorded_input,
    write_exclusion_log,
    write_manifest,
)
from cxrreport.errors import InputError
from cxrreport.ingestion.contact_sheet import spread, write_contact_sheet
from cxrreport.ingestion.dicom import Header
from cxrreport.ingestion.layouts import Listing, list_sources
from cxrreport.ingestion.parts import (
    PARTS,
    Part,
    Shard,
    divide,
    load_part,
    remove_other_parts,
    save_part,
)
from cxrreport.ingestion.prior_studies import count_laterals, link_priors
from cxrreport.ingestion.pseudonymized import pseudonymized_header, pseudonymized_listing
from cxrreport.ingestion.study import StudyResult, StudyTask, read_study
from cxrreport.ingestion.study_plan import StudyPlan, make_plan, needs_header, read_header_of
from cxrreport.ingestion.summary import (
    IngestSummary,
    count_near_duplicate_reports,
    count_other_languages,
    count_shared_reports,
    read_summary,
    studies_per_split,
)
from cxrreport.ingestion.texts import (
    Rewriter,
    allowed_rewriter,
    deidentification_of,
    name_of,
    prepare_text,
    propose_edits,
    seeded,
)
from cxrreport.ingestion.workers import ordered_map
from cxrreport.records import Exclusion, Progress, Reason
from cxrreport.settings import IngestSettings
from cxrreport.storage.job_arrays import part_folder, parts_of, remove_parts
from cxrreport.storage.output_folder import output_folder
from cxrreport.storage.parquet import read_columns

logger = logging.getLogger(__name__)

STUDIES_PER_SHARD = 128
"""Work that is repeated at most after an interruption."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Portion:
    """Studies of an ingest that are read and saved.

    Args:
        number: of the portion; a resumed or extended run has the same studies under the same number.
        folder: output folder, which has the images.
        studies: ids of the studies, sorted, with those of which no image was kept.
        rows: kept images, by study.
        excluded: rows of the exclusion log.
        preprocessing: as in the manifest.
        total: studies in all portions of this job.
    """

    number: int
    folder: Path
    studies: tuple[str, ...]
    rows: list[ManifestRow]
    excluded: list[Exclusion]
    preprocessing: dict[str, Any]
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed:
    """An ingest into the output folder of another command, which works on each portion as soon as it is saved.

    It begins even if it has finished before, takes in what is new in the input, and keeps its parts.

    Args:
        each: called with every portion, in order, also with those of earlier runs.
        size: studies per portion.
        folder: output folder of this process.
        output: output folder of the other command.
    """

    each: Callable[[Portion], None]
    size: int
    folder: Path
    output: Path


def ingest(
    settings: IngestSettings,
    progress: Progress | None = None,
    *,
    rewriter: Rewriter | None = None,
    followed: Followed | None = None,
) -> IngestSummary:
    """Convert `settings.input` into a manifest, images, an exclusion log and a contact sheet in `settings.output`.

    With the same settings and folder, a stopped run resumes, and a finished run returns its summary.

    Args:
        settings: `input` may be a folder, a table, or a single file.
        progress: called with completed and total items and a label, in this process.
        rewriter: removes mentions of prior studies instead of the rules (`texts.Rewriter`); `None` for
            `settings.priors_rewriter`.
        followed: if another command works on the images while they are read.

    Raises:
        SettingsError: the key file cannot be used, or the rewriter is missing or not allowed.
        MissingExtraError: `texts.deidentify` is set, and its extra is not installed.
        InputError: the input is missing, fails while it is read, a table is invalid, or a patient is in two splits.
        OutputError: the folder is in use or holds something else, or the disk is full.
    """
    started = time.perf_counter()
    report = progress or _ignore
    rewriter = allowed_rewriter(settings, rewriter)
    deidentification = deidentification_of(settings)
    where = followed.folder if followed else part_folder(settings.output, settings.shard)
    version = key_version(settings, where, "ingest")
    recorded = _recorded(settings, rewriter, version)
    pseudonyms = Pseudonyms.from_file(settings.pseudonymize, version) if settings.pseudonymize is not None else None
    if pseudonyms is not None and version == 1:
        logger.warning(
            "pseudonymize: %s has pseudonyms of version 1, which are only as good as the key file is hard to guess; to "
            "change to version 2, ingest into a new folder",
            where,
        )
    with (
        hide_identifiers(pseudonyms),
        hide_input_name(settings),
        output_folder(where, command="ingest", settings=recorded) as folder,
    ):
        if followed is not None and folder.finished:
            folder.update(finished=False)
        elif folder.finished and (settings.shard is not None or (folder.path / MANIFEST).is_file()):
            if settings.shard is None:
                shutil.rmtree(folder.path / PARTS, ignore_errors=True)
            return read_summary(folder, resumed=True)
        listing = pseudonymized_listing(list_sources(settings), pseudonyms)
        with closing(_headers(settings, listing, report)) as headers:
            plan = make_plan(settings, listing, (pseudonymized_header(header, pseudonyms) for header in headers))
        resumed = (folder.path / PARTS).is_dir()
        studies = seeded(plan.studies, settings, pseudonyms)
        jobs: list[Path] = []
        if settings.shard is None:
            array = followed.output if followed else settings.output
            jobs = parts_of(folder, array, inside=where.name if followed else "")
        shards, parts = divide(
            studies,
            name_of(rewriter),
            size=followed.size if followed else STUDIES_PER_SHARD,
            folder=settings.output,
            jobs=jobs,
        )
        if settings.shard is not None:
            shards = {number: shard for number, shard in shards.items() if number not in parts}
            shards = {number: shard for number, shard in shards.items() if _belongs_to_job(settings.shard, number)}
            loaded = {number: load_part(where, number, shard) for number, shard in shards.items()}
            parts = {number: part for number, part in loaded.items() if part is not None}
        total = sum(len(shard.studies) for shard in shards.values())
        rows, excluded, texts = [], list[Exclusion](), Counter[str]()
        with closing(_read_studies(settings, where, shards, parts, rewriter, report)) as read_parts:
            for number, (part_rows, part_excluded, part_texts) in read_parts:
                rows += part_rows
                excluded += part_excluded
                texts.update(part_texts)
                if followed is not None:
                    portion = Portion(
                        number=number,
                        folder=where,
                        studies=tuple(study.study_id for study in shards[number].studies),
                        rows=part_rows,
                        excluded=part_excluded,
                        preprocessing=_preprocessing(settings),
                        total=total,
                    )
                    followed.each(portion)
        remove_other_parts(where, shards)
        rows.sort(key=lambda row: row.image.study_id)
        read, priors, laterals = plan.read, dict[str, int](), dict[str, int]()
        if settings.shard is None:
            rows, priors = link_priors(rows, plan.moments)
            laterals = count_laterals(rows, plan.with_lateral, views=settings.views)
            excluded += plan.excluded
            excluded.sort(key=lambda row: (row.source, row.study_id, row.reason))
            write_exclusion_log(folder.path, excluded)
            digest = write_manifest(folder.path, rows, _preprocessing(settings))
            _write_sheet(folder.path, rows)
        else:
            read, digest = len(rows) + len(excluded), ""
        folder.finish(
            version=cxrreport.__version__,
            layout=listing.layout,
            official_split=listing.official_split,
            read=read,
            kept=len(rows),
            left_out=dict(sorted(Counter(row.reason.value for row in excluded).items())),
            notes=dict(sorted(Counter(note for row in rows for note in row.image.notes).items())),
            studies=studies_per_split(rows),
            priors=priors,
            laterals=laterals,
            reports_in_several_splits=count_shared_reports(rows),
            near_duplicate_reports=count_near_duplicate_reports(rows),
            texts=dict(sorted((dict(texts) | count_other_languages(rows)).items())),
            deidentification=deidentification,
            digest=digest,
            seconds=round(time.perf_counter() - started, 3),
        )
        if settings.shard is None and followed is None:
            shutil.rmtree(folder.path / PARTS, ignore_errors=True)
            remove_parts(settings.output, "ingest")
        return read_summary(folder, resumed=resumed)


def count_new_files(settings: IngestSettings) -> int:
    """Files of the input that a finished ingest has not seen; only their names are read.

    Raises:
        InputError: the input cannot be listed.
    """
    known: set[str] = set()
    for name in (MANIFEST, EXCLUSION_LOG):
        known.update(read_columns(settings.output / name, "source")["source"].to_pylist())
    version = key_version(settings, settings.output, "ingest")
    pseudonyms = Pseudonyms.from_file(settings.pseudonymize, version) if settings.pseudonymize is not None else None
    listing = pseudonymized_listing(list_sources(settings), pseudonyms)
    found = [*(one.source for one in listing.sources), *(row.source for row in listing.excluded)]
    return sum(source not in known for source in found)


def _headers(settings: IngestSettings, listing: Listing, progress: Progress) -> Generator[Header | Exclusion]:
    wanted = [source for source in listing.sources if needs_header(source)]
    read = partial(read_header_of, max_pixels=settings.max_pixels, keep=settings.keep)
    # Starting processes takes longer than reading a few headers.
    workers = settings.workers if len(wanted) > 2000 else 1
    with closing(ordered_map(read, wanted, workers=workers, when_killed=read)) as headers:
        for done, header in enumerate(headers, start=1):
            progress(done, len(wanted), "headers")
            if isinstance(header, Exclusion):
                _check_available(settings, [header])
            yield header


def _read_studies(
    settings: IngestSettings,
    folder: Path,
    shards: Mapping[int, Shard],
    parts: Mapping[int, Part],
    rewriter: Rewriter | None,
    progress: Progress,
) -> Generator[tuple[int, Part]]:
    """Read the studies of the shards that are not in `parts`; yields all parts in the order of their numbers."""
    missing = {number: shard for number, shard in shards.items() if number not in parts}
    todo = [study for shard in missing.values() for study in shard.studies]
    tasks = _tasks(todo, settings, rewriter, progress)
    total = sum(len(shard.studies) for shard in shards.values())
    done = total - len(todo)
    progress(done, total, "studies")
    read, killed = partial(read_study, settings=settings), partial(read_study, settings=settings, apart=True)
    with closing(ordered_map(read, tasks, workers=settings.workers, when_killed=killed)) as results:
        for number, shard in shards.items():
            if number in parts:
                yield number, parts[number]
                continue
            part = StudyResult()
            for _ in shard.studies:
                result = next(results)
                _check_available(settings, result.excluded)
                part.add(result)
                done += 1
                progress(done, total, "studies")
            yield number, save_part(folder, number, shard, part)


def _tasks(
    studies: list[StudyPlan], settings: IngestSettings, rewriter: Rewriter | None, progress: Progress
) -> Iterator[StudyTask]:
    """What the workers get; a rewriter, which may hold a model or not be importable, runs in this process."""
    if rewriter is None:
        return map(StudyTask, studies)
    if callable(rewriter):
        return (StudyTask(study, text=prepare_text(study, settings, rewriter=rewriter)) for study in studies)
    proposals = propose_edits(studies, settings, rewriter, progress)
    return (StudyTask(study, proposals=own) for study, own in zip(studies, proposals, strict=True))


def _check_available(settings: IngestSettings, excluded: list[Exclusion]) -> None:
    """Fail if a listed file could not be read for a reason that may pass: a row would make the loss permanent.

    Raises:
        InputError: the same command reads the rest again.
    """
    for row in excluded:
        if row.reason is Reason.UNAVAILABLE:
            gone = "" if settings.input.exists() else f"{settings.input}: the input is no longer there; "
            raise InputError(
                f"{gone}{row.source}: {row.detail}, after the file was listed; re-run the same command when the input "
                "can be read, which resumes here, or remove the file"
            )


def _belongs_to_job(shard: str, part: int) -> bool:
    number, count = map(int, shard.split("/"))
    return part % count == number - 1


def _recorded(settings: IngestSettings, rewriter: Rewriter | None, version: int) -> dict[str, Any]:
    # A relative path means another input in another working directory. The version is in the value of `pseudonymize`.
    values = settings.model_dump(mode="json", exclude={"pseudonym_version"}) | {"input": str(settings.input.resolve())}
    if settings.reports is not None:
        values["reports"] = str(settings.reports.resolve())
    if rewriter is not None and not callable(rewriter):
        values["rewriter_digest"] = rewriter.digest
    return values | recorded_input(settings, version)


def _preprocessing(settings: IngestSettings) -> dict[str, Any]:
    return {
        "resolution": settings.resolution,
        "resize": settings.resize,
        "interpolation": settings.interpolation,
    }


def _write_sheet(folder: Path, rows: list[ManifestRow]) -> None:
    chosen = [rows[index] for index in spread(len(rows))]
    store = ImageStore(folder / IMAGES, {row.image.image_id: (row.shard, row.shard_row) for row in chosen})
    shown = [row.image for row in chosen]
    tiles = [(store[image.image_id], f"{image.view}  {image.rows} x {image.columns}") for image in shown]
    write_contact_sheet(folder / "contact_sheet.png", tiles)


def _ignore(_done: int, _total: int, _label: str) -> None:
    """Ignore progress."""
