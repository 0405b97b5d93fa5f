"""The command `ingest`: studies on disk to manifest, model-ready images, exclusion log and contact sheet."""

from __future__ import annotations

import logging
import shutil
import time
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import cxrreport
from cxrreport.dataset import (
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
from cxrreport.ingestion.parts import PARTS, Part, Shard, collect_job_parts, load_part, save_part
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
from cxrreport.storage.job_arrays import part_folder, remove_parts
from cxrreport.storage.output_folder import output_folder

logger = logging.getLogger(__name__)

STUDIES_PER_SHARD = 128
"""Work that is repeated at most after an interruption."""


def ingest(
    settings: IngestSettings, progress: Progress | None = None, *, rewriter: Rewriter | None = None
) -> IngestSummary:
    """Convert `settings.input` into a manifest, images, an exclusion log and a contact sheet in `settings.output`.

    With the same settings and folder, a stopped run resumes, and a finished run returns its summary.

    Args:
        settings: `input` may be a folder, a table, or a single file.
        progress: called with completed and total items and a label, in this process.
        rewriter: removes mentions of prior studies instead of the rules (`texts.Rewriter`); `None` for
            `settings.priors_rewriter`.

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
    where = part_folder(settings.output, settings.shard)
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
        if folder.finished and (settings.shard is not None or (folder.path / MANIFEST).is_file()):
            if settings.shard is None:
                shutil.rmtree(folder.path / PARTS, ignore_errors=True)
            return read_summary(folder, resumed=True)
        listing = pseudonymized_listing(list_sources(settings), pseudonyms)
        with closing(_headers(settings, listing, report)) as headers:
            plan = make_plan(settings, listing, (pseudonymized_header(header, pseudonyms) for header in headers))
        resumed = (folder.path / PARTS).is_dir()
        studies = seeded(plan.studies, settings, pseudonyms)
        starts = range(0, len(studies), STUDIES_PER_SHARD)
        shards = [Shard(studies[start : start + STUDIES_PER_SHARD], name_of(rewriter)) for start in starts]
        if settings.shard is None:
            collect_job_parts(folder, settings.output, shards)
        rows, excluded, texts = _read_studies(settings, folder.path, shards, rewriter, report)
        read = plan.read
        if settings.shard is None:
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
            reports_in_several_splits=count_shared_reports(rows),
            near_duplicate_reports=count_near_duplicate_reports(rows),
            texts=dict(sorted((dict(texts) | count_other_languages(rows)).items())),
            deidentification=deidentification,
            digest=digest,
            seconds=round(time.perf_counter() - started, 3),
        )
        if settings.shard is None:
            shutil.rmtree(folder.path / PARTS, ignore_errors=True)
            remove_parts(settings.output, "ingest")
        return read_summary(folder, resumed=resumed)


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
    settings: IngestSettings, folder: Path, shards: list[Shard], rewriter: Rewriter | None, progress: Progress
) -> Part:
    """Read all studies of this job, shard by shard; rows are in the order of the studies."""
    mine = [index for index in range(len(shards)) if _belongs_to_job(settings, index)]
    parts = {index: load_part(folder, index, shards[index]) for index in mine}
    missing = [index for index, part in parts.items() if part is None]
    todo = [study for index in missing for study in shards[index].studies]
    tasks = _tasks(todo, settings, rewriter, progress)
    total = sum(len(shards[index].studies) for index in mine)
    done = total - len(todo)
    progress(done, total, "studies")
    read, killed = partial(read_study, settings=settings), partial(read_study, settings=settings, apart=True)
    with closing(ordered_map(read, tasks, workers=settings.workers, when_killed=killed)) as results:
        for index in missing:
            part = StudyResult()
            for _ in shards[index].studies:
                result = next(results)
                _check_available(settings, result.excluded)
                part.add(result)
                done += 1
                progress(done, total, "studies")
            parts[index] = save_part(folder, index, shards[index], part)
    for path in (folder / IMAGES).glob("*.parquet"):
        if not path.stem.isdigit() or int(path.stem) >= len(shards):
            path.unlink()  # from a run on a larger input
    rows: list[ManifestRow] = []
    excluded: list[Exclusion] = []
    texts: Counter[str] = Counter()
    for part_rows, part_excluded, part_texts in (part for part in parts.values() if part is not None):
        rows += part_rows
        excluded += part_excluded
        texts.update(part_texts)
    return rows, excluded, texts


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


def _belongs_to_job(settings: IngestSettings, index: int) -> bool:
    if settings.shard is None:
        return True
    number, count = map(int, settings.shard.split("/"))
    return index % count == number - 1


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
    store = ImageStore(folder / IMAGES)
    shown = [rows[index].image for index in spread(len(rows))]
    tiles = [(store[image.image_id], f"{image.view}  {image.rows} x {image.columns}") for image in shown]
    write_contact_sheet(folder / "contact_sheet.png", tiles)


def _ignore(_done: int, _total: int, _label: str) -> None:
    """Ignore progress."""
