"""Several ``nats-server`` processes with routes between them."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Sequence
from typing import Any, Final, Self, TypedDict, Unpack

from ..errors import ConfigError, ServerProcessError
from . import configuration
from .lifetime import Lifetime
from .local import LocalServer
from .process import Ports

_POLL: Final = 0.02  # seconds
_ROUTE_USER: Final = "route"
_PORT_ATTEMPTS: Final = 5


class ServerOptions(TypedDict, total=False):
    """The options of :class:`LocalServer` that the servers of a cluster share."""

    binary: str | os.PathLike[str] | None
    jetstream: bool
    domain: str | None
    config: str | None
    args: Sequence[str]
    port: int | None
    host: str
    user: str | None
    password: str | None
    token: str | None
    max_payload: int | None
    tls: configuration.TlsOptions | None
    monitoring: bool


class _Node(LocalServer):
    """A server with a route port."""

    route_port = 0
    cluster_name = ""
    route_password = ""  # without it every user of the machine could join and bypass all accounts
    peers: Sequence[_Node] = ()

    def _choose_ports(self) -> None:
        self._ports = Ports([(self.host, self._wanted_port), ("127.0.0.1", 0), ("127.0.0.1", 0)])
        self.port, self.monitor_port, self.route_port = self._ports.numbers
        self.name = self._wanted_name or f"natsproto-{self.port}"

    def _config_text(self) -> str:
        access = f"{_ROUTE_USER}:{self.route_password}@"
        routes = ", ".join(
            f'"nats://{access}127.0.0.1:{peer.route_port}"' for peer in self.peers if peer is not self
        )
        block = [
            "cluster {",
            f"  name: {configuration.quote(self.cluster_name)}",
            f'  listen: "127.0.0.1:{self.route_port}"',
            f"  routes: [{routes}]",
            f'  authorization {{ user: "{_ROUTE_USER}", password: "{self.route_password}" }}',
            "}",
        ]
        return "\n".join(block) + "\n" + super()._config_text()

    # The steps of starting and stopping, which all servers of a cluster take together.

    @property
    def given_up(self) -> bool:
        """Whether nobody waits for it to be ready any more."""
        return self._given_up

    @given_up.setter
    def given_up(self, value: bool) -> None:
        self._given_up = value

    @property
    def fresh(self) -> bool:
        """Whether it has no ports yet."""
        return self._ports is None

    def choose_ports(self) -> None:
        """Choose ports, unless it has them."""
        if self._ports is None:
            self._choose_ports()

    def spawn(self) -> None:
        """Start the process, unless it runs."""
        if not self.running:
            self._spawn()

    def wait_ready(self, deadline: float) -> None:
        """Wait until this server is ready, without regard to the others."""
        self._wait_ready(deadline)

    def terminate(self) -> None:
        """Ask the process to end."""
        self._terminate()

    def failure(self, what: str) -> ServerProcessError:
        """Return the error for ``what``, with the end of the log."""
        return self._failure(what)


class LocalCluster(Lifetime):
    """A cluster of local servers, three by default.

    Ready means more than that each server is healthy: with JetStream, all servers know the same meta leader
    and it sees all of them, so a replicated stream can be created at once.

    Each member of ``servers`` is a :class:`LocalServer` and can be killed, paused and restarted alone;
    :meth:`wait_ready` waits until the cluster is whole again.

    Args:
        size: number of servers.
        name: the cluster's name; its servers are called ``<name>-1`` and so on.
        store_dir: JetStream's directory; each server has a subdirectory with its name.
        log_file: path of the logs; each server's name is appended to it.
        start_timeout: seconds from :meth:`start` to readiness.
        options: as for :class:`LocalServer`, the same for all servers, except ``port`` and ``monitoring``,
            which a cluster sets itself.

    Raises:
        ConfigError: contradictory options.

    Attributes:
        servers: the members, in the order of their names.
        name: the cluster's name.
    """

    def __init__(
        self,
        size: int = 3,
        *,
        name: str = "natsproto",
        store_dir: str | os.PathLike[str] | None = None,
        log_file: str | os.PathLike[str] | None = None,
        start_timeout: float = 20.0,
        **options: Unpack[ServerOptions],
    ) -> None:
        if size < 1:
            raise ConfigError("a cluster has at least one server")
        if options.get("port"):
            raise ConfigError("the servers of a cluster choose their ports themselves")
        if not options.get("monitoring", True):
            raise ConfigError("a cluster needs monitoring: it tells when the cluster is ready")
        self.name = name
        self.servers: list[LocalServer] = []
        self._nodes: list[_Node] = []
        self._start_timeout = start_timeout
        self._jetstream = bool(options.get("jetstream", True))
        password = secrets.token_hex(16)
        for number in range(1, size + 1):
            node_name = f"{name}-{number}"
            node = _Node(
                name=node_name,
                store_dir=None if store_dir is None else os.path.join(os.fspath(store_dir), node_name),
                log_file=None if log_file is None else f"{os.fspath(log_file)}.{node_name}",
                start_timeout=start_timeout,
                **options,
            )
            node.cluster_name = name
            node.route_password = password
            node.peers = self._nodes
            self._nodes.append(node)
            self.servers.append(node)

    @property
    def urls(self) -> list[str]:
        """Addresses for clients, one for each server."""
        return [server.url for server in self.servers]

    @property
    def url(self) -> str:
        """All addresses in one text, separated by commas."""
        return ",".join(self.urls)

    @property
    def version(self) -> str:
        """The servers' version."""
        return self.servers[0].version

    @property
    def meta_leader(self) -> LocalServer | None:
        """The server that leads JetStream, if all running servers agree on it; else ``None``."""
        leaders = {self._meta(server).get("leader") for server in self.servers if server.running}
        named = [server for server in self.servers if server.name in leaders]
        return named[0] if len(leaders) == 1 and named else None

    def start(self) -> Self:
        """Start all servers and return when the cluster is ready. Running servers stay as they are.

        Raises:
            ServerProcessError: as :meth:`LocalServer.start`; then all servers are stopped.
        """
        deadline = time.monotonic() + self._start_timeout
        for node in self._nodes:
            node.given_up = False
        for attempt in range(1, _PORT_ATTEMPTS + 1):
            fresh = all(node.fresh for node in self._nodes)
            try:
                for node in self._nodes:
                    node.choose_ports()
                for node in self._nodes:
                    node.spawn()
                self._wait_ready(deadline)
            except BaseException as exc:
                taken = isinstance(exc, ServerProcessError) and "address already in use" in str(exc)
                self.stop()
                if not (taken and fresh and attempt < _PORT_ATTEMPTS):
                    raise
            else:
                break
        return self

    def stop(self) -> None:
        """Stop all servers, as :meth:`LocalServer.stop` does."""
        for node in self._nodes:
            node.terminate()
        for node in self._nodes:
            node.stop()

    def wait_ready(self, timeout: float = 20.0) -> None:
        """Wait until every server runs, is healthy, and knows the meta leader that sees all of them.

        Raises:
            ServerProcessError: a server does not run, or the cluster is not ready after ``timeout`` seconds.
        """
        for node in self._nodes:
            node.given_up = False
        self._wait_ready(time.monotonic() + timeout)

    def __repr__(self) -> str:
        return f"<LocalCluster {self.name} {self.servers!r}>"

    def _give_up(self) -> None:
        for node in self._nodes:
            node.given_up = True

    def _wait_ready(self, deadline: float) -> None:
        for node in self._nodes:
            node.wait_ready(deadline)
        while not self._whole():
            for node in self._nodes:
                if not node.running:
                    raise node.failure("ended while the cluster formed")
                if node.given_up or time.monotonic() > deadline:
                    raise node.failure("did not become part of a working cluster in time")
            time.sleep(_POLL)

    def _whole(self) -> bool:
        others = len(self._nodes) - 1
        # Count servers, not routes: since 2.10 there are several routes between two servers.
        if any(len(self._routed(node)) != others for node in self._nodes):
            return False
        if not self._jetstream:
            return True
        metas = [self._meta(node) for node in self._nodes]
        leaders = {meta.get("leader") for meta in metas}
        leading = [meta for node, meta in zip(self._nodes, metas, strict=True) if node.name in leaders]
        if len(leaders) != 1 or not leading:
            return False
        # Since 2.15 every server lists its view of the others; only the leader's view counts.
        peers = leading[0].get("replicas") or []
        current = [peer for peer in peers if peer.get("current") and not peer.get("offline")]
        return len(current) == others and all(node.healthz() for node in self._nodes)

    @staticmethod
    def _routed(server: LocalServer) -> set[str]:
        try:
            routes = server.monitor("routez").get("routes") or []
        except (OSError, ServerProcessError):
            return set()
        return {route["remote_id"] for route in routes}

    @staticmethod
    def _meta(server: LocalServer) -> dict[str, Any]:
        try:
            meta = server.jsz().get("meta_cluster") or {}
        except (OSError, ServerProcessError):
            return {}
        return meta if isinstance(meta, dict) else {}
