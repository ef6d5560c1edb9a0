"""A fellow client of the account that sees others' requests, and may use streams of its own only.

It answers direct gets, publishes and acknowledgements of others with what its own streams say: each of its
requests has their reply subject. Its answers come first: a proxy holds the genuine ones back for a moment.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

import natsproto
from natsproto.aio.client import Client
from natsproto.errors import NoRespondersError, RequestTimeoutError, WrongStreamError
from natsproto.jetstream.api.errors import WrongLastSequenceError
from natsproto.jetstream.api.models import StoredMessage
from natsproto.jetstream.context import JetStreamContext
from natsproto.jetstream.direct_get import answering_stream
from natsproto.server import LocalServer
from natsproto.testing import DROP, FaultProxy, delay
from natsproto.wire import Event, Msg
from support.fake_session import until

LIMIT = 30.0

GET = "$JS.API.DIRECT.GET"

CONFIG = f"""accounts {{ A {{ jetstream: enabled, users: [
  {{ user: owner, password: p }}
  {{ user: reader, password: p, permissions: {{ publish: ["{GET}.ORD"], subscribe: "_INBOX.>" }} }}
  {{ user: fellow, password: p, permissions: {{
    publish: ["{GET}.OWN", "own.>"],
    subscribe: ["{GET}.ORD", "{GET}.ORD.>", "$JS.ACK.ORD.>", "orders.>", "_INBOX.>"] }} }}
] }} }}"""


@pytest.fixture(scope="module", params=["new", "old"])
def shared(request: pytest.FixtureRequest) -> Iterator[LocalServer]:
    binary = request.getfixturevalue(f"{request.param}_server").binary.path
    with LocalServer(binary=binary, config=CONFIG) as server:
        yield server


@asynccontextmanager
async def connected(server: LocalServer, user: str) -> AsyncIterator[Client]:
    async with natsproto.connect(server.url, user=user, password="p") as client:
        yield client


@pytest.fixture
async def owner(shared: LocalServer) -> AsyncIterator[Client]:
    async with asyncio.timeout(LIMIT), connected(shared, "owner") as client:
        js = client.jetstream()
        for name, subjects in (("ORD", "orders.>"), ("OWN", "own.>")):
            config = {"name": name, "subjects": [subjects], "storage": "memory", "allow_direct": True}
            await js.create_stream(config)
        for number in range(6):
            await js.publish(f"orders.{number % 3}", b"genuine")
        for number in range(9):
            await js.publish(f"own.{number % 3}", b"forged")
        yield client
        for name in await js.stream_names():
            await js.delete_stream(name)


@pytest.fixture
async def fellow(shared: LocalServer) -> AsyncIterator[Client]:
    async with connected(shared, "fellow") as client:
        yield client


def is_genuine(event: Event) -> bool:
    """Whether the stream ORD, or a consumer, sends this. It has 6 messages, the fellow's 9."""
    if not isinstance(event, Msg) or not event.subject.startswith(b"_INBOX."):
        return False
    header = event.header
    if header is None:
        return not event.payload or b'"stream":"ORD"' in bytes(event.payload)
    return (
        b"Nats-Stream: ORD\r\n" in header
        or b"204 EOB\r\nNats-Num-Pending: 0\r\nNats-Last-Sequence: 6" in header
    )


class Victim:
    """A client whose genuine answers come last; ``answered`` counts the requests that the fellow answered."""

    def __init__(self, client: Client, proxy: FaultProxy) -> None:
        self.js: JetStreamContext = client.jetstream(timeout=5.0)
        self.proxy = proxy
        self.answered = 0

    @asynccontextmanager
    async def attacked(self, fellow: Client, seen: str, *requests: Any) -> AsyncIterator[None]:
        """Whatever it sends to ``seen`` gets the answers to these requests: subject, payload, headers."""
        subscription = await fellow.subscribe(seen)
        await fellow.flush()

        async def answer() -> None:
            async for msg in subscription:
                for subject, payload, headers in requests:
                    await fellow.publish(subject, payload, reply=msg.reply, headers=headers)
                await fellow.flush()
                self.answered += 1

        self.proxy.to_client = lambda event, raw: delay(0.1) if is_genuine(event) else None
        task = asyncio.ensure_future(answer())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await subscription.unsubscribe()
            await fellow.flush()
            self.proxy.to_client = None


@pytest.fixture
async def victim(shared: LocalServer, owner: Client) -> AsyncIterator[Victim]:
    async with (
        FaultProxy(shared.url) as proxy,
        natsproto.connect(proxy.url, user="owner", password="p") as client,
    ):
        yield Victim(client, proxy)


OWN_MESSAGES = [
    (f"{GET}.OWN", document, None)
    for document in (
        b'{"seq":7}',
        b'{"last_by_subj":"own.1"}',
        b'{"seq":1,"next_by_subj":">","batch":9}',
    )
]
ALL_OF_THEM = (f"{GET}.OWN", b'{"multi_last":["own.>"]}', None)
"""An older server answers this with a status, and those cannot be told apart."""


async def test_messages_of_another_stream(victim: Victim, fellow: Client) -> None:
    js = victim.js
    is_new = "api_lvl" in js.client.server_info

    async def batch(messages: AsyncGenerator[StoredMessage, None]) -> list[StoredMessage]:
        return [message async for message in messages]

    requests = [*OWN_MESSAGES, ALL_OF_THEM] if is_new else OWN_MESSAGES
    async with (
        victim.attacked(fellow, f"{GET}.ORD", *requests),
        victim.attacked(fellow, f"{GET}.ORD.>", *requests),
    ):
        found = [
            await js.direct_get("ORD", seq=6),
            await js.direct_get("ORD", last_by_subject="orders.2"),
            await js.direct_get("ORD", last_by_subject="*.2"),
            await js.direct_get("ORD", seq=4, next_by_subject="orders.2"),
            *(await batch(js.get_batch("ORD", seq=6)))[-1:],
            *(await batch(js.get_batch("ORD", seq=4, subject="orders.*")))[-1 if is_new else 2 :],
        ]
        assert {(m.seq, m.subject, m.data) for m in found} == {(6, "orders.2", b"genuine")}
        if is_new:
            newest = await batch(js.get_last_messages("ORD", ["orders.*", "own.*"]))
            assert [(m.seq, m.data) for m in newest] == [(seq, b"genuine") for seq in (4, 5, 6)]
    assert victim.answered >= 6


@pytest.mark.parametrize("user", ["owner", "reader"])
async def test_a_mirror_answers_for_its_origin(shared: LocalServer, owner: Client, user: str) -> None:
    """Also for a user who may not ask what it is: that is refused once a minute at most."""
    js = owner.jetstream()
    mirror = {"name": "ORD"}
    await js.create_stream({"name": "M", "mirror": mirror, "storage": "memory", "mirror_direct": True})
    async with connected(shared, user) as client:
        js = client.jetstream()
        streams: set[bytes | None] = set()
        while len(streams) < 2:
            message = await js.direct_get("ORD", seq=6)
            assert (message.subject, message.data) == ("orders.2", b"genuine")
            assert message.header is not None
            streams.add(answering_stream(message.header))
        assert streams == {b"ORD", b"M"}
        before = client.stats.out_msgs
        for _ in range(20):
            assert [m.data async for m in js.get_batch("ORD", seq=6)] == [b"genuine"]
        assert client.stats.out_msgs - before == 20


REFUSED = {"Nats-Expected-Last-Sequence": "999999"}


@pytest.mark.parametrize("headers", [None, REFUSED], ids=["stored", "refused"])
async def test_publishes_that_another_stream_answers(
    victim: Victim, fellow: Client, headers: dict[str, str] | None
) -> None:
    js = victim.js
    async with victim.attacked(fellow, "orders.>", ("own.x", b"", headers)):
        for seq in (7, 8):
            ack = await js.publish("orders.new", b"x", stream="ORD")
            assert (ack.stream, ack.seq) == ("ORD", seq)
        with pytest.raises(WrongLastSequenceError) as caught:
            await js.publish("orders.new", b"x", stream="ORD", expected_last_subject_seq=7)
        assert caught.value.last == 8
        victim.proxy.to_client = lambda event, raw: DROP if is_genuine(event) else None
        with pytest.raises(WrongStreamError, match="'OWN'"):
            await js.publish("orders.new", b"x", stream="ORD", timeout=0.5)
    assert victim.answered >= 3


async def test_confirmations_that_another_stream_sends(victim: Victim, fellow: Client) -> None:
    js = victim.js
    consumer = await js.pull_consumer("ORD", config={"durable_name": "w", "ack_policy": "explicit"})
    first, second = await consumer.fetch(2)
    async with victim.attacked(fellow, "$JS.ACK.ORD.>", *OWN_MESSAGES, ("own.x", b"", None)):
        acking = asyncio.ensure_future(first.ack_sync(5))
        await until(lambda: victim.answered)
        await acking
        assert (await js.consumer_info("ORD", "w")).num_ack_pending == 1
        await consumer.delete()
        with pytest.raises(RequestTimeoutError):
            await second.ack_sync(0.5)
    with pytest.raises(NoRespondersError):
        await second.ack_sync()
