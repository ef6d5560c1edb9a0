"""A bucket whose source is away: what it has sent of an object waits for the rest, however old it gets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import natsproto
from natsproto.server import LocalServer
from objstore import BucketSource, ObjectStore
from support.objects import CHUNK, chunk_counts, pattern
from support.sockets import reserved_port
from support.waits import held

DATA = pattern(4 * CHUNK)


async def until(condition: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(30):
        while not await condition():
            pass


async def test_half_an_object_stays(tmp_path: Path) -> None:
    with reserved_port() as port:
        listen = f'leafnodes {{ listen: "127.0.0.1:{port}" }}'
        remote = f'leafnodes {{ remotes = [ {{ url: "nats://127.0.0.1:{port}" }} ] }}'
        with (
            LocalServer(domain="hub", config=listen, store_dir=tmp_path / "hub") as hub,
            LocalServer(domain="spoke", config=remote, store_dir=tmp_path / "spoke") as spoke,
        ):
            async with natsproto.connect(hub.url) as here, natsproto.connect(spoke.url) as there:
                media = await there.jetstream().create_object_store(bucket="media")
                every = await here.jetstream().create_object_store(
                    bucket="every", sources=[BucketSource("media", domain="spoke")]
                )
                async with media.open_writer("a", chunk_size=CHUNK) as writer:
                    began = time.monotonic()
                    await writer.write(DATA[: 2 * CHUNK])
                    await until(lambda: chunk_counts(every))
                    spoke.pause()
                    # The chunks grow older than this, but were not when the source was heard last.
                    age = time.monotonic() - began + 1
                    try:
                        (nuid,) = await chunk_counts(every)
                        await held(age + 1)
                        report = await every.gc(older_than=timedelta(seconds=age))
                    finally:
                        spoke.resume()
                    assert (report.orphans, report.recent) == ([], [nuid])
                    await writer.write(DATA[2 * CHUNK :])
                await until(lambda: every.exists("a"))
                assert await every.get("a") == DATA

                # What is complete does not stay.
                await media.put("a", b"another")
                await until(lambda: collected(every))
                assert len(await chunk_counts(every)) == 1
                assert await every.get("a") == b"another"


async def collected(store: ObjectStore) -> bool:
    return bool((await store.gc(older_than=timedelta(0))).orphans)
