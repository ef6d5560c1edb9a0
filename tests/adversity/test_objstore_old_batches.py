"""A nats-server 2.11 behind a proxy: the messages of a batch count its end as one more message to come."""

from __future__ import annotations

import re

import pytest

import natsproto
from natsproto.jetstream.context import JetStreamContext
from natsproto.server import LocalServer
from natsproto.testing import FaultProxy
from natsproto.wire import Event, Info, Msg
from support.objects import CHUNK, pattern

COUNT = re.compile(rb"(Nats-Num-Pending: )(\d+)")


def count_more(event: Event, raw: bytes, claims: str) -> bytes:
    """As 2.11: one more on every message, not on the end of the batch; the number keeps its length."""
    if isinstance(event, Info):
        return re.sub(rb'"version":"2\.\d\d\.', b'"version":"%s.' % claims.encode(), raw)
    if isinstance(event, Msg) and event.payload and event.header and b"Nats-Num-Pending" in event.header:
        head, mark, body = raw.partition(b"\r\n\r\n")
        return COUNT.sub(lambda found: found[1] + b"%d" % (int(found[2]) + 1), head) + mark + body
    return raw


@pytest.mark.parametrize("claims", ["2.11", "2.15"])
@pytest.mark.parametrize("size", [1, CHUNK, CHUNK + 1, 8 * CHUNK])
async def test_batches_that_count_one_more(
    new_server: LocalServer, bucket_name: str, size: int, claims: str
) -> None:
    """Whatever the version of the server at hand says: in a cluster, another one may answer."""
    data = pattern(size)
    async with FaultProxy(new_server.url) as proxy:
        proxy.to_client = lambda event, raw: count_more(event, raw, claims)
        async with natsproto.connect(proxy.url) as client:
            js: JetStreamContext = client.jetstream()
            store = await js.create_object_store(bucket=bucket_name)
            await store.put("before", b"0")
            await store.put("a", data)
            assert await store.get("a") == data
            assert await store.get_range("a", 0, 10) == data[:10]
            assert await store.get_range("a", size // 2, size) == data[size // 2 :]
            async with store.open_reader("a") as reader:
                assert await reader.read() == data
            proxy.to_client = None
            await js.delete_object_store(bucket_name)
