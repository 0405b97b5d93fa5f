"""The key of pseudonyms: read from a file, refused if it can be guessed, and stretched by a slow function.

Version 2 stretches the key with scrypt (RFC 7914), so that a guess costs 64 MiB of memory and a good part of a second.
The check value, by which a resumed command recognises the key, comes from other bytes of scrypt's output than the key
of the hashes. Version 1, of data sets made before 0.2, is HMAC with the content of the file itself.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import math
import re
from collections import Counter
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from cxrreport.errors import SettingsError

SHORTEST_KEY = 16
"""Length in bytes."""
CURRENT = 2
"""Version of new pseudonyms."""
_SALT = b"cxrreport pseudonyms, version 2"  # the same everywhere: one key gives the same pseudonyms in all data sets
_COST, _BLOCK, _MEMORY = 2**16, 8, 128 << 20
_CREATE = "create one with: head -c 32 /dev/urandom | base64 > KEYFILE"
_HEX = re.compile(rb"[0-9a-fA-F]+")
_LEAST = 0.75
"""Distinct values that a key needs, as a part of those that random bytes have on average."""


class Key(NamedTuple):
    """Key of the hashes, and a text that tells keys apart."""

    secret: bytes
    check: str


def read_key(path: Path, version: int = CURRENT) -> Key:
    """Read a key file: random bytes, or random bytes in hexadecimal or Base64.

    Args:
        path: the file.
        version: of the pseudonyms.

    Raises:
        SettingsError: the file cannot be read, is too short, or (version 2) is not random.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SettingsError(f"pseudonymize: the key file {path} cannot be read ({error.strerror})") from error
    if len(content.strip()) < SHORTEST_KEY:
        raise SettingsError(
            f"pseudonymize: the key file {path} holds {len(content.strip())} bytes, but {SHORTEST_KEY} are needed; "
            f"{_CREATE}"
        )
    if version == 1:
        key = content.strip()
        return Key(key, "key " + hmac.new(key, b"key\0check", hashlib.sha256).hexdigest()[:8])
    if not _is_random(_decoded(content)):
        raise SettingsError(
            f"pseudonymize: the key file {path} can be guessed: it is a passphrase, a pattern, or too short; the key "
            f"must be at least {SHORTEST_KEY} random bytes; {_CREATE}"
        )
    return _stretched(content.strip())


@lru_cache(maxsize=4)  # a command reads its key several times
def _stretched(content: bytes) -> Key:
    both = hashlib.scrypt(content, salt=_SALT, n=_COST, r=_BLOCK, p=1, maxmem=_MEMORY, dklen=64)
    return Key(both[:32], f"version {CURRENT}, check {both[32:40].hex()}")


def _decoded(content: bytes) -> bytes:
    """The bytes behind hexadecimal or Base64 digits, or bytes that are no text; empty for any other text."""
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return b"" if _is_text(content) else content
    digits = b"".join(content.split())
    if _HEX.fullmatch(plain := digits.replace(b"-", b"")):  # a UUID has hyphens
        return bytes.fromhex(plain.decode()[: len(plain) // 2 * 2]) if _changes_class(plain, 0.47) else b""
    digits = digits.rstrip(b"=").translate(bytes.maketrans(b"-_", b"+/"))
    try:
        decoded = base64.b64decode(digits + b"=" * (-len(digits) % 4), validate=True)
    except binascii.Error:
        return b""
    return decoded if _changes_class(digits, 0.645) else b""


def _is_text(data: bytes) -> bool:
    """True for letters in any encoding: most are ASCII, or have the same three upper bits.

    Of 10,000 random keys of 16 bytes, about 7 are refused by chance.
    """
    printable = sum(0x20 <= byte < 0x7F for byte in data)
    _, same = Counter(byte >> 5 for byte in data).most_common(1)[0]
    return printable > 0.75 * len(data) or same > 0.5 * len(data)


def _changes_class(digits: bytes, expected: float) -> bool:
    """True if digits, capital and small letters alternate as often as in random text, which words do not.

    One random text in 100 is refused by chance.

    Args:
        digits: the text.
        expected: share of neighbours of different classes in random text.
    """
    classes = [0 if digit in b"0123456789" else 1 if bytes((digit,)).isupper() else 2 for digit in digits]
    changes, pairs = sum(one != other for one, other in pairwise(classes)), len(classes) - 1
    return abs(changes - expected * pairs) < 3.1 * math.sqrt(expected * (1 - expected) * pairs)


def _is_random(data: bytes) -> bool:
    """False for fewer than 16 bytes, for repetitions and for sequences."""
    steps = bytes((second - first) % 256 for first, second in pairwise(data))
    return len(data) >= SHORTEST_KEY and all(
        len(set(values)) >= _LEAST * 256 * (1 - (255 / 256) ** len(values)) for values in (data, steps)
    )
