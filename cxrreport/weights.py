"""Published weights: downloaded once, hashed, and used offline.

The folder DIR holds base checkpoints (`paligemma2-3b-pt-896/`), RadGraph models (`radgraph-xl/`), CheXbert
(`chexbert/`), the encoders of BERTScore and RaTEScore, and `weights.json` with the SHA-256 of every file. With
`cxrreport --weights DIR`, or the environment variable `CXRREPORT_WEIGHTS`, the hub is not contacted.
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cxrreport.errors import SettingsError, WeightsError
from cxrreport.evaluation.metrics import bertscore, chexbert, encoder, ratescore
from cxrreport.evaluation.radgraph import archives
from cxrreport.model import checkpoints
from cxrreport.model.catalogue import CHECKPOINTS
from cxrreport.records import Progress
from cxrreport.storage.atomic_files import file_sha256, write_json
from cxrreport.storage.decoding import parse_json

INVENTORY = "weights.json"
BASE, RADGRAPH, CHEXBERT = "base", "RadGraph", "CheXbert"
BERTSCORE, RADEVAL, RATESCORE = "BERTScore and RadCliQ", "BERTScore of RadEval", "RaTEScore"
DEFAULTS = {BASE: "paligemma2-3b-pt-896", RADGRAPH: "radgraph-xl", CHEXBERT: "chexbert"}
"""For each purpose, the weights that the configurations of this project use."""
_CHECKPOINT = ("*.json", "*.safetensors")
_TOKENIZER = ("config.json", "tokenizer*", "vocab*", "special_tokens_map.json", "added_tokens.json", "merges.txt")
_NAMED_BY_ARCHIVE = "ENCODER"
"""Placeholder for the repository of the encoder, which `config.json` in the RadGraph archive names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Download:
    """Files of one repository on the hub, and the folder below DIR for them."""

    repository: str
    files: tuple[str, ...]
    folder: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """An entry of the catalogue."""

    name: str
    purpose: str
    parts: tuple[Download, ...]
    gated: bool = False
    """Whether its licence must be accepted on the hub, and a token of that account is needed."""


def _checkpoint(name: str, repository: str) -> Weights:
    part = Download(repository=repository, files=_CHECKPOINT, folder=name)
    return Weights(name=name, purpose=BASE, parts=(part,), gated=True)


def _radgraph(name: str) -> Weights:
    archive = Download(repository=archives.REPOSITORY, files=(f"{name}.tar.gz",), folder=".")
    encoder = Download(repository=_NAMED_BY_ARCHIVE, files=_TOKENIZER, folder=f"{name}/encoder")
    return Weights(name=name, purpose=RADGRAPH, parts=(archive, encoder))


_CHEXBERT = Weights(
    name="chexbert",
    purpose=CHEXBERT,
    parts=tuple(
        Download(repository=source, files=(name,), folder="chexbert") for name, source in chexbert.FILES.items()
    ),
)
_ENCODERS = (
    (BERTSCORE, (bertscore.REXRANK.encoder,)),
    (RADEVAL, (bertscore.RADEVAL.encoder,)),
    (RATESCORE, (ratescore.ENTITIES, ratescore.TERMS)),
)
CATALOGUE: Mapping[str, Weights] = {
    **{name: _checkpoint(name, entry.source) for name, entry in CHECKPOINTS.items() if not entry.synthetic},
    **{name: _radgraph(name) for name in archives.MODELS},
    _CHEXBERT.name: _CHEXBERT,
    **{
        parts[0].entry: Weights(
            name=parts[0].entry,
            purpose=purpose,
            parts=tuple(Download(repository=one.repository, files=one.files, folder=one.folder) for one in parts),
        )
        for purpose, parts in _ENCODERS
    },
}
"""All weights that can be downloaded, by the name in the settings."""


def select(names: Sequence[str]) -> list[Weights]:
    """Return the entries of `CATALOGUE` with these names.

    Raises:
        SettingsError: a name is unknown.
    """
    if unknown := [name for name in names if name not in CATALOGUE]:
        raise SettingsError(f"weights: {', '.join(unknown)}: unknown; choose from {', '.join(CATALOGUE)}")
    return [CATALOGUE[name] for name in names]


def fetch(names: Sequence[str], root: Path, *, progress: Progress) -> dict[str, dict[str, str]]:
    """Download missing weights, and record the hashes of all files.

    The token is that of `hf auth login` or `HF_TOKEN`. Existing weights are not downloaded again, so files that were
    copied by hand (`download_commands`) are only hashed.

    Args:
        names: names in `CATALOGUE`.
        root: the folder; created if necessary.
        progress: called before each of the names.

    Returns:
        For each name, the SHA-256 of its files, keyed by path relative to `root`.

    Raises:
        SettingsError: a name is unknown.
        WeightsError: the hub cannot be reached or refuses access, or a download is damaged.
    """
    wanted, inventory = select(names), read_inventory(root)
    for done, entry in enumerate(wanted):
        progress(done, len(wanted), "weights")
        if not is_complete(entry.name, root):
            for part in entry.parts:
                _fetch(entry, part, root)
            for folder in _folders(entry, root):
                shutil.rmtree(folder / ".cache", ignore_errors=True)  # bookkeeping of the hub client
        inventory[entry.name] = {
            path.relative_to(root).as_posix(): file_sha256(path)
            for folder in _folders(entry, root)
            for path in sorted(_files(folder))
        }
        if not inventory[entry.name]:
            raise WeightsError(f"{root}: {entry.parts[0].repository} contains none of the files")
        write_json(root / INVENTORY, inventory)
    progress(len(wanted), len(wanted), "weights")
    return {entry.name: inventory[entry.name] for entry in wanted}


def _fetch(entry: Weights, part: Download, root: Path) -> None:
    repository, packed = part.repository, root / f"{entry.name}.tar.gz"
    if part.folder == "." and not archives.missing(root / entry.name):
        return
    if repository == _NAMED_BY_ARCHIVE:
        repository = archives.read(root / entry.name).encoder
    checkpoints.download(repository, None, files=part.files, folder=root / part.folder)
    if part.folder == ".":  # an archive, of which only the content is kept
        archives.locate(entry.name, root)
        packed.unlink()


def is_complete(name: str, root: Path) -> bool:
    """Return whether `root` contains all files of these weights."""
    folder = root / name
    if name in archives.MODELS:
        return not archives.missing(folder) and (folder / "encoder" / "config.json").is_file()
    if name == "chexbert":
        return all((folder / file).is_file() for file in chexbert.FILES)
    if CATALOGUE[name].purpose in (BERTSCORE, RADEVAL, RATESCORE):
        return not any(encoder.missing(one) for one in _folders(CATALOGUE[name], root))
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))
    shards = set(parse_json(index.read_text(encoding="utf-8"))["weight_map"].values())
    return all((folder / shard).is_file() for shard in shards)


def is_in_hub_cache(name: str) -> bool:
    """Return whether the local cache of the hub contains a checkpoint."""
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(CATALOGUE[name].parts[0].repository, "config.json"), str)


def find_changed_files(root: Path) -> list[str]:
    """Return the files of the inventory that are missing or whose hash has changed.

    Raises:
        WeightsError: there is no inventory.
    """
    inventory = read_inventory(root)
    if not inventory:
        raise WeightsError(f"{root}: no {INVENTORY}; download weights with `cxrreport weights NAME --weights {root}`")
    return [
        file
        for files in inventory.values()
        for file, digest in files.items()
        if not (root / file).is_file() or file_sha256(root / file) != digest
    ]


def read_inventory(root: Path) -> dict[str, dict[str, str]]:
    """Return what `fetch` recorded: for each name, the SHA-256 of its files; empty if nothing was downloaded.

    Raises:
        WeightsError: the inventory cannot be read.
    """
    path = root / INVENTORY
    try:
        found: Any = parse_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise WeightsError(
            f"{path}: cannot be read as JSON; remove it and run `cxrreport weights` again, which keeps the files"
        ) from error
    return {str(name): dict(files) for name, files in found.items()}


def download_commands(entry: Weights, root: Path) -> list[str]:
    """Return shell commands that download the same files, for an air-gapped machine.

    The archive of a RadGraph model names the repository of its tokenizer, so that command is known once the archive is
    in `root`; until then a comment says so.
    """
    commands = []
    for part in entry.parts:
        repository = part.repository
        if repository == _NAMED_BY_ARCHIVE:
            if not (root / f"{entry.name}.tar.gz").is_file() and archives.missing(root / entry.name):
                commands.append("# then repeat this command: the archive names the tokenizer to download")
                continue
            repository = archives.read(archives.locate(entry.name, root)).encoder
        patterns = " ".join(f"--include {shlex.quote(pattern)}" for pattern in part.files)
        commands.append(f"hf download {repository} --local-dir {shlex.quote(str(root / part.folder))} {patterns}")
    return commands


def _folders(entry: Weights, root: Path) -> list[Path]:
    """The folders of an entry below `root`."""
    if entry.purpose in (BERTSCORE, RADEVAL, RATESCORE):
        return [root / part.folder for part in entry.parts]
    return [root / entry.name]


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and ".cache" not in path.parts]
