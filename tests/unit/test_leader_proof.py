"""What a replica lacks, or an answer says, is nothing until the leader has been asked."""

from __future__ import annotations

import asyncio
import hashlib
from array import array
from collections.abc import AsyncIterator
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from objstore import ObjectInfo
from objstore.listing.metas import LeaderEnd
from objstore.read import ranges as _ranges
from objstore.read.feed import ChunkFeed
from objstore.read.parts import Part
from objstore.write.doubt import fence
from support.simulation import STREAM, Link, Stream

CHUNKS = "$O.b.C.N"
DATA = [b"one", b"two"]


@pytest.fixture
async def stream() -> Stream:
    """The leader's: other messages, then an object of two chunks and its meta."""
    loop: Any = asyncio.get_running_loop()
    stream = Stream(loop, Random(1), replicated=False, revision_first=False)
    for payload in (b"another", *DATA):
        stream.publish("$O.b.C.M" if payload == b"another" else CHUNKS, b"", payload, lambda _: None)
    return stream


@pytest.fixture
async def link(stream: Stream) -> AsyncIterator[Link]:
    link = Link(stream, Random(1), atomic=False)
    assert link.bucket.replicated
    yield link
    link.die()
    await link.server.client.close()


def info_of(size: int = 6, chunks: int = 2) -> ObjectInfo:
    digest = "SHA-256=" + hashlib.sha256(b"".join(DATA)).hexdigest()
    fields: dict[str, Any] = {"nuid": "N", "size": size, "chunks": chunks, "digest": digest, "bucket": "b"}
    return SimpleNamespace(**fields, name="a", options=None, revision=0)  # type: ignore[return-value]


def feed_of(link: Link, *, part: Any = None) -> ChunkFeed:
    sink: Any = None
    return ChunkFeed(link.bucket, info_of(), sink, part=part)


# -- a fence ------------------------------------------------------------------------------------------------


async def test_a_fence_is_removed_again(stream: Stream, link: Link) -> None:
    await fence(link.bucket, CHUNKS)
    assert stream.seq == 4
    assert [each.payload for each in stream.messages.values()] == [b"another", *DATA]


@pytest.mark.parametrize("told", [1, 2, 3])
async def test_an_answer_to_a_fence_that_names_something_else(
    stream: Stream, link: Link, told: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither another object's message nor a chunk of its own is deleted on the word of that answer."""
    monkeypatch.setattr(stream, "publish", lambda *args: args[-1]({"stream": STREAM, "seq": told}))
    await fence(link.bucket, CHUNKS)
    assert list(stream.messages) == [1, 2, 3]


# -- a listing ----------------------------------------------------------------------------------------------


async def test_a_listing_gets_as_far_as_the_leader_was(stream: Stream, link: Link) -> None:
    stream.publish("$O.b.M.YQ==", b"", b'{"deleted": true}', lambda _: None)
    leader_end = LeaderEnd(link.bucket)
    assert not await leader_end.reached(3)
    assert await leader_end.reached(4)
    leader_end.close()


# -- chunks -------------------------------------------------------------------------------------------------


async def test_chunks_that_a_replica_lacks(stream: Stream, link: Link) -> None:
    feed = feed_of(link)
    feed.cursor = 2
    assert await feed._stored(), "the leader has the one after it"
    feed.cursor = 3
    assert await feed._stored(), "that nothing follows may answer another question"
    feed._messages = 3
    assert not await feed._stored(), "it has none either"
    del stream.messages[2]
    feed.cursor = feed._messages = 0
    assert not await feed._stored(), "it has fewer than there must be"


@pytest.mark.parametrize(("seq", "stored"), [(3, True), (2, False), (4, False)])
async def test_a_chunk_whose_sequence_is_known(link: Link, seq: int, stored: bool) -> None:
    """Another chunk after the cursor is not the one that was removed."""
    feed = feed_of(link, part=Part(3, 1, 2, 3, lambda index: seq))
    assert await feed._stored() is stored


async def test_measured_by_a_replica_that_is_behind(link: Link, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its end is not the end of the object: the next consumer goes on where the leader has more."""
    rounds = [(3, 2), (6, 3)]

    async def behind(_: object, info: object, offsets: array[int], seqs: array[int]) -> None:
        offset, seq = rounds.pop(0)
        offsets.append(offset)
        seqs.append(seq)

    monkeypatch.setattr(_ranges, "_measure", behind)
    measured: list[tuple[list[int], list[int]]] = []
    layout: Any = SimpleNamespace(
        copy=lambda other: measured.append((list(other._offsets), list(other._seqs)))
    )
    await _ranges.measure(link.bucket, info_of(), layout)
    assert measured == [([0, 3, 6], [2, 3])]


async def test_ranges_of_replicas_begin_with_the_leader(link: Link, monkeypatch: pytest.MonkeyPatch) -> None:
    """A replica that is behind counts fewer chunks, and each would be taken for another one."""

    class Asked(Exception):
        pass

    async def prove(*_: object) -> None:
        raise Asked

    monkeypatch.setattr(_ranges, "prove", prove)
    assert link.bucket.replicated
    with pytest.raises(Asked):
        await _ranges.read_range(link.bucket, info_of(), 0, 3)
