"""Every test here ends without a task of ours still running; servers that a test may break."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from natsproto.server import LocalServer
from support.leaks import no_task_left

nothing_left = pytest.fixture(autouse=True)(no_task_left)


@pytest.fixture
async def own_server(server: LocalServer) -> AsyncIterator[LocalServer]:
    """A server that may be killed; same versions as ``server``."""
    async with LocalServer(binary=server.binary.path, jetstream=False) as own:
        yield own
