"""Payloads that can be verified and do not compress away; making one costs nothing.

All of them are parts of one block of random bytes, which every process makes from the same seed. The number
of an object decides where its bytes begin. The golden ratio spreads the beginnings: objects that a server
writes one after the other do not overlap in the block, so its compression finds nothing that it saw before.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from .sizes import spread

BLOCK = 32 * 1024 * 1024
"""Bytes of the random block: a server compresses 8 MiB together, at most."""

WHOLE = BLOCK // 2
"""Larger payloads are made of several pieces."""

PIECE = 1024 * 1024
GOLDEN = 0x9E3779B97F4A7C15


def random_bytes(size: int, seed: int, piece: int = 64 * PIECE) -> bytes:
    """Return the same random bytes for the same arguments, without much more memory than they take.

    Python makes them from one integer, and with several copies of it; so each call makes a piece.
    """
    source = random.Random(seed)
    return b"".join(source.randbytes(min(piece, size - at)) for at in range(0, size, piece))


class Payloads:
    """The payload of each object by its number.

    Args:
        seed: of the random block.
        largest: the largest size that will be asked for; a smaller block is enough for small ones.
    """

    __slots__ = ("_block", "_view")

    def __init__(self, seed: int, largest: int = BLOCK) -> None:
        size = BLOCK if largest > 1024 else BLOCK // 8
        self._block = random_bytes(size, seed, PIECE)
        self._view = memoryview(self._block)

    def start(self, number: int, size: int) -> int:
        """Return where the payload of an object begins in the block."""
        return int(spread(number, GOLDEN) * (len(self._block) - min(size, WHOLE)))

    def whole(self, number: int, size: int) -> memoryview:
        """Return the payload of an object of at most :data:`WHOLE` bytes, without a copy."""
        start = self.start(number, size)
        return self._view[start : start + size]

    def pieces(self, number: int, size: int) -> Iterator[memoryview]:
        """Yield the payload of an object of any size, without a copy."""
        if size <= WHOLE:
            yield self.whole(number, size)
            return
        at = self.start(number, size)
        while size:
            if at == len(self._block):
                at = 0
            piece = self._view[at : at + min(size, PIECE)]
            yield piece
            at += len(piece)
            size -= len(piece)

    def part(self, number: int, size: int, start: int, length: int) -> bytes:
        """Return ``length`` bytes from ``start`` on of an object's payload."""
        if size <= WHOLE:
            return bytes(self.whole(number, size)[start : start + length])
        at = (self.start(number, size) + start) % len(self._block)
        found = self._block[at : at + length]
        while len(found) < length:
            found += self._view[: length - len(found)]
        return found

    def same(self, number: int, size: int, found: bytes) -> bool:
        """Whether these are the bytes of an object."""
        if len(found) != size:
            return False
        at = 0
        for piece in self.pieces(number, size):
            if not found.startswith(piece, at):  # memcmp; comparing views is ten times as slow
                return False
            at += len(piece)
        return True
