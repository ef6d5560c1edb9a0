"""What a feed is asked for: parts by index and sequence; and the two ways of being wrong."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from objstore import ObjectInfo, ObjectStore
from objstore.bucket.binding import bind
from objstore.errors import IntegrityError
from objstore.format.assembly import Assembly, Unfit
from objstore.format.digest import hex_digest, new_hasher
from objstore.read.parts import Missing, Part, Sink, WrongPlace, content_key, is_newer
from objstore.read.sinks import BlockSink, WholeSink
from support.memory_server import MemoryServer


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


def test_what_an_object_is_known_by() -> None:
    info = ObjectInfo("a", None, None, 7, 1, "SHA-256=00", False, datetime.now(UTC), "n", "b", revision=5)
    others = ({"nuid": "m"}, {"chunks": 2}, {"size": 8}, {"digest": "SHA-256=01"}, {"revision": 6})
    for change in others:
        assert content_key(replace(info, **change)) != content_key(info)  # type: ignore[arg-type]
    assert content_key(replace(info, name="c", description="d")) == content_key(info)


async def test_what_is_newer_than_its_meta(server: MemoryServer, store: ObjectStore) -> None:
    info = await store.put("a", b"x")
    bucket = await bind(server.js, "b")
    assert [is_newer(bucket, info, info.revision + more) for more in (-1, 0, 1)] == [False, False, True]
    assert not is_newer(bucket, replace(info, revision=0), 1), "it is not known"
    bucket.copied = True
    assert not is_newer(bucket, info, info.revision + 1), "sources may bring the meta first"


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
