"""natsrpy: the Rust client async-nats, as a Python package."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from typing import Any

import natsrpy

from .base import Peer


class Client(Peer):
    package = "natsrpy"
    payload = "payload"

    async def open(self, url: str) -> None:
        self.nc = natsrpy.Nats(addrs=[url])
        await self.nc.startup()
        self.js = await self.nc.jetstream()

    async def close(self) -> None:
        await self.nc.shutdown()

    async def bind(self, bucket: str) -> None:
        self.store = await self.js.object_store.get(bucket)

    async def put(self, name: str, data: bytes, chunk: int) -> None:
        await self.store.put(name, data, chunk_size=chunk)

    async def get(self, name: str) -> bytes:
        into = io.BytesIO()
        await self.store.get(name, into)
        return into.getvalue()

    async def read_into(self, name: str, buffer: bytearray) -> int:
        class Writer:
            """Takes the pieces and keeps none: the closest thing to a reused buffer."""

            size = 0

            def write(self, data: bytes) -> int:
                self.size += len(data)
                return len(data)

        writer = Writer()
        await self.store.get(name, writer)
        return writer.size

    async def list(self) -> list[str]:
        return [info.name async for info in await self.store.list()]

    async def changes(self) -> AsyncIterator[str]:
        watcher = await self.store.watch()
        yield ""
        async for info in watcher:
            yield info.name

    async def publish(self, subject: str, data: bytes, count: int) -> None:
        publish = self.nc.publish
        for _ in range(count):
            await publish(subject, data)
        await self.nc.flush()

    async def listen(self, subject: str) -> AsyncIterator[Any]:
        subscription = await self.nc.subscribe(subject).detatch()
        await self.nc.flush()
        return subscription

    async def request(self, subject: str, data: bytes) -> bytes:
        return (await self.nc.request(subject, data)).payload
