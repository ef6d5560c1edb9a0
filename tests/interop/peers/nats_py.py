"""nats-py, in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

import nats
from nats.js import api
from nats.js.errors import NotFoundError, ObjectDeletedError, ObjectNotFoundError

from .base import TIMEOUT, Entry, Peer, PeerError, Status, Watch


@asynccontextmanager
async def errors() -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(TIMEOUT):
            yield
    except (nats.errors.Error, TimeoutError) as exc:
        raise PeerError(repr(exc)) from exc


def entry(info: api.ObjectInfo) -> Entry:
    options = info.options
    link = (
        None if options is None or options.link is None else (options.link.bucket, options.link.name or None)
    )
    return Entry(
        info.name,
        info.size or 0,
        info.chunks or 0,
        info.nuid,
        info.digest or "",
        bool(info.deleted),
        info.description or "",
        {
            key: [value] if isinstance(value, str) else list(value)
            for key, value in (info.headers or {}).items()
        },
        {},
        None if options is None else options.max_chunk_size,
        link,
    )


class NatsPyWatch(Watch):
    def __init__(self, watcher: Any) -> None:
        self.watcher = watcher

    async def next(self) -> tuple[str, bool]:
        async with errors():
            info = await self.watcher.updates(timeout=TIMEOUT)
        return info.name, bool(info.deleted)

    async def close(self) -> None:
        await self.watcher.stop()


class NatsPy(Peer):
    name = "nats-py"
    version = version("nats-py")

    def __init__(self, client: Any) -> None:
        self.client = client
        self.js = client.jetstream()
        self.store: Any = None

    @classmethod
    async def connect(cls, url: str) -> NatsPy:
        return cls(await nats.connect(url, connect_timeout=10))

    async def create_bucket(self, bucket: str, *, description: str = "", ttl: float = 0) -> None:
        config = api.ObjectStoreConfig(description=description or None, ttl=ttl or None)
        async with errors():
            self.store = await self.js.create_object_store(bucket, config=config)

    async def open_bucket(self, bucket: str) -> None:
        async with errors():
            self.store = await self.js.object_store(bucket)

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
        options = None if chunk_size is None else api.ObjectMetaOptions(max_chunk_size=chunk_size)
        meta = api.ObjectMeta(name=name, description=description or None, headers=headers, options=options)
        async with errors():
            await self.store.put(name, data, meta=meta)

    async def get(self, name: str) -> bytes:
        async with errors():
            data = (await self.store.get(name)).data
        assert isinstance(data, bytes)
        return data

    async def info(self, name: str) -> Entry | None:
        try:
            async with errors():
                return entry(await self.store.get_info(name))
        except PeerError as exc:
            if isinstance(exc.__cause__, (ObjectNotFoundError, ObjectDeletedError)):
                return None
            raise

    async def list(self) -> list[Entry]:
        try:
            async with errors():
                return [entry(info) for info in await self.store.list(ignore_deletes=True)]
        except PeerError as exc:
            if isinstance(exc.__cause__, NotFoundError):  # its answer for none
                return []
            raise

    async def delete(self, name: str) -> None:
        async with errors():
            await self.store.delete(name)

    async def link(self, name: str, target: str) -> None:
        raise NotImplementedError

    async def bucket_link(self, name: str, bucket: str) -> None:
        raise NotImplementedError

    async def update(self, name: str, *, description: str, headers: dict[str, list[str]]) -> None:
        async with errors():
            await self.store.update_meta(
                name, api.ObjectMeta(name=name, description=description, headers=headers)
            )

    async def rename(self, name: str, new_name: str) -> None:
        async with errors():
            await self.store.update_meta(name, api.ObjectMeta(name=new_name))

    async def watch(self) -> Watch:
        async with errors():
            watcher = await self.store.watch(include_history=False)
            while await watcher.updates(timeout=TIMEOUT) is not None:
                pass
        return NatsPyWatch(watcher)

    async def seal(self) -> None:
        async with errors():
            await self.store.seal()

    async def status(self) -> Status:
        async with errors():
            status = await self.store.status()
        return Status(status.description or "", status.ttl or 0, status.size, status.sealed)

    async def close(self) -> None:
        await self.client.close()
