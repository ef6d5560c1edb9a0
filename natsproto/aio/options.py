"""The options of :func:`natsproto.connect`, checked once, before any byte is sent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING

from ..errors import BadSubjectError, ConfigError
from ..subjects import check_publish_subject
from ..transport import Transport, TransportKind
from .auth import Credentials
from .callbacks import (
    Callback,
    DelayCallback,
    ErrorCallback,
    LostCallback,
    NextServerCallback,
    wants_reason,
)
from .server_pool import Server, parse_urls
from .websocket_headers import HandshakeHeadersSource, check_headers

if TYPE_CHECKING:
    import ssl

DEFAULT_SERVER = "nats://127.0.0.1:4222"

DEFAULT_TRANSPORT: TransportKind = "buffered"
"""The faster one in the paired runs of ``bench/``."""


MAX_PREFIX = 1000
"""Bytes of the longest ``inbox_prefix``: four of that length fit in a control line."""

DEFAULT_RETRY_BUDGET = 20.0
"""Seconds without progress before retries are given up (a lost leader is replaced after about 7 s)."""

_SECONDS = (
    "connect_timeout",
    "request_timeout",
    "drain_timeout",
    "retry_budget",
    "ping_interval",
    "reconnect_wait",
    "reconnect_wait_max",
)
"""Options in seconds, which must be above 0."""

_INTEGERS = {
    "max_outstanding_pings": 1,
    "max_reconnects": -1,
    "reconnect_buffer_size": 0,
    "pending_msgs_limit": 1,
    "pending_bytes_limit": 1,
}
"""Options that are integers, with the lowest value of each."""

_FLAGS = ("retry_on_failed_connect", "echo", "verbose", "pedantic")
"""Options that must be true or false: a server hangs up on a client that tells it something else."""

_CALLABLES = (
    "error_cb",
    "connected_cb",
    "disconnected_cb",
    "reconnected_cb",
    "closed_cb",
    "discovered_server_cb",
    "lame_duck_cb",
    "reconnect_error_cb",
    "next_server_cb",
    "reconnect_delay_cb",
)
"""Options that must be callable."""


@dataclass(slots=True, repr=False, eq=False)
class Options(Credentials):
    """See :func:`natsproto.connect` for the meaning, unit and default of each option."""

    servers: str | Sequence[str] = DEFAULT_SERVER
    _: KW_ONLY
    name: str | None = None
    tls: ssl.SSLContext | bool | None = None
    tls_hostname: str | None = None
    tls_first: bool = False
    ws_connection_headers: HandshakeHeadersSource | None = None
    connect_timeout: float = 2.0
    request_timeout: float = 5.0
    drain_timeout: float = 30.0
    retry_budget: float = DEFAULT_RETRY_BUDGET
    ping_interval: float = 20.0
    max_outstanding_pings: int = 2
    reconnect: bool = True
    max_reconnects: int = 60
    reconnect_wait: float = 0.1
    reconnect_wait_max: float = 4.0
    reconnect_buffer_size: int = 8 * 1024 * 1024
    retry_on_failed_connect: bool = False
    randomize: bool = True
    ignore_discovered: bool = False
    inbox_prefix: str = "_INBOX"
    echo: bool = True
    verbose: bool = False
    pedantic: bool = False
    pending_msgs_limit: int = 65536
    pending_bytes_limit: int = 64 * 1024 * 1024
    transport: TransportKind | None = None
    error_cb: ErrorCallback | None = None
    connected_cb: Callback | None = None
    disconnected_cb: LostCallback | None = None
    reconnected_cb: Callback | None = None
    closed_cb: Callback | None = None
    discovered_server_cb: Callback | None = None
    lame_duck_cb: Callback | None = None
    reconnect_error_cb: ErrorCallback | None = None
    next_server_cb: NextServerCallback | None = None
    reconnect_delay_cb: DelayCallback | None = None

    check_peer: Callable[[Transport], None] | None = field(default=None, init=False)
    """Not for users: called with each connection when INFO has arrived, before anything is sent.
    An exception ends the attempt to connect."""

    def __post_init__(self) -> None:
        Credentials.__post_init__(self)  # super() does not work in the class that slots=True creates
        if self.tls is False and (self.tls_first or self.tls_hostname):
            raise ConfigError("tls=False contradicts tls_first and tls_hostname")
        if not (self.tls is None or isinstance(self.tls, bool) or hasattr(self.tls, "wrap_bio")):
            raise ConfigError("tls must be an ssl.SSLContext, True, False or None")
        websocket = self.parse_servers(self.servers)[0].websocket
        if self.ws_connection_headers is not None and not websocket:
            raise ConfigError("ws_connection_headers are for ws:// and wss:// servers")
        check_headers(self.ws_connection_headers)
        for what in _SECONDS:
            setattr(self, what, check_seconds(what, getattr(self, what)))
        for what, least in _INTEGERS.items():
            check_integer(what, getattr(self, what), least)
        try:
            prefix = check_publish_subject(self.inbox_prefix)
        except BadSubjectError as exc:
            raise ConfigError(f"inbox_prefix: {exc}") from exc
        if len(prefix) > MAX_PREFIX:  # it shares a line with the subjects of requests
            raise ConfigError(f"inbox_prefix has {len(prefix)} bytes: at most {MAX_PREFIX}")
        self.inbox_prefix = prefix.decode()
        if self.transport not in (None, "buffered", "streams"):
            raise ConfigError(f"unknown transport {self.transport!r}: use 'buffered' or 'streams'")
        if self.name is not None and not isinstance(self.name, str):
            raise ConfigError("name must be a str")
        for what in _FLAGS:
            if not isinstance(getattr(self, what), bool):
                raise ConfigError(f"{what} must be True or False, not {getattr(self, what)!r}")
        for what in _CALLABLES:
            callback = getattr(self, what)
            if not (callback is None or callable(callback)):
                raise ConfigError(f"{what} must be callable, not {type(callback).__name__}")
        if self.disconnected_cb is not None:
            wants_reason(self.disconnected_cb)

    def parse_servers(self, urls: str | Sequence[str]) -> list[Server]:
        """Return the servers of a list of URLs.

        Raises:
            ConfigError: a URL is not valid, or contradicts the other options.
        """
        servers = parse_urls(urls)
        if self.tls is False and any(server.scheme in ("tls", "wss") for server in servers):
            raise ConfigError("tls=False contradicts a tls:// or wss:// server")
        return servers

    @property
    def transport_kind(self) -> TransportKind:
        """``transport``, or the default."""
        return self.transport or DEFAULT_TRANSPORT

    def wants_tls(self, scheme: str) -> bool:
        """True when the client requires TLS, whatever the server offers."""
        return scheme in ("tls", "wss") or self.tls_first or self.tls not in (None, False)

    def ssl_context(self) -> ssl.SSLContext:
        """Return the caller's context, or the default one (verifies names and chains; TLS 1.2 or newer)."""
        if self.tls is not None and not isinstance(self.tls, bool):
            return self.tls
        import ssl

        context = ssl.create_default_context()
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.hostname_checks_common_name = False
        return context


def check_seconds(what: str, value: object) -> float:
    """Return ``value`` if it is a number of seconds above 0, else raise ``ConfigError``."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise ConfigError(f"{what} must be a number of seconds above 0, not {value!r}")
    return float(value)


def check_integer(what: str, value: object, least: int) -> None:
    """Raise ``ConfigError`` unless ``value`` is an integer of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"{what} must be an integer of at least {least}, not {value!r}")
