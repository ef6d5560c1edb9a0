"""What the object store tests share: patterned bytes, raw messages, and a look at what the stream holds."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from natsproto.aio.client import Client
from natsproto.headers import parse_headers
from natsproto.jetstream.api.errors import MessageNotFoundError
from natsproto.jetstream.context import JetStreamContext
from objstore import ObjectInfo, ObjectStore
from objstore.format.marks import mark_lines
from objstore.read.files import mark_of

KIB = 1024
MIB = 1024 * 1024
CHUNK = 128 * KIB


def pattern(size: int, seed: int = 0) -> bytes:
    """Bytes that repeat nowhere, the same for the same seed."""
    return hashlib.shake_128(b"%d" % seed).digest(size)


async def impatient(client: Client, bucket: str, timeout: float) -> ObjectStore:
    """Open a bucket with the usual patience; from then on its requests have ``timeout`` seconds each."""
    store = await client.jetstream().object_store(bucket)
    store.bound_bucket.js.timeout = timeout
    return store


def stream(store: ObjectStore) -> str:
    return f"OBJ_{store.bucket}"


def meta_subject(store: ObjectStore, name: str) -> str:
    return f"$O.{store.bucket}.M.{base64.urlsafe_b64encode(name.encode()).decode()}"


def chunk_subject(store: ObjectStore, nuid: str) -> str:
    return f"$O.{store.bucket}.C.{nuid}"


def wire_digest(data: bytes) -> str:
    return "SHA-256=" + base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode()


async def chunk_counts(store: ObjectStore) -> dict[str, int]:
    """Chunks stored per nuid."""
    counts = await store.js.stream_subjects(stream(store), f"$O.{store.bucket}.C.>")
    return {subject.rpartition(".")[2]: count for subject, count in counts.items()}


async def assert_exact(store: ObjectStore) -> None:
    """Every live object has its chunks, and nothing else has any."""
    infos = [info for info in await store.list() if not info.is_link and info.chunks]
    wanted = {info.nuid: info.chunks for info in infos}
    assert len(wanted) == len(infos), "two objects share their chunks"
    assert await chunk_counts(store) == wanted


def part_file(path: Path, info: ObjectInfo) -> Path:
    """Where ``get_file(path, resume=True)`` keeps what it has of an object."""
    return path.with_name(f".{path.name}.{mark_of(info)}.part")


async def read_raw(store: ObjectStore, name: str) -> dict[str, Any]:
    """The newest meta message of a name as JSON, from the leader."""
    message = await store.js.get_message(stream(store), last_by_subject=meta_subject(store, name))
    document = json.loads(message.data)
    assert isinstance(document, dict)
    return document


async def write_raw(
    js: JetStreamContext,
    subject: str,
    document: Any,
    *,
    rollup: bool = True,
    marks: dict[str, str] | None = None,
) -> int:
    """Publish a meta message as another client would; ``bytes`` are sent as they are.

    ``marks`` are those of a rename, in headers.
    """
    payload = document if isinstance(document, bytes) else json.dumps(document).encode()
    headers = parse_headers(b"NATS/1.0\r\n%b\r\n" % mark_lines(marks or {})).headers
    if rollup:
        headers["Nats-Rollup"] = "sub"
    return (await js.publish(subject, payload, headers=headers)).seq


async def forge(store: ObjectStore, name: str, /, **changes: Any) -> int:
    """Replace the meta of ``name`` by a changed one; a value of ``None`` removes the key."""
    document = await read_raw(store, name)
    document.update(changes)
    document = {key: value for key, value in document.items() if value is not None}
    return await write_raw(store.js, meta_subject(store, name), document)


async def chunk_sequences(store: ObjectStore, nuid: str) -> list[int]:
    """Stream sequences of an object's chunks."""
    found: list[int] = []
    while True:
        try:
            message = await store.js.get_message(
                stream(store),
                seq=(found[-1] if found else 0) + 1,
                next_by_subject=chunk_subject(store, nuid),
            )
        except MessageNotFoundError:
            return found
        found.append(message.seq)


def once(data: bytes) -> Iterator[bytes]:
    """A source that cannot be read a second time."""
    for start in range(0, len(data), 50_000):
        yield data[start : start + 50_000]


async def settled(store: ObjectStore) -> None:
    """The clean-up of a cancelled call runs on in the background: wait for it, then compare."""
    async with asyncio.timeout(30):
        while tasks := [
            task
            for task in asyncio.all_tasks()
            if task.get_name().startswith("objstore-") and not task.done()
        ]:
            await asyncio.wait(tasks)
    await assert_exact(store)
