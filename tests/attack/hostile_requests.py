"""Requests to the model server that an attacker, a broken client or a scanner would send."""

from __future__ import annotations

import base64
import gzip
import json
import random
from collections.abc import Iterator
from typing import Any

from attack import bombs

CANARY = "CANARYTEXT"
JSON = {"Content-Type": "application/json"}
Request = tuple[str, bytes, dict[str, str]]
"""Kind, body and headers."""
KINDS = (
    *("bomb", "broken file", "broken file", "broken file", "no JSON", "nested", "values", "large", "many rows"),
    *("columns", "types", "path", "shapes", "content type", "cut connection", "cut connection", "prior", "prior"),
)
_HEAVY = ("j2k-blocks.dcm", "j2k-blocks-of-8.dcm", "htj2k-blocks.dcm", "jpeg.dcm", "rle-runs.dcm", "deflated-zeros.dcm")
_NO_JSON = [b"", b"{", b"\xff\xfe", b"null", b"[]", f'"{CANARY}"'.encode(), b"NaN", b"1e999", b'{"a":1,"a":']
_TYPES: list[Any] = [1, 1.5, True, None, [], {}, [1], {"a": CANARY}, "!" + CANARY, "\0", "A" * 1001, 10**400, "\ud800"]
_PATHS = [
    *("../" * 9 + "etc/passwd", "/etc/passwd", "..", ".", "~", "a\0b", "x" * 9999, "/proc/self/mem", "link"),
    *("file:///etc/passwd", "\\\\host\\share", CANARY, "link/log", "/dev/zero", "link/mlflow.db"),
]
_SHAPES: list[Any] = [
    {"dataframe_split": {"columns": ["dicom"], "data": [[CANARY]] * 3}},
    {"dataframe_split": {"columns": ["dicom", "dicom"], "data": [[CANARY, CANARY]]}},
    *({"inputs": CANARY}, {"instances": [CANARY]}, {"dataframe_records": CANARY}, {"dataframe_records": [CANARY]}),
    *({"dataframe_records": [], "inputs": []}, {"params": {"a": CANARY}}, {CANARY: 1}, {"inputs": {"path": [CANARY]}}),
]
_CONTENT_TYPES = [
    *("application/vnd.apache.parquet", "text/csv", "", "application/json; charset=utf-7", "application/json; a=b"),
    *("application/octet-stream", CANARY),
]


def rows(*given: object) -> bytes:
    """A body as documented."""
    return json.dumps({"dataframe_records": list(given)}).encode()


def row(dicom: bytes, **others: Any) -> bytes:
    """A request for one file, with an indication that must not be in the answer."""
    return rows({"dicom": base64.b64encode(dicom).decode(), "indication": CANARY, **others})


def hostile(count: int, good: bytes, seed: int) -> Iterator[Request]:
    """Any number of requests, the same for the same seed.

    Args:
        count: number of requests.
        good: a file that the server answers, which is broken here.
        seed: of the choice of kinds and of what is changed.
    """
    draw = random.Random(seed)
    files = {name: make() for name, make in bombs.PICTURES.items() if name.endswith(".dcm")}
    small = [name for name in files if name not in _HEAVY]
    for number in range(count):
        if number % 50 == 7:
            name = draw.choice(_HEAVY)
            yield f"bomb {name}", row(files[name]), JSON
            continue
        kind = draw.choice(KINDS)
        yield kind, *_request(kind, draw, good, files[draw.choice(small)])


def _request(kind: str, draw: random.Random, good: bytes, bomb: bytes) -> tuple[bytes, dict[str, str]]:
    if kind == "bomb":
        return row(bomb), JSON
    if kind == "broken file":
        broken = bytearray(good)
        for _ in range(draw.choice((1, 5, 50))):
            broken[draw.randrange(len(broken))] = draw.randrange(256)
        return row(bytes(broken[: draw.choice((len(broken), draw.randrange(len(broken))))])), JSON
    if kind == "no JSON":
        return draw.choice(_NO_JSON), JSON
    if kind == "nested":
        return draw.choice((b"[", b'{"a":')) * draw.choice((50, 5000, 200_000)), JSON
    if kind == "values":
        return b'{"dataframe_records":[' + b"[]," * draw.choice((100, 2_000_000)) + b"[]]}", JSON
    if kind == "large":
        return rows({"dicom": "A" * (draw.choice((1, 30, 90, 250)) << 20)}), JSON
    if kind == "many rows":
        return rows(*[{"path": "a"}] * draw.choice((65, 5000))), JSON
    if kind == "columns":
        return rows({draw.choice(("Dicom", "image", "dicom ", CANARY, "")): CANARY}), JSON
    if kind == "types":
        return rows({draw.choice(("dicom", "path", "indication")): draw.choice(_TYPES)}), JSON
    if kind == "prior":
        name = draw.choice(("lateral", "prior", "prior_report", "prior_days"))
        file = base64.b64encode(draw.choice((bomb, good[: len(good) // 2]))).decode()
        text = draw.choice((CANARY * 20_000, "," * 20_000, "FINDINGS: " * 9_000, "{\\rtf1 " * 9_000, "<b>" * 30_000))
        value = {"prior_report": text, "prior_days": draw.choice((-1, 1e308, CANARY))}.get(name, file)
        return row(good, **{name: draw.choice((value, draw.choice(_TYPES)))}), JSON
    if kind == "path":
        return rows({"path": draw.choice(_PATHS)}), JSON
    if kind == "shapes":
        return json.dumps(draw.choice(_SHAPES)).encode(), JSON
    if kind == "content type":
        headers = {"Content-Type": draw.choice(_CONTENT_TYPES), "Content-Encoding": "gzip"}
        return gzip.compress(row(good)), headers
    return row(good), JSON  # to a connection that is cut
