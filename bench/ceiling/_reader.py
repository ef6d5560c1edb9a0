"""Replies to direct gets, off a blocking socket."""

from __future__ import annotations

import json
import socket
from base64 import urlsafe_b64encode
from typing import Any

from ._common import Failure

SPILL = 512  # bytes for what follows a payload: CRLF and the next message's headers


class Reader:
    def __init__(self, sock: socket.socket, bucket: str) -> None:
        self.sock = sock
        self.subject = f"$JS.API.DIRECT.GET.OBJ_{bucket}".encode()
        self.spill = memoryview(bytearray(SPILL))
        self.held = b""  # received, not yet parsed; less than a message

    def ask(self, **document: Any) -> None:
        text = json.dumps(document).encode()
        self.sock.sendall(b"PUB %b _CEILING.g %d\r\n%b\r\n" % (self.subject, len(text), text))

    def receive(self, place: memoryview) -> int:
        """Receive into ``place``, and the overflow into ``held``; returns the bytes in ``place``."""
        count = self.sock.recvmsg_into([place, self.spill])[0]
        if not count:
            raise Failure("the server closed the connection")
        self.held += self.spill[: max(0, count - len(place))]
        return min(count, len(place))

    def header(self) -> tuple[bytes, int]:
        """The next message's header block, and the length of its payload."""
        while True:
            held = self.held
            end = held.find(b"\r\n") + 2
            if held.startswith(b"HMSG ") and end > 2:
                size, total = map(int, held[: end - 2].split(b" ")[-2:])
                if len(held) >= end + size:
                    self.held = held[end + size :]
                    return held[end : end + size], total - size
            elif held.startswith(b"PING\r\n"):
                self.sock.sendall(b"PONG\r\n")
                self.held = held[6:]
                continue
            elif end > 2:
                raise Failure(f"the server said {held[:300]!r}")
            self.receive(self.spill[:0])

    def body(self, place: memoryview) -> None:
        """Receive a payload and its CRLF."""
        done = min(len(place), len(self.held))
        place[:done] = self.held[:done]
        self.held = self.held[done:]
        while done < len(place) or len(self.held) < 2:
            done += self.receive(place[done:])
        self.held = self.held[2:]


def read_meta(reader: Reader, bucket: str, name: str) -> dict[str, Any]:
    reader.ask(last_by_subj=f"$O.{bucket}.M.{urlsafe_b64encode(name.encode()).decode()}")
    block, size = reader.header()
    reader.body(memoryview(text := bytearray(size)))
    meta: dict[str, Any] = json.loads(text or b"{}")
    if not meta.get("digest") or not meta.get("options"):
        raise Failure(f"{name!r} in {bucket!r} is not a regular object: {block[:30]!r}")
    return meta
