"""A cluster one member of which is always behind: whatever comes to it, or from it, comes late."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import natsproto
from natsproto.jetstream.context import JetStreamContext
from natsproto.server import LocalCluster, LocalServer
from natsproto.server.cluster import _Node


class Relay:
    """Passes bytes on after a delay, in both directions."""

    def __init__(self, node: _Node) -> None:
        self.node = node
        self.delay = 0.0
        self.route_port = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.route_port = self._server.sockets[0].getsockname()[1]

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.node.route_port)
        except OSError:
            writer.close()
            return
        self._writers.add(far_writer)
        for source, sink in ((reader, far_writer), (far_reader, writer)):
            task = asyncio.create_task(self._pass(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        try:
            while data := await reader.read(1 << 16):
                loop.call_later(self.delay, writer.write, data)
        except OSError:
            pass
        loop.call_later(self.delay, writer.close)

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.close()
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        # What was delayed is due before the loop ends.
        await asyncio.sleep(min(0.5, self.delay))


class LaggingCluster:
    """Three servers; the last one is reached by relays only.

    Attributes:
        cluster: the servers.
        behind: the one that is behind.
    """

    def __init__(self, **options: Any) -> None:
        self.cluster = LocalCluster(3, **options)
        nodes = self.cluster._nodes
        self.behind: LocalServer = nodes[2]
        self._relays = [Relay(node) for node in nodes]
        first, second, last = nodes
        a, b, c = self._relays
        for node, peers, relay in (
            (first, [second, c], a),
            (second, [first, c], b),
            (last, [a, b], c),
        ):
            node.peers = peers  # type: ignore[assignment]
            node._config_text = _advertising(node, relay)  # type: ignore[method-assign]

    def lag(self, seconds: float) -> None:
        """From now on everything takes so much longer, each way."""
        for relay in self._relays:
            relay.delay = seconds

    async def __aenter__(self) -> LaggingCluster:
        for relay in self._relays:
            await relay.start()
        try:
            await self.cluster.__aenter__()
        except BaseException:
            await self._stop_relays()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.lag(0.0)
        await self.cluster.__aexit__(*exc_info)
        await self._stop_relays()

    async def _stop_relays(self) -> None:
        for relay in self._relays:
            await relay.stop()

    @asynccontextmanager
    async def clients(self) -> AsyncIterator[list[natsproto.Client]]:
        """A client at each server, the last one at the one that is behind."""
        clients = [
            await natsproto.connect(server.url, ignore_discovered=True) for server in self.cluster.servers
        ]
        try:
            yield clients
        finally:
            for client in clients:
                await client.close()

    async def lead_elsewhere(self, js: JetStreamContext, stream: str) -> None:
        """Have the stream led by a server that is not behind."""
        async with asyncio.timeout(20):
            while True:
                leader = (await js.stream_info(stream)).raw["cluster"].get("leader")
                if leader not in (None, self.behind.name):
                    return
                try:
                    await js.request(f"STREAM.LEADER.STEPDOWN.{stream}")
                except natsproto.NatsError:
                    pass
                await asyncio.sleep(0.1)


def _advertising(node: _Node, relay: Relay) -> Any:
    plain = node._config_text

    def text() -> str:
        listen = f'  listen: "127.0.0.1:{node.route_port}"\n'
        config = plain()
        assert listen in config
        return config.replace(listen, f'{listen}  advertise: "127.0.0.1:{relay.route_port}"\n')

    return text
