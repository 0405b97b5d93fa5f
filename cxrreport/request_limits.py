"""Limits of requests to MLflow's model server: type, size, number and depth of values, and how many are in work.

The server reads a body of any size and parses it before the model sees it: 100 MB of brackets become gigabytes of
lists, and a kilobyte of Parquet even more. It answers what its parser does not expect, for example deep nesting, as an
error of its own (500). `mlflow models serve` takes no such limits, so they are put around its application, which it
makes after it has loaded the model.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

MAX_REQUESTS = 8
"""Requests that are received or wait. More are answered with 503."""
IN_WORK = 2
"""Requests that are parsed and decoded at a time; the model answers one at a time."""
VALUES_PER_ROW = 200
"""Commas and brackets outside of Base64, in the texts of a row too."""
MAX_DEPTH = 16
"""Lists and objects within each other; a table has four."""
_OTHER_BYTES = 1 << 20
_NESTED = (dict, list)
_JSON = re.compile(rb"application/json\s*(;\s*charset=utf-8\s*)?", re.IGNORECASE)

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class RequestLimits:
    """ASGI middleware.

    Args:
        app: the application of the server.
        max_bytes: largest body, bytes.
        max_values: most commas and brackets of a body.
    """

    def __init__(self, app: Callable[..., Awaitable[None]], max_bytes: int, max_values: int) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._max_values = max_values
        self._open = 0
        self._working = asyncio.Semaphore(IN_WORK)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on with a body within the limits."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        kinds = [value for name, value in scope["headers"] if name == b"content-type"]
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if len(kinds) != 1 or not _JSON.fullmatch(kinds[0].strip()):  # of several, the server takes the first
            await _refuse(send, 415, "send JSON, with the header Content-Type: application/json")
        elif length.isdigit() and int(length) > self._max_bytes:
            await _refuse(send, 413, f"more than {self._max_bytes} bytes; send fewer radiographs in one request")
        elif self._open >= MAX_REQUESTS:
            await _refuse(send, 503, "too many requests at once; send it again later")
        else:
            self._open += 1
            try:
                await self._answer(scope, receive, send)
            finally:
                self._open -= 1

    async def _answer(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        body = bytearray()
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > self._max_bytes:
                await _refuse(send, 413, f"more than {self._max_bytes} bytes; send fewer radiographs in one request")
                return
        if sum(map(body.count, (b",", b"[", b"{"))) > self._max_values:
            await _refuse(send, 413, "more values than a table of radiographs has; send fewer rows in one request")
            return
        whole: Message = {"type": "http.request", "body": bytes(body), "more_body": False}
        del body

        async def received() -> Message:
            if whole["type"] == "http.request":
                message = dict(whole)
                whole.update(type="", body=b"")
                return message
            return await receive()

        async with self._working:
            if _is_flat_json(whole["body"]):
                await self._app(scope, received, send)
                return
        await _refuse(send, 400, f"send JSON in UTF-8, with at most {MAX_DEPTH} lists or objects within each other")


def _is_flat_json(body: bytes) -> bool:
    """Whether a body is JSON of at most `MAX_DEPTH`. The server's own parser stops at a thousand levels."""
    try:
        level: list[Any] = [json.loads(body.decode())]
    except (ValueError, RecursionError):
        return False
    for _ in range(MAX_DEPTH):
        nested = [value.values() if isinstance(value, dict) else value for value in level if isinstance(value, _NESTED)]
        level = [value for values in nested for value in values]
    return not any(isinstance(value, _NESTED) for value in level)


async def _refuse(send: Send, status: int, reason: str) -> None:
    body = json.dumps({"error_code": "BAD_REQUEST", "message": reason}).encode()
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def limit_requests(max_pixels: int, max_rows: int, *, files: int = 1) -> None:
    """Put the limits around the next FastAPI application of this process.

    Args:
        max_pixels: largest radiograph; its file has two bytes per pixel at most, and Base64 four for three.
        max_rows: most rows of a request.
        files: most radiographs of a row.
    """
    import fastapi

    class Limited(fastapi.FastAPI):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            max_bytes = files * 2 * max_pixels * 4 // 3 + _OTHER_BYTES
            self.add_middleware(RequestLimits, max_bytes=max_bytes, max_values=VALUES_PER_ROW * max_rows)

    fastapi.FastAPI = Limited  # type: ignore[misc]
