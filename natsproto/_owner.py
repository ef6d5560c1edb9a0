"""Which user's process is at the other end of a connection within this machine.

A port proves nothing: while its server is down, any user of the machine may listen there and receive what a
client sends its server first.
"""

from __future__ import annotations

import socket
import sys
from typing import Final

Address = tuple[str, int] | tuple[str, int, int, int]

_TABLES: Final = ("/proc/self/net/tcp", "/proc/self/net/tcp6")
_ESTABLISHED: Final = "01"


def peer_user(local: Address, peer: Address) -> int | None:
    """Return the user id of the process at the other end of a TCP connection within this machine.

    Linux lists both ends. In a user namespace all unmapped users have the same id (65534): a process that
    runs there as that user, in the host's network, cannot distinguish them from itself.

    Args:
        local: the address of our end, as :meth:`socket.socket.getsockname` returns it.
        peer: the address of the other end.

    Returns:
        ``None`` while no process holds the other end: not accepted yet, half-closed, or closed.

    Raises:
        OSError: the system does not tell: it is not Linux, or a sandbox hides the tables.
    """
    listed = False
    for table in _TABLES:  # a server that listens on [::] is in the second one, with mapped addresses
        try:
            with open(table, encoding="ascii") as file:
                rows = file.read().splitlines()[1:]
        except FileNotFoundError:
            continue  # a kernel without IPv6, or not Linux
        listed = listed or bool(rows)
        for there, here in zip(_written(peer), _written(local), strict=True):
            ends = f" {there} {here} {_ESTABLISHED} "
            for row in rows:
                # The inode: a socket that no process holds has none.
                if ends in row and (fields := row.split())[9] != "0":
                    return int(fields[7])
    if not listed:
        raise OSError(f"{_TABLES[0]} does not even show our own end")
    return None


def _written(address: Address) -> list[str]:
    """Return an address as the tables write it: words of four bytes in the machine's byte order."""
    host, port = str(address[0]).partition("%")[0].removeprefix("::ffff:"), address[1]
    if ":" in host:
        forms = [socket.inet_pton(socket.AF_INET6, host)]
    else:
        packed = socket.inet_pton(socket.AF_INET, host)
        forms = [packed, bytes(10) + b"\xff\xff" + packed]
    return [
        "".join(f"{int.from_bytes(form[at : at + 4], sys.byteorder):08X}" for at in range(0, len(form), 4))
        + f":{port:04X}"
        for form in forms
    ]
