"""``connect()``: opens a client."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

from .client import Client
from .options import Options

if TYPE_CHECKING:
    from types import TracebackType


class connect(Options):
    """Connect to NATS: ``nc = await connect(url)`` or ``async with connect(url) as nc``.

    If no server can be reached, the first connect fails at once with one error, unless
    ``retry_on_failed_connect`` is set; later a lost connection is replaced in the background (at once, then
    with growing, jittered pauses).

    Args:
        servers: URL, comma-separated URLs or a list: ``nats://``, ``tls://``, ``ws://``, ``wss://``,
            ``user:password@`` or ``token@`` before the host; default ``nats://127.0.0.1:4222``.
        name: shown in the server's connection list.
        user, password, token: credentials. A server whose URL has credentials gets only those. A user without
            a password is for servers that ask a service who may connect (auth callout, nats-server 2.10).
        nkey_seed, creds, creds_content, jwt, signature_cb: NKey / JWT authentication (extra ``nkeys`` unless
            ``signature_cb`` signs). ``creds`` is the path of a credentials file, read again at each attempt
            to connect; ``creds_content`` is what such a file contains. It, ``jwt``, ``nkey_seed`` and
            ``token`` are ``str`` or ``bytes``, or a callable that returns that, called at each attempt.
        nkey: the public key (``U…``) of ``signature_cb``, if no JWT contains it.
        tls: ``True`` or an ``ssl.SSLContext`` requires TLS; ``False`` forbids it; ``None`` follows the
            scheme and the server.
        tls_hostname: the name to verify instead of the host.
        tls_first: TLS before INFO (server option ``handshake_first``, nats-server 2.10.4).
        ws_connection_headers: HTTP headers for the opening handshake of a WebSocket, as a proxy may want
            them: names with a value or several, or a callable that returns them, called at each attempt to
            connect. Every server gets them. The path that a proxy may want is that of the URL; servers
            announced there get the same one.
        connect_timeout: seconds for one attempt at one server (2).
        request_timeout: seconds for ``request`` and ``flush`` (5).
        drain_timeout: seconds for ``drain`` (30), before it closes the client.
        retry_budget: seconds without progress after which object stores and ordered consumers stop retrying
            while a connection or a leader is away (20; an election takes about 7). For a single call:
            :meth:`objstore.ObjectStore.with_options`.
        ping_interval, max_outstanding_pings: a PING every 20 s; the connection is abandoned when 2 in a row
            are unanswered and no other byte came, or when the server has acknowledged nothing meanwhile
            although senders wait (only Linux reports that). A request that times out is followed by a
            PING; then 2 s of silence are enough.
        reconnect: ``False`` closes the client when the connection is lost.
        max_reconnects: failures in a row after which a server is dropped from the list (60; -1 = never). A
            server that refused the credentials twice is dropped in any case. Without a server the client
            closes for good.
        reconnect_wait, reconnect_wait_max: first and longest pause between rounds, seconds (0.1, 4).
        reconnect_buffer_size: bytes of publishes kept while disconnected (8 MiB).
        retry_on_failed_connect: return at once, and connect in the background, as often as after a lost
            connection. Until then the client's state is ``connecting``: publishes are kept, subscriptions
            wait, requests are sent if the connection comes before their time-out. ``connected_cb`` tells of
            the connection, ``error_cb`` of each round of failures, ``closed_cb`` that no server is left.
        randomize: shuffle the server list.
        ignore_discovered: ignore servers announced in INFO.
        inbox_prefix: first tokens of reply subjects; at most 1000 bytes.
        echo: receive one's own messages.
        verbose: let the server answer each line with ``+OK``, which costs 5 bytes a message and changes
            nothing else: for reading along on the wire.
        pedantic: let the server check publish subjects.
        pending_msgs_limit, pending_bytes_limit: default limits of a subscription's queue.
        transport: ``"buffered"`` or ``"streams"``, see :mod:`natsproto.transport`.
        error_cb: called with each error that belongs to no call, and with the refusal of each subscription;
            without it they are logged, at most 10 of a class per second. 100 calls run at a time and 1,000
            wait; further errors are dropped, with one line in the log.
        connected_cb: called when the first connection is established.
        disconnected_cb: called when the connection has ended: lost, left by ``force_reconnect()``, or closed
            by ``close()`` or ``drain()`` (then ``is_closed`` is true). It gets the reason, a
            ``StaleConnectionError``, if it has a parameter without a default, else no arguments.
        reconnected_cb: called when another connection is established after that.
        closed_cb: called once, at the end: after ``close()`` or ``drain()``, after ``disconnected_cb`` if the
            client was connected; or when reconnecting was given up.
        discovered_server_cb: called when a server announces new ones; not for the first INFO of the first
            connection.
        lame_duck_cb: called when the current server is about to shut down.
        reconnect_error_cb: called with the error of each failed attempt to connect in the background, at
            most as often as ``error_cb``: ``NoServersError`` with the reason in ``attempts``, or an error of
            ``connect()``.
        next_server_cb: called before each attempt to reconnect (and of the first connect in the background,
            from the second round on) with a list of the pool's URLs and a ``dict`` of how often in a row
            each has failed; returns the one to try, or ``None`` for the usual order.
        reconnect_delay_cb: called before each attempt, too, with the number of failed attempts and of failed
            rounds since the connection was lost (0 and 0 at first; a round ends when every server was
            tried); returns the seconds to wait (0 to a day), or ``None`` for the usual pause.

    Callbacks are called without arguments where nothing else is said, and may be coroutine functions. They
    must not block the event loop. An exception is logged, never fatal. If ``next_server_cb`` or
    ``reconnect_delay_cb`` raises, takes longer than ``connect_timeout``, or returns something else,
    ``error_cb`` gets a ``ConfigError``, and the default counts.

    Raises:
        ConfigError: unusable options (raised by the call itself, before any byte is sent).
        NoServersError: no server could be reached.
        AuthorizationError: the credentials were refused.
        SecureConnectionRequiredError: only one side wants TLS.
    """

    __slots__ = ("_client",)

    async def _open(self) -> Client:
        client = Client(self)
        await client.connection.open()
        return client

    def __await__(self) -> Generator[object, None, Client]:
        return self._open().__await__()

    async def __aenter__(self) -> Client:
        self._client = await self._open()
        return self._client

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.close()
