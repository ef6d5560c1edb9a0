"""The methods of a measured client. An operation whose method it does not override is skipped."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from importlib.metadata import version
from operator import attrgetter
from typing import Any

MODULES = {"natsproto": "ours", "nats-py": "nats_py", "natsrpy": "natsrpy", "natsio": "natsio"}
"""Client -> module in this folder."""

CHUNK = 128 * 1024
"""Every client's default chunk size."""

QUEUE = 2_000_000
"""Messages a subscription may hold: more than any work sends."""


Receive = Callable[[], Awaitable[object]]


class Peer:
    """One client library; a method per operation, all of them with the library's own defaults."""

    package = ""
    payload = "data"
    """The attribute of a message that holds its payload."""

    def version(self) -> str:
        return version(self.package)

    async def open(self, url: str) -> None:
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError

    async def bind(self, bucket: str) -> None:
        """Open an existing bucket; the operations below go to it."""
        raise NotImplementedError

    async def create(self, bucket: str, storage: str, replicas: int) -> None:
        """Create a bucket; only this library does, so that all clients use the same buckets."""
        raise NotImplementedError

    async def drop(self, bucket: str) -> None:
        raise NotImplementedError

    async def remove(self, name: str) -> None:
        raise NotImplementedError

    async def remove_consumers(self, bucket: str) -> None:
        """Delete every consumer of a bucket; only this library does, between the turns."""
        raise NotImplementedError

    async def put_stream(self, name: str, pieces: Iterator[bytes], chunk: int) -> None:
        """Store an object that is never in memory as a whole."""
        raise NotImplementedError("not measured with this client")

    async def put(self, name: str, data: bytes, chunk: int) -> None:
        raise NotImplementedError

    async def get(self, name: str) -> bytes | memoryview:
        raise NotImplementedError

    async def list(self) -> list[str]:
        """The names, from the library's list of infos."""
        raise NotImplementedError

    async def names(self) -> list[str]:
        raise NotImplementedError("has no list of names alone")

    async def get_range(self, name: str, start: int, end: int) -> bytes:
        raise NotImplementedError("has no ranges")

    async def read_into(self, name: str, buffer: bytearray) -> Any:
        """Read a whole object through one reused buffer; returns the size."""
        raise NotImplementedError("has no readinto")

    def changes(self) -> AsyncIterator[str]:
        """The names of objects that change from now on; first an empty string, when it is listening."""
        raise NotImplementedError("has no watch")

    async def publish(self, subject: str, data: bytes, count: int) -> None:
        """Publish ``count`` messages, and flush."""
        raise NotImplementedError

    async def listen(self, subject: str) -> AsyncIterator[Any]:
        """The library's own iterator over messages; the server has the subscription."""
        raise NotImplementedError

    async def receiver(self, subject: str, payloads: list[Any], count: int) -> Receive:
        """Listen in the library's fastest way; the result waits until ``payloads`` has ``count``."""
        messages = await self.listen(subject)
        data_of = attrgetter(self.payload)

        async def receive() -> None:
            async for message in messages:
                payloads.append(data_of(message))
                if len(payloads) == count:
                    break

        return receive

    async def request(self, subject: str, data: bytes) -> bytes:
        raise NotImplementedError

    def parse(self, reads: list[bytes]) -> list[bytes]:
        """The payloads that the library's parser finds in these reads."""
        raise NotImplementedError("has no parser in Python")
