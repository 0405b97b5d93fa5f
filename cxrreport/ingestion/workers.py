"""A map over worker processes that keeps its order, holds little, and outlives a decoder that crashes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import connection
from typing import Any, TypeVar

from cxrreport.errors import SettingsError

T = TypeVar("T")
R = TypeVar("R")

_AHEAD = 4  # items in flight per worker


def ordered_map(
    function: Callable[[T], R], items: Iterable[T], *, workers: int, when_killed: Callable[[T], R]
) -> Iterator[R]:
    """Yield `function(item)` for every item, in their order.

    With one worker everything happens in this process. With more, each is a process of its own, started by `spawn`
    (a fork would copy the threads and locks of torch and MLflow in a state that nobody knows).

    Args:
        function: of a module, so that workers can import it; its arguments and results are pickled.
        items: taken as they are needed; a few per worker are in flight.
        workers: number of processes.
        when_killed: gives the result for an item whose worker died, for example in a decoder written in C.

    Raises:
        SettingsError: no worker process can be started.
    """
    if workers == 1:
        yield from map(function, items)
        return
    remaining = iter(items)
    taken: deque[T] = deque()
    futures: deque[Future[R]] = deque()
    pool = _pool(workers)
    try:
        while True:
            try:
                for item in islice(remaining, workers * _AHEAD - len(taken)):
                    taken.append(item)
                    futures.append(pool.submit(function, item))
                if not taken:
                    pool.shutdown()  # otherwise the interpreter may complain of closed pipes at its end
                    return
                result = futures[0].result()
            except BrokenProcessPool:
                # Whose fault it was is not known: what was in flight is done again, one by one.
                pool.shutdown(wait=False, cancel_futures=True)
                yield from _one_by_one(function, list(taken), when_killed)
                taken.clear()
                futures.clear()
                pool = _pool(workers)
            else:
                taken.popleft()
                futures.popleft()
                yield result
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def in_own_process(function: Callable[..., R], *arguments: Any) -> R:
    """Call a function of a module in a new process.

    Raises:
        BrokenProcessPool: the process died.
    """
    pool = _pool(1)
    try:
        return pool.submit(function, *arguments).result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _one_by_one(function: Callable[[T], R], items: list[T], when_killed: Callable[[T], R]) -> Iterator[R]:
    pool = _pool(1)
    try:
        for item in items:
            try:
                yield pool.submit(function, item).result()
            except BrokenProcessPool:
                pool.shutdown(wait=False, cancel_futures=True)
                pool = _pool(1)
                yield when_killed(item)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _pool(workers: int) -> ProcessPoolExecutor:
    pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"), initializer=_start)
    try:
        pool.submit(os.getpid).result()
    except BrokenProcessPool:
        # Without this, every item of the input would be taken for one that kills its worker.
        raise SettingsError(
            "workers: worker processes cannot be started; a script that calls this needs the line "
            "'if __name__ == \"__main__\":' around its work, or workers: 1"
        ) from None
    return pool


def _start() -> None:
    """Ctrl-C is for the parent, and a parent that is killed takes its workers with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)
