"""What goes wrong elsewhere and no other test looks at; tests/README.md has the table of all traps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from typing import Any

import pytest

import natsproto
from natsproto.jetstream.context import JetStreamContext
from natsproto.server import LocalServer, find_server
from natsproto.testing import FaultProxy
from natsproto.wire import Msg, Pub
from objstore import LinkError, ObjectLink, ObjectMeta, ObjectMetaOptions, ObjectStore
from support.objects import (
    CHUNK,
    MIB,
    chunk_subject,
    impatient,
    meta_subject,
    pattern,
    read_raw,
    stream,
    write_raw,
)
from support.skips import left_out

LIMIT = 30.0


@pytest.fixture
async def proxy(server: LocalServer) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(server.url) as proxy:
        yield proxy
        assert proxy.errors == []


@pytest.fixture(scope="module")
def hub() -> Iterator[LocalServer]:
    """A server with a domain, whose acknowledgement subjects are the longer ones where it can write them."""
    config = "feature_flags { js_ack_fc_v2: true }" if find_server().version_info >= (2, 14) else None
    with LocalServer(config=config, domain="hub") as server:
        yield server


def asked(proxy: FaultProxy) -> list[str]:
    """The subjects of what the client publishes from now on."""
    subjects: list[str] = []

    def hook(event: Any, raw: bytes) -> None:
        if isinstance(event, Pub):
            subjects.append(event.subject.decode())

    proxy.to_server = hook
    return subjects


async def read_everything(store: ObjectStore, data: bytes) -> None:
    """Every way of reading; the object is ``a``, the only one."""
    async with asyncio.timeout(LIMIT):
        assert await store.get("a") == data
        assert await store.get_range("a", 5, 9) == data[5:9]
        assert (await store.get_info("a")).size == len(data)
        assert [info.name for info in await store.list()] == ["a"]
        assert [info.name async for info in store.iter()] == ["a"]
        assert await store.names() == ["a"]
        async with store.watch() as watcher:
            assert (await anext(watcher)).name == "a"


async def test_headers_are_lists_in_every_meta(store: ObjectStore) -> None:
    """T1: whichever call wrote it."""
    await store.put("a", b"1", headers={"K": "v"})
    assert (await read_raw(store, "a"))["headers"] == {"K": ["v"]}
    await store.update_meta("a", ObjectMeta("a", headers={"K": "w"}))
    assert (await read_raw(store, "a"))["headers"] == {"K": ["w"]}
    options = ObjectMetaOptions(ObjectLink(store.bucket, "a"))
    await store.update_meta("l", ObjectMeta("l", headers={"K": "x"}, options=options))
    assert (await read_raw(store, "l"))["headers"] == {"K": ["x"]}
    await store.update_meta("a", ObjectMeta("b"))
    await store.delete("b")
    for name in ("a", "b"):
        assert (await read_raw(store, name))["headers"] == {"K": ["w"]}


async def test_every_meta_has_a_time(store: ObjectStore) -> None:
    """T2: also delete markers, those of a rename, and links."""
    info = await store.put("a", b"1")
    await store.add_link("l", info)
    await store.add_bucket_link("m", store.bucket)
    await store.update_meta("a", ObjectMeta("b"))
    await store.delete("b")
    for name in ("a", "b", "l", "m"):
        assert datetime.fromisoformat((await read_raw(store, name))["mtime"]).year >= 2020


async def test_longer_acknowledgement_subjects(hub: LocalServer) -> None:
    """T3: object, list and watch through consumers."""
    if find_server().version_info < (2, 14):
        left_out("the server has one form only")
    replies: list[bytes] = []

    def hook(event: Any, raw: bytes) -> None:
        if isinstance(event, Msg) and event.reply is not None and event.reply.startswith(b"$JS.ACK."):
            replies.append(event.reply)

    async with FaultProxy(hub.url) as proxy, natsproto.connect(proxy.url) as client:
        proxy.to_client = hook
        js = client.jetstream()
        store = await js.create_object_store(bucket="acks", allow_direct=False)
        data = pattern(5 * CHUNK)
        await store.put("a", data)
        await read_everything(store, data)
        await js.delete_object_store("acks")
    assert replies
    assert min(len(reply.split(b".")) for reply in replies) >= 11, "the flag had no effect"


async def test_every_flow_control_request_is_answered(
    proxy: FaultProxy, js: JetStreamContext, bucket_name: str
) -> None:
    """T5: sixteen chunks are what the server sends without an answer."""
    store = await js.create_object_store(bucket=bucket_name, allow_direct=False)
    data = pattern(64 * CHUNK)
    await store.put("a", data)
    answers = asked(proxy)
    requests: list[str] = []

    def hook(event: Any, raw: bytes) -> None:
        if isinstance(event, Msg) and event.header is not None and b"FlowControl Request" in event.header:
            assert event.reply is not None
            requests.append(event.reply.decode())

    proxy.to_client = hook
    async with natsproto.connect(proxy.url) as client, asyncio.timeout(LIMIT):
        assert await (await client.jetstream().object_store(bucket_name)).get("a") == data
    assert len(requests) > 1
    assert set(requests[:-1]) <= set(answers)  # at the last one the object may have been complete
    await js.delete_object_store(bucket_name)


async def test_one_meta_per_name(store: ObjectStore) -> None:
    """T7: every change replaces the meta before it."""
    info = await store.put("a", b"1")
    await store.put("a", b"2")
    await store.update_meta("a", ObjectMeta("a", "d"))
    for _ in range(2):
        await store.add_link("l", info)
        await store.add_bucket_link("m", store.bucket)
    await store.update_meta("l", ObjectMeta("l", "d"))
    await store.update_meta("a", ObjectMeta("b"))
    await store.delete("b")
    counts = await store.js.stream_subjects(stream(store), f"$O.{store.bucket}.M.>")
    assert counts == {meta_subject(store, name): 1 for name in ("a", "b", "l", "m")}


async def test_links_have_a_nuid(store: ObjectStore) -> None:
    """T8: some readers refuse a meta without one."""
    await store.add_link("l", await store.put("a", b"1"))
    await store.add_bucket_link("m", store.bucket)
    nuids = {(await read_raw(store, name))["nuid"] for name in ("a", "l", "m")}
    assert len(nuids) == 3
    assert all(nuids)


async def test_slow_transfers_have_no_deadline(proxy: FaultProxy, store: ObjectStore) -> None:
    """T12: the timeout is one of silence, not of the whole object."""
    data = pattern(8 * CHUNK)
    patience = 0.5
    loop = asyncio.get_running_loop()
    async with natsproto.connect(proxy.url) as client, asyncio.timeout(LIMIT):
        mine = await impatient(client, store.bucket, patience)
        await store.put("a", data)
        proxy.rate = 1_500_000.0
        started = loop.time()
        assert await mine.get("a") == data
        assert loop.time() - started > patience


async def test_no_search_for_the_stream(proxy: FaultProxy, store: ObjectStore) -> None:
    """T13: its name is known, so nothing is asked of all streams."""
    data = pattern(3 * CHUNK)
    await store.put("a", data)
    subjects = asked(proxy)
    async with natsproto.connect(proxy.url) as client:
        await read_everything(await client.jetstream().object_store(store.bucket), data)
    assert subjects
    assert not [s for s in subjects if s.startswith(("$JS.API.STREAM.NAMES", "$JS.API.STREAM.LIST"))]


@pytest.mark.parametrize("storage", ["file", "memory"])
async def test_only_delete_markers(js: JetStreamContext, bucket_name: str, storage: str) -> None:
    """T14: nothing to show is shown at once."""
    store = await js.create_object_store(bucket=bucket_name, storage=storage)
    for name in ("a", "b"):
        await store.put(name, b"1")
        await store.delete(name)
    async with asyncio.timeout(LIMIT):
        assert await store.list() == []
        assert [info async for info in store.iter()] == []
        async with store.watch(ignore_deletes=True) as watcher:
            await watcher.caught_up
            await store.put("c", b"1")
            assert (await anext(watcher)).name == "c"
    await js.delete_object_store(bucket_name)


async def test_listing_does_not_depend_on_chunks(store: ObjectStore) -> None:
    """T15: few messages come, however many chunks there are."""
    await store.put("a", pattern(1000), chunk_size=1)
    await asyncio.gather(*(store.js.publish(chunk_subject(store, f"n{n}"), b"x") for n in range(200)))
    stats = store.js.client.stats
    before = stats.in_msgs, stats.in_bytes
    assert [info.name for info in await store.list()] == ["a"]
    assert (await store.status()).count == 1
    assert await store.count() == 1
    assert stats.in_msgs - before[0] < 20
    assert stats.in_bytes - before[1] < 32 * 1024


async def test_links_make_no_bucket(js: JetStreamContext, store: ObjectStore) -> None:
    """T16: a link into a bucket that is not there."""
    nowhere = store.bucket + "-nowhere"
    document = {"name": "l", "bucket": store.bucket, "options": {"link": {"bucket": nowhere, "name": "a"}}}
    await write_raw(js, meta_subject(store, "l"), document)
    with pytest.raises(LinkError):
        await store.get("l")
    with pytest.raises(LookupError):
        await store.add_link("m", ObjectLink(nowhere, "a"))
    assert nowhere not in await js.object_store_names()


async def test_arguments_are_not_written_to(store: ObjectStore) -> None:
    """T19: what the caller passed is the caller's."""
    headers: dict[str, Any] = {"K": "1", "L": ["2"]}
    metadata = {"m": "n"}
    meta = ObjectMeta("a", "d", headers, metadata=metadata, filename="f")
    await store.put("a", b"1", "d", "f", headers, metadata=metadata)
    await store.update_meta("a", meta)
    assert (headers, metadata) == ({"K": "1", "L": ["2"]}, {"m": "n"})
    headers["K"] = "changed"
    assert (await store.get_info("a")).headers == {"K": "1", "L": ["2"]}


@pytest.mark.parametrize("direct", [True, False])
async def test_every_request_honours_the_domain(hub: LocalServer, direct: bool) -> None:
    """T23: also direct get, and the batches of it."""
    async with FaultProxy(hub.url) as proxy, natsproto.connect(proxy.url) as client:
        subjects = asked(proxy)
        js = client.jetstream(domain="hub")
        store = await js.create_object_store(bucket="b", allow_direct=direct)
        data = pattern(MIB)
        await store.put("a", data)
        await read_everything(store, data)
        await store.delete("a")
        await js.delete_object_store("b")
    requests = [s for s in subjects if s.startswith("$JS.") and not s.startswith(("$JS.ACK.", "$JS.FC."))]
    assert requests
    assert not [s for s in requests if not s.startswith("$JS.hub.API.")]
    assert direct == any(s.startswith("$JS.hub.API.DIRECT.GET.") for s in requests)
