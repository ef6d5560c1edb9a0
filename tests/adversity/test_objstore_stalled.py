"""A server that delivers nothing, and says with each heartbeat that the reader holds it back: reads end."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import natsproto
from natsproto import wire
from natsproto.errors import RequestTimeoutError
from natsproto.jetstream.context import JetStreamContext
from natsproto.server import LocalServer
from natsproto.testing import DROP, FaultProxy
from natsproto.testing.proxy import HookResult
from natsproto.wire import Event, Msg
from objstore import ObjectStore
from objstore.bucket.message_reads import MessageRead
from objstore.bucket.ways import CONSUMER
from objstore.format.naming import all_meta_subject
from support.objects import pattern

DATA = pattern(400_000)
BUDGET = 1.0


def only_stalled(event: Event, raw: bytes) -> HookResult:
    """No message comes, and what would say that none is due says that they are held back."""
    if not isinstance(event, Msg):
        return None
    if (event.reply or b"").startswith(b"$JS.ACK."):
        return DROP
    if event.header is None or b"Idle Heartbeat" not in event.header:
        return None
    block = re.sub(rb"Nats-Last-Consumer: \d+", b"Nats-Last-Consumer: 0", event.header)
    block = block.replace(b"\r\n\r\n", b"\r\nNats-Consumer-Stalled: $JS.FC.x.y.z\r\n\r\n")
    return b"".join(map(bytes, wire.msg(event.subject, event.sid, header=block)))


def by_consumer(store: ObjectStore) -> Awaitable[Any]:
    return MessageRead(store._bucket, all_meta_subject(store.bucket), ways=(CONSUMER,)).wait()


READS: dict[str, Callable[[ObjectStore], Awaitable[Any]]] = {
    "list": lambda store: store.list(),
    "status": lambda store: store.status(),
    "get": lambda store: store.get("o"),
    "range": lambda store: store.get_range("o", 10, 200_000),
    "a message": by_consumer,
}


@pytest.mark.parametrize("read", READS)
async def test_a_read_ends(
    server: LocalServer,
    js: JetStreamContext,
    bucket_name: str,
    monkeypatch: pytest.MonkeyPatch,
    read: str,
) -> None:
    monkeypatch.setattr("objstore.bucket.collect.HEARTBEAT", 0.1)
    monkeypatch.setattr("objstore.read.feed.HEARTBEAT", 0.1)
    mine = await js.create_object_store(bucket=bucket_name, allow_direct=False)
    await mine.put("o", DATA)
    async with FaultProxy(server.url) as proxy, natsproto.connect(proxy.url) as nc:
        store = (await nc.jetstream().object_store(bucket_name)).with_options(retry_budget=BUDGET)
        proxy.to_client = only_stalled
        async with asyncio.timeout(BUDGET + 5):
            with pytest.raises(RequestTimeoutError, match="neither a message nor an end"):
                await READS[read](store)
        proxy.to_client = None
        assert await store.get("o") == DATA
        assert proxy.errors == []
    assert await js.consumer_names(f"OBJ_{bucket_name}") == []
    await js.delete_object_store(bucket_name)
