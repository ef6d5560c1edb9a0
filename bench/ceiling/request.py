"""Requests over a blocking socket, to a responder that is no more than one: the ceiling of ``request``.

python -m bench.ceiling.request URL --size BYTES --count N
python -m bench.ceiling.request URL --size BYTES --answer SUBJECT      only the responder, until it is killed
"""

from __future__ import annotations

import argparse
import secrets
import subprocess
import sys
from typing import Any

from ._common import Failure, arguments, connect, main, now, payload, result, since, size


def answer(options: argparse.Namespace) -> None:
    """Send back what comes; says a word when it listens."""
    data = payload(options.size)
    with connect(options.url) as sock:
        sock.sendall(b"SUB %b 7\r\nPING\r\n" % options.answer.encode())
        if sock.recv(4096) != b"PONG\r\n":
            raise Failure("the server refused the subscription")
        print("listening", flush=True)
        held = b""
        while piece := sock.recv(65536):
            held += piece
            while True:
                line, end, rest = held.partition(b"\r\n")
                if line == b"PING" and end:
                    sock.sendall(b"PONG\r\n")
                    held = rest
                    continue
                if not end or len(rest) < len(data) + 2:
                    break
                reply = line.split(b" ")[3]
                sock.sendall(b"PUB %b %d\r\n%b" % (reply, len(data), rest[: len(data) + 2]))
                held = rest[len(data) + 2 :]


def request(options: argparse.Namespace) -> dict[str, Any]:
    data = payload(options.size)
    subject = f"bench.{secrets.token_hex(8)}"
    command = [sys.executable, "-m", "bench.ceiling.request", options.url, "--answer", subject]
    command += ["--size", str(options.size)]
    responder = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert responder.stdout is not None
        if not responder.stdout.readline():
            raise Failure("the responder did not start")
        with connect(options.url) as sock:
            frame = b"PUB %b _CEILING.r %d\r\n%b\r\n" % (subject.encode(), len(data), data)
            wanted = b"MSG _CEILING.r 1 %d\r\n%b\r\n" % (len(data), data)
            start = now()
            for _ in range(options.count):
                sock.sendall(frame)
                found = sock.recv(65536)
                while len(found) < len(wanted):
                    found += sock.recv(65536)
                if found != wanted:
                    raise Failure(f"wrong answer: {found[:100]!r}")
            clock = since(start)
    finally:
        responder.kill()
        responder.communicate()
    return {**result("request", options.size * options.count, clock, ""), "ops": options.count}


def work(options: argparse.Namespace) -> dict[str, Any]:
    if options.answer:
        answer(options)
        raise Failure("the connection ended")
    return request(options)


if __name__ == "__main__":
    parser = arguments("bench.ceiling.request", __doc__)
    parser.add_argument("url")
    parser.add_argument("--size", type=size, default=16)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--answer", metavar="SUBJECT")
    raise SystemExit(main(work, parser))
