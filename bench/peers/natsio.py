"""natsio, a pure Python client for Python >= 3.13."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import natsio
from natsio.objectstore import ObjectMeta

from .base import CHUNK, QUEUE, Peer


class Client(Peer):
    package = "natsio"
    payload = "payload"

    async def open(self, url: str) -> None:
        self.nc = await natsio.connect(url)
        self.js = self.nc.jetstream()

    async def close(self) -> None:
        await self.nc.close()

    async def bind(self, bucket: str) -> None:
        self.store = await self.js.object_store(bucket)

    async def put(self, name: str, data: bytes, chunk: int) -> None:
        await self.store.put(name if chunk == CHUNK else ObjectMeta(name=name, chunk_size=chunk), data)

    async def get(self, name: str) -> bytes:
        return await self.store.get_bytes(name)

    async def list(self) -> list[str]:
        return [info.name for info in await self.store.list()]

    async def changes(self) -> AsyncIterator[str]:
        async with self.store.watch(updates_only=True) as watcher:
            async for info in watcher:
                yield "" if info is None else info.name  # None: listening

    async def publish(self, subject: str, data: bytes, count: int) -> None:
        publish = self.nc.publish
        for _ in range(count):
            await publish(subject, data)
        await self.nc.flush()

    async def listen(self, subject: str) -> AsyncIterator[Any]:
        subscription = self.nc.subscribe(subject, pending_msgs_limit=QUEUE, pending_bytes_limit=1 << 40)
        await self.nc.flush()
        return aiter(subscription)

    async def request(self, subject: str, data: bytes) -> bytes:
        return (await self.nc.request(subject, data)).payload

    def parse(self, reads: list[bytes]) -> list[bytes]:
        from natsio._internal.protocol.parser import NEED_DATA, Parser

        parser = Parser()
        payloads: list[bytes] = []
        for read in reads:
            parser.receive_data(read)
            while (event := parser.next_event()) is not NEED_DATA:
                payloads.append(event.payload)
        return payloads
