"""A consumer that is read to an end: how it ends, and that nothing of it is left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from natsproto.jetstream.api.errors import StreamNotFoundError
from objstore.bucket.collect import Collector
from objstore.bucket.retry import retrying
from support.fake_session import turns, until
from support.fake_stream import Stream


@pytest.fixture
async def stream() -> AsyncIterator[Stream]:
    stream = Stream()
    yield stream
    await turns()
    assert stream.live == {}, "consumers are left"
    connection = stream.server.connection
    assert [each for each in connection.handlers.values() if each is not connection._mux] == []


def collector(stream: Stream, seqs: list[int], last: int, **options: Any) -> Collector:
    client = stream.server.client

    async def again(call: Callable[[], Awaitable[Any]]) -> Any:
        return await retrying(client, call, 5.0)

    bucket: Any = SimpleNamespace(
        js=client.jetstream(timeout=0.5),
        stream="S",
        created=None,
        consumer_timeout=0.5,
        retry_budget=5.0,
        retrying=again,
    )

    def on_message(msg: Any, delivery: Any) -> None:
        seqs.append(delivery.stream_seq)
        if delivery.stream_seq == last:
            reading.finish()

    reading = Collector(bucket, "s.>", on_message, options.pop("deliver_policy", "all"), **options)
    return reading


async def test_to_the_message_that_is_the_last(stream: Stream) -> None:
    seqs: list[int] = []
    stream.pending = 2
    async with collector(stream, seqs, 7) as reading:
        assert (await reading.start()).num_pending == 2
        stream.deliver(3, 1)
        assert not reading.over
        stream.deliver(7, 2)
        await reading.ended
        assert reading.over
    assert seqs == [3, 7]
    assert stream.configs[0]["deliver_policy"] == "all"
    assert "headers_only" not in stream.configs[0]


async def test_nothing_more_is_due(stream: Stream) -> None:
    seqs: list[int] = []
    async with collector(stream, seqs, 7, after=4, headers_only=True) as reading:
        await reading.start_once()
        stream.deliver(5, 1)
        stream.heartbeat(1)
        await reading.ended
    assert seqs == [5]
    config = stream.configs[0]
    assert (config["deliver_policy"], config["opt_start_seq"]) == ("by_start_sequence", 5)
    assert config["headers_only"] is True


async def test_the_stream_is_gone(stream: Stream) -> None:
    with pytest.raises(StreamNotFoundError):
        async with collector(stream, [], 7) as reading:
            await reading.start()
            stream.answer = lambda verb, pub: stream.error(pub, 10059)
            stream.heartbeat(1)  # counts a message that has not come: a new consumer is tried for
            await reading.ended
    stream.live.clear()


async def test_the_caller_fails_or_is_cancelled(stream: Stream) -> None:
    with pytest.raises(ZeroDivisionError):
        async with collector(stream, [], 7) as reading:
            await reading.start()
            raise ZeroDivisionError

    async def read() -> None:
        async with collector(stream, [], 7) as reading:
            await reading.start()
            await reading.ended

    reading = asyncio.ensure_future(read())
    await until(lambda: len(stream.configs) == 2)
    await turns()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading


@pytest.mark.parametrize("start", ["start", "start_once"])
async def test_a_start_that_is_refused(stream: Stream, start: str) -> None:
    stream.answer = lambda verb, pub: verb == "CONSUMER.CREATE" and stream.error(pub, 10059)
    with pytest.raises(StreamNotFoundError):
        async with collector(stream, [], 7) as reading:
            await getattr(reading, start)()


async def test_only_a_start_is_tried_again(stream: Stream) -> None:
    """:meth:`start_once` is for who has a budget of their own."""
    refusals = 1

    def answer(verb: str, pub: Any) -> bool:
        nonlocal refusals
        if verb != "CONSUMER.CREATE" or not refusals:
            return False
        refusals -= 1
        return stream.error(pub, 10008, 503)

    stream.answer = answer
    async with collector(stream, [], 7) as reading:
        await reading.start()
    refusals = 1
    with pytest.raises(Exception, match="no") as refused:
        async with collector(stream, [], 7) as reading:
            await reading.start_once()
    assert getattr(refused.value, "err_code", 0) == 10008
