"""Archives that others wrote, on this machine: Orthanc with its DICOMweb plugin, and dcmtk's dcmqrscp."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

STORESCU = shutil.which("storescu", path="/usr/bin:/usr/local/bin")
"""That of dcmtk: pynetdicom installs scripts of the same names."""
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
needs_orthanc = pytest.mark.skipif(
    shutil.which("Orthanc") is None or not PLUGIN.exists(),
    reason="Orthanc with DICOMweb (Debian: orthanc, orthanc-dicomweb) is not installed",
)
needs_dcmtk = pytest.mark.skipif(
    shutil.which("dcmqrscp") is None or STORESCU is None, reason="dcmtk (Debian: dcmtk) is not installed"
)
OWN = "CXRREPORT"


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def wait_for(port: int, process: subprocess.Popen[bytes] | None = None, seconds: float = 30) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        assert process is None or process.poll() is None, "the server has ended"
        with socket.socket() as one:
            if one.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError(f"nothing listens at port {port}")


@dataclass
class Orthanc:
    """A running Orthanc."""

    http: int
    dicom: int
    folder: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def dicomweb(self) -> str:
        return f"http://127.0.0.1:{self.http}/dicom-web"

    @property
    def node(self) -> str:
        return f"ORTHANC@127.0.0.1:{self.dicom}"

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http}{path}") as answer:
            content = answer.read()
        return json.loads(content) if answer.headers["Content-Type"].startswith("application/json") else content

    def delete(self, path: str) -> None:
        urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{self.http}{path}", method="DELETE"))

    def store(self, *files: Path) -> None:
        for file in files:
            request = urllib.request.Request(
                f"http://127.0.0.1:{self.http}/instances", file.read_bytes(), {"Content-Type": "application/dicom"}
            )
            urllib.request.urlopen(request).read()

    def digests(self) -> dict[str, str]:
        """MD5 of every instance by SOP Instance UID."""
        return {
            row["MainDicomTags"]["SOPInstanceUID"]: self.get(f"/instances/{row['ID']}/attachments/dicom/md5").decode()
            for row in self.get("/instances?expand")
        }

    def instances(self, modality: str) -> list[dict[str, str]]:
        """Tags of the instances of a modality, by keyword."""
        rows = []
        for row in self.get("/instances?expand"):
            tags = self.get(f"/instances/{row['ID']}/simplified-tags")
            if tags["Modality"] == modality:
                rows.append(tags | {"ID": row["ID"]})
        return rows

    def start(self) -> None:
        log = (self.folder / "log").open("ab")
        self.process = subprocess.Popen(
            ["Orthanc", str(self.folder / "orthanc.json")], stdout=log, stderr=subprocess.STDOUT, cwd=self.folder
        )
        wait_for(self.http, self.process)

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@contextmanager
def orthanc(folder: Path, modalities: dict[str, int] | None = None, **options: Any) -> Iterator[Orthanc]:
    """An Orthanc; `modalities` are ports of other nodes by AE title."""
    folder.mkdir(parents=True, exist_ok=True)
    server = Orthanc(free_port(), free_port(), folder)
    known = {title: [title, "127.0.0.1", port] for title, port in {OWN: 1, "STORESCU": 1, **(modalities or {})}.items()}
    settings = {
        "Name": "archive",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "HttpPort": server.http,
        "DicomPort": server.dicom,
        "DicomAet": "ORTHANC",
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomCheckCalledAet": True,
        "DicomAlwaysAllowStore": True,
        "DicomAlwaysAllowFind": False,
        "DicomAlwaysAllowGet": True,
        "DicomModalities": known,
        "Plugins": [str(PLUGIN)],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        "OverwriteInstances": False,
        "StableAge": 1,
    } | options
    (folder / "orthanc.json").write_text(json.dumps(settings))
    server.start()
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def dcmqrscp(folder: Path, receiver: int) -> Iterator[str]:
    """dcmtk's archive; yields its address. It moves to the port `receiver` of this node."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "storage").mkdir()
    port = free_port()
    (folder / "dcmqrscp.cfg").write_text(f"""
NetworkTCPPort = {port}
MaxPDUSize = 131072
MaxAssociations = 16
HostTable BEGIN
own = ({OWN}, 127.0.0.1, {receiver})
HostTable END
VendorTable BEGIN
VendorTable END
AETable BEGIN
QRSCP {folder / "storage"} RW (200, 1024mb) ANY
AETable END
""")
    command = ["dcmqrscp", "-c", str(folder / "dcmqrscp.cfg"), "+xe", "--log-level", "error"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    wait_for(port, process)
    try:
        yield f"QRSCP@127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


_PROPOSE = {"1.2.840.10008.1.2.5": "-xr", "1.2.840.10008.1.2.1.99": "-xd", "1.2.840.10008.1.2.4.90": "-xv"}


def send(node: str, *files: Path, calling: str = "STORESCU") -> list[subprocess.CompletedProcess[str]]:
    """Send files with dcmtk's storescu, as a modality does; one connection for each transfer syntax."""
    title, _, address = node.partition("@")
    host, _, port = address.partition(":")
    groups: dict[str, list[str]] = {}
    for file in files:
        syntax = str(dcmread(file, stop_before_pixels=True).file_meta.TransferSyntaxUID)
        groups.setdefault(_PROPOSE.get(syntax, ""), []).append(str(file))
    done = []
    for option, names in groups.items():
        command = [str(STORESCU), "-aet", calling, "-aec", title, "-R", *([option] if option else ()), host, port]
        done.append(subprocess.run([*command, *names], capture_output=True, text=True, check=False, timeout=300))
    return done
