"""A proxy between a client and a real server that simulates the faults of networks."""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Final, Literal, Self
from urllib.parse import urlsplit

from .. import _values
from ..errors import ConfigError, RemoteProtocolError
from ..wire import Event, Limits, Msg, Parser, Pub
from .listener import Listener, abort, reset

Side = Literal["client", "server"]

_READ_SIZE: Final = 64 * 1024  # bytes
_PENDING_LIMIT: Final = 1024 * 1024  # bytes kept per direction before the proxy stops reading
_CONNECT_TIMEOUT: Final = 5.0  # seconds
_SHORTEST_SLEEP: Final = 0.002  # seconds; event loops round to milliseconds
_ACTIONS: Final = frozenset(("drop", "duplicate", "hold", "delay", "corrupt", "cut"))
_LARGE: Final = Limits(control_line=1 << 20, info_line=8 << 20, header_block=8 << 20, message=1 << 30)


class Action:
    """What a hook does to a frame. Use the constants and functions of this module, not the class."""

    __slots__ = ("kind", "number", "seconds")

    def __init__(self, kind: str, *, number: int | None = None, seconds: float = 0.0) -> None:
        self.kind: str = kind
        self.number: int | None = number
        self.seconds: float = seconds

    def __repr__(self) -> str:
        return f"<Action {self.kind}>"


DROP: Final = Action("drop")
"""The frame is dropped."""

DUPLICATE: Final = Action("duplicate")
"""The frame arrives twice."""

HOLD: Final = Action("hold")
"""The frame is kept until :meth:`FaultProxy.release`; later frames overtake it."""

CUT: Final = Action("cut", number=0)
"""The connection is reset instead of sending the frame."""


def delay(seconds: float) -> Action:
    """The frame arrives ``seconds`` later; later frames overtake it. To delay all: ``FaultProxy.latency``."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise TypeError(f"delay() takes seconds, not {type(seconds).__name__}")
    if not 0 <= seconds < math.inf:
        raise ValueError(f"delay() takes 0 or more seconds, not {seconds}")
    return Action("delay", seconds=seconds)


def corrupt(offset: int | None = None) -> Action:
    """One bit of the frame is flipped.

    Args:
        offset: which byte of the frame; default: the middle of the payload. A frame without that byte passes
            unchanged.
    """
    if offset is not None:
        _check_number("corrupt() takes the offset of a byte", offset)
    return Action("corrupt", number=offset)


def cut_after(size: int) -> Action:
    """The connection is reset after the first ``size`` bytes of the frame."""
    _check_number("cut_after() takes a number of bytes", size)
    if size < 0:
        raise ValueError(f"cut_after() takes 0 or more bytes, not {size}")
    return Action("cut", number=size)


def _check_number(what: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{what}, not {type(value).__name__}; the proxy passes the frame itself")


HookResult = bytes | Sequence[bytes] | Action | None
Hook = Callable[[Event, bytes], HookResult | Awaitable[HookResult]]
"""Called with an event and its raw frame. It returns ``None`` to let the frame pass unchanged, bytes or a
list of bytes to send instead (empty for nothing), or an :class:`Action`. It may be a coroutine function; then
later frames of the same direction and connection wait for it.

If it raises, or returns anything else, the frame passes unchanged; :attr:`FaultProxy.errors` has the error,
and the end of the ``async with`` block raises it."""


def _frames_of(result: object, raw: bytes) -> list[bytes] | Action:
    """Return the frames, or the action, of a hook's result.

    Raises:
        TypeError, ValueError: it is not a valid result.
    """
    if result is None:
        return [raw]
    if isinstance(result, Action):
        if result.kind not in _ACTIONS:
            raise ValueError(f"a hook returned {result!r}: use the actions of this module")
        return result
    parts = [result] if isinstance(result, bytes | bytearray | memoryview) else result
    what = type(result).__name__
    if isinstance(parts, Sequence) and not isinstance(parts, str):
        if all(isinstance(part, bytes | bytearray | memoryview) for part in parts):
            return [memoryview(part).tobytes() for part in parts]
        what += " with other values"
    raise TypeError(f"a hook returns None, bytes, a list of bytes or an action, not {what}: {result!r:.100}")


class _Frames:
    """Cut a stream into frames without changing a byte."""

    def __init__(self, role: Side) -> None:
        self._parser = Parser(role, limits=_LARGE)
        self.rest = bytearray()  # the unfinished frame
        self.broken = False

    def feed(self, data: bytes) -> list[tuple[Event, bytes]]:
        self.rest += data
        try:
            events = self._parser.feed(data)
        except RemoteProtocolError as exc:
            self.broken = True
            events = exc.events
        frames = []
        pos = 0
        for event in events:
            end = self.rest.index(b"\n", pos) + 1  # every event is one line …
            if isinstance(event, (Msg, Pub)):  # … and the bytes that the line announces
                end += len(event.header or b"") + len(event.payload) + 2
            frames.append((event, bytes(self.rest[pos:end])))
            pos = end
        del self.rest[:pos]
        return frames


class _Traffic:
    """What all connections of a proxy share.

    Attributes:
        gates: one per side; a closed gate lets nothing through to that side.
        held: frames that hooks held back.
        changed: set when a connection opens or closes, or bytes arrive.
    """

    def __init__(self) -> None:
        self.gates: dict[str, asyncio.Event] = {"client": asyncio.Event(), "server": asyncio.Event()}
        self.held: list[tuple[_Direction, bytes]] = []
        self.changed: asyncio.Event = asyncio.Event()


class _Direction:
    """One direction of one connection: one task reads and applies hooks, another one writes."""

    def __init__(
        self,
        link: ProxyConnection,
        traffic: _Traffic,
        to: Side,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._link = link
        self._proxy = link.proxy
        self._traffic = traffic
        self._to: Side = to
        self._reader = reader
        self._writer = writer
        self._frames = _Frames("server" if to == "server" else "client")
        self._early = 0  # bytes of the unfinished frame that were sent before a hook was set
        self._queue: asyncio.Queue[tuple[float, bytes | Action | None]] = asyncio.Queue()
        self._pending = 0
        self._free_at = 0.0  # time at which all bytes so far are sent, at the proxy's rate
        self._room = asyncio.Event()
        self._room.set()

    def put(self, item: bytes | Action | None) -> None:
        """Send bytes after those under way; ``None`` sends EOF, ``CUT`` resets."""
        if isinstance(item, bytes):
            self._pending += len(item)
            if self._pending > _PENDING_LIMIT:
                self._room.clear()
        self._queue.put_nowait((asyncio.get_running_loop().time() + self._proxy.latency, item))

    async def read(self) -> None:
        frames = self._frames
        while True:
            await self._room.wait()
            try:
                data = await self._reader.read(_READ_SIZE)
            except ConnectionError:
                self.put(CUT)
                return
            if not data:
                self.put(bytes(frames.rest[self._early :]))
                self.put(None)
                return
            if frames.broken:
                self.put(data)
            elif self._hook is None:
                self.put(bytes(frames.rest[self._early :]) + data)
                frames.feed(data)
                self._early = len(frames.rest)
            else:
                for event, raw in frames.feed(data):
                    await self._pass(event, raw)
                if frames.broken:  # not (or no longer) NATS, TLS for example
                    self.put(bytes(frames.rest[self._early :]))
            if frames.broken:
                frames.rest.clear()
                self._early = 0
            self._traffic.changed.set()

    @property
    def _hook(self) -> Hook | None:
        return self._proxy.to_server if self._to == "server" else self._proxy.to_client

    async def _pass(self, event: Event, raw: bytes) -> None:
        early, self._early = self._early, 0
        hook = self._hook
        if early or hook is None:
            self.put(raw[early:])
            return
        frames: list[bytes] | Action = [raw]
        try:
            result: object = hook(event, raw)
            if inspect.isawaitable(result):
                result = await result
            frames = _frames_of(result, raw)
        except (KeyboardInterrupt, SystemExit):
            raise
        except asyncio.CancelledError as exc:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            error = RuntimeError("a hook raised CancelledError")
            error.__cause__ = exc
            self._proxy.errors.append(error)
        except BaseException as exc:  # pytest.fail() raises one, which must not end the direction
            self._proxy.errors.append(exc)
        if isinstance(frames, Action):
            self._act(frames, event, raw)
        else:
            for frame in frames:
                self.put(frame)

    def _act(self, action: Action, event: Event, raw: bytes) -> None:
        if action.kind == "duplicate":
            self.put(raw)
            self.put(raw)
        elif action.kind == "corrupt":
            self.put(_flip(event, raw, action.number))
        elif action.kind == "hold":
            self._traffic.held.append((self, raw))
        elif action.kind == "delay":
            self._link.spawn(self._late(action.seconds, raw))
        elif action.kind == "cut":
            if action.number:
                self.put(raw[: action.number])
            self.put(CUT)

    async def _late(self, seconds: float, raw: bytes) -> None:
        await asyncio.sleep(seconds)
        self.put(raw)

    async def write(self) -> None:
        """Write until EOF is passed on."""
        gate = self._traffic.gates[self._to]
        try:
            while True:
                due, item = await self._queue.get()
                wait = due - asyncio.get_running_loop().time()
                if wait > 0:
                    await asyncio.sleep(wait)
                await gate.wait()
                if item is None:
                    self._writer.write_eof()
                    return
                if isinstance(item, Action):
                    self._link.reset()
                    return
                await self._write(item, gate)
                self._pending -= len(item)
                if self._pending <= _PENDING_LIMIT:
                    self._room.set()
        except (OSError, RuntimeError):  # uvloop raises RuntimeError for a write to a closed transport
            self._link.reset()

    async def _write(self, data: bytes, gate: asyncio.Event) -> None:
        proxy = self._proxy
        start = 0
        while start < len(data):
            await gate.wait()
            step = len(data)
            if proxy.rate:
                step = max(1, int(proxy.rate / 50))
            if proxy.chunk:
                step = min(step, proxy.chunk)
            piece = data[start : start + step]
            start += step
            self._writer.write(piece)
            await self._writer.drain()
            if self._to == "server":
                proxy.bytes_to_server += len(piece)
            else:
                proxy.bytes_to_client += len(piece)
            if proxy.chunk:
                await asyncio.sleep(0)  # let the receiver, if it lives in this loop, read the piece
            if proxy.rate:
                now = asyncio.get_running_loop().time()
                self._free_at = max(now, self._free_at) + len(piece) / proxy.rate
                if self._free_at - now > _SHORTEST_SLEEP:
                    await asyncio.sleep(self._free_at - now)


class ProxyConnection:
    """One client's connection through a :class:`FaultProxy`.

    Attributes:
        number: 0 for the proxy's first connection, 1 for the next …
        proxy: the proxy.
    """

    def __init__(
        self,
        proxy: FaultProxy,
        traffic: _Traffic,
        number: int,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.proxy = proxy
        self.number = number
        self._traffic = traffic
        self._client = (reader, writer)
        self._writers = {"client": writer}
        self._directions: dict[Side, _Direction] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._main: asyncio.Task[object] | None = None

    def reset(self) -> None:
        """Send RST to both sides."""
        if not self._directions and self._main is not None:
            self._main.cancel()  # it waits for the connection to the server, or for the blackhole to end
        for writer in self._writers.values():
            reset(writer)
        for task in self._tasks:
            if task is not asyncio.current_task():
                task.cancel()

    def fin(self, side: Side | None = None) -> None:
        """Send EOF to one side, or to both, after the bytes under way."""
        for to, direction in self._directions.items():
            if side in (None, to):
                direction.put(None)

    def inject(self, side: Side, data: bytes) -> None:
        """Send your own bytes to one side, after those under way; hooks do not see them."""
        raw = memoryview(data).tobytes()  # raises at once if it is not bytes
        if side in self._directions:
            self._directions[side].put(raw)

    def spawn(self, work: Coroutine[object, None, None]) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.create_task(work, name=f"natsproto-testing-proxy-{self.number}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def run(self, host: str, port: int) -> None:
        """Connect to the server, and pass bytes on until both sides have ended."""
        self._main = asyncio.current_task()
        try:
            for gate in self._traffic.gates.values():
                await gate.wait()
            async with asyncio.timeout(_CONNECT_TIMEOUT):
                server = await asyncio.open_connection(host, port)
        except OSError:  # TimeoutError is one
            self._main = None
            self.reset()
            return
        self._writers["server"] = server[1]
        self._directions = {
            "server": _Direction(self, self._traffic, "server", self._client[0], server[1]),
            "client": _Direction(self, self._traffic, "client", server[0], self._client[1]),
        }
        try:
            writing = [self.spawn(direction.write()) for direction in self._directions.values()]
            for direction in self._directions.values():
                self.spawn(direction.read())
            await asyncio.wait(writing)
            await self._flush()
        finally:
            tasks = set(self._tasks)
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)
            for writer in self._writers.values():
                abort(writer)

    async def _flush(self) -> None:
        """Wait until the sockets have taken all that was written."""
        for writer in self._writers.values():
            writer.close()
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT):
                for writer in self._writers.values():
                    await writer.wait_closed()
        except OSError:
            pass


class FaultProxy:
    """A TCP proxy that knows where NATS frames begin and end.

    ::

        async with FaultProxy(server.url) as proxy:
            proxy.to_server = lambda event, raw: DROP if isinstance(event, Pub) else None
            async with natsproto.connect(proxy.url) as nc:
                ...

    Without a hook, bytes pass as they come. A hook sees each whole frame, which passes unchanged unless the
    hook says otherwise. What is not NATS, such as TLS, passes without a hook. A server in a cluster tells
    clients the addresses of its peers, which bypass the proxy.

    Use it in one event loop. A hook that raises, or returns an invalid result, makes the ``async with`` block
    raise.

    Args:
        target: URL of the server; its user and password, if any, become part of :attr:`url`.
        host: address to listen on.
        port: default: a free one.

    Attributes:
        to_server, to_client: hooks for frames in that direction, ``None`` for none; may be set at any time.
        chunk: most bytes that are passed on in one piece; ``None`` for no limit.
        rate: bytes per second, for each direction of each connection; ``None`` for no limit.
        latency: seconds of delay for everything, in each direction.
        connections: the open connections.
        accepted: how many connections were accepted so far.
        bytes_to_server, bytes_to_client: how many bytes were passed on.
        errors: the exceptions of hooks, and a ``TypeError`` or ``ValueError`` for each invalid result; the
            frame then passed unchanged.
    """

    def __init__(self, target: str, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self.to_server: Hook | None = None
        self.to_client: Hook | None = None
        self.chunk: int | None = None
        self.rate: float | None = None
        self.latency: float = 0.0
        self.connections: list[ProxyConnection] = []
        self.accepted: int = 0
        self.bytes_to_server = 0
        self.bytes_to_client = 0
        self.errors: list[BaseException] = []
        self._host = host
        self._wanted_port = port
        self._listener: Listener | None = None
        self._traffic = _Traffic()
        self.target = target
        self.blackhole(False)

    @property
    def target(self) -> str:
        """URL of the server. A new one applies to new connections."""
        return self._target

    @target.setter
    def target(self, url: str) -> None:
        url = _values.text(url)
        parts = urlsplit(url if "//" in url else f"nats://{url}")
        if not parts.hostname:
            raise ConfigError("a target is a URL such as nats://127.0.0.1:4222")
        self._target = url
        self._target_address = (parts.hostname, parts.port or 4222)
        self._scheme = parts.scheme
        user, at, _ = parts.netloc.rpartition("@")
        self._user = user + at

    @property
    def port(self) -> int:
        """The port it listens on; known inside the ``async with`` block."""
        return self._running.port

    @property
    def url(self) -> str:
        """Address for clients."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{self._scheme}://{self._user}{host}:{self.port}"

    def cut(self) -> None:
        """Send RST to both sides of all connections."""
        for connection in list(self.connections):
            connection.reset()

    def fin(self, side: Side | None = None) -> None:
        """Send EOF on all connections to the ``"client"``, to the ``"server"``, or to both.

        For one side this is a half-close: the other direction stays open until that side closes it.
        """
        for connection in list(self.connections):
            connection.fin(side)

    def blackhole(self, on: bool = True, *, side: Side | None = None) -> None:
        """Let nothing through, or let it through again; connections stay open, new ones are silent.

        As with a network that recovers, bytes are delayed and not lost.

        Args:
            on: start or end it.
            side: only for bytes to the ``"client"`` or to the ``"server"``.
        """
        for to, gate in self._traffic.gates.items():
            if side in (None, to):
                if on:
                    gate.clear()
                else:
                    gate.set()

    def refuse(self, on: bool = True) -> None:
        """Refuse new connections (ECONNREFUSED), or accept them again; existing ones stay."""
        if on:
            self._running.shut()
        else:
            self._running.open()

    @property
    def held(self) -> int:
        """How many held frames wait for :meth:`release`."""
        return len(self._traffic.held)

    def release(self, *, reverse: bool = False) -> int:
        """Send the frames that hooks held back, in their order or in ``reverse``; return how many."""
        held, self._traffic.held = self._traffic.held, []
        for direction, raw in reversed(held) if reverse else held:
            direction.put(raw)
        return len(held)

    async def wait_until(self, reached: Callable[[], bool], *, timeout: float = 5.0) -> None:
        """Wait for a condition that depends on connections or frames: ``lambda: proxy.accepted == 2``.

        Args:
            reached: called after each change.
            timeout: in seconds.

        Raises:
            TimeoutError: not reached in time.
        """
        async with asyncio.timeout(timeout):
            while not reached():
                self._traffic.changed.clear()
                await self._traffic.changed.wait()

    @property
    def _running(self) -> Listener:
        if self._listener is None:
            raise ConfigError("the proxy runs only inside its 'async with' block")
        return self._listener

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = ProxyConnection(self, self._traffic, self.accepted, reader, writer)
        self.accepted += 1
        self.connections.append(connection)
        self._traffic.changed.set()
        try:
            await connection.run(*self._target_address)
        finally:
            self.connections.remove(connection)
            self._traffic.changed.set()

    async def __aenter__(self) -> Self:
        self._listener = Listener(self._host, self._wanted_port, self._handle)
        self._listener.open()
        return self

    async def __aexit__(self, kind: object, exc: BaseException | None, traceback: object) -> None:
        await self._running.close()
        self._traffic.held.clear()
        if not self.errors:
            return
        if exc is None:
            raise self.errors[0]
        for error in self.errors:
            exc.add_note(f"a hook of the FaultProxy failed, too: {error!r}")


def _flip(event: Event, raw: bytes, offset: int | None) -> bytes:
    """Flip the lowest bit of one byte, if the frame has that byte."""
    if offset is None:
        size = len(event.payload) if isinstance(event, (Msg, Pub)) else 0
        offset = len(raw) - 2 - (size + 1) // 2 if size else len(raw)
    if not -len(raw) <= offset < len(raw):
        return raw
    damaged = bytearray(raw)
    damaged[offset] ^= 1
    return bytes(damaged)
