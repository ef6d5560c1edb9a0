"""The same library on uvloop's event loop: never required, but it works."""

from __future__ import annotations

import asyncio
import importlib
import os
from pathlib import Path

import natsproto
from natsproto.server import LocalServer
from support.skips import missing


def test_objects_and_messages_on_uvloop(server: LocalServer, bucket_name: str, tmp_path: Path) -> None:
    try:
        uvloop = importlib.import_module("uvloop")
    except ImportError:
        missing("uvloop")
    data = os.urandom(3_000_001)
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(data)

    async def body() -> None:
        assert type(asyncio.get_running_loop()).__module__ == "uvloop"
        async with natsproto.connect(server.url) as nc, asyncio.timeout(30):
            store = await nc.jetstream().create_object_store(bucket=bucket_name)
            async with store.watch(updates_only=True) as watcher:
                await store.put("bytes", data)
                assert (await anext(watcher)).name == "bytes"
            await store.put_file("file", source)
            assert await store.get("bytes") == data
            await store.get_file("file", target)
            buffer, found = bytearray(65_536), bytearray()
            async with store.open_reader("file") as reader:
                while count := await reader.readinto(buffer):
                    found += buffer[:count]
            assert found == data
            assert await store.get_range("bytes", 1_000_000, 2_000_000) == data[1_000_000:2_000_000]
            assert [info.name for info in await store.list()] == ["bytes", "file"]

            subscription = await nc.subscribe(f"{bucket_name}.echo")
            asking = asyncio.ensure_future(nc.request(f"{bucket_name}.echo", b"hello"))
            await (await subscription.next_msg(timeout=10)).respond(b"world")
            assert (await asking).data == b"world"

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(body())
    assert target.read_bytes() == data
