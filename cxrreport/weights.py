"""Weights that others publish: fetched once, hashed, and found again without a network.

Below one folder, DIR, lie the base checkpoints (`paligemma2-3b-pt-896/`), RadGraph's models (`radgraph-xl/`) and
CheXbert (`chexbert/`), each as the room that loads it wants it, and `weights.json` with the SHA-256 of every file. With
`cxrreport --weights DIR`, or the environment variable `CXRREPORT_WEIGHTS`, nothing is asked from the hub any more.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cxrreport.errors import SettingsError, WeightsError
from cxrreport.evaluation.metrics import chexbert
from cxrreport.evaluation.radgraph import archives
from cxrreport.model import checkpoints
from cxrreport.model.catalogue import CHECKPOINTS
from cxrreport.records import Progress
from cxrreport.storage.atomic_files import write_json

INVENTORY = "weights.json"
BASE, RADGRAPH, CHEXBERT = "base", "RadGraph", "CheXbert"
USUAL = {BASE: "paligemma2-3b-pt-896", RADGRAPH: "radgraph-xl", CHEXBERT: "chexbert"}
"""For each purpose, the name that the configurations of this project use."""
_CHECKPOINT = ("*.json", "*.safetensors")
_TOKENIZER = ("config.json", "tokenizer*", "vocab*", "special_tokens_map.json", "added_tokens.json", "merges.txt")
_NAMED_BY_ARCHIVE = "ENCODER"
"""In the place of a repository: the encoder that the archive's config.json names, known once that is unpacked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Files of one repository on the hub, and the folder below DIR that they go into."""

    repository: str
    files: tuple[str, ...]
    folder: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """What one name stands for."""

    name: str
    purpose: str
    parts: tuple[Part, ...]
    gated: bool = False
    """Its licence has to be accepted on its page, and a token of that account is needed."""


def _catalogue() -> dict[str, Weights]:
    found = [
        Weights(
            name=name,
            purpose=BASE,
            parts=(Part(repository=entry.source, files=_CHECKPOINT, folder=name),),
            gated=True,
        )
        for name, entry in CHECKPOINTS.items()
        if not entry.synthetic
    ]
    for model in archives.MODELS:
        found.append(
            Weights(
                name=model,
                purpose=RADGRAPH,
                parts=(
                    Part(repository=archives.REPOSITORY, files=(f"{model}.tar.gz",), folder="."),
                    Part(repository=_NAMED_BY_ARCHIVE, files=_TOKENIZER, folder=f"{model}/encoder"),
                ),
            )
        )
    found.append(
        Weights(
            name="chexbert",
            purpose=CHEXBERT,
            parts=(
                Part(repository=archives.REPOSITORY, files=(chexbert.WEIGHTS,), folder="chexbert"),
                Part(repository=chexbert.ENCODER, files=(chexbert.WORDS,), folder="chexbert"),
            ),
        )
    )
    return {one.name: one for one in found}


CATALOGUE: Mapping[str, Weights] = _catalogue()
"""Everything that can be fetched, by the name that settings use."""


def chosen(names: Sequence[str]) -> list[Weights]:
    """The entries of these names.

    Raises:
        SettingsError: a name is not known.
    """
    if unknown := [name for name in names if name not in CATALOGUE]:
        raise SettingsError(f"weights: {', '.join(unknown)}: not known; known are {', '.join(CATALOGUE)}")
    return [CATALOGUE[name] for name in names]


def fetch(names: Sequence[str], root: Path, *, progress: Progress) -> dict[str, dict[str, str]]:
    """Fetch what is not there yet, and write down the hashes of all files.

    The token is that of `hf auth login` or `HF_TOKEN`. What is there is not fetched again, so the folder may also be
    filled by hand (`commands`) and only hashed here.

    Args:
        names: of `CATALOGUE`.
        root: the folder; made when missing.
        progress: told which of the names is at hand.

    Returns:
        name to file (relative to `root`) to SHA-256.

    Raises:
        SettingsError: a name is not known.
        WeightsError: the hub cannot be reached or gives no access, or what it gives is damaged.
    """
    wanted, inventory = chosen(names), read_inventory(root)
    for done, one in enumerate(wanted):
        progress(done, len(wanted), "weights")
        if not present(one.name, root):
            for part in one.parts:
                _fetch(one, part, root)
            shutil.rmtree(root / one.name / ".cache", ignore_errors=True)  # the hub's notes on its downloads
        inventory[one.name] = {
            path.relative_to(root).as_posix(): _sha256(path) for path in sorted(_files(root / one.name))
        }
        if not inventory[one.name]:
            raise WeightsError(f"{root / one.name}: nothing came from {one.parts[0].repository}; see its page")
        write_json(root / INVENTORY, inventory)
    progress(len(wanted), len(wanted), "weights")
    return {one.name: inventory[one.name] for one in wanted}


def _fetch(one: Weights, part: Part, root: Path) -> None:
    repository, packed = part.repository, root / f"{one.name}.tar.gz"
    if part.folder == "." and not archives.missing(root / one.name):
        return
    if repository == _NAMED_BY_ARCHIVE:
        repository = archives.read(root / one.name).encoder
    checkpoints.download(repository, None, files=part.files, folder=root / part.folder)
    if part.folder == ".":  # RadGraph's archive: what is kept is its content
        archives.locate(one.name, root)
        packed.unlink()


def present(name: str, root: Path) -> bool:
    """True where the weights of a name lie below `root`, complete as far as their files tell."""
    folder = root / name
    if name in archives.MODELS:
        return not archives.missing(folder) and (folder / "encoder" / "config.json").is_file()
    if name == "chexbert":
        return (folder / chexbert.WEIGHTS).is_file() and (folder / chexbert.WORDS).is_file()
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))
    shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    return all((folder / shard).is_file() for shard in shards)


def in_cache(name: str) -> bool:
    """True where the hub's cache of this machine holds a checkpoint."""
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(CATALOGUE[name].parts[0].repository, "config.json"), str)


def check(root: Path) -> list[str]:
    """Files of the inventory that are gone or have another hash than when they were fetched.

    Raises:
        WeightsError: there is no inventory.
    """
    inventory = read_inventory(root)
    if not inventory:
        raise WeightsError(f"{root}: no {INVENTORY}; fetch weights with `cxrreport weights NAME --weights {root}`")
    return [
        file
        for files in inventory.values()
        for file, digest in files.items()
        if not (root / file).is_file() or _sha256(root / file) != digest
    ]


def read_inventory(root: Path) -> dict[str, dict[str, str]]:
    """Name to file to SHA-256, as `fetch` wrote it down; empty where nothing was fetched.

    Raises:
        WeightsError: it cannot be read.
    """
    path = root / INVENTORY
    try:
        found: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path}: cannot be read as JSON; remove it, and fetch again: files stay") from error
    return {str(name): dict(files) for name, files in found.items()}


def commands(one: Weights, root: Path) -> list[str]:
    """The commands that fetch the same on another machine, to be carried to an air-gapped one.

    `ENCODER` in them is the `model_name` of the embedder in the config.json of the archive that comes before.
    """
    return [
        f"hf download {part.repository} --local-dir {root / part.folder} "
        + " ".join(f"--include '{pattern}'" for pattern in part.files)
        for part in one.parts
    ]


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and ".cache" not in path.parts]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
