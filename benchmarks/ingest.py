"""Time and memory of `ingest`, beside the usual recipe and radreader; the last line is a JSON object.

    python benchmarks/ingest.py            # all, about six minutes on two cores
    python benchmarks/ingest.py --rounds 5 --only reading

The files are generated: CR of 3056 x 2544 pixels and 12 bits, uncompressed and as JPEG Lossless, and small ones for the
memory of long runs. All methods alternate in one process, and medians are compared. `radreader` is a test-only
dependency; without it, its keys are null.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gdcm
import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian, generate_uid

sys.path.insert(0, str(Path(__file__).parent))

from baselines import ingest_recipe

from cxrreport.ingestion.dicom import read_radiograph
from cxrreport.ingestion.images import to_square
from cxrreport.ingestion.ingest import ingest
from cxrreport.settings import IngestSettings

ROWS, COLUMNS, RESOLUTION = 3056, 2544, 896
REPORT = "FINDINGS: The lungs are clear.\nIMPRESSION: No acute disease.\n"


def make_cr(path: Path, rows: int, columns: int, seed: int) -> None:
    """A 12-bit CR with the broad shapes of a chest and the grain of a plate."""
    draw = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : rows * 1j, -1 : 1 : columns * 1j].astype(np.float32)
    body = 2600 * np.exp(-((x / 0.8) ** 4) - np.clip(-y - 0.5, 0, 1) * 4)
    lungs = sum(1300 * np.exp(-(((x - side) / 0.28) ** 2) - ((y + 0.1) / 0.5) ** 2) for side in (-0.4, 0.4))
    values = body - lungs + 300 + draw.normal(0, 12, (rows, columns)).astype(np.float32)
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = ComputedRadiographyImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = generate_uid()
    dataset.StudyInstanceUID, dataset.PatientID = generate_uid(), "P1"
    dataset.Modality, dataset.BodyPartExamined, dataset.ViewPosition = "CR", "CHEST", "PA"
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME1"
    dataset.Rows, dataset.Columns = rows, columns
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.WindowCenter, dataset.WindowWidth = 2048, 3600
    dataset.PixelData = np.clip(4095 - values, 0, 4095).astype("<u2").tobytes()
    dataset.save_as(path, enforce_file_format=True)


def to_jpeg_lossless(source: Path, target: Path) -> None:
    """The same image as JPEG Lossless, selection value 1, by GDCM."""
    reader = gdcm.ImageReader()
    reader.SetFileName(str(source))
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
    if not reader.Read():
        raise SystemExit(f"{source}: GDCM does not read it")
    change.SetInput(reader.GetImage())
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(target))
    writer.SetFile(reader.GetFile())
    if not change.Change():
        raise SystemExit(f"{source}: GDCM does not compress it")
    writer.SetImage(change.GetOutput())
    if not writer.Write():
        raise SystemExit(f"{target}: cannot be written")


def make_tree(root: Path, image: Path, count: int) -> Path:
    """A MIMIC-CXR-shaped tree of `count` studies that are all hard links to one image."""
    for number in range(count):
        patient, study = f"{10000000 + number}", f"{50000000 + number}"
        folder = root / f"files/p{patient[:2]}/p{patient}/s{study}"
        folder.mkdir(parents=True)
        os.link(image, folder / f"image-{study}.dcm")
        (folder.parent / f"s{study}.txt").write_text(REPORT)
    return root


def medians(sides: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median seconds of each side; one round of warming up, then all sides in turns."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(rounds + 1):
        for name, side in sides.items():
            started = time.perf_counter()
            side()
            if turn:
                times[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in times.items()}


def ours(path: Path) -> Any:
    return to_square(read_radiograph(path, max_pixels=60_000_000).grey, resolution=RESOLUTION)


def measure_reading(folder: Path, rounds: int) -> dict[str, float | None]:
    plain, packed = folder / "plain.dcm", folder / "packed.dcm"
    sides: dict[str, Callable[[], Any]] = {
        "cxrreport": lambda: ours(plain),
        "recipe": lambda: ingest_recipe.read(plain, RESOLUTION),
        "cxrreport, JPEG Lossless": lambda: ours(packed),
    }
    try:
        from baselines import ingest_radreader
    except ImportError:
        print("radreader is not installed: its keys are null")
    else:
        sides["radreader"] = lambda: ingest_radreader.read(plain, RESOLUTION)
        sides["radreader, JPEG Lossless"] = lambda: ingest_radreader.read(packed, RESOLUTION)
        sides["radreader without checks"] = lambda: ingest_radreader.read(plain, RESOLUTION, checks=False)
    if not np.array_equal(ours(plain), ours(packed)):
        raise SystemExit("the two files of one image do not give the same image")
    seconds = medians(sides, rounds)
    for name, value in seconds.items():
        print(f"{name:28} {1000 * value:8.1f} ms")
    other, compressed = seconds.get("radreader"), seconds.get("radreader, JPEG Lossless")
    bare = seconds.get("radreader without checks")
    return {
        "vs_recipe": seconds["recipe"] / seconds["cxrreport"],
        "vs_radreader": other / seconds["cxrreport"] if other else None,
        "vs_radreader_without_checks": bare / seconds["cxrreport"] if bare else None,
        "vs_radreader_compressed": compressed / seconds["cxrreport, JPEG Lossless"] if compressed else None,
    }


def measure_workers(folder: Path, rounds: int) -> dict[str, float]:
    """Whole runs, with the starting of processes (about a second), on full-size files."""
    files = 288
    tree = make_tree(folder / "workers", folder / "plain.dcm", files)

    def run(workers: int) -> None:
        with tempfile.TemporaryDirectory(dir=folder) as output:
            ingest(IngestSettings(input=tree, output=Path(output), workers=workers, resolution=RESOLUTION))

    seconds = medians({"1": lambda: run(1), "2": lambda: run(2)}, rounds)
    for workers, value in seconds.items():
        print(f"{workers} worker(s), {files} files         {value:8.2f} s, {files / value:.1f} files/s")
    return {"two_workers": seconds["1"] / seconds["2"]}


def measure_memory(folder: Path) -> dict[str, float]:
    """Peak resident memory of a worker on full-size files, and of a whole run on few and on many small ones."""
    full = make_tree(folder / "full", folder / "plain.dcm", 200)
    _, worker = peak_of(full, folder / "full-out", workers=2, resolution=RESOLUTION)
    small = folder / "small.dcm"
    make_cr(small, 512, 512, seed=2)
    peaks = []
    for count in (500, 5000):
        tree = make_tree(folder / f"small-{count}", small, count)
        peaks.append(peak_of(tree, folder / f"small-{count}-out", workers=1, resolution=224)[0])
        print(f"{count:5} files of 512 x 512         {peaks[-1]:8.0f} MB")
    print(f"a worker, 200 full-size files {worker:8.0f} MB")
    return {"rss_mb": worker, "rss_growth": peaks[1] / peaks[0]}


def peak_of(tree: Path, output: Path, *, workers: int, resolution: int) -> tuple[float, float]:
    """Peak resident memory, MB, of a process that ingests `tree`, and the largest among its workers."""
    command = [sys.executable, __file__, "--child", str(tree), str(output), str(workers), str(resolution)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    own, children = json.loads(done.stdout.splitlines()[-1])
    return own, children


def be_child(tree: str, output: str, workers: str, resolution: str) -> None:
    settings: dict[str, Any] = {"workers": int(workers), "resolution": int(resolution)}
    summary = ingest(IngestSettings(input=Path(tree), output=Path(output), **settings))
    if summary.left_out:
        raise SystemExit(f"left out: {summary.left_out}")
    # Not getrusage for this process: its peak begins with that of the process which started it.
    status = Path("/proc/self/status").read_text()
    own = int(status.split("VmHWM:")[1].split()[0])
    print(json.dumps([kilobytes / 1024 for kilobytes in (own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="rounds of reading; whole runs take a third of them")
    parser.add_argument("--only", choices=["reading", "workers", "memory"])
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        be_child(*arguments.child)
        return
    result: dict[str, float | None] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_cr(folder / "plain.dcm", ROWS, COLUMNS, seed=1)
        to_jpeg_lossless(folder / "plain.dcm", folder / "packed.dcm")
        if arguments.only in (None, "reading"):
            result |= measure_reading(folder, arguments.rounds)
        if arguments.only in (None, "workers"):
            result |= measure_workers(folder, max(1, arguments.rounds // 3))
        if arguments.only in (None, "memory"):
            result |= measure_memory(folder)
    print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print(json.dumps({key: value if value is None else round(value, 3) for key, value in result.items()}))


if __name__ == "__main__":
    main()
