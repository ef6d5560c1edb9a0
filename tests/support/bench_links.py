"""Connections for measurements, also in another process: each to a server of its own in memory."""

from __future__ import annotations

import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from objstore.cli.connection import Session
from objstore.errors import BucketNotFoundError
from support.memory_server import MemoryServer


@asynccontextmanager
async def memory_link(bucket: str) -> AsyncIterator[Session]:
    """A server that has the bucket."""
    server = MemoryServer()
    await server.js.create_object_store(bucket=bucket)
    try:
        yield Session(server.client, server.js, patient=False)
    finally:
        await server.client.close()


@asynccontextmanager
async def broken_link() -> AsyncIterator[Session]:
    """No connection."""
    raise BucketNotFoundError("no such bucket", bucket="b")
    yield


@asynccontextmanager
async def stubborn_link() -> AsyncIterator[Session]:
    """A process that hears nothing any more."""
    threading.Event().wait()
    yield


@asynccontextmanager
async def deadly_link() -> AsyncIterator[Session]:
    """The end of the process."""
    os._exit(9)
    yield
