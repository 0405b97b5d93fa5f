"""Random folders with everything that people have: read = kept + excluded, and every file has exactly one outcome."""

from __future__ import annotations

import io
import os
import random
import shutil
import struct
import tarfile
import zipfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.sequence import Sequence
from pydicom.uid import RLELossless

from cxrreport.errors import CxrReportError, InputError
from cxrreport.ingestion.ingest import ingest
from cxrreport.settings import IngestSettings

NAMES = [
    *(
        "a",
        "B",
        "ü",
        "漢字",
        "a b",
        " lead",
        "trail ",
        "semi;colon",
        "comma,",
        'quo"te',
        "apo'strophe",
        "per%20cent",
        "#",
    ),
    *(
        "-dash",
        "~",
        "$HOME",
        "`x`",
        "back\\slash",
        "new\nline",
        "tab\t",
        "star*",
        "q?",
        "[x]",
        "{y}",
        "..hidden",
        "\u202e",
    ),
    *("e\u0301", "\ufeffmark", "\ufffd", "\x01", "x" * 120, "..."),
    *(os.fsdecode(raw) for raw in (b"\xff", b"\xfe\xff", b"caf\xe9")),
]
SUFFIXES = ("", ".dcm", ".DCM", ".png", ".jpg", ".JPEG", ".zip", ".txt", ".csv", ".json")


@dataclass
class Tree:
    """A random tree, and how many entries of it must have an outcome."""

    root: Path
    outside: Path
    random: random.Random
    contents: list[bytes]
    entries: int = 0
    folders: list[Path] = field(default_factory=list)

    def fill(self, folder: Path, depth: int) -> None:
        self.folders.append(folder)
        for _ in range(self.random.randrange(1, 6)):
            name = self.random.choice(NAMES) + self.random.choice(("", "2", "3")) + self.random.choice(SUFFIXES)
            path = folder / name
            if os.path.lexists(path):
                continue
            self.add(path, depth)

    def add(self, path: Path, depth: int) -> None:
        kind = self.random.choice(["file"] * 6 + ["folder"] * 3 + ["fifo", "link", "loop", "gone", "device", "output"])
        if kind == "folder":
            if depth < 3:
                path.mkdir()
                self.fill(path, depth + 1)
            return
        self.entries += 1
        if kind == "file":
            path.write_bytes(self.random.choice(self.contents))
        elif kind == "fifo":
            os.mkfifo(path)
        elif kind == "link":
            target = self.outside / f"{self.entries}.dcm"
            target.write_bytes(self.random.choice(self.contents))
            path.symlink_to(target)
        elif kind == "output":
            path.mkdir()
            (path / "ingest.json").write_text('{"verb": "ingest", "settings": {}, "finished": false}')
            (path / "contact_sheet.png").write_bytes(self.contents[-1])
        else:
            targets = {"loop": self.random.choice(self.folders), "gone": Path("gone"), "device": Path("/dev/zero")}
            path.symlink_to(targets[kind])


def in_fragments(dataset: Dataset, table: bytes) -> Dataset:
    """The dataset in RLE, its only frame in three fragments behind an offset table."""
    dataset.compress(RLELossless, generate_instance_uid=False)
    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    items = [table, frame[:64], frame[64:100], frame[100:]]
    dataset.PixelData = b"".join(b"\xfe\xff\x00\xe0" + struct.pack("<I", len(item)) + item for item in items)
    return dataset


@pytest.fixture
def contents(tmp_path: Path, make_dataset: Any, write_dataset: Any) -> list[bytes]:
    """Contents of files: DICOM, good and bad, pictures, archives, texts."""
    folder = tmp_path / "contents"
    same = {"SOPInstanceUID": "1.1", "StudyInstanceUID": "1"}
    datasets = [
        make_dataset(StudyInstanceUID="2", PatientID="A"),
        make_dataset(StudyInstanceUID="2", PatientID=None),
        make_dataset(SOPInstanceUID=None, StudyInstanceUID=None, PatientID=None),
        make_dataset(**same),
        make_dataset(**same, PixelData=b"\0\0"),
        make_dataset(**same, PixelData=None, Rows=None),
        make_dataset(Modality="CT", SOPClassUID="1.2.840.10008.5.1.4.1.1.2"),
        make_dataset(ViewPosition="LL"),
        make_dataset(PatientOrientation=["F", "RP"], PixelSpacing=[0.1, 0.2]),
        make_dataset(PatientOrientation=["X"], PixelAspectRatio=[0, 1]),
        make_dataset(VOILUTSequence=Sequence([Dataset()]), ModalityLUTSequence=Sequence([Dataset(), Dataset()])),
        *(in_fragments(make_dataset(), table) for table in (b"", b"\0\0\0\0\1\0\0\0", b"\1\2")),
    ]
    results = [write_dataset(folder / f"{number}.dcm", dataset).read_bytes() for number, dataset in enumerate(datasets)]
    results += [results[0][:200], results[0][:2000], b"", b"text", b"PK\x03\x04", b"\0" * 2000]
    zipped, tarred = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("a.dcm", results[0])
    with tarfile.open(fileobj=tarred, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("a.dcm"))
    results += [zipped.getvalue(), tarred.getvalue()]
    for mode, kind in (
        ("L", "PNG"),
        ("RGB", "JPEG"),
        ("RGBA", "PNG"),
        ("CMYK", "JPEG"),
        ("I;16", "PNG"),
        ("L", "JPEG"),
    ):
        picture = io.BytesIO()
        values = np.arange(480, dtype=np.uint16).reshape(24, 20)
        values = values if mode == "I;16" else (values // 2).astype(np.uint8)
        image, exif = Image.fromarray(values), Image.Exif()
        exif[274] = len(results) % 10  # an orientation, often none
        (image if mode in {"L", "I;16"} else image.convert(mode)).save(picture, kind, exif=exif, dpi=(72, 99))
        results += [picture.getvalue(), picture.getvalue()[:-40]]
    return [*results, results[-2]]


def write_table(path: Path, chance: random.Random, studies: list[str]) -> None:
    """A table of reports in one of many spellings."""
    delimiter = chance.choice(",;\t")
    header = chance.choice((["study_id", "patient_id", "findings"], ["Study ID", "PATIENT-ID", "Findings"]))
    words = ("Clear.", "NaN", "", "NA", "né", "two\nlines", 'a ""b""', "x\ufffd", "a\ufeffb", f"a{delimiter}b")
    rows = [header]
    for study in dict.fromkeys(studies):
        rows.append([study, chance.choice(("P", "", "nan")), chance.choice(words)])
    text = "\n".join(delimiter.join(f'"{cell}"' for cell in row) for row in rows)
    if chance.random() < 0.2:
        place = chance.choice([index for index, letter in enumerate(text) if letter == '"'])
        text = text[:place] + text[place + 1 :]
    encoding = chance.choice(("utf-8", "utf-8-sig", "utf-16", "cp1252"))
    path.write_bytes(text.encode(encoding, errors="replace"))


def check_tree(seed: int, folder: Path, contents: list[bytes]) -> Counter[str]:
    """Ingest one random tree. The counts add up, every entry has one outcome, and no odd character is in a report."""
    chance = random.Random(seed)
    root, outside, output = folder / "in", folder / "outside", folder / "in/out"
    root.mkdir(parents=True)
    outside.mkdir()
    tree = Tree(root, outside, chance, contents)
    tree.fill(root, 0)
    settings: dict[str, Any] = {
        "views": chance.choice(("all", "frontal", "best-frontal", "best-frontal+lateral")),
        "require_report": False,
    }
    if chance.random() < 0.5:
        settings["reports"] = folder / "reports.csv"
        write_table(settings["reports"], chance, ["1", "2", "a", "B2", "5000.0"])
    try:
        summary = ingest(IngestSettings(input=root, output=output, **settings))
    except InputError as error:
        if tree.entries and "reports.csv" not in str(error):
            raise
        return Counter(refused=1)
    assert summary.read == summary.kept + sum(summary.left_out.values())
    excluded = [row for row in pq.read_table(output / "ledger.parquet").to_pylist() if row["source"]]
    manifest = pq.read_table(output / "manifest.parquet").to_pylist()
    sources = [row["source"] for row in [*manifest, *excluded]]
    assert len(sources) == len(set(sources)) == tree.entries
    for row in manifest:
        texts = [row[name] for name in ("indication", "technique", "comparison", "findings", "impression")]
        assert not set("\ufeff\ufffd\0").intersection("".join(texts))
        assert "nan" not in texts
    again = ingest(IngestSettings(input=root, output=folder / "again", **settings))
    assert again.digest == summary.digest and again.read == summary.read + 1
    return Counter(summary.left_out) + Counter(summary.notes) + Counter(kept=summary.kept)


def fuzz(seeds: range, tmp_path: Path, contents: list[bytes]) -> Counter[str]:
    outcomes: Counter[str] = Counter()
    for seed in seeds:
        try:
            outcomes += check_tree(seed, tmp_path / str(seed), contents)
        except (AssertionError, CxrReportError) as error:
            raise AssertionError(f"seed {seed}") from error
        shutil.rmtree(tmp_path / str(seed))
    return outcomes


def test_fifty_random_folders(tmp_path: Path, contents: list[bytes]) -> None:
    outcomes = fuzz(range(50), tmp_path, contents)
    assert {"kept", "refused", "not-dicom", "not-readable", "duplicate-image", "image-file-missing"} < set(outcomes)
    assert {"orientation-applied", "orientation-unclear", "pixels-not-square", "pixel-shape-unclear"} < set(outcomes)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_two_thousand_random_folders(tmp_path: Path, contents: list[bytes]) -> None:
    assert fuzz(range(50, 2050), tmp_path, contents)["kept"] > 500
