"""Prior studies in the manifest: columns, records, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cxrreport.dataset import Manifest, ManifestRow, content_digest, encode_png, write_image_shard, write_manifest
from cxrreport.errors import ManifestError
from cxrreport.records import Image, PriorStudy, Report, Split, Study, View

PREPROCESSING = {"resolution": 4, "resize": "squash", "interpolation": "bilinear"}
FIRST = Report(findings="Clear.", impression="Normal.")
SECOND = Report(findings="Effusion.", impression="")
FULL = Report(findings="New effusion.", impression="Worse.")


def row(study: str, image: str, report: Report, patient: str = "p", split: Split = Split.TRAIN, **more) -> ManifestRow:
    made = Image(
        image_id=image,
        study_id=study,
        patient_id=patient,
        split=split,
        view=View.PA,
        source=f"{image}.dcm",
        rows=4,
        columns=4,
    )
    return ManifestRow(image=made, report=report, image_sha256="0" * 64, shard="00000.parquet", **more)


def linked() -> list[ManifestRow]:
    """The later study of a patient has the smaller id, and two images."""
    prior = {"prior_study_id": "2", "prior_days": 120, "report_with_mentions": FULL}
    rows = [row("1", "1a", SECOND, **prior), row("1", "1b", SECOND, **prior), row("2", "2a", FIRST)]
    return [replace(one, shard_row=place) for place, one in enumerate(rows)]


def write(folder: Path, rows: list[ManifestRow]) -> Path:
    png = encode_png(np.arange(16, dtype=np.uint8).reshape(4, 4))
    write_image_shard(folder / "images/00000.parquet", [(one.image.image_id, png) for one in rows])
    write_manifest(folder, rows, PREPROCESSING)
    return folder


def test_a_study_has_its_prior_and_its_report_with_mentions(tmp_path: Path) -> None:
    manifest = Manifest.open(write(tmp_path, linked()))
    assert manifest.studies("train") == [
        Study(
            study_id="1",
            patient_id="p",
            split=Split.TRAIN,
            image_ids=("1a", "1b"),
            report=SECOND,
            prior=PriorStudy(study_id="2", days=120, image_ids=("2a",), report=FIRST),
            report_with_mentions=FULL,
        ),
        Study(study_id="2", patient_id="p", split=Split.TRAIN, image_ids=("2a",), report=FIRST),
    ]
    assert manifest.studies("test") == []
    assert manifest.studies() == Manifest.of_rows(tmp_path, linked(), PREPROCESSING).studies()


def test_the_report_of_a_prior_keeps_its_own_mentions(tmp_path: Path) -> None:
    rows = [replace(linked()[2], prior_study_id="1", report_with_mentions=None), row("1", "1a", SECOND)]
    rows[1] = replace(rows[1], report_with_mentions=FULL)
    of_id = {study.study_id: study for study in Manifest.open(write(tmp_path, rows)).studies()}
    assert of_id["2"].prior == PriorStudy(study_id="1", days=None, image_ids=("1a",), report=FULL)


def test_many_studies_find_their_priors_in_any_block(tmp_path: Path) -> None:
    """More studies than a block has rows, in an order that has nothing to do with time."""
    order = np.random.default_rng(0).permutation(9000)
    rows = []
    for place, number in enumerate(sorted(f"{one:05}" for one in order)):
        chain = int(order[place]) % 300  # 300 patients of 30 studies
        earlier = int(order[place]) - 300
        prior = {"prior_study_id": f"{np.flatnonzero(order == earlier)[0]:05}"} if earlier >= 0 else {}
        made = row(number, number, Report(findings=f"Study {order[place]}."), patient=f"p{chain}", **prior)
        rows.append(replace(made, shard_row=place))
    manifest = Manifest.of_rows(write(tmp_path, rows), rows, PREPROCESSING)
    for found in (manifest, Manifest.open(tmp_path)):
        for study in found.each_study():
            number = int(study.report.findings.removeprefix("Study ").rstrip("."))
            assert (study.prior is None) == (number < 300)
            if study.prior is not None:
                assert study.prior.report.findings == f"Study {number - 300}."


def test_without_priors_file_and_digest_are_those_of_earlier_versions(tmp_path: Path) -> None:
    rows = [row("1", "1a", FIRST)]
    plain = pq.read_schema(write(tmp_path, rows) / "manifest.parquet").names
    assert not {"prior_study_id", "prior_days", "findings_with_mentions", "impression_with_mentions"} & {*plain}
    assert content_digest(rows, PREPROCESSING) == "63d4bea42ea8d29563b00a542128f10221d21336cd65a29fc97d75993dd6a8b2"
    assert content_digest(linked(), PREPROCESSING) != content_digest(
        [replace(one, prior_days=121) if one.prior_days else one for one in linked()], PREPROCESSING
    )


@pytest.mark.parametrize(
    "change",
    [
        {"study_id": "3"},
        {"patient_id": "q"},
        {"split": Split.TEST},
    ],
)
def test_a_prior_of_another_patient_or_split_is_refused(tmp_path: Path, change: dict) -> None:
    rows = linked()
    rows[2] = replace(rows[2], image=replace(rows[2].image, **change))
    with pytest.raises(ManifestError, match="1a"):
        Manifest.open(write(tmp_path, rows))


def test_rows_in_any_order(tmp_path: Path) -> None:
    write(tmp_path, linked())
    path = tmp_path / "manifest.parquet"
    table = pq.read_table(path)
    expected = Manifest.open(tmp_path).studies()
    pq.write_table(table.take(pa.array([2, 0, 1])), path)
    assert Manifest.open(tmp_path).studies() == expected
