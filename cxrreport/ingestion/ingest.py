"""The verb `ingest`: studies on disk to manifest, model-ready images, ledger and contact sheet.

Work goes study by study and is kept shard by shard: an image shard first, then a small file in `.parts/` that says
what is in it. A run that is stopped anywhere goes on with the first shard that has no such file, and ends with the
same manifest, byte for byte of content (`content_digest`), as one that was never stopped.

An array of jobs uses the same parts: `shard: i/n` does every n-th of them in a folder of its own beside the output,
and the run without `shard` takes what it finds there for its own, and does what it does not find.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import cxrreport
from cxrreport.dataset import (
    IMAGES,
    MANIFEST,
    Covariates,
    ImageStore,
    ManifestRow,
    Pseudonyms,
    encode_png,
    hide_identifiers,
    hide_input_name,
    recorded_input,
    reduce_covariates,
    write_exclusion_log,
    write_image_shard,
    write_manifest,
)
from cxrreport.errors import OutputError, RefusedImage
from cxrreport.ingestion.dicom.radiograph import Header, read_covariates, read_radiograph
from cxrreport.ingestion.images.burned_in import text_near_border
from cxrreport.ingestion.images.contact_sheet import spread, write_contact_sheet
from cxrreport.ingestion.images.picture import is_picture, read_picture
from cxrreport.ingestion.images.resample import to_square
from cxrreport.ingestion.layouts.listing import Listing, Source, list_sources
from cxrreport.ingestion.pseudonymized import hidden_header, hidden_listing
from cxrreport.ingestion.study_plan import StudyPlan, header_of, make_plan, needs_header, refused
from cxrreport.ingestion.texts import Rewriter, allowed_rewriter, prepare_texts
from cxrreport.ingestion.workers import ordered_map
from cxrreport.records import Image, LeftOut, Progress, Reason, Split, View
from cxrreport.reports.near_duplicates import count_near_duplicates
from cxrreport.settings import IngestSettings
from cxrreport.storage.atomic_files import atomic_path, write_json
from cxrreport.storage.job_arrays import part_folder, parts_folder, remove_parts
from cxrreport.storage.output_folder import VOLATILE, OutputFolder, output_folder

STUDIES_PER_SHARD = 128
"""What is done again at most when a run was stopped."""
BURNED_IN_NOTE = "burned-in-text"
_PARTS = ".parts"


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestSummary:
    """What came of an ingest; `read` = `kept` + the sum of `left_out`. A shard counts the images of its studies.

    Args:
        folder: the output folder.
        layout: the layout that was named or found.
        official_split: True where the data set itself says which image belongs to which split.
        read: images (or reports without any) that the input has or lists.
        kept: images in the manifest.
        left_out: number per reason code.
        notes: number of kept images per note.
        studies: studies per split.
        reports_in_several_splits: reports of the training split whose very words are in another split too.
        near_duplicate_reports: reports for validation and test that are nearly the same as one for training
            (`near_duplicates`).
        texts: what became of mentions of earlier studies (`texts.prepare_texts`).
        digest: SHA-256 of the content (`manifest.content_digest`); empty for a shard.
        seconds: wall time of the run that finished.
        went_on: True where this call found the work done, or part of it.
    """

    folder: Path
    layout: str
    official_split: bool
    read: int
    kept: int
    left_out: dict[str, int]
    notes: dict[str, int]
    studies: dict[str, int]
    reports_in_several_splits: int
    near_duplicate_reports: int
    texts: dict[str, int]
    digest: str
    seconds: float
    went_on: bool = False


@dataclass(frozen=True, slots=True)
class StudyResult:
    """What one study gave: rows of the manifest with their PNGs, and rows of the ledger."""

    kept: list[tuple[ManifestRow, bytes]] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)


def ingest(
    settings: IngestSettings, progress: Progress | None = None, *, rewriter: Rewriter | None = None
) -> IngestSummary:
    """Read `settings.input`, and write manifest, images, ledger and contact sheet into `settings.output`.

    The same settings into the same folder go on where a stopped run ended, and do nothing where it had finished.

    Args:
        settings: what to read and how; `input` may be a folder, a table, or a single DICOM file.
        progress: called with done, total and a label, in this process.
        rewriter: takes mentions of earlier studies out of a section in the place of the rules (`texts.Rewriter`);
            None: as `settings.priors_rewriter` says.

    Raises:
        SettingsError: the key file cannot be used, or the rewriter is not there or not allowed.
        InputError: the input is missing, a table is wrong, or a patient is in two splits.
        OutputError: the folder is in use or holds something else, or the disk is full.
    """
    started = time.perf_counter()
    report = progress or _silent
    rewriter = allowed_rewriter(settings, rewriter)
    pseudonyms = Pseudonyms.from_file(settings.pseudonymize) if settings.pseudonymize is not None else None
    with (
        hide_identifiers(pseudonyms),
        hide_input_name(settings),
        output_folder(
            part_folder(settings.output, settings.shard), command="ingest", settings=_recorded(settings)
        ) as folder,
    ):
        if folder.finished and (settings.shard is not None or (folder.path / MANIFEST).is_file()):
            if settings.shard is None:
                shutil.rmtree(folder.path / _PARTS, ignore_errors=True)
            return _summary(folder, went_on=True)
        listing = hidden_listing(list_sources(settings), pseudonyms)
        headers = (hidden_header(header, pseudonyms) for header in _headers(settings, listing, report))
        plan, texts = prepare_texts(make_plan(settings, listing, headers), settings, rewriter, report)
        went_on = (folder.path / _PARTS).is_dir()
        rows, left_out = _work(settings, folder.path, plan.studies, report)
        read = plan.read
        if settings.shard is None:
            left_out += plan.left_out
            left_out.sort(key=lambda row: (row.source, row.study_id, row.reason))
            write_exclusion_log(folder.path, left_out)
            digest = write_manifest(folder.path, rows, _preprocessing(settings))
            _write_sheet(folder.path, rows)
        else:
            read, digest = len(rows) + len(left_out), ""
        folder.finish(
            version=cxrreport.__version__,
            layout=listing.layout,
            official_split=listing.official_split,
            read=read,
            kept=len(rows),
            left_out=dict(sorted(Counter(row.reason.value for row in left_out).items())),
            notes=dict(sorted(Counter(note for row in rows for note in row.image.notes).items())),
            studies=_studies_per_split(rows),
            reports_in_several_splits=_shared_reports(rows),
            near_duplicate_reports=_near_duplicates(rows),
            texts=texts,
            digest=digest,
            seconds=round(time.perf_counter() - started, 3),
        )
        if settings.shard is None:
            shutil.rmtree(folder.path / _PARTS, ignore_errors=True)
            remove_parts(settings.output, "ingest")
        return _summary(folder, went_on=went_on)


def read_study(study: StudyPlan, settings: IngestSettings) -> StudyResult:
    """Read the images of one study; of those that can stand for each other, only until one can be read."""
    result = StudyResult()
    for source in study.candidates:
        if study.only_first and result.kept:
            result.left_out.append(
                LeftOut(source=source.source, reason=Reason.OTHER_VIEW_CHOSEN, study_id=source.study_id)
            )
            continue
        try:
            result.kept.append(_read_image(study, source, settings))
        except RefusedImage as error:
            result.left_out.append(refused(source, error))
    return result


def _read_image(study: StudyPlan, source: Source, settings: IngestSettings) -> tuple[ManifestRow, bytes]:
    if is_picture(source.path):
        radiograph = read_picture(source.path, max_pixels=settings.max_pixels, keep=settings.keep)
    else:
        radiograph = read_radiograph(
            source.path, max_pixels=settings.max_pixels, window=settings.window, keep=settings.keep
        )
    notes = radiograph.notes + source.notes
    if settings.burned_in != "ignore" and not radiograph.says_no_text and text_near_border(radiograph.grey):
        if settings.burned_in == "exclude":
            raise RefusedImage(Reason.BURNED_IN, "text seems to be burned in near a border")
        notes += (BURNED_IN_NOTE,)
    square = to_square(
        radiograph.grey,
        resolution=settings.resolution,
        resize=settings.resize,
        interpolation=settings.interpolation,
    )
    image = Image(
        image_id=source.image_id,
        study_id=study.study_id,
        patient_id=study.patient_id,
        split=study.split,
        view=source.view or View.UNKNOWN,
        source=source.source,
        rows=radiograph.rows,
        columns=radiograph.columns,
        notes=notes,
    )
    sha256 = hashlib.sha256(square.tobytes()).hexdigest()
    covariates = _covariates(source, settings) if settings.covariates else None
    row = ManifestRow(image=image, report=study.report, image_sha256=sha256, covariates=covariates)
    return row, encode_png(square)


def _covariates(source: Source, settings: IngestSettings) -> Covariates:
    """What the table says, and what the header says where the table does not."""
    view, told = source.view or View.UNKNOWN, source.covariates or Covariates()
    if is_picture(source.path):
        return replace(told, projection=told.projection or reduce_covariates(view=view).projection)
    header = read_covariates(source.path, max_pixels=settings.max_pixels, view=view)
    return replace(header, **{name: value for name, value in asdict(told).items() if value})


def _crashed(study: StudyPlan) -> StudyResult:
    detail = "the process that read this study died"
    return StudyResult(
        left_out=[
            LeftOut(source=source.source, reason=Reason.BAD_PIXELS, detail=detail, study_id=source.study_id)
            for source in study.candidates
        ]
    )


def _headers(settings: IngestSettings, listing: Listing, progress: Progress) -> Iterator[Header | LeftOut]:
    wanted = [source for source in listing.sources if needs_header(source)]
    read = partial(header_of, max_pixels=settings.max_pixels, keep=settings.keep)
    # Processes start slowly and headers are read quickly.
    workers = settings.workers if len(wanted) > 2000 else 1
    for done, header in enumerate(ordered_map(read, wanted, workers=workers, when_killed=read), start=1):
        progress(done, len(wanted), "headers")
        yield header


def _work(
    settings: IngestSettings, folder: Path, studies: list[StudyPlan], progress: Progress
) -> tuple[list[ManifestRow], list[LeftOut]]:
    """All studies, shard by shard; rows in the order of the studies."""
    shards = [studies[start : start + STUDIES_PER_SHARD] for start in range(0, len(studies), STUDIES_PER_SHARD)]
    mine = [index for index in range(len(shards)) if _is_mine(settings, index)]
    if settings.shard is None:
        _take_over(settings, folder, shards)
    parts = {index: _load_part(folder, index, shards[index]) for index in mine}
    missing = [index for index, part in parts.items() if part is None]
    todo = [study for index in missing for study in shards[index]]
    total = sum(len(shards[index]) for index in mine)
    done = total - len(todo)
    progress(done, total, "studies")
    read = partial(read_study, settings=settings)
    results = ordered_map(read, todo, workers=settings.workers, when_killed=_crashed)
    for index in missing:
        part = StudyResult()
        for _ in shards[index]:
            result = next(results)
            part.kept.extend(result.kept)
            part.left_out.extend(result.left_out)
            done += 1
            progress(done, total, "studies")
        parts[index] = _save_part(folder, index, shards[index], part)
    for path in (folder / IMAGES).glob("*.parquet"):
        if not path.stem.isdigit() or int(path.stem) >= len(shards):
            path.unlink()  # of a run on an input that was larger then
    rows: list[ManifestRow] = []
    left_out: list[LeftOut] = []
    for part_rows, part_left_out in (part for part in parts.values() if part is not None):
        rows += part_rows
        left_out += part_left_out
    return rows, left_out


def _is_mine(settings: IngestSettings, index: int) -> bool:
    if settings.shard is None:
        return True
    number, count = map(int, settings.shard.split("/"))
    return index % count == number - 1


def _take_over(settings: IngestSettings, folder: Path, shards: list[list[StudyPlan]]) -> None:
    """Take the parts that an array of jobs has made with these settings; those that are missing are done here."""
    ours = {name: value for name, value in _recorded(settings).items() if name not in VOLATILE | {"shard"}}
    for other in sorted(path.parent for path in parts_folder(settings.output).glob("*-of-*/ingest.json")):
        record = json.loads((other / "ingest.json").read_text(encoding="utf-8"))
        if any(record["settings"].get(name) != value for name, value in ours.items()):
            raise OutputError(f"{other}: a shard that was made with other settings; remove it, or give another output")
        for path in sorted((other / _PARTS).glob("*.json")):
            index = int(path.stem)
            if index >= len(shards) or _load_part(folder, index, shards[index]) is not None:
                continue
            if _load_part(other, index, shards[index]) is None:
                continue  # the input has changed since
            images = Path(IMAGES) / f"{index:05}.parquet"
            for name in (images, Path(_PARTS) / path.name):  # the part last: it says that its images are there
                if (other / name).is_file():
                    with atomic_path(folder / name) as temporary:
                        shutil.copyfile(other / name, temporary)


Part = tuple[list[ManifestRow], list[LeftOut]]


def _save_part(folder: Path, index: int, studies: list[StudyPlan], result: StudyResult) -> Part:
    shard = folder / IMAGES / f"{index:05}.parquet"
    if result.kept:
        write_image_shard(shard, [(row.image.image_id, png) for row, png in result.kept])
    else:
        shard.unlink(missing_ok=True)
    write_json(
        folder / _PARTS / f"{index:05}.json",
        {
            "plan": _fingerprint(studies),
            "kept": [
                asdict(row.image)
                | {"image_sha256": row.image_sha256, "covariates": asdict(row.covariates) if row.covariates else None}
                for row, _ in result.kept
            ],
            "left_out": [asdict(row) for row in result.left_out],
        },
    )
    return [row for row, _ in result.kept], result.left_out


def _load_part(folder: Path, index: int, studies: list[StudyPlan]) -> Part | None:
    """What an earlier run has made of these very studies; None where it has not come so far."""
    try:
        part: dict[str, Any] = json.loads((folder / _PARTS / f"{index:05}.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    if part["plan"] != _fingerprint(studies):
        return None  # the input has changed since
    if part["kept"] and not (folder / IMAGES / f"{index:05}.parquet").is_file():
        return None
    reports = {study.study_id: study.report for study in studies}
    rows = []
    for values in part["kept"]:
        sha256, known = values.pop("image_sha256"), values.pop("covariates")
        covariates = Covariates(**known) if known else None
        image = Image(**values | {"split": Split(values["split"]), "view": View(values["view"])})
        image = replace(image, notes=tuple(image.notes))
        report = reports[image.study_id]
        rows.append(ManifestRow(image=image, report=report, image_sha256=sha256, covariates=covariates))
    return rows, [LeftOut(**values | {"reason": Reason(values["reason"])}) for values in part["left_out"]]


def _fingerprint(studies: list[StudyPlan]) -> str:
    digest = hashlib.sha256()
    for study in studies:
        values = asdict(study)
        for candidate in values["candidates"]:
            del candidate["path"]
        digest.update(json.dumps(values, sort_keys=True).encode())
    return digest.hexdigest()


def _recorded(settings: IngestSettings) -> dict[str, Any]:
    # The same words from another working folder would be another input.
    values = settings.model_dump(mode="json") | {"input": str(settings.input.resolve())}
    if settings.reports is not None:
        values["reports"] = str(settings.reports.resolve())
    return values | recorded_input(settings)


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


def _studies_per_split(rows: list[ManifestRow]) -> dict[str, int]:
    studies = defaultdict(set)
    for row in rows:
        studies[row.image.split].add(row.image.study_id)
    return {split.value: len(studies[split]) for split in Split}


def _shared_reports(rows: list[ManifestRow]) -> int:
    texts: dict[str, set[str]] = defaultdict(set)
    reports = {row.image.study_id: (row.image.split, row.report) for row in rows}
    training = []
    for split, report in reports.values():
        text = " ".join(f"{report.findings} {report.impression}".lower().split())
        texts[text].add(split)
        if split is Split.TRAIN and text:
            training.append(text)
    return sum(len(texts[text]) > 1 for text in training)


def _near_duplicates(rows: list[ManifestRow]) -> int:
    reports = {row.image.study_id: (row.image.split, row.report) for row in rows}
    texts = [(split, f"{report.findings} {report.impression}") for split, report in reports.values()]
    return count_near_duplicates(
        (text for split, text in texts if split is not Split.TRAIN),
        (text for split, text in texts if split is Split.TRAIN),
    )


def _summary(folder: OutputFolder, *, went_on: bool) -> IngestSummary:
    names = IngestSummary.__dataclass_fields__.keys() - {"folder", "went_on"}
    return IngestSummary(folder=folder.path, went_on=went_on, **{name: folder.record[name] for name in names})


def _silent(done: int, total: int, label: str) -> None:
    """No progress is shown."""
