"""natsrpy, in this process: async-nats (nats.rs) under a Python surface."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

import natsrpy
from natsrpy.exceptions import NatsrpyBaseError
from natsrpy.js import ObjectStoreConfig

from .base import TIMEOUT, Entry, Peer, PeerError, Status, Watch


@asynccontextmanager
async def errors() -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(TIMEOUT):
            yield
    except (NatsrpyBaseError, TimeoutError) as exc:
        raise PeerError(repr(exc)) from exc


def entry(info: Any) -> Entry:
    return Entry(
        info.name,
        info.size,
        info.chunks,
        info.nuid,
        info.digest or "",
        info.deleted,
        info.description or "",
        {
            key: [value] if isinstance(value, str) else list(value)
            for key, value in (info.headers or {}).items()
        },
        dict(info.metadata or {}),
        info.max_chunk_size,
        None if info.link is None else (info.link.bucket, info.link.name),
    )


class NatsrpyWatch(Watch):
    def __init__(self, changes: Any) -> None:
        self.changes = changes

    async def next(self) -> tuple[str, bool]:
        async with errors():
            info = await anext(self.changes)
        return info.name, info.deleted


class Natsrpy(Peer):
    name = "natsrpy"
    version = version("natsrpy")

    def __init__(self, client: Any, js: Any) -> None:
        self.client = client
        self.js = js
        self.store: Any = None

    @classmethod
    async def connect(cls, url: str) -> Natsrpy:
        client = natsrpy.Nats(addrs=[url])
        await client.startup()
        return cls(client, await client.jetstream())

    async def create_bucket(self, bucket: str, *, description: str = "", ttl: float = 0) -> None:
        config = ObjectStoreConfig(bucket, description=description or None, max_age=ttl or None)
        async with errors():
            self.store = await self.js.object_store.create(config)

    async def open_bucket(self, bucket: str) -> None:
        async with errors():
            self.store = await self.js.object_store.get(bucket)

    async def put(
        self,
        name: str,
        data: bytes,
        *,
        description: str = "",
        headers: dict[str, list[str]] | None = None,
        metadata: dict[str, str] | None = None,
        chunk_size: int | None = None,
    ) -> None:
        size = {} if chunk_size is None else {"chunk_size": chunk_size}
        about = {"description": description or None, "headers": headers, "metadata": metadata}
        async with errors():
            await self.store.put(name, data, **size, **about)

    async def get(self, name: str) -> bytes:
        into = io.BytesIO()
        async with errors():
            await self.store.get(name, into)
        return into.getvalue()

    async def info(self, name: str) -> Entry | None:
        try:
            async with errors():
                found = entry(await self.store.get_info(name))
        except PeerError as exc:
            if "not found" in str(exc):
                return None
            raise
        return None if found.deleted else found

    async def list(self) -> list[Entry]:
        async with errors():
            return [entry(info) async for info in await self.store.list()]

    async def delete(self, name: str) -> None:
        async with errors():
            await self.store.delete(name)

    async def link(self, name: str, target: str) -> None:
        async with errors():
            await self.store.link_object(target, name)

    async def bucket_link(self, name: str, bucket: str) -> None:
        async with errors():
            await self.store.link_bucket(bucket, name)

    async def update(self, name: str, *, description: str, headers: dict[str, list[str]]) -> None:
        async with errors():
            await self.store.update_metadata(name, description=description, headers=headers)

    async def rename(self, name: str, new_name: str) -> None:
        async with errors():
            await self.store.update_metadata(name, new_name=new_name)

    async def watch(self) -> Watch:
        async with errors():
            return NatsrpyWatch(await self.store.watch())

    async def seal(self) -> None:
        async with errors():
            await self.store.seal()

    async def status(self) -> Status:
        raise NotImplementedError

    async def close(self) -> None:
        await self.client.shutdown()
