"""Whatever is stored under the nuid of an object: a range is right, or an error; and right if the object is.

Messages too many, before the meta or behind it, must not shift what is read: a guess counts back from the
meta, and what identifies a chunk is the number of messages after it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random

import pytest

from natsproto.errors import NatsError
from objstore import IntegrityError, ObjectInfo, ObjectStore
from objstore.bucket.binding import bind
from objstore.bucket.bucket import Bucket
from objstore.format.digest import wire_digest
from objstore.format.models import ObjectMetaOptions
from objstore.read import get as _get
from objstore.read.get import _whole
from objstore.read.parts import Missing
from objstore.read.ranges import read_range
from objstore.read.reader import ObjectReader
from support.memory_server import MemoryServer

CHUNK = 10
SEEDS = 40


@dataclass
class Stored:
    """An object as somebody has stored it."""

    info: ObjectInfo
    data: bytes
    extra: list[str]


def store_any(server: MemoryServer, like: ObjectInfo, chance: Random, nuid: str) -> Stored:
    """Chunks of an object, messages of others between them, some too many, and perhaps a later meta."""
    count, extra = chance.randrange(2, 7), list[str]()
    data = chance.randbytes(CHUNK * count - chance.choice((0, 3)))
    chunks = [data[at : at + CHUNK] for at in range(0, len(data), CHUNK)]
    odd = chance.random()
    if odd < 0.1:  # by a writer that stores what its reads return
        chunks = [piece for chunk in chunks for piece in (chunk[:4], chunk[4:]) if piece]
    elif odd < 0.3:  # the short one is not the last one
        rest = len(data) % CHUNK
        chunks = [data[:rest], *(data[at : at + CHUNK] for at in range(rest, len(data), CHUNK))][not rest :]
    subject = f"$O.b.C.{nuid}"
    beside = chance.random() < 0.2

    def put(chunk: bytes) -> None:
        if beside and chance.random() < 0.3:
            server.put_raw("$O.b.C.other", b"between")
        server.put_raw(subject, chunk)

    def too_many() -> bytes:
        return chance.choice([*chunks, b"x" * CHUNK, b""])

    doubled, lost = chance.randrange(2 * count), -1
    if doubled >= count:  # not both: what has the right number of messages of the right lengths looks right
        lost = chance.randrange(4 * count)
    for number, chunk in enumerate(chunks):
        if number == lost:
            extra.append(f"chunk {number} was never stored")
            continue
        put(chunk)
        if number == doubled:
            extra.append(f"behind chunk {number}")
            put(chance.choice((chunk, too_many())))
    if chance.random() < 0.1:
        extra.append("an empty one at the end")
        put(b"")
    revision = server.put_raw("$O.b.M.any", b"meta")
    if chance.random() < 0.5:
        first = chance.randrange(count)
        for chunk in (*chunks[first:], too_many())[: chance.choice((0, 1, 2, 9))]:
            extra.append("behind the meta")
            put(chance.choice((chunk, chunk, too_many())))
        if chance.random() < 0.7:
            revision = server.put_raw("$O.b.M.any", b"meta")
    options = ObjectMetaOptions(max_chunk_size=CHUNK)
    info = replace(
        like,
        nuid=nuid,
        size=len(data),
        chunks=len(chunks),
        options=options,
        revision=revision,
        digest=wire_digest(data),
    )
    return Stored(info, data, extra)


async def sought(bucket: Bucket, info: ObjectInfo, start: int, end: int) -> bytes:
    reader = ObjectReader(bucket, info, verify=True)
    try:
        await reader.seek(start)
        return await reader.read(end - start)
    finally:
        await reader.aclose()


@pytest.mark.parametrize("kind", ["batches", "consumers", "leader", "replicas"])
async def test_any_range(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_get, "RECHECK_DELAYS", (0.0, 0.0))
    server = MemoryServer("2.10.4" if kind == "consumers" else "2.15.1")
    await server.bucket(allow_direct=kind != "leader", replicas=3 if kind == "replicas" else 1)
    store: ObjectStore = await server.js.object_store("b")
    like = await store.put("any", b"x")
    right = errors = 0
    for seed in range(SEEDS):
        chance = Random(seed)
        stored = store_any(server, like, chance, f"{kind}{seed}".ljust(22, "x"))
        info, data = stored.info, stored.data
        try:
            whole = await _whole(await bind(server.js, "b"), info)
            assert whole == data
        except (Missing, IntegrityError):
            whole = None
        for _ in range(6):
            start = chance.randrange(0, len(data) - 1)
            end = chance.choice((len(data), chance.randrange(start + 1, len(data))))
            about = f"seed {seed}, {start} to {end} of {len(data)}: {stored.extra}"
            for read in (read_range, sought):
                bucket = await bind(server.js, "b")  # one that remembers nothing
                try:
                    found = await read(bucket, info, start, end)
                except (Missing, NatsError):
                    assert whole is None, about
                    errors += 1
                else:
                    assert found == data[start:end], about
                    right += 1
    assert right > SEEDS
    assert errors > SEEDS
    await server.client.close()
