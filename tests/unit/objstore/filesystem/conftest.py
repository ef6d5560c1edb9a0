"""A file system on a server in this process, which lives in fsspec's own loop and thread."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from fsspec.asyn import get_loop, sync

import natsproto
from natsproto.jetstream.context import JetStreamContext
from objstore.filesystem import NatsObjectFileSystem
from objstore.filesystem.connections import Connections, LoopConnection
from support.memory_server import MemoryServer


class InMemory(Connections):
    """Connections that are there already."""

    def __init__(self, server: MemoryServer) -> None:
        super().__init__(natsproto.connect(), None, None)
        self.server = server

    async def _connected(self) -> tuple[LoopConnection, JetStreamContext]:
        return self._held.setdefault(asyncio.get_running_loop(), LoopConnection()), self.server.js


@pytest.fixture
def memory() -> Iterator[MemoryServer]:
    async def begin() -> MemoryServer:
        server = MemoryServer()
        await server.bucket()
        return server

    server = sync(get_loop(), begin)
    yield server
    sync(get_loop(), server.client.close)


@pytest.fixture
def fs(memory: MemoryServer) -> NatsObjectFileSystem:
    """The bucket ``b``, and nothing in it."""
    fs = NatsObjectFileSystem(skip_instance_cache=True)
    fs._connections = InMemory(memory)
    return fs
