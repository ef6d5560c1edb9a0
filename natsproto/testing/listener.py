"""A listening socket that can be closed and reopened on the same port, without awaiting."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Coroutine
from functools import partial

from ..server.process import Ports


class Listener:
    """Accept connections and run a task for each; all tasks end with :meth:`close`.

    The port stays reserved while it does not listen, see :class:`~natsproto.server.process.Ports`.
    """

    def __init__(
        self,
        host: str,
        port: int,
        handler: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[object, None, None]],
    ) -> None:
        self._host = host
        self._handler = handler
        self._ports = Ports([(host, port)])
        self.port: int = self._ports.numbers[0]
        self._sock: socket.socket | None = None
        self._unserved: set[socket.socket] = set()  # accepted, without a transport yet
        self.tasks: set[asyncio.Task[None]] = set()

    def open(self) -> None:
        """Start listening, unless it does already."""
        if self._sock is None:
            family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
            self._sock = sock = socket.create_server((self._host, self.port), family=family, backlog=100)
            sock.setblocking(False)
            # Not a task: one that is cancelled just after it has accepted a connection would lose it.
            asyncio.get_running_loop().add_reader(sock, self._accept, sock)

    def shut(self) -> None:
        """Stop listening at once: new connections are refused, existing ones stay."""
        sock, self._sock = self._sock, None
        if sock is not None:
            asyncio.get_running_loop().remove_reader(sock)
            sock.close()

    async def close(self) -> None:
        """Stop listening, cancel all handlers and wait for them."""
        self.shut()
        waited = set(self.tasks)
        for task in waited:
            task.cancel()
        if waited:
            await asyncio.wait(waited)
        self._ports.release()

    def _accept(self, listening: socket.socket) -> None:
        try:
            sock, _ = listening.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return  # the connection is gone already
        sock.setblocking(False)
        self._unserved.add(sock)
        task = asyncio.create_task(self._serve(sock), name="natsproto-testing-connection")
        self.tasks.add(task)
        # Not in the task, which may be cancelled before its first step.
        task.add_done_callback(partial(self._ended, sock))

    def _ended(self, sock: socket.socket, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if sock in self._unserved:
            self._unserved.discard(sock)
            sock.close()

    async def _serve(self, sock: socket.socket) -> None:
        reader = asyncio.StreamReader(limit=1 << 20)
        # The callback marks the streams as the server's side, which start_tls needs to know.
        writers: list[asyncio.StreamWriter] = []
        protocol = asyncio.StreamReaderProtocol(reader, lambda _, writer: writers.append(writer))
        try:
            await asyncio.get_running_loop().connect_accepted_socket(lambda: protocol, sock)
        except OSError:
            return
        self._unserved.discard(sock)
        try:
            await self._handler(reader, writers[0])
        finally:
            abort(writers[0])


def abort(writer: asyncio.StreamWriter) -> None:
    """Close a connection at once; unsent bytes are lost. Does nothing to a closed one."""
    try:
        writer.transport.abort()
    except AttributeError:  # a closed TLS transport, Python 3.11
        pass


def reset(writer: asyncio.StreamWriter) -> None:
    """Close a connection at once with RST; unsent bytes are lost."""
    sock = writer.get_extra_info("socket")
    if sock is not None and not writer.transport.is_closing():
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        except OSError:
            pass
    abort(writer)
