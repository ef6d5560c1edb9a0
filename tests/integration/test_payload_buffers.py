"""Payloads of any buffer, in every way to send a message: what lies in it, in order, as bytes."""

from __future__ import annotations

import array
import asyncio
import ctypes
from collections.abc import AsyncIterator
from typing import Any

import pytest

from natsproto.aio.client import Client
from natsproto.errors import LocalProtocolError
from natsproto.jetstream.api.models import StreamConfig
from natsproto.jetstream.context import JetStreamContext
from support.hostile import HostileBytes

BUFFERS: dict[str, tuple[Any, bytes]] = {
    "bytes": (b"abc", b"abc"),
    "bytearray": (bytearray(b"abc"), b"abc"),
    "a subclass of bytes": (HostileBytes(b"abcde"), b"abcde"),
    "empty, two dimensions": (memoryview((ctypes.c_int * 0 * 3)()), b""),
    "two dimensions": (memoryview(b"abcdef").cast("B", (2, 3)), b"abcdef"),
    "no dimension": (memoryview(ctypes.c_uint16(0x4141)), b"AA"),
    "strided": (memoryview(b"a-b-c-")[::2], b"abc"),
    "backwards": (memoryview(b"abc")[::-1], b"cba"),
    "wide": (array.array("H", [0x4141, 0x4242]), b"AABB"),
    "large and wide": (array.array("H", [0x4141] * 20_000), b"A" * 40_000),
    "large and strided": (memoryview(b"a-" * 40_000)[::2], b"a" * 40_000),
}
EVERY = pytest.mark.parametrize(("data", "held"), BUFFERS.values(), ids=BUFFERS)


@pytest.fixture
async def stream(js: JetStreamContext, bucket_name: str) -> AsyncIterator[str]:
    await js.create_stream(StreamConfig(name=bucket_name, subjects=[f"{bucket_name}.>"], storage="memory"))
    yield bucket_name
    await js.delete_stream(bucket_name)


@EVERY
async def test_messages(nc: Client, data: Any, held: bytes) -> None:
    async with await nc.subscribe("buffers") as sub:
        await nc.publish("buffers", data)
        await nc.publish("buffers", data, headers={"a": "b"}, reply="r")
        assert [(await sub.next_msg(timeout=10)).data for _ in range(2)] == [held, held]
        asking = asyncio.ensure_future(nc.request("buffers", data, timeout=10))
        asked = await sub.next_msg(timeout=10)
        assert asked.data == held
        await asked.respond(data)
        assert (await asking).data == held


@EVERY
async def test_streams(js: JetStreamContext, stream: str, data: Any, held: bytes) -> None:
    subject = f"{stream}.a"
    assert (await js.publish(subject, data)).seq == 1
    window = js.publish_window(subject, stream, max_bytes=50_000)
    try:
        for _ in range(3):
            await window.publish(data)
        await window.settle()
    finally:
        window.close()
    assert [(await js.get_message(stream, seq=seq)).data for seq in (1, 2, 3, 4)] == [held] * 4


async def test_what_is_none(js: JetStreamContext, stream: str) -> None:
    window = js.publish_window(f"{stream}.a", stream)
    try:
        for wrong in ("text", 5, None, [b"x"]):
            for call in (window.publish, lambda data: js.client.publish("x", data)):
                with pytest.raises(LocalProtocolError):
                    await call(wrong)  # type: ignore[operator]
        await window.publish(b"goes on")
        await window.settle()
    finally:
        window.close()
