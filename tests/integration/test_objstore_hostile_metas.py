"""Metas that lie: every way of reading says so, as ``get`` does; none of them succeeds unverified."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from natsproto.errors import NatsError
from objstore import IntegrityError, ObjectStore
from support.objects import CHUNK, forge, pattern, wire_digest

DATA = pattern(3 * CHUNK + 5)
HUGE = 1 << 62


@pytest.fixture(autouse=True)
def short_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is putting anything in order here."""
    for module in ("_get", "_maintain"):
        monkeypatch.setattr(f"objstore.{module}.LOOKS", (0.0, 0.01))


async def get(store: ObjectStore, path: Path, size: int) -> Any:
    return await store.get("a", max_size=1 << 63)


async def get_file(store: ObjectStore, path: Path, size: int) -> Any:
    try:
        return await store.get_file("a", path / "out")
    finally:
        assert os.listdir(path) in ([], ["out"])


async def resumed(store: ObjectStore, path: Path, size: int) -> Any:
    return await store.get_file("a", path / "out", resume=True)


async def read(store: ObjectStore, path: Path, size: int) -> Any:
    async with store.open_reader("a") as reader:
        return await reader.read(100_000_000)


async def read_whole(store: ObjectStore, path: Path, size: int) -> Any:
    async with store.open_reader("a") as reader:
        return await reader.read()


async def iterated(store: ObjectStore, path: Path, size: int) -> Any:
    async with store.open_reader("a") as reader:
        return b"".join([piece async for piece in reader])


async def filled(store: ObjectStore, path: Path, size: int) -> Any:
    async with store.open_reader("a") as reader:
        return await reader.readinto(bytearray(min(size + 1, 100_000_000)))


async def copied(store: ObjectStore, path: Path, size: int) -> Any:
    try:
        return await store.copy("a", "b")
    except BaseException:
        assert not await store.exists("b")
        raise


async def verified(store: ObjectStore, path: Path, size: int) -> Any:
    report = await store.verify(deep=True)
    if not report.ok:
        raise IntegrityError(str(report.problems))


async def ranged(store: ObjectStore, path: Path, size: int) -> Any:
    return await store.get_range("a", 0, size)


Way = Callable[[ObjectStore, Path, int], Awaitable[Any]]
WAYS: list[Way] = [get, get_file, resumed, read, read_whole, iterated, filled, copied, verified]

LIES: dict[str, tuple[bytes, dict[str, Any]]] = {
    "nothing, and another digest": (b"", {"digest": wire_digest(b"x")}),
    "nothing, and no digest": (b"", {"digest": None}),
    "nothing, and a digest nobody can check": (b"", {"digest": "MD5=AAAA"}),
    "nothing, in one chunk that is not there": (b"", {"chunks": 1}),
    "nothing, where there was something": (DATA, {"size": 0, "chunks": 0}),
    "nothing, in four chunks": (DATA, {"size": 0}),
    "another digest": (DATA, {"digest": wire_digest(b"x")}),
    "no digest": (DATA, {"digest": None}),
    "one byte more": (DATA, {"size": len(DATA) + 1}),
    "one byte less": (DATA, {"size": len(DATA) - 1}),
    "one chunk more": (DATA, {"chunks": 5}),
    "one chunk less": (DATA, {"chunks": 3}),
    "huge": (DATA, {"size": HUGE}),
    "huge, in as many chunks as that takes": (DATA, {"size": HUGE, "chunks": HUGE // CHUNK}),
    "huge, and nothing stored": (b"", {"size": HUGE, "chunks": HUGE // CHUNK}),
}


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
async def test_no_way_of_reading_succeeds(store: ObjectStore, tmp_path: Path, lie: str, way: Way) -> None:
    data, changes = LIES[lie]
    await store.put("a", data)
    await forge(store, "a", **changes)
    size = (await store.get_info("a")).size
    async with asyncio.timeout(2 + 5):
        with pytest.raises(NatsError) as caught:
            await way(store, tmp_path, size)
    assert not isinstance(caught.value, LookupError)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("lie", [lie for lie in LIES if "huge" in lie])
async def test_a_range_of_what_no_memory_holds(store: ObjectStore, tmp_path: Path, lie: str) -> None:
    data, changes = LIES[lie]
    await store.put("a", data)
    await forge(store, "a", **changes)
    async with asyncio.timeout(2 + 5):
        with pytest.raises(NatsError):
            await ranged(store, tmp_path, HUGE)


async def test_what_does_not_lie(store: ObjectStore, tmp_path: Path) -> None:
    for data in (b"", DATA):
        info = await store.put("a", data)
        for way in (*WAYS, ranged):
            await way(store, tmp_path, info.size)
            if way is copied:
                await store.delete("b")
            (tmp_path / "out").unlink(missing_ok=True)
