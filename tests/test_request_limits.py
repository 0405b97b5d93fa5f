"""What the limits around the model server pass on, and what they answer themselves."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from cxrreport import request_limits
from cxrreport.request_limits import RequestLimits

Parts = list[bytes | None]


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the size of the body, as the server does after it has read it."""
    body = (await receive())["body"]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(len(body)).encode()})


async def answered(limits: RequestLimits, parts: Parts, **headers: str) -> tuple[int, str] | None:
    """Status and text of the answer to a body in parts, `None` for one that the client does not finish."""
    sent: list[dict[str, Any]] = []
    messages = [
        {"type": "http.disconnect"} if part is None else {"type": "http.request", "body": part, "more_body": True}
        for part in parts
    ]
    messages[-1]["more_body"] = False
    waiting = iter(messages)

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(0)
        return next(waiting)

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    given = {"content-type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
    scope = {"type": "http", "method": "POST", "headers": [(n.encode(), v.encode()) for n, v in given.items()]}
    await limits(scope, receive, send)
    return (sent[0]["status"], sent[1]["body"].decode()) if sent else None


@pytest.mark.parametrize(
    ("parts", "headers", "status"),
    [
        ([b"1" * 100], {}, 200),
        ([b"1" * 50, b"", b"1" * 50], {}, 200),
        ([b"1" * 50, b"1" * 51], {}, 413),
        ([b""], {"content_length": "101"}, 413),
        ([b"1"], {"content_length": "-1"}, 200),
        ([b"[" * 11], {}, 413),
        ([b"[,", b"{" * 9], {}, 413),
        ([b"[,", b"{" * 8], {}, 400),
        ([b'{"a":[[1,2],{"b":"[[[["}]}'], {}, 200),
        ([b'"\xff"'], {}, 400),
        ([b""], {}, 400),
        ([b"1"], {"content_type": "text/csv"}, 415),
        ([b"1"], {"content_type": ""}, 415),
        ([b"1"], {"content_type": "Application/JSON; charset=utf-8"}, 200),
        ([b"1"], {"content_type": "application/json; canary=1"}, 415),
        ([b"1", None], {}, None),
    ],
)
def test_size_type_and_number_of_values(parts: Parts, headers: dict[str, str], status: int | None) -> None:
    limits = RequestLimits(application, max_bytes=100, max_values=10)
    found = asyncio.run(answered(limits, parts, **headers))
    assert (found and found[0]) == status
    if found and status != 200:
        assert json.loads(found[1])["message"]
    elif found:
        assert found[1] == str(len(b"".join(part or b"" for part in parts)))


@pytest.mark.parametrize("opened", ["[", '{"a":', '[{"a":', "[0,"])
@pytest.mark.parametrize("depth", [request_limits.MAX_DEPTH, 20, 500, 990, 5000, 100_000])
def test_depth(opened: str, depth: int) -> None:
    """The parser of the server stops at some depth, which it takes for an error of its own."""
    closed = "".join("]" if sign == "[" else "}" for sign in reversed(opened) if sign in "[{")
    limits = RequestLimits(application, max_bytes=1 << 20, max_values=1 << 20)
    body = (opened * depth + "1" + closed * depth).encode()
    found = asyncio.run(answered(limits, [body]))
    assert found and found[0] == (200 if depth * len(closed) <= request_limits.MAX_DEPTH else 400)


def test_numbers_that_the_parser_does_not_take() -> None:
    limits = RequestLimits(application, max_bytes=1 << 20, max_values=10)
    assert asyncio.run(answered(limits, [b"9" * 5000]))[0] == 400  # type: ignore[index]


def test_the_type_is_stated_once() -> None:
    """The server takes the first of several, a check of the last would let the others pass."""
    limits = RequestLimits(application, max_bytes=100, max_values=10)
    kinds = [(b"content-type", b"text/csv"), (b"content-type", b"application/json")]
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"1", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    for headers in (kinds, kinds[::-1]):
        asyncio.run(limits({"type": "http", "method": "POST", "headers": headers}, receive, send))
    assert [message["status"] for message in sent if "status" in message] == [415, 415]


def test_requests_beyond_the_queue_are_told_to_retry() -> None:
    most = 0
    working = 0

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        nonlocal most, working
        working += 1
        most = max(most, working)
        for _ in range(100):
            await asyncio.sleep(0)
        working -= 1
        await application(scope, receive, send)

    async def at_once() -> list[tuple[int, str] | None]:
        limits = RequestLimits(slow, max_bytes=100, max_values=10)
        first = await asyncio.gather(*(answered(limits, [b"1"]) for _ in range(request_limits.MAX_REQUESTS + 3)))
        return [*first, await answered(limits, [b"1"])]

    statuses = [found[0] for found in asyncio.run(at_once()) if found]
    assert statuses[:-1].count(200) == request_limits.MAX_REQUESTS and statuses[:-1].count(503) == 3
    assert statuses[-1] == 200 and most == request_limits.IN_WORK
