"""A connection is lost, and comes back or does not (rows A4, A5, A8, A10-A12, A16)."""

from __future__ import annotations

import asyncio
import os
import random
import time

import pytest

import natsproto
from natsproto.aio import reconnect as reconnect_module
from natsproto.errors import (
    AuthorizationError,
    ConnectionClosedError,
    MaxPayloadError,
    NatsError,
    OutboundBufferLimitError,
    RequestTimeoutError,
    StaleConnectionError,
)
from natsproto.server import LocalServer
from natsproto.testing import FaultProxy, ScriptedServer
from natsproto.testing.scripted import ScriptedConnection
from natsproto.wire import Connect, Ping, Pub, Sub, Unsub
from support.calls import Calls
from support.clock import Clock

FAST = {"reconnect_wait": 0.02, "reconnect_wait_max": 0.1}


async def plain(conn: ScriptedConnection) -> None:
    await conn.handshake()
    await conn.serve()


async def test_a4_kill_and_restart_again_and_again(own_server: LocalServer) -> None:
    """Subscriptions are back before what was published meanwhile; requests under way fail at once."""
    lost, back = Calls(), Calls()
    fds = len(os.listdir("/proc/self/fd"))
    async with natsproto.connect(
        own_server.url, disconnected_cb=lost, reconnected_cb=back, error_cb=Calls(), **FAST
    ) as nc:
        tasks = len(asyncio.all_tasks())
        sub = await nc.subscribe("s")
        asked = await nc.subscribe("asked")
        for n in range(8):
            request = asyncio.create_task(nc.request("asked", b"%d" % n, timeout=60))
            assert (await asked.next_msg(timeout=10)).data == b"%d" % n
            own_server.kill()
            with pytest.raises(StaleConnectionError):
                await asyncio.wait_for(request, 7)
            await lost.until(n + 1)
            await nc.publish("s", b"kept %d" % n)
            own_server.start()
            await back.until(n + 1)
            assert (await sub.next_msg(timeout=10)).data == b"kept %d" % n
        assert nc.stats.reconnects == 8
        await nc.flush()
        assert len(asyncio.all_tasks()) <= tasks + 1
    assert len(os.listdir("/proc/self/fd")) <= fds + 2


@pytest.mark.parametrize("how", ["rst", "fin", "fin to client", "fin to server"])
async def test_a5_every_way_a_connection_ends(own_server: LocalServer, how: str) -> None:
    async with FaultProxy(own_server.url) as proxy:
        back = Calls()
        async with natsproto.connect(proxy.url, reconnected_cb=back, **FAST) as nc:
            sub = await nc.subscribe("s")
            await nc.flush()
            if how == "rst":
                proxy.cut()
            else:
                proxy.fin({"fin": None, "fin to client": "client", "fin to server": "server"}[how])  # type: ignore[arg-type]
            await back.until(1)
            await nc.publish("s", b"x")
            assert (await sub.next_msg(timeout=10)).data == b"x"
            assert proxy.accepted == 2


async def test_a5_cut_inside_of_a_frame(own_server: LocalServer) -> None:
    """At many offsets of one PUB: each message arrives whole or not at all, none is taken up again."""
    from natsproto.testing.proxy import cut_after

    payload = bytes(range(256)) * 4
    frame = b"PUB s 1024\r\n" + payload + b"\r\n"
    offsets = [0, 1, 4, 11, 12, 13, 500, len(frame) - 3, len(frame) - 2, len(frame) - 1]
    async with (
        FaultProxy(own_server.url) as proxy,
        natsproto.connect(own_server.url) as witness,
    ):
        seen = await witness.subscribe("s")
        await witness.flush()
        back = Calls()
        async with natsproto.connect(proxy.url, reconnected_cb=back, error_cb=Calls(), **FAST) as nc:
            for n, offset in enumerate(offsets):

                def hook(event: object, raw: bytes, offset: int = offset) -> object:
                    if isinstance(event, Pub) and event.subject == b"s":
                        assert raw == frame
                        return cut_after(offset)
                    return None

                proxy.to_server = hook  # type: ignore[assignment]
                await nc.publish("s", payload)
                await back.until(n + 1)
                proxy.to_server = None
                await nc.publish("s", b"%d" % offset)
                assert (await seen.next_msg(timeout=10)).data == b"%d" % offset


async def test_publish_while_disconnected_is_kept_in_order_after_the_subscriptions() -> None:
    again = asyncio.Event()

    async def first(conn: ScriptedConnection) -> None:
        await conn.handshake()
        await conn.expect("sub")
        await conn.expect("partial")
        conn.abort()

    async def second(conn: ScriptedConnection) -> None:
        await conn.info()
        await again.wait()
        await conn.expect(Ping)
        await conn.pong()
        events = [await conn.expect(strict=True) for _ in range(5)]
        assert [type(event) for event in events] == [Sub, Sub, Unsub, Pub, Pub]
        assert events[0].queue == b"q"
        assert events[2].max_msgs == 5
        assert [event.payload for event in events[3:]] == [b"1", b"2" * 20_000]
        await conn.serve()

    async with ScriptedServer(first, second) as server:
        lost = Calls()
        async with natsproto.connect(
            server.url, disconnected_cb=lost, reconnect_buffer_size=30_000, **FAST
        ) as nc:
            await nc.subscribe("sub", queue="q")
            await nc.subscribe("other", max_msgs=5)
            await nc.publish("partial")
            await lost.until(1)
            assert not nc.is_connected
            await nc.publish("a", b"1")
            await nc.publish("a", b"2" * 20_000)
            with pytest.raises(OutboundBufferLimitError):
                await nc.publish("a", b"3" * 20_000)
            assert nc.stats.out_msgs == 3
            again.set()
            await nc.flush()


@pytest.mark.parametrize("room", [3000, 10_000])
@pytest.mark.parametrize("end", ["time-out", "cancelled"])
async def test_a_request_that_was_given_up_is_not_sent_later(end: str, room: int) -> None:
    """Its caller was told that it failed: a purge would hit what was stored since. It takes no room."""

    async def first(conn: ScriptedConnection) -> None:
        await conn.handshake()
        await conn.expect("go")

    async def second(conn: ScriptedConnection) -> None:
        await conn.handshake()
        asked = await conn.expect(Pub)
        assert asked.payload == b"waited for"
        await conn.msg(asked.reply.decode(), b"done")
        assert (await conn.expect(Pub)).payload == b"published"
        await conn.serve()

    async with ScriptedServer(first, second) as server:
        lost = Calls()
        async with natsproto.connect(
            server.url, disconnected_cb=lost, reconnect_buffer_size=room, **FAST
        ) as nc:
            server.refuse()
            await nc.publish("go")
            await lost.until(1)
            given_up = asyncio.ensure_future(nc.request("a", b"x" * 2000, timeout=0.05))
            await asyncio.sleep(0)
            if end == "cancelled":
                given_up.cancel()
            await asyncio.wait([given_up])
            waited_for = asyncio.ensure_future(nc.request("a", b"waited for", timeout=20))
            await asyncio.sleep(0)
            await nc.publish("b", b"published")
            await nc.publish("b", b"y" * 1500)
            server.refuse(False)
            assert (await waited_for).data == b"done"
            await nc.flush()


async def test_kept_messages_too_large_for_the_next_server_are_reported() -> None:
    async def first(conn: ScriptedConnection) -> None:
        await conn.handshake(max_payload=1000)
        await conn.expect("go")

    async def second(conn: ScriptedConnection) -> None:
        await conn.handshake(max_payload=10)
        assert (await conn.expect(Pub)).payload == b"small"
        await conn.serve()

    async with ScriptedServer(first, second) as server:
        lost, errors = Calls(), Calls()
        async with natsproto.connect(server.url, disconnected_cb=lost, error_cb=errors, **FAST) as nc:
            server.refuse()
            await nc.publish("go")
            await lost.until(1)
            assert nc.max_payload == 1000, "the last server's limit counts"
            await nc.publish("a", b"x" * 900)
            await nc.publish("a", b"small")
            with pytest.raises(MaxPayloadError):
                await nc.publish("a", b"x" * 1001)
            server.refuse(False)
            (error,) = await errors.until(1)
            assert isinstance(error, MaxPayloadError)
            assert (error.size, error.max_payload) == (900, 10)
            await nc.flush()


async def test_requests_and_flushes_under_way_fail_at_disconnect() -> None:
    async def script(conn: ScriptedConnection) -> None:
        conn.auto_pong = False
        await conn.info()
        await conn.expect(Ping)
        await conn.pong()
        await conn.expect(Pub)
        await conn.expect(Ping)
        await conn.expect(Ping)

    async with ScriptedServer(script, plain) as server, natsproto.connect(server.url, **FAST) as nc:
        waits = [
            asyncio.create_task(nc.request("a", timeout=60)),
            asyncio.create_task(nc.flush(60)),
            asyncio.create_task(nc.flush(60)),
        ]
        done, _ = await asyncio.wait(waits, timeout=10)
        assert done == set(waits)
        for task in waits:
            assert isinstance(task.exception(), StaleConnectionError)
        await nc.flush()


async def test_a8_lame_duck_moves_to_another_server(
    own_server: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the server ends the connection, and with everything published taken in by it."""
    monkeypatch.setattr("natsproto.aio.session.LEAVE_TIMEOUT", 10.0)
    duck, back = Calls(), Calls()
    async with LocalServer(jetstream=False) as other, natsproto.connect(own_server.url) as witness:
        seen = await witness.subscribe("s")
        await witness.flush()
        async with natsproto.connect(
            [own_server.url, other.url], randomize=False, lame_duck_cb=duck, reconnected_cb=back, **FAST
        ) as nc:
            sub = await nc.subscribe("s")
            await nc.flush()
            own_server.lame_duck()
            await duck.until(1)
            for n in range(100):
                await nc.publish("s", b"%d" % n)
            start = time.monotonic()
            await back.until(1)
            assert time.monotonic() - start < 2 + 5
            assert nc.connected_url == other.url
            assert len(duck) == 1
            await nc.publish("s", b"after")
            datas = []
            while not datas or datas[-1] != b"after":
                datas.append((await sub.next_msg(timeout=10)).data)
            async with asyncio.timeout(10):
                while seen.pending_msgs + len(datas) - 1 < 100:
                    await witness.flush()
        own_server.kill()  # it would wait for the witness


async def test_a8_lame_duck_of_the_only_server() -> None:
    async def script(conn: ScriptedConnection) -> None:
        await conn.handshake()
        await conn.info(ldm=True)
        await conn.info(ldm=True)
        await conn.expect("bye")

    async with ScriptedServer(script, plain) as server:
        duck, lost, back = Calls(), Calls(), Calls()
        async with natsproto.connect(
            server.url, lame_duck_cb=duck, disconnected_cb=lost, reconnected_cb=back, **FAST
        ) as nc:
            await duck.until(1)
            await nc.flush()
            assert (len(duck), len(lost)) == (1, 0)
            await nc.publish("bye")
            await back.until(1)


async def test_a8_a_lame_duck_that_no_longer_answers_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("natsproto.aio.session.LEAVE_TIMEOUT", 0.1)

    async def script(conn: ScriptedConnection) -> None:
        await conn.handshake()
        conn.auto_pong = False
        await conn.info(ldm=True)
        await conn.expect_eof()

    async with ScriptedServer(script) as server, ScriptedServer() as other:
        back = Calls()
        async with natsproto.connect(
            [server.url, other.url], randomize=False, reconnected_cb=back, **FAST
        ) as nc:
            await back.until(1)
            assert nc.connected_url == other.url


def pauses_left_out(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Make no pause between attempts to connect; return how long they would have been."""
    waits: list[float] = []

    async def pause(self: object, seconds: float) -> None:
        waits.append(seconds)
        await asyncio.sleep(0)

    monkeypatch.setattr(reconnect_module.Reconnect, "_pause", pause)
    return waits


async def test_a10_backoff_grows_and_is_jittered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconnect_module, "SHORT_LIFE", 60.0)
    waits = pauses_left_out(monkeypatch)

    async with ScriptedServer() as server:
        closed = Calls()
        nc = await natsproto.connect(
            [server.url, "nats://127.0.0.1:1"], randomize=False, max_reconnects=12, closed_cb=closed
        )
        nc.connection.pool.rng = random.Random(1)
        server.refuse()
        (await server.connection()).abort()
        await closed.until(1)
        assert isinstance(nc.last_error, ConnectionClosedError)
        pauses = [wait for wait in waits if wait > 0]
        assert len(pauses) == 12
        for n, pause in enumerate(pauses):
            limit = min(4.0, 0.1 * 2**n)
            assert limit / 2 <= pause <= limit
        await nc.close()


async def test_a10_short_lived_sessions_are_no_storm(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that takes a client and drops it at once is not asked again without pause."""
    monkeypatch.setattr(reconnect_module, "SHORT_LIFE", 60.0)
    waits = pauses_left_out(monkeypatch)

    async def script(conn: ScriptedConnection) -> None:
        await conn.handshake()
        await conn.expect(Sub)
        conn.abort()

    async with ScriptedServer(script) as server:
        back = Calls()
        async with natsproto.connect(server.url, reconnected_cb=back) as nc:
            await nc.subscribe("s")
            await back.until(6)
            pauses = [wait for wait in waits if wait > 0]
            assert len(pauses) >= 5
            assert all(pause >= 0.05 * 2**n for n, pause in enumerate(pauses[:5]))


async def test_a10_any_exception_leads_to_the_next_server(monkeypatch: pytest.MonkeyPatch) -> None:
    from natsproto.aio import session as session_module

    real = session_module.open_transport
    failures = [ValueError("x"), TimeoutError(), UnicodeError("idna"), OSError(5, "io")]

    async def flaky(*args: object, **kwargs: object) -> object:
        if failures:
            raise failures.pop()
        return await real(*args, **kwargs)  # type: ignore[arg-type]

    async with ScriptedServer() as server:
        monkeypatch.setattr(session_module, "open_transport", flaky)
        urls = [f"nats://127.0.0.{n}:{server.port}" for n in range(2, 6)] + [server.url]
        async with natsproto.connect(urls, randomize=False) as nc:
            assert nc.connected_url == server.url


async def test_a11_two_refusals_end_the_client_with_the_reason() -> None:
    async def first(conn: ScriptedConnection) -> None:
        await conn.handshake()
        await conn.expect(Pub)

    async def refusing(conn: ScriptedConnection) -> None:
        await conn.info(auth_required=True)
        await conn.expect(Connect)
        await conn.err("Authorization Violation")

    async with ScriptedServer(first, refusing) as server:
        closed, errors = Calls(), Calls()
        nc = await natsproto.connect(
            server.url.replace("//", "//u:CANARY@"), closed_cb=closed, error_cb=errors, **FAST
        )
        sub = await nc.subscribe("s")
        await nc.publish("a")
        await closed.until(1)
        assert len(server.connections) == 3
        reason = nc.last_error
        assert isinstance(reason, ConnectionClosedError)
        assert isinstance(reason.__cause__, AuthorizationError)
        assert "CANARY" not in str(reason)
        assert errors.items[-1] is reason
        for call in (nc.publish("a"), nc.flush(), nc.request("a"), nc.subscribe("b"), sub.next_msg()):
            with pytest.raises(ConnectionClosedError):
                await call
        await nc.close()
        await nc.close()


async def test_reconnect_forbidden() -> None:
    async def script(conn: ScriptedConnection) -> None:
        await conn.handshake()
        await conn.expect("go")

    async with ScriptedServer(script) as server:
        closed, lost = Calls(), Calls()
        nc = await natsproto.connect(
            server.url, reconnect=False, closed_cb=closed, disconnected_cb=lost, error_cb=Calls()
        )
        sub = await nc.subscribe("s")
        await nc.publish("go")
        await closed.until(1)
        assert len(lost) == 1
        with pytest.raises(StaleConnectionError):
            await sub.next_msg()
        with pytest.raises(ConnectionClosedError):
            await nc.publish("a")
        assert len(server.connections) == 1
        await nc.close()


async def test_close_while_reconnecting() -> None:
    async with ScriptedServer(plain) as server:
        lost = Calls()
        nc = await natsproto.connect(
            server.url, disconnected_cb=lost, reconnect_wait=60, reconnect_wait_max=60
        )
        server.refuse()
        (await server.connection()).abort()
        await lost.until(1)
        waiting = asyncio.create_task(nc.flush(60))
        await asyncio.wait_for(nc.close(), 7)
        with pytest.raises(ConnectionClosedError):
            await waiting


async def test_close_in_the_middle_of_a_new_handshake() -> None:
    async def hanging(conn: ScriptedConnection) -> None:
        await conn.info()
        conn.auto_pong = False
        await conn.expect_eof()

    async with ScriptedServer(plain, hanging) as server:
        nc = await natsproto.connect(server.url, connect_timeout=60)
        (await server.connection()).abort()
        await server.connection(1)
        await asyncio.wait_for(nc.close(), 7)
        assert nc.is_closed
        await server.finished(2)
        assert nc.is_closed


async def test_a16_a_jump_of_the_wall_clock_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    real = time.time
    async with ScriptedServer() as server:
        lost = Calls()
        async with natsproto.connect(server.url, ping_interval=0.1, disconnected_cb=lost) as nc:
            for jump in (3600, -3600):
                monkeypatch.setattr(time, "time", lambda jump=jump: real() + jump)
                with pytest.raises(RequestTimeoutError):
                    await nc.request("nobody.answers", timeout=0.3)
                await nc.flush()
            assert len(lost) == 0


async def test_a16_a_client_that_stood_still_goes_on(own_server: LocalServer) -> None:
    """All timers are due at once after SIGSTOP/SIGCONT: no false alarm."""
    lost, clock = Calls(), Clock()
    async with natsproto.connect(own_server.url, ping_interval=5, disconnected_cb=lost) as nc:
        sub = await nc.subscribe("s")
        for _ in range(3):
            await nc.publish("s", b"x")
            clock.forward(60)
            await sub.next_msg(timeout=10)
        await nc.flush()
        assert len(lost) == 0


async def test_a12_connected_means_working(own_server: LocalServer) -> None:
    """Cuts at random moments under load; after each, CONNECTED means that a round trip works."""
    rng = random.Random(5)
    async with FaultProxy(own_server.url) as proxy:  # noqa: SIM117
        async with natsproto.connect(proxy.url, error_cb=Calls(), **FAST) as nc:
            sub = await nc.subscribe("echo")

            async def serve() -> None:
                async for msg in sub:
                    await msg.respond(msg.data)

            server_task = asyncio.create_task(serve())
            outcomes = {"ok": 0, "failed": 0}

            async def load() -> None:
                for n in range(150):
                    try:
                        reply = await nc.request("echo", b"%d" % n, timeout=10)
                        assert reply.data == b"%d" % n
                        outcomes["ok"] += 1
                    except NatsError:
                        outcomes["failed"] += 1
                    if rng.random() < 0.05:
                        proxy.cut()

            await asyncio.gather(load(), load())
            await nc.flush()
            assert nc.is_connected
            assert outcomes["ok"] > 100
            assert (await nc.request("echo", b"end")).data == b"end"
            await sub.unsubscribe()
            await server_task
