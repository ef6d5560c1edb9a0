"""No room: of the bucket, the account, the server, the disk. Nothing is lost, and deleting makes room."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import natsproto
from natsproto.errors import NatsError
from natsproto.jetstream.context import JetStreamContext
from natsproto.server import LocalServer
from objstore import ObjectAlreadyExists, ObjectMeta, ObjectNotFoundError, ObjectStore, StoreFullError
from support.objects import CHUNK, MIB, assert_exact, chunk_counts, pattern
from support.skips import missing

LIMITS = {
    "account": "accounts { A: { jetstream: { max_file: 1MB, max_mem: 1MB },"
    " users: [{user: a, password: p}] } }",
    "server": "jetstream { max_file_store: 1MB, max_memory_store: 1MB }\n"
    "accounts { A: { jetstream: enabled, users: [{user: a, password: p}] } }",
}
CODES = {"account": 10002, "server": 10023}


async def written(store: ObjectStore, data: bytes) -> None:
    async with store.open_writer("new") as writer:
        await writer.write(data)


WRITES: dict[str, Callable[[ObjectStore], Awaitable[Any]]] = {
    "put": lambda store: store.put("new", b"1" * 100),
    "create": lambda store: store.create("new", b"1" * 100),
    "replace": lambda store: store.put("large", b"1" * 100),
    "update_meta": lambda store: store.update_meta("large", ObjectMeta("large", "x" * 500)),
    "rename": lambda store: store.rename("large", "new" * 100),
    "link": lambda store: store.add_bucket_link("link" * 100, "x"),
    "writer": lambda store: written(store, pattern(CHUNK)),
    "copy": lambda store: store.copy("large", "new"),
}


CHANGES = {"replace", "update_meta", "rename"}


@pytest.fixture(params=["account", "server"])
def whose(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def small(server: LocalServer, whose: str) -> AsyncIterator[JetStreamContext]:
    """JetStream with 1 MB for everything."""
    async with (
        LocalServer(binary=server.binary.path, config=LIMITS[whose]) as own,
        natsproto.connect(own.url, user="a", password="p") as client,
    ):
        yield client.jetstream()


async def fill(store: ObjectStore) -> dict[str, bytes]:
    """Objects until there is room for none."""
    kept: dict[str, bytes] = {}
    size = 50_000
    while size:
        try:
            await store.put(f"filling {len(kept)}", pattern(size, len(kept)))
            kept[f"filling {len(kept)}"] = pattern(size, len(kept))
        except StoreFullError:
            size //= 2
    return kept


@pytest.mark.usefixtures("short_doubt")
@pytest.mark.parametrize("storage", ["file", "memory"])
async def test_used_up(small: JetStreamContext, whose: str, storage: str) -> None:
    """10002 and 10023 are a full bucket, in every verb; what was there stays, deleting makes room."""
    store = await small.create_object_store(bucket="b", storage=storage)
    data = pattern(4 * CHUNK)
    await store.put("large", data)
    for source in (pattern(MIB), iter([pattern(CHUNK, n) for n in range(8)])):  # replaced in the middle
        with pytest.raises(StoreFullError) as caught:
            await store.put("large", source)
        assert caught.value.err_code == CODES[whose]
        assert (caught.value.bucket, caught.value.name) == ("b", "large")
        assert await store.get("large") == data
        await assert_exact(store)
    kept = {"large": data, **await fill(store)}
    refusals: list[int] = []
    # nats-server 2.9 forgets the newest message of a subject whose next one it has refused for the account.
    old = small.client.server_info["version"].startswith("2.9.")
    verbs = WRITES.keys() - CHANGES if old else WRITES.keys()
    for verb in sorted(verbs):
        try:
            await WRITES[verb](store)
        except StoreFullError as exc:
            refusals.append(exc.err_code)
    assert refusals == [CODES[whose]] * len(refusals)
    assert len(refusals) >= (len(verbs) if whose == "account" else 2)
    for name, value in kept.items():
        assert await store.get(name) == value
    assert (await store.verify()).ok
    for name in list(kept):
        if name != "large":
            await store.delete(name)
    assert await store.delete("large") is True
    for info in await store.list():  # a server looks before a message, not at what it would take
        await store.delete(info.name)
    with pytest.raises(ObjectNotFoundError):
        await store.get("large")
    await store.put("again", pattern(3 * CHUNK))
    assert await store.get("again") == pattern(3 * CHUNK)
    assert [info.name for info in await store.list()] == ["again"]
    await assert_exact(store)


async def test_failed_puts_take_nothing(small: JetStreamContext) -> None:
    """Their chunks count no more; nats-server 2.9 goes on counting what is purged by subject."""
    store = await small.create_object_store(bucket="b")
    await store.put("a", pattern(3 * CHUNK))
    for _ in range(5):
        with pytest.raises(StoreFullError):
            await store.put("b", pattern(6 * CHUNK))
    await store.put("b", pattern(3 * CHUNK))
    await assert_exact(store)


@pytest.mark.usefixtures("short_doubt")
async def test_deleted_through_another_handle(small: JetStreamContext) -> None:
    store = await small.create_object_store(bucket="b")
    await store.put("large", pattern(5 * CHUNK))
    await fill(store)
    other = await small.object_store("b")
    await other.delete("large")
    await other.put("again", pattern(3 * CHUNK))
    assert await store.get("again") == pattern(3 * CHUNK)


@pytest.mark.usefixtures("short_doubt")
async def test_others_find_what_was_not_changed(small: JetStreamContext) -> None:
    """nats-server 2.9 does not find the newest message of a subject whose next one it has refused."""
    store = await small.create_object_store(bucket="b")
    data = pattern(4 * CHUNK)
    info = await store.put("large", data)
    await store.put("small", b"1")
    kept = await fill(store)
    with pytest.raises(StoreFullError):
        await store.update_meta("large", ObjectMeta("large", "x" * 500))
    for name in kept:
        await store.delete(name)
    for verb in ("get", "get_info", "exists", "create", "rename", "delete"):
        other = await small.object_store("b")
        match verb:
            case "get":
                assert await other.get("large") == data
            case "get_info":
                assert (await other.get_info("large")).revision == info.revision
            case "exists":
                assert await other.exists("large")
            case "create":
                with pytest.raises(ObjectAlreadyExists):
                    await other.create("large", b"another")
            case "rename":
                with pytest.raises(ObjectAlreadyExists):
                    await other.rename("small", "large")
            case "delete":
                assert (await other.gc(older_than=timedelta(0))).orphans == []
                assert await other.get("large") == data
                assert await other.delete("large")
    with pytest.raises(ObjectNotFoundError):
        await store.get("large")


@pytest.mark.parametrize(
    ("limits", "params", "code"),
    [
        ("max_file: 1MB", {"max_bytes": 2_000_000}, 10047),
        ("max_file: 1MB, max_mem: 1MB", {"max_bytes": 2_000_000, "storage": "memory"}, 10028),
        ("max_file: 1GB, disk_max_stream_bytes: 1MB", {"max_bytes": 2_000_000}, 10122),
        ("max_file: 1GB, max_streams: 1", {"max_bytes": 2_000_000}, 10027),
    ],
    ids=lambda value: str(value) if isinstance(value, int) else "",
)
async def test_creation(server: LocalServer, limits: str, params: dict[str, Any], code: int) -> None:
    config = f"accounts {{ A: {{ jetstream: {{ {limits} }}, users: [ {{user: a, password: p}} ] }} }}"
    async with (
        LocalServer(binary=server.binary.path, config=config) as own,
        natsproto.connect(own.url, user="a", password="p") as client,
        asyncio.timeout(20),
    ):
        js = client.jetstream()
        await js.create_object_store(bucket="first", max_bytes=1000)
        for call in (js.create_object_store, js.create_or_update_object_store):
            with pytest.raises(StoreFullError, match="'b'") as caught:
                await call(bucket="b", **params)
            assert (caught.value.err_code, caught.value.bucket) == (code, "b")
        assert await js.object_store_names() == ["first"]
        if code in (10047, 10122):
            with pytest.raises(StoreFullError):
                await js.update_object_store(bucket="first", **params)


# -- the disk itself ----------------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 12 MiB."""
    if os.geteuid() or not Path("/proc/mounts").exists():
        missing("root, for a file system of its own size,")
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "none", str(place)]).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


async def test_disk_full(server: LocalServer, disk: Path) -> None:
    """ENOSPC: silence on every server. A bounded, typed error; with room again, everything is there."""
    old, new = pattern(4 * MIB, 1), pattern(16 * MIB, 2)
    loop = asyncio.get_running_loop()
    answers = not server.version.startswith("2.9.")
    with LocalServer(binary=server.binary.path, store_dir=str(disk)) as own:
        async with natsproto.connect(own.url, reconnect_wait=0.05) as client:
            store = await client.jetstream().create_object_store(bucket="b")
            await store.put("a", old)
            store.bound_bucket.js.timeout = 0.5
            hurried = store.with_options(retry_budget=2)
            # nats-server 2.9 answers nothing any more from here on.
            for name in ("a", "b") if answers else ("a",):
                began = loop.time()
                with pytest.raises(NatsError) as caught:
                    await hurried.put(name, new)
                assert isinstance(caught.value, StoreFullError | TimeoutError | ConnectionError)
                assert loop.time() - began < 2 * 2 + 5, (
                    "the budget, as much for cleaning up, and some to spare"
                )
            if answers:
                with pytest.raises((NatsError, TimeoutError)):
                    await hurried.delete("a")
                assert await store.get("a") == old
            await asyncio.to_thread(own.kill)
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        await asyncio.to_thread(own.start)
        async with natsproto.connect(own.url) as client:
            store = await client.jetstream().object_store("b")
            assert await store.get("a") == old
            await store.gc(older_than=timedelta(0))
            await assert_exact(store)
            await store.put("a", new)
            assert await store.get("a") == new
            await store.delete("a")
            assert await chunk_counts(store) == {}
