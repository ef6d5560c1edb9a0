"""The ceiling scripts store and read the very bytes they are measured with. No rate is looked at."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import natsproto
from natsproto.server import LocalServer
from natsproto.testing import FaultProxy
from natsproto.wire import Event, Info, Pong
from objstore import ObjectStore

pytestmark = pytest.mark.bench

ROOT = Path(__file__).resolve().parents[2]
SIZES = [0, 1, 128 * 1024, 3 * 1024 * 1024 + 1]
HASHING = pytest.mark.parametrize("hashing", [(), ("--no-hash",)], ids=["hashed", "not-hashed"])


def payload(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def call(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", f"bench.ceiling.{name}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT)


def ceiling(name: str, *arguments: str, data: bytes) -> None:
    """Run one; it must print a single JSON object that speaks of these bytes."""
    done = call(name, *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    found: dict[str, Any] = json.loads(done.stdout)
    assert set(found) == {"work", "seconds", "bytes", "cpu", "sha256"}
    assert (found["bytes"], found["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    assert found["seconds"] > 0


def refused(name: str, *arguments: str, because: str) -> None:
    done = call(name, *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1
    assert because in done.stderr


@HASHING
async def test_several_objects(new_server: LocalServer, hashing: tuple[str, ...]) -> None:
    data = payload(300_000)
    bucket = f"ceiling-several-{len(hashing)}"
    async with natsproto.connect(new_server.url) as nc:
        store = await nc.jetstream().create_object_store(bucket=bucket)
        where = ("--bucket", bucket, "--name", "object", "--objects", "3", *hashing)
        for name, size in (("put", ("--size", "300000")), ("get", ())):
            done = call(name, new_server.url, *where, *size)
            assert (done.returncode, done.stderr) == (0, "")
            found = json.loads(done.stdout)
            assert (found["bytes"], found["sha256"]) == (900_000, hashlib.sha256(data).hexdigest())
        assert await store.names() == ["object-0", "object-1", "object-2"]
        assert [await store.get(name) for name in await store.names()] == [data] * 3
        await nc.jetstream().delete_object_store(bucket)
    done = call("get", new_server.url, "--bucket", bucket, "--name", "object", "--objects", "0")
    assert done.returncode == 2
    assert "--objects is a positive number" in done.stderr


@HASHING
@pytest.mark.parametrize("size", SIZES)
async def test_put(
    server: LocalServer, store: ObjectStore, bucket_name: str, size: int, hashing: tuple[str, ...]
) -> None:
    data = payload(size)
    where = ("--bucket", bucket_name, "--name", "object", "--size", str(size))
    ceiling("put", server.url, *where, *hashing, data=data)
    assert await store.get("object") == data
    info = await store.get_info("object")
    assert (info.size, info.chunks) == (size, -(-size // (128 * 1024)))


async def test_put_in_small_chunks_and_a_small_window(
    server: LocalServer, store: ObjectStore, bucket_name: str
) -> None:
    where = ("--bucket", bucket_name, "--name", "object", "--size", "100001")
    ceiling("put", server.url, *where, "--chunk", "1000", "--window", "5000", data=payload(100_001))
    assert await store.get("object") == payload(100_001)
    assert (await store.get_info("object")).chunks == 101


@pytest.mark.peer
async def test_put_is_read_by_nats_py(server: LocalServer, store: ObjectStore, bucket_name: str) -> None:
    nats = pytest.importorskip("nats")
    size = 300_000
    where = ("--bucket", bucket_name, "--name", "object", "--size", str(size))
    ceiling("put", server.url, *where, data=payload(size))
    peer = await nats.connect(server.url, connect_timeout=10)
    try:
        found = await (await peer.jetstream().object_store(bucket_name)).get("object")
    finally:
        await peer.close()
    assert found.data == payload(size)
    assert found.info.digest == (await store.get_info("object")).wire_digest


@HASHING
@pytest.mark.parametrize("into", ["fresh", "reused"])
@pytest.mark.parametrize("size", [*SIZES, 20 * 1024 * 1024])
async def test_get(new_server: LocalServer, size: int, into: str, hashing: tuple[str, ...]) -> None:
    """The largest one does not fit the buffer that is used again."""
    data = payload(size)
    async with natsproto.connect(new_server.url) as nc:
        bucket = f"ceiling-{size}-{into}-{len(hashing)}"
        store = await nc.jetstream().create_object_store(bucket=bucket)
        await store.put("object", data)
        where = ("--bucket", bucket, "--name", "object", "--into", into)
        ceiling("get", new_server.url, *where, *hashing, data=data)
        await nc.jetstream().delete_object_store(bucket)


@pytest.mark.parametrize("name", ["sha256", "tcp"])
@pytest.mark.parametrize("size", [0, 1, 1_000_001])
def test_without_a_server(name: str, size: int) -> None:
    ceiling(name, "--size", str(size), data=payload(size))


def test_nobody_there() -> None:
    url = "nats://127.0.0.1:1"
    refused("put", url, "--bucket", "b", "--name", "n", "--size", "1", because="refused")
    refused("get", url, "--bucket", "b", "--name", "n", because="refused")


def test_user_in_the_url() -> None:
    url = "nats://user:secret@127.0.0.1:1"
    refused("get", url, "--bucket", "b", "--name", "n", because="not supported")
    assert "secret" not in call("get", url, "--bucket", "b", "--name", "n").stderr


def test_bucket_missing(new_server: LocalServer, bucket_name: str) -> None:
    where = ("--bucket", bucket_name, "--name", "object")
    refused("put", new_server.url, *where, "--size", "1000000", because="503")
    refused("get", new_server.url, *where, because="503")


async def test_object_missing(new_server: LocalServer) -> None:
    async with natsproto.connect(new_server.url) as nc:
        await nc.jetstream().create_object_store(bucket="ceiling-empty")
        refused("get", new_server.url, "--bucket", "ceiling-empty", "--name", "object", because="404")
        await nc.jetstream().delete_object_store("ceiling-empty")


async def test_get_needs_batches(old_server: LocalServer) -> None:
    async with natsproto.connect(old_server.url) as nc:
        store = await nc.jetstream().create_object_store(bucket="ceiling-old")
        await store.put("object", bytes(300_000))
        refused("get", old_server.url, "--bucket", "ceiling-old", "--name", "object", because="no batches")
        await nc.jetstream().delete_object_store("ceiling-old")


@pytest.mark.parametrize("ping", ["before", "behind"])
@pytest.mark.parametrize("name", ["put", "get", "publish", "subscribe", "request"])
async def test_a_server_that_asks(new_server: LocalServer, name: str, ping: str) -> None:
    """A server sends PING two seconds after the connection was made, and later: among whatever it says."""
    asked, answers = 0, 0

    def from_server(event: Event, raw: bytes) -> list[bytes] | None:
        nonlocal asked
        if isinstance(event, Info) or asked >= 5:
            return None
        asked += 1
        return [b"PING\r\n", raw] if ping == "before" else [raw, b"PING\r\n"]

    def from_client(event: Event, raw: bytes) -> list[bytes] | None:
        nonlocal answers
        if isinstance(event, Pong):
            answers += 1
            return []
        return None

    bucket = f"ceiling-ping-{name}-{ping}"
    async with natsproto.connect(new_server.url) as nc, FaultProxy(new_server.url) as proxy:
        proxy.to_client, proxy.to_server = from_server, from_client
        store = await nc.jetstream().create_object_store(bucket=bucket)
        await store.put("object", payload(3_000_000))
        where = {
            "put": ("--bucket", bucket, "--name", "new", "--size", "3000000"),
            "get": ("--bucket", bucket, "--name", "object"),
            "publish": ("--subject", "ceiling.ping", "--count", "1000"),
            "subscribe": ("--size", "16", "--count", "1000"),
            "request": ("--size", "16", "--count", "30"),
        }
        done = await asyncio.to_thread(call, name, proxy.url, *where[name])
        assert (done.returncode, done.stderr) == (0, "")
        await nc.jetstream().delete_object_store(bucket)
    assert 0 < answers <= asked
