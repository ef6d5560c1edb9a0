"""The measured operations, for every client: each function runs one operation and returns its figures.

The clock runs only while the client works; bytes are compared while it is stopped, or afterwards.
Figures: ``seconds``, ``cpu`` (seconds of this process, all threads), ``ops``, ``bytes``, ``rss`` (resident
bytes at the end) and ``peak`` (bytes by which the operation raised them at its peak; Linux).
"""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import aclosing
from functools import lru_cache
from pathlib import Path
from typing import Any

from objstore.bench.load import clock, together

from ..ceiling._common import payload as make_payload
from .base import CHUNK, Peer

WAIT = 300.0
"""Seconds that one step may take."""


payload = lru_cache(maxsize=2)(make_payload)


def resident(key: str) -> int:
    """``VmRSS`` or ``VmHWM`` of this process in bytes; 0 where the system does not report it."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(key + ":")), 0)


class Meter:
    """A clock that is started and stopped, and returns the figures at the end."""

    def __init__(self) -> None:
        self.seconds = self.cpu = 0.0
        try:
            Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
        except OSError:
            pass
        self._before = resident("VmRSS")

    def __enter__(self) -> None:
        self._cpu, self._wall = time.process_time(), clock()

    def __exit__(self, *exc_info: object) -> None:
        self.seconds += clock() - self._wall
        self.cpu += time.process_time() - self._cpu

    def figures(self, ops: int, size: int) -> dict[str, float]:
        """The figures of ``ops`` operations that moved ``size`` bytes in all."""
        peak = max(0, resident("VmHWM") - self._before)
        return {
            "seconds": self.seconds,
            "cpu": self.cpu,
            "ops": ops,
            "bytes": size,
            "rss": resident("VmRSS"),
            "peak": peak,
        }


def check(found: Any, wanted: bytes, what: str) -> None:
    if found != wanted:
        raise AssertionError(f"wrong bytes in {what}: {len(found)} of {len(wanted)}, or others")


async def at_once(count: int, concurrency: int, call: Callable[[int], Coroutine[Any, Any, None]]) -> None:
    """Make ``count`` calls, ``concurrency`` at a time."""
    numbers = iter(range(count))

    async def worker() -> None:
        for number in numbers:
            await call(number)

    async with asyncio.timeout(WAIT):
        await together(worker() for _ in range(concurrency))


# --- objects -------------------------------------------------------------------------------------------


async def put(
    peer: Peer, bucket: str, prefix: str, size: int, count: int = 1, concurrency: int = 1, chunk: int = CHUNK
) -> dict[str, float]:
    """Store objects ``PREFIX-N``, all of them new names."""
    await peer.bind(bucket)
    data = payload(size)
    meter = Meter()
    with meter:
        await at_once(count, concurrency, lambda n: peer.put(f"{prefix}-{n}", data, chunk))
    return meter.figures(count, count * size)


async def get(
    peer: Peer, bucket: str, prefix: str, size: int, count: int = 1, concurrency: int = 1
) -> dict[str, float]:
    """Read objects ``PREFIX-N`` whole."""
    await peer.bind(bucket)
    data = payload(size)
    found: list[Any] = []

    async def one(number: int) -> None:
        found.append(await peer.get(f"{prefix}-{number}"))

    meter = Meter()
    if concurrency > 1:
        with meter:
            await at_once(count, concurrency, one)
        for result in found:
            check(result, data, prefix)
    else:
        for number in range(count):
            with meter:
                async with asyncio.timeout(WAIT):
                    await one(number)
            check(found.pop(), data, f"{prefix}-{number}")
    return meter.figures(count, count * size)


PIECE = 1024 * 1024


def piece(number: int) -> bytes:
    """The bytes of a large object from ``number`` MiB on: no two pieces are the same."""
    return number.to_bytes(8, "big") + payload(PIECE)[8:]


def pieces(size: int) -> Iterator[bytes]:
    """A large object, generated while it is read."""
    for start in range(0, size, PIECE):
        yield piece(start // PIECE)[: size - start]


def part(start: int, length: int) -> bytes:
    """The ``length`` bytes at ``start`` of such an object."""
    number, offset = divmod(start, PIECE)
    last = (start + length - 1) // PIECE
    wanted = b"".join(piece(n) for n in range(number, last + 1))
    return wanted[offset : offset + length]


async def put_stream(
    peer: Peer, bucket: str, prefix: str, size: int, count: int = 1, chunk: int = CHUNK
) -> dict[str, float]:
    """Store large objects from an iterable."""
    await peer.bind(bucket)
    meter = Meter()
    for number in range(count):
        with meter:
            async with asyncio.timeout(WAIT):
                await peer.put_stream(f"{prefix}-{number}", pieces(size), chunk)
    return meter.figures(count, count * size)


async def read_into(peer: Peer, bucket: str, prefix: str, size: int, count: int = 1) -> dict[str, float]:
    """Read objects through a buffer of 1 MiB; the library's own digest check vouches for the bytes."""
    await peer.bind(bucket)
    buffer = bytearray(PIECE)
    meter = Meter()
    for number in range(count):
        with meter:
            async with asyncio.timeout(WAIT):
                found = await peer.read_into(f"{prefix}-{number}", buffer)
        if found != size:
            raise AssertionError(f"{found} of {size} bytes")
    return meter.figures(count, count * size)


async def get_range(
    peer: Peer, bucket: str, prefix: str, size: int, count: int, length: int
) -> dict[str, float]:
    """Read ``length`` bytes at random positions of ``PREFIX-0``, which :func:`put_stream` stored."""
    await peer.bind(bucket)
    meter = Meter()
    for _ in range(count):
        start = random.randrange(size - length + 1)
        with meter:
            async with asyncio.timeout(WAIT):
                found = await peer.get_range(f"{prefix}-0", start, start + length)
        check(found, part(start, length), f"{prefix}-0 from {start}")
    return meter.figures(count, count * length)


async def _enumerate(peer: Peer, bucket: str, prefix: str, count: int, names: bool) -> dict[str, float]:
    await peer.bind(bucket)
    meter = Meter()
    with meter:
        async with asyncio.timeout(WAIT):
            found = await (peer.names() if names else peer.list())
    if sorted(found) != sorted(f"{prefix}-{n}" for n in range(count)):
        raise AssertionError(f"{len(found)} names of {count}, or others")
    return meter.figures(1, 0)


async def list_(peer: Peer, bucket: str, prefix: str, count: int, size: int) -> dict[str, float]:
    """List a bucket that holds ``PREFIX-0`` to ``PREFIX-COUNT``, of ``size`` bytes each, and nothing else."""
    return await _enumerate(peer, bucket, prefix, count, False)


async def names(peer: Peer, bucket: str, prefix: str, count: int, size: int) -> dict[str, float]:
    """The same, names alone."""
    return await _enumerate(peer, bucket, prefix, count, True)


async def watch(peer: Peer, bucket: str, prefix: str, count: int) -> dict[str, float]:
    """From the call of put (1 byte) until a watcher in the same process has seen the object."""
    await peer.bind(bucket)
    meter = Meter()
    async with aclosing(peer.changes()) as changes, asyncio.timeout(WAIT):  # type: ignore[type-var]
        await anext(changes)
        for number in range(count):
            with meter:
                storing = asyncio.ensure_future(peer.put(f"{prefix}-{number}", b"x", CHUNK))
                name = await anext(changes)
            await storing
            if name != f"{prefix}-{number}":
                raise AssertionError(f"{name} instead of {prefix}-{number}")
    return meter.figures(count, count)


# --- core ----------------------------------------------------------------------------------------------


async def publish(peer: Peer, size: int, count: int) -> dict[str, float]:
    """Publish, and flush; nobody listens. Before that, a subscription checks a few messages."""
    data = payload(size)
    subject = f"bench.publish.{random.randrange(1 << 60):x}"
    async with asyncio.timeout(WAIT):
        found = await peer.listen(subject)
        await peer.publish(subject, data, 100)
        for _ in range(100):
            check(getattr(await anext(found), peer.payload), data, "a message")
    meter = Meter()
    with meter:
        async with asyncio.timeout(WAIT):
            await peer.publish(f"{subject}.nobody", data, count)
    return meter.figures(count, count * size)


async def subscribe(peer: Peer, url: str, size: int, count: int) -> dict[str, float]:
    """Receive what a raw socket publishes; the clock runs from the order to publish to the last message."""
    subject = f"bench.subscribe.{random.randrange(1 << 60):x}"
    command = [sys.executable, "-m", "bench.ceiling.publish", url]
    command += ["--subject", subject, "--size", str(size), "--count", str(count), "--wait"]
    payloads: list[Any] = []
    meter = Meter()
    async with asyncio.timeout(WAIT):
        receive = await peer.receiver(subject, payloads, count)
        publisher = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert publisher.stdin is not None
        assert publisher.stdout is not None
        try:
            publisher.stdout.readline()  # it is connected and waits
            with meter:
                publisher.stdin.write(b"go\n")
                publisher.stdin.flush()
                async with asyncio.timeout(30):
                    await receive()
        except TimeoutError:
            raise AssertionError(f"{len(payloads)} of {count} messages came within 30 s") from None
        finally:
            publisher.kill()
            publisher.communicate()
    data = payload(size)
    if len(payloads) != count or any(message != data for message in payloads):
        raise AssertionError(f"wrong messages: {len(payloads)} of {count}, or others")
    return meter.figures(count, count * size)


async def request(peer: Peer, url: str, size: int, count: int) -> dict[str, float]:
    """Requests, one after the other, to a raw socket that sends back what it receives."""
    subject = f"bench.request.{random.randrange(1 << 60):x}"
    data = payload(size)
    command = [sys.executable, "-m", "bench.ceiling.request", url, "--answer", subject, "--size", str(size)]
    responder = subprocess.Popen(command, stdout=subprocess.PIPE)
    meter = Meter()
    try:
        assert responder.stdout is not None
        responder.stdout.readline()  # it is listening
        async with asyncio.timeout(WAIT):
            check(await peer.request(subject, data), data, "an answer")
            for _ in range(count):
                with meter:
                    answer = await peer.request(subject, data)
                check(answer, data, "an answer")
    finally:
        responder.kill()
        responder.communicate()
    return meter.figures(count, count * size)


async def parse(peer: Peer, size: int, count: int) -> dict[str, float]:
    """The parser alone, fed frames in reads of 64 KiB."""
    data = payload(size)
    stream = (b"MSG bench.subject.one 17 %d\r\n%b\r\n" % (size, data)) * count
    reads = [stream[i : i + 65536] for i in range(0, len(stream), 65536)]
    meter = Meter()
    with meter:
        found = peer.parse(reads)
    if len(found) != count or any(message != data for message in found):
        raise AssertionError("wrong payloads")
    return meter.figures(count, count * size)


# --- several connections -------------------------------------------------------------------------------


async def spread(
    peer: Peer, url: str, inner: str, connections: int, options: dict[str, Any]
) -> dict[str, float]:
    """The same operation over several connections of one process at once, each with its own ``PREFIX``."""
    others = [type(peer)() for _ in range(connections - 1)]
    function = globals()[inner]
    try:
        for other in others:
            await other.open(url)
        prefix = options.pop("prefix")
        meter = Meter()
        with meter:
            found = await asyncio.gather(
                *(function(each, prefix=f"{prefix}-{n}", **options) for n, each in enumerate([peer, *others]))
            )
    finally:
        for other in others:
            await other.close()
    return meter.figures(int(sum(f["ops"] for f in found)), int(sum(f["bytes"] for f in found)))


# --- preparing and checking ----------------------------------------------------------------------------


async def create(peer: Peer, bucket: str, storage: str, replicas: int) -> dict[str, float]:
    await peer.create(bucket, storage, replicas)
    return {}


async def drop(peer: Peer, bucket: str) -> dict[str, float]:
    await peer.drop(bucket)
    return {}


async def check_objects(peer: Peer, bucket: str, prefix: str, size: int, count: int) -> dict[str, float]:
    """Read back what another client stored, and compare it."""
    return await get(peer, bucket, prefix, size, count, min(count, 32))


async def check_stream(peer: Peer, bucket: str, prefix: str, size: int, count: int) -> dict[str, float]:
    """Read back what :func:`put_stream` stored, and compare it."""
    await peer.bind(bucket)
    for number in range(count):
        start = 0
        for wanted in pieces(size):
            check(await peer.get_range(f"{prefix}-{number}", start, start + len(wanted)), wanted, prefix)
            start += len(wanted)
    return {}


async def remove_consumers(peer: Peer, bucket: str) -> dict[str, float]:
    """Delete the consumers that clients left behind."""
    await peer.remove_consumers(bucket)
    return {}


async def remove(peer: Peer, bucket: str, prefix: str, count: int) -> dict[str, float]:
    """Delete objects ``PREFIX-N``."""
    await peer.bind(bucket)
    await at_once(count, 32, lambda n: peer.remove(f"{prefix}-{n}"))
    return {}
