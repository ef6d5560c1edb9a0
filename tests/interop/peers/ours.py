"""This library, behind the interface of the peers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import natsproto
from objstore import ObjectInfo, ObjectMeta, ObjectNotFoundError, ObjectStore

from .base import Entry, Peer, PeerError, Status, Watch


@asynccontextmanager
async def errors() -> AsyncIterator[None]:
    try:
        yield
    except natsproto.NatsError as exc:
        raise PeerError(repr(exc)) from exc


def entry(info: ObjectInfo) -> Entry:
    link = None if info.options is None else info.options.link
    return Entry(
        info.name,
        info.size,
        info.chunks,
        info.nuid,
        info.wire_digest,
        info.deleted,
        info.description or "",
        {} if info.headers is None else info.headers.as_wire(),
        dict(info.metadata),
        None if info.options is None else info.options.max_chunk_size,
        None if link is None else (link.bucket, link.name),
    )


class OurWatch(Watch):
    def __init__(self, store: ObjectStore) -> None:
        self.watcher = store.watch(updates_only=True)

    async def next(self) -> tuple[str, bool]:
        info = await anext(self.watcher)
        return info.name, info.deleted

    async def close(self) -> None:
        await self.watcher.__aexit__(None, None, None)


class Ours(Peer):
    name = "natsproto"
    version = natsproto.__version__

    def __init__(self, client: natsproto.Client) -> None:
        self.js = client.jetstream()
        self.store: ObjectStore

    async def create_bucket(self, bucket: str, *, description: str = "", ttl: float = 0) -> None:
        async with errors():
            self.store = await self.js.create_object_store(
                bucket=bucket, description=description or None, ttl=timedelta(seconds=ttl) if ttl else None
            )

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
        async with errors():
            await self.store.put(
                name, data, description or None, None, headers, metadata=metadata, chunk_size=chunk_size
            )

    async def get(self, name: str) -> bytes:
        async with errors():
            return await self.store.get(name)

    async def info(self, name: str) -> Entry | None:
        try:
            async with errors():
                return entry(await self.store.get_info(name))
        except PeerError as exc:
            if isinstance(exc.__cause__, ObjectNotFoundError):
                return None
            raise

    async def list(self) -> list[Entry]:
        async with errors():
            return [entry(info) for info in await self.store.list()]

    async def delete(self, name: str) -> None:
        async with errors():
            await self.store.delete(name)

    async def link(self, name: str, target: str) -> None:
        async with errors():
            await self.store.add_link(name, await self.store.get_info(target))

    async def bucket_link(self, name: str, bucket: str) -> None:
        async with errors():
            await self.store.add_bucket_link(name, bucket)

    async def update(self, name: str, *, description: str, headers: dict[str, list[str]]) -> None:
        async with errors():
            await self.store.update_meta(name, ObjectMeta(name, description, headers))

    async def rename(self, name: str, new_name: str) -> None:
        async with errors():
            await self.store.rename(name, new_name)

    async def watch(self) -> Watch:
        watch = OurWatch(self.store)
        await watch.watcher.__aenter__()
        await watch.watcher.caught_up
        return watch

    async def seal(self) -> None:
        async with errors():
            await self.store.seal()

    async def status(self) -> Status:
        async with errors():
            status = await self.store.status()
        ttl = 0 if status.ttl is None else status.ttl.total_seconds()
        return Status(status.description or "", ttl, status.size, status.sealed)
