"""The matrix: which servers and peers a test runs with, and what a run says about each cell.

By default the two ends of the supported range and nats-py; ``--interop-all`` runs every server and peer.
``--interop-report=FILE`` writes what passed, for ``matrix.py``. A module with ``EVERY_SERVER = True`` runs on
every server of the run, others only on the two ends.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

import natsproto
from interop import gaps, servers
from interop.pair import Pair, opened
from interop.peers import nats_js, natsrpy
from interop.peers.base import Peer
from interop.peers.lines import LinesPeer, NotInstalledError, Process
from natsproto.server import LocalServer
from support.leaks import no_task_left
from support.servers import old_is_missing
from support.skips import missing

nothing_left = pytest.fixture(autouse=True)(no_task_left)
Record = Callable[[str, object], None]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    everything = metafunc.config.getoption("interop_all")
    wide = getattr(metafunc.module, "EVERY_SERVER", False)
    columns = list(servers.SERVERS if everything and wide else servers.ENDS)
    if "pair" in metafunc.fixturenames:
        operation = metafunc.function.__name__.removeprefix("test_")
        cells = [
            pytest.param(column, peer, direction, id=f"{column}-{peer}-{direction}")
            for column in columns
            for peer in (gaps.PEERS if everything else gaps.PEERS[:1])
            for direction in gaps.DIRECTIONS
            if gaps.gap(peer, operation, direction, column) is None
        ]
        metafunc.parametrize(["server", "peer", "direction"], cells, indirect=["server", "peer"])
    elif "server" in metafunc.fixturenames:
        metafunc.parametrize("server", columns, indirect=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Operations that no peer of the run has are not skipped: there is nothing to run."""
    nothing = [
        item for item in items if "NOTSET" in item.name and "pair" in getattr(item, "fixturenames", ())
    ]
    items[:] = [item for item in items if item not in nothing]
    config.hook.pytest_deselected(items=nothing)


class Pool:
    """The servers of the run, started when first asked for."""

    def __init__(self, stack: ExitStack, running: dict[str, LocalServer]) -> None:
        self._stack = stack
        self._running = running

    def get(self, column: str) -> LocalServer:
        if column not in self._running:
            version, config = servers.SERVERS[column]
            try:
                binary = servers.binary(version)
            except servers.NotAvailableError as exc:
                if version == servers.DEBIAN:
                    old_is_missing()
                missing(str(exc))
            self._running[column] = self._stack.enter_context(LocalServer(binary=binary, config=config))
        return self._running[column]


@pytest.fixture(scope="session")
def pool() -> Iterator[Pool]:
    with ExitStack() as stack:
        yield Pool(stack, {})


@pytest.fixture
def column(request: pytest.FixtureRequest) -> str:
    """Which column of the matrix the test belongs to."""
    found: str = request.node.callspec.params["server"]
    return found


@pytest.fixture
def server(request: pytest.FixtureRequest, pool: Pool) -> LocalServer:
    """One of the servers of the matrix."""
    return pool.get(request.param)


@pytest.fixture(scope="session")
def processes() -> Iterator[dict[str, Process]]:
    """Peers that have a process of their own, started when first asked for."""
    running: dict[str, Process] = {}
    yield running
    for process in running.values():
        process.close()


@pytest.fixture
async def peer(request: pytest.FixtureRequest, server: LocalServer, processes: dict[str, Process]) -> Peer:
    """One of the other clients, connected."""
    name: str = request.param
    if name == "nats-py":
        if importlib.util.find_spec("nats") is None:
            missing(name)
        from interop.peers.nats_py import NatsPy

        return await NatsPy.connect(server.url)
    if name not in processes:
        try:
            processes[name] = {"natsrpy": natsrpy.start, "nats.js": nats_js.start}[name]()
        except NotInstalledError as exc:
            missing(str(exc))
    return await LinesPeer.connect(name, processes[name], server.url)


@pytest.fixture
async def pair(
    request: pytest.FixtureRequest,
    nc: natsproto.Client,
    server: LocalServer,
    column: str,
    peer: Peer,
    direction: str,
    bucket_name: str,
    record_property: Record,
) -> AsyncIterator[Pair]:
    """This library and the peer on one fresh bucket; what the test shows is a cell of the matrix."""
    connections = await asyncio.to_thread(server.connz)
    (said,) = [one for one in connections["connections"] if one["cid"] != nc.client_id]
    cell = {
        "table": peer.name,
        "row": request.function.__name__.removeprefix("test_"),
        "direction": direction,
        "column": column,
        "server": nc.server_info["version"],
        "ours": natsproto.__version__,
        "theirs": peer.version,
        "connect": f"{said['lang']} {said['version']}",
    }
    record_property("interop", cell)
    async with opened(nc, peer, direction, bucket_name, gaps.reads(peer.name, column)) as pair:
        yield pair


@pytest.fixture(autouse=True)
def fixture_cell(request: pytest.FixtureRequest, record_property: Record) -> None:
    """A test of the raw meta messages is a cell of the matrix, too."""
    module = request.module.__name__.rpartition(".")[2]
    if not module.endswith("_metas"):
        return
    params = {key: value for key, value in request.node.callspec.params.items() if key != "server"}
    case = ", ".join(str(value) for value in params.values())
    record_property(
        "interop",
        {
            "table": module,
            "row": request.function.__name__.removeprefix("test_") + (f": {case}" if case else ""),
            "direction": "",
            "column": request.node.callspec.params["server"],
            "server": request.getfixturevalue("nc").server_info["version"],
            "ours": natsproto.__version__,
        },
    )


class Report:
    """Collects the cells of a run: one passes when none of the phases of its test failed."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.cells: dict[str, dict[str, Any]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for key, value in report.user_properties:
            if key == "interop":
                cell = self.cells.setdefault(report.nodeid, {"test": report.nodeid, "passed": True, **value})
                cell["passed"] = cell["passed"] and report.passed

    def pytest_sessionfinish(self) -> None:
        os.makedirs(os.path.dirname(self.path) or ".", exist_ok=True)
        with open(self.path, "w", encoding="utf-8") as file:
            json.dump(list(self.cells.values()), file, indent=1)


def pytest_configure(config: pytest.Config) -> None:
    path = config.getoption("interop_report")
    if path:
        config.pluginmanager.register(Report(path), "interop-report")
