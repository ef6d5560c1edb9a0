"""A cluster whose servers reach each other through relays, so that it can be partitioned without a reset.

Nothing of the operating system is needed: what a partition holds back arrives when it heals, as with TCP over
a network that comes back. Each server tells the others the address of its relay, never its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any

from natsproto.server import LocalCluster

_SIZE = 256 * 1024


class _Link:
    """One connection from one server to another."""

    def __init__(self, routes: Routes, target: int) -> None:
        self.routes = routes
        self.target = target
        self.source: int | None = None
        self.gates = {True: asyncio.Event(), False: asyncio.Event()}

    def update(self) -> None:
        """Open or close each way; ``True`` is the way to the server that accepted."""
        for way, gate in self.gates.items():
            ends = (self.source, self.target) if way else (self.target, self.source)
            if self.routes.lets(*ends):
                gate.set()
            else:
                gate.clear()

    async def pump(self, way: bool, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(_SIZE):
                if way and self.source is None:
                    self.source = self.routes.who(data)
                    self.update()
                await self.gates[way].wait()
                writer.write(data)
                await writer.drain()
            await self.gates[way].wait()
            writer.write_eof()
        except (OSError, RuntimeError):
            writer.transport.abort()


class Routes:
    """The relays in front of every server of a cluster, numbered from 0."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.cuts: set[tuple[int, int]] = set()
        self.names = [b'"soak-%d"' % (number + 1) for number in range(size)]
        self.sockets = [_listening() for _ in range(size)]
        self.ports = [sock.getsockname()[1] for sock in self.sockets]
        self.targets = [0] * size
        self._links: set[_Link] = set()
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[Any]] = set()

    def who(self, data: bytes) -> int | None:
        """The server that a first block comes from: it names itself first, and perhaps others behind that."""
        found = [(at, number) for number, name in enumerate(self.names) if (at := data.find(name)) >= 0]
        return min(found)[1] if found else None

    def lets(self, source: int | None, target: int | None) -> bool:
        """Whether bytes pass; of somebody who has not said its name only where everybody does."""
        if source is None or target is None:
            known = target if source is None else source
            return not any(known in pair for pair in self.cuts)
        return (source, target) not in self.cuts

    def cut(self, pairs: set[tuple[int, int]]) -> None:
        """Let nothing pass from the first to the second of each pair; the empty set heals everything."""
        self.cuts = pairs
        for link in self._links:
            link.update()

    async def start(self) -> None:
        for number, sock in enumerate(self.sockets):
            self._servers.append(await asyncio.start_server(self._handler(number), sock=sock))

    async def stop(self) -> None:
        for server in self._servers:
            server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _handler(self, target: int) -> Any:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._tasks.add(task)
            link = _Link(self, target)
            self._links.add(link)
            link.update()
            onward: asyncio.StreamWriter | None = None
            try:
                answers, onward = await asyncio.open_connection("127.0.0.1", self.targets[target])
                pumps = [
                    asyncio.create_task(link.pump(True, reader, onward)),
                    asyncio.create_task(link.pump(False, answers, writer)),
                ]
                self._tasks.update(pumps)
                await asyncio.wait(pumps)
                self._tasks.difference_update(pumps)
            except (OSError, asyncio.CancelledError):
                pass
            finally:
                self._links.discard(link)
                self._tasks.discard(task)
                for end in (writer, onward):
                    if end is not None:
                        end.transport.abort()

        return handle


def _listening() -> socket.socket:
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen(64)
    return sock


class PartitionableCluster(LocalCluster):
    """Three servers, called ``soak-1`` and so on, with relays between them."""

    def __init__(self, routes: Routes, **options: Any) -> None:
        super().__init__(routes.size, name="soak", **options)
        self.routes = routes
        for node in self._nodes:
            node._config_text = self._wrapped(node)  # type: ignore[method-assign]

    def _wrapped(self, node: Any) -> Any:
        plain = node._config_text

        def text() -> str:
            config: str = plain()
            for number, peer in enumerate(self._nodes):
                self.routes.targets[number] = peer.route_port
                if peer is not node:
                    direct = f"@127.0.0.1:{peer.route_port}"
                    config = config.replace(direct, f"@127.0.0.1:{self.routes.ports[number]}")
                else:
                    listen = f'  listen: "127.0.0.1:{peer.route_port}"'
                    own = f'  advertise: "127.0.0.1:{self.routes.ports[number]}"'
                    config = config.replace(listen, f"{listen}\n{own}")
            return config

        return text


@contextlib.asynccontextmanager
async def cluster(**options: Any) -> Any:
    """Start such a cluster, stop it at the end."""
    routes = Routes(3)
    await routes.start()
    try:
        async with PartitionableCluster(routes, **options) as servers:
            yield servers
    finally:
        await routes.stop()
