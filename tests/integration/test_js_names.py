"""Names of streams and consumers that others have chosen: lists show them, so all calls know them.

Servers accept control characters, and white space that ends no token.
"""

from __future__ import annotations

import asyncio
import uuid

import pytest

from natsproto.errors import InvalidNameError
from natsproto.jetstream.api.codec import dumps
from natsproto.jetstream.api.errors import ConsumerNotFoundError, StreamNotFoundError
from natsproto.jetstream.context import JetStreamContext

LIMIT = 20.0

NAMES = ["\1", "a\0b", "\v", "a\x7f", "\x1b[2J", "\x85", "\xa0", "\u2028", "\u202e"]


async def _ask(js: JetStreamContext, suffix: str, document: dict[str, object]) -> None:
    """Create what this library gives no such name to."""
    msg = await js.client.request_frame(f"$JS.API.{suffix}".encode(), dumps(document))
    assert b'"error"' not in msg.payload, msg.payload


@pytest.mark.parametrize("name", NAMES, ids=ascii)
async def test_of_consumers(js: JetStreamContext, name: str) -> None:
    stream = "n-" + uuid.uuid4().hex[:12]
    await js.create_stream(
        {"name": stream, "subjects": [stream], "storage": "memory", "retention": "interest"}
    )
    async with asyncio.timeout(LIMIT):
        with pytest.raises(InvalidNameError, match="white space"):
            await js.create_consumer(stream, {"durable_name": name})
        for config in ({}, {"deliver_subject": f"d.{stream}"}):
            document = {"durable_name": name, "ack_policy": "explicit", **config}
            request: dict[str, object] = {"stream_name": stream, "config": document}
            await _ask(js, f"CONSUMER.DURABLE.CREATE.{stream}.{name}", request)
            await js.publish(stream, b"kept for it", stream=stream)
            assert await js.consumer_names(stream) == [name]
            assert (await js.consumer_info(stream, name)).num_pending == 1
            if config:
                async with await js.push_consumer(stream, name) as push:
                    msg = await anext(push)
                    await msg.ack_sync()
            else:
                (msg,) = await (await js.pull_consumer(stream, name)).fetch()
                await msg.ack_sync()
            assert msg.data == b"kept for it"
            assert (await js.stream_info(stream)).messages == 0
            await js.delete_consumer(stream, name)
            with pytest.raises(ConsumerNotFoundError):
                await js.consumer_info(stream, name)
    await js.delete_stream(stream)


@pytest.mark.parametrize("name", NAMES, ids=ascii)
async def test_of_streams(js: JetStreamContext, name: str) -> None:
    subject = "n-" + uuid.uuid4().hex[:12]
    name = subject + name
    config: dict[str, object] = {
        "name": name,
        "subjects": [subject],
        "storage": "memory",
        "allow_direct": True,
    }
    async with asyncio.timeout(LIMIT):
        with pytest.raises(InvalidNameError, match="white space"):
            await js.create_stream(config)
        await _ask(js, f"STREAM.CREATE.{name}", config)
        assert name in await js.stream_names()
        info = await js.update_stream({**config, "description": "changed"})
        assert (info.config.name, info.config.description) == (name, "changed")
        for n in range(3):
            await js.client.publish(subject, b"%d" % n)  # the server acknowledges it with what is no JSON
        await js.client.flush()
        assert await js.stream_subjects(name) == {subject: 3}
        assert (await js.get_message(name, seq=1)).data == b"0"
        assert (await js.direct_get(name, last_by_subject=subject)).data == b"2"
        await js.delete_message(name, 1)
        consumer = await js.pull_consumer(name, config={"ack_policy": "explicit"})
        for msg in await consumer.fetch(2):
            await msg.ack_sync()
        assert (msg.data, (await js.consumer_info(name, consumer.name)).num_ack_pending) == (b"2", 0)
        assert await js.purge_stream(name) == 2
        await js.delete_stream(name)
        with pytest.raises(StreamNotFoundError):
            await js.stream_info(name)
