"""A server of either end of the supported range."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from natsproto.server import LocalServer, find_server
from support.servers import old_binary


@pytest.fixture(params=["environment", "old"])
def binary(request: pytest.FixtureRequest) -> str:
    if request.param == "environment":
        return find_server().path
    return old_binary()


@pytest.fixture
def server(binary: str) -> Iterator[LocalServer]:
    with LocalServer(binary=binary) as server:
        yield server
