"""Messages no larger than server and stream take, also when that changes on the way (B8)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

import natsproto
from natsproto.errors import MaxPayloadError
from natsproto.server import LocalServer
from objstore import BadObjectMetaError, ObjectMeta, ObjectStore
from support.objects import CHUNK, KIB, assert_exact, pattern

DATA = pattern(300_001)


class Replaced:
    """A server, and in its place another one on the same store that takes smaller messages."""

    def __init__(self, binary: str, store: Path) -> None:
        self.server = LocalServer(binary=binary, store_dir=str(store)).start()

    def replace(self, max_payload: int) -> None:
        self.server._max_payload = max_payload
        self.server.restart()  # on its port, which was not free meanwhile


@pytest.fixture
def replaced(server: LocalServer, tmp_path: Path) -> Iterator[Replaced]:
    pair = Replaced(server.binary.path, tmp_path)
    try:
        yield pair
    finally:
        pair.server.stop()


@pytest.fixture
async def store(replaced: Replaced) -> AsyncIterator[ObjectStore]:
    async with natsproto.connect(replaced.server.url, reconnect_wait=0.02) as client:
        yield await client.jetstream().create_object_store(bucket="b")


@pytest.mark.parametrize("limit", [64 * KIB, 2 * KIB, KIB])
async def test_small_from_the_beginning(server: LocalServer, limit: int) -> None:
    """Every verb works within it, and what does not fit is refused before any byte: the connection lives."""
    async with (
        LocalServer(binary=server.binary.path, max_payload=limit) as own,
        natsproto.connect(own.url) as client,
    ):
        store = await client.jetstream().create_object_store(bucket="b")
        assert (await store.put("a", DATA)).chunks == -(-len(DATA) // limit)
        async with store.open_writer("w") as writer:
            await writer.write(DATA)
        upload = await store.begin_upload("u")
        await upload.send(DATA)
        await store.copy("a", "c")
        await store.update_meta("a", ObjectMeta("a", "x" * 100))
        await store.rename("c", "d")
        sent = client.stats.out_msgs
        for call in (
            store.put("a", DATA, chunk_size=limit + 1),
            store.begin_upload("a", chunk_size=limit + 1),
            store.put("a", DATA, "x" * limit),
            store.put("a", b"", metadata={"k": "x" * limit}),
        ):
            with pytest.raises((BadObjectMetaError, MaxPayloadError)):
                await call
        assert client.stats.out_msgs == sent
        with pytest.raises(MaxPayloadError):
            await store.update_meta("a", ObjectMeta("a", "x" * limit))
        for name in ("a", "w", "u", "d"):
            assert await store.get(name) == DATA
        assert await store.get_range("a", 1, 5000) == DATA[1:5000]
        assert sorted(info.name for info in await store.list()) == ["a", "d", "u", "w"]
        assert client.stats.reconnects == 0
        await assert_exact(store)


@pytest.mark.parametrize("limit", [64 * KIB, 4 * KIB])
async def test_smaller_after_a_reconnect(replaced: Replaced, store: ObjectStore, limit: int) -> None:
    """The next put follows; one under way fails, typed, and leaves the old object and no chunks."""
    await store.put("a", DATA)
    new = pattern(8 * CHUNK, 2)

    async def source() -> AsyncIterator[bytes]:
        yield new[: 3 * CHUNK]
        await asyncio.to_thread(replaced.replace, limit)
        yield new[3 * CHUNK :]

    async with asyncio.timeout(60):
        with pytest.raises(MaxPayloadError) as caught:
            await store.put("a", source())
        assert caught.value.max_payload == limit
        assert await store.get("a") == DATA
        await assert_exact(store)
        info = await store.put("a", new)
        assert info.chunks == -(-len(new) // limit)
        assert await store.get("a") == new
        with pytest.raises(BadObjectMetaError, match="max_payload"):
            await store.put("a", DATA, chunk_size=CHUNK)
        await assert_exact(store)


async def test_unfinished_upload_after_a_reconnect(replaced: Replaced, store: ObjectStore) -> None:
    """Its chunk size is fixed by its token: refused, and what is stored stays for a server that takes it."""
    upload = await store.begin_upload("a")

    async def source() -> AsyncIterator[bytes]:
        yield DATA[:CHUNK]
        await asyncio.to_thread(replaced.replace, 64 * KIB)
        yield DATA[CHUNK:]  # a whole chunk among it: the last one might fit

    async with asyncio.timeout(60):
        with pytest.raises(MaxPayloadError):
            await upload.send(source())
        with pytest.raises(BadObjectMetaError, match="max_payload"):
            await upload.send(DATA)
        await asyncio.to_thread(replaced.replace, 1 << 20)
        async with natsproto.connect(replaced.server.url) as client:
            again = await client.jetstream().object_store("b")
            await (await again.begin_upload("a", token=upload.token)).send(DATA)
            assert await again.get("a") == DATA
            await assert_exact(again)
