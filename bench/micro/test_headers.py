"""How fast header blocks are written, parsed, and searched for a single value.

Run: ``pytest bench/micro/test_headers.py --benchmark-enable --benchmark-group-by=func``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from natsproto.headers import encode_headers, header_value, parse_headers, status_of
from natsproto.jetstream.direct_get import header_int

COUNT = 1000
# The answer to a direct get: this block is searched once for each chunk.
FIELDS = {
    "Nats-Stream": "OBJ_bucket",
    "Nats-Subject": "$O.bucket.C.0123456789ABCDEFGHIJKL",
    "Nats-Sequence": "123456",
    "Nats-Time-Stamp": "2026-01-02T03:04:05.123456789Z",
    "Nats-Num-Pending": "799",
    "Nats-Last-Sequence": "123455",
}
BLOCK = "".join(["NATS/1.0\r\n", *(f"{key}: {value}\r\n" for key, value in FIELDS.items()), "\r\n"]).encode()
END = b"NATS/1.0 204 EOB\r\nNats-Num-Pending: 0\r\nNats-Last-Sequence: 123456\r\n\r\n"


def repeat(function: Callable[..., Any], *args: Any) -> Any:
    for _ in range(COUNT):
        result = function(*args)
    return result


def test_encode(measure: Any) -> None:
    assert measure(repeat, encode_headers, FIELDS, count=COUNT) == BLOCK


def test_parse(measure: Any) -> None:
    parsed = measure(repeat, parse_headers, BLOCK, count=COUNT)
    assert dict(parsed.headers) == FIELDS
    assert parsed.status is None


def test_parse_nats_py(measure: Any) -> None:
    client = pytest.importorskip("nats.aio.client").Client
    lines = BLOCK.partition(b"\r\n")[2]
    assert measure(repeat, client._parse_header_lines, lines, count=COUNT) == FIELDS


@pytest.mark.parametrize("key", ["Nats-Stream", "Nats-Sequence", "Nats-Last-Sequence"])
def test_value(measure: Any, key: str) -> None:
    assert measure(repeat, header_value, BLOCK, key.encode(), count=COUNT) == FIELDS[key].encode()


def test_value_that_is_not_there(measure: Any) -> None:
    assert measure(repeat, header_value, BLOCK, b"Nats-Rollup", count=COUNT) is None


@pytest.mark.parametrize("key", ["Nats-Sequence", "Nats-Num-Pending"])
def test_number(measure: Any, key: str) -> None:
    assert measure(repeat, header_int, BLOCK, key.encode(), count=COUNT) == int(FIELDS[key])


@pytest.mark.parametrize(("block", "status"), [(BLOCK, None), (END, 204)], ids=["none", "204"])
def test_status(measure: Any, block: bytes, status: int | None) -> None:
    assert measure(repeat, status_of, block, count=COUNT) == status
