"""Store objects as fast as a Python process with a blocking socket can: the ceiling of ``put``.

    python -m bench.ceiling.put URL --bucket B --name N --size BYTES [--chunk N] [--window N] [--no-hash]

With ``--objects N``: NAME-0, NAME-1 …, one after the other. An object is complete and valid: every chunk is
acknowledged, within a window of bytes, before its meta message is sent with its digest. The script does
nothing else that a client must do: the name must be new, the bucket must have no other writer, nothing is
repaired or cleaned up.

A chunk is hashed right after it was sent, while it is warm. The clock runs from the first byte to the answer
to the meta.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import secrets
import select
import socket
from base64 import urlsafe_b64encode
from typing import Any

from ._common import TIMEOUT, Failure, arguments, ask, connect, main, names, now, payload, result, since

ROLLUP = b"NATS/1.0\r\nNats-Rollup: sub\r\n\r\n"


def send_some(sock: socket.socket, out: list[bytes | memoryview]) -> bool:
    """Send what the socket takes now, and remove it from ``out``."""
    try:
        sent = sock.sendmsg(out, (), socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    done = 0
    while done < len(out) and sent >= len(out[done]):
        sent -= len(out[done])
        done += 1
    del out[:done]
    if sent:
        out[0] = memoryview(out[0])[sent:]
    return True


def acknowledged(answers: bytes) -> list[int]:
    if b'"error"' in answers or b"-ERR" in answers or b"NATS/1.0 503" in answers:
        raise Failure(f"refused: {answers[-200:]!r}")
    return [int(seq) for seq in re.findall(rb'"seq":(\d+)', answers)]


def blast(sock: socket.socket, subject: bytes, chunks: list[memoryview], window: int, hasher: Any) -> None:
    """Send and hash every chunk, and wait for every acknowledgement."""
    count = len(chunks)
    lines = [b"PUB %b _CEILING.a %d\r\n" % (subject, len(chunk)) for chunk in (chunks[0], chunks[-1])]
    poll = select.poll()
    out: list[bytes | memoryview] = []
    answers: list[bytes] = []
    queued = acked = 0
    while acked < count:
        if not out and queued < count and queued - acked < window:
            out = [lines[queued == count - 1], chunks[queued], b"\r\n"]
            queued += 1
        moved = bool(out) and send_some(sock, out)
        if moved and not out:
            hasher.update(chunks[queued - 1])
        try:
            answer = sock.recv(65536, socket.MSG_DONTWAIT)
        except BlockingIOError:
            if not moved:
                poll.register(sock, select.POLLIN | (select.POLLOUT if out else 0))
                if not poll.poll(TIMEOUT * 1000):
                    raise
            continue
        if not answer:
            raise Failure("the server closed the connection")
        acknowledged(answer)
        answers.append(answer)
        acked += answer.count(b"}")  # one in each acknowledgement, and never cut in two
    found = b"".join(answers)
    sock.sendall(b"PONG\r\n" * found.count(b"PING\r\n"))  # not before: it might have cut a chunk in two
    seqs = acknowledged(found)
    if len(seqs) != count or seqs != list(range(seqs[0], seqs[0] + count)):
        raise Failure(f"{count} chunks were not stored one after the other: has the bucket other writers?")


class Known:
    """A digest made before the clock starts."""

    def __init__(self, data: bytes) -> None:
        self.digest = hashlib.sha256(data).digest

    def update(self, chunk: memoryview) -> None:
        pass


def put_one(
    sock: socket.socket, options: argparse.Namespace, name: str, data: bytes
) -> tuple[float, float, str, str]:
    """One put: wall clock, CPU time, SHA-256 and the chunks' subject."""
    view = memoryview(data)
    chunks = [view[at : at + options.chunk] for at in range(0, options.size, options.chunk)]
    hasher: Any = Known(data) if options.no_hash else hashlib.sha256()
    nuid = secrets.token_hex(11)
    bucket, token = options.bucket.encode(), urlsafe_b64encode(name.encode())
    meta = {"name": name, "bucket": options.bucket, "nuid": nuid, "size": options.size}
    meta |= {"chunks": len(chunks), "options": {"max_chunk_size": options.chunk}}
    start = now()
    if chunks:
        window = max(1, options.window // options.chunk)
        blast(sock, b"$O.%b.C.%b" % (bucket, nuid.encode()), chunks, window, hasher)
    digest = hasher.digest()
    text = json.dumps(meta | {"digest": "SHA-256=" + urlsafe_b64encode(digest).decode()}).encode()
    sizes = (len(ROLLUP), len(ROLLUP) + len(text))
    frame = b"HPUB $O.%b.M.%b _CEILING.m %d %d\r\n%b%b\r\n" % (bucket, token, *sizes, ROLLUP, text)
    if not acknowledged(answer := ask(sock, frame)):
        raise Failure(f"the meta message was answered {answer!r}")
    return *since(start), digest.hex(), f"$O.{options.bucket}.C.{nuid}"


def purge(sock: socket.socket, bucket: str, chunks: str) -> None:
    text = json.dumps({"filter": chunks}).encode()
    answer = ask(
        sock, b"PUB $JS.API.STREAM.PURGE.OBJ_%b _CEILING.p %d\r\n%b\r\n" % (bucket.encode(), len(text), text)
    )
    if b'"success":true' not in answer:
        raise Failure(f"purging was answered {answer!r}")


def put(options: argparse.Namespace) -> dict[str, Any]:
    data = payload(options.size)
    with connect(options.url) as sock:
        for _, _, _, chunks in [put_one(sock, options, name, data) for name in names(options)]:
            purge(sock, options.bucket, chunks)  # the second time counts: every client warms up, too
        found = [put_one(sock, options, name, data) for name in names(options)]
    wall, cpu, digests, _ = zip(*found, strict=True)
    work = "put, not hashed" if options.no_hash else "put"
    return result(work, options.size * len(found), (sum(wall), sum(cpu)), digests[-1])


OPTIONS = ("url", "--bucket", "--name", "--objects", "--size", "--chunk", "--window", "--no-hash")

if __name__ == "__main__":
    raise SystemExit(main(put, arguments("bench.ceiling.put", __doc__, *OPTIONS)))
