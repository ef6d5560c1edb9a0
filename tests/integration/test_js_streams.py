"""Streams, messages and direct get on real servers of both ends of the supported range."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import timedelta

import pytest

import natsproto
from natsproto.aio.client import Client
from natsproto.errors import (
    APIError,
    NatsError,
    NoRespondersError,
    RemoteProtocolError,
    RequestTimeoutError,
    StaleConnectionError,
)
from natsproto.jetstream.api.errors import (
    JetStreamNotEnabledError,
    MessageNotFoundError,
    StreamConfigError,
    StreamNameInUseError,
    StreamNotFoundError,
    StreamSealedError,
)
from natsproto.jetstream.api.models import StreamConfig, StreamInfo
from natsproto.jetstream.context import JetStreamContext
from natsproto.server import LocalServer


@pytest.fixture
async def stream(js: JetStreamContext) -> AsyncIterator[StreamInfo]:
    """A stream on ``<name>.>`` in memory, with direct get; deleted afterwards."""
    name = "s-" + uuid.uuid4().hex[:12]
    yield await js.create_stream(
        StreamConfig(name=name, subjects=[f"{name}.>"], storage="memory", allow_direct=True)
    )
    try:
        await js.delete_stream(name)
    except StreamNotFoundError:
        pass


def is_new(nc: Client) -> bool:
    return nc.server_info["version"] != "2.9.10"


async def fill(js: JetStreamContext, name: str, *tails: str) -> None:
    for n, tail in enumerate(tails):
        await js.publish(f"{name}.{tail}", b"%d" % n, headers={"N": str(n)})


async def test_create_is_idempotent(js: JetStreamContext, stream: StreamInfo) -> None:
    name = stream.config.name
    again = await js.create_stream(
        StreamConfig(name=name, subjects=[f"{name}.>"], storage="memory", allow_direct=True)
    )
    assert again.created == stream.created
    with pytest.raises(StreamNameInUseError):
        await js.create_stream(StreamConfig(name=name, subjects=[f"{name}.x"], storage="memory"))


async def test_configuration_the_server_refuses(js: JetStreamContext) -> None:
    with pytest.raises(StreamConfigError):
        await js.create_stream({"name": "x", "mirror": {"name": "y"}, "subjects": ["x.y"], "max_age": -1})


async def test_update_keeps_what_it_does_not_know(nc: Client, js: JetStreamContext) -> None:
    extra = {"republish": {"src": ">", "dest": "r.>"}}
    if is_new(nc):
        extra["allow_msg_ttl"] = True  # type: ignore[assignment]
    await js.create_stream(StreamConfig(name="known", subjects=["known.>"], storage="memory", extra=extra))
    try:
        read = (await js.stream_info("known")).config
        assert extra.items() <= read.to_json().items()
        changed = await js.update_stream(replace(read, max_age=timedelta(hours=1)))
        assert changed.config.max_age == timedelta(hours=1)
        assert replace(changed.config, max_age=None) == replace(read, max_age=None)
    finally:
        await js.delete_stream("known")


async def test_stream_not_found(js: JetStreamContext) -> None:
    for call in (js.stream_info, js.delete_stream, js.purge_stream, js.consumer_names):
        with pytest.raises(StreamNotFoundError):
            await call("no-such-stream")
    with pytest.raises(StreamNotFoundError):
        await js.update_stream({"name": "no-such-stream"})


async def test_purge(js: JetStreamContext, stream: StreamInfo) -> None:
    name = stream.config.name
    await fill(js, name, *"aabbbcc")
    assert await js.purge_stream(name, subject=f"{name}.a") == 2
    assert await js.purge_stream(name, subject=f"{name}.b", keep=1) == 2
    assert await js.purge_stream(name, seq=6) == 1
    assert (await js.stream_info(name)).messages == 2
    assert await js.purge_stream(name) == 2
    assert await js.purge_stream(name) == 0
    assert await js.stream_subjects(name) == {}


async def test_names_and_lists(js: JetStreamContext, stream: StreamInfo) -> None:
    name = stream.config.name
    assert name in await js.stream_names()
    assert await js.stream_names(f"{name}.x.y") == [name]
    assert await js.stream_names(f"{name}.*") == [name]
    assert await js.stream_names("nobody.listens.here") == []
    assert [info.config.name for info in await js.streams(f"{name}.x")] == [name]
    assert await js.streams("nobody.listens.here") == []


async def test_stream_subjects_with_a_filter(js: JetStreamContext, stream: StreamInfo) -> None:
    name = stream.config.name
    await fill(js, name, "a.1", "a.2", "a.2", "b")
    assert await js.stream_subjects(name, f"{name}.a.*") == {f"{name}.a.1": 1, f"{name}.a.2": 2}


async def test_messages_by_leader_and_direct(js: JetStreamContext, stream: StreamInfo) -> None:
    name = stream.config.name
    await fill(js, name, *"abac")
    for get in (js.get_message, js.direct_get):
        message = await get(name, seq=2)
        assert (message.subject, message.seq, message.data) == (f"{name}.b", 2, b"1")
        assert message.header is not None
        assert message.header.startswith(b"NATS/1.0\r\nN: 1\r\n")
        assert abs(message.time.timestamp() - stream.created.timestamp()) < 60
        assert (await get(name, last_by_subject=f"{name}.a")).seq == 3
        assert (await get(name, next_by_subject=f"{name}.a", seq=2)).seq == 3
        assert (await get(name, next_by_subject=f"{name}.a")).seq == 1
        assert (await get(name, next_by_subject=f"{name}.*", seq=4)).seq == 4
        for choice in (
            {"seq": 99},
            {"last_by_subject": f"{name}.x"},
            {"next_by_subject": f"{name}.a", "seq": 4},
        ):
            with pytest.raises(MessageNotFoundError):
                await get(name, **choice)  # type: ignore[arg-type]


async def test_forged_direct_get_facts(js: JetStreamContext, stream: StreamInfo) -> None:
    name = stream.config.name
    forged = {"Nats-Sequence": "99", "Nats-Subject": "x", "Nats-Time-Stamp": "y", "Nats-Stream": "z"}
    await js.publish(f"{name}.a", b"data", headers=forged)
    message = await js.direct_get(name, seq=1)
    assert (message.seq, message.subject, message.data) == (1, f"{name}.a", b"data")


async def test_a_stored_status_is_a_message(nc: Client, js: JetStreamContext, stream: StreamInfo) -> None:
    name = stream.config.name
    await nc.request_frame(f"{name}.a".encode(), b"", b"NATS/1.0 404 x\r\nA: b\r\n\r\n")
    assert (await js.direct_get(name, seq=1)).seq == 1


async def test_delete_message(js: JetStreamContext, stream: StreamInfo) -> None:
    name = stream.config.name
    await fill(js, name, *"ab")
    await js.delete_message(name, 1)
    await js.delete_message(name, 2, erase=True)
    assert (await js.stream_info(name)).messages == 0
    with pytest.raises(APIError):
        await js.delete_message(name, 1)


async def test_direct_get_not_allowed(js: JetStreamContext) -> None:
    await js.create_stream(StreamConfig(name="nodirect", subjects=["nodirect"], storage="memory"))
    try:
        await js.publish("nodirect", b"")
        for name in ("nodirect", "no-such-stream"):
            async with asyncio.timeout(7):
                with pytest.raises((NoRespondersError, RequestTimeoutError)):
                    await JetStreamContext(js.client, timeout=0.5).direct_get(name, seq=1)
    finally:
        await js.delete_stream("nodirect")


async def test_batches(nc: Client, js: JetStreamContext, stream: StreamInfo) -> None:
    name = stream.config.name
    await fill(js, name, *"abababa")
    found = [(m.seq, m.num_pending) async for m in js.get_batch(name, subject=f"{name}.a", seq=2, batch=2)]
    if not is_new(nc):
        assert found == [(3, None)]
        return
    assert found == [(3, 2), (5, 1)]
    assert [m.seq async for m in js.get_batch(name)] == [1, 2, 3, 4, 5, 6, 7]
    assert [m.seq async for m in js.get_batch(name, max_bytes=1)] == [1]
    with pytest.raises(MessageNotFoundError):
        await anext(js.get_batch(name, seq=8))


async def test_last_messages(nc: Client, js: JetStreamContext, stream: StreamInfo) -> None:
    name = stream.config.name
    await fill(js, name, *"abab")
    if not is_new(nc):
        with pytest.raises(APIError) as caught:
            await anext(js.get_last_messages(name, [f"{name}.a"]))
        assert caught.value.code == 408
        return
    assert [m.seq async for m in js.get_last_messages(name, [f"{name}.a", f"{name}.b"])] == [3, 4]
    assert [m.seq async for m in js.get_last_messages(name, [f"{name}.*"], up_to_seq=3)] == [2, 3]
    window = js.publish_window(f"{name}.x", name)
    for n in range(1030):
        await nc.publish(f"{name}.n.{n}")
    await window.publish(b"")
    await window.settle()
    window.close()
    with pytest.raises(APIError) as caught:
        await anext(js.get_last_messages(name, [f"{name}.n.*"]))
    assert caught.value.code == 413


async def test_sealed(js: JetStreamContext, stream: StreamInfo) -> None:
    name = stream.config.name
    await fill(js, name, "a")
    sealed = await js.update_stream(replace(stream.config, sealed=True))
    assert sealed.config.sealed is True
    for call in (js.publish(f"{name}.a", b""), js.purge_stream(name), js.delete_message(name, 1)):
        with pytest.raises(StreamSealedError):
            await call
    with pytest.raises(StreamConfigError):
        await js.update_stream(replace(sealed.config, sealed=False))


# -- servers of their own -----------------------------------------------------------------------------


async def test_jetstream_is_off() -> None:
    async with LocalServer(jetstream=False) as server, natsproto.connect(server.url) as nc:
        async with asyncio.timeout(6):
            with pytest.raises(JetStreamNotEnabledError):
                await nc.jetstream().account_info()
            with pytest.raises(NoRespondersError):
                await nc.jetstream().publish("x", b"")


ACCOUNTS = """
accounts {
  WITH { jetstream: enabled, users: [{user: with, password: p}],
         exports: [{service: "$JS.API.>", response_type: stream}, {stream: "out.>"}] }
  WITHOUT { users: [{user: without, password: p}] }
  IMPORTS { users: [{user: imports, password: p}],
            imports: [{service: {account: WITH, subject: "$JS.API.>"}, to: "other.api.>"}] }
}
"""


async def test_accounts() -> None:
    """One without JetStream, and one that reaches another's through a prefix."""
    async with (
        LocalServer(config=ACCOUNTS) as server,
        natsproto.connect(server.url, user="with", password="p") as owner,
        natsproto.connect(server.url, user="without", password="p") as without,
        natsproto.connect(server.url, user="imports", password="p") as imports,
    ):
        async with asyncio.timeout(6):
            with pytest.raises((JetStreamNotEnabledError, NoRespondersError)):
                await without.jetstream().account_info()
        js = owner.jetstream()
        await js.create_stream(StreamConfig(name="S", subjects=["s.>"], allow_direct=True, storage="memory"))
        await js.publish("s.a", b"data")
        prefixed = imports.jetstream(prefix="other.api")
        assert (await prefixed.stream_info("S")).messages == 1
        assert (await prefixed.get_message("S", seq=1)).data == b"data"
        assert (await prefixed.direct_get("S", last_by_subject="s.a")).data == b"data"
        assert [m.data async for m in prefixed.get_batch("S")] == [b"data"]


async def test_domain() -> None:
    async with LocalServer(domain="hub") as server, natsproto.connect(server.url) as nc:
        js = nc.jetstream(domain="hub")
        await js.create_stream(StreamConfig(name="S", subjects=["s.>"], allow_direct=True, storage="memory"))
        assert (await js.publish("s.a", b"x")).domain == "hub"
        assert (await js.direct_get("S", seq=1)).data == b"x"
        assert [m.data async for m in js.get_batch("S")] == [b"x"]
        pull = await js.pull_consumer("S", config={"durable_name": "c", "ack_policy": "explicit"})
        (message,) = await pull.fetch(1)
        await message.ack_sync()
        assert (await js.consumer_info("S", "c")).raw["num_ack_pending"] == 0
        wrong = nc.jetstream(domain="elsewhere", timeout=1)
        async with asyncio.timeout(7):
            with pytest.raises(NatsError):
                await wrong.account_info()


@pytest.mark.parametrize("which", ["new", "old"])
async def test_a_list_of_subjects_that_the_server_cannot_send(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    """JSON writes each of these characters as six. The connection is not lost with each call."""
    most = 2 * 1024 * 1024
    monkeypatch.setattr("natsproto.jetstream.streams.MAX_PENDING", most)
    binary = request.getfixturevalue(f"{which}_server").binary.path
    async with (
        asyncio.timeout(30 + 10 + 20),  # the test sets the clock forward
        LocalServer(binary=binary, config=f"max_pending: {most}\n") as server,
        natsproto.connect(server.url) as nc,
    ):
        js = nc.jetstream()
        await js.create_stream(StreamConfig(name="S", subjects=["s.>"], storage="memory"))
        await js.publish("s.short", b"")
        for n in range(most // 12_000):
            await nc.publish(f"s.long.{n}{'<' * 3900}")
        while (await js.stream_info("S")).messages <= most // 12_000:
            pass  # a flush does not wait for the stream
        for pause in (0, 10, 20):
            with pytest.raises(StaleConnectionError):
                await js.stream_subjects("S")
            await nc.flush()
            if not pause:
                continue  # once may be an accident
            lost = nc.stats.reconnects
            for _ in range(3):
                with pytest.raises(RemoteProtocolError, match=f"pass a filter, or wait for {pause} s"):
                    await nc.jetstream().stream_subjects("S")
            assert await js.stream_subjects("S", "s.short") == {"s.short": 1}
            assert await js.stream_subjects("S", "s.*") == {"s.short": 1}
            assert nc.stats.reconnects == lost
            monkeypatch.setattr(nc.connection.loop, "time", _later(nc.connection.loop.time, pause))
        assert await js.purge_stream("S", subject="s.long.>") == most // 12_000
        assert await js.stream_subjects("S") == {"s.short": 1}  # asked at once


def _later(time: Callable[[], float], seconds: float) -> Callable[[], float]:
    return lambda: time() + seconds
