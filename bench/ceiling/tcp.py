"""Loopback TCP alone, between two processes: the minimal cost of the network.

    python -m bench.ceiling.tcp --size BYTES [--chunk N]

One process writes pieces of a chunk, the other receives them into a reused buffer. The bytes are sent twice:
first for the clock, then again to be hashed.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import signal
import socket
from typing import Any

from ._common import Failure, arguments, main, now, payload, result, since, tune


def receive(sock: socket.socket, size: int, room: memoryview, hasher: Any) -> None:
    done = 0
    while done < size:
        count = sock.recv_into(room[: size - done])
        if not count:
            raise Failure("the sending process ended too soon")
        if hasher is not None:
            hasher.update(room[:count])
        done += count


def send(port: int, data: bytes, chunk: int) -> None:
    view = memoryview(data)
    with tune(socket.socket()) as sock:
        sock.connect(("127.0.0.1", port))
        for _ in range(2):
            sock.recv(1)  # the receiver's clock runs
            for at in range(0, len(view), chunk):
                sock.sendall(view[at : at + chunk])


def tcp(options: argparse.Namespace) -> dict[str, Any]:
    data = payload(options.size)
    room = memoryview(bytearray(options.chunk))
    with tune(socket.create_server(("127.0.0.1", 0))) as server:
        child = os.fork()
        if not child:
            try:
                send(server.getsockname()[1], data, options.chunk)
            finally:
                os._exit(0)  # the receiver sees what is missing
        try:
            sock, _ = server.accept()
            with tune(sock):
                start = now()
                sock.sendall(b"1")
                receive(sock, options.size, room, None)
                clock = since(start)
                hasher = hashlib.sha256()
                sock.sendall(b"2")
                receive(sock, options.size, room, hasher)
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    if hasher.digest() != hashlib.sha256(data).digest():
        raise Failure("other bytes were received than sent")
    return result("tcp", options.size, clock, hasher.hexdigest())


if __name__ == "__main__":
    raise SystemExit(main(tcp, arguments("bench.ceiling.tcp", __doc__, "--size", "--chunk")))
