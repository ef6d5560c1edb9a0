"""TLS servers that a test makes and replaces."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from natsproto.server import LocalServer
from support.certs import Certs

ServerMaker = Callable[..., LocalServer]


def made_servers(server: LocalServer) -> Iterator[ServerMaker]:
    """Fixture body: makes TLS servers of the version of ``server``, and stops them."""
    made: list[LocalServer] = []

    def start(certs: Certs, *, host: str = "127.0.0.1", **tls: Any) -> LocalServer:
        options = {"cert_file": certs.cert_file, "key_file": certs.key_file, **tls}
        made.append(LocalServer(binary=server.binary.path, jetstream=False, host=host, tls=options).start())
        return made[-1]

    yield start
    for one in made:
        one.stop()


def url(server: LocalServer, scheme: str = "tls", host: str = "localhost") -> str:
    return f"{scheme}://{host}:{server.port}"
