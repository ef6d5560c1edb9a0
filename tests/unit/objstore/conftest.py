"""A server in this process, and a bucket on it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from objstore import ObjectStore
from objstore.bucket.binding import bind
from objstore.bucket.bucket import Bucket
from support.leaks import no_task_left
from support.memory_server import MemoryServer

nothing_left = pytest.fixture(autouse=True)(no_task_left)


@pytest.fixture
async def server() -> AsyncIterator[MemoryServer]:
    server = MemoryServer()
    yield server
    await server.client.close()


@pytest.fixture
async def store(server: MemoryServer) -> ObjectStore:
    return await server.bucket()


@pytest.fixture
async def bucket(server: MemoryServer, store: ObjectStore) -> Bucket:
    return await bind(server.js, "b")
