"""Decode in a helper process that bounds memory and time, and collects warnings of decoders.

A decoder trusts the codestream: a kilobyte of JPEG 2000 with the smallest code blocks takes gigabytes, and RLE without
effect takes minutes. The operating system limits the helper to what a picture of the size in the header needs. GDCM
aborts its process on corrupt data, which is not an exception that could be caught. And decoders write to stderr or a
log that data are damaged, and return a picture with the damage concealed.

The helper is started on first use and again after it has died. It says with an empty line that it has started, so that
one that cannot start is not taken for an image that ended it. It ends with the process that started it, whose end
closes the pipe that it reads from.

One request: a line of JSON (transfer syntax, plugin, options, size of the data), then the data; one reply: a line of
JSON (shape and dtype, or the type of an error), then the pixels.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from cxrreport.child_processes import module_command, module_environment
from cxrreport.errors import PixelError, ProcessError
from cxrreport.records import Reason
from cxrreport.storage.memory_limit import address_space, limited_memory

SECONDS = 60.0
"""Longest time for the start of the helper under load, and for one image besides a second per million samples, for
which JPEG Lossless takes about 0.02 s."""
MEMORY = 64 << 20
"""Memory for one image besides `BYTES_PER_SAMPLE`. Windows and macOS have no such limit."""
BYTES_PER_SAMPLE = 16
"""Memory for one sample of an image: GDCM, which needs most, takes 12 bytes for JPEG 2000."""
_ENVIRONMENT = {"MALLOC_ARENA_MAX": "1", "OPJ_NUM_THREADS": "1"}
"""GDCM decodes JPEG 2000 in threads. Memory that glibc reserves for each could reach the limit, one time in ten."""
_HARMLESS = re.compile(
    rb"Unsupported JPEG data precision 12|Invalid SOS parameters for sequential JPEG|Unknown Adobe color transform.*"
    rb"|Warning: unknown JFIF revision.*"
)
"""Messages of GDCM about intact pixels; it tries its decoder of 8 bits first."""
_PIPE = 1 << 20  # bytes; Linux grants so much to all users, other systems have their own size


class DamagedError(PixelError):
    """A decoder warned of damage, which it may have concealed, crashed or took too long: no other one is tried."""


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
            DamagedError: the decoder warned of damage, crashed, or took too long.
            PixelError: the data cannot be decoded.
            ProcessError: the helper cannot be started.
        """
        request = {"syntax": syntax, "plugin": plugin, "options": options, "size": len(data)}
        seconds = SECONDS + _samples(options) / 1e6
        with self._lock:
            while True:
                process, fresh = self._started()
                try:
                    with _killed_after(seconds, process):
                        reply, pixels = _ask(process, request, data)
                    break
                except (OSError, ValueError, EOFError):
                    self.close()
                    if fresh:  # an old one may have died of something else
                        detail = f"the decoder {plugin} crashed or took too long"
                        raise DamagedError(Reason.BAD_PIXELS, detail) from None
        if reply.get("error") == DamagedError.__name__:
            raise DamagedError(Reason.BAD_PIXELS, f"the pixel data are damaged (a warning of {plugin})")
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
        self._process = process = subprocess.Popen(
            module_command(__name__),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pipesize=_PIPE,
            env=module_environment(_ENVIRONMENT),
        )
        with _killed_after(SECONDS, process):
            said = process.stdout.readline() if process.stdout else b""
        if not said:
            self._process = None
            process.kill()
            lines = process.communicate()[1].decode(errors="replace").split("\n")
            reason = next((line.strip() for line in reversed(lines) if line.strip()), "it took too long")
            raise ProcessError(
                f"the process that decodes pixels does not start ({reason}); run 'python -m {__name__}' to see why"
            )
        if process.stderr:
            process.stderr.close()  # the helper has one of its own
        return process, True


@contextmanager
def _killed_after(seconds: float, process: subprocess.Popen[bytes]) -> Iterator[None]:
    timer = threading.Timer(seconds, process.kill)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


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
    """Answer requests until their stream ends, or until memory was not given back."""
    from cxrreport.ingestion.dicom.pixel_data.decoding import decode_encapsulated

    warnings.simplefilter("ignore")  # those of pydicom are about the header
    warned = _Warnings()
    replies.write(b"\n")
    replies.flush()
    before = address_space()
    while line := requests.readline():
        request = json.loads(line)
        data = requests.read(request["size"])
        try:
            with limited_memory(MEMORY + BYTES_PER_SAMPLE * _samples(request["options"])), warned.heard():
                pixels = decode_encapsulated(request["syntax"], request["plugin"], data, request["options"])
        except Exception as error:  # the decoder's, of any type; the text may quote the file
            pixels = np.empty(0, np.uint8)
            reply, content = {"error": type(error).__name__, "size": 0}, memoryview(b"")
        else:
            content = np.ascontiguousarray(pixels).data.cast("B")
            reply = {"shape": pixels.shape, "dtype": pixels.dtype.str, "size": content.nbytes}
        replies.write(json.dumps(reply).encode() + b"\n")
        replies.write(content)
        replies.flush()
        del content, data, pixels
        if address_space() > before + 4 * MEMORY:  # a heap in pieces
            return


class _Warnings(logging.Handler):
    """Messages of decoders about an image: of OpenJPEG to a logger, of GDCM and CharLS to stderr."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the process
        self._logged = False
        os.dup2(self._stderr.fileno(), 2)
        logging.getLogger("openjpeg").addHandler(self)

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Raise a `DamagedError` at the end of the block if there was a warning in it."""
        os.ftruncate(2, 0)
        os.lseek(2, 0, os.SEEK_SET)
        self._logged = False
        yield
        os.lseek(2, 0, os.SEEK_SET)
        if self._logged or _HARMLESS.sub(b"", os.read(2, _PIPE)).strip():
            raise DamagedError(Reason.BAD_PIXELS)

    def emit(self, record: logging.LogRecord) -> None:  # noqa: ARG002
        self._logged = True


def _samples(options: dict[str, Any]) -> int:
    return int(options["rows"] * options["columns"] * options["samples_per_pixel"])


def main() -> None:
    """The helper process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    try:
        import resource
    except ImportError:  # Windows
        pass
    else:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # GDCM aborts
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print must not get between the replies
    serve(sys.stdin.buffer, replies)


if __name__ == "__main__":
    main()
