"""Memory of a transfer is free when the transfer is over: nothing waits for the cyclic garbage collector."""

from __future__ import annotations

import gc
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from objstore import ObjectStore
from support.objects import pattern

SIZE = 1_000_000


async def read(store: ObjectStore) -> None:
    buffer = bytearray(100_000)
    async with store.open_reader("a") as reader:
        await reader.readinto(buffer)
        await reader.seek(SIZE - 10)
        assert len(await reader.read()) == 10


async def write(store: ObjectStore) -> None:
    async with store.open_writer("written") as writer:
        await writer.write(pattern(SIZE))


async def put(store: ObjectStore) -> None:
    await store.put("put", pattern(SIZE))


async def get(store: ObjectStore) -> None:
    await store.get("a")


async def get_range(store: ObjectStore) -> None:
    await store.get_range("a", 100_000, 900_000)


async def files(store: ObjectStore) -> None:
    Path("file").write_bytes(pattern(SIZE))
    await store.put_file("file", "file")
    await store.get_file("file", "copy")


async def iterate(store: ObjectStore) -> None:
    await store.list()
    assert [info.name async for info in store.iter() if info.name == "a"] == ["a"]


@pytest.mark.parametrize("use", [put, get, get_range, read, write, files, iterate], ids=lambda f: f.__name__)
async def test_nothing_is_left_to_the_collector(
    store: ObjectStore,
    use: Callable[[ObjectStore], Awaitable[None]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    await store.put("a", pattern(SIZE))
    await use(store)  # what is made once stays
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        for _ in range(3):
            await use(store)
        gc.collect()
        held = [type(found).__qualname__ for found in gc.garbage]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    buffers = [name for name in held if name in ("memoryview", "BytesIO", "PickleBuffer") or "Sink" in name]
    assert buffers == [], held
