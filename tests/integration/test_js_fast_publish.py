"""Fast-ingest batches on real servers: the newest stores them, the oldest is not sent any."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator

import pytest

import natsproto
from natsproto.errors import APIError, StaleConnectionError, UnsupportedFeatureError, WrongStreamError
from natsproto.jetstream.api.errors import WrongLastSequenceError
from natsproto.jetstream.context import JetStreamContext
from natsproto.jetstream.fast_publisher import BatchIncompleteError
from natsproto.server import LocalServer
from natsproto.testing import DROP, FaultProxy
from natsproto.wire import Msg, Pub

LIMIT = 20.0


@pytest.fixture
async def js(new_server: LocalServer) -> AsyncIterator[JetStreamContext]:
    async with asyncio.timeout(LIMIT), natsproto.connect(new_server.url) as nc:
        yield nc.jetstream()


@pytest.fixture
async def name(js: JetStreamContext) -> AsyncIterator[str]:
    """The name of a fresh stream on ``<name>.>`` that takes batches."""
    name = "f-" + uuid.uuid4().hex[:12]
    await js.create_stream(
        {"name": name, "subjects": [f"{name}.>"], "storage": "memory", "allow_batched": True}
    )
    yield name
    await js.delete_stream(name)


async def contents(js: JetStreamContext, name: str) -> list[bytes]:
    last = (await js.stream_info(name)).last_seq
    return [(await js.get_message(name, seq=seq)).data for seq in range(1, last + 1)]


async def test_the_oldest_server(old_server: LocalServer) -> None:
    async with natsproto.connect(old_server.url) as nc:
        js = nc.jetstream()
        await js.create_stream({"name": "fast", "subjects": ["fast.>"], "storage": "memory"})
        with pytest.raises(UnsupportedFeatureError, match=r"2\.14\.0"):
            async with js.fast_publisher("fast") as batch:
                await batch.add("fast.a", b"x")
        assert (await js.stream_info("fast")).messages == 0
        await js.delete_stream("fast")


async def test_many_messages(js: JetStreamContext, name: str) -> None:
    async with js.fast_publisher(name, flow=7) as batch:
        for n in range(100):
            assert await batch.add(f"{name}.{n % 3}", b"%d" % n, headers={"N": str(n)}) == n + 1
            assert n + 1 - batch.acknowledged <= 14
        ack = await batch.commit(f"{name}.end", b"100")
    assert (ack.stream, ack.seq, ack.count, batch.acknowledged) == (name, 101, 101, 101)
    assert await contents(js, name) == [b"%d" % n for n in range(101)]
    stored = await js.get_message(name, seq=5)
    assert (stored.subject, stored.header) == (f"{name}.1", b"NATS/1.0\r\nN: 4\r\n\r\n")


async def test_batches_at_once(js: JetStreamContext, name: str) -> None:
    """The messages of each come in order, those of the others between them."""

    async def publish(letter: str) -> None:
        async with js.fast_publisher(name) as batch:
            for n in range(300):
                await batch.add(f"{name}.{letter}", b"%d" % n)

    await asyncio.gather(*map(publish, "abc"))
    for letter in "abc":
        config = {"ack_policy": "none", "filter_subject": f"{name}.{letter}"}
        found = await (await js.pull_consumer(name, config=config)).fetch(300)
        assert [message.data for message in found] == [b"%d" % n for n in range(300)]


async def test_ends(js: JetStreamContext, name: str) -> None:
    assert (await js.fast_publisher(name).commit(f"{name}.a", b"0")).count == 1
    batch = js.fast_publisher(name)
    await batch.add(f"{name}.a", b"1")
    ack = await batch.close()
    assert ack is not None
    assert (ack.count, ack.seq) == (1, 2)
    assert await js.fast_publisher(name).close() is None
    assert await contents(js, name) == [b"0", b"1"]


async def test_a_stream_without_batches(js: JetStreamContext) -> None:
    other = "o-" + uuid.uuid4().hex[:12]
    await js.create_stream({"name": other, "subjects": [f"{other}.>"], "storage": "memory"})
    with pytest.raises(APIError) as caught:
        await js.fast_publisher(other).add(f"{other}.a", b"x")
    assert caught.value.err_code == 10205
    assert (await js.stream_info(other)).messages == 0
    await js.delete_stream(other)


async def test_another_stream(js: JetStreamContext, name: str) -> None:
    """Its own name is in the acknowledgement of the last message."""
    batch = js.fast_publisher("elsewhere")
    await batch.add(f"{name}.a", b"x")
    with pytest.raises(WrongStreamError):
        await batch.close()


@pytest.mark.parametrize("continue_on_gap", [False, True])
async def test_a_message_that_is_refused(js: JetStreamContext, name: str, continue_on_gap: bool) -> None:
    batch = js.fast_publisher(name, continue_on_gap=continue_on_gap)
    await batch.add(f"{name}.a", b"1", expected_last_seq=0)
    await batch.add(f"{name}.a", b"2", expected_last_seq=7)
    if continue_on_gap:
        await batch.commit(f"{name}.a", b"3")
        assert [(seq, type(error)) for seq, error in batch.refused] == [(2, WrongLastSequenceError)]
        assert await contents(js, name) == [b"1", b"3"]
    else:
        with pytest.raises(WrongLastSequenceError):
            await batch.commit(f"{name}.a", b"3")
        assert batch.acknowledged == 1
        assert await contents(js, name) == [b"1"]


async def test_duplicates(js: JetStreamContext, name: str) -> None:
    async with js.fast_publisher(name) as batch:
        for n in (1, 2, 2, 1, 3):
            await batch.add(f"{name}.a", b"%d" % n, msg_id=str(n))
    assert await contents(js, name) == [b"1", b"2", b"3"]


@pytest.mark.parametrize("continue_on_gap", [False, True])
async def test_duplicates_at_the_end(js: JetStreamContext, name: str, continue_on_gap: bool) -> None:
    """They count, too, and so does a message that is refused where that is allowed."""
    async with js.fast_publisher(name, continue_on_gap=continue_on_gap) as batch:
        for n in (1, 2, 1, 2):
            await batch.add(f"{name}.a", b"%d" % n, msg_id=str(n))
        if continue_on_gap:
            await batch.add(f"{name}.a", b"x", expected_last_seq=7)
    assert batch.acknowledged == 4 + continue_on_gap
    assert await contents(js, name) == [b"1", b"2"]


async def test_a_stream_that_changes_messages(js: JetStreamContext) -> None:
    """Its subjects are other ones than those that were published; counters have other payloads."""
    name = "t-" + uuid.uuid4().hex[:12]
    config = {"name": name, "subjects": [f"{name}.>"], "storage": "memory", "allow_batched": True}
    for extra in (
        {"subject_transform": {"src": f"{name}.*", "dest": f"{name}.moved.{{{{wildcard(1)}}}}"}},
        {"allow_msg_counter": True},
        {"retention": "interest"},
        {"max_msgs_per_subject": 1},
    ):
        await js.create_stream({**config, **extra})
        counter = "allow_msg_counter" in extra
        async with js.fast_publisher(name) as batch:
            for n in range(5):
                payload, headers = (b"", {"Nats-Incr": "1"}) if counter else (b"%d" % n, None)
                await batch.add(f"{name}.a", payload, headers=headers)
        assert batch.acknowledged == 5
        await js.delete_stream(name)


@pytest.mark.parametrize("continue_on_gap", [False, True])
async def test_a_message_that_is_lost(
    new_server: LocalServer, js: JetStreamContext, name: str, continue_on_gap: bool
) -> None:
    async with FaultProxy(new_server.url) as proxy, natsproto.connect(proxy.url) as nc:
        proxy.to_server = lambda event, raw: (
            DROP if isinstance(event, Pub) and bytes(event.payload) == b"2" else None
        )
        batch = nc.jetstream().fast_publisher(name, continue_on_gap=continue_on_gap)
        for n in (1, 2, 3):
            await batch.add(f"{name}.a", b"%d" % n)
        if continue_on_gap:
            await batch.commit(f"{name}.a", b"4")
            assert batch.lost == 1
            assert await contents(js, name) == [b"1", b"3", b"4"]
        else:
            with pytest.raises(BatchIncompleteError) as caught:
                await batch.commit(f"{name}.a", b"4")
            assert caught.value.stored == 1
            assert await contents(js, name) == [b"1"]


async def test_the_last_message_is_lost(new_server: LocalServer, js: JetStreamContext, name: str) -> None:
    """Nothing follows it that would show the gap, but a ping."""
    async with FaultProxy(new_server.url) as proxy, natsproto.connect(proxy.url) as nc:
        proxy.to_server = lambda event, raw: (
            DROP if isinstance(event, Pub) and bytes(event.payload) == b"2" else None
        )
        batch = nc.jetstream().fast_publisher(name, timeout=2.0)
        await batch.add(f"{name}.a", b"1")
        with pytest.raises(BatchIncompleteError) as caught:
            await batch.commit(f"{name}.a", b"2")
        assert caught.value.stored == 1


async def test_acknowledgements_that_are_lost(
    new_server: LocalServer, js: JetStreamContext, name: str
) -> None:
    """Pings have the last one sent again."""
    async with FaultProxy(new_server.url) as proxy, natsproto.connect(proxy.url) as nc:
        batch = nc.jetstream().fast_publisher(name, flow=2, timeout=1.0)
        await batch.add(f"{name}.a", b"1")

        def drop(event: object, raw: bytes) -> object:
            lost = isinstance(event, Msg) and not event.subject.endswith(b".4.$FI")
            return DROP if lost else None

        proxy.to_client = drop  # type: ignore[assignment]
        for n in range(2, 10):
            await batch.add(f"{name}.a", b"%d" % n)
        proxy.to_client = None
        assert (await batch.commit(f"{name}.a", b"10")).count == 10


async def test_the_connection_is_lost(new_server: LocalServer, js: JetStreamContext, name: str) -> None:
    async with FaultProxy(new_server.url) as proxy, natsproto.connect(proxy.url, reconnect_wait=0.01) as nc:
        batch = nc.jetstream().fast_publisher(name)
        await batch.add(f"{name}.a", b"1")
        proxy.cut()
        with pytest.raises(StaleConnectionError):
            while True:
                await batch.add(f"{name}.a", b"2")
        await nc.flush()
        with pytest.raises(StaleConnectionError):
            await batch.close()
        async with nc.jetstream().fast_publisher(name) as again:
            await again.add(f"{name}.b", b"3")
