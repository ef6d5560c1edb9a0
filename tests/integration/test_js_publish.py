"""Publishing on real servers: acknowledgements, duplicates, compare-and-set, full streams, the window."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

import natsproto
from natsproto.errors import (
    APIError,
    NoRespondersError,
    PermissionsViolationError,
    RequestTimeoutError,
    StaleConnectionError,
    UnsupportedFeatureError,
    WrongStreamError,
)
from natsproto.jetstream.api.errors import MessageTooLargeError, StorageFullError, WrongLastSequenceError
from natsproto.jetstream.api.models import StreamConfig
from natsproto.jetstream.api.publish_headers import PublishOptions
from natsproto.jetstream.context import JetStreamContext
from natsproto.jetstream.publisher import OutOfOrderError
from natsproto.server import LocalServer
from natsproto.testing import DROP, DUPLICATE, HOLD, FaultProxy
from natsproto.wire import Msg, Pub

LIMIT = 20.0


@pytest.fixture
async def name(js: JetStreamContext) -> AsyncIterator[str]:
    """The name of a fresh stream on ``<name>.>``."""
    name = "p-" + uuid.uuid4().hex[:12]
    await js.create_stream(StreamConfig(name=name, subjects=[f"{name}.>"], storage="memory"))
    yield name
    await js.delete_stream(name)


async def contents(js: JetStreamContext, name: str) -> list[bytes]:
    last = (await js.stream_info(name)).last_seq
    return [(await js.get_message(name, seq=seq)).data for seq in range(1, last + 1)]


async def test_acknowledgement(js: JetStreamContext, name: str) -> None:
    ack = await js.publish(f"{name}.a", b"x", stream=name)
    assert (ack.stream, ack.seq, ack.duplicate, ack.domain) == (name, 1, False, None)


async def test_a_counter_takes_no_stream(new_server: LocalServer) -> None:
    """Servers refuse an expected stream beside an increment: nothing is stored anywhere."""
    async with natsproto.connect(new_server.url) as nc:
        js, name = nc.jetstream(), "p-" + uuid.uuid4().hex[:12]
        await js.create_stream(StreamConfig(name=name, subjects=[f"{name}.>"], allow_msg_counter=True))
        for value in ("5", "10"):
            ack = await js.publish(f"{name}.a", b"", headers={"Nats-Incr": "5"})
            assert (ack.stream, ack.value) == (name, value)
            with pytest.raises(APIError, match="increment"):
                await js.publish(f"{name}.a", b"", headers={"Nats-Incr": "5"}, stream=name)
        await js.delete_stream(name)


async def test_duplicates(js: JetStreamContext, name: str) -> None:
    first = await js.publish(f"{name}.a", b"x", msg_id="1")
    second = await js.publish(f"{name}.a", b"x", msg_id="1")
    assert (first.duplicate, second.duplicate, second.seq) == (False, True, first.seq)


async def test_compare_and_set(js: JetStreamContext, name: str) -> None:
    await js.publish(f"{name}.a", b"1", expected_last_subject_seq=0)
    await js.publish(f"{name}.b", b"2", expected_last_seq=1)
    await js.publish(f"{name}.a", b"3", expected_last_subject_seq=1)
    for options, last in (({"expected_last_subject_seq": 1}, 3), ({"expected_last_seq": 1}, 3)):
        with pytest.raises(WrongLastSequenceError) as caught:
            await js.publish(f"{name}.a", b"4", **options)  # type: ignore[arg-type]
        assert caught.value.last == last
    with pytest.raises(WrongStreamError, match="refused by"):
        await js.publish(f"{name}.a", b"4", stream="other", timeout=0.5)
    assert (await js.stream_info(name)).last_seq == 3


async def test_expected_ids(js: JetStreamContext, name: str) -> None:
    await js.publish(f"{name}.a", b"1", msg_id="1")
    await js.publish(f"{name}.a", b"2", msg_id="2", expected_last_msg_id="1", stream=name)
    with pytest.raises(APIError) as caught:
        await js.publish(f"{name}.a", b"3", expected_last_msg_id="1")
    assert caught.value.err_code == 10070


async def test_the_sequence_of_another_subject(js: JetStreamContext, name: str) -> None:
    """An older server would compare the message's own subject."""
    if "api_lvl" not in js.client.server_info:
        with pytest.raises(UnsupportedFeatureError):
            await js.publish(
                f"{name}.a", b"", expected_last_subject_seq=0, expected_last_subject_seq_subject="b"
            )
        assert (await js.stream_info(name)).messages == 0
        return
    await js.publish(f"{name}.lock.b", b"1")
    for subject in (f"{name}.lock.b", f"{name}.lock.*"):
        expected = PublishOptions(expected_last_subject_seq=1, expected_last_subject_seq_subject=subject)
        await js.publish(f"{name}.a", b"2", **expected)
    await js.publish(f"{name}.lock.b", b"3")
    with pytest.raises(WrongLastSequenceError):
        await js.publish(f"{name}.a", b"4", **expected)


async def test_a_time_to_live(js: JetStreamContext, name: str) -> None:
    if "api_lvl" not in js.client.server_info:
        with pytest.raises(UnsupportedFeatureError):
            await js.publish(f"{name}.a", b"", ttl=timedelta(seconds=1))
        assert (await js.stream_info(name)).messages == 0
        return
    with pytest.raises(APIError) as caught:
        await js.publish(f"{name}.a", b"", ttl=timedelta(seconds=1))
    assert caught.value.err_code == 10166
    await js.update_stream(replace((await js.stream_info(name)).config, allow_msg_ttl=True))
    await js.publish(f"{name}.a", b"1", ttl=timedelta(hours=1))
    await js.publish(f"{name}.a", b"2", ttl="never")
    headers = [(await js.get_message(name, seq=seq)).header for seq in (1, 2)]
    assert headers == [b"NATS/1.0\r\nNats-TTL: 3600s\r\n\r\n", b"NATS/1.0\r\nNats-TTL: never\r\n\r\n"]


@pytest.mark.parametrize(
    ("limits", "headers"),
    [
        ({"max_bytes": 200, "discard": "new"}, {}),
        ({"max_msgs": 1, "discard": "new"}, {}),
        ({"max_msg_size": 50}, {}),
        ({"sealed": True}, {}),
        ({}, {"A": "a" * 65_600}),
        ({}, {"Nats-Expected-Last-Sequence": "7"}),
        ({}, {"Nats-Expected-Last-Subject-Sequence": "7"}),
        ({}, {"Nats-Expected-Last-Msg-Id": "m"}),
        ({}, {"Nats-Rollup": "all"}),
        ({}, {"Nats-TTL": "5s"}),
        ({}, {"Nats-TTL": "x"}),
        ({}, {"Nats-Incr": "1"}),
        ({}, {"Nats-Incr": "x"}),
        ({}, {"Nats-Batch-Id": "b", "Nats-Batch-Sequence": "1"}),
        ({}, {"Nats-Schedule": "@hourly", "Nats-Schedule-Target": "t"}),
        ({}, {"Nats-Schedule-Next": "purge", "Nats-Scheduler": "t"}),
        ({}, {"Nats-Expected-Last-Subject-Sequence-Subject": "t"}),
    ],
)
async def test_refusals_with_a_streams_name_are_told_at_once(
    js: JetStreamContext, name: str, limits: dict[str, Any], headers: dict[str, str]
) -> None:
    """And as without it."""
    await js.publish(f"{name}.a", b"first")
    if limits:
        await js.update_stream(replace((await js.stream_info(name)).config, **limits))
    told: list[tuple[type[APIError], int] | None] = []
    for stream in (None, name):
        refusal = None
        try:
            async with asyncio.timeout(1):
                await js.publish(f"{name}.a", b"x" * 200, headers=headers, stream=stream)
        except APIError as exc:
            refusal = type(exc), exc.err_code
        told.append(refusal)
    assert told[0] == told[1]
    assert told[0] is not None or "api_lvl" not in js.client.server_info  # which does not know the header


async def test_a_stream_that_is_not_there_yet(js: JetStreamContext) -> None:
    """A publish that is tried again while its stream is being created."""
    subject = "later." + uuid.uuid4().hex[:12]
    publishing = asyncio.create_task(js.publish(subject, b"x", retry_attempts=-1, retry_wait=0.01))
    with pytest.raises(NoRespondersError):
        await js.publish(subject, b"x", retry_attempts=0)
    name = subject.replace(".", "-")
    await js.create_stream(StreamConfig(name=name, subjects=[subject], storage="memory"))
    assert (await publishing).seq == 1
    await js.delete_stream(name)


async def test_no_stream(js: JetStreamContext) -> None:
    async with asyncio.timeout(7):
        with pytest.raises(NoRespondersError):
            await js.publish("nobody.is.here", b"x")


async def test_too_large_for_the_stream(js: JetStreamContext, name: str) -> None:
    await js.update_stream(StreamConfig(name=name, subjects=[f"{name}.>"], storage="memory", max_msg_size=10))
    with pytest.raises(MessageTooLargeError):
        await js.publish(f"{name}.a", b"x" * 11)


async def test_the_window_keeps_the_order(js: JetStreamContext, name: str) -> None:
    window = js.publish_window(f"{name}.a", name, max_bytes=64)
    for n in range(500):
        await window.publish(b"%d" % n)
    await window.settle()
    window.close()
    assert (window.acknowledged, window.unproven) == (500, {})
    pull = await js.pull_consumer(name, config={"ack_policy": "none"})
    found = await pull.fetch(500)
    assert [message.data for message in found] == [b"%d" % n for n in range(500)]


async def test_the_window_and_a_full_stream(js: JetStreamContext, name: str) -> None:
    """Later, smaller ones still fit and are acknowledged: the failure stays the first one."""
    await js.update_stream(
        StreamConfig(name=name, subjects=[f"{name}.>"], storage="memory", max_bytes=10_000, discard="new")
    )
    window = js.publish_window(f"{name}.a", name)
    await window.publish(b"x" * 6000)
    await window.publish(b"y" * 6000)
    await window.publish(b"z")
    with pytest.raises(StorageFullError):
        await window.settle()
    await window.quiesce(LIMIT)
    assert (window.acknowledged, sorted(window.unproven)) == (1, [1, 2])
    with pytest.raises(StorageFullError):
        await window.publish(b"")
    window.close()
    assert (await js.stream_info(name)).messages == 2


async def test_the_window_and_no_stream(js: JetStreamContext) -> None:
    window = js.publish_window("nobody.is.here", "S")
    await window.publish(b"x")
    with pytest.raises(NoRespondersError):
        await window.settle()
    window.close()


async def test_the_window_and_a_lost_connection(server: LocalServer, js: JetStreamContext, name: str) -> None:
    async with FaultProxy(server.url) as proxy, natsproto.connect(proxy.url, reconnect_wait=0.01) as nc:
        proxy.to_client = lambda event, raw: DROP if isinstance(event, Msg) else None
        window = nc.jetstream().publish_window(f"{name}.a", name)
        for n in range(3):
            await window.publish(b"%d" % n)
        await nc.flush()
        async with asyncio.timeout(LIMIT):
            while (await js.stream_info(name)).messages < 3:  # answers come before what came is stored
                pass
        settling = asyncio.ensure_future(window.settle())
        proxy.cut()
        async with asyncio.timeout(LIMIT):
            with pytest.raises(StaleConnectionError):
                await settling
        assert sorted(window.unproven) == [0, 1, 2]
        window.close()
    assert await contents(js, name) == [b"0", b"1", b"2"]


async def test_the_window_and_a_lost_acknowledgement(server: LocalServer, name: str) -> None:
    async with FaultProxy(server.url) as proxy, natsproto.connect(proxy.url) as nc:
        window = nc.jetstream().publish_window(f"{name}.a", name, progress_timeout=1.5)
        proxy.to_client = lambda event, raw: (
            DROP if isinstance(event, Msg) and event.subject == window.inbox + b".1" else None
        )
        for n in range(3):
            await window.publish(b"%d" % n)
        async with asyncio.timeout(LIMIT):
            with pytest.raises(RequestTimeoutError):
                await window.settle()
        assert (window.acknowledged, sorted(window.unproven)) == (1, [1, 2])
        window.close()


async def test_the_window_and_swapped_messages(server: LocalServer, name: str) -> None:
    """What the network does to the order shows in the acknowledgements."""
    async with FaultProxy(server.url) as proxy, natsproto.connect(proxy.url) as nc:
        proxy.to_server = lambda event, raw: (
            HOLD if isinstance(event, Pub) and event.payload == b"0" else None
        )
        window = nc.jetstream().publish_window(f"{name}.a", name)
        await window.publish(b"0")
        await window.publish(b"1")
        await nc.flush()
        assert proxy.release() == 1
        async with asyncio.timeout(LIMIT):
            with pytest.raises(OutOfOrderError):
                await window.settle()
        window.close()


async def test_the_window_and_a_message_twice(server: LocalServer, name: str) -> None:
    """The second copy takes a sequence, the order is kept: not for the window to see."""
    async with FaultProxy(server.url) as proxy, natsproto.connect(proxy.url) as nc:
        proxy.to_server = lambda event, raw: (
            DUPLICATE if isinstance(event, Pub) and event.payload == b"0" else None
        )
        window = nc.jetstream().publish_window(f"{name}.a", name)
        for n in range(3):
            await window.publish(b"%d" % n)
        await window.settle()
        assert (window.acknowledged, window.last_seq) == (3, 4)
        window.close()


async def test_the_window_and_permissions() -> None:
    config = """
    authorization { users: [{user: u, password: p, permissions: {publish: {deny: "s.secret"}}}] }
    """
    async with (
        LocalServer(config=config) as server,
        natsproto.connect(server.url, user="u", password="p") as nc,
    ):
        js = nc.jetstream()
        await js.create_stream(StreamConfig(name="S", subjects=["s.*"], storage="memory"))
        window = js.publish_window("s.secret", "S")
        async with asyncio.timeout(6):
            await window.publish(b"x")
            with pytest.raises(PermissionsViolationError):
                await window.settle()
            with pytest.raises(PermissionsViolationError):
                await js.publish("s.secret", b"x")
        window.close()
