"""Payloads: the same for everybody, different from each other, incompressible."""

from __future__ import annotations

import random
import zlib
from itertools import pairwise

import pytest

from objstore.bench.payloads import BLOCK, PIECE, WHOLE, Payloads, random_bytes

LARGE = WHOLE + 3 * PIECE + 17


@pytest.fixture(scope="module")
def payloads() -> Payloads:
    return Payloads(7)


def test_random_bytes_are_made_in_pieces() -> None:
    source = random.Random(1)
    assert random_bytes(10, 1, 4) == source.randbytes(4) + source.randbytes(4) + source.randbytes(2)
    assert random_bytes(100, 5) == random.Random(5).randbytes(100)
    assert random_bytes(0, 5) == b""


@pytest.mark.parametrize("size", [0, 1, 1024, PIECE, WHOLE, LARGE])
def test_an_object_is_known_by_its_number(payloads: Payloads, size: int) -> None:
    for number in (0, 5, 1 << 40):
        found = b"".join(payloads.pieces(number, size))
        assert len(found) == size
        assert payloads.same(number, size, found)
        assert not payloads.same(number, size, found + b"x")
        if size:
            changed = bytes([found[0] ^ 1]) + found[1:]
            assert not payloads.same(number, size, changed)
            assert not payloads.same(number, size, found[:-1] + bytes([found[-1] ^ 1]))
        for start, length in ((0, min(10, size)), (size // 3, size // 3), (max(0, size - 5), min(5, size))):
            assert payloads.part(number, size, start, length) == found[start : start + length]


def test_a_large_object_goes_on_at_the_beginning_of_the_block(payloads: Payloads) -> None:
    number = next(n for n in range(100) if payloads.start(n, LARGE) > BLOCK - LARGE)
    found = b"".join(payloads.pieces(number, LARGE))
    assert payloads.same(number, LARGE, found)
    turn = BLOCK - payloads.start(number, LARGE)
    assert payloads.part(number, LARGE, turn - 10, 20) == found[turn - 10 : turn + 10]
    assert payloads.part(number, LARGE, turn + 5, 20) == found[turn + 5 : turn + 25]


def test_other_processes_make_the_same() -> None:
    assert Payloads(3, 1024).whole(9, 1000) == Payloads(3, 1024).whole(9, 1000)
    assert Payloads(3, 1024).whole(9, 1000) != Payloads(4, 1024).whole(9, 1000)


@pytest.mark.parametrize("size", [1024, 128 * 1024, 1 << 20, 4 << 20])
def test_what_is_stored_in_a_row_does_not_overlap(payloads: Payloads, size: int) -> None:
    """Of 8 MiB, which a server compresses together."""
    count = (8 << 20) // size
    for first in (0, 1 << 40, (1 << 40) + 12345):
        starts = sorted(payloads.start(number, size) for number in range(first, first + count))
        assert all(b - a >= size for a, b in pairwise(starts))


def test_nothing_can_be_compressed(payloads: Payloads) -> None:
    stored = b"".join(payloads.whole(number, 4096) for number in range(64))
    assert len(zlib.compress(stored, 9)) >= len(stored)


def test_the_block_is_small_for_small_payloads() -> None:
    small = Payloads(1, 1024)
    assert max(small.start(number, 16) for number in range(100)) < BLOCK // 8
