"""natsrpy behind JSON lines; see ``lines.py``. Imports nothing of this project."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import sys
from importlib.metadata import version
from typing import Any

import natsrpy
from natsrpy.js import ObjectStoreConfig

TIMEOUT = 30.0


def entry(info: Any) -> dict[str, Any]:
    headers = (info.headers or {}).items()
    return {
        "name": info.name,
        "size": info.size,
        "chunks": info.chunks,
        "nuid": info.nuid,
        "digest": info.digest or "",
        "deleted": info.deleted,
        "description": info.description or "",
        "headers": {key: [value] if isinstance(value, str) else list(value) for key, value in headers},
        "metadata": dict(info.metadata or {}),
        "chunk_size": info.max_chunk_size,
        "link": None if info.link is None else [info.link.bucket, info.link.name],
    }


class Session:
    """One connection with one bucket open; a method per request."""

    client: Any = None
    js: Any = None
    store: Any = None
    changes: Any = None

    async def connect(self, url: str) -> dict[str, str]:
        self.client = natsrpy.Nats(addrs=[url])
        await self.client.startup()
        self.js = await self.client.jetstream()
        return {"version": version("natsrpy")}

    async def close(self) -> None:
        self.changes = self.store = self.js = None
        await self.client.shutdown()

    async def create(self, bucket: str, description: str, ttl: float) -> None:
        config = ObjectStoreConfig(bucket, description=description or None, max_age=ttl or None)
        self.store = await self.js.object_store.create(config)

    async def open(self, bucket: str) -> None:
        self.store = await self.js.object_store.get(bucket)

    async def put(self, name: str, data: str, chunk_size: int | None, **about: Any) -> None:
        size = {} if chunk_size is None else {"chunk_size": chunk_size}
        about = {key: value or None for key, value in about.items()}
        await self.store.put(name, base64.b64decode(data), **size, **about)

    async def get(self, name: str) -> str:
        into = io.BytesIO()
        await self.store.get(name, into)
        return base64.b64encode(into.getvalue()).decode()

    async def info(self, name: str) -> dict[str, Any] | None:
        try:
            info = await self.store.get_info(name)
        except Exception as exc:
            if str(exc) == "not found":
                return None
            raise
        return None if info.deleted else entry(info)

    async def list(self) -> Any:
        return [entry(info) async for info in await self.store.list()]

    async def delete(self, name: str) -> None:
        await self.store.delete(name)

    async def link(self, name: str, target: str) -> None:
        await self.store.link_object(target, name)

    async def bucketLink(self, name: str, bucket: str) -> None:
        await self.store.link_bucket(bucket, name)

    async def update(self, name: str, description: str, headers: dict[str, Any]) -> None:
        await self.store.update_metadata(name, description=description, headers=headers)

    async def rename(self, name: str, new_name: str) -> None:
        await self.store.update_metadata(name, new_name=new_name)

    async def watch(self) -> None:
        self.changes = await self.store.watch()

    async def watchNext(self) -> dict[str, Any]:
        info = await anext(self.changes)
        return {"name": info.name, "deleted": info.deleted}

    async def watchStop(self) -> None:
        self.changes = None

    async def seal(self) -> None:
        await self.store.seal()


async def main() -> None:
    session = Session()
    for line in sys.stdin:
        request = json.loads(line)
        number, op = request.pop("id"), request.pop("op")
        try:
            async with asyncio.timeout(TIMEOUT):
                reply = {"id": number, "ok": await getattr(session, op)(**request)}
        except Exception as exc:
            reply = {"id": number, "error": repr(exc)}
        sys.stdout.write(json.dumps(reply) + "\n")
        sys.stdout.flush()


asyncio.run(main())
