"""The blocking client: connect, publish, subscribe, request, flush, drain, close."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import TYPE_CHECKING, ParamSpec

from natsproto.aio import connect as aio_connect
from natsproto.aio.request_many import check_sentinel

from .jetstream import JetStreamContext
from .loop_thread import Link
from .messages import Msg, Responses, Subscription
from .store import ObjectStore

if TYPE_CHECKING:
    from types import TracebackType

    from natsproto.aio.client import HeadersLike
    from natsproto.aio.connection import Stats
    from natsproto.transport import Buffer

P = ParamSpec("P")


class Client:
    """A connection to NATS, from :func:`connect`: the twin of :class:`natsproto.Client`, for any threads.

    Each method waits for its namesake, with the same arguments, results and errors. It runs in a background
    thread that all connections of the process share. A forked child cannot use it: it connects again.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._client = link.client

    # -- properties -------------------------------------------------------------------------------

    @property
    def is_connected(self) -> bool:
        """True while a session is established."""
        return self._client.is_connected and not self._link.thread.inherited

    @property
    def is_closed(self) -> bool:
        """True after ``close()``/``drain()``, when reconnecting was given up, and in a forked child."""
        return self._client.is_closed or self._link.thread.inherited

    @property
    def state(self) -> str:
        """``connecting`` (for the first time), ``connected``, ``reconnecting`` or ``closed``."""
        return "closed" if self.is_closed else self._client.state

    @property
    def server_info(self) -> dict[str, object]:
        """A copy of the connected server's INFO; empty while not connected."""
        return self._client.server_info

    @property
    def connected_url(self) -> str | None:
        """The connected server's URL without credentials."""
        return self._client.connected_url

    @property
    def servers(self) -> list[str]:
        """URLs (without credentials) of all known servers, including announced ones."""
        return self._client.servers

    @property
    def discovered_servers(self) -> list[str]:
        """URLs announced by a server."""
        return self._client.discovered_servers

    @property
    def max_payload(self) -> int:
        """Most bytes of header + payload that the server (while disconnected, the last one) accepts."""
        return self._client.max_payload

    @property
    def client_id(self) -> int | None:
        """The id the server gave this connection."""
        return self._client.client_id

    @property
    def stats(self) -> Stats:
        """Counters over all sessions of this client."""
        return self._client.stats

    @property
    def last_error(self) -> BaseException | None:
        """The newest error of the connection, reported or not."""
        return self._client.last_error

    # -- messages ---------------------------------------------------------------------------------

    def publish(
        self,
        subject: str,
        payload: Buffer = b"",
        *,
        reply: str | None = None,
        headers: HeadersLike | None = None,
    ) -> None:
        """Publish a message; after :meth:`flush` the server has it: :meth:`natsproto.Client.publish`."""
        self._link.call(self._client.publish, subject, payload, reply=reply, headers=headers)

    def subscribe(
        self,
        subject: str,
        *,
        queue: str | None = None,
        max_msgs: int = 0,
        pending_msgs_limit: int | None = None,
        pending_bytes_limit: int | None = None,
    ) -> Subscription:
        """Subscribe, ``for msg in nc.subscribe(…)``: :meth:`natsproto.Client.subscribe`."""

        async def begin() -> Subscription:
            twin = await self._client.subscribe(
                subject,
                queue=queue,
                max_msgs=max_msgs,
                pending_msgs_limit=pending_msgs_limit,
                pending_bytes_limit=pending_bytes_limit,
            )
            return Subscription(self._link, twin)  # here: if the caller is interrupted, it is dropped

        return self._link.call(begin)

    def request(
        self,
        subject: str,
        payload: Buffer = b"",
        *,
        timeout: float | None = None,
        headers: HeadersLike | None = None,
    ) -> Msg:
        """Publish and return the first answer: :meth:`natsproto.Client.request`."""
        answer = self._link.call(self._client.request, subject, payload, timeout=timeout, headers=headers)
        return Msg(self._link, answer)

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
        """Publish, and iterate over the answers: :meth:`natsproto.Client.request_many`."""
        check_sentinel(sentinel)

        async def begin() -> Responses:
            twin = self._client.request_many(
                subject, payload, timeout=timeout, headers=headers, max_messages=max_messages, stall=stall
            )
            return Responses(self._link, twin, sentinel)

        return self._link.call(begin)

    def new_inbox(self) -> str:
        """Return a new subject for replies, which nobody can guess."""
        return self._client.new_inbox()

    def flush(self, timeout: float | None = None) -> None:
        """Wait until the server has processed everything sent so far: :meth:`natsproto.Client.flush`."""
        self._link.call(self._client.flush, timeout)

    def rtt(self, timeout: float | None = None) -> float:
        """Return the seconds from a PING to its PONG: :meth:`natsproto.Client.rtt`."""
        return self._link.call(self._client.rtt, timeout)

    # -- which server -----------------------------------------------------------------------------

    def force_reconnect(self) -> None:
        """Leave the current server and connect again: :meth:`natsproto.Client.force_reconnect`."""
        self._link.call(self._client.force_reconnect)

    def set_server_pool(self, urls: str | Sequence[str]) -> None:
        """Use other servers for further attempts to connect: :meth:`natsproto.Client.set_server_pool`."""

        async def replace() -> None:
            self._client.set_server_pool(urls)

        self._link.call(replace)

    # -- end --------------------------------------------------------------------------------------

    def drain(self) -> None:
        """Close gracefully: :meth:`natsproto.Client.drain`. It waits until readers and writers are closed."""
        self._link.end(self._client.drain)

    def close(self) -> None:
        """Close now: :meth:`natsproto.Client.close`. Idempotent; the end of the program does it, too."""
        self._link.end(self._client.close)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- layers above -----------------------------------------------------------------------------

    def jetstream(
        self, *, domain: str | None = None, prefix: str | None = None, timeout: float = 5.0
    ) -> JetStreamContext:
        """Return the JetStream context of this client: :meth:`natsproto.Client.jetstream`."""
        twin = self._client.jetstream(domain=domain, prefix=prefix, timeout=timeout)
        return JetStreamContext(self._link, self, twin)

    def object_store(self, bucket: str, *, create: bool = False) -> ObjectStore:
        """Open an object store, short for ``jetstream().object_store(…)``.

        Args:
            create: create it, with the default configuration, if it does not exist.
        """
        return self.jetstream().object_store(bucket, create=create)

    def __repr__(self) -> str:
        return repr(self._client)


def _with_options_of(
    options: Callable[P, aio_connect.connect],
) -> Callable[[Callable[[aio_connect.connect], Client]], Callable[P, Client]]:
    """Give a function of some options the arguments that make these options."""

    def decorate(function: Callable[[aio_connect.connect], Client]) -> Callable[P, Client]:
        @wraps(options, assigned=(), updated=())  # inspect.signature() shows their arguments
        @wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> Client:
            return function(options(*args, **kwargs))

        return run

    return decorate


@_with_options_of(aio_connect.connect)
def connect(options: aio_connect.connect) -> Client:
    """Connect to NATS: ``with objstore.sync.connect(url) as nc``, or ``nc = objstore.sync.connect(url)``.

    It takes the arguments of :func:`natsproto.connect`, and raises its errors. Callbacks (``error_cb`` …) are
    called in the connection's thread, where they must not make blocking calls.

    Raises:
        RuntimeError: an event loop runs in this thread, and the session is not interactive: the call would
            block the loop.
    """
    return Client(Link(options))
