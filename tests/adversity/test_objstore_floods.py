"""A server that sends more than it was asked for: the batch is over, and no more of it is taken."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator

import pytest

import natsproto
from natsproto.aio.client import Client
from natsproto.errors import NatsError, RemoteProtocolError
from natsproto.jetstream.context import JetStreamContext
from natsproto.jetstream.direct_get import HEADER_ROOM, BatchSlot
from natsproto.server import LocalServer
from natsproto.testing import FaultProxy
from natsproto.wire import Msg
from objstore import IntegrityError, ObjectStore
from support.objects import MIB, chunk_subject, forge, pattern

MANY = 300
CHUNK = MIB // 2


class Replies:
    """A batch slot, and what it handed on."""

    def __init__(self, most: int | None, max_bytes: int | None) -> None:
        self.taken: list[bytes] = []
        self.ends: list[NatsError | None] = []
        self.slot = BatchSlot(
            b"API",
            lambda msg, seq: self.taken.append(bytes(msg.payload)),
            self.ends.append,
            most=most,
            max_bytes=max_bytes,
        )

    def come(self, seq: int, payload: bytes = b"", more: bytes = b"") -> None:
        header = b"NATS/1.0\r\nNats-Sequence: %d\r\n%b\r\n" % (seq, more)
        self.slot.on_reply(b"", Msg(b"inbox", b"1", None, header, payload))

    def end(self) -> None:
        self.slot.on_reply(b"", Msg(b"inbox", b"1", None, b"NATS/1.0 204 EOB\r\n\r\n", b""))


def test_as_many_as_asked_for() -> None:
    replies = Replies(3, 10)
    for seq, payload in ((1, b"12345"), (2, b"12345"), (5, b"as much as it likes")):
        replies.come(seq, payload)
        replies.come(seq, payload)  # twice
    replies.end()
    assert (len(replies.taken), replies.ends) == (3, [None])


def test_more_messages() -> None:
    replies = Replies(3, 10)
    for seq in range(1, 10):
        replies.come(seq)
    replies.end()
    assert len(replies.taken) == 3
    assert [type(each) for each in replies.ends] == [RemoteProtocolError]


def test_more_bytes() -> None:
    replies = Replies(100, 10)
    for seq in range(1, 10):
        replies.come(seq, b"123456")
    assert len(replies.taken) == 2
    assert [type(each) for each in replies.ends] == [RemoteProtocolError]


def test_more_bytes_of_headers() -> None:
    replies = Replies(100, 10)
    for seq in range(1, 10):
        replies.come(seq, more=b"X: " + b"x" * HEADER_ROOM + b"\r\n")
    assert len(replies.taken) == 1
    assert [type(each) for each in replies.ends] == [RemoteProtocolError]


def test_no_bound() -> None:
    """Where the server decides how many there are."""
    replies = Replies(0, None)
    for seq in range(1, 10):
        replies.come(seq, b"123456")
    replies.end()
    assert (len(replies.taken), replies.ends) == (9, [None])


@pytest.mark.parametrize("max_bytes", [1, 2500, 9000, 100_000])
async def test_real_servers_send_no_more(js: JetStreamContext, store: ObjectStore, max_bytes: int) -> None:
    """However they count: with long subjects and headers, and with none."""
    for number in range(8):
        subject = f"$O.{store.bucket}.M." + "x" * 2000 * (number % 2) + str(number)
        header = {"H": "h" * 10_000} if number % 3 == 0 else None
        await js.publish(subject, b"p" * 1000 * (number // 4), headers=header)
    found: list[int] = []
    seq = 1
    while seq <= 8:
        batch = js.get_batch(f"OBJ_{store.bucket}", seq=seq, batch=5, max_bytes=max_bytes)
        found += [message.seq async for message in batch]
        seq = found[-1] + 1
    assert found == [1, 2, 3, 4, 5, 6, 7, 8]


def flood(event: object, raw: bytes) -> bytes | None:
    """In place of each message of a batch, many that follow each other."""
    if not isinstance(event, Msg) or event.header is None or b"Nats-Num-Pending" not in event.header:
        return None
    if not event.payload:
        return None
    found = re.search(rb"Nats-Sequence: (\d+)", event.header)
    assert found is not None
    seq, copies = int(found[1]), []
    for number in range(seq, seq + MANY):
        header = re.sub(rb"Nats-Sequence: \d+", b"Nats-Sequence: %d" % number, event.header)
        header = re.sub(rb"Nats-Last-Sequence: \d+", b"Nats-Last-Sequence: %d" % (number - 1), header)
        sizes = len(header), len(header) + len(event.payload)
        copies.append(b"HMSG %b %b %d %d\r\n" % (event.subject, event.sid, *sizes))
        copies.append(header + bytes(event.payload) + b"\r\n")
    return b"".join(copies)


@pytest.fixture
async def flooded(new_server: LocalServer) -> AsyncIterator[JetStreamContext]:
    async with FaultProxy(new_server.url) as proxy:
        async with natsproto.connect(proxy.url) as client:
            proxy.to_client = flood
            yield client.jetstream(timeout=30)  # what is asked for lies behind the flood
            proxy.to_client = None
        assert proxy.errors == []


@pytest.mark.parametrize("server", ["new"], indirect=True)
async def test_a_batch_that_does_not_end(store: ObjectStore, flooded: JetStreamContext) -> None:
    await store.put("a", b"x" * 1000)
    taken = 0
    with pytest.raises(RemoteProtocolError, match="than were asked for"):
        async for _ in flooded.get_batch(f"OBJ_{store.bucket}", batch=10):
            taken += 1
    assert taken == 10


async def test_chunks_that_are_stored_without_end(store: ObjectStore, server: LocalServer) -> None:
    """More of them than the object has can never be right: who measures them waits for no more."""
    info = await store.put("a", b"x" * 1000 + b"y", chunk_size=1000)
    await forge(store, "a", size=999)
    subject = chunk_subject(store, info.nuid)
    stored = 0

    async def store_on(client: Client) -> None:
        nonlocal stored
        while True:
            for _ in range(500):
                await client.publish(subject, b"")
            await client.flush()
            stored += 500

    async with natsproto.connect(server.url) as other:
        flooding = asyncio.create_task(store_on(other))
        try:
            async with asyncio.timeout(30):
                with pytest.raises(IntegrityError):
                    await store.get_range("a", 0, 10)
        finally:
            flooding.cancel()


@pytest.mark.parametrize("server", ["new"], indirect=True)
async def test_a_window_that_does_not_end(store: ObjectStore, flooded: JetStreamContext) -> None:
    """Told as what it is, long before the object would be too large."""
    await store.put("a", pattern(40 * CHUNK), chunk_size=CHUNK)
    same = await flooded.object_store(store.bucket)
    with pytest.raises(RemoteProtocolError, match="than were asked for"):
        await same.get("a")
