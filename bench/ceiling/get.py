"""Read one object as fast as a Python process with a blocking socket can: the ceiling of ``get``.

    python -m bench.ceiling.get URL --bucket B --name N [--no-hash] [--into fresh|reused]

Direct get in batches (nats-server >= 2.11), two requests of 4 MiB under way; payloads are received into their
place. ``--into fresh``: new ``bytes`` as ``get()`` needs. With ``--no-hash`` the digest is checked later.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import socket
from base64 import urlsafe_b64encode
from io import BytesIO
from typing import Any

from objstore.format.memory import ask_for_huge_pages

from ._common import Failure, arguments, connect, main, now, result, since

BATCH = 4 * 1024 * 1024  # bytes
DEPTH = 2
SEQUENCE, PENDING = b"\nNats-Sequence: ", b"\nNats-Num-Pending: "
SPILL = 512  # room for what follows a payload: CRLF and the next message's headers


class Reader:
    def __init__(self, sock: socket.socket, bucket: str) -> None:
        self.sock = sock
        self.subject = f"$JS.API.DIRECT.GET.OBJ_{bucket}".encode()
        self.spill = memoryview(bytearray(SPILL))
        self.held = b""  # received, not yet looked at; less than a message

    def ask(self, **document: Any) -> None:
        text = json.dumps(document).encode()
        self.sock.sendall(b"PUB %b _CEILING.g %d\r\n%b\r\n" % (self.subject, len(text), text))

    def receive(self, place: memoryview) -> int:
        """Receive at the place, and what it does not hold into ``held``; returns how much is placed."""
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
                self.held = held[6:]
                continue
            elif end > 2:
                raise Failure(f"the server said {held[:300]!r}")
            self.receive(self.spill[:0])

    def body(self, place: memoryview) -> None:
        """Take a payload and its CRLF."""
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
        raise Failure(f"{name!r} in {bucket!r} is no regular object: {block[:30]!r}")
    return meta


def read_chunks(reader: Reader, meta: dict[str, Any], target: memoryview, hasher: Any) -> None:
    """Fill ``target``, from its beginning again when it is full, and hash in order."""
    count, step = meta["chunks"], meta["options"]["max_chunk_size"]
    places = [target[at : at + step] for at in range(0, len(target), step)]
    last = meta["size"] - (count - 1) * step
    batch = max(1, BATCH // step)
    left = [min(batch, count - at) for at in range(0, count, batch)]  # messages to come, of each request
    arrived = bytearray(count)
    first = asked = answered = ended = hashed = 0  # requests; but the first sequence, chunks hashed
    while ended < len(left):
        while asked < len(left) and asked < answered + (DEPTH if first else 1):
            start = first + asked * batch if first else 1
            reader.ask(seq=start, batch=left[asked], next_by_subj=f"$O.{meta['bucket']}.C.{meta['nuid']}")
            asked += 1
        block, size = reader.header()
        if block.startswith(b"NATS/1.0 204"):
            reader.body(target[:0])
            ended += 1
            continue
        index = count - 1 - int(block.rpartition(PENDING)[2].partition(b"\r")[0]) if PENDING in block else -1
        if index < 0 or arrived[index] or size != (step if index < count - 1 else last):
            raise Failure(f"no batches, or an object that is not regular: {block[:200]!r}")
        reader.body(places[index % len(places)][:size])
        first = first or int(block.rpartition(SEQUENCE)[2].partition(b"\r")[0])
        arrived[index] = 1
        while hasher is not None and hashed < count and arrived[hashed]:
            hasher.update(places[hashed % len(places)][: step if hashed < count - 1 else last])
            hashed += 1
        left[index // batch] -= 1
        while answered < len(left) and not left[answered]:
            answered += 1
    if not all(arrived):
        raise Failure("chunks are missing")


def get(options: argparse.Namespace) -> dict[str, Any]:
    with connect(options.url) as sock:
        reader = Reader(sock, options.bucket)
        meta = read_meta(reader, options.bucket, options.name)
        ring = min(meta["size"], DEPTH * max(BATCH, meta["options"]["max_chunk_size"]))
        reused = memoryview(bytearray(b"-" * ring))  # touched, as one used before is
        for _ in range(2):  # the second one counts: no client is measured on its first
            data, hasher, start = b"", hashlib.sha256(), now()
            meta = read_meta(reader, options.bucket, options.name)
            fresh = BytesIO(bytes(meta["size"] if options.into == "fresh" else 0))
            with fresh.getbuffer() as view:  # released before getvalue(), which would copy
                ask_for_huge_pages(view)
                target = view if options.into == "fresh" else reused
                read_chunks(reader, meta, target, None if options.no_hash else hasher)
            data = fresh.getvalue()
            clock = since(start)
            del fresh
        if options.no_hash and options.into == "fresh":
            hasher.update(data)
        elif options.no_hash:
            read_chunks(reader, meta, reused, hasher)
    if meta["digest"] != "SHA-256=" + urlsafe_b64encode(hasher.digest()).decode():
        raise Failure("the digest of what was read is not that of the meta message")
    work = "get into " + options.into + ", not hashed" * options.no_hash
    return result(work, meta["size"], clock, hasher.hexdigest())


if __name__ == "__main__":
    parser = arguments("bench.ceiling.get", __doc__, "url", "--bucket", "--name", "--no-hash", "--into")
    raise SystemExit(main(get, parser))
