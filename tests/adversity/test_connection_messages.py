"""Publish, subscribe, request, flush and drain against real servers; what is refused before any byte (S9)."""

from __future__ import annotations

import asyncio
import time

import pytest

import natsproto
from natsproto import Client, Headers
from natsproto.errors import (
    BadSubjectError,
    ConfigError,
    ConnectionClosedError,
    LocalProtocolError,
    MaxPayloadError,
    NatsError,
    NoRespondersError,
    RequestTimeoutError,
)
from natsproto.server import LocalServer
from natsproto.subjects import MAX_LINE, MAX_NAMES
from natsproto.testing import FaultProxy, ScriptedServer
from natsproto.testing.proxy import DROP, HOLD, Action
from natsproto.testing.scripted import ScriptedConnection
from natsproto.wire import Event, Msg, Pub, Sub, Unsub
from support.calls import Calls
from support.clock import Clock
from support.waits import eventually


async def test_round_trip(nc: Client) -> None:
    sub = await nc.subscribe("a.*")
    payloads: list[bytes | bytearray | memoryview] = [
        b"", b"x", b"\r\nPING\r\n", bytearray(b"ba"), memoryview(b"mv"), memoryview(b"abcdef")[::2],
        bytes(range(256)) * 2000,
    ]  # fmt: skip
    for payload in payloads:
        await nc.publish("a.b", payload, reply="r.s")
    for payload in payloads:
        msg = await sub.next_msg(timeout=10)
        assert msg.data == bytes(payload)
        assert (msg.subject, msg.reply, msg.headers, msg.status) == ("a.b", "r.s", None, None)
    assert nc.stats.in_msgs == nc.stats.out_msgs == len(payloads)
    assert nc.stats.in_bytes == nc.stats.out_bytes == sum(len(bytes(payload)) for payload in payloads)


async def test_headers_round_trip(nc: Client) -> None:
    sub = await nc.subscribe("h")
    headers = Headers([*[("A", "1"), ("a", "2"), ("Empty", ""), ("Ünicode-Value", "ä ö")][:3], ("V", "ä ö")])
    await nc.publish("h", b"body", headers=headers)
    await nc.publish("h", b"", headers={"K": ["1", "2"], "Colon": "a: b"})
    first, second = await sub.next_msg(timeout=10), await sub.next_msg(timeout=10)
    assert first.headers is not None
    assert first.headers.multi_items() == [("A", "1"), ("a", "2"), ("Empty", ""), ("V", "ä ö")]
    assert first.data == b"body"
    assert second.headers is not None
    assert second.headers.get_all("K") == ["1", "2"]
    assert second.headers["Colon"] == "a: b"


async def test_queue_groups_share(server: LocalServer, nc: Client) -> None:
    async with natsproto.connect(server.url) as other:
        members = [await nc.subscribe("q", queue="g"), await other.subscribe("q", queue="g")]
        lone = await other.subscribe("q")
        await other.flush()
        for _ in range(100):
            await nc.publish("q")
        await nc.flush()
        await other.flush()
        assert sum(member.pending_msgs for member in members) == 100
        assert lone.pending_msgs == 100


async def test_request_and_respond(nc: Client) -> None:
    sub = await nc.subscribe("echo")

    async def serve() -> None:
        async for msg in sub:
            await msg.respond(msg.data.upper(), headers={"X": "y"})

    task = asyncio.create_task(serve())
    replies = await asyncio.gather(*(nc.request("echo", b"m%d" % n) for n in range(50)))
    assert [reply.data for reply in replies] == [b"M%d" % n for n in range(50)]
    assert replies[0].headers is not None
    await sub.unsubscribe()
    await task


async def test_no_responders_is_known_at_once(nc: Client) -> None:
    start = time.monotonic()
    with pytest.raises(NoRespondersError) as info:
        await nc.request("nobody.is.here", b"x", timeout=60)
    assert time.monotonic() - start < 5
    assert info.value.subject == "nobody.is.here"
    await nc.subscribe("silent")
    with pytest.raises(RequestTimeoutError, match="silent"):
        await nc.request("silent", timeout=0.05)
    with pytest.raises(NatsError, match="no reply subject"):
        await (await _received(nc)).respond(b"")


async def _received(nc: Client) -> natsproto.Msg:
    sub = await nc.subscribe("plain")
    await nc.publish("plain")
    return await sub.next_msg(timeout=10)


@pytest.mark.parametrize("headers", [None, {"Content-Type": "application/json"}])
async def test_a_reply_subject_costs_nobody_the_connection(
    server: LocalServer, nc: Client, headers: dict[str, str] | None
) -> None:
    """The line of a request fits into what the server reads, and that of its answer would not."""
    async with natsproto.connect(server.url) as fellow:
        requests = await nc.subscribe("service")
        await nc.flush()
        session = fellow.connection.session
        assert session is not None
        session.write(b"PUB service " + b"r" * (MAX_LINE - len(b"PUB service  0\r\n")) + b" 0\r\n\r\n")
        await fellow.flush()
        with pytest.raises(BadSubjectError, match="too long"):
            await (await requests.next_msg(timeout=10)).respond(bytes(20_000), headers=headers)
        await nc.flush()
        assert nc.stats.reconnects == nc.stats.errors == 0


async def test_the_longest_names(nc: Client) -> None:
    """Longer ones are refused before anything is sent: the server would close the connection."""
    name = "n" * (MAX_NAMES - 10)
    sub = await nc.subscribe(name, queue="q" * 10)
    await nc.publish(name, b"1", reply="r" * 10, headers={"k": "v"})
    msg = await sub.next_msg(timeout=10)
    assert (msg.subject, msg.reply) == (name, "r" * 10)
    handlers = len(nc.connection.handlers)
    for refused in (
        nc.subscribe(name, queue="q" * 11),
        nc.publish(name, b"", reply="r" * 11),
        nc.publish(name + "r" * 11),
        nc.publish(name, bytes(100_000), reply="r" * 11),
        nc.request(name, b""),
    ):
        with pytest.raises(BadSubjectError, match="too long"):
            await refused
    await nc.flush()
    assert nc.stats.reconnects == nc.stats.errors == len(nc.connection.mux) == 0
    assert len(nc.connection.handlers) == handlers + 1  # the inbox of requests


async def test_late_replies_are_dropped(server: LocalServer) -> None:
    """S18: a reply after its request's timeout reaches nobody, least of all the next request."""
    async with (
        FaultProxy(server.url) as proxy,
        natsproto.connect(server.url) as responder,
        natsproto.connect(proxy.url) as nc,
    ):
        sub = await responder.subscribe("slow")
        await responder.flush()
        proxy.to_client = lambda event, raw: HOLD if isinstance(event, Msg) else None
        request = asyncio.create_task(nc.request("slow", b"1", timeout=0.1))
        await (await sub.next_msg(timeout=10)).respond(b"late")
        with pytest.raises(RequestTimeoutError):
            await request
        await proxy.wait_until(lambda: proxy.held == 1)
        proxy.to_client = None
        request = asyncio.create_task(nc.request("slow", b"2"))
        msg = await sub.next_msg(timeout=10)
        proxy.release()
        await msg.respond(b"second")
        assert (await request).data == b"second"


async def test_a_lost_unsub_is_said_again(server: LocalServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the server goes on believing that somebody listens, and a consumer there lives on."""
    monkeypatch.setattr("natsproto.aio.session.UNSUB_AGAIN", 60.0)
    said: list[bytes] = []

    def lossy(event: Event, raw: bytes) -> Action | None:
        if not isinstance(event, Unsub):
            return None
        said.append(event.sid)
        return DROP if len(said) == 1 else None

    async with FaultProxy(server.url) as proxy, natsproto.connect(proxy.url) as nc:
        proxy.to_server = lossy
        sub = await nc.subscribe("a")
        await sub.unsubscribe()
        clock = Clock()
        async with asyncio.timeout(60 + 20):
            while nc.stats.in_msgs < 3:  # they come although nobody wants them
                await nc.publish("a")
                await nc.flush()
            assert len(said) == 1
            clock.forward(60)
            while len(said) < 2:
                await nc.publish("a")
                await nc.flush()
            await nc.flush()
        heard = nc.stats.in_msgs
        await nc.publish("a")
        await nc.flush()
        assert nc.stats.in_msgs == heard
        assert said == [said[0]] * 2


async def test_auto_unsubscribe(server: LocalServer, nc: Client) -> None:
    sub = await nc.subscribe("a", max_msgs=3)
    for n in range(6):
        await nc.publish("a", b"%d" % n)
    assert [msg.data async for msg in sub] == [b"0", b"1", b"2"]
    assert nc.connection.handlers == {}


async def test_auto_unsubscribe_counts_what_came_before(nc: Client) -> None:
    """unsubscribe(max_msgs) speaks of messages in all, as the server does."""
    sub = await nc.subscribe("a")
    for _ in range(5):
        await nc.publish("a")
    await nc.flush()
    assert sub.pending_msgs == 5
    await sub.unsubscribe(max_msgs=6)
    for _ in range(5):
        await nc.publish("a")
    async with asyncio.timeout(7):
        assert len([msg async for msg in sub]) == 6
    other = await nc.subscribe("b")
    for _ in range(5):
        await nc.publish("b")
    await nc.flush()
    await other.unsubscribe(max_msgs=3)
    async with asyncio.timeout(7):
        assert len([msg async for msg in other]) == 5


async def test_auto_unsubscribe_across_a_reconnect() -> None:
    """The server counts anew in each session; a surplus subscription would steal from a queue group."""
    limits: list[int | None] = []

    async def first(conn: ScriptedConnection) -> None:
        await conn.handshake()
        await conn.expect("a")
        limits.append((await conn.expect(Unsub)).max_msgs)
        await conn.expect("b")
        for _ in range(2):
            await conn.msg("a", b"first", sid=1)
            await conn.msg("b", b"first", sid=2)
        await conn.expect("go")

    async def second(conn: ScriptedConnection) -> None:
        await conn.handshake()
        for _ in range(2):
            await conn.expect(Sub)
            if len(limits) == 1:
                limits.append((await conn.expect(Unsub)).max_msgs)
        await conn.msg("b", b"second", sid=2)
        limits.append((await conn.expect(Unsub)).max_msgs)
        for _ in range(5):
            await conn.msg("a", b"second", sid=1)
            await conn.msg("b", b"second", sid=2)
        await conn.serve()

    async with ScriptedServer(first, second) as server:
        back = Calls()
        async with natsproto.connect(server.url, reconnected_cb=back, reconnect_wait=0.01) as nc:
            a = await nc.subscribe("a", max_msgs=5)
            b = await nc.subscribe("b")
            assert [(await sub.next_msg(timeout=10)).data for sub in (a, b, a, b)] == [b"first"] * 4
            await nc.publish("go")
            await back.until(1)
            await b.next_msg(timeout=10)
            await b.unsubscribe(max_msgs=5)
            async with asyncio.timeout(7):
                assert len([msg async for msg in a]) == 3
                assert len([msg async for msg in b]) == 2
    assert limits == [5, 3, 3]  # a; the rest of a; b: one of 5 - 2 came in this session already


async def test_unsubscribed_means_silent(nc: Client) -> None:
    sub = await nc.subscribe("a")
    await nc.publish("a", b"1")
    await nc.flush()
    await sub.unsubscribe()
    await sub.unsubscribe()
    await nc.publish("a", b"2")
    await nc.flush()
    assert [msg.data async for msg in sub] == [b"1"]


async def test_subscription_drain_takes_in_what_was_sent(nc: Client) -> None:
    sub = await nc.subscribe("a")
    for n in range(100):
        await nc.publish("a", b"%d" % n)
    drain = asyncio.create_task(sub.drain())
    assert [msg.data async for msg in sub] == [b"%d" % n for n in range(100)]
    await drain
    await nc.flush()
    assert nc.connection._state_waiters == set()


async def test_drain_lets_responders_answer(server: LocalServer, nc: Client) -> None:
    async with natsproto.connect(server.url) as service:
        sub = await service.subscribe("work")
        await service.flush()
        requests = [asyncio.create_task(nc.request("work", b"%d" % n)) for n in range(20)]
        await eventually(lambda: sub.pending_msgs == 20)  # flush() may overtake tasks that have not begun

        async def serve() -> None:
            async for msg in sub:
                await msg.respond(msg.data)

        drain = asyncio.create_task(service.drain())
        await asyncio.sleep(0)
        with pytest.raises(ConnectionClosedError, match="draining"):
            await service.subscribe("more")
        await serve()
        await drain
        assert service.is_closed
        assert [reply.data for reply in await asyncio.gather(*requests)] == [b"%d" % n for n in range(20)]
        await service.drain()


async def test_a14_drain_with_a_subscription_nobody_reads(server: LocalServer) -> None:
    nc = await natsproto.connect(server.url, drain_timeout=0.1)
    stuck = await nc.subscribe("a")
    read = await nc.subscribe("a")
    await nc.publish("a")
    await nc.flush()
    start = time.monotonic()
    drain = asyncio.create_task(nc.drain())
    assert len([msg async for msg in read]) == 1
    with pytest.raises(RequestTimeoutError, match="1 messages"):
        await drain
    assert time.monotonic() - start < 0.1 + 5
    assert nc.is_closed
    assert stuck.pending_msgs == 1


async def test_drain_of_a_dead_connection_is_bounded() -> None:
    async def deaf(conn: ScriptedConnection) -> None:
        await conn.handshake()
        conn.auto_pong = False
        await conn.expect_eof(timeout=10)

    async with ScriptedServer(deaf) as server:
        nc = await natsproto.connect(server.url, drain_timeout=0.1)
        sub = await nc.subscribe("a")
        with pytest.raises(RequestTimeoutError):
            await asyncio.wait_for(sub.drain(0.05), 7)
        with pytest.raises(ConnectionClosedError):
            await asyncio.wait_for(sub.next_msg(), 6)
        await nc.subscribe("b")
        with pytest.raises(RequestTimeoutError):
            await asyncio.wait_for(nc.drain(), 7)
        assert nc.is_closed


async def test_closed_means_closed(server: LocalServer) -> None:
    nc = await natsproto.connect(server.url)
    sub = await nc.subscribe("a")
    waiting = [
        asyncio.create_task(sub.next_msg()),
        asyncio.create_task(nc.request("a", timeout=60)),
        asyncio.create_task(nc.flush(60)),
    ]
    await asyncio.sleep(0)
    await nc.close()
    for result in await asyncio.gather(*waiting, return_exceptions=True):
        assert isinstance(result, natsproto.Msg | ConnectionError), result
    assert (nc.is_closed, nc.is_connected, nc.state, nc.connected_url) == (True, False, "closed", None)
    for call in (nc.publish("a"), nc.flush(), nc.request("a"), nc.subscribe("b")):
        with pytest.raises(ConnectionClosedError):
            await call
    await nc.drain()
    await nc.close()
    assert "closed" in repr(nc)


async def test_close_sends_what_was_published(server: LocalServer, nc: Client) -> None:
    sub = await nc.subscribe("a")
    await nc.flush()
    other = await natsproto.connect(server.url)
    for n in range(1000):
        await other.publish("a", b"%d" % n + b"x" * 1000)
    await other.close()
    for n in range(1000):
        assert (await sub.next_msg(timeout=10)).data.startswith(b"%d" % n)


async def test_max_payload_counts_headers(server: LocalServer) -> None:
    async with (
        LocalServer(binary=server.binary.path, jetstream=False, max_payload=1000) as small,
        natsproto.connect(small.url) as nc,
    ):
        assert nc.max_payload == 1000
        sub = await nc.subscribe("a")
        header = len(b"NATS/1.0\r\nK: v\r\n\r\n")
        for size, headers in [(1000, None), (1000 - header - 10, {"K": "v"})]:
            await nc.publish("a", b"x" * size, headers=headers)
            assert len((await sub.next_msg(timeout=10)).data) == size
        for size, headers in [(1001, None), (1000, {"K": "v"})]:
            for call in (nc.publish, nc.request):
                with pytest.raises(MaxPayloadError) as info:
                    await call("a", b"x" * size, headers=headers)
                assert info.value.max_payload == 1000
        await nc.flush()
        assert nc.stats.reconnects == 0


BAD_SUBJECTS = [
    "", " ", "a b", "a\tb", "a\r\nPUB evil 1\r\nx", "a\n", "\x00", "a\x7f",
    "a..b", ".a", "a.", "a.*", ">", "\ud800",
]  # fmt: skip


async def test_s9_nothing_illegal_is_sent() -> None:
    async def script(conn: ScriptedConnection) -> None:
        await conn.handshake()
        event = await conn.expect(strict=True)
        assert isinstance(event, Pub)
        assert event.subject == b"end"
        await conn.serve()

    async with ScriptedServer(script) as server, natsproto.connect(server.url) as nc:
        for bad in BAD_SUBJECTS:
            with pytest.raises(BadSubjectError):
                await nc.publish(bad)
            with pytest.raises(BadSubjectError):
                await nc.publish("a", reply=bad)
            with pytest.raises(BadSubjectError):
                await nc.request(bad)
            if bad not in ("a.*", ">"):
                with pytest.raises(BadSubjectError):
                    await nc.subscribe(bad)
        for bad in ("", "a b", "a\r\nb", "\x00"):
            with pytest.raises(BadSubjectError):
                await nc.subscribe("a", queue=bad)
        for name, value in [
            ("a b", "x"), ("a:b", "x"), ("", "x"), ("a\r\nb", "x"),
            ("a", "x\r\ny"), ("a", "x\ny"), ("a", "\x00"),
        ]:  # fmt: skip
            for call in (nc.publish, nc.request):
                with pytest.raises(LocalProtocolError):
                    await call("a", headers={name: value})
        for payload in ("text", 7, None, [1]):
            for call in (nc.publish, nc.request):
                with pytest.raises(LocalProtocolError):
                    await call("a", payload)  # type: ignore[arg-type]
        with pytest.raises(ConfigError):
            await nc.subscribe("a", max_msgs=-1)
        await nc.publish("end")
        await nc.flush()


async def test_facts(nc: Client, server: LocalServer) -> None:
    assert nc.is_connected
    assert nc.state == "connected"
    assert nc.connected_url == server.url
    assert nc.servers == [server.url]
    assert nc.client_id == nc.server_info["client_id"]
    assert nc.server_info["version"] == server.version
    assert nc.new_inbox() != nc.new_inbox()
    assert nc.new_inbox().startswith("_INBOX.")
    assert server.url in repr(nc)
    assert "out_msgs=0" in repr(nc.stats)
    nc.server_info.clear()
    assert nc.server_info != {}


async def test_echo_off_and_inbox_prefix(server: LocalServer) -> None:
    async with natsproto.connect(server.url, echo=False, inbox_prefix="_MINE.x", name="me") as nc:
        sub = await nc.subscribe("a")
        await nc.publish("a")
        await nc.flush()
        assert sub.pending_msgs == 0
        assert nc.new_inbox().startswith("_MINE.x.")
        with pytest.raises(NoRespondersError):
            await nc.request("nobody")
        connections = (await asyncio.to_thread(server.connz))["connections"]
        assert "me" in [connection.get("name") for connection in connections]
