"""The list of servers: parsing of URLs, order of attempts, discovery. Pure logic, no clock, no socket."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ..errors import ConfigError

if TYPE_CHECKING:
    import random

DEFAULT_PORT = 4222
DEFAULT_PORTS = {"nats": DEFAULT_PORT, "tls": DEFAULT_PORT, "ws": 80, "wss": 443}
MAX_POOL = 256
"""Servers kept at the most; a peer can announce any number of them in INFO."""


class Server:
    """One address to try, with what is known of it."""

    __slots__ = (
        "auth_failures",
        "discovered",
        "failures",
        "host",
        "password",
        "path",
        "port",
        "scheme",
        "tls_name",
        "token",
        "user",
    )

    def __init__(
        self,
        scheme: str,
        host: str,
        port: int,
        *,
        user: str | None = None,
        password: str | None = None,
        token: str | None = None,
        path: str = "",
        tls_name: str | None = None,
        discovered: bool = False,
    ) -> None:
        self.scheme = scheme
        self.host = host
        self.port = port
        self.user = user
        self.password = password
        self.token = token
        self.path = path
        self.tls_name = tls_name
        self.discovered = discovered
        self.failures = 0
        self.auth_failures = 0

    @property
    def url(self) -> str:
        """The URL without credentials: fit for messages and logs."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.path}"

    @property
    def address(self) -> tuple[str, int]:
        """What makes two servers the same one."""
        return self.host, self.port

    def __repr__(self) -> str:
        return f"<Server {self.url}>"


def parse_url(text: str) -> Server:
    """Parse ``nats://[user:password@|token@]host[:port]``; also ``tls``, ``ws``, ``wss`` and bare hosts.

    Raises:
        ConfigError: unknown scheme, no host, or a port that is none. The message holds no credentials.
    """
    from urllib.parse import unquote, urlsplit  # loaded on first use: it takes 3 ms to import

    if not isinstance(text, str) or not text.strip():
        raise ConfigError(f"a server URL must be a non-empty str, not {type(text).__name__}")
    raw = text.strip()
    if any(ch.isspace() or ord(ch) < 32 for ch in raw):
        raise ConfigError("a server URL must not contain white space or control characters")
    if "://" not in raw:
        raw = "nats://" + raw
    try:
        parts = urlsplit(raw)
        host, port = parts.hostname, parts.port
    except ValueError:
        # Not chained: the original quotes the text, which may be part of a password.
        raise ConfigError("a server URL has an invalid host or port (write nats://host:port)") from None
    if parts.scheme not in DEFAULT_PORTS:
        known = ", ".join(DEFAULT_PORTS)
        raise ConfigError(f"unknown scheme {parts.scheme!r} in a server URL: use one of {known}")
    if not host or port == 0:
        raise ConfigError("a server URL needs a host and a port above 0 (write nats://host:port)")
    user = password = token = None
    if parts.username is not None:
        if parts.password is None:
            token = unquote(parts.username)
        else:
            user, password = unquote(parts.username), unquote(parts.password)
    return Server(
        parts.scheme,
        host,
        port if port is not None else DEFAULT_PORTS[parts.scheme],
        user=user,
        password=password,
        token=token,
        path=parts.path if parts.scheme in ("ws", "wss") else "",
    )


class ServerPool:
    """Which server to try next.

    Args:
        urls: one URL or several; a ``str`` may hold several, separated by commas.
        randomize: shuffle the given servers once, and those announced later among themselves.
        rng: source of randomness (injected by tests).
    """

    def __init__(
        self, urls: str | Sequence[str], *, randomize: bool = True, rng: random.Random | None = None
    ) -> None:
        texts = urls.split(",") if isinstance(urls, str) else list(urls)
        if not texts:
            raise ConfigError("no server given")
        if rng is None:
            import random

            rng = random.Random()
        self.rng = rng
        self._randomize = randomize
        self.servers: list[Server] = []
        for text in texts:
            server = parse_url(text)
            if all(server.address != known.address for known in self.servers):
                self.servers.append(server)
        if len({server.scheme in ("ws", "wss") for server in self.servers}) > 1:
            raise ConfigError("WebSocket and TCP servers cannot be mixed in one list")
        if randomize:
            self.rng.shuffle(self.servers)
        self.current: Server | None = None

    def __len__(self) -> int:
        return len(self.servers)

    def round(self) -> list[Server]:
        """The servers in the order to try them now: those after the current one first, it last."""
        if self.current is None or self.current not in self.servers:
            return list(self.servers)
        at = self.servers.index(self.current) + 1
        return self.servers[at:] + self.servers[:at]

    def connected(self, server: Server) -> None:
        """``server`` works: forget its failures."""
        self.current = server
        server.failures = 0
        server.auth_failures = 0

    def failed(self, server: Server, *, auth: bool = False, limit: int = -1) -> None:
        """Count a failed attempt; drop the server after two refusals of the credentials or ``limit``."""
        server.failures += 1
        if auth:
            server.auth_failures += 1
        if server.auth_failures >= 2 or 0 <= limit < server.failures:
            self.servers = [known for known in self.servers if known is not server]

    def others(self) -> bool:
        """True when there is a server besides the current one."""
        return any(server is not self.current for server in self.servers)

    def discover(
        self, urls: Iterable[object], *, via: Server, secure: bool = False, trusted: bool = True
    ) -> list[Server]:
        """Take over addresses announced by ``via`` in INFO; returns the new ones.

        They get the credentials of the server that announced them and its scheme, or a stronger one when
        the session is encrypted. Entries that are no ``host:port`` are passed over. Announced servers that
        are announced no longer are forgotten, except the current one.

        Args:
            urls: the list in INFO.
            via: the server that sent it.
            secure: the session is encrypted.
            trusted: INFO did not come in clear before the encryption. Otherwise, and for IP addresses, the
                new servers' certificates must be for the name that was asked for in the first place.
        """
        scheme = "tls" if secure and via.scheme == "nats" else via.scheme
        asked_for = via.tls_name or via.host
        announced: dict[tuple[str, int], Server] = {}
        for text in urls:
            if len(announced) >= MAX_POOL or not isinstance(text, str) or "@" in text or "/" in text:
                continue
            try:
                parsed = parse_url(f"{scheme}://{text}")
            except ConfigError:
                continue
            pinned = not trusted or (_is_address(parsed.host) and not _is_address(asked_for))
            announced[parsed.address] = Server(
                scheme,
                parsed.host,
                parsed.port,
                user=via.user,
                password=via.password,
                token=via.token,
                path=via.path,
                tls_name=asked_for if pinned else None,
                discovered=True,
            )
        self.servers = [
            known
            for known in self.servers
            if not known.discovered or known is self.current or known.address in announced
        ]
        for known in self.servers:
            if known.discovered and known.address in announced:
                known.tls_name = announced[known.address].tls_name
        known_addresses = {server.address for server in self.servers}
        new = [server for address, server in announced.items() if address not in known_addresses]
        if self._randomize:
            self.rng.shuffle(new)
        new = new[: max(0, MAX_POOL - len(self.servers))]
        self.servers.extend(new)
        return new


def _is_address(host: str) -> bool:
    return ":" in host or host.replace(".", "").isdigit()


def backoff(attempt: int, *, first: float, ceiling: float, rng: random.Random) -> float:
    """Seconds to wait before round ``attempt`` (0 = none): doubling, with full jitter on the upper half."""
    if attempt <= 0:
        return 0.0
    limit = min(ceiling, first * 2.0 ** min(attempt - 1, 30))
    return limit / 2 + rng.random() * limit / 2
