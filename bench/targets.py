"""The measured server: a private one, a running one, or a container."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from natsproto.errors import NatsError
from natsproto.server import LocalCluster, LocalServer

from .errors import BenchError


@dataclass(frozen=True)
class Target:
    """One running server, or cluster.

    Attributes:
        urls: where its servers listen.
        server: what the results say about it.
    """

    urls: list[str]
    server: dict[str, Any]

    @property
    def url(self) -> str:
        return self.urls[0]


@dataclass(frozen=True)
class Targets:
    """How to get a server; ``kind`` is "local", "container" or "url"."""

    kind: str = "local"
    address: str = ""
    binary: str | None = None

    @contextmanager
    def open(self, nodes: int = 1) -> Iterator[Target]:
        """A server of its own for one row, or the running one; ``nodes`` is 1 or 3.

        Raises:
            BenchError: there is no such server, or it does not start.
        """
        if self.kind == "url":
            yield Target([self.address], {"kind": "url", "version": _version(self.address)})
        elif self.kind == "container":
            from .container import Container

            with Container(nodes=nodes) as container:
                yield Target(container.urls, container.describe())
        else:
            yield from self._local(nodes)

    def _local(self, nodes: int) -> Iterator[Target]:
        try:
            server = (
                LocalServer(binary=self.binary) if nodes == 1 else LocalCluster(nodes, binary=self.binary)
            )
            server.start()
        except (NatsError, OSError) as exc:
            raise BenchError(f"no server could be started: {exc}") from exc
        try:
            first = server if isinstance(server, LocalServer) else server.servers[0]
            urls = [first.url] if first is server else list(server.urls)
            about = {"kind": "local", "version": first.version, "nodes": nodes, "origin": first.binary.origin}
            yield Target(urls, about)
        finally:
            server.stop()


def _version(url: str) -> str:
    """The version that a running server reports."""
    import json

    address = urlsplit(url if "://" in url else f"nats://{url}")
    try:
        with socket.create_connection((address.hostname or "127.0.0.1", address.port or 4222), 5) as sock:
            sock.settimeout(5)
            line = b""
            while not line.endswith(b"\r\n"):
                piece = sock.recv(65536)
                if not piece:
                    break
                line += piece
        return str(json.loads(line.removeprefix(b"INFO "))["version"])
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise BenchError(f"no NATS server answers at {url}: {exc}") from exc
