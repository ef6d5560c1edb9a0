"""What the ceiling scripts share: the payload, the handshake, one line of JSON or one line of error."""

from __future__ import annotations

import argparse
import json
import socket
import struct
import sys
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from objstore.bench.payloads import random_bytes

TIMEOUT = 10  # seconds without progress
SOCKET_BUFFER = 4 * 1024 * 1024  # bytes


class Failure(Exception):
    """The script failed; the text says why, in one line."""


def payload(size: int) -> bytes:
    """The bytes that clients are measured with, too."""
    return random_bytes(size, size)


def tune(sock: socket.socket) -> socket.socket:
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        sock.setsockopt(socket.SOL_SOCKET, option, SOCKET_BUFFER)
    # The kernel's own time limits: with settimeout() every call would become two.
    for option in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
        sock.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", TIMEOUT, 0))
    return sock


def connect(url: str) -> socket.socket:
    """Connect, shake hands, and subscribe ``_CEILING.*`` as 1."""
    address = urlsplit(url if "://" in url else f"nats://{url}")
    if address.scheme not in ("nats", "tcp"):
        raise Failure(f"{address.scheme}:// is not supported here, only nats://HOST:PORT")
    if address.username is not None:
        raise Failure("user:password@ in the URL is not supported here")
    sock = tune(socket.socket())
    sock.connect((address.hostname or "127.0.0.1", address.port or 4222))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    info = sock.recv(65536)
    while info and not info.endswith(b"\r\n"):
        info += sock.recv(65536)
    if not info.startswith(b"INFO "):
        raise Failure(f"{url} is not a NATS server")
    if json.loads(info[5:]).get("auth_required") or json.loads(info[5:]).get("tls_required"):
        raise Failure(f"{url} wants a user or TLS: not supported here")
    options = (
        b'{"verbose":false,"pedantic":false,"headers":true,"no_responders":true,"lang":"raw","version":"0"}'
    )
    sock.sendall(b"CONNECT %b\r\nSUB _CEILING.* 1\r\nPING\r\n" % options)
    wait_for_pong(sock)
    return sock


def receive(sock: socket.socket) -> bytes:
    found = sock.recv(65536)
    if not found:
        raise Failure("the server closed the connection")
    return found


def answered(sock: socket.socket, held: bytes) -> bytes:
    """Answer a PING, and skip an INFO, at the beginning of received bytes; returns the rest.

    A server sends its first PING soon after the connection is made, and others at any time.
    """
    while held.startswith((b"PING\r\n", b"INFO ")) and (end := held.find(b"\r\n") + 2) > 1:
        if held.startswith(b"PING"):
            sock.sendall(b"PONG\r\n")
        held = held[end:]
    return held


def wait_for_pong(sock: socket.socket) -> None:
    """Wait for the answer to our PING; before it only the server's own PINGs and INFOs may arrive."""
    held = b""
    while not (held := answered(sock, held + receive(sock))).startswith(b"PONG\r\n"):
        if not (b"PONG\r\n".startswith(held) or b"PING\r\n".startswith(held) or held.startswith(b"INFO ")):
            raise Failure(f"the server refused: {held[:100]!r}")
    if answered(sock, held[len(b"PONG\r\n") :]):
        raise Failure(f"the server said more: {held[:100]!r}")


def ask(sock: socket.socket, frame: bytes) -> bytes:
    """Send one message, and return the received bytes once the answer is complete."""
    sock.sendall(frame)
    answer = b""
    while b"}" not in answer:
        answer = answered(sock, answer + receive(sock))
    return answer


def result(work: str, size: int, clock: tuple[float, float], sha256: str) -> dict[str, Any]:
    """The printed document; ``clock`` is what :func:`since` returned."""
    return {"work": work, "seconds": clock[0], "bytes": size, "cpu": clock[1], "sha256": sha256}


def now() -> tuple[float, float]:
    """Wall clock and CPU time of this process."""
    return time.perf_counter(), time.process_time()


def since(start: tuple[float, float]) -> tuple[float, float]:
    return time.perf_counter() - start[0], time.process_time() - start[1]


def size(text: str) -> int:
    """A number of bytes on the command line."""
    value = int(text)
    if value < 0:
        raise ValueError
    return value


def names(options: argparse.Namespace) -> list[str]:
    """The names of the objects, from ``--name`` and ``--objects``."""
    count = options.objects
    return [options.name] if count == 1 else [f"{options.name}-{number}" for number in range(count)]


OPTIONS: dict[str, dict[str, Any]] = {
    "url": {"help": "nats://HOST:PORT"},
    "--bucket": {"required": True, "help": "an existing bucket"},
    "--name": {"required": True, "help": "of the object; a new one for put"},
    "--size": {"required": True, "type": size, "help": "bytes"},
    "--objects": {"type": size, "default": 1, "help": "number of objects NAME-0, NAME-1 …, in sequence (1)"},
    "--chunk": {"type": size, "default": 131072, "help": "bytes at a time (131072)"},
    "--window": {"type": size, "default": 8388608, "help": "unacknowledged bytes (8388608)"},
    "--no-hash": {"action": "store_true", "help": "do not include SHA-256 in the measured time"},
    "--into": {"choices": ("fresh", "reused"), "default": "fresh", "help": "new bytes, or one buffer"},
}


def arguments(module: str, doc: str | None, *names: str) -> argparse.ArgumentParser:
    """A parser with these options."""
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=(doc or "").partition("\n")[0])
    for name in names:
        parser.add_argument(name, **OPTIONS[name])
    return parser


def main(work: Callable[[argparse.Namespace], dict[str, Any]], parser: argparse.ArgumentParser) -> int:
    """Run and print; any failure is one line on standard error."""
    options = parser.parse_args()
    if getattr(options, "chunk", 1) < 1:
        parser.error("--chunk is a positive number of bytes")
    if getattr(options, "objects", 1) < 1:
        parser.error("--objects is a positive number")
    try:
        print(json.dumps(work(options)))
    except BlockingIOError:
        print(f"nothing moved for {TIMEOUT} s", file=sys.stderr)
    except (Failure, OSError, MemoryError) as exc:
        print(str(exc) or type(exc).__name__, file=sys.stderr)
    else:
        return 0
    return 1
