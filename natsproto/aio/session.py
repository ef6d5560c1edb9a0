"""One TCP connection: parser, transport, handshake. Every attempt to connect creates a new session."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from ..errors import (
    AuthorizationError,
    NatsError,
    NoServersError,
    RemoteProtocolError,
    SecureConnectionRequiredError,
    ServerError,
    StaleConnectionError,
)
from ..transport import Buffer, Transport, open_transport
from ..transport.base import MAX_UNREAD_PONGS
from ..wire import Err, Info, Limits, Msg, Parser, Ping, Pong, serializer
from .auth import connect_document
from .permission_refusals import Refusals
from .server_pool import DEFAULT_PORT
from .websocket_headers import headers_of

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from ..wire import Event, Target
    from .connection import Connection
    from .lifeline import Lifeline
    from .server_pool import Peer, Server

LIMITS = Limits(header_block=64 * 1024 * 1024)
"""Only its message limits a header block: any peer may publish one above JetStream's 64 KiB."""

FLUSH_AT = 64 * 1024
"""Bytes up to which small frames are gathered, at most until the end of the loop iteration."""

UNSUB_AGAIN = 1.0
"""Seconds between repetitions of UNSUB, see :meth:`Session._stray`."""

CLOSE_TIMEOUT = 2.0
"""Seconds that sending queued frames may take when the client is closed."""

LEAVE_TIMEOUT = 1.0
"""Seconds a server has to answer the last PING before the client leaves it."""

INFO_FIELDS = frozenset(
    {
        "server_id", "server_name", "version", "proto", "git_commit", "go", "host", "port", "headers",
        "max_payload", "jetstream", "domain", "api_lvl", "auth_required", "tls_required", "tls_verify",
        "tls_available", "nonce", "xkey", "client_id", "client_ip", "ip", "cluster", "cluster_dynamic",
        "connect_urls", "ws_connect_urls", "ldm", "acc_is_sys",
    }
)  # fmt: skip
"""The fields of INFO that servers send to clients."""

_AUTH_ERRORS = (
    "authorization violation",
    "authentication expired",
    "authentication revoked",
)


def error_from_line(text: str) -> NatsError:
    """Map the text of an ``-ERR`` line to an error."""
    lowered = text.lower()
    if any(part in lowered for part in _AUTH_ERRORS):
        return AuthorizationError(f"the server refused the credentials: {text}")
    if "authentication timeout" in lowered:  # CONNECT came late: that says nothing about the credentials
        return StaleConnectionError("the server waited too long for the credentials")
    if "stale connection" in lowered:
        return StaleConnectionError("the server found the connection stale")
    if "secure connection" in lowered:
        return SecureConnectionRequiredError("the server requires TLS: use tls:// or pass tls=")
    return ServerError(text)


class Session:
    """See the module docstring. Implements :class:`natsproto.transport.Receiver`."""

    __slots__ = (  # more than 30 attributes in a dict make each access slower: 7 % of a small publish
        "_connect_sent",
        "_established",
        "_flush_scheduled",
        "_info_received",
        "_loop",
        "_out",
        "_out_size",
        "_parser_get_buffer",
        "_parser_updated",
        "_pongs",
        "_ready",
        "_unread_pongs",
        "_unsub_again",
        "congested",
        "connection",
        "info",
        "info_in_clear",
        "lame_duck",
        "lifeline",
        "lost",
        "more_refusals_due",
        "nonce_in_clear",
        "parser",
        "pings_answered",
        "pings_sent",
        "reads",
        "reason",
        "refusals",
        "secure",
        "server",
        "transport",
    )

    def __init__(self, connection: Connection, server: Server) -> None:
        self.connection: Connection = connection
        self.server: Server = server
        self.info: dict[str, object] = {}
        self.transport: Transport | None = None
        self.secure: bool = False
        self.reads: int = 0
        """Number of reads; it grows while the peer is alive."""
        self.lost: BaseException | None = None
        self.reason: NatsError | None = None  # the -ERR that explains an end of stream
        self._loop = asyncio.get_running_loop()
        self._info_received: asyncio.Future[None] = self._loop.create_future()
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._established = False
        self._connect_sent = False
        self._pongs: deque[asyncio.Future[None] | None] = deque()
        self._out: list[bytes] = []
        self._out_size = 0
        self._flush_scheduled = False
        self.more_refusals_due: dict[str, int] = {}
        """Further refusals expected of subscriptions that the first one has ended: number by text."""
        self.refusals: Refusals = Refusals(self)
        """The refusals to publish."""
        self.pings_sent: int = 0
        self.pings_answered: int = 0
        self._unsub_again = self._loop.time() + UNSUB_AGAIN
        self._unread_pongs = 0
        self.congested: bool = False
        """True when a sender should await :meth:`Connection.drain`; updated at each write."""
        self.lame_duck: bool = False
        self.lifeline: Lifeline | None = None
        """See :mod:`natsproto.aio.lifeline`."""
        self.info_in_clear: bool = False
        """True while the newest INFO came in clear although the session is encrypted: do not trust it."""
        self.nonce_in_clear: bool = False
        """True when the signed nonce came in such an INFO: a refusal may mean that somebody altered it."""
        self._new_parser()

    def _new_parser(self) -> None:
        self.parser: Parser = Parser("client", limits=LIMITS, place=_placer(self.connection))
        self._parser_get_buffer = self.parser.get_buffer
        self._parser_updated = self.parser.buffer_updated

    def _drop_parser(self) -> None:
        """The session is over: an unfinished message must not keep its destination in memory."""
        self._new_parser()
        self._parser_get_buffer = _scratch_buffer  # nobody reads what still arrives

    # -- receiver ---------------------------------------------------------------------------------

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._parser_get_buffer(sizehint)

    def buffer_updated(self, nbytes: int) -> None:
        if self.lost is not None:
            return  # TLS delivers buffered bytes while it shuts down; handlers know of the end already
        self.reads += 1
        try:
            events = self._parser_updated(nbytes)
        except Exception as exc:
            self._broken(exc)
            return
        if events:
            self._dispatch(events)

    def data_received(self, data: bytes) -> None:
        if self.lost is not None:
            return
        self.reads += 1
        try:
            events = self.parser.feed(data)
        except Exception as exc:
            self._broken(exc)
            return
        if events:
            self._dispatch(events)

    def connection_lost(self, exc: BaseException | None) -> None:
        if self.reason is not None:
            self.fail(self.reason)
        elif isinstance(exc, NatsError):
            self.fail(exc)
        else:
            self.fail(
                StaleConnectionError(
                    f"the connection to {self.server.url} was lost: {exc or 'end of stream'}"
                )
            )

    def _broken(self, exc: Exception) -> None:
        if not isinstance(exc, RemoteProtocolError):
            self._internal_error(exc)
            return
        if exc.events:
            self._dispatch(exc.events)
        self.fail(exc.with_traceback(None))  # the traceback would keep the buffer; the error has the position

    def _dispatch(self, events: list[Event]) -> None:
        if not self._connect_sent and not (
            len(events) == 1 and isinstance(events[0], Info) and not self._info_received.done()
        ):
            # Before CONNECT a server sends one INFO or -ERR, nothing else. More was injected before a TLS
            # upgrade (as in CVE-2021-23222), or the peer is not a NATS server.
            errors = [event for event in events if isinstance(event, Err)]
            if errors:
                self._early_error(errors[0].text)
            else:
                self.fail(RemoteProtocolError("the peer spoke out of turn before CONNECT"))
            return
        connection = self.connection
        handlers = connection.handlers
        others = size = 0
        try:
            for event in events:
                if type(event) is Msg:
                    handler = handlers.get(event.sid)
                    if handler is None:
                        self._stray(event.sid)
                    else:
                        size += len(event.payload)
                        handler.delivered = delivered = handler.delivered + 1
                        if delivered == handler.max_msgs:
                            connection.complete(handler)
                        handler.deliver(event)
                else:
                    others += 1
                    self._control(event)
                    if self.lost is not None:
                        break
        except Exception as exc:  # end the session: the rest of the events is lost
            self._internal_error(exc)
        connection.stats.in_msgs += len(events) - others
        connection.stats.in_bytes += size

    def _stray(self, sid: bytes) -> None:
        """Handle a message for a subscription that has ended. Most were under way when it ended.

        But an UNSUB can be lost on the way, and while the server believes that somebody listens, it keeps a
        consumer that delivers there: so UNSUB is sent again, at most once a second.
        """
        if self.lifeline is not None and sid == self.lifeline.sid:
            return  # anybody may have sent it; the subscription has to last
        now = self._loop.time()
        if now >= self._unsub_again and sid.isdigit():
            self._unsub_again = now + UNSUB_AGAIN
            self.write(serializer.unsub_line(sid))

    def _internal_error(self, exc: Exception) -> None:
        self.connection.unexpected(exc)
        self.fail(StaleConnectionError(f"the connection was closed after an internal error: {exc!r}"))

    def _control(self, event: Event) -> None:
        if isinstance(event, Ping):
            self._pong()
        elif isinstance(event, Pong):
            if self._pongs:
                self.pings_answered += 1
                waiter = self._pongs.popleft()
                if waiter is not None and not waiter.done():
                    waiter.set_result(None)
            if not self._ready.done():
                self._ready.set_result(None)
        elif isinstance(event, Info):
            # A later INFO may contain only changes, so fields of earlier ones are kept: none read in
            # clear before the encryption, and only known ones, because ever new names would fill the memory.
            kept = {} if self.info_in_clear else {k: v for k, v in self.info.items() if k in INFO_FIELDS}
            self.info = {**kept, **event.data}
            self.info_in_clear = False
            if not self._info_received.done():
                # Accept nothing more before it is decided whether TLS comes next.
                self._info_received.set_result(None)
            else:
                self.connection.info_changed(self)
        elif isinstance(event, Err):
            self._error(event.text)

    def _pong(self) -> None:
        self.write(serializer.PONG)  # several in a row are sent as one piece
        self._unread_pongs = self._unread_pongs + 1 if self.congested else 0
        if self._unread_pongs > MAX_UNREAD_PONGS:
            self.fail(RemoteProtocolError("the server keeps sending PING and does not read the answers"))

    def _early_error(self, text: str) -> None:
        """Handle an -ERR before CONNECT: it cannot be about the credentials, nor surely from the server."""
        error = error_from_line(text)
        if isinstance(error, AuthorizationError):
            error = StaleConnectionError(f"the connection was ended before the credentials were sent: {text}")
        self.reason = error
        self.fail(error)

    def _error(self, text: str) -> None:
        if not self._ready.done():
            error = error_from_line(text)
            self.reason = error
            self.fail(error)
            return
        if not self.connection.server_error(self, text):
            self.reason = error_from_line(text)

    # -- sending ----------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Queue one or more whole frames; they are sent at the end of the loop iteration, or sooner."""
        self._out.append(data)
        self._out_size += len(data)
        if self._out_size >= FLUSH_AT:
            self.flush()
        elif not self._flush_scheduled:
            self._flush_scheduled = True
            self._loop.call_soon(self._scheduled_flush)

    def write_now(self, data: bytes) -> None:
        """:meth:`write` and :meth:`flush` in one: nothing waits for the end of the loop iteration."""
        self._out.append(data)
        self.flush()

    def write_large(self, line: bytes, payload: Buffer) -> None:
        """Send a frame without copying its payload."""
        out = self._out
        out.append(line)
        transport = self.transport
        if transport is not None:
            transport.write_parts((b"".join(out), payload, b"\r\n"))
            self.congested = transport.congested
        out.clear()
        self._out_size = 0

    def _scheduled_flush(self) -> None:
        self._flush_scheduled = False
        self.flush()

    def flush(self) -> None:
        """Pass everything queued to the transport."""
        out = self._out
        if out:
            data = out[0] if len(out) == 1 else b"".join(out)
            out.clear()
            self._out_size = 0
            if self.transport is not None:
                self.transport.write(data)
                self.congested = self.transport.congested

    def ping(self, waiter: asyncio.Future[None] | None) -> None:
        """Send PING; ``waiter`` is completed by its PONG, or failed by the loss of the connection."""
        self._pongs.append(waiter)
        self.pings_sent += 1
        self.write(serializer.PING)
        self.flush()

    # -- life -------------------------------------------------------------------------------------

    async def establish(self) -> None:
        """Connect and do the handshake. The caller sets a time limit and aborts on any exception."""
        options = self.connection.options
        server = self.server
        scheme = server.scheme
        hostname = options.tls_hostname or server.tls_name or server.host
        # A WebSocket is encrypted from its first byte or not at all.
        immediate = options.tls_first or (
            scheme in ("ws", "wss") and (options.wants_tls(scheme) or server.secured)
        )
        context = options.ssl_context() if immediate else None
        if scheme in ("ws", "wss"):
            from ..transport.websocket import open_websocket

            self.transport = await open_websocket(
                options.transport_kind,
                self,
                server.host,
                server.port,
                server.path or "/",
                headers=headers_of(options.ws_connection_headers),
                ssl_context=context,
                server_hostname=hostname,
                connected=self._websocket_connected,
            )
        else:
            self.transport = await open_transport(
                options.transport_kind,
                self,
                server.host,
                server.port,
                ssl_context=context,
                server_hostname=hostname,
            )
        self.secure = immediate
        if immediate:
            self._check_names(context, hostname)
        if self.lost is not None:
            self.transport.abort()  # the session failed before it had a transport to abort
        await self._info_received
        if self.lost is not None:
            raise self.lost
        if options.check_peer is not None:
            options.check_peer(self.transport)
        if not self.secure:
            self.connection.pool.reached(server, self.peer)
            await self._secure(hostname)
        fields = options.connect_fields(server, self._text("nonce"))
        document = connect_document(
            name=options.name,
            echo=options.echo,
            verbose=options.verbose,
            pedantic=options.pedantic,
            tls=self.secure,
            # All supported servers know headers: a "no" in clear is an attempt to break what follows TLS.
            headers=self.info_in_clear or self.info.get("headers") is True,
            credentials=fields,
        )
        self.nonce_in_clear = self.info_in_clear and "sig" in fields
        self._connect_sent = True
        self._out.extend(bytes(part) for part in serializer.connect(document))
        self.ping(None)
        await self._ready
        if self.lost is not None:
            raise self.lost  # PONG and the end came in one piece
        self._established = True

    @property
    def peer(self) -> Peer | None:
        """The server's IP address and port."""
        return None if self.transport is None else self.transport.get_extra_info("peername")

    def _websocket_connected(self, transport: Transport) -> None:
        """Send no handshake in clear, with headers that may be secret, to where TLS was used before."""
        self.connection.pool.reached(self.server, transport.get_extra_info("peername"))
        if self.server.secured and transport.get_extra_info("sslcontext") is None:
            raise SecureConnectionRequiredError(
                f"TLS was used before at the address of {self.server.url}, and is required; nothing was sent"
            )

    async def _secure(self, hostname: str) -> None:
        options = self.connection.options
        offered = self.info.get("tls_required") is True or self.info.get("tls_available") is True
        wanted = options.wants_tls(self.server.scheme) or self.server.secured
        if wanted and not offered:
            why = (
                "was used before, with this server or the one that announced it,"
                if self.server.secured
                else "is required here"
            )
            raise SecureConnectionRequiredError(
                f"TLS {why} but {self.server.url} does not offer it; nothing was sent"
            )
        if not wanted and self.info.get("tls_required") is not True:
            return
        if self.server.scheme == "ws":
            return  # the WebSocket layer below decides about TLS
        if options.tls is False:
            raise SecureConnectionRequiredError(f"{self.server.url} requires TLS, and tls=False forbids it")
        assert self.transport is not None
        if not self.parser.idle:
            raise RemoteProtocolError("bytes arrived between INFO and the TLS handshake")
        self.transport.pause_reading()
        self._new_parser()  # nothing received in clear may reach the encrypted session
        context = options.ssl_context()
        await self.transport.start_tls(context, hostname)
        self._check_names(context, hostname)
        self.secure = self.info_in_clear = True

    def _check_names(self, context: ssl.SSLContext | None, hostname: str) -> None:
        """Refuse a certificate without a subject alternative name of the wanted kind.

        Without a DNS name among them OpenSSL falls back to the common name, unless the context forbids that,
        and the caller's context may not. The common name is free text (RFC 9525).
        """
        assert context is not None
        assert self.transport is not None
        certificate = self.transport.get_extra_info("peercert") or {}
        kind = "IP Address" if _is_address(hostname) else "DNS"
        kinds = [entry[0] for entry in certificate.get("subjectAltName", ())]
        if context.check_hostname and kind not in kinds:
            raise SecureConnectionRequiredError(
                f"the certificate of {self.server.url} has no subject alternative name of kind {kind}: it "
                f"needs one for {hostname!r}, its common name does not count; no credentials were sent"
            )

    def _text(self, key: str) -> str | None:
        value = self.info.get(key)
        return value if isinstance(value, str) else None

    def leave(self, exc: BaseException) -> asyncio.Future[None]:
        """End the session, after the server has processed what was sent so far.

        Returns:
            A future that is done, in whatever way, when the session has ended.
        """
        barrier: asyncio.Future[None] = self._loop.create_future()

        def go(_: object) -> None:
            timer.cancel()
            self.fail(exc, graceful=True)

        timer = self._loop.call_later(LEAVE_TIMEOUT, self.fail, exc)
        barrier.add_done_callback(go)
        self.ping(barrier)
        return barrier

    def fail(self, exc: BaseException, *, graceful: bool = False) -> None:
        """End the session because of ``exc``: wake every waiter, and tell the connection once."""
        if self.lost is not None:
            return
        self.lost = exc
        self._drop_parser()
        if self.transport is not None:
            if graceful:
                self.flush()
                self.transport.close()
                # A task of the connection: close() waits for it, or cancels it.
                self.connection.spawn(self._gone(self.transport), "natsproto-leave")
            else:
                self.transport.abort()
        for waiter in (self._info_received, self._ready, *self._pongs):
            if waiter is not None and not waiter.done():
                waiter.set_exception(exc)
                waiter.exception()  # avoids a warning if nobody awaits it
        self._pongs.clear()
        self._out.clear()
        self._out_size = 0
        if self._established:
            self.connection.session_lost(self, exc)

    async def close(self) -> None:
        """Send queued frames, close, and wait (for a limited time) until the transport is gone."""
        self.flush()
        if self.lost is None:
            self.lost = StaleConnectionError("the session was closed")
        self._drop_parser()
        for waiter in (self._info_received, self._ready, *self._pongs):
            if waiter is not None and not waiter.done():
                waiter.set_exception(self.lost)
                waiter.exception()
        self._pongs.clear()
        if self.transport is not None:
            self.transport.close()
            await self._gone(self.transport)

    async def _gone(self, transport: Transport) -> None:
        """Wait until queued frames are sent and the socket is closed, at most :data:`CLOSE_TIMEOUT`."""
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await transport.wait_closed()
        except TimeoutError:
            transport.abort()
            await transport.wait_closed()
        except asyncio.CancelledError:
            transport.abort()
            raise


def _placer(connection: Connection) -> Callable[[Msg, int], Target]:
    """Return the parser's ``place``: the message's handler returns the destination of a large payload."""

    def place(msg: Msg, size: int) -> Target:
        handler = connection.handlers.get(msg.sid)
        return None if handler is None else handler.place(msg, size)

    return place


def _is_address(hostname: str) -> bool:
    """Whether OpenSSL takes it for an IP address; one with a zone (``fe80::1%eth0``) is a name to it."""
    from ipaddress import ip_address  # loaded on first use, like ssl

    try:
        ip_address(hostname)
    except ValueError:
        return False
    return "%" not in hostname


def _scratch_buffer(sizehint: int = -1) -> memoryview:
    return memoryview(bytearray(4096))


def describe(exc: BaseException) -> str:
    """Describe a failed attempt in one line, without credentials."""
    import ssl

    if isinstance(exc, ssl.SSLCertVerificationError):
        return f"certificate not accepted: {exc.verify_message}"
    if isinstance(exc, ssl.SSLError):
        return f"TLS handshake failed: {exc.reason or exc}"
    if isinstance(exc, NatsError):
        return str(exc)
    if isinstance(exc, TimeoutError):
        return "no answer in time"
    if isinstance(exc, ConnectionRefusedError):
        return "connection refused"
    if isinstance(exc, OSError):
        return exc.strerror or str(exc)
    return repr(exc)


def summary(attempts: list[tuple[Server, BaseException]], *, first: bool = False) -> NatsError:
    """Return one error for a round of failed attempts.

    Args:
        first: there was no connection before: perhaps no server has been started yet.
    """
    errors = [exc for _, exc in attempts]
    for kind in (AuthorizationError, SecureConnectionRequiredError):
        hits = [exc for exc in errors if isinstance(exc, kind)]
        if hits and all(isinstance(exc, kind) for exc in errors):
            return hits[0]
    for exc in errors:
        if (
            isinstance(exc, NatsError)
            and not isinstance(exc, ConnectionError | PermissionError)
            and len(errors) == 1
        ):
            return exc  # for example a missing extra, or a peer that does not speak NATS
    reasons = (
        "; ".join(f"{server.url}: {describe(exc)}" for server, exc in attempts) or "no server left to try"
    )
    if first and attempts and all(_nobody_there(server, exc) for server, exc in attempts):
        reasons += "; to start a server: 'objstore server' or 'nats-server -js'"
    error = NoServersError(
        f"cannot connect to {reasons}", attempts=[(server.url, exc) for server, exc in attempts]
    )
    if errors:
        error.__cause__ = errors[-1]
    return error


def _nobody_there(server: Server, exc: BaseException) -> bool:
    """Whether nothing listens at the default address on this machine."""
    # For a name with several addresses, asyncio raises a plain OSError with all the reasons.
    refused = isinstance(exc, ConnectionRefusedError) or type(exc) is OSError
    return refused and server.port == DEFAULT_PORT and server.host in ("127.0.0.1", "localhost", "::1")
