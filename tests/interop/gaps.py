"""What is not run because the peer cannot do it, or does it wrongly: empty cells of the matrix, with the reason."""

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


KNOWN_GAPS: list[Gap] = []


def gap(peer: str, operation: str, direction: str, server: str) -> Gap | None:
    """The first gap that covers the combination."""
    for known in KNOWN_GAPS:
        wanted = (known.operation, known.direction, known.server)
        actual = (operation, direction, server)
        if known.peer == peer and all(w in (None, a) for w, a in zip(wanted, actual, strict=True)):
            return known
    return None
