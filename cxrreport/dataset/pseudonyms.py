"""Pseudonyms: keyed hashes that replace ids and the names of files and folders.

A pseudonym is the HMAC-SHA256 (RFC 2104) of the kind of the id and the id, with a key that the user keeps. The same key
gives the same pseudonyms in every run and data set; without it a guess cannot be tested. With the key and the original
id, a row can be found again (`cxrreport.dataset.Pseudonyms`); no table of pairs is written.
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

from cxrreport.errors import InputError, SettingsError

SHORTEST_KEY = 16
"""Length in bytes."""
_DIGITS = 32  # 128 bits: the probability of a collision among 10^12 ids is 10^-15
_PATH_DIGITS = 12
_SUFFIXES = frozenset({".dcm", ".png", ".jpg", ".jpeg", ".csv", ".parquet", ".txt", ".xml", ".gz"})


@dataclass(frozen=True, slots=True, repr=False)
class Pseudonyms:
    """Pseudonyms for one key; created with `from_file`."""

    key: bytes

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Read the key: all bytes of the file without surrounding white space.

        Raises:
            SettingsError: the file cannot be read, or is too short for a key.
        """
        try:
            key = path.read_bytes().strip()
        except OSError as error:
            raise SettingsError(f"pseudonymize: the key file {path} cannot be read ({error.strerror})") from error
        if len(key) < SHORTEST_KEY:
            raise SettingsError(
                f"pseudonymize: the key file {path} holds {len(key)} bytes, but {SHORTEST_KEY} are needed; create "
                "one with: head -c 32 /dev/urandom | base64 > KEYFILE"
            )
        return cls(key)

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

    @property
    def check(self) -> str:
        """Short hash that identifies the key without revealing it."""
        return self._digest("key", "check")[:8]

    def _digest(self, kind: str, value: str) -> str:
        return hmac.new(self.key, f"{kind}\0{value}".encode(errors="surrogatepass"), hashlib.sha256).hexdigest()


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


def recorded_input(settings: Any) -> dict[str, Any]:
    """Return pseudonymised values of the settings that name the input or the key, for state files and MLflow.

    Args:
        settings: settings with `input` and `pseudonymize`.

    Returns:
        New values by field name; empty without pseudonymisation.
    """
    if settings.pseudonymize is None:
        return {}
    pseudonyms = Pseudonyms.from_file(settings.pseudonymize)
    hidden: dict[str, Any] = {"input": pseudonyms.path(settings.input.resolve().as_posix())}
    if getattr(settings, "reports", None) is not None:
        hidden["reports"] = pseudonyms.path(settings.reports.resolve().as_posix())
    return hidden | {"pseudonymize": f"key {pseudonyms.check}"}
