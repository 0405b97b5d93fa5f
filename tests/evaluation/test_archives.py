from __future__ import annotations

import gzip
import io
import random
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import huggingface_hub
import pytest

from cxrreport.errors import WeightsError
from cxrreport.evaluation.radgraph import archives
from cxrreport.storage.atomic_files import PARTIAL
from cxrreport.storage.memory_limit import address_space


def pack(source: Path, target: Path) -> Path:
    with tarfile.open(target, "w:gz") as tar:
        for path in sorted(source.rglob("*")):
            tar.add(path, path.relative_to(source).as_posix(), recursive=False)
    return target


def names(folder: Path) -> list[str]:
    """What is in a folder besides the lock of an archive, which stays."""
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def test_missing_weights_name_each_file_and_where_it_comes_from(tmp_path: Path) -> None:
    with pytest.raises(WeightsError) as caught:
        archives.locate("radgraph-xl", tmp_path)
    message = str(caught.value)
    folder = tmp_path / "radgraph-xl"
    for part in ("config.json", "weights.th", "vocabulary/non_padded_namespaces.txt", "vocabulary/*__ner_labels.txt"):
        assert str(folder / part) in message
    for hint in ("StanfordAIMI/RRG_scorers", str(tmp_path / "radgraph-xl.tar.gz"), "hf download", "weights", "tiny"):
        assert hint in message
    assert not folder.exists()


def test_an_unknown_name(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"'radgraph-xxl'.*radgraph-xl.*no config.json"):
        archives.locate("radgraph-xxl", tmp_path)


def test_tiny_is_in_the_package_small_and_synthetic(tmp_path: Path) -> None:
    folder = archives.locate("tiny", tmp_path)
    archive = archives.read(folder)
    assert archive.synthetic and archive.model_type == "radgraph-xl"
    assert sum(path.stat().st_size for path in folder.rglob("*")) <= 4_000_000
    assert not list(folder.rglob("*.lock"))


def test_a_folder_is_used_unchanged(archive: Path, tmp_path: Path) -> None:
    assert archives.locate(str(archive), tmp_path) == archive
    assert archives.locate("radgraph-xl", archive.parent) == archive


def test_without_provenance_nothing_is_synthetic(archive: Path, tmp_path: Path) -> None:
    folder = tmp_path / "published"
    shutil.copytree(archive, folder)
    (folder / "provenance.json").unlink()
    read = archives.read(folder)
    assert not read.synthetic
    assert read.weights_sha256 == archives.read(archive).weights_sha256


def test_fingerprint_depends_on_the_labels(archive: Path, tmp_path: Path) -> None:
    folder = tmp_path / "other"
    shutil.copytree(archive, folder)
    labels = folder / "vocabulary" / "radgraph-xl__ner_labels.txt"
    labels.write_text(labels.read_text().replace("uncertain", "doubtful"))
    assert archives.read(folder).fingerprint != archives.read(archive).fingerprint


def test_a_packed_archive_is_unpacked_once(archive: Path, tmp_path: Path) -> None:
    pack(archive, tmp_path / "radgraph-xl.tar.gz")
    folder = archives.locate("radgraph-xl", tmp_path)
    assert archives.read(folder).fingerprint == archives.read(archive).fingerprint
    (tmp_path / "radgraph-xl.tar.gz").unlink()
    assert archives.locate("radgraph-xl", tmp_path) == folder
    assert names(tmp_path) == ["radgraph-xl"]


def test_download_happens_only_when_asked(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def fetch(repository: str, filename: str, *, local_dir: Path) -> None:
        asked.append((repository, filename))
        pack(archive, local_dir / filename)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetch)
    with pytest.raises(WeightsError):
        archives.locate("radgraph-xl", tmp_path)
    assert not asked
    archives.locate("radgraph-xl", tmp_path, download=True)
    archives.locate("radgraph-xl", tmp_path, download=True)
    assert asked == [("StanfordAIMI/RRG_scorers", "radgraph-xl.tar.gz")]


def test_a_download_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(*_: object, **__: object) -> str:
        raise ConnectionError("no network")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetch)
    with pytest.raises(
        WeightsError, match=r"download failed \(ConnectionError\): missing .*weights\.th.*radgraph\.tar\.gz"
    ):
        archives.locate("radgraph", tmp_path, download=True)


def entry(
    name: str, *, kind: bytes = tarfile.REGTYPE, target: str = "", data: bytes = b"x"
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, target, len(data) if kind == tarfile.REGTYPE else 0
    return info, data


@pytest.mark.parametrize(
    "bad",
    [
        entry("../escaped"),
        entry("a/../../escaped"),
        entry("/tmp/cxrreport-escaped"),
        entry("config.json", kind=tarfile.SYMTYPE, target="/etc/hostname"),
        entry("config.json", kind=tarfile.LNKTYPE, target="../escaped"),
        entry("pipe", kind=tarfile.FIFOTYPE),
        entry("device", kind=tarfile.CHRTYPE),
    ],
)
def test_unsafe_archives_leave_nothing(tmp_path: Path, bad: tuple[tarfile.TarInfo, bytes]) -> None:
    root = tmp_path / "root"
    root.mkdir()
    with tarfile.open(root / "radgraph.tar.gz", "w:gz") as tar:
        for info, data in (entry("weights.th"), bad):
            tar.addfile(info, io.BytesIO(data))
    with pytest.raises(WeightsError, match="not safe to unpack: entry 2"):
        archives.locate("radgraph", root)
    assert names(root) == ["radgraph.tar.gz"]
    assert [path.name for path in tmp_path.iterdir()] == ["root"]
    assert not Path("/tmp/cxrreport-escaped").exists()


def test_a_header_that_promises_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "_MOST_BYTES", 10)
    with tarfile.open(tmp_path / "radgraph.tar.gz", "w:gz") as tar:
        info, data = entry("weights.th", data=b"x" * 11)
        tar.addfile(info, io.BytesIO(data))
    with pytest.raises(WeightsError, match="too large"):
        archives.locate("radgraph", tmp_path)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XGLTYPE])
def test_a_header_as_long_as_the_memory(tmp_path: Path, kind: bytes) -> None:
    """`tarfile` reads the header of an extended name into memory; compressed, gigabytes of it are small."""
    if not address_space():
        pytest.skip("the memory of a process cannot be limited here")
    header = tarfile.TarInfo("weights.th")
    header.type, header.size = kind, 300 << 20
    with gzip.open(tmp_path / "radgraph.tar.gz", "wb", compresslevel=1) as file:
        file.write(header.tobuf())
        for _ in range(300):
            file.write(bytes(1 << 20))
    with pytest.raises(WeightsError, match="damaged"):
        archives.locate("radgraph", tmp_path)
    assert names(tmp_path) == ["radgraph.tar.gz"]


UNPACK = """
import sys
from pathlib import Path
from cxrreport.evaluation.radgraph import archives
print("ready", flush=True)
archives.locate("radgraph-xl", Path(sys.argv[1]))
"""


@pytest.mark.parametrize("processes", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_unpacking_that_is_killed_leaves_nothing_to_the_next_run(archive: Path, tmp_path: Path, processes: int) -> None:
    """Several runs that unpack one archive do not remove each other's files."""
    large, moments = tmp_path / "large", random.Random(processes)
    shutil.copytree(archive, large)
    (large / "other").write_bytes(moments.randbytes(30 << 20))
    pack(large, tmp_path / "radgraph-xl.tar.gz")
    for _ in range(4 if processes == 1 else 20):
        (tmp_path / f"{PARTIAL}radgraph-xl-earlier" / "vocabulary").mkdir(parents=True)
        running = [
            subprocess.Popen(
                [sys.executable, "-c", UNPACK, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
            for _ in range(processes)
        ]
        for one in running:
            assert one.stdout and one.stdout.readline() == b"ready\n"
        time.sleep(moments.uniform(0, 0.3))
        running[0].kill()
        running[0].communicate()
        for one in running[1:]:
            assert one.communicate()[1] == b"" and one.returncode == 0
        folder = archives.locate("radgraph-xl", tmp_path)
        assert names(tmp_path) == ["large", "radgraph-xl", "radgraph-xl.tar.gz"]
        assert archives.read(folder).fingerprint == archives.read(archive).fingerprint
        shutil.rmtree(folder)


@pytest.mark.parametrize("cut", [0, 10, 2000])
def test_truncated_archives(archive: Path, tmp_path: Path, cut: int) -> None:
    packed = pack(archive, tmp_path / "radgraph-xl.tar.gz")
    packed.write_bytes(packed.read_bytes()[:cut])
    with pytest.raises(WeightsError, match=r"radgraph-xl\.tar\.gz"):
        archives.locate("radgraph-xl", tmp_path)
    assert names(tmp_path) == ["radgraph-xl.tar.gz"]


def test_an_incomplete_folder_is_not_overwritten(archive: Path, tmp_path: Path) -> None:
    (tmp_path / "radgraph-xl").mkdir()
    (tmp_path / "radgraph-xl" / "config.json").write_text("{}")
    pack(archive, tmp_path / "radgraph-xl.tar.gz")
    with pytest.raises(WeightsError, match="incomplete"):
        archives.locate("radgraph-xl", tmp_path)


def test_an_empty_folder_is_filled(archive: Path, tmp_path: Path) -> None:
    # The package makes the folder before it downloads, so a failed download leaves an empty one.
    (tmp_path / "radgraph-xl").mkdir()
    pack(archive, tmp_path / "radgraph-xl.tar.gz")
    assert not archives.missing(archives.locate("radgraph-xl", tmp_path))
