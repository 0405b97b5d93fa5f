"""Each study is linked to the latest earlier study of its patient that was included."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from ingest_runs import run, write_table
from PIL import Image

from cxrreport.dataset import Manifest, ManifestRow, Pseudonyms
from cxrreport.ingestion import ingest as pipeline
from cxrreport.ingestion.ingest import ingest
from cxrreport.ingestion.moments import Moment
from cxrreport.ingestion.prior_studies import link_priors
from cxrreport.records import Image as ImageRecord
from cxrreport.records import Report, Split, View
from cxrreport.settings import IngestSettings

Make = Callable[..., Path]
DAY = 736_000
KEY = b"q9w8e7r6t5y4u3i2o1p0asdfghjklzxcvbnm"


def links(output: Path) -> dict[str, tuple[str, int | None] | None]:
    """Prior and interval by study."""
    return {
        study.study_id: (study.prior.study_id, study.prior.days) if study.prior else None
        for study in Manifest.open(output).studies()
    }


def picture(path: Path, seed: int) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = np.random.default_rng(seed).integers(0, 255, (12, 10))
    Image.fromarray(np.kron(rows, np.ones((9, 9))).astype(np.uint8)).save(path)
    return path.name


def table(folder: Path, rows: list[dict[str, str]]) -> Path:
    """A table of images; what a row leaves out is filled in."""
    full = []
    for number, row in enumerate(rows):
        own = {"image": picture(folder / f"{number}.png", number), "study_id": f"s{number}", "patient_id": "p"}
        full.append(own | {"report": f"FINDINGS: Lungs {number} are clear.", "split": "train"} | row)
    write_table(folder / "images.csv", full)
    return folder / "images.csv"


# --- The order ---


def linked(*moments: Moment | None, patients: str = "", splits: dict[int, Split] | None = None) -> Any:
    """Prior (number and days) of each study, and counts; the moments are those of one patient."""
    rows = []
    for number in range(len(moments)):
        image = ImageRecord(
            image_id=f"{number}",
            study_id=f"{number}",
            patient_id=patients[number : number + 1] or "p",
            split=(splits or {}).get(number, Split.TRAIN),
            view=View.PA,
            source="",
            rows=1,
            columns=1,
        )
        rows.append(ManifestRow(image=image, report=Report(), image_sha256=""))
    stated = {f"{number}": moment for number, moment in enumerate(moments) if moment is not None}
    found, counts = link_priors(rows, stated)
    return [(int(row.prior_study_id), row.prior_days) if row.prior_study_id else None for row in found], counts


def test_the_latest_earlier_study_is_the_prior() -> None:
    found, counts = linked(Moment(DAY + 9), Moment(DAY), Moment(DAY + 2, 60.0), Moment(DAY + 2, 50.5))
    assert found == [(2, 7), None, (3, 0), (1, 2)]
    assert counts == {"first": 1, "linked": 3}


def test_one_date_without_times_is_no_order() -> None:
    found, counts = linked(Moment(DAY), Moment(DAY + 1), Moment(DAY + 1), Moment(DAY + 2), Moment(DAY + 3))
    # Which of the two is the earlier, and which is the latest before the next study, is not known.
    assert found == [None, None, None, None, (3, 1)]
    assert counts == {"first": 1, "linked": 1, "no-order": 3}
    assert linked(Moment(DAY), Moment(DAY, 60.0))[1] == {"no-order": 2}
    assert linked(Moment(DAY, 60.0), Moment(DAY, 60.0))[1] == {"no-order": 2}


def test_studies_without_a_date_are_counted() -> None:
    found, counts = linked(Moment(DAY), None, Moment(DAY + 1))
    assert found == [None, None, (0, 1)] and counts == {"first": 1, "linked": 1, "no-date": 1}
    assert linked(None)[1] == {"first": 1}


def test_only_within_patient_and_split() -> None:
    assert linked(Moment(DAY), Moment(DAY + 1), patients="ab")[1] == {"first": 2}
    assert linked(Moment(DAY), Moment(DAY + 1), splits={1: Split.TEST})[1] == {"first": 2}


def test_places_are_an_order_without_an_interval() -> None:
    found, counts = linked(Moment(3, dated=False), Moment(1, dated=False), Moment(10, dated=False))
    assert found == [(1, None), None, (0, None)] and counts == {"first": 1, "linked": 2}
    assert linked(Moment(3, dated=False), Moment(3, dated=False))[1] == {"no-order": 2}
    assert linked(Moment(3, dated=False), Moment(DAY))[1] == {"first": 2}


def test_time_zones_count_if_all_are_known() -> None:
    east, west = Moment(DAY, 3600.0, 540), Moment(DAY - 1, 80_000.0, -300)  # 16:00 UTC the day before; 3:13 UTC
    assert linked(east, west)[0] == [None, (0, 0)]
    assert linked(east, west._replace(offset=None))[0] == [(1, 1), None]


def test_a_patient_with_300_studies_is_one_chain() -> None:
    order = np.random.default_rng(0).permutation(300).tolist()
    found, counts = linked(*(Moment(DAY + 2 * place) for place in order))
    assert counts == {"first": 1, "linked": 299}
    for number, place in enumerate(order):
        assert found[number] == (None if place == 0 else (order.index(place - 1), 2))


def test_one_id_for_all_patients_takes_no_longer_than_many() -> None:
    _, counts = linked(*(Moment(DAY + place // 2, 60.0 * (place % 2)) for place in range(20_000)))
    assert counts == {"first": 1, "linked": 19_999}


# --- The layouts ---


@pytest.fixture
def mimic(make_mimic: Make) -> Path:
    """Two studies of each of six patients; the one with the larger id is the earlier, 16 hours before."""
    root = make_mimic()
    path = root / "mimic-cxr-2.0.0-metadata.csv"
    rows = list(csv.DictReader(path.open()))
    for row in rows:
        earlier = int(row["study_id"]) % 2
        row |= {"StudyDate": "21800506" if earlier else "21800507", "StudyTime": "160000.0" if earlier else "80100.5"}
    write_table(path, rows)
    return root


def test_mimic(mimic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "read_header_of", None)  # the table states everything
    summary = run(mimic, tmp_path / "out")
    assert summary.priors == {"first": 6, "linked": 6}
    found = links(tmp_path / "out")
    assert len(found) == 12
    for study, prior in found.items():
        assert prior == (None if int(study) % 2 else (str(int(study) + 1), 1))
    splits = {study.study_id: study.split for study in Manifest.open(tmp_path / "out").studies()}
    assert all(splits[prior[0]] == splits[study] for study, prior in found.items() if prior)


def test_an_excluded_study_is_no_prior(mimic: Path, tmp_path: Path) -> None:
    """Of three studies the middle one has no report, or no image that can be read."""
    metadata, split = mimic / "mimic-cxr-2.0.0-metadata.csv", mimic / "mimic-cxr-2.0.0-split.csv.gz"
    rows, splits = (
        list(csv.DictReader(io.StringIO(text.decode())))
        for text in (metadata.read_bytes(), gzip.decompress(split.read_bytes()))
    )
    patient = rows[0]["subject_id"]
    first = min(row["study_id"] for row in rows if row["subject_id"] == patient and int(row["study_id"]) % 2)
    folder = next(mimic.rglob(f"s{first}"))
    (folder.parent / "s59999999").mkdir()
    (folder.parent / "s59999999/extra.dcm").write_bytes((folder / f"{first}-pa.dcm").read_bytes())
    own = {"dicom_id": "extra", "subject_id": patient, "study_id": "59999999"}
    write_table(metadata, [*rows, own | {"ViewPosition": "PA", "StudyDate": "21800506", "StudyTime": "230000"}])
    write_table(tmp_path / "split.csv", [*splits, own | {"split": splits[0]["split"]}])
    split.write_bytes(gzip.compress((tmp_path / "split.csv").read_bytes()))
    later = str(int(first) - 1)
    run(mimic, tmp_path / "none")
    assert links(tmp_path / "none")[later] == (first, 1)
    report = folder.parent / "s59999999.txt"
    report.write_text("FINDINGS: Clear.")
    run(mimic, tmp_path / "whole")
    assert links(tmp_path / "whole")[later] == ("59999999", 1)
    assert links(tmp_path / "whole")["59999999"] == (first, 0)
    (folder.parent / "s59999999/extra.dcm").write_bytes(b"broken")
    run(mimic, tmp_path / "broken")
    assert links(tmp_path / "broken")[later] == (first, 1)


def test_workers_jobs_and_interruptions_give_the_same_links(
    mimic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "STUDIES_PER_SHARD", 5)
    whole = run(mimic, tmp_path / "one")
    assert run(mimic, tmp_path / "two", workers=2).digest == whole.digest
    for job in ("1/2", "2/2"):
        part = ingest(IngestSettings(input=mimic, output=tmp_path / "jobs", shard=job))
        assert part.priors == {} and part.laterals == {}
    collected = run(mimic, tmp_path / "jobs")
    assert (collected.digest, collected.priors, collected.laterals) == (whole.digest, whole.priors, whole.laterals)
    read, calls = pipeline.read_study, []

    def stops(item: Any, settings: IngestSettings) -> Any:
        calls.append(item)
        if len(calls) == 8:
            raise KeyboardInterrupt
        return read(item, settings)

    monkeypatch.setattr(pipeline, "read_study", stops)
    with pytest.raises(KeyboardInterrupt):
        run(mimic, tmp_path / "three")
    resumed = run(mimic, tmp_path / "three")
    assert (resumed.digest, resumed.priors) == (whole.digest, whole.priors)


def test_pseudonyms_and_no_date_in_any_file(mimic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = tmp_path / "key"
    key.write_bytes(KEY)
    monkeypatch.setattr(pipeline, "remove_other_parts", None)
    with pytest.raises(TypeError):  # stopped, with all parts on the disk
        ingest(IngestSettings(input=mimic, output=tmp_path / "out", pseudonymize=key))
    files = list((tmp_path / "out/.parts").iterdir())
    assert files and not any(b"2180" in path.read_bytes() for path in files)
    monkeypatch.undo()
    summary = run(mimic, tmp_path / "out", pseudonymize=key)
    plain = run(mimic, tmp_path / "plain")
    assert summary.priors == plain.priors
    pseudonyms = Pseudonyms.from_file(key)
    expected = {
        pseudonyms.of("study", study): prior and (pseudonyms.of("study", prior[0]), prior[1])
        for study, prior in links(tmp_path / "plain").items()
    }
    assert links(tmp_path / "out") == expected
    for path in (tmp_path / "out").rglob("*"):
        if path.is_file():
            text = repr(pq.read_table(path).to_pydict()) if path.suffix == ".parquet" else path.read_bytes().hex()
            assert not any(one in text or one.encode().hex() in text for one in ("21800506", "2180-05", "160000"))


def test_headers_of_a_folder(make_file: Make, tmp_path: Path) -> None:
    for number, (day, time) in enumerate((("20200110", "0900"), ("20200103", "1200"), ("20200103", "0800"))):
        ids = {"StudyInstanceUID": f"1.{number}", "PatientID": "A", "SOPInstanceUID": f"1.2.{number}"}
        make_file(name=f"in/{number}.dcm", StudyDate=day, StudyTime=time, **ids)
    make_file(name="in/9.dcm", StudyInstanceUID="1.9", PatientID="A", SOPInstanceUID="1.2.9")
    for number, day in enumerate(("20200101", "20200109")):  # two images of one study
        ids = {"StudyInstanceUID": "1.8", "PatientID": "A", "SOPInstanceUID": f"1.2.8{number}"}
        make_file(name=f"in/8{number}.dcm", StudyDate=day, **ids)
    summary = run(tmp_path / "in", tmp_path / "out", require_report=False)
    assert links(tmp_path / "out") == {"1.0": ("1.1", 7), "1.1": ("1.2", 0), "1.2": None, "1.8": None, "1.9": None}
    assert summary.priors == {"first": 1, "linked": 2, "no-date": 1, "several-dates": 1}


def test_a_table_of_reports_states_the_date(make_file: Make, tmp_path: Path) -> None:
    for number, day in enumerate(("20200110", "20200103")):
        ids = {"StudyInstanceUID": f"1.{number}", "PatientID": "A", "SOPInstanceUID": f"1.2.{number}"}
        make_file(name=f"in/{number}.dcm", StudyDate=day, **ids)
    rows = [
        {"study_id": f"1.{number}", "report": "FINDINGS: Clear.", "Exam day": day}
        for number, day in enumerate(("2020-01-01", "2020-01-31 10:00"))
    ]
    write_table(tmp_path / "reports.csv", rows)
    run(tmp_path / "in", tmp_path / "header", reports=tmp_path / "reports.csv")
    assert links(tmp_path / "header") == {"1.0": ("1.1", 7), "1.1": None}
    columns = {"study_date": "Exam day"}
    run(tmp_path / "in", tmp_path / "table", reports=tmp_path / "reports.csv", columns=columns)
    assert links(tmp_path / "table") == {"1.0": None, "1.1": ("1.0", 30)}


def test_a_table_of_images(tmp_path: Path) -> None:
    rows = [{"StudyDate": "20200110", "study_order": ""}, {"StudyDate": "20200102.0", "study_order": ""}]
    rows += [{"StudyDate": "", "study_order": str(one), "patient_id": "q"} for one in (12, 3)]
    summary = run(table(tmp_path / "in", rows), tmp_path / "out")
    assert links(tmp_path / "out") == {"s0": ("s1", 8), "s1": None, "s2": ("s3", None), "s3": None}
    assert summary.priors == {"first": 2, "linked": 2}


@pytest.mark.parametrize("order", ["column", "number"])
def test_chexpert_plus_has_an_order_and_no_dates(tmp_path: Path, order: str) -> None:
    rows = []
    for number in (1, 2, 10):
        place = f"train/patient00001/study{number}/view1_frontal"
        picture(tmp_path / "in" / f"{place}.png", number)
        row = {"path_to_image": f"{place}.jpg", "split": "train", "section_findings": f"Clear {number}."}
        rows.append(row | ({"patient_report_date_order": str(20 - number)} if order == "column" else {}))
    write_table(tmp_path / "in/df_chexpert_plus_240401.csv", rows)
    run(tmp_path / "in", tmp_path / "out")
    chain = [f"patient00001_study{number}" for number in ((10, 2, 1) if order == "column" else (1, 2, 10))]
    assert links(tmp_path / "out") == {chain[0]: None, chain[1]: (chain[0], None), chain[2]: (chain[1], None)}


def test_rexgradient_has_dates(tmp_path: Path) -> None:
    studies = {}
    for number, day in enumerate(("20210305", "2021-01-04", 20201225)):
        place = f"deid_png/P1/A{number}/studies/1/series/1/instances/{number}.png"
        picture(tmp_path / "in" / place, number)
        entry = {"ImagePath": [f"../{place}"], "ImageViewPosition": ["PA"], "StudyDate": day}
        studies[f"P1_A{number}"] = entry | {"Findings": f"Clear {number}.", "Impression": "None."}
    (tmp_path / "in/train_metadata_view_position.json").write_text(json.dumps(studies))
    run(tmp_path / "in", tmp_path / "out")
    assert links(tmp_path / "out") == {"P1_A0": ("P1_A1", 60), "P1_A1": ("P1_A2", 10), "P1_A2": None}


# --- Laterals ---


def test_the_best_frontal_and_the_best_lateral(tmp_path: Path) -> None:
    views = [("a", "AP"), ("a", "LATERAL"), ("a", "PA"), ("a", "LL"), ("b", "PA"), ("c", "LATERAL"), ("d", "LATERAL")]
    rows = [{"study_id": study, "view": view, "report": f"FINDINGS: Clear {study}."} for study, view in views]
    path = table(tmp_path / "in", [*rows, {"study_id": "d", "view": "AP", "report": "FINDINGS: Clear d."}])
    (tmp_path / "in/6.png").write_bytes(b"\x89PNG broken")
    summary = run(path, tmp_path / "out", views="best-frontal+lateral")
    images = {study.study_id: study.image_ids for study in Manifest.open(tmp_path / "out").studies()}
    assert images == {"a": ("2", "1"), "b": ("4",), "d": ("7",)}
    assert summary.laterals == {"kept": 1, "none": 1, "not-usable": 1}
    assert summary.left_out["other-view-chosen"] == 2 and summary.left_out["not-frontal"] == 1
    assert run(path, tmp_path / "frontals").laterals == {"none": 1, "views": 2}
    every = run(path, tmp_path / "all", views="all")
    assert every.kept == 7 and every.laterals == {"kept": 2, "none": 1, "not-usable": 1}


# --- Reports with their mentions ---

STABLE = "FINDINGS: Stable cardiomegaly. Clear lungs. Seen by Dr. Featherstonhaugh.\nIMPRESSION: Unchanged."


def texts(output: Path) -> dict[str, tuple[str, str | None, str | None]]:
    """By study: findings, findings with mentions, and those of the prior."""
    return {
        study.study_id: (
            study.report.findings,
            study.report_with_mentions and study.report_with_mentions.findings,
            study.prior and study.prior.report.findings,
        )
        for study in Manifest.open(output).studies()
    }


def dated(folder: Path, split: str = "train", text: str = STABLE) -> Path:
    """Two studies of one patient, and one of another."""
    rows = [
        {"patient_id": patient, "study_date": day, "split": split, "report": text}
        for patient, day in (("p", "20200101"), ("p", "20200109"), ("q", "20200101"))
    ]
    return table(folder, rows)


@pytest.mark.parametrize("split", ["train", "validate", "test"])
@pytest.mark.parametrize("priors", ["training", "all", "keep"])
def test_texts_with_mentions_are_kept_where_a_prior_is_known(tmp_path: Path, split: str, priors: str) -> None:
    run(dated(tmp_path / "in", split), tmp_path / "out", priors=priors)
    removed = priors == "all" or (priors == "training" and split != "test")
    full = STABLE.split("\n")[0].removeprefix("FINDINGS: ")
    edited = full.removeprefix("Stable c").replace("ardiomegaly", "Cardiomegaly", 1) if removed else full
    kept = full if removed else None
    # The other patient has one study, which will never be shown with a prior.
    assert texts(tmp_path / "out") == {
        "s0": (edited, kept, None),
        "s1": (edited, kept, full),
        "s2": (edited, None, None),
    }
    if removed:
        of = {study.study_id: study for study in Manifest.open(tmp_path / "out").studies()}
        assert of["s1"].report.impression == "" and of["s1"].report_with_mentions.impression == "Unchanged."


def test_functions_keep_texts_with_mentions_too(tmp_path: Path) -> None:
    def rewriter(text: str) -> str:
        return text.replace("Stable c", "C")

    rewriter.remote = False  # type: ignore[attr-defined]
    ingest(IngestSettings(input=dated(tmp_path / "in"), output=tmp_path / "out"), rewriter=rewriter)
    assert texts(tmp_path / "out")["s1"][:2] == (
        "Cardiomegaly. Clear lungs. Seen by Dr. Featherstonhaugh.",
        "Stable cardiomegaly. Clear lungs. Seen by Dr. Featherstonhaugh.",
    )


@pytest.mark.parametrize("mode", ["mark", "surrogate"])
def test_texts_with_mentions_have_no_identifier(tmp_path: Path, mode: str) -> None:
    path = dated(tmp_path / "in", text=STABLE.replace("Unchanged.", "Unchanged from 03/14/2019."))
    run(path, tmp_path / "out", texts={"deidentify": mode}, placeholders="underscores")
    found = [study for study in Manifest.open(tmp_path / "out").studies() if study.report_with_mentions]
    assert len(found) == 2 and "Stable" in found[0].report_with_mentions.findings
    whole = repr(pq.read_table(tmp_path / "out/manifest.parquet").to_pydict())
    assert "Featherstonhaugh" not in whole and "03/14/2019" not in whole
    if mode == "mark":
        assert found[0].report_with_mentions.impression == "Unchanged from ___."
