"""Users with rights to some subjects of a stream only, on servers of both ends: docs/permissions.md."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

import natsproto
from natsproto.errors import PermissionsViolationError
from natsproto.jetstream.api.errors import MessageNotFoundError
from natsproto.jetstream.api.models import ConsumerConfig
from natsproto.jetstream.context import JetStreamContext
from natsproto.server import LocalServer

LIMIT = 15.0

RIGHTS = {
    "publisher": ["orders.eu.>"],
    "reader": ["$JS.API.DIRECT.GET.STREAM.orders.eu.>"],
    "whole": ["$JS.API.DIRECT.GET.STREAM"],
    "consumer": [
        "$JS.API.CONSUMER.CREATE.STREAM.*.orders.eu.>",
        "$JS.API.CONSUMER.MSG.NEXT.STREAM.mine",
        "$JS.ACK.STREAM.mine.>",
    ],
    "consumers": ["$JS.API.CONSUMER.CREATE.STREAM.*"],
    "bound": [
        "$JS.API.CONSUMER.INFO.STREAM.mine",
        "$JS.API.CONSUMER.MSG.NEXT.STREAM.mine",
        "$JS.ACK.STREAM.mine.>",
    ],
}
EVERYWHERE = "orders.>"
EU = "orders.eu.>"


@pytest.fixture(scope="module", params=["new", "old"])
def guarded(request: pytest.FixtureRequest) -> Iterator[LocalServer]:
    users = ["{ user: owner, password: p }"]
    for name, rights in RIGHTS.items():
        allowed = ", ".join(f'"{subject}"' for subject in rights)
        users.append(
            f'{{ user: {name}, password: p, permissions: {{ publish: [{allowed}], subscribe: "_INBOX.>" }} }}'
        )
    binary = request.getfixturevalue(f"{request.param}_server").binary.path
    config = f"accounts {{ A {{ jetstream: enabled, users: [ {', '.join(users)} ] }} }}"
    with LocalServer(binary=binary, config=config) as server:
        yield server


@pytest.fixture
async def stream(guarded: LocalServer) -> AsyncIterator[JetStreamContext]:
    """The owner's view of a stream with one message per region."""
    async with natsproto.connect(guarded.url, user="owner", password="p") as nc:
        js = nc.jetstream()
        await js.create_stream(
            {"name": "STREAM", "subjects": [EVERYWHERE], "storage": "memory", "allow_direct": True}
        )
        await js.publish("orders.eu.1", b"eu")
        await js.publish("orders.us.1", b"us")
        yield js
        await js.delete_stream("STREAM")


async def test_publishing(guarded: LocalServer, stream: JetStreamContext) -> None:
    async with asyncio.timeout(LIMIT), natsproto.connect(guarded.url, user="publisher", password="p") as nc:
        js = nc.jetstream()
        assert (await js.publish("orders.eu.2", b"2", stream="STREAM")).seq == 3
        with pytest.raises(PermissionsViolationError, match=r"orders\.us\.2"):
            await js.publish("orders.us.2", b"2")


async def test_reading_subjects(guarded: LocalServer, stream: JetStreamContext) -> None:
    async with asyncio.timeout(LIMIT), natsproto.connect(guarded.url, user="reader", password="p") as nc:
        js = nc.jetstream()
        assert (await js.direct_get("STREAM", last_by_subject="orders.eu.1")).data == b"eu"
        with pytest.raises(MessageNotFoundError):
            await js.direct_get("STREAM", last_by_subject="orders.eu.7")
        for choice in ({"last_by_subject": "orders.us.1"}, {"last_by_subject": "orders.eu.*"}, {"seq": 1}):
            with pytest.raises(PermissionsViolationError):
                await js.direct_get("STREAM", **choice)  # type: ignore[arg-type]


async def test_reading_the_whole_stream(guarded: LocalServer, stream: JetStreamContext) -> None:
    """The right that was enough before subjects were part of the request."""
    async with asyncio.timeout(LIMIT), natsproto.connect(guarded.url, user="whole", password="p") as nc:
        js = nc.jetstream()
        for _ in range(2):
            assert (await js.direct_get("STREAM", last_by_subject="orders.us.1")).data == b"us"
        assert (await js.direct_get("STREAM", seq=1)).data == b"eu"
        assert nc.stats.errors <= 1


async def test_consumers_of_subjects(guarded: LocalServer, stream: JetStreamContext) -> None:
    async with asyncio.timeout(LIMIT), natsproto.connect(guarded.url, user="consumer", password="p") as nc:
        js = nc.jetstream()
        for wanted in (EU, "orders.eu.*", "orders.eu.1"):
            config = ConsumerConfig(name="mine", filter_subject=wanted, ack_policy="explicit")
            pull = await js.pull_consumer("STREAM", config=config)
            (message,) = await pull.fetch(5, no_wait=True)
            assert message.data == b"eu"
            await message.ack_sync()
            await stream.delete_consumer("STREAM", "mine")
        for other in (EVERYWHERE, "orders.us.1", ">", None):
            with pytest.raises(PermissionsViolationError):
                await js.create_consumer("STREAM", ConsumerConfig(name="mine", filter_subject=other))
        assert await stream.consumer_names("STREAM") == []


async def test_all_consumers(guarded: LocalServer, stream: JetStreamContext) -> None:
    async with asyncio.timeout(LIMIT), natsproto.connect(guarded.url, user="consumers", password="p") as nc:
        made = await nc.jetstream().create_consumer("STREAM", ConsumerConfig(name="c", filter_subject=EU))
        assert made.config.filter_subject == EU


@pytest.mark.parametrize("kind", ["pull", "push"])
async def test_consumers_that_are_there(guarded: LocalServer, stream: JetStreamContext, kind: str) -> None:
    config = ConsumerConfig(
        durable_name="mine",
        ack_policy="explicit",
        filter_subject=EU,
        deliver_subject="_INBOX.mine" if kind == "push" else None,
    )
    await stream.create_consumer("STREAM", config)
    async with asyncio.timeout(LIMIT), natsproto.connect(guarded.url, user="bound", password="p") as nc:
        js = nc.jetstream()
        if kind == "pull":
            (message,) = await (await js.pull_consumer("STREAM", "mine")).fetch(1)
            await message.ack_sync()
        else:
            async with await js.push_consumer("STREAM", "mine") as push:
                message = await push.next_msg(timeout=LIMIT)
                await message.ack_sync()
        assert message.data == b"eu"
        assert nc.stats.errors == 0
    async with asyncio.timeout(LIMIT), natsproto.connect(guarded.url, user="consumer", password="p") as nc:
        js = nc.jetstream()  # who has the other rights, and may not ask for what the consumer is
        with pytest.raises(PermissionsViolationError, match=r"CONSUMER\.INFO\.STREAM\.mine"):
            await (js.pull_consumer if kind == "pull" else js.push_consumer)("STREAM", "mine")
