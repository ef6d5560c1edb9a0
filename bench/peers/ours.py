"""This library."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import natsproto
from natsproto.wire import Parser

from .base import QUEUE, Peer


class Client(Peer):
    def version(self) -> str:
        return natsproto.__version__

    async def open(self, url: str) -> None:
        self.nc = await natsproto.connect(url)
        self.js = self.nc.jetstream()

    async def close(self) -> None:
        await self.nc.close()

    async def bind(self, bucket: str) -> None:
        self.store = await self.js.object_store(bucket)

    async def create(self, bucket: str, storage: str, replicas: int) -> None:
        await self.js.create_object_store(bucket=bucket, storage=storage, replicas=replicas)

    async def drop(self, bucket: str) -> None:
        await self.js.delete_object_store(bucket)

    async def remove(self, name: str) -> None:
        await self.store.delete(name)

    async def remove_consumers(self, bucket: str) -> None:
        stream = f"OBJ_{bucket}"
        for consumer in await self.js.consumer_names(stream):
            await self.js.delete_consumer(stream, consumer)

    async def put_stream(self, name: str, pieces: Iterator[bytes], chunk: int) -> None:
        await self.store.put(name, pieces, chunk_size=chunk)

    async def put(self, name: str, data: bytes, chunk: int) -> None:
        await self.store.put(name, data, chunk_size=chunk)

    async def get(self, name: str) -> bytes:
        return await self.store.get(name, max_size=1 << 40)

    async def list(self) -> list[str]:
        return [info.name for info in await self.store.list()]

    async def names(self) -> list[str]:
        return await self.store.names()

    async def get_range(self, name: str, start: int, end: int) -> bytes:
        return await self.store.get_range(name, start, end)

    async def read_into(self, name: str, buffer: bytearray) -> int:
        size = 0
        async with self.store.open_reader(name) as reader:
            while count := await reader.readinto(buffer):
                size += count
        return size

    async def changes(self) -> AsyncIterator[str]:
        async with self.store.watch(updates_only=True) as watcher:
            yield ""
            async for info in watcher:
                yield info.name

    async def publish(self, subject: str, data: bytes, count: int) -> None:
        publish = self.nc.publish
        for _ in range(count):
            await publish(subject, data)
        await self.nc.flush()

    async def listen(self, subject: str) -> AsyncIterator[Any]:
        subscription = await self.nc.subscribe(subject, pending_msgs_limit=QUEUE)
        await self.nc.flush()
        return subscription

    async def request(self, subject: str, data: bytes) -> bytes:
        return (await self.nc.request(subject, data)).data

    def parse(self, reads: list[bytes]) -> list[bytes]:
        parser = Parser()
        payloads: list[Any] = []
        for read in reads:
            payloads += [event.payload for event in parser.feed(read)]  # type: ignore[union-attr]
        return payloads
