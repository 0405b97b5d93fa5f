"""Decode in a helper process, because GDCM aborts its process on corrupt data.

GDCM is the only permissively licensed decoder of JPEG Lossless, and its abort is not an exception that could be caught.
The helper is started on first use, has limits on its memory and on the time for one image, and is restarted after it
dies. The helper ends with the process that started it,
whose end closes the pipe that it reads from.

One request: a line of JSON (transfer syntax, plugin, options, size of the data), then the data; one reply: a line of
JSON (shape and dtype, or the type of an error), then the pixels.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
import threading
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from cxrreport.errors import PixelError
from cxrreport.records import Reason

SECONDS = 60.0
"""Longest time for one image: JPEG Lossless takes about 0.02 s per million pixels."""
MEMORY = 4 << 30
"""Largest address space of the helper, bytes; Windows and macOS have no such limit."""
_PIPE = 1 << 20  # bytes; Linux grants so much to all users, other systems have their own size


class DecoderProcess:
    """A helper process that decodes one image at a time; started when needed, and again when it has died."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0
        self._lock = threading.Lock()

    def decode(self, syntax: str, plugin: str, data: bytes, options: dict[str, Any]) -> NDArray[np.integer]:
        """Decode encapsulated pixel data as `pixel_data.decode_encapsulated` does, in the helper.

        Args:
            syntax: UID of the transfer syntax.
            plugin: name of the decoder in pydicom.
            data: the value of PixelData.
            options: pydicom's `DecodeOptions`.

        Returns:
            integer[rows, columns].

        Raises:
            PixelError: the data cannot be decoded, or the decoder crashed or took more than `SECONDS`.
        """
        request = {"syntax": syntax, "plugin": plugin, "options": options, "size": len(data)}
        with self._lock:
            while True:
                process, fresh = self._started()
                timer = threading.Timer(SECONDS, process.kill)
                timer.start()
                try:
                    reply, pixels = _ask(process, request, data)
                    break
                except (OSError, ValueError, EOFError):
                    self.close()
                    if fresh:  # an old one may have died of something else
                        detail = f"the decoder {plugin} crashed or took too long"
                        raise PixelError(Reason.BAD_PIXELS, detail) from None
                finally:
                    timer.cancel()
        if "error" in reply:
            raise PixelError(Reason.BAD_PIXELS, f"the pixel data cannot be decoded ({reply['error']})")
        decoded: NDArray[np.integer] = pixels.view(reply["dtype"]).reshape(reply["shape"])
        return decoded

    def close(self) -> None:
        """End the helper, if there is one."""
        process, self._process = self._process, None
        if process is not None and self._owner == os.getpid():
            process.kill()
            process.communicate()

    def _started(self) -> tuple[subprocess.Popen[bytes], bool]:
        """The helper, and whether it was started just now."""
        if self._process is not None and (self._owner != os.getpid() or self._process.poll() is not None):
            self.close()  # of the parent, before a fork, or dead
        if self._process is not None:
            return self._process, False
        if not self._owner:
            atexit.register(self.close)
        self._owner = os.getpid()
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pipesize=_PIPE,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
        return self._process, True


def _ask(
    process: subprocess.Popen[bytes], request: dict[str, Any], data: bytes
) -> tuple[dict[str, Any], NDArray[np.uint8]]:
    if process.stdin is None or process.stdout is None:
        raise EOFError
    process.stdin.write(json.dumps(request).encode() + b"\n")
    process.stdin.write(data)
    process.stdin.flush()
    line = process.stdout.readline()
    if not line:
        raise EOFError
    reply: dict[str, Any] = json.loads(line)
    pixels = np.empty(reply["size"], np.uint8)
    if process.stdout.readinto(pixels) != pixels.size:  # type: ignore[attr-defined] # of a buffered reader
        raise EOFError
    return reply, pixels


def serve(requests: IO[bytes], replies: IO[bytes]) -> None:
    """Answer requests until their stream ends."""
    from cxrreport.ingestion.dicom.pixel_data import decode_encapsulated

    while line := requests.readline():
        request = json.loads(line)
        data = requests.read(request["size"])
        try:
            pixels = decode_encapsulated(request["syntax"], request["plugin"], data, request["options"])
        except Exception as error:  # the decoder's, of any type; the text may quote the file
            reply, content = {"error": type(error).__name__, "size": 0}, memoryview(b"")
        else:
            content = np.ascontiguousarray(pixels).data.cast("B")
            reply = {"shape": pixels.shape, "dtype": pixels.dtype.str, "size": content.nbytes}
        replies.write(json.dumps(reply).encode() + b"\n")
        replies.write(content)
        replies.flush()


def _limit_memory() -> None:
    """Limit the address space and forbid core dumps, if the operating system has such limits."""
    try:
        import resource
    except ImportError:  # Windows
        return
    for kind, limit in ((resource.RLIMIT_AS, MEMORY), (resource.RLIMIT_CORE, 0)):
        highest = resource.getrlimit(kind)[1]
        allowed = limit if highest == resource.RLIM_INFINITY else min(limit, highest)
        try:
            resource.setrlimit(kind, (allowed, allowed))
        except (OSError, ValueError):
            if sys.platform == "linux":  # macOS refuses to limit the address space
                raise


def main() -> None:
    """The helper process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    _limit_memory()
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print must not get between the replies
    serve(sys.stdin.buffer, replies)


if __name__ == "__main__":
    main()
