"""The operations on messages, on a client that is its own server."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from types import SimpleNamespace
from typing import Any, Self

import pytest

from natsproto.errors import MaxPayloadError, NoRespondersError
from objstore.bench.load import Load, Pace
from objstore.bench.messages import FIRST, WORKS, Messages
from objstore.bench.payloads import Payloads
from objstore.bench.record import Figures
from objstore.bench.settings import Settings
from objstore.bench.sizes import Part, Sizes
from support.waits import eventually


class Subscription:
    def __init__(self, echo: Echo, subject: str) -> None:
        self.echo, self.subject = echo, subject
        self.queue: asyncio.Queue[Any] = asyncio.Queue()

    async def next_msg(self, timeout: float) -> Any:
        return await asyncio.wait_for(self.queue.get(), timeout)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        return await self.queue.get()

    async def unsubscribe(self) -> None:
        self.echo.subscriptions.pop(self.subject, None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.unsubscribe()


class Echo:
    """Hands each message to whoever subscribed to its subject."""

    def __init__(self) -> None:
        self.subscriptions: dict[str, Subscription] = {}
        self.published = self.flushes = 0
        self.spoil = False
        self.fail: Exception | None = None
        self.connection = SimpleNamespace(mux=SimpleNamespace(expects="answer".__eq__))

    async def subscribe(self, subject: str, **limits: int) -> Subscription:
        self.subscriptions[subject] = Subscription(self, subject)
        return self.subscriptions[subject]

    async def publish(self, subject: str, payload: bytes, reply: str | None = None) -> None:
        if self.fail is not None:
            raise self.fail
        self.published += 1
        found = self.subscriptions.get(subject)
        if found is not None:
            data = payload[:-1] + b"?" if self.spoil else payload
            found.queue.put_nowait(SimpleNamespace(data=data, reply=reply))

    async def flush(self) -> None:
        self.flushes += 1

    async def request(self, subject: str, payload: bytes) -> Any:
        if subject not in self.subscriptions:
            raise NoRespondersError("nobody")
        answers = await self.subscribe("answer")
        await self.publish(subject, payload, "answer")
        return await asyncio.wait_for(answers.queue.get(), 1)


def made(client: Echo, work: str, batch: int | None = 5, concurrency: int = 2) -> Messages:
    chosen = Settings(work, Sizes([Part(16, 64, 1)], "16-64"), batch=batch, concurrency=concurrency)
    return WORKS[work](client, chosen, Payloads(1, 1024), "bench.x")  # type: ignore[arg-type]


async def figures(work: Messages, count: int, concurrency: int = 2) -> Figures:
    found = Load(work, Pace(concurrency, None, count), Figures())
    async with AsyncExitStack() as stack:
        await work.open(stack)
        await found.run()
    return found.figures


async def test_publish() -> None:
    client = Echo()
    found = await figures(made(client, "publish"), 50)
    assert found.ops == 50
    assert client.published == FIRST + 50
    assert client.flushes == 10
    assert client.subscriptions == {}


async def test_publish_compares_before_it_begins() -> None:
    client = Echo()
    client.spoil = True
    with pytest.raises(Exception, match="wrong bytes in a message"):
        await figures(made(client, "publish"), 50)


async def test_subscribe() -> None:
    client = Echo()
    found = await figures(made(client, "subscribe"), 50)
    assert (found.ops, found.failed_ops) == (50, 0)
    assert found.series["subscribe"].latency.total == 10
    assert client.subscriptions == {}


async def test_request() -> None:
    client = Echo()
    found = await figures(made(client, "request"), 10, 1)
    assert (found.ops, found.failed_ops) == (10, 0)
    assert client.subscriptions.keys() == {"answer"}


@pytest.mark.parametrize("work", ["subscribe", "request"])
async def test_wrong_bytes_are_failures(work: str) -> None:
    client = Echo()
    client.spoil = True
    found = await figures(made(client, work, 1), 4, 1)
    assert {key: each.code for key, each in found.failures.items()} == {f"{work}: IntegrityError": 7}


async def test_a_failed_batch_gives_its_subscription_back() -> None:
    client = Echo()
    client.fail = MaxPayloadError("too large")
    found = await figures(made(client, "subscribe", 5, 1), 20, 1)
    assert {key: each.count for key, each in found.failures.items()} == {"subscribe: MaxPayloadError": 4}


async def test_a_responder_that_cannot_answer_goes_on() -> None:
    client = Echo()
    work = made(client, "request")
    async with AsyncExitStack() as stack:
        await work.open(stack)
        requests = client.subscriptions["bench.x.echo"].queue
        client.fail = MaxPayloadError("too large")
        requests.put_nowait(SimpleNamespace(data=b"1", reply="answer"))
        requests.put_nowait(SimpleNamespace(data=b"2", reply=None))
        await eventually(requests.empty)
        client.fail = None
        assert (await client.request("bench.x.echo", b"3")).data == b"3"


async def test_only_its_own_requests_are_answered() -> None:
    """Whoever sees the subject could else have anything published, such as the deletion of a stream."""
    client = Echo()
    async with AsyncExitStack() as stack:
        await made(client, "request").open(stack)
        for reply in ("$JS.API.STREAM.DELETE.S", "answer.1", "_INBOX.others", "victim"):
            await client.publish("bench.x.echo", b"{}", reply)
        assert (await client.request("bench.x.echo", b"3")).data == b"3"
        assert client.published == 4 + 2


async def test_nothing_is_stored() -> None:
    assert await made(Echo(), "publish").check() == 0
    with pytest.raises(NotImplementedError):
        Messages(None, made(Echo(), "publish").settings, Payloads(1, 16), "s").next(0)  # type: ignore[arg-type]
