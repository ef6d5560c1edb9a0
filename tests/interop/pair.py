"""Two clients on one bucket: this library and a peer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import natsproto
from natsproto.jetstream.api.errors import StreamNotFoundError
from objstore import ObjectStore

from .gaps import OURS_WRITE
from .peers.base import Peer
from .peers.ours import Ours


class Pair:
    """``writer`` acts, ``reader`` sees it; ``ours`` and ``theirs`` are the same two."""

    def __init__(self, ours: Ours, theirs: Peer, direction: str, bucket: str) -> None:
        self.ours = ours
        self.theirs = theirs
        self.bucket = bucket
        self.writer, self.reader = (ours, theirs) if direction == OURS_WRITE else (theirs, ours)

    @property
    def store(self) -> ObjectStore:
        return self.ours.store


@asynccontextmanager
async def opened(client: natsproto.Client, theirs: Peer, direction: str, bucket: str) -> AsyncIterator[Pair]:
    """A fresh bucket with both on it, gone afterwards."""
    ours = Ours(client)
    await ours.create_bucket(bucket)
    try:
        await theirs.open_bucket(bucket)
        yield Pair(ours, theirs, direction, bucket)
    finally:
        await theirs.close()
        try:
            await ours.js.delete_stream(f"OBJ_{bucket}")  # sealed ones too
        except StreamNotFoundError:
            pass
