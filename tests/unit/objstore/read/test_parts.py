"""What a feed is asked for: parts by index and sequence; and the two ways of being wrong."""

from __future__ import annotations

from datetime import UTC, datetime

from objstore import ObjectInfo
from objstore.errors import IntegrityError
from objstore.format.assembly import Assembly, Unfit
from objstore.format.digest import hex_digest, new_hasher
from objstore.read.parts import Missing, Part, Sink, WrongPlace
from objstore.read.sinks import BlockSink, WholeSink


def test_a_part_without_known_sequences() -> None:
    part = Part(17, 2, 5, 9)
    assert (part.seq, part.first, part.last, part.total, part.seq_of) == (17, 2, 5, 9, None)


def test_a_part_with_known_sequences() -> None:
    part = Part(17, 2, 5, 9, lambda index: 15 + index)
    assert part.seq_of is not None
    assert part.seq_of(part.first) == part.seq
    assert not hasattr(part, "__dict__"), "one is made for every range"


def test_what_may_be_wrong_is_told_apart() -> None:
    """A wrong guess leads elsewhere, missing chunks to the leader: neither says that it is damaged."""
    assert issubclass(WrongPlace, Unfit)
    assert not issubclass(Missing, Unfit | IntegrityError)
    assert not issubclass(WrongPlace, Missing | IntegrityError)


async def test_the_sinks_are_what_a_feed_expects() -> None:
    digest = hex_digest(new_hasher(b"content").digest())
    info = ObjectInfo("a", None, None, 7, 1, digest, False, datetime.now(UTC), "n", "b")
    sinks: list[Sink] = [
        WholeSink(info, verify=True, progress=None),
        BlockSink(info, Assembly(info, verify=True), window=100),
    ]
    for sink in sinks:
        sink.reserve()
        assert not sink.complete
        assert not sink.congested
        sink.accept(b"content")
        assert sink.complete
        sink.forget_places()
    assert isinstance(sinks[0], WholeSink)
    assert sinks[0].finish() == b"content"
