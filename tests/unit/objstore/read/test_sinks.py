"""The two sinks of a read, fed as a parser feeds them: places first, payloads later, some never."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime

import pytest

from objstore import IntegrityError, ObjectInfo
from objstore.format.assembly import Assembly
from objstore.format.digest import hex_digest, new_hasher
from objstore.read.sinks import BLOCK_BUFFERS, BlockSink, WholeSink

CHUNK = 1000


def info_of(data: bytes, chunks: int) -> ObjectInfo:
    hasher = new_hasher()
    hasher.update(data)
    digest = hex_digest(hasher.digest())
    return ObjectInfo("a", None, None, len(data), chunks, digest, False, datetime.now(UTC), "n", "b")


def block_sink(info: ObjectInfo, **options: int) -> BlockSink:
    return BlockSink(info, Assembly(info), **options)


def cut(data: bytes, size: int = CHUNK) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


def receive(sink: WholeSink | BlockSink, payload: bytes) -> bytes | memoryview:
    """What a parser does with a large frame; where there is room behind it, more is received."""
    place = sink.place(len(payload))
    if place is None:
        return payload
    if isinstance(place, tuple):
        place, roomy = place
        roomy[:] = payload + b"?" * (len(roomy) - len(payload))
        assert place == payload
        return place
    place[:] = payload
    return place


async def drain(sink: BlockSink) -> bytes:
    got = bytearray()
    while (block := await sink.next_block()) is not None:
        for piece in block:
            got += piece
    return bytes(got)


@pytest.mark.parametrize("stale", [0, 1, 5, 8])
@pytest.mark.parametrize("ahead", [1, 3, 20])
def test_whole_with_a_frame_never_accepted(stale: int, ahead: int) -> None:
    """A doubled frame is given a place and not accepted: the ones after it still end where they belong."""
    data = random.Random(1).randbytes(10 * CHUNK)
    sink = WholeSink(info_of(data, 10), verify=True, progress=None)
    frames = [(piece, True) for piece in cut(data)]
    frames.insert(stale, (bytes(CHUNK), False))
    for start in range(0, len(frames), ahead):
        batch = [(receive(sink, piece), wanted) for piece, wanted in frames[start : start + ahead]]
        for payload, wanted in batch:
            if wanted:
                sink.accept(payload)
    assert sink.complete
    assert sink.finish() == data


@pytest.mark.parametrize("seed", range(30))
def test_whole_at_random(seed: int) -> None:
    rng = random.Random(seed)
    pieces = [rng.randbytes(rng.choice([1, 7, CHUNK])) for _ in range(30)]
    data = b"".join(pieces)
    sink = WholeSink(info_of(data, 30), verify=True, progress=None)
    waiting: list[tuple[bytes | memoryview, bool]] = []
    for piece in pieces:
        if rng.random() < 0.2:
            waiting.append((receive(sink, bytes(len(piece))), False))
        waiting.append((receive(sink, piece) if len(piece) > 5 and rng.random() < 0.8 else piece, True))
        if rng.random() < 0.3:
            for payload, wanted in waiting:
                if wanted:
                    sink.accept(payload)
            waiting.clear()
    for payload, wanted in waiting:
        if wanted:
            sink.accept(payload)
    assert sink.finish() == data


def test_whole_after_a_restart() -> None:
    data = random.Random(2).randbytes(6 * CHUNK)
    sink = WholeSink(info_of(data, 6), verify=True, progress=None)
    pieces = cut(data)
    sink.accept(receive(sink, pieces[0]))
    for _ in range(3):
        assert len(receive(sink, bytes(CHUNK))) == CHUNK
        sink.forget_places()
    for piece in pieces[1:]:
        sink.accept(receive(sink, piece))
    assert sink.finish() == data


async def test_blocks() -> None:
    data = random.Random(3).randbytes(100 * CHUNK + 1)
    sink = block_sink(info_of(data, 101), window=10 * CHUNK)
    reading = asyncio.create_task(drain(sink))

    async def feed() -> None:
        for piece in cut(data):
            sink.accept(receive(sink, piece))
            if sink.congested:
                await sink.drained()

    await sink.fill(feed())
    assert await reading == data
    assert len(sink._block_buffers) <= BLOCK_BUFFERS


@pytest.mark.parametrize("seed", range(10))
async def test_blocks_that_are_read_late(seed: int) -> None:
    """Arenas are used again only when everything in them was read, also after frames never accepted."""
    rng = random.Random(seed)
    data = rng.randbytes(60 * CHUNK)
    sink = block_sink(info_of(data, 60), window=5 * CHUNK)
    got = bytearray()

    async def read() -> None:
        while (block := await sink.next_block()) is not None:
            for _ in range(rng.randrange(4)):
                await asyncio.sleep(0)
            for piece in block:
                got.extend(piece)

    async def feed() -> None:
        for piece in cut(data):
            if rng.random() < 0.2:
                receive(sink, bytes(CHUNK))  # placed, never accepted
            if rng.random() < 0.1:
                sink.forget_places()
            sink.accept(receive(sink, piece))
            while sink.congested:
                await sink.drained()
            if rng.random() < 0.3:
                await asyncio.sleep(0)

    reading = asyncio.create_task(read())
    await sink.fill(feed())
    await reading
    assert bytes(got) == data


async def test_blocks_end_too_early() -> None:
    async def nothing() -> None:
        return

    async def lost() -> None:
        raise ConnectionError("lost")

    sink = block_sink(info_of(bytes(10), 1))
    await sink.fill(nothing())
    with pytest.raises(IntegrityError):
        await sink.next_block()
    sink = block_sink(info_of(bytes(10), 1))
    waiting = asyncio.ensure_future(sink.next_block())
    await asyncio.sleep(0)
    await sink.fill(lost())
    with pytest.raises(ConnectionError):
        await waiting


async def test_more_than_announced() -> None:
    for sink in (
        WholeSink(info_of(bytes(10), 1), verify=True, progress=None),
        block_sink(info_of(bytes(10), 1)),
    ):
        assert sink.place(11) is None
        with pytest.raises(IntegrityError):
            sink.accept(bytes(11))
