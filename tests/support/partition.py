"""A network between client and server whose packets can vanish without a word.

The client lives in a network namespace of its own, joined to the servers' by a pair of virtual Ethernet
devices; ``iptables`` in there drops what comes and goes. Needs root and the packages iproute2 and iptables.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator

from support.skips import left_out, missing

CLONE_NEWNET = 0x40000000


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=10)


class Partition:
    """Made by :func:`partitioned`.

    Attributes:
        host: address for the server to listen on.
    """

    def __init__(self, name: str, host: str) -> None:
        self.name = name
        self.host = host

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """Sockets that this thread opens are the client's."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        there = os.open(f"/run/netns/{self.name}", os.O_RDONLY)
        try:
            _enter(there)
            try:
                yield
            finally:
                _enter(home)
        finally:
            os.close(home)
            os.close(there)

    def cut(self) -> None:
        """From now on no packet comes or goes, and nobody is told."""
        for chain in ("INPUT", "OUTPUT"):
            run("ip", "netns", "exec", self.name, "iptables", "-A", chain, "-j", "DROP")

    def heal(self) -> None:
        run("ip", "netns", "exec", self.name, "iptables", "-F")


def _enter(descriptor: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


@contextlib.contextmanager
def partitioned() -> Iterator[Partition]:
    """A namespace with its devices, removed afterwards; skips where it cannot be."""
    if os.geteuid():
        missing("root, for a network namespace,")
    for tool, package in (("ip", "iproute2"), ("iptables", "iptables")):
        if shutil.which(tool) is None:
            missing(f"{tool} (Debian's package {package})")
    mark = secrets.token_hex(3)
    name, outer, inner = f"np-{mark}", f"npo{mark}", f"npi{mark}"
    # Addresses for tests of networks (RFC 2544): nobody else's.
    net = f"198.{secrets.choice((18, 19))}.{secrets.randbelow(256)}."
    base = 4 * secrets.randbelow(64)
    try:
        run("ip", "netns", "add", name)
    except subprocess.CalledProcessError as exc:
        left_out(f"no network namespace can be made here: {exc.stderr.decode().strip()}")
    try:
        try:
            run("ip", "link", "add", outer, "type", "veth", "peer", "name", inner, "netns", name)
        except subprocess.CalledProcessError as exc:
            left_out(f"no virtual network can be made here: {exc.stderr.decode().strip()}")
        run("ip", "addr", "add", f"{net}{base + 1}/30", "dev", outer)
        run("ip", "link", "set", outer, "up")
        run("ip", "netns", "exec", name, "ip", "addr", "add", f"{net}{base + 2}/30", "dev", inner)
        run("ip", "netns", "exec", name, "ip", "link", "set", inner, "up")
        yield Partition(name, f"{net}{base + 1}")
    finally:
        run("ip", "netns", "del", name)  # and its devices
