"""The connection: one current session, reconnect, subscriptions that survive it, and the write path."""

from __future__ import annotations

import asyncio
import logging
import re
from _thread import get_ident
from collections.abc import Callable, Coroutine
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, TypeVar, TypeVarTuple

from .._values import brief, cut, printable, seconds
from ..errors import (
    AuthorizationError,
    ConfigError,
    ConnectionClosedError,
    MaxPayloadError,
    NatsError,
    PermissionsViolationError,
    ProtocolError,
    ServerError,
    StaleConnectionError,
    UnsupportedFeatureError,
)
from ..subjects import HALF_ROOM, check_names, secret_name
from ..wire import serializer
from .callbacks import BoundedLog, Callbacks, with_reason
from .handlers import Handler
from .liveness import Liveness
from .operations import Hold, Home, Operation, Operations, check_loop, foreign_loop, home_of
from .reconnect import Reconnect
from .reconnect_buffer import ReconnectBuffer
from .requests import RequestMux
from .server_pool import ServerPool
from .session import Session, describe, summary

if TYPE_CHECKING:
    from ..transport import Buffer
    from ..wire import Msg as WireMsg
    from .options import Options

log: logging.Logger = logging.getLogger("natsproto")

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

LARGE = 16 * 1024
"""Bytes from which a payload is passed to the transport separately instead of being joined."""

DEFAULT_MAX_PAYLOAD = 1024 * 1024
"""Bytes: the servers' default, assumed until one announces its limit."""

_QUOTED = r'"((?:[^"\\]|\\.)*)"'
_PERMISSION = re.compile(
    f"permissions violation for (publish|subscription) to {_QUOTED}(?: using queue {_QUOTED})?", re.IGNORECASE
)
_ESCAPE = re.compile(r"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8})|(.))")
_CONTROL = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_TRANSIENT = (
    "invalid subject",
    "invalid publish subject",
    "maximum subscriptions exceeded",
    "permissions violation",
)


class State(Enum):
    """The state of a connection."""

    NEW = "new"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    RECONNECTING = "reconnecting"
    CLOSED = "closed"


class Stats:
    """Counters of one client, over all its sessions. ``in_*``/``out_*`` count messages and payload bytes."""

    __slots__ = ("errors", "in_bytes", "in_msgs", "out_bytes", "out_msgs", "reconnects")

    def __init__(self) -> None:
        self.out_msgs: int = 0
        self.out_bytes: int = 0
        self.in_msgs: int = 0
        self.in_bytes: int = 0
        self.reconnects: int = 0
        self.errors: int = 0

    def __repr__(self) -> str:
        return "<Stats " + " ".join(f"{name}={getattr(self, name)}" for name in self.__slots__) + ">"


class Connection:
    """See the module docstring. Used by :class:`natsproto.Client` and the layers above it."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.state: State = State.NEW
        self.pool: ServerPool = ServerPool(options.servers, randomize=options.randomize)
        self.handlers: dict[bytes, Handler] = {}
        self.session: Session | None = None
        self.stats: Stats = Stats()
        self.last_error: BaseException | None = None
        self.close_reason: BaseException | None = None
        self.epoch: int = 0
        """How many sessions there have been; 0 = never connected."""
        self.silent_sessions: int = 0
        """How many sessions were abandoned because of silence; see :attr:`StaleConnectionError.silent`."""
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        """The event loop that it belongs to."""
        self.home: Home = home_of(self.loop)
        self._sid = 0
        self._mux: RequestMux | None = None
        self.max_payload: int = DEFAULT_MAX_PAYLOAD
        """Most bytes of header + payload, as last announced by the server."""
        self.headers: bool = True
        """Whether the server (while disconnected, the last one) takes and delivers headers."""
        self._buffer = ReconnectBuffer(options.reconnect_buffer_size, self._wanted, self.loop.time)
        self._connected_at = 0.0
        self._state_waiters: set[asyncio.Future[None]] = set()
        self._reconnect_task: asyncio.Task[None] | None = None
        self._closing: Session | None = None  # the session that close() ends; every call waits for it
        self._callbacks = Callbacks()
        self._reconnect = Reconnect(self, self._callbacks, self._connected)
        self.operations: Operations = Operations(self.loop)
        self._log = BoundedLog(log)
        self._liveness: Liveness | None = None

    # -- opening and reconnecting -----------------------------------------------------------------

    async def open(self) -> None:
        """Connect for the first time; with ``retry_on_failed_connect`` in the background.

        Raises:
            AuthorizationError, SecureConnectionRequiredError: every attempt failed with it.
            NoServersError: no server could be reached; ``attempts`` has the reason for each.
        """
        self.state = State.CONNECTING
        if self.options.retry_on_failed_connect:
            self._connect_in_background()
            return
        try:
            attempts = await self._reconnect.once()
            if self.state is not State.CONNECTED:
                raise summary(attempts, first=True)
        except BaseException:
            if self.state is not State.CLOSED:
                await self.close()
            raise

    def _connect_in_background(self) -> None:
        self._reconnect_task = self.loop.create_task(self._connect(), name="natsproto-reconnect")

    async def _connect(self) -> None:
        again = self.epoch > 0
        lived = self.loop.time() - self._connected_at
        found = await (self._reconnect.after(lived) if again else self._reconnect.until_connected())
        if self.state is State.CLOSED:
            return
        if found:
            if again:
                self.stats.reconnects += 1
                self._callbacks.call(self.options.reconnected_cb)
            return
        reason = ConnectionClosedError(
            f"no server left to {'reconnect' if again else 'connect'} to; "
            f"the last error was: {self.last_error}"
        )
        reason.__cause__ = self.last_error
        self._closed_for_good(reason)

    async def force_reconnect(self) -> None:
        """See :meth:`natsproto.Client.force_reconnect`."""
        self.check_open()
        if self.operations.refusing:
            raise ConnectionClosedError("the client is draining or closed: it does not connect again")
        if not self.options.reconnect:
            raise ConfigError("force_reconnect() contradicts reconnect=False")
        await self._reconnect.now()

    def _connected(self, session: Session) -> None:
        if self.state is State.CLOSED:  # closed meanwhile: nobody would ever end the session
            session.fail(ConnectionClosedError("the client is closed"))
            return
        self.session = session
        self.epoch += 1
        self.state = State.CONNECTED
        self._connected_at = self.loop.time()
        self.pool.connected(session.server, secure=session.secure, peer=session.peer)
        self._liveness = Liveness(
            session, interval=self.options.ping_interval, misses=self.options.max_outstanding_pings
        )
        self._take_info(session, news=self.epoch > 1)
        for handler in list(self.handlers.values()):
            handler.base = handler.delivered
            self._send_sub(session, handler)
        for size, frame, _ in self._buffer.take():
            if not self.headers and frame.startswith(b"HPUB "):
                self.report(_no_headers("a message with headers, kept while disconnected and now dropped,"))
                continue
            if size > self.max_payload:
                self.report(
                    MaxPayloadError(
                        f"a message of {size} bytes kept while disconnected exceeds the new server's "
                        f"max_payload of {self.max_payload}; it is dropped",
                        size=size,
                        max_payload=self.max_payload,
                    )
                )
                continue
            session.write(frame)
        session.flush()
        event = "connected" if self.epoch == 1 else "reconnected"
        self._log.info(event, "%s to %s", event, _who(session))
        if self.epoch == 1:
            self._callbacks.call(self.options.connected_cb)
        for handler in list(self.handlers.values()):
            self._notify(handler.on_reconnect)
        self._wake_state_waiters()

    def _notify(self, method: Callable[[*Ts], None], *args: *Ts) -> None:
        """Call a handler's method. It must not raise; if it does, the other handlers are still called."""
        try:
            method(*args)
        except Exception as exc:
            self.unexpected(exc)

    def _wake_state_waiters(self) -> None:
        for waiter in list(self._state_waiters):
            if not waiter.done():
                waiter.set_result(None)

    def session_lost(self, session: Session, exc: BaseException) -> None:
        """Called once by an established session when it ends, for any reason."""
        if session is not self.session:
            return
        self.session = None
        self._cancel_timers()
        if self.state is State.CLOSED:
            return
        self.last_error = exc
        self._log.warning("lost", "lost the connection to %s: %s", _who(session), _line(describe(exc)))
        self.silent_sessions += isinstance(exc, StaleConnectionError) and exc.silent
        lost = exc if isinstance(exc, StaleConnectionError) else _stale(exc)
        if isinstance(exc, ProtocolError):
            self.report(exc)  # handlers only learn that the connection is lost
        if isinstance(exc, AuthorizationError):
            self.pool.failed(session.server, auth=True)
        self.state = State.RECONNECTING
        for handler in list(self.handlers.values()):
            self._notify(handler.on_disconnect, lost)
        self._callbacks.call(with_reason(self.options.disconnected_cb, lost))
        if not self.options.reconnect:
            self._closed_for_good(lost)
            return
        self._connect_in_background()

    def _closed_for_good(self, reason: NatsError) -> None:
        self.close_reason = reason
        self.report(reason)
        self._end(reason)

    def _end(self, reason: BaseException | None) -> None:
        """Enter CLOSED: every handler ends, every wait wakes, nobody connects again."""
        self.state = State.CLOSED
        self._cancel_timers()
        if self._reconnect_task is not None and self._reconnect_task is not asyncio.current_task():
            self._reconnect_task.cancel()  # not in close(), which may be cancelled
        handlers, self.handlers = list(self.handlers.values()), {}
        for handler in handlers:
            self._notify(handler.on_end, reason)
        self._mux = None
        self._buffer.take()
        self._wake_state_waiters()
        why = "" if reason is None else f": {_line(str(reason))}"
        if self.epoch:
            log.info("closed the connection to %s%s", self.pool.current and _line(self.pool.current.url), why)
        elif self.options.retry_on_failed_connect:
            log.info("closed before a server was reached%s", why)
        else:
            return  # the first connect has failed and raised
        self._callbacks.call(self.options.closed_cb)

    def spawn(
        self, coroutine: Coroutine[object, None, T], name: str, *, due: bool = False
    ) -> asyncio.Task[T]:
        """Run a background task that close() waits for; see :meth:`Callbacks.spawn`."""
        return self._callbacks.spawn(coroutine, name, due=due)

    def operation(self) -> Operation:
        """Return a context manager for a call of several steps; see :class:`Operation`."""
        return Operation(self.operations)

    def hold(self) -> Hold:
        """Return a hold for an open object, until it is released; see :class:`Hold`."""
        return Hold(self.operations)

    async def close(self) -> None:
        """Close now, and wait until socket and tasks are gone. Idempotent.

        It ends operations under way first: they need the connection to remove what they began. If
        cancelled, it continues with its next step, which has a time limit, too: nothing is left behind.
        """
        check_loop(self.home)
        try:
            if self.state is not State.CLOSED:
                await self.operations.end(self._callbacks.settle, wait=self.session is not None)
        finally:
            if self.state is not State.CLOSED:
                self._closing, self.session = self.session, None
                if self._closing is not None:
                    reason = StaleConnectionError("the client was closed")
                    self._callbacks.call(with_reason(self.options.disconnected_cb, reason))
                self._end(None)
            try:
                if self._closing is not None:
                    await self._closing.close()
                if self._reconnect_task is not None and self._reconnect_task is not asyncio.current_task():
                    await asyncio.wait([self._reconnect_task])
            finally:
                await self._callbacks.finish()

    async def wait_connected(self, timeout: float | None = None) -> None:
        """Wait until a session is established.

        Raises:
            ConnectionClosedError: closed by the application, or for good.
            StaleConnectionError: still not connected after ``timeout`` seconds.
        """
        try:
            async with asyncio.timeout(timeout):
                while self.state is not State.CONNECTED:
                    self.check_open()
                    await self.state_waiter()
        except TimeoutError:
            again = "again " if self.epoch else ""
            raise StaleConnectionError(f"not connected {again}within {seconds(timeout)} s") from None

    def state_waiter(self) -> asyncio.Future[None]:
        """Return a future that is done when the client is connected again, or closed."""
        waiter: asyncio.Future[None] = self.loop.create_future()
        self._state_waiters.add(waiter)
        waiter.add_done_callback(self._state_waiters.discard)
        return waiter

    def check_open(self) -> None:
        """Raise ``ConnectionClosedError`` when the connection is closed, or belongs to another event loop."""
        if self.home._thread_id != get_ident():
            raise foreign_loop()
        if self.state is State.CLOSED:
            if self.close_reason is not None:
                raise ConnectionClosedError(str(self.close_reason))
            raise ConnectionClosedError("the client is closed: connect again")

    # -- what the server announces ----------------------------------------------------------------

    @property
    def info(self) -> dict[str, object]:
        return self.session.info if self.session is not None else {}

    def info_changed(self, session: Session) -> None:
        """Handle an INFO after the first one: other servers, or lame duck mode."""
        if session is not self.session:
            return
        self._take_info(session, news=True)

    def _take_info(self, session: Session, *, news: bool) -> None:
        info = session.info
        limit = info.get("max_payload")
        self.max_payload = limit if isinstance(limit, int) and limit else DEFAULT_MAX_PAYLOAD
        # As in CONNECT: a "no" in clear is an attempt to break what follows TLS.
        self.headers = session.info_in_clear or info.get("headers") is True
        key = "ws_connect_urls" if session.server.scheme in ("ws", "wss") else "connect_urls"
        urls = info.get(key)
        if isinstance(urls, list) and urls and not self.options.ignore_discovered:
            new = self.pool.discover(
                urls, via=session.server, secure=session.secure, trusted=not session.info_in_clear
            )
            if new and news:
                self._callbacks.call_bounded(self.options.discovered_server_cb)
        if info.get("ldm") is True and not session.lame_duck:
            session.lame_duck = True
            self._callbacks.call(self.options.lame_duck_cb)
            if self.options.reconnect and self.pool.others():
                session.leave(
                    StaleConnectionError(f"{session.server.url} is about to shut down (lame duck mode)")
                )

    def server_error(self, session: Session, text: str) -> bool:
        """Handle an ``-ERR`` on an established session; return whether the connection stays open."""
        self.stats.errors += 1
        match = _PERMISSION.search(text)
        if session.lifeline is not None and (match is None or match[1].lower() != "publish"):
            session.lifeline.error_received(None if match is None else _wire(_unquoted(match[2])))
        if match is not None:
            operation, subject = match[1].lower(), _unquoted(match[2])
            error = PermissionsViolationError(
                f"this user may not {'publish' if operation == 'publish' else 'subscribe'} to "
                f"{brief(subject)}; docs/permissions.md lists the rights that each call needs",
                subject=subject,
                operation=operation,
            )
            if operation == "publish":
                fail = partial(self._refuse_requests, error)
                reported = session.refusals.received(error, _wire(subject), fail, self._under_way)
            else:
                failed = self._refuse_subscription(_wire(subject), match[3], error)
                # One -ERR comes for each subscription. The first one has ended all of them, so the others are
                # expected, and not reported.
                due = session.more_refusals_due.pop(text, 0)
                reported = bool(failed or due)
                due += failed
                if due > 1:
                    session.more_refusals_due[text] = due - 1
            if not reported:
                self.report(error)
            return True
        self.report(ServerError(text))
        return any(part in text.lower() for part in _TRANSIENT)

    def _refuse_requests(self, error: PermissionsViolationError, subject: bytes) -> int:
        """Fail what was sent there; return how many messages of that were unanswered."""
        return sum(handler.on_refused(subject, error) for handler in list(self.handlers.values()))

    def _refuse_subscription(self, wanted: bytes, queue: str | None, error: PermissionsViolationError) -> int:
        """End the subscriptions that were refused; return how many that was."""
        group = None if queue is None else _wire(_unquoted(queue))
        hit = [h for h in self.handlers.values() if h.subject == wanted and h.queue == group]
        for handler in hit:
            del self.handlers[handler.sid]
            if handler is self._mux:
                self._mux = None
            handler.on_end(error)
        return len(hit)

    def _under_way(self, subject: bytes) -> int:
        return 0 if self._mux is None else self._mux.under_way(subject)

    def stopped_waiting(self, subject: bytes) -> None:
        """Nobody waits for an unanswered request to ``subject`` any more: it may still be refused."""
        if self.session is not None:
            self.session.refusals.stopped_waiting(subject)

    # -- sending ----------------------------------------------------------------------------------

    def publish(
        self,
        subject: bytes,
        payload: Buffer,
        reply: bytes | None = None,
        header: bytes = b"",
        *,
        now: bool = False,
    ) -> None:
        """Send a message, or keep it for the next session. Only the length of its line is checked here.

        Args:
            now: do not wait for more frames until the end of the loop iteration.

        Raises:
            BadSubjectError: the subjects are too long for one line.
            ConnectionClosedError: the connection is closed.
            OutboundBufferLimitError: disconnected, and the buffer is full.
        """
        if len(subject) > HALF_ROOM or (reply is not None and len(reply) > HALF_ROOM):
            check_names(subject, reply or b"")
        size = len(payload)
        session = self.session
        if session is None:
            self.check_open()
            frame = serializer.pub_frame(subject, reply, header, payload)
            self._buffer.keep(len(header) + size, frame, reply)
        elif size < LARGE:
            frame = serializer.pub_frame(subject, reply, header, payload)
            if now:
                session.write_now(frame)
            else:
                session.write(frame)
        else:
            line = serializer.pub_line(subject, reply, len(header), size)
            session.write_large(line + header, payload)
            if now:
                session.flush()
        stats = self.stats
        stats.out_msgs += 1
        stats.out_bytes += size

    def check_headers(self, what: str = "a message with headers") -> None:
        """Check that the server knows headers, before anything is sent that would end the connection.

        Args:
            what: what needs them, for the error.

        Raises:
            UnsupportedFeatureError: it announces that it does not (``headers: false``).
        """
        if not self.headers:
            raise _no_headers(what)

    def check_size(self, header: int, payload: int) -> None:
        """Check whether the server takes a message, from the bytes of its parts.

        Raises:
            MaxPayloadError: it is larger than :attr:`max_payload`.
            UnsupportedFeatureError: it has headers, and the server takes none.
        """
        if header and not self.headers:
            raise _no_headers("a message with headers")
        limit = self.max_payload
        if header + payload > limit:
            raise MaxPayloadError(
                f"{payload} bytes of payload and {header} of headers exceed max_payload ({limit})",
                size=header + payload,
                max_payload=limit,
            )

    def _wanted(self, reply: bytes | None) -> bool:
        return self._mux is None or self._mux.wanted(reply)

    @property
    def congested(self) -> bool:
        """True when a sender should await :meth:`drain`."""
        return self.session is not None and self.session.congested

    async def drain(self) -> None:
        """Wait until the transport takes more; return at once without a session."""
        session = self.session
        if session is not None and session.transport is not None:
            session.flush()
            try:
                await session.transport.drain()
            except StaleConnectionError:
                pass  # the handlers report what was in flight
            session.congested = session.transport.congested

    def flush_now(self) -> None:
        """Pass queued frames to the transport without waiting for the end of the loop iteration."""
        if self.session is not None:
            self.session.flush()

    async def ping(self) -> None:
        """Send PING and wait for PONG: then the server has processed everything sent before."""
        self.check_open()
        session = self.session
        if session is None:
            await self.wait_connected()
            session = self.session
            assert session is not None
        waiter: asyncio.Future[None] = self.loop.create_future()
        session.ping(waiter)
        await waiter

    # -- subscriptions ----------------------------------------------------------------------------

    def subscribe(self, handler: Handler) -> None:
        """Register ``handler`` and subscribe at the server (now, or when connected again).

        Raises:
            BadSubjectError: subject and queue name are too long for one line.
            ConnectionClosedError: the connection is closed.
        """
        self.check_open()
        check_names(handler.subject, handler.queue or b"")
        handler.sid = self.next_sid()
        self.handlers[handler.sid] = handler
        if self.session is not None:
            self._send_sub(self.session, handler)

    def next_sid(self) -> bytes:
        """Return a new, unused subscription id."""
        self._sid += 1
        return b"%d" % self._sid

    def _send_sub(self, session: Session, handler: Handler) -> None:
        session.write(serializer.sub_line(handler.subject, handler.queue, handler.sid))
        if handler.max_msgs:
            session.write(serializer.unsub_line(handler.sid, handler.max_msgs - handler.base))

    def unsubscribe(self, handler: Handler, max_msgs: int = 0) -> None:
        """Unsubscribe now, or after ``max_msgs`` deliveries in all."""
        if self.handlers.get(handler.sid) is not handler:
            return
        if max_msgs > handler.delivered:
            handler.max_msgs = max_msgs
            if self.session is not None:
                self.session.write(serializer.unsub_line(handler.sid, max_msgs - handler.base))
            return
        del self.handlers[handler.sid]
        if self.session is not None:
            self.session.write(serializer.unsub_line(handler.sid))
        handler.on_end(None)

    def complete(self, handler: Handler) -> None:
        """The last message of a handler with ``max_msgs`` is about to be delivered; then it ends."""
        self.handlers.pop(handler.sid, None)
        self.loop.call_soon(handler.on_end, None)

    async def drain_handler(self, handler: Handler) -> None:
        """Unsubscribe, but deliver what the server sent before it processed that."""
        if self.handlers.get(handler.sid) is not handler:
            return
        try:
            if self.session is not None:
                self.session.write(serializer.unsub_line(handler.sid))
                await self.ping()
        except (StaleConnectionError, ConnectionClosedError):
            pass
        finally:
            if self.handlers.pop(handler.sid, None) is not None:
                handler.on_end(None)

    @property
    def mux(self) -> RequestMux:
        """The reply inbox of this connection, subscribed on first use."""
        mux = self._mux
        if mux is None:
            self.check_open()
            prefix = f"{self.options.inbox_prefix}.{secret_name()}".encode()
            self._mux = mux = RequestMux(prefix)
            self.subscribe(mux)
        return mux

    def requests(self) -> list[asyncio.Future[WireMsg]]:
        """Return the futures of the requests under way, done when they are answered or given up."""
        return [] if self._mux is None else self._mux.requests()

    # -- liveness, reports ------------------------------------------------------------------------

    def probe(self) -> None:
        """A request timed out: make sure that the server still answers, or reconnect."""
        if self._liveness is not None:
            self._liveness.probe()

    def _cancel_timers(self) -> None:
        if self._liveness is not None:
            self._liveness.stop()
            self._liveness = None

    def report(self, exc: NatsError) -> None:
        """Report an error that belongs to no call to ``error_cb`` (or the log)."""
        self.last_error = exc
        if self.options.error_cb is None:
            self._log.warning(type(exc).__name__, "%s", exc)
        else:
            self._callbacks.call_bounded(partial(self.options.error_cb, exc))

    def unexpected(self, exc: Exception) -> None:
        """Log an unexpected exception of the reading side."""
        log.error("internal error while reading", exc_info=exc)
        self.last_error = exc


def _no_headers(what: str) -> UnsupportedFeatureError:
    return UnsupportedFeatureError(
        what, "2.2", "this server says that it takes no headers (no_header_support)"
    )


def _unquoted(text: str) -> str:
    """Return a subject that the server has written as Go's ``%q``: what is not printable is escaped."""

    def plain(found: re.Match[str]) -> str:
        byte, *runes, char = found.groups()
        if byte:
            code = int(byte, 16)
            return chr(code if code < 0x80 else 0xDC00 + code)  # no UTF-8
        rune = next(filter(None, runes), None)
        if rune is None:
            return _CONTROL.get(char, char)
        code = int(rune, 16)
        return chr(code) if code < 0xD800 or 0xE000 <= code < 0x110000 else "\ufffd"

    return _ESCAPE.sub(plain, text)


def _wire(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def _line(text: str) -> str:
    """Return what others wrote as a part of one line."""
    return cut(printable(text))


def _who(session: Session) -> str:
    """Return which server it is, for the log. It chooses its name and version."""
    known = [session.info.get("server_name"), session.info.get("version")]
    about = ", ".join(_line(text)[:80] for text in known if isinstance(text, str) and text)
    return _line(session.server.url) + (f" ({about})" if about else "")


def _stale(exc: BaseException) -> StaleConnectionError:
    error = StaleConnectionError(f"the connection was lost: {exc}")
    error.__cause__ = exc
    return error
