"""Every text a caller gives reaches the server by value: seen on the wire, by a proxy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

import natsproto
from natsproto.aio.client import Client
from natsproto.errors import NatsError
from natsproto.server import LocalServer
from natsproto.testing import FaultProxy
from natsproto.wire import Event
from objstore import BadBucketError, ObjectLink, ObjectMeta
from support.hostile import HostileBytes, HostileStr, enum_of
from support.objects import pattern, read_raw

SUSPECT = (b"evil", b"EVIL", b"Name.MEMBER")


class Wire:
    """What went to the server."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []

    def __call__(self, event: Event, raw: bytes) -> None:
        self.frames.append(raw)

    def check(self) -> None:
        assert self.frames
        for frame in self.frames:
            assert not any(word in frame for word in SUSPECT), frame


@pytest.fixture
async def seen(server: LocalServer) -> AsyncIterator[tuple[Client, Wire]]:
    wire = Wire()
    async with FaultProxy(server.url) as proxy:
        proxy.to_server = wire
        make = HostileStr
        connecting = natsproto.connect(proxy.url, name=make("me"), inbox_prefix=make("_IN"))
        async with connecting as nc:
            yield nc, wire
    wire.check()


MAKERS = pytest.mark.parametrize("make", [HostileStr, enum_of], ids=["hostile", "enum"])


@MAKERS
async def test_messages(seen: tuple[Client, Wire], make: type[str]) -> None:
    nc, _ = seen
    plain = await nc.subscribe(make("by.value"), queue=make("group"))
    await nc.publish(
        make("by.value"), HostileBytes(b"data"), reply=make("answers"), headers={make("Kind"): make("text")}
    )
    await nc.publish(make("by.value"), b"data")
    msg = await plain.next_msg(timeout=5)
    assert (msg.subject, msg.reply, msg.data) == ("by.value", "answers", b"data")
    assert msg.headers is not None
    assert msg.headers.multi_items() == [("Kind", "text")]
    assert (await plain.next_msg(timeout=5)).data == b"data"
    responder = await nc.subscribe("asked")
    pending = nc.request(make("asked"), HostileBytes(b"question"), headers={"k": make("v")})

    asking = asyncio.ensure_future(pending)
    asked = await responder.next_msg(timeout=5)
    assert asked.data == b"question"
    await asked.respond(HostileBytes(b"answer"), headers={make("k"): make("v")})
    assert (await asking).data == b"answer"


@MAKERS
async def test_streams(seen: tuple[Client, Wire], make: type[str]) -> None:
    nc, _ = seen
    js = nc.jetstream(prefix=make("$JS.API"))
    await js.create_stream({"name": make("BYVALUE"), "subjects": [make("bv.>")]})
    try:
        ack = await js.publish(
            make("bv.a"), b"1", stream=make("BYVALUE"), msg_id=make("id1"), headers={make("h"): make("v")}
        )
        again = await js.publish("bv.a", b"1", msg_id="id1")
        assert again.duplicate
        stored = await js.get_message(make("BYVALUE"), last_by_subject=make("bv.a"))
        assert (stored.seq, stored.header) == (
            ack.seq,
            b"NATS/1.0\r\nh: v\r\nNats-Expected-Stream: BYVALUE\r\nNats-Msg-Id: id1\r\n\r\n",
        )
        assert await js.stream_subjects(make("BYVALUE"), make("bv.>")) == {"bv.a": 1}
        consumer = await js.pull_consumer(
            make("BYVALUE"), config={"durable_name": make("reader"), "filter_subject": make("bv.a")}
        )
        assert [message.data for message in await consumer.fetch(1)] == [b"1"]
        assert await js.consumer_names(make("BYVALUE")) == ["reader"]
        await js.delete_consumer(make("BYVALUE"), make("reader"))
        assert await js.purge_stream(make("BYVALUE"), subject=make("bv.a")) == 1
    finally:
        await js.delete_stream(make("BYVALUE"))


@MAKERS
async def test_objects(seen: tuple[Client, Wire], make: type[str], bucket_name: str) -> None:
    nc, _ = seen
    js = nc.jetstream()
    store = await js.create_object_store(bucket=make(bucket_name), description=make("about"))
    try:
        assert store.bucket == bucket_name
        assert (await (await js.object_store(make(bucket_name))).status()).description == "about"
        data = pattern(300_000)
        info = await store.put(
            make("a name"),
            HostileBytes(data),
            make("text"),
            make("file.txt"),
            {make("Kind"): make("one"), "List": [make("x"), make("y")]},
            metadata={make("key"): make("value")},
        )
        assert await store.get("a name") == data == await store.get(make("a name"))
        document = await read_raw(store, "a name")
        assert document["name"] == "a name"
        assert document["description"] == "text"
        assert document["headers"] == {"Kind": ["one"], "List": ["x", "y"]}
        assert document["metadata"] == {"key": "value", "filename": "file.txt"}
        assert document["nuid"] == info.nuid
        await store.update_meta(make("a name"), ObjectMeta(make("a name"), make("other"), filename=make("f")))
        await store.rename(make("a name"), make("b name"))
        await store.add_link(make("link"), ObjectLink(make(bucket_name), make("b name")))
        await store.add_bucket_link(make("all"), make(bucket_name))
        await store.copy(make("link"), make("copy"))
        assert await store.get(make("link")) == data
        assert await store.get_range(make("copy"), 5, 9) == data[5:9]
        async with store.open_reader(make("copy")) as reader:
            assert await reader.read() == data
        async with store.open_writer(make("written"), make("d")) as writer:
            await writer.write(HostileBytes(b"by the writer"))
        assert await store.get("written") == b"by the writer"
        upload = await store.begin_upload(make("sent"), make("d"))
        await upload.send(HostileBytes(b"by an upload"))
        assert await store.get("sent") == b"by an upload"
        await store.put(make("pieces"), [HostileBytes(b"one "), HostileBytes(b"by one")])
        assert await store.get("pieces") == b"one by one"
        assert (await store.get_info(make("pieces"))).name == "pieces"
        assert await store.exists(make("pieces"))
        await store.delete(make("pieces"))
        assert sorted(info.name for info in await store.list()) == [
            "all", "b name", "copy", "link", "sent", "written"
        ]  # fmt: skip
    finally:
        await js.delete_object_store(make(bucket_name))


@pytest.mark.parametrize("name", ["a.b", "a b", "a\r\nPUB evil 0", "", "ä"])
async def test_what_a_name_holds_is_checked(seen: tuple[Client, Wire], name: str) -> None:
    nc, _ = seen
    js = nc.jetstream()
    with pytest.raises(BadBucketError):
        await js.create_object_store(bucket=HostileStr(name))
    with pytest.raises(BadBucketError):
        await js.object_store(HostileStr(name))
    if name != "ä":
        with pytest.raises(NatsError):
            await js.stream_info(HostileStr(name))
