"""A fellow client of the account that sees others' requests, and may use a stream of its own only.

It sends its own requests with their reply subjects: the server's answers come to the others' inboxes. To a
stream of the others it may publish one subject.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

import natsproto
from natsproto.aio.client import Client
from natsproto.aio.subscription import Subscription
from natsproto.errors import NatsError, RequestTimeoutError
from natsproto.jetstream.api.statuses import ConsumerDeletedError
from natsproto.jetstream.context import JetStreamContext
from natsproto.jetstream.fast_batch import APPEND, COMMIT
from natsproto.jetstream.fast_publisher import BatchIncompleteError
from natsproto.jetstream.pull import PullConsumer
from natsproto.server import LocalServer
from support.fake_session import until
from support.waits import held

LIMIT = 30.0

NEXT = "$JS.API.CONSUMER.MSG.NEXT"

CONFIG = f"""accounts {{ A {{ jetstream: enabled, mappings: {{ "ev.before": "ev.mapped" }}, users: [
  {{ user: owner, password: p }}
  {{ user: fellow, password: p, permissions: {{
    publish: ["{NEXT}.OWN.*", "own.>", "ev.fellow"], subscribe: ["{NEXT}.ORD.>", "ev.>", "_INBOX.>"] }} }}
  {{ user: writer, password: p, permissions: {{ publish: {{ deny: "$JS.API.STREAM.MSG.GET.>" }} }} }}
] }} }}"""

REQUESTS = {
    "409 Exceeded MaxRequestBatch": ("small", b'{"batch":2,"expires":60000000000}'),
    "409 Exceeded MaxRequestExpires": ("small", b'{"batch":1,"expires":120000000000}'),
    "409 Message Size Exceeds MaxBytes": ("full", b'{"batch":1,"max_bytes":1,"expires":60000000000}'),
    "409 Consumer is push based": ("push", b'{"batch":1,"expires":60000000000}'),
    "409 Consumer Deleted": ("gone", b'{"batch":1,"expires":60000000000}'),
    "400 Bad Request": ("small", b'{"batch"'),
    "404 No Messages": ("small", b'{"batch":1,"no_wait":true}'),
    "408 Request Timeout": ("small", b'{"batch":1,"expires":1000000}'),
}


@pytest.fixture(scope="module", params=["new", "old"])
def shared(request: pytest.FixtureRequest) -> Iterator[LocalServer]:
    binary = request.getfixturevalue(f"{request.param}_server").binary.path
    with LocalServer(binary=binary, config=CONFIG) as server:
        yield server


@pytest.fixture(scope="module")
def newest(new_server: LocalServer) -> Iterator[LocalServer]:
    with LocalServer(binary=new_server.binary.path, config=CONFIG) as server:
        yield server


@asynccontextmanager
async def connected(server: LocalServer) -> AsyncIterator[tuple[Client, Client]]:
    """The owner of all streams, and the fellow."""
    async with (
        asyncio.timeout(LIMIT),
        natsproto.connect(server.url, user="owner", password="p") as owner,
        natsproto.connect(server.url, user="fellow", password="p") as fellow,
    ):
        yield owner, fellow


class Statuses:
    """Has the server send a status to the inbox of every pull from stream ``ORD``."""

    def __init__(self, owner: Client, fellow: Client) -> None:
        self.js: JetStreamContext = owner.jetstream()
        self.fellow = fellow
        self.sent = 0
        self.seen: Subscription
        self.consumer: PullConsumer

    async def prepare(self) -> None:
        js = self.js
        await js.create_stream({"name": "ORD", "subjects": ["orders.>"], "storage": "memory"})
        await js.create_stream({"name": "OWN", "subjects": ["own.>"], "storage": "memory"})
        await js.publish("own.message", bytes(1000))
        await self.create("small", filter_subject="own.none", max_batch=1, max_expires=60_000_000_000)
        await self.create("full")
        await self.create("push", deliver_subject="nowhere")
        await self.create("gone", filter_subject="own.none")
        self.seen = await self.fellow.subscribe(f"{NEXT}.ORD.>")
        await self.fellow.flush()
        self.consumer = await js.pull_consumer("ORD", config={"durable_name": "w", "ack_policy": "explicit"})

    async def create(self, name: str, **config: Any) -> None:
        await self.js.create_consumer("OWN", {"durable_name": name, "ack_policy": "explicit", **config})

    async def answer(self, kind: str) -> None:
        consumer, request = REQUESTS[kind]
        async for msg in self.seen:
            await self.fellow.publish(f"{NEXT}.OWN.{consumer}", request, reply=msg.reply)
            await self.fellow.flush()
            if consumer == "gone":
                while not (await self.js.consumer_info("OWN", consumer)).num_waiting:
                    pass
                await self.js.delete_consumer("OWN", consumer)
                await self.create(consumer, filter_subject="own.none")
            self.sent += 1


@pytest.mark.parametrize("kind", REQUESTS)
async def test_statuses_of_another_consumer(shared: LocalServer, kind: str) -> None:
    """Neither a fetch nor an iteration ends by one, while its own consumer is there."""
    reported: list[NatsError] = []
    async with connected(shared) as (owner, fellow):
        statuses = Statuses(owner, fellow)
        await statuses.prepare()
        js, consumer = statuses.js, statuses.consumer
        owner.connection.report = reported.append  # type: ignore[method-assign]
        answering = asyncio.ensure_future(statuses.answer(kind))
        messages = consumer.messages(batch=10, timeout=20)
        try:
            for n, waiting in enumerate((consumer.fetch(1, timeout=20), anext(messages)), 1):
                task = asyncio.ensure_future(waiting)  # type: ignore[arg-type]
                await until(lambda n=n: statuses.sent == n)
                await held(0.2)  # with the status
                assert not task.done()
                await js.publish("orders.eu", b"%d" % n)
                found = await task
                await (found[0] if isinstance(found, list) else found).ack_sync()
            assert statuses.sent == 2  # the first request of each was enough
            assert reported == []
            task = asyncio.ensure_future(anext(messages))
            await consumer.delete()
            with pytest.raises(ConsumerDeletedError):
                await task
        finally:
            answering.cancel()
            await asyncio.gather(answering, return_exceptions=True)
            await messages.aclose()
            await js.delete_stream("ORD")
            await js.delete_stream("OWN")


@pytest.mark.parametrize("continue_on_gap", [False, True])
@pytest.mark.parametrize("how", ["copies", "gaps", "refusals"])
async def test_batches_of_another_stream(newest: LocalServer, how: str, continue_on_gap: bool) -> None:
    """Whatever it answers, the batch is whole, and so it is told."""
    async with connected(newest) as (owner, fellow):
        js = owner.jetstream()
        for name in ("ev", "own"):
            await js.create_stream(
                {"name": name.upper(), "subjects": [f"{name}.>"], "storage": "memory", "allow_batched": True}
            )

        seen = await fellow.subscribe("ev.>")
        await fellow.flush()

        async def publish() -> None:
            headers = {"Nats-Expected-Stream": "NO"} if how == "refusals" else None
            async for msg in seen:
                seq = int((msg.reply or "0.0.0").split(".")[-3])
                if how != "gaps" or seq % 5 == 1:
                    await fellow.publish("own.x", b"", reply=msg.reply, headers=headers)

        publishing = asyncio.ensure_future(publish())
        try:
            for count in (1, 2, 3):
                async with js.fast_publisher("EV", flow=10, continue_on_gap=continue_on_gap) as batch:
                    for n in range(200):
                        await batch.add(f"ev.{n % 7}", b"%d" % n)
                assert (batch.sent, batch.acknowledged) == (200, 200)
                assert (await js.stream_info("EV")).messages == 200 * count
        finally:
            publishing.cancel()
            await asyncio.gather(publishing, return_exceptions=True)
            await js.delete_stream("EV")
            await js.delete_stream("OWN")


@asynccontextmanager
async def events(js: JetStreamContext) -> AsyncIterator[None]:
    config = {"name": "EV", "subjects": ["ev.>"], "storage": "memory", "allow_batched": True}
    await js.create_stream(config)
    try:
        yield
    finally:
        await js.delete_stream("EV")


@pytest.mark.parametrize("continue_on_gap", [False, True])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("payload", [b"forged", b"5"])
@pytest.mark.parametrize("operation", [APPEND, COMMIT])
async def test_a_message_in_the_place_of_one_of_a_batch(
    newest: LocalServer, operation: int, payload: bytes, last: bool, continue_on_gap: bool
) -> None:
    """The server counts it; the batch's own one of that number is not stored, and so it is told."""
    async with connected(newest) as (owner, fellow), events(owner.jetstream()):
        js = owner.jetstream()
        seen = await fellow.subscribe("ev.>")
        await fellow.flush()
        batch = js.fast_publisher("EV", continue_on_gap=continue_on_gap)
        for n in range(1, 5):
            await batch.add("ev.a", b"%d" % n)
        while True:
            reply = ((await anext(seen)).reply or "").split(".")
            if reply[-3] == "4":
                reply[-3:-1] = "5", str(operation)
                await fellow.publish("ev.fellow", payload, reply=".".join(reply))
                await fellow.flush()
                break
        # What the fellow commits is answered before the owner's own message is sent, or after it.
        errors = BatchIncompleteError if operation == APPEND else (BatchIncompleteError, RequestTimeoutError)
        with pytest.raises(errors) as caught:
            await (batch.commit("ev.a", b"5") if last else batch.add("ev.a", b"5"))
            await batch.close()
        if isinstance(caught.value, BatchIncompleteError):
            assert (caught.value.stored, batch.acknowledged) == (0, 0)
        newest_message = await js.get_message("EV", seq=5)
        assert (newest_message.subject, newest_message.data) == ("ev.fellow", payload)
        assert (await js.stream_info("EV")).last_seq == 5


async def test_a_batch_whose_messages_may_not_be_read(newest: LocalServer) -> None:
    reported: list[NatsError] = []
    async with (
        connected(newest) as (owner, _),
        events(owner.jetstream()),
        natsproto.connect(newest.url, user="writer", password="p") as writer,
    ):
        writer.connection.report = reported.append  # type: ignore[method-assign]
        batch = writer.jetstream().fast_publisher("EV", timeout=60)
        await batch.add("ev.a", b"1")
        async with asyncio.timeout(LIMIT):  # less than an unanswered read takes
            assert (await batch.commit("ev.a", b"2")).count == 2
        assert reported == []


async def test_a_batch_whose_subjects_the_account_maps(newest: LocalServer) -> None:
    async with connected(newest) as (owner, _), events(owner.jetstream()):
        js = owner.jetstream()
        for count in (1, 5):
            async with js.fast_publisher("EV") as batch:
                for _ in range(count):
                    await batch.add("ev.before", b"same")
            assert batch.acknowledged == count
        assert await js.stream_subjects("EV") == {"ev.mapped": 6}
