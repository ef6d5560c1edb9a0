"""Two senders of one upload: what they share, and a source that stands still where it is told to."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from collections.abc import AsyncIterator

from objstore import ObjectInfo, ObjectStore
from support.objects import assert_exact

CHUNK = 50_000
DATA = os.urandom(10 * CHUNK)
BEFORE = b"the version before"


class Sleeper:
    """A sender whose source stands still after ``at`` bytes, until it is woken."""

    def __init__(self, data: bytes = DATA, at: int = 4 * CHUNK) -> None:
        self.data, self.at = data, at
        self.asleep, self.awake = asyncio.Event(), asyncio.Event()

    async def source(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self.data), CHUNK):
            if start == self.at:
                self.asleep.set()
                await self.awake.wait()
            yield self.data[start : start + CHUNK]

    async def begin(self, store: ObjectStore, token: str) -> asyncio.Task[ObjectInfo]:
        upload = await store.begin_upload("a", token=token)
        task = asyncio.create_task(upload.send(self.source()))
        await self.asleep.wait()
        async with asyncio.timeout(30):
            while await upload.stored() < self.at // CHUNK:
                pass
        return task


async def begun(store: ObjectStore) -> str:
    await store.put("a", BEFORE)
    return (await store.begin_upload("a", chunk_size=CHUNK)).token


async def sent(store: ObjectStore, token: str, data: bytes = DATA) -> ObjectInfo:
    return await (await store.begin_upload("a", token=token)).send(data)


async def intact(store: ObjectStore, info: ObjectInfo, data: bytes = DATA) -> None:
    assert await store.get("a") == data
    assert (await store.get_info("a")).revision == info.revision
    await assert_exact(store)


def without_secret(token: str) -> str:
    """The token as the versions made it whose chunks had plain numbers for ids."""
    document = json.loads(base64.urlsafe_b64decode(token))
    del document["secret"]
    return base64.urlsafe_b64encode(json.dumps({**document, "version": 1}).encode()).decode()
