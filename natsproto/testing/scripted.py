"""A fake server that runs a script: for what real servers do rarely, late, or never."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Self, TypeVar, overload

from .. import wire
from .._values import seconds
from ..errors import NatsError
from ..subjects import subject_matches
from ..wire import Connect, Event, Parser, Ping, Pub, Sub, Unsub
from .listener import Listener, abort, reset

if TYPE_CHECKING:
    from ..transport import Buffer

E = TypeVar("E", bound=Event)
Script = Callable[["ScriptedConnection"], Awaitable[None]]
Wanted = type[object] | bytes | str | Event | Callable[[Event], bool]


class ScriptError(NatsError, AssertionError):
    """The client did not do what the script expects."""


class PeerGoneError(NatsError, ConnectionError):
    """The client closed the connection while the script waited for an event."""


class ScriptedConnection:
    """A script's view of one client.

    Only the script drives the connection: between its calls nothing is read or answered, so a client that
    writes much is stalled. Every wait ends after the server's ``timeout``.

    Attributes:
        number: 0 for the server's first connection, 1 for the next …
        received: all events so far.
        connect: the fields of the client's CONNECT, ``{}`` before it came.
        auto_pong: whether :meth:`expect` answers a PING that it skips; initially true.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        number: int = 0,
        port: int = 0,
        timeout: float = 5.0,
    ) -> None:
        self.number = number
        self.received: list[Event] = []
        self.connect: dict[str, object] = {}
        self.auto_pong = True
        self._reader = reader
        self._writer = writer
        self._port = port
        self._timeout = timeout
        self._parser = Parser("server")
        self._unread: list[Event] = []
        self._subscriptions: dict[bytes, bytes] = {}  # sid: subject pattern
        self._failure: NatsError | None = None  # raised after the unread events

    # --- sending --------------------------------------------------------------------------------------

    async def send(self, *data: bytes | Iterable[Buffer], chunk: int | None = None) -> None:
        """Send any bytes, even what no server would send.

        Args:
            data: buffers, or the results of the functions of :mod:`natsproto.wire`.
            chunk: send in pieces of this many bytes; the client mostly receives them one by one.

        Raises:
            TimeoutError: the client does not read.
            ConnectionError: it is gone.
        """
        out = bytearray()
        for part in data:
            pieces: Iterable[Buffer] = (part,) if isinstance(part, (bytes, bytearray, memoryview)) else part
            for piece in pieces:
                out += piece
        step = chunk or max(1, len(out))
        async with asyncio.timeout(self._timeout):
            for start in range(0, len(out), step):
                self._writer.write(bytes(out[start : start + step]))
                await self._writer.drain()
                if chunk:
                    await asyncio.sleep(0)  # let the client, if it lives in this loop, read the piece

    async def info(self, **fields: object) -> None:
        """Send INFO. ``fields`` add to a plain server's fields or replace them; ``None`` removes one."""
        data = {
            "server_id": "NSCRIPTED",
            "server_name": "scripted",
            "version": "2.15.1",
            "proto": 1,
            "host": "127.0.0.1",
            "port": self._port,
            "headers": True,
            "jetstream": True,
            "max_payload": 1024 * 1024,
            "client_id": self.number + 1,
            **fields,
        }
        await self.send(wire.info({name: value for name, value in data.items() if value is not None}))

    async def handshake(self, **info: object) -> dict[str, object]:
        """Do the server's part of the handshake: INFO, CONNECT, PING, PONG. Return CONNECT's fields."""
        await self.info(**info)
        await self.expect(Connect)
        await self.expect(Ping)
        await self.send(wire.pong())
        return self.connect

    async def msg(
        self,
        subject: str,
        payload: bytes = b"",
        *,
        sid: int | bytes | None = None,
        reply: str | None = None,
        header: bytes | None = None,
    ) -> None:
        """Deliver a message.

        Args:
            subject, payload, reply: of the message.
            sid: the subscription's id; default: that of the last subscription so far whose pattern matches.
            header: an encoded header block.

        Raises:
            ScriptError: no ``sid`` is given and no subscription matches.
        """
        if sid is None:
            known = self._subscriptions.items()
            sids = [sid for sid, pattern in known if subject_matches(pattern.decode(), subject)]
            if not sids:
                raise ScriptError(f"no subscription seen so far matches {subject!r}")
            sid = sids[-1]
        await self.send(wire.msg(subject, sid, payload, reply=reply, header=header))

    async def ping(self) -> None:
        """Send PING."""
        await self.send(wire.ping())

    async def pong(self) -> None:
        """Send PONG."""
        await self.send(wire.pong())

    async def err(self, text: str) -> None:
        """Send ``-ERR 'text'``."""
        await self.send(wire.err(text))

    async def start_tls(self, context: ssl.SSLContext) -> None:
        """Do the server's part of a TLS handshake, right after :meth:`info`, with nothing in between.

        Raises:
            OSError: the handshake failed (ssl.SSLError is an OSError).
            TimeoutError: the client does not take part.
        """
        async with asyncio.timeout(self._timeout):
            await self._writer.start_tls(context)

    # --- receiving ------------------------------------------------------------------------------------

    @overload
    async def expect(self, wanted: type[E], *, strict: bool = ..., timeout: float | None = ...) -> E: ...

    @overload
    async def expect(
        self, wanted: str | bytes, *, strict: bool = ..., timeout: float | None = ...
    ) -> Pub | Sub: ...

    @overload
    async def expect(
        self, wanted: Wanted = ..., *, strict: bool = ..., timeout: float | None = ...
    ) -> Event: ...

    async def expect(
        self, wanted: Wanted = object, *, strict: bool = False, timeout: float | None = None
    ) -> object:
        """Wait for the next event that matches ``wanted``, and return it.

        Args:
            wanted: an event class of :mod:`natsproto.wire`; an event to compare with; ``str`` or ``bytes``: a
                PUB to, or a SUB on, a subject matching this pattern; or a function from event to ``bool``.
                Default: any event.
            strict: the very next event must match. Otherwise other events are skipped (they are in
                ``received``), and PINGs among them are answered if ``auto_pong`` is on.
            timeout: in seconds; default: the server's.

        Raises:
            ScriptError: no such event came in time, or another one came (``strict``).
            PeerGoneError: the client closed the connection first.
            RemoteProtocolError: the client broke the protocol.
        """
        passed: list[Event] = []
        limit = self._timeout if timeout is None else timeout
        try:
            async with asyncio.timeout(limit):
                while True:
                    event = await self._next(wanted)
                    if _matches(event, wanted):
                        return event
                    if strict:
                        raise ScriptError(f"expected {_name(wanted)}, got {event!r}")
                    passed.append(event)
                    if self.auto_pong and isinstance(event, Ping):
                        await self.pong()
        except TimeoutError:
            raise ScriptError(f"expected {_name(wanted)} within {seconds(limit)} s, got {passed!r}") from None

    async def expect_eof(self, *, timeout: float | None = None) -> None:
        """Wait until the client closes the connection; events before that are skipped.

        Raises:
            ScriptError: it did not close it in time.
        """
        try:
            await self.expect(lambda event: False, timeout=timeout)
        except PeerGoneError:
            return

    async def serve(self) -> None:
        """Answer PINGs until the client closes the connection, however long that takes."""
        try:
            while True:
                event = await self._next(Ping)
                if isinstance(event, Ping):
                    await self.pong()
        except ConnectionError:
            return

    async def _next(self, wanted: Wanted) -> Event:
        while not self._unread:
            if self._failure is not None:
                raise self._failure
            try:
                data = await self._reader.read(65536)
            except ConnectionError:
                data = b""
            if not data:
                self._failure = PeerGoneError(f"the client closed the connection before {_name(wanted)}")
                continue
            try:
                self._unread = self._parser.feed(data)
            except NatsError as exc:
                self._unread = getattr(exc, "events", [])
                self._failure = exc
        event = self._unread.pop(0)
        self.received.append(event)
        if isinstance(event, Connect):
            self.connect = event.data
        elif isinstance(event, Sub):
            self._subscriptions[event.sid] = event.subject
        elif isinstance(event, Unsub) and event.max_msgs is None:
            self._subscriptions.pop(event.sid, None)
        return event

    # --- ending ---------------------------------------------------------------------------------------

    async def close(self) -> None:
        """Close the connection: the client receives all that was sent, then EOF."""
        self._writer.close()
        try:
            async with asyncio.timeout(self._timeout):
                await self._writer.wait_closed()
        except OSError:  # TimeoutError is one: the client does not read
            abort(self._writer)

    def abort(self) -> None:
        """Close the connection with RST."""
        reset(self._writer)

    def half_close(self) -> None:
        """Send EOF and continue receiving."""
        self._writer.write_eof()


class ScriptedServer:
    """A server on a free port of 127.0.0.1 that runs a script for each connection.

    ::

        async def script(conn):
            await conn.handshake(max_payload=100)
            request = await conn.expect("service.>")
            await conn.msg(request.reply.decode(), b"pong")
            await conn.serve()

        async with ScriptedServer(script) as server:
            async with natsproto.connect(server.url) as nc:
                ...
            await server.finished()

    A connection is closed when its script returns. A failing script (:class:`ScriptError`, or a bug in it)
    makes the ``async with`` block raise; a client that leaves early ends its script without an error. Scripts
    that still run at the end of the block are cancelled.

    Args:
        scripts: one per connection, in order; the last one serves all further connections, too. Default:
            handshake and :meth:`ScriptedConnection.serve`.
        host: address to listen on.
        port: default: a free one.
        timeout: seconds that any wait may take.

    Attributes:
        connections: all so far, including closed ones.
        errors: the exceptions of scripts.
    """

    def __init__(
        self, *scripts: Script, host: str = "127.0.0.1", port: int = 0, timeout: float = 5.0
    ) -> None:
        self.connections: list[ScriptedConnection] = []
        self.errors: list[BaseException] = []
        self._scripts: tuple[Script, ...] = scripts or (_plain,)
        self._host = host
        self._wanted_port = port
        self._timeout = timeout
        self._listener: Listener | None = None
        self._ended: list[BaseException | None] = []
        self._changed = asyncio.Event()

    @property
    def port(self) -> int:
        """The port it listens on; known inside the ``async with`` block."""
        if self._listener is None:
            raise ScriptError("the server runs only inside its 'async with' block")
        return self._listener.port

    @property
    def url(self) -> str:
        """Address for clients."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"nats://{host}:{self.port}"

    def refuse(self, on: bool = True) -> None:
        """Refuse new connections from now on, or accept them again."""
        if self._listener is None:
            raise ScriptError("the server runs only inside its 'async with' block")
        if on:
            self._listener.shut()
        else:
            self._listener.open()

    async def connection(self, number: int = 0, *, timeout: float | None = None) -> ScriptedConnection:
        """Wait for a connection (0 is the first), and return it.

        Raises:
            ScriptError: it was not opened in time.
        """
        await self._until(lambda: len(self.connections) > number, f"connection {number}", timeout)
        return self.connections[number]

    async def finished(self, count: int = 1, *, timeout: float | None = None) -> None:
        """Wait until ``count`` scripts have ended; raise the first exception of one.

        Raises:
            ScriptError: they did not end in time, or one of them failed.
            PeerGoneError: a client left before its script was done.
        """
        await self._until(lambda: len(self._ended) >= count, f"end of {count} script(s)", timeout)
        for error in self._ended:
            if error is not None:
                self.errors = [other for other in self.errors if other is not error]
                raise error

    async def _until(self, reached: Callable[[], bool], what: str, timeout: float | None) -> None:
        limit = self._timeout if timeout is None else timeout
        try:
            async with asyncio.timeout(limit):
                while not reached():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise ScriptError(f"no {what} within {seconds(limit)} s") from None

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = len(self.connections)
        conn = ScriptedConnection(reader, writer, number=number, port=self.port, timeout=self._timeout)
        self.connections.append(conn)
        self._changed.set()
        error: BaseException | None = None
        try:
            await self._scripts[min(number, len(self._scripts) - 1)](conn)
            await conn.close()
        except ConnectionError as exc:  # the client left, which is no failure of the script
            error = exc
        except Exception as exc:
            error = exc
            self.errors.append(exc)
        finally:
            self._ended.append(error)
            self._changed.set()

    async def __aenter__(self) -> Self:
        self._listener = Listener(self._host, self._wanted_port, self._handle)
        self._listener.open()
        return self

    async def __aexit__(self, kind: object, exc: BaseException | None, traceback: object) -> None:
        assert self._listener is not None
        await self._listener.close()
        if not self.errors:
            return
        if exc is None:
            raise self.errors[0]
        for error in self.errors:
            exc.add_note(f"a script of the ScriptedServer failed, too: {error!r}")


async def _plain(conn: ScriptedConnection) -> None:
    await conn.handshake()
    await conn.serve()


def _matches(event: Event, wanted: Wanted) -> bool:
    if isinstance(wanted, type):
        return isinstance(event, wanted)
    if isinstance(wanted, (str, bytes)):
        if not isinstance(event, (Pub, Sub)):
            return False
        pattern = wanted if isinstance(wanted, str) else wanted.decode()
        subject = event.subject.decode(errors="surrogateescape")
        return subject == pattern or subject_matches(pattern, subject)
    if isinstance(wanted, Event):
        return event == wanted
    return bool(wanted(event))


def _name(wanted: Wanted) -> str:
    if isinstance(wanted, type):
        return "an event" if wanted is object else wanted.__name__
    return repr(wanted)
