"""Users who may not answer flow control: what a consumer does not deliver is read in other ways."""

from __future__ import annotations

import asyncio
import json
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

DATA = pattern(12 * MIB)
"""More than a server sends without an answer to its flow control (2 MiB), wherever a test begins to read."""

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


async def test_the_rights_where_subjects_have_the_account(new_server: LocalServer) -> None:
    """With ``js_ack_fc_v2`` two tokens stand before the stream."""
    reads = ["STREAM.INFO.OBJ_b", "CONSUMER.CREATE.OBJ_b.>", "CONSUMER.DELETE.OBJ_b.>"]
    works = ["CONSUMER.CREATE.EV.*.ev.>", "CONSUMER.INFO.EV.*", "CONSUMER.MSG.NEXT.EV.w"]
    rights = {
        "reader": [*(f"$JS.API.{each}" for each in reads), "$JS.FC.*.*.OBJ_b.>"],
        "worker": [
            *(f"$JS.API.{each}" for each in works),
            "$JS.ACK.*.*.EV.w.>",
            "$JS.ACK.*.*.EV.p.>",
            "$JS.FC.*.*.EV.p.>",
        ],
    }
    users = ", ".join(
        f"{{ user: {user}, password: p, permissions: {{ publish: {json.dumps(subjects)} }} }}"
        for user, subjects in rights.items()
    )
    config = f"""feature_flags {{ js_ack_fc_v2: true }}
        accounts {{ A {{ jetstream: enabled, users: [ {{ user: all, password: p }}, {users} ] }} }}"""
    about = {"ack_policy": "explicit", "filter_subject": "ev.a"}
    async with (
        asyncio.timeout(60),
        LocalServer(binary=new_server.binary.path, config=config) as server,
        natsproto.connect(server.url, user="all", password="p") as owner,
        natsproto.connect(server.url, user="reader", password="p") as reader,
        natsproto.connect(server.url, user="worker", password="p") as worker,
    ):
        whole = await owner.jetstream().create_object_store(bucket="b")
        await whole.put("a", DATA)
        store = await reader.jetstream().object_store("b")
        assert await store.get("a") == DATA
        async with store.watch() as watcher:
            assert (await anext(aiter(watcher))).name == "a"
        await owner.jetstream().create_stream({"name": "EV", "subjects": ["ev.>"]})
        for _ in range(200):
            await owner.jetstream().publish("ev.a", bytes(20_000))
        js = worker.jetstream()
        pull = await js.pull_consumer("EV", config={"durable_name": "w", **about})
        for msg in await pull.fetch(5):
            await msg.ack_sync()
        config_of = {"durable_name": "p", "flow_control": True, "idle_heartbeat": 10**9, **about}
        async with await js.push_consumer("EV", config=config_of) as push:
            count = 0
            async for msg in push:
                await msg.ack_sync()
                count += 1
                if count == 200:
                    break
        for name, acked in (("w", 5), ("p", 200)):
            info = await owner.jetstream().consumer_info("EV", name)
            assert info.raw["ack_floor"]["consumer_seq"] == acked
