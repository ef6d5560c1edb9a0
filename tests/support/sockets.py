"""Which ports a process listens on, and ports for servers to come."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from natsproto.server.process import Ports

_LISTENS = "0A"


@contextlib.contextmanager
def reserved_port() -> Iterator[int]:
    """A port of 127.0.0.1 that nobody else gets meanwhile, also while no server listens there."""
    ports = Ports([("127.0.0.1", 0)])
    try:
        yield ports.numbers[0]
    finally:
        ports.release()


def listening(pid: int) -> dict[int, str]:
    """Port and address, as ``/proc/net/tcp`` writes it, of each listening TCP socket of a process."""
    sockets = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            sockets.add(os.readlink(link))
        except FileNotFoundError:  # closed meanwhile
            pass
    found = {}
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == _LISTENS and f"socket:[{fields[9]}]" in sockets:
                address, port = fields[1].split(":")
                found[int(port, 16)] = address
    return found
