"""A server in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from support.leaks import no_task_left
from support.memory_server import MemoryServer

nothing_left = pytest.fixture(autouse=True)(no_task_left)


@pytest.fixture
async def server() -> AsyncIterator[MemoryServer]:
    server = MemoryServer()
    yield server
    await server.client.close()
