"""What a fellow client makes up, on real servers: statuses for an inbox, answers to guessed tokens."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

import natsproto
from natsproto.aio.client import Client
from natsproto.jetstream.api.models import ConsumerConfig
from natsproto.jetstream.context import JetStreamContext
from natsproto.server import LocalServer
from natsproto.testing import FaultProxy
from natsproto.wire import Event, Pub
from objstore import ObjectStore
from support.frames import send_raw
from support.objects import MIB, meta_subject, pattern, read_raw, stream

LIMIT = 30.0

FLOW_CONTROL = b"NATS/1.0 100 FlowControl Request\r\n\r\n"


def stalled(subject: bytes) -> bytes:
    return (
        b"NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: 0\r\nNats-Last-Stream: 0\r\n"
        b"Nats-Consumer-Stalled: %b\r\n\r\n" % subject
    )


class Fellow:
    """Publishes statuses, as no client library does, and hears if the victim publishes what they name."""

    def __init__(self, server: LocalServer, js: JetStreamContext, spy: Client, victim: str) -> None:
        self.server = server
        self.js = js
        self.spy = spy
        self.named = [
            f"$JS.API.STREAM.DELETE.{victim}",
            f"$JS.API.STREAM.PURGE.{victim}",
            f"$JS.FC.{victim}.x.1",
            f"$JS.ACK.{victim}.c.1.1.1.1.1",
            f"{victim}.evil",
        ]

    async def send(self, stream: str, consumer: str, named: list[str]) -> None:
        """Send each form of a status with each of these subjects to the inbox of a consumer."""
        inbox = (await self.js.consumer_info(stream, consumer)).config.deliver_subject
        assert inbox is not None
        frames = b""
        for subject in map(str.encode, named):
            for header in (FLOW_CONTROL, stalled(subject)):
                sizes = b"%d %d" % (len(header), len(header))
                frames += b"HPUB %b %b %b\r\n%b\r\n" % (inbox.encode(), subject, sizes, header)
                frames += b"HPUB %b %b\r\n%b\r\n" % (inbox.encode(), sizes, header)
            frames += b"PUB %b %b 2\r\nhi\r\n" % (inbox.encode(), subject)
        errors = await send_raw(self.server.url, frames)
        assert all(b'Publish with Reply of "$JS.ACK.' in error for error in errors), errors

    @asynccontextmanager
    async def attacked(self, victim: Client, stream: str, consumer: str) -> AsyncIterator[None]:
        """Within the block the victim gets something that the server has sent after the attack."""
        named = [*self.named, f"$JS.FC.{stream}.{consumer}x.1"]
        subscriptions = [await self.spy.subscribe(name) for name in named]
        await self.spy.flush()
        await self.send(stream, consumer, named)
        yield
        await victim.flush()  # its answers would be at the server
        await self.spy.flush()
        assert [each.subject for each in subscriptions if each.pending_msgs] == []


@pytest.fixture
async def victim_name(js: JetStreamContext, bucket_name: str) -> AsyncIterator[str]:
    """A stream with a message, which others would like to be deleted."""
    name = f"V{bucket_name}"
    await js.create_stream({"name": name, "subjects": [name], "storage": "memory"})
    await js.publish(name, b"kept")
    yield name
    assert (await js.stream_info(name)).messages >= 1
    await js.delete_stream(name)


@pytest.fixture
async def fellow(server: LocalServer, js: JetStreamContext, victim_name: str) -> AsyncIterator[Fellow]:
    async with asyncio.timeout(LIMIT), natsproto.connect(server.url) as spy:
        yield Fellow(server, js, spy, victim_name)


async def test_statuses_for_an_ordered_consumer(nc: Client, store: ObjectStore, fellow: Fellow) -> None:
    async with store.watch() as watch:
        await watch.caught_up
        (consumer,) = await fellow.js.consumer_names(stream(store))
        async with fellow.attacked(nc, stream(store), consumer):
            await store.put("a", b"1")
            info = await anext(aiter(watch))
            assert info is not None
            assert info.name == "a"
        assert await fellow.js.consumer_names(stream(store)) == [consumer]


async def test_statuses_for_a_reader_that_is_slow(
    nc: Client, js: JetStreamContext, bucket_name: str, fellow: Fellow
) -> None:
    """It holds its answers back until it reads on."""
    store = await js.create_object_store(bucket=bucket_name, allow_direct=False)
    data = pattern(8 * MIB)
    await store.put("a", data)
    async with store.open_reader("a", window=128 * 1024) as reader:
        begin = await reader.read(1000)
        (consumer,) = await js.consumer_names(stream(store))
        async with fellow.attacked(nc, stream(store), consumer):
            assert begin + await reader.read() == data


@pytest.mark.parametrize("flow_control", [True, False])
async def test_statuses_for_a_push_consumer(
    nc: Client, js: JetStreamContext, fellow: Fellow, victim_name: str, flow_control: bool
) -> None:
    config = ConsumerConfig(
        durable_name="push",
        deliver_subject=f"deliver.{victim_name}",
        ack_policy="explicit",
        flow_control=flow_control or None,
        idle_heartbeat=timedelta(seconds=10) if flow_control else None,
    )
    async with await js.push_consumer(victim_name, config=config) as push:
        await (await push.next_msg(timeout=LIMIT)).ack_sync()
        async with fellow.attacked(nc, victim_name, "push"):
            await js.publish(victim_name, b"genuine")
            message = await push.next_msg(timeout=LIMIT)  # "hi" was dropped
            assert message.data == b"genuine"
            await message.ack_sync()


async def test_the_attack_reaches_its_victim(store: ObjectStore, fellow: Fellow) -> None:
    """What the server itself could ask for is answered."""
    async with store.watch() as watch:
        await watch.caught_up
        (consumer,) = await fellow.js.consumer_names(stream(store))
        subject = f"$JS.FC.{stream(store)}.{consumer}.forged"
        answers = await fellow.spy.subscribe(subject)
        await fellow.spy.flush()
        await fellow.send(stream(store), consumer, [subject])
        assert (await answers.next_msg(timeout=LIMIT)).subject == subject


# -- answers ------------------------------------------------------------------------------------------------

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def near(reply: str) -> list[str]:
    """Reply subjects next to one."""
    at = ALPHABET.index(reply[-1])
    others = [reply[:-1] + ALPHABET[(at + step) % 64] for step in (1, 2, -1, 32)]
    return [*others, reply[:-1], reply + "A", reply.rpartition(".")[0] + ".A", reply.swapcase()]


class Forger:
    """Answers requests for metas before the server does, with others of the same names.

    It may publish to the victim's inbox, and is told the reply subjects of all requests so far.
    """

    def __init__(self, peer: Client, store: ObjectStore, metas: dict[str, dict[str, Any]]) -> None:
        self.peer = peer
        self.store = store
        self.payloads = {
            meta_subject(store, name): json.dumps({**meta, "nuid": "forged"}).encode()
            for name, meta in metas.items()
        }
        self.guesses: Callable[[str, list[str]], list[str]] = lambda reply, seen: []
        self.seen: list[str] = []
        self.forged = 0

    async def hook(self, event: Event, raw: bytes) -> None:
        if not isinstance(event, Pub) or event.reply is None or b".GET." not in event.subject:
            return
        asked = event.subject + b" " + bytes(event.payload)
        subject = next((each for each in self.payloads if each.encode() in asked), None)
        if subject is None:
            return
        reply = event.reply.decode()
        for guess in self.guesses(reply, self.seen[-20:]):
            await self.answer(guess, subject, direct=b".DIRECT." in event.subject)
            self.forged += 1
        await self.peer.flush()  # they are on their way before the request is
        self.seen.append(reply)

    async def answer(self, reply: str, subject: str, *, direct: bool) -> None:
        payload, time = self.payloads[subject], "2026-01-01T00:00:00Z"
        if direct:
            headers = {
                "Nats-Stream": stream(self.store),
                "Nats-Subject": subject,
                "Nats-Sequence": "1000",
                "Nats-Time-Stamp": time,
            }
            await self.peer.publish(reply, payload, headers=headers)
            return
        message = {"subject": subject, "seq": 1000, "data": base64.b64encode(payload).decode(), "time": time}
        kind = "io.nats.jetstream.api.v1.stream_msg_get_response"
        await self.peer.publish(
            reply, json.dumps({"type": kind, "message": message}, separators=(",", ":")).encode()
        )


@pytest.mark.parametrize("allow_direct", [True, False])
async def test_answers_to_guessed_tokens(
    server: LocalServer, js: JetStreamContext, bucket_name: str, allow_direct: bool
) -> None:
    store = await js.create_object_store(bucket=bucket_name, allow_direct=allow_direct)
    genuine = {name: (await store.put(name, name.encode())).nuid for name in "abcd"}
    metas = {name: await read_raw(store, name) for name in genuine}
    async with (
        asyncio.timeout(LIMIT),
        natsproto.connect(server.url) as peer,  # the proxy's last hook may still need it
        FaultProxy(server.url) as proxy,
        natsproto.connect(proxy.url) as victim,
    ):
        theirs = await victim.jetstream().object_store(bucket_name)
        forger = Forger(peer, store, metas)
        proxy.to_server = forger.hook
        forger.guesses = lambda reply, seen: [
            *near(reply),
            *(guess for each in seen for guess in (each, *near(each))),
        ]
        for _ in range(10):
            for name, nuid in genuine.items():
                assert (await theirs.get_info(name)).nuid == nuid
        assert len(forger.seen) >= 40
        assert forger.forged > 5000
        # Only its token makes an answer: with it the forged one, which comes first, would count.
        forger.guesses = lambda reply, seen: [reply]
        assert (await theirs.get_info("a")).nuid == "forged"
