"""Requests over a blocking socket, to a responder that does nothing else: the ceiling of ``request``.

python -m bench.ceiling.request URL --size BYTES --count N
python -m bench.ceiling.request URL --size BYTES --answer SUBJECT      only the responder, until it is killed
"""

from __future__ import annotations

import argparse
import secrets
import subprocess
import sys
from typing import Any, NoReturn

from ._common import (
    Failure,
    answered,
    arguments,
    connect,
    main,
    now,
    payload,
    receive,
    result,
    since,
    size,
    wait_for_pong,
)

INBOXES = (b"_CEILING.", b"_INBOX.")
"""Beginnings of the reply subjects of those that are measured; whoever else asks gets no answer."""


def answer(options: argparse.Namespace) -> NoReturn:
    """Answer with the payload that everybody sends; prints a line when it is listening."""
    data = payload(options.size)
    with connect(options.url) as sock:
        sock.sendall(b"SUB %b 7\r\nPING\r\n" % options.answer.encode())
        wait_for_pong(sock)
        print("listening", flush=True)
        held = b""
        while True:
            held = answered(sock, held + receive(sock))
            while held.startswith(b"MSG "):
                line, end, rest = held.partition(b"\r\n")
                if not end or len(rest) < len(data) + 2:
                    break
                reply = line.split(b" ")[3]
                if reply.startswith(INBOXES):
                    sock.sendall(b"PUB %b %d\r\n%b\r\n" % (reply, len(data), data))
                held = answered(sock, rest[len(data) + 2 :])


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
            held = b""
            start = now()
            for _ in range(options.count):
                sock.sendall(frame)
                while len(held) < len(wanted) or not held.startswith(b"MSG "):
                    held = answered(sock, held + receive(sock))
                if not held.startswith(wanted):
                    raise Failure(f"wrong answer: {held[:100]!r}")
                held = held[len(wanted) :]
            clock = since(start)
    finally:
        responder.kill()
        responder.communicate()
    return {**result("request", options.size * options.count, clock, ""), "ops": options.count}


def work(options: argparse.Namespace) -> dict[str, Any]:
    if options.answer:
        answer(options)
    return request(options)


if __name__ == "__main__":
    parser = arguments("bench.ceiling.request", __doc__)
    parser.add_argument("url")
    parser.add_argument("--size", type=size, default=16)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--answer", metavar="SUBJECT")
    raise SystemExit(main(work, parser))
