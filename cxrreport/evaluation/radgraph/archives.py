"""Find, unpack and check RadGraph archives.

An archive is a folder with `config.json`, `weights.th` and `vocabulary/`, published as `<model>.tar.gz`. The archive of
this project (`tiny`) also contains the configuration and tokenizer of its encoder in `encoder/`, and `provenance.json`,
which marks its scores as synthetic.
"""

from __future__ import annotations

import glob
import hashlib
import shutil
import tarfile
import tempfile
import zlib
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Any

from cxrreport.assets import radgraph_folder
from cxrreport.errors import WeightsError
from cxrreport.storage.atomic_files import PARTIAL, file_sha256
from cxrreport.storage.decoding import parse_json
from cxrreport.storage.locks import locked_file
from cxrreport.storage.memory_limit import limited_memory

REPOSITORY = "StanfordAIMI/RRG_scorers"
"""Repository of the published archives on the Hugging Face hub."""
MODELS = ("radgraph", "radgraph-xl", "modern-radgraph-xl")
TINY = "tiny"

_NER = "__ner_labels.txt"
_RELATIONS = "__relation_labels.txt"
_MOST_BYTES = 8 << 30
_MOST_MEMBERS = 1000
_MEMORY = 256 << 20
"""Memory for unpacking: `tarfile` holds a header as long as the archive says."""


@dataclass(frozen=True, slots=True)
class Archive:
    """A complete archive.

    Args:
        folder: folder of the archive.
        config: content of `config.json`.
        model_type: prefix of the label files; determines how the package tokenises a text.
        weights_sha256: SHA-256 of `weights.th`, hex.
        fingerprint: SHA-256 of all files that annotations depend on, hex.
        synthetic: trained by this project on phantoms; its scores say nothing about real reports.
    """

    folder: Path
    config: dict[str, Any]
    model_type: str
    weights_sha256: str
    fingerprint: str
    synthetic: bool

    @property
    def conditions(self) -> dict[str, str]:
        """What graphs depend on, to be recorded beside what is computed from them."""
        return {"radgraph": self.model_type, "weights_sha256": self.weights_sha256, "package": package_version()}

    @property
    def encoder(self) -> str:
        """Hub name or folder of the encoder whose configuration and tokenizer are needed."""
        return str(self.config["model"]["embedder"]["token_embedders"]["bert"]["model_name"])


def package_version() -> str:
    """Version of the installed radgraph package."""
    return metadata.version("radgraph")


def locate(name: str, root: Path, *, download: bool = False) -> Path:
    """Find the folder of an archive; if there is only `<name>.tar.gz`, unpack it.

    Args:
        name: one of `MODELS`, `tiny`, or a folder.
        root: folder of the models, each in a subfolder of its name.
        download: download a published archive from the hub if it is missing.

    Raises:
        WeightsError: a file is missing, or the archive is damaged or not safe to unpack. The message states which file
            is missing, where to put it and how to get it.
    """
    if name == TINY:
        folder = radgraph_folder()
        if lacking := missing(folder):
            raise WeightsError(
                f"RadGraph 'tiny' is incomplete: no {', '.join(lacking)} in {folder}; reinstall cxrreport, or train it "
                "with `python -m cxrreport.demo.tiny_models.radgraph --out FOLDER` and set `radgraph` to that folder"
            )
        return folder
    if name not in MODELS:
        folder = Path(name)
        if lacking := missing(folder):
            raise WeightsError(
                f"RadGraph {name!r}: neither one of {', '.join((*MODELS, TINY))} nor a folder with an archive "
                f"(no {', '.join(lacking)} in {folder.absolute()})"
            )
        return folder
    folder, packed = root / name, root / f"{name}.tar.gz"
    if not missing(folder):
        return folder
    failure = fetch(REPOSITORY, packed.name, root) if download and not packed.is_file() else ""
    if packed.is_file():
        unpack(packed, folder)
    if lacking := [str(folder / part) for part in missing(folder)]:
        command = f"hf download {REPOSITORY} {packed.name} --local-dir {root}"
        raise WeightsError(
            f"RadGraph {name!r} was not found{failure}: missing {', '.join(lacking)}. Get {packed.name} from the "
            f"Hugging Face repository {REPOSITORY} (`{command}`) and store it as {packed}, where it is unpacked. Or "
            "set `download: true`, set `weights` to a folder that contains it, or use `radgraph: tiny` (synthetic)"
        )
    return folder


def missing(folder: Path) -> list[str]:
    """The parts of an archive that `folder` lacks."""
    lacking = [name for name in ("config.json", "weights.th") if not (folder / name).is_file()]
    vocabulary = folder / "vocabulary"
    if not (vocabulary / "non_padded_namespaces.txt").is_file():
        lacking.append("vocabulary/non_padded_namespaces.txt")
    lacking += [f"vocabulary/*{end}" for end in (_NER, _RELATIONS) if not any(vocabulary.glob(f"*{end}"))]
    return lacking


def read(folder: Path) -> Archive:
    """Read the description of the archive in `folder`, without its weights.

    Raises:
        WeightsError: a part is missing or unreadable.
    """
    if lacking := missing(folder):
        raise WeightsError(f"{folder}: not a RadGraph archive, it has no {', '.join(lacking)}")
    config = _read_json(folder / "config.json")
    provenance = folder / "provenance.json"
    synthetic = bool(_read_json(provenance).get("synthetic")) if provenance.is_file() else False
    digest = hashlib.sha256()
    try:
        weights_sha256 = file_sha256(folder / "weights.th")
        parts = [folder / "config.json", *sorted((folder / "vocabulary").glob("*.txt"))]
        parts += sorted(path for path in (folder / "encoder").glob("*") if path.is_file())
        digest.update(weights_sha256.encode())
        for part in parts:
            digest.update(part.name.encode() + b"\0" + hashlib.sha256(part.read_bytes()).digest())
    except OSError as error:
        raise WeightsError(f"{error.filename}: cannot be read ({error.strerror})") from error
    return Archive(folder, config, _model_type(folder), weights_sha256, digest.hexdigest(), synthetic)


def _model_type(folder: Path) -> str:
    # The package uses the data set in the names of the label files as the model type.
    vocabulary = folder / "vocabulary"
    types = sorted(path.name.removesuffix(_NER) for path in vocabulary.glob(f"*{_NER}"))
    known = [name for name in types if name in MODELS and (vocabulary / f"{name}{_RELATIONS}").is_file()]
    if len(known) != 1:
        raise WeightsError(
            f"{vocabulary}: expected the labels of one of {', '.join(MODELS)}, found those of {', '.join(types)}"
        )
    return known[0]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path}: cannot be read as JSON; unpack the archive again") from error
    if not isinstance(value, dict):
        raise WeightsError(f"{path}: expected a JSON object; unpack the archive again")
    return value


def fetch(repository: str, filename: str, root: Path) -> str:
    """Download a file of a hub repository into `root`; returns a clause for an error message, empty on success."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        hf_hub_download(repository, filename, local_dir=root)
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        return f" and the download failed ({type(error).__name__})"
    return ""


def unpack(packed: Path, folder: Path) -> None:
    """Unpack a `.tar.gz` into `folder`, which is either complete or not created.

    Only regular files and folders below the root of the archive are accepted: no absolute names, no `..`, no links and
    no devices. (The radgraph package unpacks any entry.)

    Raises:
        WeightsError: the archive is damaged, unsafe or too large, or `folder` is not empty.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with locked_file(folder.with_name(f".{folder.name}.lock"), wait=True):
            _unpack(packed, folder)
    except (tarfile.TarError, zlib.error, EOFError, MemoryError) as error:  # a header can be of any length
        raise WeightsError(f"{packed}: damaged ({type(error).__name__}); download it again") from error
    except OSError as error:
        raise WeightsError(f"{packed}: cannot be unpacked into {folder} ({error})") from error


def _unpack(packed: Path, folder: Path) -> None:
    prefix = f"{PARTIAL}{folder.name}-"
    for leftover in folder.parent.glob(f"{glob.escape(prefix)}*"):
        shutil.rmtree(leftover, ignore_errors=True)  # of a run that was killed
    if folder.is_dir() and any(folder.iterdir()):
        if not missing(folder):
            return  # another process has unpacked the same archive
        raise WeightsError(f"{folder}: contains an incomplete RadGraph archive; remove the folder and try again")
    partial = Path(tempfile.mkdtemp(prefix=prefix, dir=folder.parent))
    try:
        with limited_memory(_MEMORY), tarfile.open(packed, "r:gz") as tar:
            _extract(tar, packed, partial)
        partial.replace(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _extract(tar: tarfile.TarFile, packed: Path, partial: Path) -> None:
    total = 0
    for number, member in enumerate(tar, start=1):
        name = PurePosixPath(member.name)
        if name.is_absolute() or ".." in name.parts or not (member.isfile() or member.isdir()):
            raise WeightsError(f"{packed}: not safe to unpack: entry {number} is a link, a device or outside of it")
        total += member.size
        if total > _MOST_BYTES or number > _MOST_MEMBERS:
            raise WeightsError(f"{packed}: too large for a RadGraph archive (entry {number}, {total} bytes)")
        if member.isdir():
            continue
        source = tar.extractfile(member)
        if source is None:
            raise WeightsError(f"{packed}: entry {number} has no content; download it again")
        target = partial.joinpath(*name.parts)
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as sink:
            shutil.copyfileobj(source, sink)
