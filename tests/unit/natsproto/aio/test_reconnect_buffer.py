"""What is kept while there is no connection: how much, in which order, and how often it is looked through."""

from __future__ import annotations

import pytest

from natsproto.aio.reconnect_buffer import SWEEP, ReconnectBuffer
from natsproto.errors import OutboundBufferLimitError


class Case:
    """A buffer of 10 bytes, a clock, and the requests that somebody waits for."""

    def __init__(self) -> None:
        self.now = 0.0
        self.waited_for: set[bytes | None] = {None}
        self.looks = 0
        self.buffer = ReconnectBuffer(10, self._wanted, lambda: self.now)

    def _wanted(self, reply: bytes | None) -> bool:
        self.looks += 1
        return reply in self.waited_for


@pytest.fixture
def case() -> Case:
    return Case()


def test_in_order_and_once(case: Case) -> None:
    case.waited_for.add(b"r")
    for frame, reply in ((b"one", None), (b"two", b"r"), (b"3", b"gone")):
        case.buffer.keep(1, frame, reply)
    assert [tuple(kept) for kept in case.buffer.take()] == [(1, b"one", None), (1, b"two", b"r")]
    assert list(case.buffer.take()) == []
    case.buffer.keep(1, b"0123456789", None)  # there is room again


def test_the_limit_counts_what_was_given_up_no_longer(case: Case) -> None:
    case.buffer.keep(1, b"12345", None)
    case.waited_for.add(b"r")
    case.buffer.keep(1, b"1234", b"r")
    with pytest.raises(OutboundBufferLimitError, match="9 bytes wait already"):
        case.buffer.keep(1, b"67", None)
    case.waited_for.remove(b"r")
    case.now = SWEEP
    case.buffer.keep(1, b"67890", None)
    assert [kept.frame for kept in case.buffer.take()] == [b"12345", b"67890"]


def test_a_full_buffer_is_not_looked_through_for_each_message(case: Case) -> None:
    case.buffer.keep(1, b"0123456789", None)
    for _ in range(100):
        with pytest.raises(OutboundBufferLimitError):
            case.buffer.keep(1, b"x", None)
    assert case.looks == 1
