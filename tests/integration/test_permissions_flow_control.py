"""Users who may not answer flow control: what a consumer does not deliver is read in other ways."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
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

PATIENCE = 60.0
"""Seconds for which a read waits for a consumer that sends nothing."""


@pytest.fixture(params=["new", "old"])
def any_binary(request: pytest.FixtureRequest) -> Path:
    return Path(request.getfixturevalue(f"{request.param}_server").binary.path)


DENIED = {
    "leader": ["$JS.FC.>", "$JS.API.DIRECT.>"],
    "direct": ["$JS.FC.>", "$JS.API.STREAM.MSG.GET.>"],
    "none": ["$JS.FC.>", "$JS.API.STREAM.MSG.GET.>", "$JS.API.DIRECT.>"],
}
"""What a user may not publish who may not answer flow control, and has these other ways to read."""


@asynccontextmanager
async def unanswering(
    binary: Path, ways: str, *, direct: bool = True
) -> AsyncIterator[tuple[ObjectStore, ObjectStore]]:
    """A bucket as its owner has opened it, and as a user without the right to flow control has."""
    denied = ", ".join(f'"{subject}"' for subject in DENIED[ways])
    users = f"""users: [ {{ user: all, password: p }}
        {{ user: few, password: p, permissions: {{ publish: {{ deny: [{denied}] }} }} }} ]"""
    config = f"accounts {{ A {{ jetstream: enabled, {users} }} }}"
    async with (
        LocalServer(binary=binary, config=config) as server,
        natsproto.connect(server.url, user="all", password="p") as owner,
        natsproto.connect(server.url, user="few", password="p", retry_budget=PATIENCE) as client,
    ):
        whole = await owner.jetstream().create_object_store(bucket="b", allow_direct=direct)
        yield whole, await client.jetstream().object_store("b")


async def got(store: ObjectStore, path: Path) -> bytes:
    return await store.get("a")


async def filed(store: ObjectStore, path: Path) -> bytes:
    await store.get_file("a", path / "out")
    return (path / "out").read_bytes()


async def read(store: ObjectStore, path: Path) -> bytes:
    async with store.open_reader("a") as reader:
        return b"".join([piece async for piece in reader])


async def sought(store: ObjectStore, path: Path) -> bytes:
    async with store.open_reader("a") as reader:
        await reader.seek(3)
        return DATA[:3] + await reader.read()


async def ranged(store: ObjectStore, path: Path) -> bytes:
    return DATA[:5] + await store.get_range("a", 5, len(DATA))


async def between(store: ObjectStore, path: Path) -> bytes:
    end = len(DATA) - 3 * MIB
    return DATA[: 3 * MIB] + await store.get_range("a", 3 * MIB, end) + DATA[end:]


async def verified(store: ObjectStore, path: Path) -> bytes:
    assert (await store.verify(deep=True)).ok
    return DATA


Way = Callable[[ObjectStore, Path], Awaitable[bytes]]
MANY_BYTES: list[Way] = [got, filed, read, sought, ranged, between, verified]


@pytest.mark.parametrize(
    ("way", "ways"),
    [*((way, "leader") for way in MANY_BYTES), (got, "direct"), (ranged, "direct")],
    ids=lambda value: getattr(value, "__name__", value),
)
async def test_without_the_right_to_flow_control(
    any_binary: Path, tmp_path: Path, way: Way, ways: str
) -> None:
    """The server waits for an answer that never comes, and says nothing: the rest is read in other ways."""
    async with unanswering(any_binary, ways, direct=ways != "leader") as (whole, few):
        await whole.put("a", DATA)
        for _ in range(2):
            async with asyncio.timeout(PATIENCE - 5):  # and not that long without a byte
                assert await way(few, tmp_path) == DATA
        assert await few.js.consumer_names("OBJ_b") == []


@pytest.mark.parametrize("way", [got, filed, sought, between], ids=lambda way: way.__name__)
async def test_without_flow_control_and_another_way(any_binary: Path, tmp_path: Path, way: Way) -> None:
    """The refusal ends the read. What needs no flow control is read."""
    async with unanswering(any_binary, "none") as (whole, few):
        await whole.put("a", DATA)
        await whole.put("s", DATA[:300_000])
        for _ in range(2):
            async with asyncio.timeout(PATIENCE - 5):
                with pytest.raises(PermissionsViolationError, match=r"\$JS\.FC\.OBJ_b\.") as caught:
                    await way(few, tmp_path)
            assert caught.value.operation == "publish"
            assert await few.get("s") == DATA[:300_000]
            assert await few.get_range("s", 1, 200_000) == DATA[1:200_000]
        assert not (tmp_path / "out").exists()
        assert await few.js.consumer_names("OBJ_b") == []


async def test_a_refused_answer_is_remembered(any_binary: Path) -> None:
    """The next read asks for no consumer; what counts by one still does."""
    async with unanswering(any_binary, "leader", direct=False) as (whole, few):
        await whole.put("a", DATA[: 4 * MIB])
        await few.get("a")
        asked: list[str] = []
        create = few.bound_bucket.js.create_consumer

        async def counted(stream: str, config: Any, **options: Any) -> Any:
            asked.append(config.get("deliver_subject", "a count"))
            return await create(stream, config, **options)

        few.bound_bucket.js.create_consumer = counted  # type: ignore[method-assign]
        assert await few.get("a") == DATA[: 4 * MIB]
        assert await few.get_range("a", MIB, 4 * MIB) == DATA[MIB : 4 * MIB]
        assert set(asked) == {"a count"}


@pytest.mark.parametrize("ways", ["leader", "none"])
async def test_lists_of_many_names_without_flow_control(
    any_binary: Path, new_server: LocalServer, ways: str
) -> None:
    async with unanswering(any_binary, ways) as (whole, few):
        names = [f"{number:03}" for number in range(100)]
        for name in names:
            await whole.put(name, b"", description="d" * (len(DATA) // 100))
        for _ in range(2):
            async with asyncio.timeout(PATIENCE - 5):
                assert sorted(info.name for info in await few.list()) == names
                assert sorted([info.name async for info in few.iter()]) == names
                assert (await few.verify()).ok
        if any_binary == Path(new_server.binary.path):  # a watch of 2.9 reads name by name anyway
            with pytest.raises(PermissionsViolationError, match=r"\$JS\.FC\.OBJ_b\."):
                async with asyncio.timeout(PATIENCE - 5), few.watch() as watcher:
                    async for _ in watcher:
                        pass
