"""The options of :func:`natsproto.connect`, checked once, before any byte is sent."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import BadSubjectError, ConfigError
from ..subjects import check_publish_subject
from ..transport import Transport, TransportKind
from .auth import Credentials, SignatureCallback, TokenSource
from .callbacks import Callback
from .server_pool import ServerPool

if TYPE_CHECKING:
    import ssl

DEFAULT_SERVER = "nats://127.0.0.1:4222"

DEFAULT_TRANSPORT: TransportKind = "buffered"
"""What the paired runs of ``bench/`` show to be the faster one."""


MAX_PREFIX = 1000
"""Bytes of the longest ``inbox_prefix``: a control line has room for 4 of them."""

DEFAULT_RETRY_BUDGET = 20.0
"""Seconds without progress before retries are given up (a lost leader is replaced after about 7 s)."""


class Options:
    """See :func:`natsproto.connect` for what each one means, its unit and default."""

    __slots__ = (
        "check_peer",
        "closed_cb",
        "connect_timeout",
        "credentials",
        "disconnected_cb",
        "discovered_server_cb",
        "drain_timeout",
        "echo",
        "error_cb",
        "ignore_discovered",
        "inbox_prefix",
        "lame_duck_cb",
        "max_outstanding_pings",
        "max_reconnects",
        "name",
        "pedantic",
        "pending_bytes_limit",
        "pending_msgs_limit",
        "ping_interval",
        "randomize",
        "reconnect",
        "reconnect_buffer_size",
        "reconnect_wait",
        "reconnect_wait_max",
        "reconnected_cb",
        "request_timeout",
        "retry_budget",
        "retry_on_failed_connect",
        "servers",
        "tls",
        "tls_first",
        "tls_hostname",
        "transport",
    )

    def __init__(
        self,
        servers: str | Sequence[str] = DEFAULT_SERVER,
        *,
        name: str | None = None,
        user: str | None = None,
        password: str | None = None,
        token: TokenSource | None = None,
        nkey_seed: str | bytes | None = None,
        nkey: str | None = None,
        creds: str | os.PathLike[str] | None = None,
        jwt: TokenSource | None = None,
        signature_cb: SignatureCallback | None = None,
        tls: ssl.SSLContext | bool | None = None,
        tls_hostname: str | None = None,
        tls_first: bool = False,
        connect_timeout: float = 2.0,
        request_timeout: float = 5.0,
        drain_timeout: float = 30.0,
        retry_budget: float = DEFAULT_RETRY_BUDGET,
        ping_interval: float = 20.0,
        max_outstanding_pings: int = 2,
        reconnect: bool = True,
        max_reconnects: int = 60,
        reconnect_wait: float = 0.1,
        reconnect_wait_max: float = 4.0,
        reconnect_buffer_size: int = 8 * 1024 * 1024,
        retry_on_failed_connect: bool = False,
        randomize: bool = True,
        ignore_discovered: bool = False,
        inbox_prefix: str = "_INBOX",
        echo: bool = True,
        pedantic: bool = False,
        pending_msgs_limit: int = 65536,
        pending_bytes_limit: int = 64 * 1024 * 1024,
        transport: TransportKind | None = None,
        error_cb: Callback | None = None,
        disconnected_cb: Callback | None = None,
        reconnected_cb: Callback | None = None,
        closed_cb: Callback | None = None,
        discovered_server_cb: Callback | None = None,
        lame_duck_cb: Callback | None = None,
    ) -> None:
        self.servers = servers
        self.check_peer: Callable[[Transport], None] | None = None
        """Not for users: called with each connection once INFO has come, before anything is sent in answer.
        What it raises ends the attempt to connect."""
        self.name = name
        self.credentials = Credentials(
            user=user,
            password=password,
            token=token,
            nkey_seed=nkey_seed,
            nkey=nkey,
            creds=creds,
            jwt=jwt,
            signature_cb=signature_cb,
        )
        if tls is False and (tls_first or tls_hostname):
            raise ConfigError("tls=False contradicts tls_first and tls_hostname")
        if not (tls is None or isinstance(tls, bool) or hasattr(tls, "wrap_bio")):
            raise ConfigError("tls must be an ssl.SSLContext, True, False or None")
        schemes = {server.scheme for server in ServerPool(servers, randomize=False).servers}
        if tls is False and not schemes.isdisjoint(("tls", "wss")):
            raise ConfigError("tls=False contradicts a tls:// or wss:// server")
        self.tls = tls
        self.tls_hostname = tls_hostname
        self.tls_first = tls_first
        self.connect_timeout = check_seconds("connect_timeout", connect_timeout)
        self.request_timeout = check_seconds("request_timeout", request_timeout)
        self.drain_timeout = check_seconds("drain_timeout", drain_timeout)
        self.retry_budget = check_seconds("retry_budget", retry_budget)
        self.ping_interval = check_seconds("ping_interval", ping_interval)
        self.max_outstanding_pings = _integer("max_outstanding_pings", max_outstanding_pings, 1)
        self.reconnect = reconnect
        self.max_reconnects = _integer("max_reconnects", max_reconnects, -1)
        self.reconnect_wait = check_seconds("reconnect_wait", reconnect_wait)
        self.reconnect_wait_max = check_seconds("reconnect_wait_max", reconnect_wait_max)
        self.reconnect_buffer_size = _integer("reconnect_buffer_size", reconnect_buffer_size, 0)
        self.retry_on_failed_connect = retry_on_failed_connect
        self.randomize = randomize
        self.ignore_discovered = ignore_discovered
        try:
            prefix = check_publish_subject(inbox_prefix)
        except BadSubjectError as exc:
            raise ConfigError(f"inbox_prefix: {exc}") from exc
        if len(prefix) > MAX_PREFIX:  # it shares a line with the subjects of requests
            raise ConfigError(f"inbox_prefix has {len(prefix)} bytes: at most {MAX_PREFIX}")
        self.inbox_prefix = prefix.decode()
        self.echo = echo
        self.pedantic = pedantic
        self.pending_msgs_limit = _integer("pending_msgs_limit", pending_msgs_limit, 1)
        self.pending_bytes_limit = _integer("pending_bytes_limit", pending_bytes_limit, 1)
        self.transport: TransportKind = transport or DEFAULT_TRANSPORT
        if self.transport not in ("buffered", "streams"):
            raise ConfigError(f"unknown transport {transport!r}: use 'buffered' or 'streams'")
        if name is not None and not isinstance(name, str):
            raise ConfigError("name must be a str")
        self.error_cb = error_cb
        self.disconnected_cb = disconnected_cb
        self.reconnected_cb = reconnected_cb
        self.closed_cb = closed_cb
        self.discovered_server_cb = discovered_server_cb
        self.lame_duck_cb = lame_duck_cb

    def wants_tls(self, scheme: str) -> bool:
        """True when this side insists on TLS, whatever the server offers."""
        return scheme in ("tls", "wss") or self.tls_first or self.tls not in (None, False)

    def ssl_context(self) -> ssl.SSLContext:
        """The caller's context, or the default one (verifies names and chains, TLS 1.2 and newer)."""
        if self.tls is not None and not isinstance(self.tls, bool):
            return self.tls
        import ssl

        context = ssl.create_default_context()
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.hostname_checks_common_name = False
        return context


def check_seconds(what: str, value: Any) -> float:
    """A number of seconds above 0; anything else raises ``ConfigError``, which names ``what``."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise ConfigError(f"{what} must be a number of seconds above 0, not {value!r}")
    return float(value)


def _integer(what: str, value: Any, minimum: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise ConfigError(f"{what} must be an integer of at least {minimum}, not {value!r}")
    return value
