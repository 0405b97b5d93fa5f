"""Small parts of ingestion: views, codestreams, pictures, tables, store and manifest, workers."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cxrreport.dataset import ImageStore, Manifest, decode_png, encode_png, write_image_shard
from cxrreport.errors import ManifestError, RefusedImage
from cxrreport.ingestion.contact_sheet import spread, write_contact_sheet
from cxrreport.ingestion.dicom.pixel_data.codestream import frame_size
from cxrreport.ingestion.images.picture import read_picture
from cxrreport.ingestion.images.resample import to_square
from cxrreport.ingestion.images.views import preference, view_of
from cxrreport.ingestion.ingest import ingest
from cxrreport.ingestion.study_plan import split_by_patient
from cxrreport.records import Split, View
from cxrreport.settings import IngestSettings

GRADIENT = np.tile(np.arange(256, dtype=np.uint8), (128, 1))


@pytest.mark.parametrize(
    ("position", "meaning", "orientation", "view"),
    [
        ("PA", "", [], View.PA),
        ("ap", "", [], View.AP),
        ("AP AXIAL", "", [], View.AP),
        ("AP LLD", "", [], View.AP),
        ("LL", "", [], View.LATERAL),
        ("LATERAL", "postero-anterior", [], View.LATERAL),
        ("XTABLE LATERAL", "", [], View.LATERAL),
        ("LPO", "", [], View.LATERAL),
        ("LATERAL DECUBITUS", "", [], View.UNKNOWN),
        ("", "postero-anterior", [], View.PA),
        ("", "Antero-posterior", [], View.AP),
        ("", "left lateral", [], View.LATERAL),
        ("", "", ["A", "F"], View.LATERAL),
        ("", "", ["L", "F"], View.UNKNOWN),
        ("PATIENT", "", [], View.UNKNOWN),
        ("", "", [], View.UNKNOWN),
    ],
)
def test_views(position: str, meaning: str, orientation: list[str], view: View) -> None:
    assert view_of(position, meaning, orientation) is view


def test_order_of_views() -> None:
    assert sorted(View, key=preference) == [View.PA, View.AP, View.UNKNOWN, View.LATERAL]


@pytest.mark.parametrize("format_", ["JPEG", "JPEG2000"])
@pytest.mark.parametrize("progressive", [False, True])
def test_codestreams_say_their_size(format_: str, progressive: bool) -> None:
    buffer = io.BytesIO()
    options = {"progressive": True} if progressive and format_ == "JPEG" else {}
    Image.fromarray(GRADIENT).save(buffer, format_, **options)
    data = buffer.getvalue()
    assert frame_size(data) == (128, 256, 1)
    assert all(frame_size(data[:length]) in (None, (128, 256, 1)) for length in range(0, 700, 7))
    assert frame_size(b"") is None and frame_size(b"\0" * 500) is None


# --- Pictures ---


def picture(path: Path, array: np.ndarray, mode: str | None = None) -> Path:
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path)
    return path


def test_pictures_keep_their_grey(tmp_path: Path) -> None:
    grey = read_picture(picture(tmp_path / "a.png", GRADIENT), max_pixels=10**6)
    assert np.array_equal(grey.grey, GRADIENT) and (grey.notes, grey.view) == ((), View.UNKNOWN)
    colours = read_picture(picture(tmp_path / "b.png", GRADIENT, "RGB"), max_pixels=10**6)
    assert np.array_equal(colours.grey, GRADIENT) and colours.notes == ("grey-as-colour",)
    palette = read_picture(picture(tmp_path / "c.png", GRADIENT, "P"), max_pixels=10**6)
    assert np.array_equal(palette.grey, GRADIENT)
    jpeg = read_picture(picture(tmp_path / "d.jpg", GRADIENT), max_pixels=10**6)
    assert np.abs(jpeg.grey.astype(int) - GRADIENT).max() < 6


def test_pictures_of_16_bits_do_not_saturate(tmp_path: Path) -> None:
    deep = (GRADIENT.astype(np.uint16) * 16).copy()
    read = read_picture(picture(tmp_path / "a.png", deep), max_pixels=10**6)
    assert read.notes == ("window-missing",) and (np.diff(read.grey[0].astype(int)) >= 0).all()
    assert read.grey.min() == 0 and read.grey.max() == 255


def test_pictures_that_are_refused(tmp_path: Path) -> None:
    def reason(path: Path, max_pixels: int = 10**6) -> str:
        with pytest.raises(RefusedImage) as caught:
            read_picture(path, max_pixels=max_pixels)
        return caught.value.reason

    whole = picture(tmp_path / "whole.png", np.random.default_rng(0).integers(0, 255, (200, 200), dtype=np.uint8))
    assert reason(whole, 39_999) == "too-large"
    (tmp_path / "cut.png").write_bytes(whole.read_bytes()[:5000])
    assert reason(tmp_path / "cut.png") == "bad-pixel-data"
    (tmp_path / "text.png").write_text("no picture")
    assert reason(tmp_path / "text.png") == "not-readable"
    assert reason(tmp_path / "nothing.png") == "unavailable"
    assert reason(picture(tmp_path / "flat.png", np.full((50, 50), 9, dtype=np.uint8))) == "constant-image"
    assert reason(picture(tmp_path / "red.png", np.dstack([GRADIENT, GRADIENT // 2, GRADIENT]))) == "colour"


# --- Squares ---


def test_squash_and_pad() -> None:
    squashed = to_square(GRADIENT, resolution=64)
    assert squashed.shape == (64, 64) and squashed.dtype == np.uint8
    padded = to_square(GRADIENT + 1, resolution=64, resize="pad")
    assert (padded[:16] == 0).all() and (padded[48:] == 0).all() and padded[16:48].any(axis=1).all()
    assert to_square(GRADIENT[:, :1].copy(), resolution=64, resize="pad").shape == (64, 64)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_reduction_is_antialiased(interpolation: str) -> None:
    checks = (np.indices((640, 640)).sum(axis=0) % 2 * 255).astype(np.uint8)
    small = to_square(checks, resolution=64, interpolation=interpolation)  # type: ignore[arg-type]
    assert small.min() > 120 and small.max() < 136


# --- Store and manifest ---


def test_store_gives_back_every_pixel(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    images = {f"i{number}": rng.integers(0, 256, (32, 32), dtype=np.uint8) for number in range(40)}
    names = list(images)
    for shard in (0, 1):
        part = names[shard::2]
        write_image_shard(tmp_path / f"{shard:05}.parquet", [(name, encode_png(images[name])) for name in part])
    store = ImageStore(tmp_path)
    for name in rng.permutation(names):
        assert np.array_equal(store[str(name)], images[str(name)])
    again = pickle.loads(pickle.dumps(store))  # as a DataLoader hands it to its workers
    assert np.array_equal(again["i7"], images["i7"]) and "i7" in again and "x" not in again
    with pytest.raises(ManifestError, match="no image x"):
        store["x"]


def test_the_store_is_read_by_plain_pyarrow_and_described_to_datasets(tmp_path: Path) -> None:
    write_image_shard(tmp_path / "00000.parquet", [("a", encode_png(GRADIENT))])
    table = pq.read_table(tmp_path)
    row = table.to_pylist()[0]
    assert np.array_equal(decode_png(row["image"]["bytes"]), GRADIENT) and row["image"]["path"] == "a.png"
    assert b'"_type": "Image"' in table.schema.metadata[b"huggingface"]


def test_store_is_read_by_datasets(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="datasets is not installed (extra dev)")
    write_image_shard(tmp_path / "images/00000.parquet", [(str(number), encode_png(GRADIENT)) for number in range(3)])
    files, cache = str(tmp_path / "images/*.parquet"), str(tmp_path / "cache")
    loaded = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=cache)
    assert loaded["image_id"][:] == ["0", "1", "2"]
    assert np.array_equal(np.asarray(loaded[2]["image"]), GRADIENT)


@pytest.mark.slow
def test_store_is_read_by_ray(tmp_path: Path) -> None:
    data = pytest.importorskip("ray.data", reason="Ray is not installed (extra ray)")
    write_image_shard(tmp_path / "00000.parquet", [(str(number), encode_png(GRADIENT)) for number in range(3)])
    rows = data.read_parquet(str(tmp_path)).take_all()
    assert sorted(row["image_id"] for row in rows) == ["0", "1", "2"]
    assert np.array_equal(decode_png(rows[0]["image"]["bytes"]), GRADIENT)


def test_store_read_after_a_fork(tmp_path: Path) -> None:
    write_image_shard(tmp_path / "00000.parquet", [(str(number), encode_png(GRADIENT)) for number in range(20)])
    store = ImageStore(tmp_path)
    assert np.array_equal(store["0"], GRADIENT)
    child = os.fork()
    if child == 0:
        os._exit(0 if np.array_equal(store["19"], GRADIENT) else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert np.array_equal(store["10"], GRADIENT)


@pytest.fixture
def ingested(make_mimic: Callable[..., Path], tmp_path: Path) -> Path:
    ingest(IngestSettings(input=make_mimic(2), output=tmp_path / "out"))
    return tmp_path / "out"


def test_a_missing_manifest(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no such folder"):
        Manifest.open(tmp_path / "nowhere")
    with pytest.raises(ManifestError, match=r"no manifest\.parquet"):
        Manifest.open(tmp_path)


def test_manifest_of_another_schema_or_without_its_images(ingested: Path) -> None:
    path = ingested / "manifest.parquet"
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata({**table.schema.metadata, b"cxrreport.schema": b"7"}), path)
    with pytest.raises(ManifestError, match="schema version 7, but this version of cxrreport reads 1"):
        Manifest.open(ingested)
    pq.write_table(table.drop_columns(["findings"]), path)
    with pytest.raises(ManifestError, match="findings is missing"):
        Manifest.open(ingested)
    path.write_bytes(b"no parquet")
    with pytest.raises(ManifestError, match="cannot be read as Parquet"):
        Manifest.open(ingested)
    pq.write_table(table, path)
    (ingested / "images/00000.parquet").unlink()
    with pytest.raises(ManifestError, match="4 of 4 images of the manifest are missing"):
        Manifest.open(ingested)


def test_manifest_travels_to_another_process(ingested: Path) -> None:
    manifest = Manifest.open(ingested)
    image_id = next(iter(manifest.images))
    copy = pickle.loads(pickle.dumps(manifest))
    assert np.array_equal(copy.image(image_id), manifest.image(image_id))
    with pytest.raises(ValueError, match="holdout"):
        manifest.studies("holdout")


# --- Splits ---


def test_split_by_patient_is_about_80_10_10_and_never_changes() -> None:
    splits = [split_by_patient(str(patient)) for patient in range(10_000)]
    shares = {split: splits.count(split) / 10_000 for split in Split}
    assert shares[Split.TRAIN] == pytest.approx(0.8, abs=0.02)
    assert shares[Split.VALIDATE] == pytest.approx(0.1, abs=0.02)
    assert [split_by_patient(name).value for name in ("CXR1", "CXR2", "2", "5")] == EXPECTED_SPLITS


EXPECTED_SPLITS = ["train", "validate", "validate", "test"]


# --- Contact sheet ---


def test_contact_sheet(tmp_path: Path) -> None:
    assert spread(3) == [0, 1, 2] and len(spread(1000)) == 48 and spread(1000)[-1] < 1000 and spread(0) == []
    write_contact_sheet(tmp_path / "sheet.png", [(GRADIENT, "PA  128 x 256")] * 10)
    write_contact_sheet(tmp_path / "none.png", [])
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.mode == "L" and sheet.size == (8 * 196 + 4, 2 * 212 + 4)


def test_ingestion_loads_neither_torch_nor_monai() -> None:
    code = (
        "import sys, cxrreport.ingestion.ingest\n"
        "print([name for name in ('torch', 'transformers', 'monai', 'mlflow', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
