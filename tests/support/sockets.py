"""Which ports a process listens on."""

from __future__ import annotations

import os
from pathlib import Path

_LISTENS = "0A"


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
