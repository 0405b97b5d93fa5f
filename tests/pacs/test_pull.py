"""Pull from Orthanc by DICOMweb and from both archives by DIMSE: what they list decides, and everything is verified."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pacs.conftest import Studies
from pacs.servers import Orthanc, dcmqrscp, free_port, needs_dcmtk, needs_orthanc, orthanc, send
from pydicom import dcmread

from cxrreport import runs
from cxrreport.settings import PullSettings, build

OFF = {"enabled": False}


@pytest.fixture(scope="module")
def archive(studies: Studies, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with orthanc(tmp_path_factory.mktemp("orthanc")) as server:
        server.store(*studies.files)
        yield server


def settings(archive: object, output: Path, **values: object) -> PullSettings:
    given = {"archive": archive, "output": output, "tracking": OFF} | values
    return build(PullSettings, given, where="test")


def images(folder: Path) -> set[str]:
    return {str(dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in folder.rglob("*.dcm")}


def ledger(folder: Path) -> Counter[str]:
    return Counter(row["reason"] for row in pq.read_table(folder / "ledger.parquet").to_pylist())


@needs_orthanc
@pytest.mark.parametrize("way", ["dicomweb", "node"])
def test_radiographs_of_chests_are_retrieved_and_the_rest_are_rows(
    archive: Orthanc, studies: Studies, tmp_path: Path, way: str
) -> None:
    out = tmp_path / "pulled"
    summary = runs.pull(settings(getattr(archive, way), out, since="2024-01-01"))
    assert summary.facts["retrieved"] == len(studies.chest) == 40
    assert images(out / "dicom") == studies.wanted
    assert ledger(out) == {"not-a-radiograph": 1, "not-a-chest": 2}
    rows = pq.read_table(out / "pulled.parquet").to_pylist()
    assert {row["image_id"] for row in rows} == studies.wanted
    stored = {path.relative_to(out).as_posix() for path in out.rglob("*.dcm")}
    assert {row["file"] for row in rows} == stored
    again = runs.pull(settings(getattr(archive, way), out, since="2024-01-01"))
    assert again.facts == summary.facts


@needs_dcmtk
@pytest.mark.parametrize("retrieve", ["get", "move"])
def test_from_dcmtk_by_get_and_move(studies: Studies, tmp_path: Path, retrieve: str) -> None:
    receiver = free_port()
    with dcmqrscp(tmp_path / "server", receiver) as node:
        native = [path for path in studies.files if not dcmread(path).file_meta.TransferSyntaxUID.is_compressed][:8]
        assert all(done.returncode == 0 for done in send(node, *native))
        address, _, port = node.partition("@")[2].partition(":")
        archive = {"protocol": "dimse", "ae_title": "QRSCP", "host": address, "port": int(port)}
        archive |= {"retrieve": retrieve, "receive_port": receiver}
        runs.pull(settings(archive, tmp_path / "out", since="2024-01-01"))
    sent = {str(dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in native}
    assert images(tmp_path / "out" / "dicom") == sent & studies.wanted
