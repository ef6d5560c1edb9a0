"""The client: what it sends, refuses before any byte, waits for, and tells of itself."""

from __future__ import annotations

import array
import asyncio
from typing import Any

import pytest

from natsproto.aio.client import Client, as_payload
from natsproto.aio.msg import Msg
from natsproto.errors import (
    BadSubjectError,
    ConfigError,
    ConnectionClosedError,
    LocalProtocolError,
    MaxPayloadError,
    NoRespondersError,
    RequestTimeoutError,
    StaleConnectionError,
)
from natsproto.wire import Pub
from support.fake_session import FakeServer, turns
from support.simulation import in_virtual_time


@pytest.fixture
async def server() -> FakeServer:
    return FakeServer()


# -- publishing ------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 100, 16 * 1024 - 1, 16 * 1024, 100_000])
@pytest.mark.parametrize("reply", [None, "answers.here"])
@pytest.mark.parametrize("headers", [None, {"A": "1", "B": ["2", "3"]}])
async def test_what_is_published_arrives(
    server: FakeServer, size: int, reply: str | None, headers: Any
) -> None:
    data = bytes(range(256)) * (size // 256) + bytes(size % 256)
    await server.client.publish("a.b", data, reply=reply, headers=headers)
    (pub,) = server.pubs
    assert (pub.subject, bytes(pub.payload)) == (b"a.b", data)
    assert pub.reply == (None if reply is None else reply.encode())
    if headers is None:
        assert pub.header is None
    else:
        assert pub.header == b"NATS/1.0\r\nA: 1\r\nB: 2\r\nB: 3\r\n\r\n"
    assert (server.client.stats.out_msgs, server.client.stats.out_bytes) == (1, size)


@pytest.mark.parametrize(
    ("data", "sent"),
    [
        (bytearray(b"ab"), b"ab"),
        (memoryview(b"abcd")[::2], b"ac"),
        (array.array("H", [0x4141, 0x4242]), b"AABB"),
        (memoryview(b"abcd").cast("B", (2, 2)), b"abcd"),
    ],
)
async def test_any_buffer_is_a_payload(server: FakeServer, data: Any, sent: bytes) -> None:
    await server.client.publish("a", data)
    assert bytes(server.pubs[0].payload) == sent
    assert len(as_payload(data)) == len(sent)


@pytest.mark.parametrize("data", ["text", 7, None, [1, 2]])
async def test_what_is_no_payload(server: FakeServer, data: Any) -> None:
    with pytest.raises(LocalProtocolError, match="payload"):
        await server.client.publish("a", data)
    with pytest.raises(LocalProtocolError):
        await server.client.request("a", data)
    assert server.pubs == []


@pytest.mark.parametrize("subject", ["", "a b", "a\r\nPUB x 0\r\n", "a.*", "a.>", "a..b", ".a"])
async def test_subjects_that_are_refused(server: FakeServer, subject: str) -> None:
    for call in (
        server.client.publish(subject),
        server.client.publish("a", reply=subject),
        server.client.request(subject),
    ):
        with pytest.raises(BadSubjectError):
            await call
    assert server.pubs == []


async def test_the_servers_limit_holds(server: FakeServer) -> None:
    server.session.info["max_payload"] = 100
    server.connection.info_changed(server.connection.session)  # type: ignore[arg-type]
    client = server.client
    assert client.max_payload == 100
    await client.publish("a", bytes(100))
    with pytest.raises(MaxPayloadError, match="101 bytes of payload and 0 of headers") as told:
        await client.publish("a", bytes(101))
    assert (told.value.size, told.value.max_payload) == (101, 100)
    with pytest.raises(MaxPayloadError):
        await client.publish("a", bytes(80), headers={"Name": "of some length"})
    with pytest.raises(MaxPayloadError):
        await client.request("a", bytes(101))
    assert len(server.pubs) == 1


# -- subscriptions ---------------------------------------------------------------------------------


async def test_a_subscription_has_the_clients_bounds_or_its_own(server: FakeServer) -> None:
    sub = await server.client.subscribe("a.*", queue="q", pending_msgs_limit=2)
    for n in range(5):
        server.send(b"a.*", b"%d" % n, subject=b"a.x")
    assert [(await sub.next_msg(timeout=5)).data for _ in range(2)] == [b"0", b"1"]
    with pytest.raises(ConfigError):
        await server.client.subscribe("a", max_msgs=-1)
    for subject, queue in (("a b", None), ("", None), ("a", "q q"), ("a", "")):
        with pytest.raises(BadSubjectError):
            await server.client.subscribe(subject, queue=queue)
    assert len(server.connection.handlers) == 1
    await server.client.close()


# -- requests --------------------------------------------------------------------------------------


async def test_a_request_and_its_answer(server: FakeServer) -> None:
    server.session.on_pub = lambda pub: server.reply(pub, b"answer to " + bytes(pub.payload))
    answer = await server.client.request("a", b"1", headers={"H": "v"})
    assert isinstance(answer, Msg)
    assert answer.data == b"answer to 1"
    assert server.pubs[0].header is not None
    assert len(server.connection.mux) == 0


async def test_ways_a_request_fails(server: FakeServer) -> None:
    client = server.client
    server.session.on_pub = lambda pub: server.reply(pub, b"", b"NATS/1.0 503\r\n\r\n")
    with pytest.raises(NoRespondersError):
        await client.request("a")
    server.session.on_pub = None
    with pytest.raises(RequestTimeoutError, match=r"no answer from 'a' within 0\.01 s"):
        await client.request("a", timeout=0.01)
    asking = asyncio.ensure_future(client.request("a"))
    await turns()
    lost = server.lose()
    with pytest.raises(StaleConnectionError) as told:
        await asking
    assert told.value is lost
    assert len(server.connection.mux) == 0


async def test_a_request_that_cannot_begin_leaves_nothing(server: FakeServer) -> None:
    with pytest.raises(TypeError):
        await server.client.request("q", b"", timeout="5")  # type: ignore[arg-type]
    assert len(server.connection.mux) == 0
    assert server.pubs == []


async def test_only_a_bare_answer_counts_for_a_bare_request(server: FakeServer) -> None:
    """A peer may have stored messages, status messages and deliveries sent to any inbox that it sees."""
    client = server.client

    def on_pub(pub: Pub) -> None:
        assert pub.reply is not None
        server.reply_to(pub.reply, b"forged", b"NATS/1.0\r\nNats-Stream: S\r\n\r\n")
        server.reply_to(pub.reply, b"", b"NATS/1.0 404 Message Not Found\r\n\r\n")
        server.reply_to(pub.reply, b"forged", reply=b"$JS.ACK.S.c.1.1.1.1.0")
        server.reply_to(pub.reply, b"", b"NATS/1.0 503\r\n\r\n", b"$JS.ACK.S.c.1.1.1.1.0")
        server.reply(pub, b"")
        server.reply(pub, b"true")

    server.session.on_pub = on_pub
    assert bytes((await client.request_frame(b"a", b"", begins=b"t")).payload) == b"true"
    assert bytes((await client.start_request(b"a", b"", begins=b"true").wait()).payload) == b"true"
    assert bytes((await client.request_frame(b"a", b"", begins=b"")).payload) == b""
    assert bytes((await client.request_frame(b"a", b"")).payload) == b"forged"
    server.session.on_pub = lambda pub: server.reply(pub, b"", b"NATS/1.0 503\r\n\r\n")
    with pytest.raises(NoRespondersError):
        await client.request_frame(b"a", b"", begins=b"t")


async def test_requests_that_leave_together(server: FakeServer) -> None:
    """Each is waited for, or closed; an answer that nobody waits for is dropped in silence."""
    client = server.client
    first, second, third = (client.start_request(b"a", b"%d" % n) for n in range(3))
    assert len(server.pubs) == 3
    server.reply(server.pubs[0], b"", b"NATS/1.0 503\r\n\r\n")
    server.reply(server.pubs[1], b"second")
    third.close()
    third.close()
    first.close()
    assert bytes((await second.wait()).payload) == b"second"
    assert len(server.connection.mux) == 0


async def test_flush(server: FakeServer) -> None:
    await server.client.flush()
    server.session.pongs = False
    with pytest.raises(RequestTimeoutError, match=r"did not answer PING within 0\.01 s"):
        await server.client.flush(0.01)
    flushing = asyncio.ensure_future(server.client.flush())
    await turns()
    server.session.fail(StaleConnectionError("cut"))
    with pytest.raises(StaleConnectionError):
        await flushing


async def test_the_round_trip_is_measured(server: FakeServer) -> None:
    client = server.client
    assert 0 <= await client.rtt() < 5
    server.session.pongs = False
    asking = asyncio.ensure_future(client.rtt())
    await turns()
    server.session.fail(StaleConnectionError("cut"))
    with pytest.raises(StaleConnectionError, match="cut"):
        await asking


async def test_there_is_no_round_trip_to_measure(server: FakeServer) -> None:
    server.session.pongs = False
    with pytest.raises(RequestTimeoutError):
        await server.client.rtt(0.01)
    server.lose()
    with pytest.raises(StaleConnectionError, match="not connected"):
        await server.client.rtt()
    await server.client.close()
    with pytest.raises(ConnectionClosedError):
        await server.client.rtt()


# -- what it tells of itself -----------------------------------------------------------------------


async def test_properties(server: FakeServer) -> None:
    client = server.client
    server.session.info |= {"client_id": 7, "connect_urls": ["10.0.0.1:4222"]}
    server.connection.info_changed(server.connection.session)  # type: ignore[arg-type]
    assert (client.is_connected, client.is_closed, client.state) == (True, False, "connected")
    assert client.client_id == 7
    info = client.server_info
    info.clear()  # a copy
    assert client.server_info["client_id"] == 7
    assert client.connected_url == "nats://127.0.0.1:4222"
    assert client.discovered_servers == ["nats://10.0.0.1:4222"]
    assert client.servers == ["nats://127.0.0.1:4222", "nats://10.0.0.1:4222"]
    assert repr(client) == "<Client connected nats://127.0.0.1:4222>"
    exc = server.lose()
    assert (client.is_connected, client.server_info, client.connected_url, client.client_id) == (
        False,
        {},
        None,
        None,
    )
    assert str(exc) == "cut"
    assert "10.0.0.1" in repr(client)
    await client.close()
    assert client.state == "closed"


async def test_inboxes(server: FakeServer) -> None:
    inboxes = {server.client.new_inbox() for _ in range(100)}
    assert len(inboxes) == 100
    assert all(inbox.startswith("_INBOX.") for inbox in inboxes)
    js = server.client.jetstream(domain="hub", timeout=3.0)
    assert (js.client, js.timeout) == (server.client, 3.0)


# -- the end ---------------------------------------------------------------------------------------


async def test_after_the_end_nothing_goes(server: FakeServer) -> None:
    client = server.client
    sub = await client.subscribe("a")
    await client.close()
    await client.close()
    await client.drain()
    for call in (
        client.publish("a"),
        client.publish("a", bytes(100_000), headers={"A": "1"}),
        client.request("a"),
        client.subscribe("a"),
        client.flush(),
    ):
        with pytest.raises(ConnectionClosedError):
            await call
    with pytest.raises(ConnectionClosedError):
        client.start_request(b"a", b"")
    assert [msg async for msg in sub] == []
    assert server.pubs == []


async def test_another_thread_is_refused(server: FakeServer) -> None:
    """Nothing is locked: a frame would be torn."""

    async def work(client: Client) -> None:
        for call in (
            client.publish("a"),
            client.request("a"),
            client.close(),
            client.drain(),
            client.flush(),
            client.rtt(),
            client.force_reconnect(),
        ):
            with pytest.raises(ConnectionClosedError, match="another event loop or thread"):
                await call
        with pytest.raises(ConnectionClosedError, match="another event loop or thread"):
            client.set_server_pool("nats://h")

    await asyncio.to_thread(lambda: asyncio.run(work(server.client)))
    assert server.pubs == []
    assert server.client.is_connected


async def test_drain_lets_queues_be_read_and_requests_be_answered(server: FakeServer) -> None:
    client = server.client
    sub = await client.subscribe("a")
    server.send(b"a", b"1")
    server.send(b"a", b"2")
    asking = asyncio.ensure_future(client.request("b"))
    await turns()
    draining = asyncio.ensure_future(client.drain())
    await turns()
    with pytest.raises(ConnectionClosedError, match="draining"):
        await client.subscribe("c")
    assert [msg.data async for msg in sub] == [b"1", b"2"]
    await turns()
    assert not draining.done()
    await client.publish("still", b"sent")
    server.reply(server.pubs[0], b"answer")
    assert (await asking).data == b"answer"
    async with asyncio.timeout(5):
        await draining
    assert client.is_closed


def test_drain_is_bounded_and_closes() -> None:
    async def work() -> None:
        server = FakeServer()
        asking = asyncio.ensure_future(server.client.request("b", timeout=1000))
        await turns()
        loop = asyncio.get_running_loop()
        began = loop.time()
        with pytest.raises(RequestTimeoutError, match="requests under way were not done within 30 s"):
            await server.client.drain()
        assert loop.time() - began == pytest.approx(30, abs=5)
        assert server.client.is_closed
        with pytest.raises(ConnectionClosedError):
            await asking

    in_virtual_time(work)


async def test_a_block_closes_it() -> None:
    async with FakeServer().client as client:
        assert client.is_connected
    assert client.is_closed
