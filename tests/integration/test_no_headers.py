"""Servers with ``no_header_support``: they end the connection at the first message with headers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

import natsproto
from natsproto.errors import RequestTimeoutError, UnsupportedFeatureError
from natsproto.jetstream.api.models import ConsumerConfig, StreamConfig
from natsproto.server import LocalServer
from support.calls import Calls


@pytest.fixture
async def nc(server: LocalServer) -> AsyncIterator[natsproto.Client]:
    config = "no_header_support: true"
    async with (
        LocalServer(binary=server.binary.path, config=config) as own,
        natsproto.connect(own.url, request_timeout=2) as nc,
    ):
        yield nc
        await nc.flush()
        assert nc.stats.errors == nc.stats.reconnects == 0  # nothing has ended the connection


async def refused(call: Awaitable[object]) -> UnsupportedFeatureError:
    with pytest.raises(UnsupportedFeatureError, match="no headers") as told:
        await call
    assert told.value.minimum == "2.2"
    return told.value


async def test_messages(nc: natsproto.Client) -> None:
    assert nc.server_info["headers"] is False
    sub = await nc.subscribe("s.>")
    await refused(nc.publish("s.a", b"lost?", headers={"A": "b"}))
    await refused(nc.request("s.b", headers={"A": "b"}))
    await nc.publish("s.c", b"kept")
    await nc.publish("s.d", b"kept", headers={})
    assert [(await sub.next_msg(timeout=5)).subject for _ in range(2)] == ["s.c", "s.d"]
    responder = await nc.subscribe("ask", max_msgs=1)

    async def answer() -> None:
        msg = await responder.next_msg()
        await refused(msg.respond(b"", headers={"A": "b"}))
        await msg.respond(b"answer")

    task = nc.connection.loop.create_task(answer())
    assert (await nc.request("ask")).data == b"answer"
    await task
    with pytest.raises(RequestTimeoutError):  # without headers nobody says that there is nobody
        await nc.request("nobody", timeout=0.1)


async def test_jetstream(nc: natsproto.Client) -> None:
    js = nc.jetstream()
    await js.create_stream(StreamConfig(name="S", subjects=["s"], allow_direct=True))
    assert (await js.publish("s", b"1")).seq == 1
    publishes: list[Callable[[], Awaitable[object]]] = [
        lambda: js.publish("s", b"2", msg_id="x"),
        lambda: js.publish("s", b"2", headers={"A": "b"}),
        lambda: js.publish("s", b"2", expected_last_seq=1),
        lambda: js.publish("s", b"2", stream="S"),
    ]
    for publish in publishes:
        await refused(publish())
    assert (await js.get_message("S", seq=1)).data == b"1"  # by the leader, which answers in JSON
    assert (await refused(js.direct_get("S", seq=1))).feature == "direct get"
    await refused(anext(js.get_batch("S")))
    consumer = await js.create_consumer("S", ConsumerConfig(durable_name="c", ack_policy="explicit"))
    assert (await refused((await js.pull_consumer("S", consumer.name)).fetch())).feature == "a fetch"
    assert (await js.stream_info("S")).last_seq == 1


async def test_object_store(nc: natsproto.Client) -> None:
    js = nc.jetstream()
    for call in (js.create_object_store("b"), js.object_store("b", create=True), js.object_store("b")):
        assert (await refused(call)).feature == "the object store"
    assert await js.object_store_names() == []


async def test_a_server_that_the_client_comes_back_to(server: LocalServer) -> None:
    """What a handle of a bucket would change is refused before a chunk is sent."""
    back, errors = Calls(), Calls()
    async with (
        LocalServer(binary=server.binary.path) as own,
        natsproto.connect(own.url, reconnected_cb=back, error_cb=errors, reconnect_wait=0.02) as nc,
    ):
        store = await nc.jetstream().create_object_store("b")
        await store.put("a", b"old")
        own.kill()
        own._extra = "no_header_support: true"
        own.start()
        await back.until(1)
        await refused(store.put("a", b"new"))
        await refused(store.delete("a"))
        await refused(store.gc())
        assert (await nc.jetstream().stream_info("OBJ_b")).num_subjects == 2
