"""The files of a checkpoint: where they are, their hash, their configuration and their tokenizer."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from transformers import PaliGemmaConfig, PreTrainedTokenizerFast

from cxrreport import assets
from cxrreport.errors import MismatchError, WeightsError
from cxrreport.model.catalogue import CHECKPOINTS
from cxrreport.settings import CheckpointSettings, weights_folder
from cxrreport.storage.decoding import parse_json

WHOLE_FILE_BYTES = 256 * 2**20
"""Weight files up to this size enter the fingerprint whole, larger ones by header, size and samples."""

FILES = ("*.json", "*.safetensors")  # neither *.bin nor *.pth: both are pickles

PAD, EOS, BOS, IMAGE, FIRST_SPECIAL = "<pad>", "<eos>", "<bos>", "<image>", "<loc0000>"
"""Tokens that the prompt layout needs. No id from the first location token upwards belongs in a report."""


def locate(settings: CheckpointSettings, *, files: Sequence[str] = FILES) -> Path:
    """Find the folder of a checkpoint, in the hub's cache or on the hub if necessary.

    A local folder is never looked up anywhere else.

    Args:
        settings: name and revision.
        files: patterns of the files to fetch from the hub.

    Raises:
        WeightsError: there is no such checkpoint, or it cannot be fetched; the message says what to do.
    """
    name = settings.name
    entry = CHECKPOINTS.get(name)
    if entry is not None and entry.synthetic:
        folder = assets.checkpoint_folder(entry.source)
        if not folder.is_dir():
            raise WeightsError(f"checkpoint '{name}': its folder {folder} is not part of this installation")
        return folder
    if entry is not None and (weights := weights_folder()) is not None:
        if (weights / name / "config.json").is_file():
            return weights / name
        raise WeightsError(
            f"checkpoint '{name}': not in {weights}; fetch it with `cxrreport weights {name} --weights {weights}`, or "
            "omit --weights and CXRREPORT_WEIGHTS to search the hub's cache"
        )
    if entry is not None:
        return download(entry.source, settings.revision, files=files)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists():
        raise WeightsError(f"checkpoint '{name}': a file; give the folder that holds config.json and *.safetensors")
    if re.fullmatch(r"[\w.-]+/[\w.-]+", name) and not name.startswith("."):
        return download(name, settings.revision, files=files)
    raise WeightsError(
        f"checkpoint '{name}': neither a folder, nor a hub id (owner/name), nor one of {', '.join(sorted(CHECKPOINTS))}"
    )


def download(
    repository: str,
    revision: str | None,
    *,
    files: Sequence[str] = FILES,
    folder: Path | None = None,
) -> Path:
    """Fetch files of a hub repository, unless they are here already.

    Args:
        repository: hub id.
        revision: commit, tag or branch; `None` for the newest.
        files: patterns of the files to fetch.
        folder: where to put them; `None` for the hub's cache.

    Returns:
        The folder that holds the files.

    Raises:
        WeightsError: no access, no such repository or revision, or no connection; the message says what to do.
    """
    where = f"checkpoint '{repository}'" + (f" at revision '{revision}'" if revision else "")
    page = f"https://huggingface.co/{repository}"
    local = (
        "or set checkpoint.name to a local folder that holds its config.json, tokenizer.json and *.safetensors "
        f"(on a machine with access: hf download {repository} --local-dir FOLDER)"
    )
    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=list(files), local_dir=folder))
    except GatedRepoError as error:
        raise WeightsError(
            f"{where}: gated, and this machine has no access. Accept the licence at {page}, then log in with "
            f"'hf auth login' or set HF_TOKEN to a token of that account; {local}"
        ) from error
    except RevisionNotFoundError as error:
        raise WeightsError(f"{where}: the repository has no such revision; see {page}/commits") from error
    except RepositoryNotFoundError as error:
        raise WeightsError(
            f"{where}: the hub has no such repository, or not for this account. Check the name; if it is gated, accept "
            f"the licence at {page} and log in with 'hf auth login' or set HF_TOKEN; {local}"
        ) from error
    except HFValidationError as error:
        raise WeightsError(f"{where}: not a valid hub id (owner/name); {local}") from error
    except (HfHubHTTPError, OSError) as error:
        # Includes LocalEntryNotFoundError: no connection or offline mode, and not in the cache.
        raise WeightsError(
            f"{where}: not in the hub's cache on this machine, and the hub cannot be reached ({type(error).__name__}). "
            f"With a connection: unset HF_HUB_OFFLINE, accept the licence at {page}, log in with 'hf auth "
            f"login' or set HF_TOKEN; {local}"
        ) from error


def fingerprint(folder: Path) -> str:
    """Hash the weight files of a checkpoint or an adapter (sha256), in the order of their names.

    A file up to `WHOLE_FILE_BYTES` is read whole. Of a larger one, size, header (names, shapes, offsets) and 64 evenly
    spaced samples of 1 MiB are read: 55 GB would take minutes at every start, and two checkpoints of one architecture
    differ in every tensor. The hash identifies checkpoints; it does not protect against forgery.

    Raises:
        WeightsError: a file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        for path in sorted(folder.glob("*.safetensors")):
            size = path.stat().st_size
            digest.update(f"{path.name}\0{size}\0".encode())
            with path.open("rb") as file:
                if size <= WHOLE_FILE_BYTES:
                    while block := file.read(2**22):
                        digest.update(block)
                    continue
                header = int.from_bytes(file.read(8), "little")
                digest.update(file.read(min(header, size - 8)))
                for sample in range(64):
                    file.seek((size - 2**20) * sample // 63)
                    digest.update(file.read(2**20))
    except OSError as error:
        raise WeightsError(f"{folder}: cannot read the weights ({error.strerror})") from error
    return digest.hexdigest()


def read_config(folder: Path, name: str) -> Any:
    """Read the `PaliGemmaConfig` of a checkpoint.

    Args:
        folder: of the checkpoint.
        name: as in the settings, for messages.

    Raises:
        WeightsError: config.json is missing, damaged or unusable.
        MismatchError: it describes another architecture than PaliGemma 2.
    """
    path = folder / "config.json"
    try:
        values: Any = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path}: missing or not JSON; give a folder as save_pretrained writes it") from error
    kind = values.get("model_type") if isinstance(values, dict) else None
    text = values.get("text_config", {}).get("model_type") if kind == "paligemma" else None
    if kind != "paligemma" or text != "gemma2":
        raise MismatchError(
            f"checkpoint '{name}': {path} describes {kind!r} with language model {text!r}; "
            "give a PaliGemma 2, that is 'paligemma' with 'gemma2'"
        )
    try:
        return PaliGemmaConfig.from_dict(values)
    except (ValueError, TypeError) as error:
        raise WeightsError(f"{path}: not a usable configuration ({' '.join(str(error).split())})") from error


def load_tokenizer(folder: Path) -> Any:
    """Load the tokenizer of a checkpoint from its tokenizer.json.

    Not through `AutoTokenizer`: the class that tokenizer_config.json names may add BOS or EOS, while the prompt layout
    sets every special token itself.

    Raises:
        WeightsError: the file is missing or damaged.
        MismatchError: it lacks a token that the layout needs.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise WeightsError(f"{path}: missing; fetch it from the checkpoint's page")
    from_file: Any = PreTrainedTokenizerFast
    try:
        tokenizer = from_file(
            tokenizer_file=str(path),
            pad_token=PAD,
            eos_token=EOS,
            bos_token=BOS,
            clean_up_tokenization_spaces=False,
        )
    except Exception as error:  # the tokenizers package raises plain Exception
        raise WeightsError(f"{path}: damaged ({' '.join(str(error).split())[:200]})") from error
    for token in (PAD, EOS, BOS, IMAGE, FIRST_SPECIAL):
        # One by one: the vocabulary as a dict would keep 35 MB in memory.
        if tokenizer.backend_tokenizer.token_to_id(token) is None:
            raise MismatchError(f"{path}: not a PaliGemma tokenizer, it has no {token}")
    return tokenizer
