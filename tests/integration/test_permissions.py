"""Users with few rights: what is not allowed is told at once, by the subject that was refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import natsproto
from natsproto.errors import PermissionsViolationError
from natsproto.server import LocalServer
from objstore import ObjectStore
from support.objects import MIB, pattern

DATA = pattern(40 * MIB)
"""More than a server sends without an answer to its flow control."""


@pytest.fixture(params=["new", "old"])
def rights(request: pytest.FixtureRequest) -> LocalServer:
    """A server whose user ``few`` may publish anything but flow control."""
    users = """users: [ { user: all, password: p }
        { user: few, password: p, permissions: { publish: { deny: ["$JS.FC.>"] } } } ]"""
    binary = request.getfixturevalue(f"{request.param}_server").binary.path
    return LocalServer(binary=binary, config=f"accounts {{ A {{ jetstream: enabled, {users} }} }}")


@pytest.fixture
async def few(rights: LocalServer) -> AsyncIterator[ObjectStore]:
    async with rights as server, natsproto.connect(server.url, user="all", password="p") as owner:
        store = await owner.jetstream().create_object_store(bucket="b", allow_direct=False)
        await store.put("a", DATA)
        async with natsproto.connect(server.url, user="few", password="p") as client:
            yield await client.jetstream().object_store("b")


async def got(store: ObjectStore, path: Path) -> Any:
    await store.get("a")


async def filed(store: ObjectStore, path: Path) -> Any:
    await store.get_file("a", path / "out")


async def read(store: ObjectStore, path: Path) -> Any:
    async with store.open_reader("a") as reader:
        async for _ in reader:
            pass


async def ranged(store: ObjectStore, path: Path) -> Any:
    await store.get_range("a", 1, len(DATA))


@pytest.mark.parametrize("way", [got, filed, read, ranged], ids=lambda way: way.__name__)
async def test_without_the_right_to_flow_control(
    few: ObjectStore, tmp_path: Path, way: Callable[[ObjectStore, Path], Awaitable[Any]]
) -> None:
    """The server waits for an answer that never comes, and says nothing: the refusal ends the read."""
    async with asyncio.timeout(5 + 5):
        with pytest.raises(PermissionsViolationError, match=r"\$JS\.FC\.OBJ_b\.") as caught:
            await way(few, tmp_path)
    assert caught.value.operation == "publish"
    assert not (tmp_path / "out").exists()
    assert await few.js.consumer_names("OBJ_b") == []
