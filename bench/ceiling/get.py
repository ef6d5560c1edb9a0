"""Read objects as fast as a Python process with a blocking socket can: the ceiling of ``get``.

    python -m bench.ceiling.get URL --bucket B --name N [--objects N] [--no-hash] [--into fresh|reused]

Direct get in batches (nats-server >= 2.11), two requests of 4 MiB in flight; payloads are received into
their destination. ``--into fresh``: new ``bytes``, as ``get()`` needs. With ``--no-hash`` the digest is
checked later.
"""

from __future__ import annotations

import argparse
import hashlib
from base64 import urlsafe_b64encode
from io import BytesIO
from typing import Any

from objstore.format.memory import ask_for_huge_pages

from ._common import Failure, arguments, connect, main, names, now, result, since
from ._reader import Reader, read_meta

BATCH = 4 * 1024 * 1024  # bytes
DEPTH = 2  # requests in flight
SEQUENCE, PENDING = b"\nNats-Sequence: ", b"\nNats-Num-Pending: "


def read_chunks(reader: Reader, meta: dict[str, Any], target: memoryview, hasher: Any) -> None:
    """Fill ``target``, starting again at its beginning when it is full, and hash in order."""
    count, step = meta["chunks"], meta["options"]["max_chunk_size"]
    places = [target[at : at + step] for at in range(0, len(target), step)]
    last = meta["size"] - (count - 1) * step
    batch = max(1, BATCH // step)
    left = [min(batch, count - at) for at in range(0, count, batch)]  # outstanding messages of each request
    arrived = bytearray(count)
    first = asked = answered = ended = hashed = 0  # a sequence; three counts of requests; one of chunks
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


def read(
    reader: Reader, options: argparse.Namespace, name: str, ring: memoryview
) -> tuple[float, float, int, str]:
    """One read: wall clock, CPU time, size and SHA-256; the digest is right."""
    data, hasher, start = b"", hashlib.sha256(), now()
    meta = read_meta(reader, options.bucket, name)
    fresh = BytesIO(bytes(meta["size"] if options.into == "fresh" else 0))
    with fresh.getbuffer() as view:  # released before getvalue(), which would copy
        ask_for_huge_pages(view)
        target = view if options.into == "fresh" else ring
        read_chunks(reader, meta, target, None if options.no_hash else hasher)
    data = fresh.getvalue()
    clock = since(start)
    if options.no_hash and options.into == "fresh":
        hasher.update(data)
    elif options.no_hash:
        read_chunks(reader, meta, ring, hasher)
    if meta["digest"] != "SHA-256=" + urlsafe_b64encode(hasher.digest()).decode():
        raise Failure("the digest of the bytes read differs from the meta message's")
    return *clock, meta["size"], hasher.hexdigest()


def get(options: argparse.Namespace) -> dict[str, Any]:
    with connect(options.url) as sock:
        reader = Reader(sock, options.bucket)
        meta = read_meta(reader, options.bucket, names(options)[0])
        size = min(meta["size"], DEPTH * max(BATCH, meta["options"]["max_chunk_size"]))
        ring = memoryview(bytearray(b"-" * size))  # touched, like a buffer that was used before
        for _ in range(2):  # the second time counts: every client warms up, too
            found = [read(reader, options, name, ring) for name in names(options)]
    wall, cpu, sizes, digests = zip(*found, strict=True)
    work = "get into " + options.into + ", not hashed" * options.no_hash
    return result(work, sum(sizes), (sum(wall), sum(cpu)), digests[-1])


if __name__ == "__main__":
    parser = arguments(
        "bench.ceiling.get", __doc__, "url", "--bucket", "--name", "--objects", "--no-hash", "--into"
    )
    raise SystemExit(main(get, parser))
