"""The application's client: publish, subscribe, request, flush, drain, close."""

from __future__ import annotations

import asyncio
from _thread import get_ident
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from .._values import brief, seconds
from ..errors import (
    ConfigError,
    ConnectionClosedError,
    LocalProtocolError,
    NatsError,
    RequestTimeoutError,
    StaleConnectionError,
)
from ..headers import Headers, encode_headers
from ..subjects import (
    check_publish_subject,
    check_queue,
    check_subscribe_subject,
    plain_publish_subject,
    secret_name,
)
from .connection import LARGE, Connection, State, Stats
from .msg import Msg
from .operations import check_loop, foreign_loop
from .options import Options
from .request_many import Responses
from .requests import REPLY_REST, RequestSlot, is_bare, no_responders
from .session import CLOSE_TIMEOUT
from .subscription import Subscription

if TYPE_CHECKING:
    from types import TracebackType

    from ..jetstream.context import JetStreamContext
    from ..transport import Buffer
    from ..wire import Msg as WireMsg

HeadersLike = Headers | Mapping[str, str | Sequence[str]]


def as_payload(data: Buffer) -> Buffer:
    """Check a payload and return it as a buffer whose ``len()`` is its size in bytes.

    Raises:
        LocalProtocolError: not bytes-like (the caller must encode a ``str``).
    """
    if type(data) is bytes:
        return data
    if isinstance(data, str):
        raise LocalProtocolError("a payload is bytes, not str: use .encode()")
    try:
        view = memoryview(data)
    except TypeError:
        raise LocalProtocolError(f"a payload must be bytes-like, not {type(data).__name__}") from None
    return view if view.format == "B" and view.ndim == 1 and view.contiguous else view.tobytes()


class Client:
    """A connection to NATS, from :func:`natsproto.connect`; safe for any number of tasks of one loop.

    When the connection is lost, everything in flight fails at once with ``StaleConnectionError``;
    subscriptions are restored after a reconnect; messages published meanwhile are kept (up to
    ``reconnect_buffer_size`` bytes) and sent afterwards, whole frames only.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        self.reply_length: int = len(options.inbox_prefix.encode()) + REPLY_REST
        """Bytes of the longest reply subject of requests and windows; it shares a line with their subject."""
        self.connection: Connection = Connection(options)
        """The layer below: for layers built on this client, not for applications."""
        self._home = self.connection.home
        self._draining = False
        self.api_prefixes: set[str] = set()
        """Prefixes of this client's JetStream contexts; subjects below them are the server's own."""

    # -- properties -------------------------------------------------------------------------------

    @property
    def is_connected(self) -> bool:
        """True while a session is established."""
        return self.connection.state is State.CONNECTED

    @property
    def is_closed(self) -> bool:
        """True after ``close()``/``drain()``, or when reconnecting was given up."""
        return self.connection.state is State.CLOSED

    @property
    def state(self) -> str:
        """``new``, ``connecting`` (for the first time), ``connected``, ``reconnecting`` or ``closed``."""
        return self.connection.state.value

    @property
    def server_info(self) -> dict[str, object]:
        """A copy of the connected server's INFO; empty while not connected."""
        return dict(self.connection.info)

    @property
    def connected_url(self) -> str | None:
        """The connected server's URL without credentials."""
        session = self.connection.session
        return None if session is None else session.server.url

    @property
    def servers(self) -> list[str]:
        """URLs (without credentials) of all known servers, including announced ones."""
        return [server.url for server in self.connection.pool.servers]

    @property
    def discovered_servers(self) -> list[str]:
        """URLs announced by a server."""
        return [server.url for server in self.connection.pool.servers if server.discovered]

    @property
    def max_payload(self) -> int:
        """Most bytes of header + payload that the server (while disconnected, the last one) accepts."""
        return self.connection.max_payload

    @property
    def client_id(self) -> int | None:
        """The id the server gave this connection."""
        value = self.connection.info.get("client_id")
        return value if isinstance(value, int) else None

    @property
    def stats(self) -> Stats:
        """Counters over all sessions of this client."""
        return self.connection.stats

    @property
    def last_error(self) -> BaseException | None:
        """The newest error of the connection, reported or not."""
        return self.connection.last_error

    # -- messages ---------------------------------------------------------------------------------

    async def publish(
        self,
        subject: str,
        payload: Buffer = b"",
        *,
        reply: str | None = None,
        headers: HeadersLike | None = None,
    ) -> None:
        """Publish a message. It is queued when this returns; after :meth:`flush` the server has it.

        Waits when the network does not keep up. While disconnected the message is kept and sent after
        the reconnect.

        Args:
            subject: no wildcards, no white space.
            payload: any bytes-like object; copied unless it is ``bytes``.
            reply: subject for answers. Together with ``subject`` at most 4066 bytes: servers close the
                connection after longer lines (``max_control_line``).
            headers: maps names to one value or several.

        Raises:
            BadSubjectError, LocalProtocolError, MaxPayloadError: refused, nothing was sent.
            UnsupportedFeatureError: likewise: ``headers`` are given, and the server says that it takes none.
            ConnectionClosedError: the client is closed, or belongs to another event loop or thread.
            OutboundBufferLimitError: disconnected, and the buffer for that is full.
        """
        if self._home._thread_id != get_ident():
            raise foreign_loop()
        connection = self.connection
        session = connection.session
        if (
            session is not None
            and headers is None
            and reply is None
            and type(payload) is bytes
            and type(subject) is str
        ):
            size = len(payload)
            if size < LARGE and size <= connection.max_payload:
                # The usual message. The rest of this function would do the same in twice the time.
                session.write(b"PUB %b %d\r\n%b\r\n" % (plain_publish_subject(subject), size, payload))
                stats = connection.stats
                stats.out_msgs += 1
                stats.out_bytes += size
                if session.congested:
                    await connection.drain()
                return
        if connection.state is State.CLOSED:
            connection.check_open()
        subject_bytes = check_publish_subject(subject)
        reply_bytes = None if reply is None else check_publish_subject(reply)
        block = b"" if not headers else encode_headers(headers)
        if type(payload) is not bytes:
            payload = bytes(as_payload(payload))
        if len(block) + len(payload) > connection.max_payload or (block and not connection.headers):
            connection.check_size(len(block), len(payload))
        connection.publish(subject_bytes, payload, reply_bytes, block)
        if connection.congested:
            await connection.drain()

    def _check_usable(self) -> None:
        self.connection.check_open()
        if self._draining:
            raise ConnectionClosedError("the client is draining: it takes nothing new")

    async def subscribe(
        self,
        subject: str,
        *,
        queue: str | None = None,
        max_msgs: int = 0,
        pending_msgs_limit: int | None = None,
        pending_bytes_limit: int | None = None,
    ) -> Subscription:
        """Subscribe; iterate over the result, or await its ``next_msg``.

        Args:
            subject: ``*`` and ``>`` are wildcards.
            queue: queue group; each message goes to one member.
            max_msgs: end after this many messages (0 = never).
            pending_msgs_limit, pending_bytes_limit: limits of the queue (default: the client's).

        Raises:
            BadSubjectError: refused, nothing was sent; also when ``subject`` and ``queue`` together have more
                than 4066 bytes.
            ConnectionClosedError: the client is closed.
        """
        self._check_usable()
        if max_msgs < 0:
            raise ConfigError("max_msgs must not be negative")
        options = self._options
        subscription = Subscription(
            self,
            check_subscribe_subject(subject),
            None if queue is None else check_queue(queue),
            max_msgs=max_msgs,
            pending_msgs_limit=options.pending_msgs_limit
            if pending_msgs_limit is None
            else pending_msgs_limit,
            pending_bytes_limit=options.pending_bytes_limit
            if pending_bytes_limit is None
            else pending_bytes_limit,
        )
        self.connection.subscribe(subscription)
        return subscription

    async def request(
        self,
        subject: str,
        payload: Buffer = b"",
        *,
        timeout: float | None = None,
        headers: HeadersLike | None = None,
    ) -> Msg:
        """Publish and return the first answer.

        Args:
            timeout: seconds; default ``request_timeout`` of the client (5 s).

        Raises:
            BadSubjectError, LocalProtocolError, MaxPayloadError: refused, nothing was sent.
            UnsupportedFeatureError: likewise: ``headers`` are given, and the server says that it takes none.
            NoRespondersError: nobody listens (a server with headers reports it at once).
            RequestTimeoutError: no answer in time.
            StaleConnectionError: the connection was lost; whether the request arrived is unknown.
            PermissionsViolationError: the server refused the subject.
        """
        if self.connection.state is State.CLOSED:
            self.connection.check_open()
        block = b"" if not headers else encode_headers(headers)
        data = as_payload(payload)
        connection = self.connection
        if len(block) + len(data) > connection.max_payload or (block and not connection.headers):
            connection.check_size(len(block), len(data))
        return Msg(await self.request_frame(check_publish_subject(subject), data, block, timeout), self)

    def request_many(
        self,
        subject: str,
        payload: Buffer = b"",
        *,
        timeout: float | None = None,
        headers: HeadersLike | None = None,
        max_messages: int | None = None,
        stall: float | None = None,
        sentinel: Callable[[Msg], bool] | None = None,
    ) -> Responses:
        """Publish, and iterate over the answers: ``async for msg in nc.request_many(…)`` (ADR-47).

        The request is sent at once. Whichever comes first ends the iteration; none of them is an error.

        Args:
            timeout: seconds for all answers together; default ``request_timeout`` of the client (5 s).
            max_messages: end after this many answers.
            stall: end when no further answer came for this many seconds after the last one. The first
                answer has the whole ``timeout``.
            sentinel: called with each answer, when it is read; ``True`` ends, and that one is not returned:
                ``sentinel=lambda msg: not msg.data`` for the usual sentinel, an empty payload.

        A status in the place of an answer ends, too: ``NoRespondersError`` is raised when nobody listens.

        Raises:
            BadSubjectError, LocalProtocolError, MaxPayloadError, ConfigError: refused, nothing was sent.
            UnsupportedFeatureError: likewise: ``headers`` are given, and the server says that it takes none.
            ConnectionClosedError: the client is closed, or belongs to another event loop or thread.
            NatsError: see :class:`Responses`.
        """
        connection = self.connection
        block = b"" if not headers else encode_headers(headers)
        data = as_payload(payload)
        connection.check_size(len(block), len(data))
        return Responses(
            self,
            check_publish_subject(subject),
            data,
            block,
            timeout=self._limit(timeout),
            max_messages=max_messages,
            stall=stall,
            sentinel=sentinel,
        )

    async def request_frame(
        self,
        subject: bytes,
        payload: Buffer,
        header: bytes = b"",
        timeout: float | None = None,
        *,
        begins: bytes | None = None,
        counts: Callable[[WireMsg], bool] | None = None,
    ) -> WireMsg:
        """:meth:`request` for layers above: checked subject, encoded header, wire message back.

        ``begins``, ``counts``: which answers count, see ``PendingRequest``.
        """
        limit = self._limit(timeout)
        pending = PendingRequest(self.connection, subject, payload, header, limit, begins, counts, now=True)
        try:
            return await pending.future
        finally:
            pending.close()

    def start_request(
        self,
        subject: bytes,
        payload: Buffer,
        header: bytes = b"",
        timeout: float | None = None,
        *,
        begins: bytes | None = None,
        counts: Callable[[WireMsg], bool] | None = None,
    ) -> PendingRequest:
        """Send a request together with the other frames of this loop iteration; await its answer later.

        The result must be waited for or closed. ``begins``, ``counts``: as for :meth:`request_frame`.
        """
        limit = self._limit(timeout)
        return PendingRequest(self.connection, subject, payload, header, limit, begins, counts)

    def _limit(self, timeout: float | None) -> float:
        return self._options.request_timeout if timeout is None else timeout

    def new_inbox(self) -> str:
        """Return a new subject for replies, which nobody can guess."""
        return f"{self._options.inbox_prefix}.{secret_name()}"

    async def flush(self, timeout: float | None = None) -> None:
        """Wait until the server has processed everything sent so far.

        Raises:
            RequestTimeoutError: it did not within ``timeout`` seconds (default ``request_timeout``).
            StaleConnectionError: the connection was lost meanwhile.
        """
        limit = self._options.request_timeout if timeout is None else timeout
        try:
            async with asyncio.timeout(limit):
                await self.connection.ping()
        except TimeoutError as exc:
            if isinstance(exc, NatsError):
                raise
            self.connection.probe()
            raise RequestTimeoutError(f"the server did not answer PING within {seconds(limit)} s") from None

    async def rtt(self, timeout: float | None = None) -> float:
        """Return the seconds from a PING to its PONG, with what both sides have queued before them.

        Args:
            timeout: seconds; default ``request_timeout`` of the client (5 s).

        Raises:
            RequestTimeoutError: no PONG in time.
            StaleConnectionError: not connected, or the connection was lost meanwhile.
            ConnectionClosedError: the client is closed.
        """
        connection = self.connection
        connection.check_open()
        if connection.session is None:
            raise StaleConnectionError("not connected: there is no round trip to measure")
        began = connection.loop.time()
        await self.flush(timeout)
        return connection.loop.time() - began

    # -- which server -----------------------------------------------------------------------------

    async def force_reconnect(self) -> None:
        """Leave the current server and connect again at once, to the next server of the pool.

        For clients that shall move to other servers, use renewed credentials, or need not wait for the end
        of a pause: while not connected, the next attempt is made at once. This returns when the old
        connection has ended, not when the new one is there: ``await nc.flush()`` waits for that. What was
        published before is processed first, if the server answers a PING within a second. Everything else is
        as when a connection is lost: calls in flight fail with ``StaleConnectionError``, subscriptions are
        restored, ``disconnected_cb`` and ``reconnected_cb`` are called, transfers of object stores continue.
        (ADR-40, on-demand reconnect.)

        Raises:
            ConfigError: the client has ``reconnect=False``.
            ConnectionClosedError: the client is closed or draining.
        """
        self._check_usable()
        await self.connection.force_reconnect()

    def set_server_pool(self, urls: str | Sequence[str]) -> None:
        """Use other servers for all further attempts to connect. (ADR-40, custom server pool.)

        They replace the whole pool, with the servers announced so far; the current server announces its
        cluster again with its next INFO, unless ``ignore_discovered`` is set. The current connection stays,
        see :meth:`force_reconnect`. A server that stays, with the same credentials, keeps its failures.

        TLS sticks: a server that was used with TLS, or announced by one that was, is never used without, even
        if its new URL is ``nats://``. New servers follow their URLs and the options, as in ``connect()``.

        Args:
            urls: as ``servers`` of :func:`natsproto.connect`; at least one.

        Raises:
            ConfigError: an empty list, a URL that is not valid or contradicts the options, or WebSocket
                servers instead of TCP servers (or the reverse). The pool stays as it is.
            ConnectionClosedError: the client is closed, or belongs to another event loop or thread.
        """
        self.connection.check_open()
        self.connection.pool.replace(self._options.parse_servers(urls))

    # -- end --------------------------------------------------------------------------------------

    async def drain(self) -> None:
        """Close gracefully: end subscriptions, wait until queues are read and operations end, then close.

        Until the queues are read only new subscriptions are refused, so that responders can answer. Then
        nothing new may begin (``ConnectionClosedError``), and everything under way may finish: puts, gets,
        open writers and readers of object stores, requests. All that together has ``drain_timeout`` seconds;
        :meth:`close` drops or ends the rest, which takes at most 9 s more, and a ``RequestTimeoutError`` is
        raised after the client was closed. Cancelling this call closes the client, too.

        Raises:
            ConnectionClosedError: the client belongs to another event loop or thread.
        """
        check_loop(self.connection.home)
        if self.is_closed:
            return
        self._draining = True
        limit = self._options.drain_timeout
        loop = asyncio.get_running_loop()
        deadline = loop.time() + limit
        subscriptions = [h for h in self.connection.handlers.values() if isinstance(h, Subscription)]
        results: list[BaseException | None] = []
        try:
            results = await asyncio.gather(*(s.drain() for s in subscriptions), return_exceptions=True)
            results.append(await self._finish_operations(bool(subscriptions), deadline, limit))
            await self.flush(min(deadline - loop.time(), CLOSE_TIMEOUT))
        except (StaleConnectionError, ConnectionClosedError, RequestTimeoutError):
            pass
        finally:
            await self.close()
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _finish_operations(
        self, responding: bool, deadline: float, limit: float
    ) -> RequestTimeoutError | None:
        """Refuse new operations, and wait until ``deadline`` for those under way.

        Args:
            responding: at first allow new ones: a task may still be handling a queue's last message.
        """
        connection = self.connection
        operations = connection.operations
        try:
            async with asyncio.timeout_at(deadline):
                while responding:
                    await operations.wait(holds=False)
                    await connection.ping()  # gives the next operation time to begin
                    responding = bool(operations.others())
                operations.refusing = True
                await operations.wait(holds=True)
                if requests := connection.requests():
                    await asyncio.wait(requests)
        except TimeoutError:
            left = len(operations.others()) + len(operations.held())
            if not left and connection.session is None:
                return RequestTimeoutError(f"the connection did not come back within {seconds(limit)} s")
            what = f"{left} operations" if left else "requests"
            return RequestTimeoutError(f"{what} under way were not done within {seconds(limit)} s")
        return None

    async def close(self) -> None:
        """Close now: send queued frames, end subscriptions, leave nothing running.

        Calls under way fail with ``ConnectionClosedError``, after they have removed what they began (the
        chunks of a put): at most 5 s, usually a few milliseconds. Sending queued frames may take 2 s, and
        callbacks that are still running have 2 s.

        Raises:
            ConnectionClosedError: the client belongs to another event loop or thread.
        """
        await self.connection.close()

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # -- layers above -----------------------------------------------------------------------------

    def jetstream(
        self, *, domain: str | None = None, prefix: str | None = None, timeout: float = 5.0
    ) -> JetStreamContext:
        """Return the JetStream context of this client.

        Args:
            domain: JetStream domain; the API prefix becomes ``$JS.<domain>.API``.
            prefix: API prefix instead of ``$JS.API`` (for imports from another account).
            timeout: seconds that an API request may take.
        """
        from ..jetstream.context import JetStreamContext

        return JetStreamContext(self, domain=domain, prefix=prefix, timeout=timeout)

    def __repr__(self) -> str:
        return f"<Client {self.state} {self.connected_url or ', '.join(self.servers)}>"


class PendingRequest(RequestSlot):
    """A request under way: a slot of the reply inbox with a future.

    Every client that sees a request can have the server send other messages to its inbox. Where the server
    itself answers, what does not count is ignored: the genuine answer follows.

    Args:
        limit: seconds to wait for the answer.
        begins: only a bare answer counts, see ``is_bare``, and one that begins so; ``None``: any.
        counts: tells whether an answer does; called at once, by the reading side: it must not raise.
        now: write it at once, if no other request is under way.
    """

    __slots__ = ("_begins", "_connection", "_counts", "_limit", "_mux")

    def __init__(
        self,
        connection: Connection,
        subject: bytes,
        payload: Buffer,
        header: bytes,
        limit: float,
        begins: bytes | None = None,
        counts: Callable[[WireMsg], bool] | None = None,
        *,
        now: bool = False,
    ) -> None:
        if connection.home._thread_id != get_ident():
            raise foreign_loop()
        self.subject = subject  # by hand: two constructors more cost 1 % of a small get
        self.future = connection.loop.create_future()
        self._connection = connection
        self._limit = limit
        self._begins = begins
        self._counts = counts
        self._mux = mux = connection.mux
        mux.open(self)
        try:
            mux.arm(self, limit)
            # A request alone has no other frames to wait for.
            connection.publish(subject, payload, self.inbox, header, now=now and len(mux) == 1)
        except BaseException:
            self.close()
            raise

    async def wait(self) -> WireMsg:
        """Return the answer, or raise an error of :meth:`Client.request`."""
        if len(self._mux) == 1:
            self._connection.flush_now()
        try:
            return await self.future
        finally:
            self.close()

    def close(self) -> None:
        """Forget the request; a late answer is dropped. Idempotent."""
        future = self.future
        replied = future.done() and not future.cancelled() and future.exception() is None
        # exception() was called in any case: else asyncio would log an error that nobody waits for.
        if self._mux.close(self) and not replied and not self.answered:
            self._connection.stopped_waiting(self.subject)

    def on_reply(self, rest: bytes, msg: WireMsg) -> None:
        future = self.future
        if future.done():
            return
        if msg.header is not None and not msg.payload and no_responders(msg):
            super().on_reply(rest, msg)
            return
        begins, counts = self._begins, self._counts
        if begins is not None and not (
            is_bare(msg) and (not begins or bytes(msg.payload[: len(begins)]) == begins)
        ):
            return
        if counts is None or counts(msg):
            future.set_result(msg)

    def on_timeout(self) -> None:
        if not self.future.done():
            name = self.subject.decode("utf-8", "replace")
            self.future.set_exception(
                RequestTimeoutError(f"no answer from {brief(name)} within {seconds(self._limit)} s")
            )
            self._connection.probe()
