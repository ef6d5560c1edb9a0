"""Receive small messages and only count them: the ceiling of ``subscribe``.

    python -m bench.ceiling.subscribe URL --size BYTES --count N

Nothing is parsed: all frames have the same length, so a PING among them shifts the end of the last one.
The frames are compared after the clock has stopped.
"""

from __future__ import annotations

import argparse
import secrets
import socket
import subprocess
import sys
from typing import Any

from ._common import Failure, arguments, connect, main, now, payload, result, since, size, wait_for_pong


def without_ping(sock: socket.socket, view: memoryview, frame: bytes) -> int:
    """The number of received bytes that are frames: all, unless the server sent a PING among them."""
    if view[-len(frame) :] == frame:
        return len(view)
    at = 0
    while view[at : at + len(frame)] == frame:
        at += len(frame)
    ping = b"PING\r\n"
    if view[at : at + len(ping)] != ping:
        raise Failure("other bytes than were published")
    sock.sendall(b"PONG\r\n")
    view[at : -len(ping)] = view[at + len(ping) :]
    return len(view) - len(ping)


def subscribe(options: argparse.Namespace) -> dict[str, Any]:
    subject = f"bench.{secrets.token_hex(8)}"
    frame = b"MSG %b 7 %d\r\n%b\r\n" % (subject.encode(), options.size, payload(options.size))
    with connect(options.url) as sock:
        sock.sendall(b"SUB %b 7\r\nPING\r\n" % subject.encode())
        wait_for_pong(sock)
        command = [sys.executable, "-m", "bench.ceiling.publish", options.url, "--subject", subject]
        command += ["--size", str(options.size), "--count", str(options.count), "--wait"]
        room = bytearray(len(frame) * options.count)
        view = memoryview(room)
        publisher = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert publisher.stdin is not None
        assert publisher.stdout is not None
        try:
            publisher.stdout.readline()
            done = 0
            start = now()
            publisher.stdin.write(b"go\n")
            publisher.stdin.flush()
            while done < len(view) or (done := without_ping(sock, view, frame)) < len(view):
                received = sock.recv_into(view[done:])
                if not received:
                    raise Failure("the server closed the connection")
                done += received
            clock = since(start)
        finally:
            publisher.kill()
            publisher.communicate()
    if room != frame * options.count:
        raise Failure("other bytes than were published")
    return {**result("subscribe", options.size * options.count, clock, ""), "ops": options.count}


if __name__ == "__main__":
    parser = arguments("bench.ceiling.subscribe", __doc__)
    parser.add_argument("url")
    parser.add_argument("--size", type=size, default=16)
    parser.add_argument("--count", type=int, required=True)
    raise SystemExit(main(subscribe, parser))
