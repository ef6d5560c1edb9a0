"""How fast SHA-256 is, in pieces of several sizes, and its two spellings.

Run: ``pytest bench/micro/test_digest.py --benchmark-enable``; no verified transfer can be faster than this.
"""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64encode
from typing import Any

import pytest

from objstore.format.digest import hex_digest, new_hasher, parse_digest, wire_digest

SIZES = [0, 16, 128, 1024, 128 * 1024, 1024 * 1024]
COUNT = 1000
RAW = hashlib.sha256(b"object").digest()
WIRE = "SHA-256=" + urlsafe_b64encode(RAW).decode()
HEX = "SHA-256=" + RAW.hex()


def digest(view: memoryview, count: int) -> bytes:
    hasher = new_hasher()
    for _ in range(count):
        hasher.update(view)
    return hasher.digest()


@pytest.mark.parametrize("size", SIZES)
def test_sha256(measure: Any, size: int) -> None:
    count = max(8, min(COUNT, 8 * 1024 * 1024 // (size or 1)))
    piece = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    found = measure(digest, memoryview(piece), count, count=count, size=size)
    assert found == hashlib.sha256(piece * count).digest()


@pytest.mark.parametrize("text", [WIRE, HEX], ids=["wire", "hex"])
def test_parse(measure: Any, text: str) -> None:
    assert measure(lambda: [parse_digest(text) for _ in range(COUNT)], count=COUNT)[-1] == RAW


def test_write(measure: Any) -> None:
    found = measure(lambda: [(wire_digest(RAW), hex_digest(RAW)) for _ in range(COUNT)], count=COUNT)
    assert found[-1] == (WIRE, HEX)
