"""What is not run because the peer cannot do it, or does it wrongly: empty cells, and the reasons."""

from __future__ import annotations

from dataclasses import dataclass

OURS_WRITE = "we-write"
THEY_WRITE = "they-write"
DIRECTIONS = (OURS_WRITE, THEY_WRITE)
PEERS = ("nats-py", "natsrpy", "nats.js")


@dataclass(frozen=True)
class Gap:
    """Why a combination is not run. ``None`` stands for all."""

    peer: str
    operation: str | None
    direction: str | None
    server: str | None
    reason: str


ACK_V2 = "2.15.1-ack-v2"
NO_V2 = "cannot read acknowledgement subjects of version 2: no object, list or change arrives"
BLIND = ("nats-py", "natsrpy")  # on ACK_V2
READING = (  # operations in which the reader reads chunks, a list or changes
    *("put_small", "put_chunks", "put_whole_chunks", "chunk_size", "names", "names_unicode", "create_bucket"),
    *("list", "list_empty", "delete", "overwrite", "link", "bucket_link", "rename", "watch", "seal"),
    *("update_description", "update_headers"),
)

KNOWN_GAPS = [
    Gap("nats-py", "metadata", None, None, "has no metadata of objects"),
    Gap("nats-py", "link", THEY_WRITE, None, "cannot make links"),
    Gap("nats-py", "bucket_link", THEY_WRITE, None, "cannot make links"),
    Gap("nats-py", "rename", THEY_WRITE, None, "answers every rename with ObjectAlreadyExists"),
    Gap("natsrpy", "update_headers", THEY_WRITE, None, "ignores headers and metadata in an update"),
    Gap("natsrpy", "status", OURS_WRITE, None, "has no status of buckets"),
    Gap(
        "nats.js",
        "names_unicode",
        None,
        None,
        "encodes names as Latin-1, not UTF-8, and refuses characters Latin-1 has not",
    ),
    *(Gap(peer, operation, OURS_WRITE, ACK_V2, NO_V2) for peer in BLIND for operation in READING),
]


def reads(peer: str, server: str) -> bool:
    """Whether the peer can read objects from this server at all."""
    return server != ACK_V2 or peer not in BLIND


def gap(peer: str, operation: str, direction: str, server: str) -> Gap | None:
    """The first gap that covers the combination."""
    for known in KNOWN_GAPS:
        wanted = (known.operation, known.direction, known.server)
        actual = (operation, direction, server)
        if known.peer == peer and all(w in (None, a) for w, a in zip(wanted, actual, strict=True)):
            return known
    return None
