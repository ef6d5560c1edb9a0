"""How fast sources of several piece sizes become chunks: 16 MiB (less for tiny pieces) each time.

Pieces of a chunk or more are cut without a copy; smaller ones have to be gathered.
Run: ``pytest bench/micro/test_chunking.py --benchmark-enable``.
"""

from __future__ import annotations

from typing import Any

import pytest

from objstore.format.chunking import Chunker

CHUNK = 128 * 1024
PIECES = 10_000


def cut(pieces: list[bytes], copy: bool) -> list[memoryview]:
    chunker = Chunker(CHUNK, copy=copy)
    chunks: list[memoryview] = []
    for piece in pieces:
        chunks += chunker.push(piece)
    last = chunker.finish()
    return chunks if last is None else [*chunks, last]


@pytest.mark.parametrize("size", [0, 16, 128, 1024, CHUNK - 1, CHUNK, 1024 * 1024, 16 * 1024 * 1024])
@pytest.mark.parametrize("copy", [False, True], ids=["kept", "refilled"])
def test_chunker(measure: Any, size: int, copy: bool) -> None:
    count = min(PIECES, 16 * 1024 * 1024 // size) if size else PIECES
    piece = bytes(range(256)) * (size // 256 + 1)
    pieces = [bytes(piece[:size]) if not copy else bytearray(piece[:size])] * count
    chunks = measure(cut, pieces, copy, count=count, size=size)
    assert all(len(chunk) == CHUNK for chunk in chunks[:-1])
    assert b"".join(chunks) == b"".join(pieces)
