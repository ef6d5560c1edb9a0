"""The bytes of the soak: made from the operation that writes them, so that whoever reads them can name it."""

from __future__ import annotations

import hashlib
import random
from typing import Any

TELLING = 24
"""Bytes that no two bodies share at one place."""


def body_id(op: str, size: int) -> str:
    """Names bytes: the operation that wrote them first, and how many there are."""
    return f"{op}:{size}"


def make(body: str) -> bytes:
    """The bytes of a body: a header that names it, as far as it fits, and noise that repeats nowhere."""
    size = int(body.rpartition(":")[2])
    head = f"<{body}>".encode()[:size]
    return head + random.Random(body).randbytes(size - len(head))


def digest(data: bytes | bytearray | memoryview) -> str:
    """SHA-256 as hex: the soak's own, never what the library says it is."""
    return hashlib.sha256(data).hexdigest()


def part_of(body: str, start: int, stop: int, data: bytes) -> dict[str, Any]:
    """What the bytes from ``start`` to ``stop`` tell, for the history: whose they are, if that can be told.

    Bodies have the same few bytes here and there, in their headers above all: a short part names nobody.
    """
    if data != make(body)[start:stop]:
        return {"part": [start, stop, digest(data)]}
    return {"body": body} if len(data) >= TELLING else {}


def draw_size(rng: random.Random, largest: int) -> int:
    """Log-uniform from 0 to ``largest``, most of them small."""
    top = min(largest, 16 * 1024) if rng.random() < 0.75 else largest
    return min(top, int(2 ** rng.uniform(0.0, top.bit_length())) - 1)
