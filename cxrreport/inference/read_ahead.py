"""Items of an iterator, read ahead of their use in a thread."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable
from typing import Generic, Self, TypeVar

T = TypeVar("T")


class ReadAhead(Generic[T]):
    """Takes the items of an iterator in a thread within the block; at most one waits while the next one is being made.

    Leaving the block does not wait for an item that is still being made.

    Args:
        items: what to read.
    """

    def __init__(self, items: Iterable[T]) -> None:
        self._items = items
        self._ready: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(maxsize=1)
        self._stop = threading.Event()
        self._ended: tuple[T | None, BaseException | None] | None = None
        self._thread = threading.Thread(target=self._work, name="read-ahead", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()

    def take(self, wait: bool) -> T | None:
        """The next item, in order. `None` at the end; without `wait`, also if no item is ready.

        Raises:
            BaseException: whatever the iterator raised.
        """
        if self._ended is None:
            try:
                item, error = self._ready.get(block=wait)
            except queue.Empty:
                return None
            if item is not None:
                return item
            self._ended = (None, error)
        if self._ended[1] is not None:
            raise self._ended[1]
        return None

    def _work(self) -> None:
        error: BaseException | None = None
        try:
            for item in self._items:
                if not self._hand_over((item, None)):
                    return
        except BaseException as found:  # raised again where the items are used
            error = found
        self._hand_over((None, error))

    def _hand_over(self, item: tuple[T | None, BaseException | None]) -> bool:
        while not self._stop.is_set():
            try:
                self._ready.put(item, timeout=0.2)
            except queue.Full:
                continue
            return True
        return False
