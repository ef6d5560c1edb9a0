"""Whatever is stored under the nuid of an object: a range is right, or an error; and right if the object is.

Messages too many, before the meta or behind it, must not shift what is read: a guess counts back from the
meta, and what identifies a chunk is the number of messages after it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import pytest

from natsproto.errors import NatsError
from objstore import IntegrityError, ObjectInfo
from objstore.bucket.binding import bind
from objstore.bucket.bucket import Bucket
from objstore.format.digest import hex_digest, new_hasher
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


def store_any(
    server: MemoryServer, like: ObjectInfo, chance: Random, nuid: str, *, sound: bool = False
) -> Stored:
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
    if sound:
        doubled = -1
    elif doubled >= count:  # not both: what has the right number of messages of the right lengths looks right
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
    if chance.random() < 0.5 and not sound and not 0 <= lost < len(chunks):
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
        digest=hex_digest(new_hasher(data).digest()),
    )
    return Stored(info, data, extra)


class Meanwhile:
    """Stores something now and then, when the server is asked for anything."""

    def __init__(
        self, chance: Random, due: int, payloads: list[bytes], store: Callable[[bytes], None]
    ) -> None:
        self._chance, self._due, self._payloads, self._store = chance, due, payloads, store

    def __call__(self, verb: str, body: dict[str, Any]) -> None:
        if self._due and self._chance.random() < 0.3:
            self._due -= 1
            self._store(self._chance.choice(self._payloads))


async def sought(bucket: Bucket, info: ObjectInfo, start: int, end: int) -> bytes:
    reader = ObjectReader(bucket, info, verify=True)
    try:
        await reader.seek(start)
        return await reader.read(end - start)
    finally:
        await reader.aclose()


@pytest.fixture(params=["batches", "consumers", "leader", "replicas"])
async def server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(_get, "RECHECK_DELAYS", (0.0, 0.0))
    kind = request.param
    server = MemoryServer("2.10.4" if kind == "consumers" else "2.15.1")
    await server.bucket(allow_direct=kind != "leader", replicas=3 if kind == "replicas" else 1)
    yield server
    await server.client.close()


@pytest.fixture
async def like(server: MemoryServer) -> ObjectInfo:
    return await (await server.js.object_store("b")).put("any", b"x")


def any_range(chance: Random, size: int) -> tuple[int, int]:
    start = chance.randrange(0, size - 1)
    return start, chance.choice((size, chance.randrange(start + 1, size)))


async def test_any_range(server: MemoryServer, like: ObjectInfo) -> None:
    right = errors = wholes = 0
    for seed in range(SEEDS):
        chance = Random(seed)
        stored = store_any(server, like, chance, f"any{seed}".ljust(22, "x"))
        info, data = stored.info, stored.data
        try:
            whole = await _whole(await bind(server.js, "b"), info)
            assert whole == data
            wholes += 1
        except (Missing, IntegrityError):
            whole = None
        for _ in range(6):
            start, end = any_range(chance, len(data))
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
    assert SEEDS / 4 < wholes < SEEDS * 3 / 4
    assert right > 4 * wholes
    assert errors > SEEDS


@pytest.mark.parametrize("copies", [True, False], ids=["copies", "anything"])
async def test_what_others_store_meanwhile(server: MemoryServer, like: ObjectInfo, copies: bool) -> None:
    """Between any two requests, behind an object; and its meta is stored anew now and then."""
    right = errors = 0
    for seed in range(SEEDS):
        chance = Random(seed)
        stored = store_any(server, like, chance, f"some{seed}".ljust(22, "x"), sound=True)
        info, data = stored.info, stored.data
        chunks = [data[at : at + CHUNK] for at in range(0, len(data), CHUNK)]
        bucket, due = await bind(server.js, "b"), chance.randrange(1, 5)

        def stored_meanwhile(payload: bytes, subject: str = f"$O.b.C.{info.nuid}") -> None:
            server.put_raw(subject, payload)

        asked = Meanwhile(chance, due, chunks if copies else [b"Z" * CHUNK, b"Z", b""], stored_meanwhile)
        server.hook = asked
        for _ in range(8):
            start, end = any_range(chance, len(data))
            for read in (read_range, sought):
                try:
                    found = await read(bucket, info, start, end)
                except (Missing, NatsError):
                    errors += 1
                else:
                    assert found == data[start:end], f"seed {seed}, {start} to {end} of {len(data)}"
                    right += 1
            if chance.random() < 0.2:
                info = replace(info, revision=server.put_raw("$O.b.M.any", b"meta"))
        server.hook = None
    assert right > (errors if copies else SEEDS)
