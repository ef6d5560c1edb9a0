"""Randomness over a fork, and what a local server exposes (rows S17, S20)."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path

import pytest

from natsproto.aio.client import Client
from natsproto.aio.options import Options
from natsproto.server import LocalServer


@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
async def test_s17_inboxes_of_a_forked_child_are_its_own() -> None:
    client = Client(Options())
    client.new_inbox()
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(write, "\n".join(client.new_inbox() for _ in range(100)).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        theirs = pipe.read().split("\n")
    os.waitpid(pid, 0)  # noqa: ASYNC222 - it has said all it had to say
    ours = [client.new_inbox() for _ in range(100)]
    assert len(set(ours + theirs)) == 200
    assert all(len(inbox.removeprefix("_INBOX.")) == 22 for inbox in ours)
    assert {inbox[7:19] for inbox in ours}.isdisjoint(inbox[7:19] for inbox in theirs)


def _listening(pid: int) -> set[tuple[str, int]]:
    """Addresses a process listens on, from /proc."""
    inodes = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = os.readlink(entry)
        except FileNotFoundError:
            continue  # closed between the two looks
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    found = set()
    for name, size in (("tcp", 4), ("tcp6", 16)):
        for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                address, port = fields[1].split(":")
                raw = bytes.fromhex(address)
                words = b"".join(raw[n : n + 4][::-1] for n in range(0, size, 4))
                found.add((str(ipaddress.ip_address(words)), int(port, 16)))
    return found


@pytest.mark.skipif(not Path("/proc/self/net/tcp").exists(), reason="needs /proc")
def test_s20_a_local_server_listens_on_loopback_only(server: LocalServer) -> None:
    with LocalServer(binary=server.binary.path) as own:
        addresses = _listening(own.pid)
        assert addresses == {("127.0.0.1", own.port), ("127.0.0.1", own.monitor_port)}
        assert server.port != own.port
        store = Path(own.store_dir)
        assert store.is_dir()
        assert store.stat().st_mode & 0o077 == 0 or store.parent.stat().st_mode & 0o077 == 0
    assert not store.exists()
