"""The list of servers: parsing URLs, order of attempts, discovery. Pure logic, no clock, no socket."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import KW_ONLY, dataclass
from itertools import islice
from typing import TYPE_CHECKING

from ..errors import ConfigError

if TYPE_CHECKING:
    import random

DEFAULT_PORT = 4222
DEFAULT_PORTS = {"nats": DEFAULT_PORT, "tls": DEFAULT_PORT, "ws": 80, "wss": 443}
MAX_POOL = 256
"""Servers in the list at most; a peer can announce any number of them in INFO."""

MAX_SECURED = 64 * MAX_POOL
"""Addresses remembered because they, or the server that announced them, were reached through TLS."""

_SECURE = {"nats": "tls", "ws": "wss"}

MAX_ANNOUNCED = 4 * MAX_POOL
"""Announced addresses that are parsed; parsing tens of thousands would block the event loop."""

Peer = tuple[str, int] | tuple[str, int, int, int]
"""The other end of a connection, as :meth:`socket.socket.getpeername` returns it."""

_GIVEN = ("scheme", "host", "port", "user", "password", "token", "path")
"""What a URL says about a server."""

_SEED = re.compile("s[auocnx][a-z2-7]{40,}")
"""An NKey's seed as a host: it would go to a name server, and into messages."""

_ESCAPES = "in a user, password or token write / as %2F, ? as %3F, # as %23, [ as %5B, ] as %5D and , as %2C"

LONGEST_ADDRESS = 300
"""Characters of the longest announced address; a DNS name has up to 253."""


@dataclass(slots=True, eq=False, repr=False)
class Server:
    """One address to try, with what is known about it.

    Attributes:
        secured: it, or the server that announced it, was once reached through TLS; so it is never used
            without, even if the user gave it. Otherwise anybody who can answer in its place for a moment
            would get the credentials in clear.
        doubtful: announced in clear before the encryption, and never reached: tried after all others.
    """

    scheme: str
    host: str
    port: int
    _: KW_ONLY
    user: str | None = None
    password: str | None = None
    token: str | None = None
    path: str = ""
    tls_name: str | None = None
    discovered: bool = False
    secured: bool = False
    doubtful: bool = False
    failures: int = 0
    auth_failures: int = 0

    @property
    def url(self) -> str:
        """The URL without credentials, for messages and logs."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.path}"

    @property
    def address(self) -> tuple[str, int]:
        """Host and port; servers with the same address are the same."""
        return self.host, self.port

    @property
    def websocket(self) -> bool:
        """Whether it is reached through WebSocket."""
        return self.scheme in ("ws", "wss")

    @property
    def has_credentials(self) -> bool:
        """Whether the URL contains some. Such a server gets no others."""
        return self.user is not None or self.token is not None

    def given_as(self, other: Server) -> bool:
        """Whether both are the same URL, with the same credentials."""
        return all(getattr(self, field) == getattr(other, field) for field in _GIVEN)

    def __repr__(self) -> str:
        return f"<Server {self.url}>"


def parse_url(text: str) -> Server:
    """Parse ``nats://[user:password@|token@]host[:port]``; also ``tls``, ``ws``, ``wss`` and bare hosts.

    Raises:
        ConfigError: unknown scheme, no host, or an invalid port. The message contains no credentials.
    """
    from urllib.parse import quote, unquote, urlsplit  # loaded on first use: it takes 3 ms to import

    if not isinstance(text, str):
        raise ConfigError(f"a server URL must be a str, not {type(text).__name__}")
    if not text.strip():
        raise ConfigError("a server URL must not be empty")
    raw = text.strip()
    if any(ch.isspace() or ord(ch) < 32 for ch in raw):
        raise ConfigError("a server URL must not contain white space or control characters")
    if "://" not in raw:
        raw = "nats://" + raw
    try:
        parts = urlsplit(raw)
        host, port = parts.hostname, parts.port
    except ValueError:
        parts = None
    if parts is None:
        # Raised outside the except block: the original error quotes the text, perhaps part of a password.
        # `from None` only hides it, and error trackers show hidden errors.
        hint = f"; {_ESCAPES}" if "@" in raw else ""
        raise ConfigError(f"a server URL has an invalid host or port (write nats://host:port){hint}")
    if parts.scheme not in DEFAULT_PORTS:
        known = ", ".join(DEFAULT_PORTS)
        shown = "" if "@" in raw else f" {parts.scheme!r}"  # in secret://x@h it may be half of a token
        raise ConfigError(f"unknown scheme{shown} in a server URL: use one of {known}")
    if not host or port == 0:
        raise ConfigError("a server URL needs a host and a port above 0 (write nats://host:port)")
    if _SEED.fullmatch(host):
        raise ConfigError("a server URL with a seed as its host (nkey_seed= takes a seed, creds= a path)")
    if not host.isprintable():  # it is shown, and a terminal would act on what is not printable
        raise ConfigError("a server URL must not have control characters or direction marks in its host")
    websocket = parts.scheme in ("ws", "wss")
    if ("@" in parts.path if websocket else parts.path not in ("", "/")) or "?" in raw or "#" in raw:
        raise ConfigError(
            f"a server URL has nothing after host and port (write nats://host:port); {_ESCAPES}"
        )
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
        path=quote(parts.path, safe="/%:!$&'()*+,;=~") if websocket else "",  # HTTP has ASCII only
    )


def _half(text: str) -> bool:
    """Whether ``text`` may be the second half of a URL with a comma in its password."""
    return "@" in text and "://" not in text


def parse_urls(urls: str | Sequence[str]) -> list[Server]:
    """Parse a list of server URLs; each address counts once.

    Args:
        urls: one URL or several; a ``str`` may contain several, separated by commas.

    Raises:
        ConfigError: none, one that :func:`parse_url` refuses, or WebSocket and TCP servers together.
    """
    if not isinstance(urls, Iterable):
        raise ConfigError(f"servers are a URL or a list of URLs, not {type(urls).__name__}")
    texts = urls.split(",") if isinstance(urls, str) else list(urls)
    if not texts:
        raise ConfigError("no server given")
    if isinstance(urls, str) and "://" in texts[0] and any(_half(text) for text in texts):
        raise ConfigError(
            "in a list of server URLs write the scheme of each; in a password or token write , as %2C"
        )
    servers: dict[tuple[str, int], Server] = {}
    for text in texts:
        server = parse_url(text)
        servers.setdefault(server.address, server)
    if len({server.websocket for server in servers.values()}) > 1:
        raise ConfigError("WebSocket and TCP servers cannot be mixed in one list")
    return [*servers.values()]


class ServerPool:
    """Decides which server to try next.

    Args:
        urls: one URL or several; a ``str`` may contain several, separated by commas.
        randomize: shuffle the given servers once, and each set of servers announced later.
        rng: source of randomness (injected by tests).
    """

    def __init__(
        self, urls: str | Sequence[str], *, randomize: bool = True, rng: random.Random | None = None
    ) -> None:
        if rng is None:
            import random

            rng = random.Random()
        self.rng = rng
        self._randomize = randomize
        self.servers: list[Server] = parse_urls(urls)
        self._websocket = self.servers[0].websocket
        if randomize:
            self.rng.shuffle(self.servers)
        self.current: Server | None = None
        self._secured: set[tuple[str, int]] = set()  # as _spelt; includes servers that were dropped since

    def __len__(self) -> int:
        return len(self.servers)

    def round(self) -> list[Server]:
        """The servers in the order to try them: from the one after the current server; doubtful ones last."""
        at = 0 if self.current not in self.servers else self.servers.index(self.current) + 1
        return sorted(self.servers[at:] + self.servers[:at], key=lambda server: server.doubtful)

    def connected(self, server: Server, *, secure: bool = False, peer: Peer | None = None) -> None:
        """``server`` works (with TLS: ``secure``): forget its failures.

        Args:
            peer: the IP address and port at which it was reached.
        """
        self.current = server
        server.secured |= secure
        if secure:
            self._secure([server.address] if peer is None else [server.address, peer[:2]])
        server.doubtful = False
        server.failures = 0
        server.auth_failures = 0

    def _secure(self, addresses: Iterable[tuple[str, int]]) -> None:
        for address in addresses:
            if len(self._secured) < MAX_SECURED:
                self._secured.add(_spelt(*address))

    def _is_secured(self, address: tuple[str, int]) -> bool:
        return bool(self._secured) and _spelt(*address) in self._secured

    def reached(self, server: Server, peer: Peer | None) -> None:
        """``server`` was reached at ``peer``, an IP address and port. TLS sticks to these, too."""
        if peer is None:
            return
        if server.secured:
            self._secure([peer[:2]])
        server.secured |= self._is_secured(peer[:2])

    def share(self, other: ServerPool) -> None:
        """Know what ``other`` knows, and learns, about the use of TLS."""
        self._secured = other._secured

    def failed(self, server: Server, *, auth: bool = False, limit: int = -1) -> None:
        """Count a failed attempt; drop the server after two refused credentials or ``limit`` failures."""
        server.failures += 1
        if auth:
            server.auth_failures += 1
        if server.auth_failures >= 2 or 0 <= limit < server.failures:
            self.servers = [known for known in self.servers if known is not server]

    def replace(self, servers: list[Server]) -> None:
        """Try these servers from now on, and no others until some are announced.

        One that stays, with the same credentials, keeps its failures. TLS sticks to addresses: one that was
        used with TLS, or was announced by a server that was, is not used without, whatever its new URL says.

        Args:
            servers: the result of :func:`parse_urls`.

        Raises:
            ConfigError: TCP servers instead of WebSocket ones, or the reverse.
        """
        if servers[0].websocket is not self._websocket:
            raise ConfigError("WebSocket servers cannot replace TCP servers, nor the reverse: connect again")
        known = {server.address: server for server in self.servers}
        if self.current is not None:
            known.setdefault(self.current.address, self.current)
        pool: list[Server] = []
        for server in servers:
            old = known.get(server.address)
            if old is not None and not old.discovered and old.given_as(server):
                server = old
            server.secured |= self._is_secured(server.address) or (old is not None and old.secured)
            if self.current is not None and self.current.address == server.address:
                self.current = server
            pool.append(server)
        if self._randomize:
            self.rng.shuffle(pool)
        self.servers = pool

    def others(self) -> bool:
        """True when there is a server besides the current one."""
        return any(server is not self.current for server in self.servers)

    def discover(
        self, urls: Iterable[object], *, via: Server, secure: bool = False, trusted: bool = True
    ) -> list[Server]:
        """Add the addresses that ``via`` announced in INFO; return the new servers.

        They get the credentials and the scheme of the server that announced them. If the session is
        encrypted, they get the scheme with TLS, and those among them that the user gave are used only with
        TLS, too. Entries that are not ``host:port`` are ignored. Servers that are no longer announced are
        dropped, except the current one.

        Args:
            urls: the list in INFO.
            via: the server that sent it.
            secure: the session is encrypted.
            trusted: INFO did not come in clear before the encryption. Otherwise, and for IP addresses, the
                new servers' certificates must be for the name that was requested originally.
        """
        scheme = "tls" if secure and via.scheme == "nats" else via.scheme
        asked_for = via.tls_name or via.host
        announced: dict[tuple[str, int], Server] = {}
        for text in islice(urls, MAX_ANNOUNCED):
            if len(announced) >= MAX_POOL or not isinstance(text, str) or len(text) > LONGEST_ADDRESS:
                continue
            if "@" in text or "/" in text:
                continue
            try:
                parsed = parse_url(f"{scheme}://{text}")
            except ConfigError:
                continue
            sticky = secure or self._is_secured(parsed.address)
            pinned = not trusted or (_is_address(parsed.host) and not _is_address(asked_for))
            announced[parsed.address] = Server(
                _SECURE.get(scheme, scheme) if sticky else scheme,
                parsed.host,
                parsed.port,
                user=via.user,
                password=via.password,
                token=via.token,
                path=via.path,
                tls_name=asked_for if pinned else None,
                discovered=True,
                secured=sticky,
                doubtful=not trusted,
            )
        if secure:
            self._secure(announced)
        self.servers = [
            known
            for known in self.servers
            if not known.discovered or known is self.current or known.address in announced
        ]
        for known in self.servers:
            known.secured |= self._is_secured(known.address)
            if known.address in announced:
                known.secured |= secure
                if known.discovered:
                    known.tls_name = announced[known.address].tls_name
                    known.doubtful &= not trusted
        known_addresses = {server.address for server in self.servers}
        new = [server for address, server in announced.items() if address not in known_addresses]
        if self._randomize:
            self.rng.shuffle(new)
        new = new[: max(0, MAX_POOL - len(self.servers))]
        self.servers.extend(new)
        return new


def _spelt(host: str, port: int) -> tuple[str, int]:
    """Return an address in the one way in which it is compared: others write theirs as they like."""
    if _is_address(host):
        from ipaddress import IPv6Address, ip_address  # loaded on first use, like urllib

        try:
            address = ip_address(host.partition("%")[0])
        except ValueError:
            return host, port
        mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
        return str(mapped or address), port
    return host.removesuffix("."), port


def _is_address(host: str) -> bool:
    return ":" in host or host.replace(".", "").isdigit()
