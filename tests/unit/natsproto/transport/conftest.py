"""Each kind of transport, and its other end."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from natsproto.transport import TransportKind
from support.leaks import no_task_left
from support.transports import Peer

nothing_left = pytest.fixture(autouse=True)(no_task_left)


@pytest.fixture(params=["buffered", "streams"])
def kind(request: pytest.FixtureRequest) -> TransportKind:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    async with Peer() as one:
        yield one
