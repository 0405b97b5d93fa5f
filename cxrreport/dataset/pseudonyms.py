"""Pseudonyms: keyed hashes that replace ids and the names of files and folders.

A pseudonym is the HMAC-SHA256 (RFC 2104) of the kind of the id and the id, with a key that comes from a file that the
user keeps (`pseudonym_key`). The same file gives the same pseudonyms in every run and data set; without it a guess
cannot be tested. With the file and the original id, a row can be found again (`cxrreport.dataset.Pseudonyms`); no table
of pairs is written.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Self

from cxrreport.dataset.pseudonym_key import CURRENT, read_key
from cxrreport.errors import InputError
from cxrreport.storage.output_folder import read_state

_DIGITS = 32  # 128 bits: the probability of a collision among 10^12 ids is 10^-15
_PATH_DIGITS = 12
_SUFFIXES = frozenset({".dcm", ".png", ".jpg", ".jpeg", ".csv", ".parquet", ".txt", ".xml", ".gz"})


@dataclass(frozen=True, slots=True, repr=False)
class Pseudonyms:
    """Pseudonyms for one key; created with `from_file`."""

    key: bytes
    check: str = ""
    """Tells keys and versions apart. It is recorded in output folders, and stays on the machine."""

    @classmethod
    def from_file(cls, path: Path, version: int = CURRENT) -> Self:
        """Read a key file.

        Raises:
            SettingsError: as `pseudonym_key.read_key`.
        """
        return cls(*read_key(path, version))

    def __repr__(self) -> str:
        return "Pseudonyms(...)"

    def of(self, kind: str, value: str) -> str:
        """Return the pseudonym of an id, 32 hexadecimal digits; that of an empty id is empty.

        Args:
            kind: `patient`, `study` or `image`; the same value has another pseudonym for each kind.
            value: the id.
        """
        return self._digest(kind, value)[:_DIGITS] if value else ""

    def path(self, path: str) -> str:
        """Return a relative path with every part hashed separately; the suffix of a known file type is kept."""
        parts = PurePosixPath(path).parts
        if not parts:
            return path
        suffix = PurePosixPath(path).suffix.lower()
        hashed = [self._digest("path", part)[:_PATH_DIGITS] for part in parts]
        return "/".join(hashed) + (suffix if suffix in _SUFFIXES else "")

    def _digest(self, kind: str, value: str) -> str:
        return hmac.new(self.key, f"{kind}\0{value}".encode(errors="surrogatepass"), hashlib.sha256).hexdigest()


HIDDEN_INPUT = dict.fromkeys(("input", "reports", "pseudonymize"), "hidden")
"""What MLflow stores as the settings of `recorded_input`."""

_ACTIVE: ContextVar[Pseudonyms | None] = ContextVar("pseudonyms", default=None)


@contextmanager
def hide_identifiers(pseudonyms: Pseudonyms | None) -> Iterator[None]:
    """Let `id_for_message` and `path_for_message` return pseudonyms within the block."""
    token = _ACTIVE.set(pseudonyms)
    try:
        yield
    finally:
        _ACTIVE.reset(token)


def id_for_message(kind: str, value: str) -> str:
    """Return an id, or its pseudonym within `hide_identifiers`."""
    pseudonyms = _ACTIVE.get()
    return value if pseudonyms is None else pseudonyms.of(kind, value)


def path_for_message(path: str) -> str:
    """Return a path inside the input, or its pseudonym within `hide_identifiers`."""
    pseudonyms = _ACTIVE.get()
    return path if pseudonyms is None else pseudonyms.path(path)


@contextmanager
def hide_input_name(settings: Any) -> Iterator[None]:
    """Replace the path of the input in errors of the block by `input` if the settings ask for pseudonyms.

    Args:
        settings: settings with `input` and `pseudonymize`.
    """
    try:
        yield
    except InputError as error:
        names = [] if settings.pseudonymize is None else [str(settings.input), str(getattr(settings, "reports", None))]
        message = str(error)
        for name in names:
            message = message.replace(name, "input")
        if message == str(error):
            raise
        raise InputError(message) from None


def key_version(settings: Any, folder: Path, command: str) -> int:
    """Return the version of the pseudonyms of an output folder: that of `settings` if it is new.

    Args:
        settings: settings with `pseudonym_version`.
        folder: the output folder.
        command: the command that writes it.

    Raises:
        OutputError: the folder holds a state file that cannot be read.
    """
    record = read_state(folder, command) or {"settings": {}}
    if str(record["settings"].get("pseudonymize")).startswith("key "):
        return 1
    return int(settings.pseudonym_version)


def recorded_input(settings: Any, version: int) -> dict[str, Any]:
    """Return pseudonymised values of the settings that name the input or the key, for state files.

    They depend on the key, so MLflow gets `HIDDEN_INPUT` instead.

    Args:
        settings: settings with `input` and `pseudonymize`.
        version: of the pseudonyms.

    Returns:
        New values by field name; empty without pseudonymisation.
    """
    if settings.pseudonymize is None:
        return {}
    pseudonyms = Pseudonyms.from_file(settings.pseudonymize, version)
    hidden: dict[str, Any] = {"input": pseudonyms.path(settings.input.resolve().as_posix())}
    if getattr(settings, "reports", None) is not None:
        hidden["reports"] = pseudonyms.path(settings.reports.resolve().as_posix())
    return hidden | {"pseudonymize": pseudonyms.check}
