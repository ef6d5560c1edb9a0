"""Streams made or edited by hand: what is acknowledged can be read; what cannot be kept is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

import natsproto
from natsproto.errors import APIError, NatsError
from natsproto.jetstream.context import JetStreamContext
from natsproto.server import LocalServer
from objstore import (
    BadBucketError,
    BadObjectMetaError,
    BucketSealedError,
    ForeignBucketError,
    ObjectMeta,
    ObjectStore,
    StoreFullError,
)
from objstore.bucket import bucket as _bucket
from objstore.bucket.capacity import check_meta_room
from objstore.manager import _stored
from support.objects import CHUNK, KIB, MIB, assert_exact, chunk_counts, pattern, stream

CALLS: dict[str, Callable[[ObjectStore], Awaitable[Any]]] = {
    "put": lambda store: store.put("new", b"1"),
    "create": lambda store: store.create("new", b"1"),
    "pieces": lambda store: store.put("new", iter([b"1", b"2"])),
    "writer": lambda store: written(store, b"1"),
    "upload": lambda store: store.begin_upload("new"),
    "delete": lambda store: store.delete("old"),
    "update_meta": lambda store: store.update_meta("old", ObjectMeta("old", "x")),
    "rename": lambda store: store.rename("old", "new"),
    "copy": lambda store: store.copy("old", "new"),
    "link": lambda store: store.add_bucket_link("new", "x"),
    "purge_deleted": lambda store: store.purge_deleted(),
}
WRITES = {key: call for key, call in CALLS.items() if key != "copy"}  # it reads first


TYPED = (BadBucketError, StoreFullError, APIError)


async def written(store: ObjectStore, *pieces: bytes, **options: Any) -> None:
    async with store.open_writer("new", **options) as writer:
        for piece in pieces:
            await writer.write(piece)


async def make(js: JetStreamContext, bucket: str, **change: Any) -> ObjectStore:
    """A stream as somebody would make it by hand, opened."""
    config = {
        "name": f"OBJ_{bucket}",
        "subjects": [f"$O.{bucket}.C.>", f"$O.{bucket}.M.>"],
        "allow_rollup_hdrs": True,
        "allow_direct": True,
        "discard": "new",
        **change,
    }
    await _stored(lambda: js.create_stream(config))
    return await js.object_store(bucket)


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was learnt when a bucket was opened is not old on a busy machine, and who asks gets an answer."""
    monkeypatch.setattr(_bucket, "CONFIG_AGE", 3600.0)
    monkeypatch.setattr(_bucket, "CONFIG_TIMEOUT", 10.0)


async def change(store: ObjectStore, **fields: Any) -> None:
    """Another client changes the stream."""
    config = (await store.js.stream_info(stream(store))).config.to_json()
    await store.js.update_stream({**config, **fields})


@pytest.fixture
async def name(js: JetStreamContext, bucket_name: str) -> AsyncIterator[str]:
    yield bucket_name
    await js.delete_stream(f"OBJ_{bucket_name}")


async def assert_kept(store: ObjectStore, objects: dict[str, bytes]) -> None:
    """Exactly these are there, and all can be read."""
    assert {info.name for info in await store.list()} == objects.keys()
    for key, data in objects.items():
        assert await store.get(key) == data
    assert (await store.verify()).ok


# -- what cannot keep objects at all ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"retention": "interest"}, "retention"),
        ({"retention": "workqueue"}, "retention"),
        ({"no_ack": True}, "no_ack"),
        ({"allow_rollup_hdrs": False}, "allow_rollup_hdrs"),
        ({"allow_rollup_hdrs": False, "deny_purge": True}, "deny_purge"),
        ({"subjects": ["$O.{bucket}.C.>"]}, "subjects"),
        ({"subject_transform": {"src": ">", "dest": "x.>"}}, "subject_transform"),
        ({"allow_msg_counter": True, "discard": "old"}, "allow_msg_counter"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_refused(
    server: LocalServer, js: JetStreamContext, name: str, wrong: dict[str, Any], field: str
) -> None:
    """Known when the bucket is opened; refused before a byte, by every verb that writes."""
    if "subjects" in wrong:
        wrong = {"subjects": [f"$O.{name}.C.>"]}
    store = await make(js, name, **wrong)
    if server.version.startswith("2.9.") and field in ("subject_transform", "allow_msg_counter"):
        await store.put("new", b"1")  # it does not know the field, and does not act on it
        return
    sent = js.client.stats.out_msgs
    for verb, call in WRITES.items():
        with pytest.raises(BadBucketError, match=field) as caught:
            await call(store)
        assert (caught.value.bucket, caught.value.field) == (name, field), verb
        assert caught.value.value == wrong[field]
    assert js.client.stats.out_msgs == sent
    assert await store.names() == []


@pytest.mark.parametrize("fields", [{"no_ack": True}, {"allow_rollup_hdrs": False}], ids=str)
async def test_reading_goes_on(js: JetStreamContext, name: str, fields: dict[str, Any]) -> None:
    store = await make(js, name)
    data = pattern(3 * CHUNK)
    await store.put("old", data)
    await change(store, **fields)
    store = await js.object_store(name)
    await assert_kept(store, {"old": data})
    assert await store.names() == ["old"]
    assert (await store.gc()).orphans == []
    assert await store.get_range("old", CHUNK - 1, CHUNK + 1) == data[CHUNK - 1 : CHUNK + 1]
    async with store.watch() as watcher:
        assert (await anext(watcher)).name == "old"
    for call in CALLS.values():
        with pytest.raises(BadBucketError, match=next(iter(fields))):
            await call(store)
    await assert_kept(store, {"old": data})


async def test_mended(js: JetStreamContext, name: str) -> None:
    """What the error says helps; ``update_object_store`` does it, too."""
    store = await make(js, name, allow_rollup_hdrs=False, discard="old", max_bytes=MIB)
    with pytest.raises(BadBucketError, match="set allow_rollup_hdrs to true"):
        await store.put("a", b"1")
    store = await js.update_object_store(bucket=name)
    await store.put("a", b"1")
    assert await store.get("a") == b"1"
    config = (await js.stream_info(stream(store))).config
    assert (config.discard, config.max_bytes) == ("new", MIB)


async def test_sealed_is_known_at_open(js: JetStreamContext, name: str) -> None:
    store = await make(js, name)
    await store.put("old", b"1")
    await store.seal()
    store = await js.object_store(name)
    sent = js.client.stats.out_msgs
    for call in WRITES.values():
        with pytest.raises(BucketSealedError):
            await call(store)
    assert js.client.stats.out_msgs == sent
    assert await store.get("old") == b"1"


# -- small objects only ----------------------------------------------------------------------------


@pytest.mark.parametrize("discard", ["old", "new"])
@pytest.mark.parametrize("most", [1, 3])
async def test_few_messages_per_subject(js: JetStreamContext, name: str, discard: str, most: int) -> None:
    store = await make(js, name, max_msgs_per_subject=most, discard=discard)
    data = pattern(most * CHUNK)
    for _ in range(2):
        await store.put("fits", data)
    await written(store, data[:100], data[100:])
    await store.put("empty", b"")
    await store.update_meta("fits", ObjectMeta("fits", "x"))
    objects = {"fits": data, "new": data, "empty": b""}
    more = data + b"1"
    sent = js.client.stats.out_msgs
    for sized in (
        store.put("fits", more),
        store.create("other", more),
        store.put("other", more, atomic=False),
    ):
        with pytest.raises(BadBucketError) as caught:
            await sized
        assert (caught.value.field, caught.value.value) == ("max_msgs_per_subject", most)
    assert js.client.stats.out_msgs == sent
    for unsized in (
        store.put("fits", iter([data, b"1"])),
        written(store, data, b"1"),
        store.copy("fits", "copy", chunk_size=CHUNK - 1),
    ):
        with pytest.raises(BadBucketError, match="max_msgs_per_subject"):
            await unsized
    await store.put("larger chunks", more, chunk_size=256 * KIB)
    objects["larger chunks"] = more
    upload = await store.begin_upload("upload")
    with pytest.raises(BadBucketError):
        await upload.send(more)
    await upload.send(data)
    objects["upload"] = data
    await store.rename("fits", "renamed")
    objects["renamed"] = objects.pop("fits")
    await assert_kept(store, objects)
    await assert_exact(store)
    await store.delete("new")
    objects.pop("new")
    await assert_kept(store, objects)


async def test_refused_messages_per_subject(js: JetStreamContext, name: str) -> None:
    """The server refuses what is too much instead of dropping what was there: nothing is lost either way."""
    store = await make(js, name, max_msgs_per_subject=1, discard_new_per_subject=True)
    await store.put("a", b"1")
    with pytest.raises(BadBucketError, match="max_msgs_per_subject"):
        await store.put("a", pattern(2 * CHUNK))
    try:
        await store.put("a", b"2")
        kept = b"2"
    except StoreFullError:  # nats-server 2.9 looks before the roll-up
        kept = b"1"
    await assert_kept(store, {"a": kept})
    await store.delete("a")
    await store.put("b", b"3")
    await assert_kept(store, {"b": b"3"})


async def test_small_messages(js: JetStreamContext, name: str) -> None:
    """The default chunk size follows max_msg_size; what is asked for and does not fit is refused."""
    store = await make(js, name, max_msg_size=1000)
    data = pattern(2500)
    assert (await store.put("a", data)).chunks == 3
    await written(store, data)
    await store.update_meta("a", ObjectMeta("a", "x" * 100))
    await store.copy("a", "copy")
    large = await js.create_object_store(bucket=f"{name}-2")
    await large.put("far", pattern(CHUNK), "text")
    await large.copy("far", "far", to=store)
    await js.delete_object_store(large.bucket)
    sent = js.client.stats.out_msgs
    with pytest.raises(BadObjectMetaError, match="max_msg_size"):
        await store.put("a", data, chunk_size=1001)
    with pytest.raises(BadBucketError, match="max_msg_size") as caught:
        await store.put("a", data, "x" * 900)
    assert (caught.value.field, caught.value.value) == ("max_msg_size", 1000)
    assert js.client.stats.out_msgs == sent
    with pytest.raises(APIError, match="max_msg_size"):
        await store.update_meta("a", ObjectMeta("a", "x" * 900))
    assert (await store.get_info("a")).description == "x" * 100
    await store.delete("copy")
    await assert_kept(store, {"a": data, "new": data, "far": pattern(CHUNK)})
    await assert_exact(store)


@pytest.mark.parametrize("size", [10, 200])
async def test_messages_too_small_for_a_meta(js: JetStreamContext, name: str, size: int) -> None:
    store = await make(js, name, max_msg_size=size)
    sent = js.client.stats.out_msgs
    for call in (
        store.put("a", b"1"),
        store.put("a", b""),
        store.put("a", pattern(CHUNK)),
        written(store, b"1"),
    ):
        with pytest.raises(BadBucketError, match="max_msg_size"):
            await call
    assert js.client.stats.out_msgs == sent


# -- streams that make room ------------------------------------------------------------------------


@pytest.mark.usefixtures("short_doubt")
@pytest.mark.parametrize("storage", ["file", "memory"])
async def test_every_last_byte(js: JetStreamContext, bucket_name: str, storage: str) -> None:
    """nats-server 2.9 begins to discard close to the limit, also where it is told to refuse."""
    for limit in range(5000, 5480, 40):
        store = await js.create_object_store(bucket=bucket_name, max_bytes=limit, storage=storage)
        kept: dict[str, bytes] = {}
        with pytest.raises(StoreFullError) as caught:
            for number in range(20):
                await store.put(f"o{number}", pattern(100, number))
                kept[f"o{number}"] = pattern(100, number)
        assert caught.value.err_code == 10077
        assert len(kept) > 6, "what fits is taken"
        await assert_kept(store, kept)
        await js.delete_object_store(bucket_name)


@pytest.mark.parametrize("storage", ["file", "memory"])
@pytest.mark.parametrize("size", [1, 1000, 130_000])
async def test_nothing_acknowledged_is_discarded(
    js: JetStreamContext, name: str, storage: str, size: int
) -> None:
    limit = 60_000 if size < 1001 else MIB
    store = await make(js, name, discard="old", max_bytes=limit, storage=storage)
    kept: dict[str, bytes] = {}
    with pytest.raises(StoreFullError, match="discard 'old'") as caught:
        for number in range(1000):
            data = pattern(size, number)
            await store.put(f"o{number}", data)
            kept[f"o{number}"] = data
    assert (caught.value.err_code, caught.value.bucket) == (10077, name)
    used = (await js.stream_info(stream(store))).bytes
    assert used > limit - size - 1000, "what fits is taken"
    with pytest.raises(StoreFullError):
        await store.put("o0", pattern(2 * limit))
    with pytest.raises(StoreFullError):
        await store.put("o0", iter([pattern(limit), pattern(limit)]))
    with pytest.raises(StoreFullError):
        await written(store, pattern(limit), pattern(limit))
    await assert_kept(store, kept)
    await assert_exact(store)
    for gone in [f"o{number}" for number in range(8)]:
        await store.delete(gone)
        kept.pop(gone)
    await store.put("o0", pattern(size, 5))
    kept["o0"] = pattern(size, 5)
    await assert_kept(store, kept)


async def test_few_messages(js: JetStreamContext, name: str) -> None:
    """The same for a limit of messages."""
    store = await make(js, name, discard="old", max_msgs=12)
    data = pattern(4 * CHUNK)
    await store.put("a", data)
    await store.put("b", data)
    for source in (data, iter([data]), iter([data[:5], data[5:]])):
        with pytest.raises(StoreFullError, match="max_msgs 12"):
            await store.put("c", source)
    await store.put("c", b"1")
    await assert_kept(store, {"a": data, "b": data, "c": b"1"})
    await assert_exact(store)


@pytest.mark.parametrize("sized", [True, False])
async def test_puts_at_once(js: JetStreamContext, name: str, sized: bool) -> None:
    """Puts through one handle count on each other's room."""
    store = await make(js, name, discard="old", max_bytes=MIB)
    data = {f"o{n}": pattern(90_000 + n, n) for n in range(20)}

    async def put(key: str) -> bool:
        source = data[key] if sized else iter([data[key][:50_000], data[key][50_000:]])
        try:
            await store.put(key, source)
        except StoreFullError:
            return False
        return True

    outcomes = await asyncio.gather(*map(put, data))
    kept = {key: data[key] for key, done in zip(data, outcomes, strict=True) if done}
    assert 1 <= len(kept) < 12
    await assert_kept(store, kept)
    await assert_exact(store)
    await store.delete(next(iter(kept)))
    kept.pop(next(iter(kept)))
    assert store._bucket.ledger._promised == [0, 0]


@pytest.mark.parametrize("limit", [{"max_bytes": 20_000}, {"max_msgs": 11}], ids=str)
async def test_room_of_a_meta(js: JetStreamContext, name: str, limit: dict[str, int]) -> None:
    """Metas alone, too, would push out what is older."""
    store = await make(js, name, discard="old", **limit)
    bucket = store._bucket
    await check_meta_room(bucket, "a", 500)
    with pytest.raises(StoreFullError):
        for number in range(1000):
            await store.put(f"o{number}", b"1" * 1000)
    if "max_bytes" in limit:
        with pytest.raises(StoreFullError, match="discard 'old'") as caught:
            await check_meta_room(bucket, "a", 20_000 - (await js.stream_info(stream(store))).bytes)
    else:
        await check_meta_room(bucket, "a", 500)
        await js.publish(f"$O.{name}.C.other", b"")
        with pytest.raises(StoreFullError, match="max_msgs 11") as caught:
            await check_meta_room(bucket, "a", 1)
    assert (caught.value.bucket, caught.value.name) == (name, "a")
    ordinary = await js.create_object_store(bucket=f"{name}-2")
    sent = js.client.stats.out_msgs
    await check_meta_room(ordinary._bucket, "a", 5000)
    assert js.client.stats.out_msgs == sent
    await js.delete_object_store(ordinary.bucket)


async def test_upload_goes_on(js: JetStreamContext, name: str) -> None:
    """What is stored already takes no room a second time."""
    store = await make(js, name, discard="old", max_bytes=MIB)
    data = pattern(700_000)
    upload = await store.begin_upload("a")

    def broken() -> Any:
        yield data[:500_000]
        raise OSError("unplugged")

    with pytest.raises(OSError, match="unplugged"):
        await upload.send(broken())
    assert await upload.stored() == 3
    await upload.send(data)
    await assert_kept(store, {"a": data})


# -- changed while the bucket is open --------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {"max_msgs_per_subject": 1, "discard": "old"},
        {"discard": "old", "max_bytes": MIB},
        {"discard": "old", "max_msgs": 8},
        {"allow_rollup_hdrs": False},
        {"max_msg_size": 1000},
        {"retention": "interest"},
        {"subjects": ["$O.{bucket}.M.>", "$O.{bucket}.C.*"]},
        {"sealed": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("size", [5, 1_500_000])
async def test_changed(
    js: JetStreamContext, name: str, monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], size: int
) -> None:
    """Large puts always ask for the configuration, small ones once a second: here, at once."""
    monkeypatch.setattr(_bucket, "CONFIG_AGE", 0.0)
    store = await make(js, name)
    await store.put("old", b"1")
    if "subjects" in fields:
        fields = {"subjects": [subject.format(bucket=name) for subject in fields["subjects"]]}
    try:
        await change(store, **fields)
    except APIError:
        return  # nats-server 2.9 does not change the retention
    data = pattern(size)
    for source in (data, iter([data])):
        refused = None
        try:
            await store.put("new", source)
        except NatsError as exc:
            refused = exc
        if refused is None:
            assert await store.get("new") == data
        else:
            assert size > 5 or fields.keys() & {"allow_rollup_hdrs", "retention", "subjects", "sealed"}
            sealed = "sealed" in fields and isinstance(refused, BucketSealedError)
            assert sealed or (isinstance(refused, TYPED) and any(field in str(refused) for field in fields))
    if "retention" not in fields and not (size > 5 and fields.get("discard") == "old"):
        assert await store.get("old") == b"1"
    if not fields.keys() & {"sealed", "retention"}:
        live = {info.nuid for info in await store.list()}
        assert (await chunk_counts(store)).keys() <= live, "a refused put leaves nothing behind"


async def test_messages_made_smaller(js: JetStreamContext, name: str) -> None:
    """10054 without having known: typed, names the field, and the next put follows."""
    store = await make(js, name)
    await change(store, max_msg_size=64 * KIB)
    with pytest.raises(APIError, match="max_msg_size"):
        await store.put("a", pattern(3 * CHUNK), window=1)
    assert await chunk_counts(store) == {}
    store = await js.object_store(name)
    await store.put("a", pattern(3 * CHUNK))
    await assert_kept(store, {"a": pattern(3 * CHUNK)})


async def test_rollup_forbidden(js: JetStreamContext, name: str) -> None:
    """10111 without having known."""
    store = await make(js, name)
    await store.put("a", b"1")
    await change(store, allow_rollup_hdrs=False)
    for call in (store.put("a", b"2"), store.delete("a"), store.update_meta("a", ObjectMeta("a", "x"))):
        with pytest.raises(NatsError, match="allow_rollup_hdrs"):
            await call
    await assert_kept(store, {"a": b"1"})
    await assert_exact(store)


async def test_another_stream_takes_the_chunks(js: JetStreamContext, name: str) -> None:
    """In the middle of a put: named, and nothing of the other stream's is touched."""
    store = await make(js, name)
    await store.put("a", b"old")

    async def source() -> AsyncIterator[bytes]:
        yield pattern(2 * CHUNK)
        await change(store, subjects=[f"$O.{name}.M.>"])
        await js.create_stream({"name": f"{name}-other", "subjects": [f"$O.{name}.C.>"]})
        yield pattern(4 * CHUNK)

    async with asyncio.timeout(30):
        with pytest.raises(ForeignBucketError) as caught:
            await store.put("a", source())
    assert caught.value.stream == f"{name}-other"
    assert await store.get("a") == b"old"
    again = await js.object_store(name)
    with pytest.raises(BadBucketError) as refused:
        await again.put("a", b"new")
    assert (refused.value.field, refused.value.value) == ("subjects", [f"$O.{name}.M.>"])
    assert (await js.stream_info(f"{name}-other")).messages > 0
    await js.delete_stream(f"{name}-other")


@pytest.mark.parametrize("size", [1, 3 * CHUNK])
async def test_nobody_takes_the_chunks(js: JetStreamContext, name: str, size: int) -> None:
    """No responders are a reason to look at the configuration, not only to try again."""
    store = await make(js, name)
    await store.put("a", b"old")
    await change(store, subjects=[f"$O.{name}.M.>"])
    async with asyncio.timeout(30):
        with pytest.raises(BadBucketError) as caught:
            await store.put("a", pattern(size))
    assert caught.value.field == "subjects"
    assert await store.get("a") == b"old"


async def test_configuration_costs_no_round_trip(js: JetStreamContext, name: str) -> None:
    """Opening asks once; small puts in a row do not ask at all."""
    store = await make(js, name)
    sent = js.client.stats.out_msgs
    store = await js.object_store(name)
    assert js.client.stats.out_msgs == sent + 1
    for number in range(10):
        await store.put(f"o{number}", b"1")
    sent = js.client.stats.out_msgs
    await store.put("more", b"1")
    assert js.client.stats.out_msgs - sent <= 3


async def test_an_open_handle_learns_of_changes(js: JetStreamContext, name: str) -> None:
    """With its time to live an object gets new chunks when its meta changes: they have one age then."""
    store = await make(js, name)
    info = await store.put("a", b"1")
    await change(store, max_age=3_600_000_000_000, allow_direct=False)
    await store.gc()
    assert (await store.update_meta("a", ObjectMeta("a", "new"))).nuid != info.nuid
    assert not store._bucket.direct
    await assert_kept(store, {"a": b"1"})


@pytest.mark.parametrize(
    "limits",
    [
        {"max_ack_pending": 5},
        {"inactive_threshold": 1_000_000_000},
        {"max_ack_pending": 5, "inactive_threshold": 1_000_000_000},
    ],
    ids=str,
)
async def test_limits_of_consumers_that_ours_exceed(
    new_server: LocalServer, bucket_name: str, limits: dict[str, int]
) -> None:
    """There are other ways to read; a watch has none, and says why. (2.9 has no such limits.)"""
    async with natsproto.connect(new_server.url) as client:
        store = await make(client.jetstream(), bucket_name, consumer_limits=limits, allow_direct=False)
        data = pattern(3 * CHUNK)
        for name in "abc":
            await store.put(name, data)
        for _ in range(2):
            assert [info.name for info in await store.list()] == ["a", "b", "c"]
            assert [info.name async for info in store.iter()] == ["a", "b", "c"]
            assert (await store.verify(deep=True)).ok
            assert await store.get("a") == data
            assert await store.get_range("a", 5, CHUNK + 5) == data[5 : CHUNK + 5]
        with pytest.raises(APIError, match=r"inactive threshold|max ack pending"):
            async with store.watch() as watcher:
                await anext(watcher)


@pytest.mark.parametrize("how", ["update_meta", "rename"])
async def test_a_time_to_live_that_an_admin_sets(
    js: JetStreamContext, name: str, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """A program that has the bucket open renews the chunks with its next change, as after opening it."""
    monkeypatch.setattr(_bucket, "CONFIG_AGE", 0.0)
    store = await make(js, name)
    data = pattern(300_000)
    info = await store.put("a", data)
    await js.update_object_store(bucket=name, ttl=timedelta(minutes=1))  # below the server's duplicate window
    config = (await js.stream_info(stream(store))).config
    assert config.max_age == config.duplicate_window == timedelta(minutes=1)
    if how == "rename":
        changed = await store.rename("a", "b")
    else:
        changed = await store.update_meta("a", ObjectMeta("a", "described"))
    assert changed.nuid != info.nuid
    assert await store.get(changed.name) == data
    assert await chunk_counts(store) == {changed.nuid: changed.chunks}
