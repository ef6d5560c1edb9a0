"""A fellow client has the server answer a read with messages of another bucket, before the right ones come.

It sees the read's request and its reply subject, and makes a request of its own with that reply subject. No
right to the inbox is needed: the server itself answers.
"""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest

import natsproto
from natsproto import JetStreamContext
from natsproto.errors import RequestTimeoutError
from natsproto.server import LocalServer
from natsproto.testing import FaultProxy, delay
from natsproto.wire import Pub
from objstore import ObjectStore
from support.objects import chunk_subject, pattern, stream

CHUNK = 1000
DATA, OTHER = pattern(5 * CHUNK, 1), pattern(5 * CHUNK, 2)


@pytest.mark.parametrize("way", ["range", "whole", "batch"])
async def test_messages_of_another_bucket(
    server: LocalServer, js: JetStreamContext, store: ObjectStore, way: str
) -> None:
    """Where only lengths and counts can be checked, it is the subject that tells them apart."""
    wanted = chunk_subject(store, (await store.put("a", DATA, chunk_size=CHUNK)).nuid)
    own = await js.create_object_store(bucket=f"{store.bucket}-own")
    mine = await own.put("z", OTHER, chunk_size=CHUNK)

    async with FaultProxy(server.url) as proxy, natsproto.connect(proxy.url) as victim:
        attacked = await victim.jetstream().object_store(store.bucket)

        def see(event: Any, raw: bytes) -> Any:
            right = f"$JS.API.DIRECT.GET.{stream(store)}".encode()
            if not isinstance(event, Pub) or event.subject != right or event.reply is None:
                return None
            body = json.loads(bytes(event.payload))
            if "batch" not in body:
                return None  # a single message is checked as well, and refused with an error
            assert body["next_by_subj"] == wanted
            body["next_by_subj"] = chunk_subject(own, mine.nuid)
            request = f"$JS.API.DIRECT.GET.{stream(own)}".encode()
            js.client.connection.publish(request, json.dumps(body).encode(), event.reply)
            return delay(0.2)

        proxy.to_server = see
        match way:
            case "range":
                assert await attacked.get_range("a", 0, 4 * CHUNK) == DATA[: 4 * CHUNK]
            case "whole":
                assert await attacked.get("a") == DATA
            case _:
                batch = attacked.js.get_batch(stream(store), subject=wanted)
                with contextlib.suppress(RequestTimeoutError):  # their end of the batch, too
                    assert DATA.startswith(b"".join([message.data async for message in batch]))
        proxy.to_server = None
    await js.delete_object_store(own.bucket)
