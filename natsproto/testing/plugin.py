"""Fixtures for pytest with a real server. Opt in, in the top-level ``conftest.py``::

    pytest_plugins = ["natsproto.testing.plugin"]

========================  =========  =================================================================
fixture                   scope      what it is
========================  =========  =================================================================
``nats_server``           session    :class:`~natsproto.server.LocalServer` with JetStream
``nats_url``              session    its address, or that of ``--nats-url``
``nc``                    function   a connected :class:`~natsproto.Client`
``js``                    function   its :class:`~natsproto.JetStreamContext`
``bucket``                function   a new :class:`~objstore.ObjectStore` in memory, deleted afterwards
========================  =========  =================================================================

``--nats-url URL`` runs the tests against an existing server; tests that use ``nats_server`` itself are then
skipped. The three function-scoped fixtures need pytest-asyncio.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING

import pytest

from ..errors import MissingExtraError, NatsError
from ..server import LocalServer
from ..subjects import secret_name

try:
    import pytest_asyncio
except ImportError as _exc:
    raise MissingExtraError("the fixtures of natsproto.testing.plugin need pytest-asyncio", "test") from _exc

if TYPE_CHECKING:
    from objstore import ObjectStore

    from ..aio.client import Client
    from ..jetstream.context import JetStreamContext


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("nats").addoption(
        "--nats-url", default=None, metavar="URL", help="run tests against this server, do not start one"
    )


@pytest.fixture(scope="session")
def nats_server(request: pytest.FixtureRequest) -> Iterator[LocalServer]:
    """A private nats-server with JetStream, for the whole test run."""
    if request.config.getoption("--nats-url"):
        pytest.skip("needs a server of its own, but --nats-url was given")
    with LocalServer() as server:
        yield server


@pytest.fixture(scope="session")
def nats_url(request: pytest.FixtureRequest) -> str:
    """Address of the server: ``--nats-url``, or else ``nats_server``."""
    given = request.config.getoption("--nats-url")
    if given:
        return str(given)
    server: LocalServer = request.getfixturevalue("nats_server")
    return server.url


@pytest_asyncio.fixture
async def nc(nats_url: str) -> AsyncIterator[Client]:
    """A connection to the server."""
    from ..aio.connect import connect

    async with connect(nats_url) as client:
        yield client


@pytest_asyncio.fixture
async def js(nc: Client) -> JetStreamContext:
    """JetStream on ``nc``."""
    return nc.jetstream()


@pytest_asyncio.fixture
async def bucket(js: JetStreamContext) -> AsyncIterator[ObjectStore]:
    """A new bucket in memory, deleted afterwards."""
    name = f"test-{secret_name()}"
    yield await js.create_object_store(bucket=name, storage="memory")
    try:
        await js.delete_object_store(name)
    except (LookupError, NatsError):
        pass  # the test deleted it, or closed the connection
