"""A map over worker processes that keeps its order, holds little, and outlives a decoder that crashes.

Each worker is a process with a pipe of its own, and a thread here waits for its answers. Workers share no queue and no
lock, so one that dies or is killed, at whatever moment, stops no other, and it is known which item it had. The pools of
the standard library wait at the end for what their workers are doing, and for ever if one dies while it writes.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from itertools import islice
from multiprocessing import connection
from types import TracebackType
from typing import Any, Generic, TypeVar

from cxrreport.errors import SettingsError

T = TypeVar("T")
R = TypeVar("R")

_AHEAD = 4  # items in flight per worker
_SPAWN = multiprocessing.get_context("spawn")


def ordered_map(
    function: Callable[[T], R], items: Iterable[T], *, workers: int, when_killed: Callable[[T], R]
) -> Generator[R]:
    """Yield `function(item)` for every item, in their order.

    With one worker everything happens in this process. With more, each is a process of its own, started by `spawn`
    (a fork would copy the threads and locks of torch and MLflow in a state that nobody knows). Who may stop before the
    end closes the generator (`contextlib.closing`), which kills the workers; the garbage collector may never do so.

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
    calls: deque[tuple[T, Future[R]]] = deque()
    with _Workers(function, workers) as pool:
        while True:
            calls.extend((item, pool.submit(item)) for item in islice(remaining, workers * _AHEAD - len(calls)))
            if not calls:
                return
            item, call = calls.popleft()
            try:
                result = call.result()
            except BrokenProcessPool:
                result = when_killed(item)
            yield result


def in_own_process(function: Callable[..., R], *arguments: Any) -> R:
    """Call a function of a module in a new process.

    Raises:
        BrokenProcessPool: the process died.
    """
    with _Workers(function, 1) as pool:
        return pool.submit(*arguments).result()


class _Workers(Generic[R]):
    """Processes that call one function, started as they are needed; they end with the block."""

    def __init__(self, function: Callable[..., R], count: int) -> None:
        self._function = function
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="worker")
        self._own = threading.local()
        self._lock = threading.Lock()
        self._processes: list[multiprocessing.process.BaseProcess] = []
        self._closed = self._works = False

    def __enter__(self) -> _Workers[R]:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        # What the workers are doing is of no use any more, and may take long: a decoder, a share that does not answer.
        with self._lock:
            self._closed = True
            for process in self._processes:
                process.kill()
        self._threads.shutdown(wait=False, cancel_futures=True)
        for process in self._processes:
            process.join()

    def submit(self, *arguments: Any) -> Future[R]:
        """Call the function; the call raises `BrokenProcessPool` if its process died."""
        return self._threads.submit(self._call, arguments)

    def _call(self, arguments: tuple[Any, ...]) -> R:
        pipe = getattr(self._own, "pipe", None) or self._started()
        try:
            pipe.send(arguments)
            result, error, trace = pipe.recv()
        except (EOFError, OSError):
            self._own.pipe = None
            raise BrokenProcessPool("a worker process died") from None
        if error is not None:
            raise error from RuntimeError(trace)
        answer: R = result
        return answer

    def _started(self) -> connection.Connection:
        for _ in range(2):  # the first may have been killed
            pipe, other = _SPAWN.Pipe()
            with self._lock:  # a worker that starts while the block ends would not be killed
                if self._closed:
                    raise BrokenProcessPool("the workers have ended")
                process = _SPAWN.Process(target=_work, args=(other, self._function), daemon=True)
                process.start()
                self._processes.append(process)
            other.close()  # otherwise the end of the worker would not be seen
            with suppress(EOFError, OSError):
                pipe.recv()
                self._works, self._own.pipe = True, pipe
                return pipe
        if self._works:
            raise BrokenProcessPool("a worker process died")
        # Without this, every item of the input would be taken for one that kills its worker.
        raise SettingsError(
            "workers: worker processes cannot be started; a script that calls this needs the line "
            "'if __name__ == \"__main__\":' around its work, or workers: 1"
        )


def _work(pipe: connection.Connection, function: Callable[..., Any]) -> None:
    """A worker. Ctrl-C is for the parent, and a parent that is killed takes its workers with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    pipe.send(None)
    while True:
        arguments = pipe.recv()
        reply: tuple[Any, Exception | None, str]
        try:
            reply = function(*arguments), None, ""
        except Exception as error:
            reply = None, error, traceback.format_exc()
        pipe.send(reply)


def _end_with(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)
