"""The service beside dcmtk's storescp and Orthanc; the last line is a JSON object.

    python benchmarks/pacs.py            # about 10 minutes on two idle cores
    python benchmarks/pacs.py --quick    # fewer instances

Needs the extra `pacs`, dcmtk, and Orthanc with its DICOMweb plugin (Debian: dcmtk, orthanc, orthanc-dicomweb).

- `receive_vs_storescp`: instances/s that `cxrreport listen` acknowledges, divided by those of storescp, which does not
  wait for the disk and keeps no record. dcmtk's storescu sends images of 2 MB (1024 x 1024) over one connection and
  gives each a new UID. The receivers alternate; median over rounds. `receive_vs_orthanc` is the same for Orthanc.
- `turnaround_s`: time from the acknowledgement of the last instance of a study until its Structured Report is in the
  archive (Orthanc, STOW-RS, read back), without the quiet time and without the time in the model; median over studies.
- `rss_growth`: growth of the resident memory of the service, in MB, from the 500th to the 5,000th instance.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

SYSTEM = "/usr/bin:/usr/local/bin:/usr/sbin:/usr/local/sbin"  # pynetdicom installs scripts of the names of dcmtk
PLUGIN = "/usr/share/orthanc/plugins/libOrthancDicomWeb.so"


def program(name: str) -> str:
    found = shutil.which(name, path=SYSTEM)
    if found is None:
        sys.exit(f"{name} is not installed; apt-get install dcmtk orthanc orthanc-dicomweb")
    return found


def write_images(folder: Path, count: int, side: int) -> list[Path]:
    folder.mkdir()
    rng, paths = np.random.default_rng(0), []
    for number in range(count):
        dataset = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.SOPClassUID, dataset.SOPInstanceUID = DigitalXRayImageStorageForPresentation, generate_uid()
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = generate_uid(), generate_uid()
        dataset.PatientID, dataset.PatientName, dataset.PatientBirthDate, dataset.PatientSex = (
            f"P{number}",
            "P^P",
            "",
            "O",
        )
        dataset.StudyDate, dataset.StudyTime, dataset.StudyID, dataset.AccessionNumber = "20240101", "120000", "1", ""
        dataset.ReferringPhysicianName, dataset.SeriesNumber, dataset.InstanceNumber = "", 1, 1
        dataset.Modality, dataset.BodyPartExamined, dataset.ViewPosition = "DX", "CHEST", "PA"
        dataset.Rows = dataset.Columns = side
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
        dataset.PixelData = rng.integers(0, 4096, (side, side), dtype=np.uint16).tobytes()
        paths.append(folder / f"{number}.dcm")
        dataset.save_as(paths[-1], enforce_file_format=True)
    return paths


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def wait_for(port: int) -> None:
    for _ in range(1200):
        with socket.socket() as one:
            if one.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    sys.exit(f"nothing listens at port {port}")


@contextmanager
def process(command: list[str], port: int, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    with (folder / "log").open("ab") as log:
        one = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
    try:
        wait_for(port)
        yield one
    finally:
        one.terminate()
        one.wait()


@contextmanager
def orthanc(folder: Path) -> Iterator[tuple[int, int]]:
    """Ports of HTTP and DICOM."""
    folder.mkdir()
    http, dicom = free_port(), free_port()
    settings = {
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "HttpPort": http,
        "DicomPort": dicom,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomAlwaysAllowStore": True,
        "Plugins": [PLUGIN],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with process([program("Orthanc"), "orthanc.json"], dicom, folder):
        wait_for(http)
        yield http, dicom


@contextmanager
def listening(folder: Path, archive: str, **values: Any) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """`cxrreport listen` with the tiny model: its port and process."""
    folder.mkdir()
    port = free_port()
    peers = [{"ae_title": "STORESCU", "address": "127.0.0.1"}]
    settings = {
        "output": str(folder / "queue"),
        "archive": archive,
        "checkpoint": {"name": "tiny"},
        "health_port": None,
    }
    settings |= {"receive": {"port": port, "ae_title": "ANY-SCP", "peers": peers}, "waiting_studies": 10**6}
    settings |= {"tracking": {"enabled": False}} | values
    (folder / "listen.yaml").write_text(json.dumps(settings))  # JSON is YAML
    with process([sys.executable, "-m", "cxrreport", "listen", "listen.yaml"], port, folder) as one:
        yield port, one


def send(port: int, files: list[Path], *, repeat: int = 1, new_ids: bool = True) -> float:
    """Seconds to send the files, each with new ids of study, series and instance."""
    ids = ["+II", "+IR", "1", "+IS", "1"] if new_ids else []
    command = [program("storescu"), "-R", "-xe", "--max-send-pdu", "131072", *ids, "--repeat", str(repeat)]
    start = time.monotonic()
    subprocess.run([*command, "127.0.0.1", str(port), *map(str, files)], check=True, capture_output=True)
    return time.monotonic() - start


def receive(folder: Path, count: int, rounds: int) -> dict[str, float]:
    files = write_images(folder / "images", count, 1024)
    rates: dict[str, list[float]] = {"cxrreport": [], "storescp": [], "orthanc": []}
    storescp, port = folder / "storescp", free_port()
    storescp.mkdir()
    with (
        orthanc(folder / "orthanc") as (http, dicom),
        listening(folder / "listen", f"http://127.0.0.1:{http}/dicom-web", quiet_s=10**6) as (own, _),
        process([program("storescp"), "-od", str(storescp), "-pdu", "131072", str(port)], port, storescp),
    ):
        ports = {"cxrreport": own, "storescp": port, "orthanc": dicom}
        for turn in range(rounds + 1):
            for name, one in ports.items():
                seconds = send(one, files)
                if turn:  # the first warms up
                    rates[name].append(count / seconds)
                    print(f"round {turn}, {name:10} {count / seconds:7.1f} instances/s", flush=True)
    median = {name: statistics.median(found) for name, found in rates.items()}
    print("median: " + ", ".join(f"{name} {rate:.1f}" for name, rate in median.items()))
    return {
        "receive_per_s": median["cxrreport"],
        "receive_vs_storescp": median["cxrreport"] / median["storescp"],
        "receive_vs_orthanc": median["cxrreport"] / median["orthanc"],
    }


def turnaround(folder: Path, count: int) -> dict[str, float]:
    from cxrreport.inference.decoding import Engine
    from cxrreport.pacs.service import listen
    from cxrreport.settings import ListenSettings

    in_model = 0.0
    stream = Engine.stream

    def timed(engine: Any, take: Any) -> Any:
        nonlocal in_model
        start = time.monotonic()

        def taken(wait: bool) -> Any:
            nonlocal start
            group = take(wait)
            start = time.monotonic()  # waiting for images is not the model's time
            return group

        for one in stream(engine, taken):
            in_model += time.monotonic() - start
            yield one
            start = time.monotonic()

    Engine.stream = timed  # type: ignore[method-assign, assignment]
    files, quiet, found, models = write_images(folder / "studies", count, 1024), 1.0, [], []
    with orthanc(folder / "archive") as (http, dicom):
        send(dicom, files, new_ids=False)
        settings = ListenSettings.model_validate(
            {
                "output": folder / "queue",
                "archive": f"http://127.0.0.1:{http}/dicom-web",
                "checkpoint": {"name": "tiny"},
                "quiet_s": quiet,
                "health_port": None,
                "max_new_tokens": 64,
                "receive": {
                    "port": 0,
                    "ae_title": "ANY-SCP",
                    "peers": [{"ae_title": "STORESCU", "address": "127.0.0.1"}],
                },
                "tracking": {"enabled": False},
            }
        )
        stop, ready, ports = threading.Event(), threading.Event(), []

        def started(port: int | None, _: int | None) -> None:
            ports.append(port)
            ready.set()

        thread = threading.Thread(target=listen, args=(settings,), kwargs={"started": started, "stop": stop})
        thread.start()
        ready.wait()

        def instances() -> int:
            with urllib.request.urlopen(f"http://127.0.0.1:{http}/statistics") as answer:
                return int(json.load(answer)["CountInstances"])

        for number, file in enumerate(files):
            in_model = 0.0
            send(ports[0], [file], new_ids=False)
            last = time.monotonic()
            while instances() <= count + number:
                time.sleep(0.02)
            whole = time.monotonic() - last
            found.append(whole - quiet - in_model)
            models.append(in_model)
            print(f"study {number + 1}: {whole:.2f} s, of these {in_model:.2f} s in the model", flush=True)
        stop.set()
        thread.join()
    return {"turnaround_s": statistics.median(found), "model_s": statistics.median(models)}


def memory(folder: Path, count: int) -> dict[str, float]:
    files = write_images(folder / "small", 50, 64)
    with listening(folder / "memory", "http://127.0.0.1:1/dicom-web", quiet_s=10**6) as (port, one):
        send(port, files, repeat=10)
        before = psutil.Process(one.pid).memory_info().rss
        seconds = send(port, files, repeat=(count - 500) // 50)
        after = psutil.Process(one.pid).memory_info().rss
    print(f"small instances: {(count - 500) / seconds:.1f}/s; {before / 2**20:.0f} MB, then {after / 2**20:.0f} MB")
    return {"small_receive_per_s": (count - 500) / seconds, "rss_growth": (after - before) / 2**20}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer instances")
    quick = parser.parse_args().quick
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        result = receive(folder, 20 if quick else 100, 2 if quick else 5)
        result |= turnaround(folder, 3 if quick else 10)
        result |= memory(folder, 1000 if quick else 5000)
    print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print(json.dumps({key: round(value, 4) for key, value in result.items()}))


if __name__ == "__main__":
    main()
