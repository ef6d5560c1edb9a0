"""The connections of a file system: one for each event loop that uses it, closed when nobody needs it."""

from __future__ import annotations

import asyncio
import atexit
import os
import weakref
from concurrent.futures import Future, wait
from typing import TYPE_CHECKING

from ..errors import BucketNotFoundError

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Mapping

    from natsproto.aio.client import Client
    from natsproto.aio.connect import connect
    from natsproto.jetstream.context import JetStreamContext

    from ..store import ObjectStore

AT_EXIT = 2.0
"""Seconds the interpreter waits at its end, so that unfinished writes remove what they have stored."""


class LoopConnection:
    """The connection of one loop, and the buckets opened on it."""

    def __init__(self) -> None:
        self.connecting: asyncio.Lock = asyncio.Lock()
        self.client: Client | None = None
        self.js: JetStreamContext | None = None
        self.stores: dict[str, ObjectStore] = {}


class Connections:
    """Connects on first use; again when a client was closed for good. Not for use in a forked child."""

    def __init__(self, connecting: connect, domain: str | None, prefix: str | None) -> None:
        self._connecting = connecting
        self._jetstream = (domain, prefix)
        self._pid = os.getpid()
        self._held: dict[AbstractEventLoop, LoopConnection] = {}
        _ALL.add(self)
        # Not the atexit of finalize: that would not wait.
        weakref.finalize(self, _close, self._held, self._pid).atexit = False

    async def js(self) -> JetStreamContext:
        """Return JetStream on the connection of the running loop."""
        return (await self._connected())[1]

    async def store(self, bucket: str) -> ObjectStore:
        """Return the opened bucket.

        Raises:
            BucketNotFoundError, BadBucketError: there is none, or there can be none.
        """
        held, js = await self._connected()
        store = held.stores.get(bucket)
        if store is None:
            store = held.stores[bucket] = await js.object_store(bucket)
        return store

    async def _connected(self) -> tuple[LoopConnection, JetStreamContext]:
        if os.getpid() != self._pid:
            raise RuntimeError("a file system cannot be used in a forked child: create another one there")
        loop = asyncio.get_running_loop()
        held = self._held.get(loop)
        if held is None:
            for other in [each for each in list(self._held) if each.is_closed()]:
                self._held.pop(other, None)
            held = self._held[loop] = LoopConnection()
        async with held.connecting:
            if held.client is None or held.js is None or held.client.is_closed:
                held.stores.clear()
                held.client = await self._connecting
                timeout = self._connecting.request_timeout
                held.js = held.client.jetstream(
                    domain=self._jetstream[0], prefix=self._jetstream[1], timeout=timeout
                )
        return held, held.js

    def forget(self, bucket: str | None = None) -> None:
        """Open a bucket again when it is used next; ``None``: all of them."""
        for held in list(self._held.values()):
            if bucket is None:
                held.stores.clear()
            else:
                held.stores.pop(bucket, None)

    def close_soon(self) -> list[Future[None]]:
        """Begin to close all connections, from any thread."""
        return _close(self._held, self._pid)

    async def close(self) -> None:
        """Close the connection of the running loop; the next use connects again."""
        held = self._held.pop(asyncio.get_running_loop(), None)
        if held is not None and held.client is not None:
            await held.client.close()


def missing(bucket: str, exc: ValueError) -> BucketNotFoundError:
    """Return the error for a bucket that cannot exist, because no bucket is called so."""
    return BucketNotFoundError(f"no bucket {bucket!r}: {exc}", bucket=bucket)


_ALL: weakref.WeakSet[Connections] = weakref.WeakSet()


def _close(links: Mapping[AbstractEventLoop, LoopConnection], pid: int) -> list[Future[None]]:
    """Begin to close all connections, from any thread; a forked child leaves those of its parent alone."""
    closing: list[Future[None]] = []
    if os.getpid() != pid:
        return closing
    for loop, held in list(links.items()):
        if held.client is None or not loop.is_running():
            continue
        ending = held.client.close()
        try:
            closing.append(asyncio.run_coroutine_threadsafe(ending, loop))
        except RuntimeError:  # the loop was closed just now
            ending.close()
    return closing


@atexit.register
def _close_all() -> None:
    closing = [each for connections in list(_ALL) for each in connections.close_soon()]
    wait(closing, AT_EXIT)
