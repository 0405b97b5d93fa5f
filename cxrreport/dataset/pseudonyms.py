"""Keyed hashes in the place of ids and of names of files and folders.

HMAC-SHA256 (RFC 2104) of the kind of the id and the id itself, under a key that the user keeps. The same key gives the
same pseudonyms, in every run and for every data set; without it nobody can test a guess. Whoever has the key and the
original can find a row again (`cxrreport.dataset.pseudonyms.Pseudonyms`), and no table of pairs is ever written.
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
"""Bytes."""
_DIGITS = 32  # 128 bits: no two of 10^12 ids share theirs but with a chance of 10^-15
_PATH_DIGITS = 12
_SUFFIXES = frozenset({".dcm", ".png", ".jpg", ".jpeg", ".csv", ".parquet", ".txt", ".xml", ".gz"})


@dataclass(frozen=True, slots=True, repr=False)
class Pseudonyms:
    """Pseudonyms under one key; made with `from_file`."""

    key: bytes

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Read the key: all bytes of the file, but for white space around them.

        Raises:
            SettingsError: the file cannot be read, or is too short to be a secret.
        """
        try:
            key = path.read_bytes().strip()
        except OSError as error:
            raise SettingsError(f"pseudonymize: the key file {path} cannot be read ({error.strerror})") from error
        if len(key) < SHORTEST_KEY:
            raise SettingsError(
                f"pseudonymize: the key file {path} holds {len(key)} bytes, and {SHORTEST_KEY} are needed; make one "
                "with: head -c 32 /dev/urandom | base64 > KEYFILE"
            )
        return cls(key)

    def __repr__(self) -> str:
        return "Pseudonyms(...)"

    def of(self, kind: str, value: str) -> str:
        """The pseudonym of an id, 32 hexadecimal digits; an empty id stays empty.

        Args:
            kind: `patient`, `study` or `image`: one number used for two of them gives two pseudonyms.
            value: the id.
        """
        return self._digest(kind, value)[:_DIGITS] if value else ""

    def path(self, path: str) -> str:
        """A relative path, every part hashed alone, a suffix that names a kind of file kept."""
        parts = PurePosixPath(path).parts
        if not parts:
            return path
        suffix = PurePosixPath(path).suffix.lower()
        hashed = [self._digest("path", part)[:_PATH_DIGITS] for part in parts]
        return "/".join(hashed) + (suffix if suffix in _SUFFIXES else "")

    @property
    def check(self) -> str:
        """Tells one key from another, and nothing more."""
        return self._digest("key", "check")[:8]

    def _digest(self, kind: str, value: str) -> str:
        return hmac.new(self.key, f"{kind}\0{value}".encode(errors="surrogatepass"), hashlib.sha256).hexdigest()


_ACTIVE: ContextVar[Pseudonyms | None] = ContextVar("pseudonyms", default=None)


@contextmanager
def hide_identifiers(pseudonyms: Pseudonyms | None) -> Iterator[None]:
    """Within the block, `id_for_message` and `path_for_message` hide what errors would name."""
    token = _ACTIVE.set(pseudonyms)
    try:
        yield
    finally:
        _ACTIVE.reset(token)


def id_for_message(kind: str, value: str) -> str:
    """An id as a message may show it."""
    pseudonyms = _ACTIVE.get()
    return value if pseudonyms is None else pseudonyms.of(kind, value)


def path_for_message(path: str) -> str:
    """A path inside the input as a message may show it."""
    pseudonyms = _ACTIVE.get()
    return path if pseudonyms is None else pseudonyms.path(path)


@contextmanager
def hide_input_name(settings: Any) -> Iterator[None]:
    """Within the block, errors that name the input itself say `input` instead, where names are to be hidden.

    Args:
        settings: of a verb with `input` and `pseudonymize`.
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
    """The fields of settings that name the input or the key, as a state file and MLflow may show them.

    Args:
        settings: of a verb with `input` and `pseudonymize`.

    Returns:
        Replacements for fields of those names; none where nothing is pseudonymised.
    """
    if settings.pseudonymize is None:
        return {}
    pseudonyms = Pseudonyms.from_file(settings.pseudonymize)
    hidden: dict[str, Any] = {"input": pseudonyms.path(settings.input.resolve().as_posix())}
    if getattr(settings, "reports", None) is not None:
        hidden["reports"] = pseudonyms.path(settings.reports.resolve().as_posix())
    return hidden | {"pseudonymize": f"key {pseudonyms.check}"}
