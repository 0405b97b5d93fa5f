"""Texts in one block of memory, which forked processes share: a Python string for each would be copied by every one."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from typing import overload


class PackedTexts(Sequence[str]):
    """Texts as UTF-8 in one buffer, with eight bytes more for each."""

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._bytes = bytearray()
        self._ends = array("q", [0])
        for text in texts:
            self.append(text)

    def append(self, text: str) -> None:
        """Add a text at the end."""
        self._bytes += text.encode(errors="surrogatepass")
        self._ends.append(len(self._bytes))

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, place: int) -> str: ...

    @overload
    def __getitem__(self, place: slice) -> list[str]: ...

    def __getitem__(self, place: int | slice) -> str | list[str]:
        if isinstance(place, slice):
            return [self[one] for one in range(*place.indices(len(self)))]
        place = range(len(self))[place]
        return self._bytes[self._ends[place] : self._ends[place + 1]].decode(errors="surrogatepass")
