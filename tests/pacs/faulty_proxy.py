"""A proxy in front of an archive's DICOMweb, which fails in the ways that archives and networks fail."""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable
from typing import Any

_FAILED = {"00081155": {"vr": "UI", "Value": ["1.2"]}, "00081197": {"vr": "US", "Value": [0xA700]}}
OUT_OF_RESOURCES = {"00081198": {"vr": "SQ", "Value": [_FAILED]}}
"""Answer of STOW-RS with a failed instance (PS3.18 table I.2-2)."""


class Faults:
    """Answers for `fake_web`: forwards to the port, unless `next_mode` says something else for this request.

    Modes: `pass`; `refuse` (403); `full` (409 with the reason "out of resources"); `error` (500); `nothing` (200 for
    what is not stored); `slow` (longer than the client waits); `cut` (half an answer).
    """

    def __init__(self, port: int, next_mode: Callable[[], str], delay: float = 2.0) -> None:
        self._port, self._next, self._delay = port, next_mode, delay
        self.modes: list[str] = []

    def __call__(self, method: str, path: str, body: bytes) -> Any:
        mode = self._next()
        self.modes.append(mode)
        if mode == "refuse":
            return 403, {}
        if mode == "error":
            return 500, {}
        if mode == "full" and method == "POST":
            return 409, OUT_OF_RESOURCES
        if mode == "nothing" and method == "POST":
            return 200, {}
        if mode == "slow":
            time.sleep(self._delay)
        return lambda handler: self._forward(handler, method, path, body, cut=mode == "cut")

    def _forward(self, handler: Any, method: str, path: str, body: bytes, *, cut: bool) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        headers = {name: handler.headers[name] for name in ("Content-Type", "Accept") if handler.headers[name]}
        try:
            connection.request(method, path, body or None, headers)
            answer = connection.getresponse()
            content = answer.read()
        except OSError:  # the archive is down
            handler.close_connection = True
            return
        finally:
            connection.close()
        handler.send_response(answer.status)
        handler.send_header("Content-Type", answer.headers.get("Content-Type", "application/dicom+json"))
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content[: len(content) // 2] if cut else content)
        handler.close_connection = cut
