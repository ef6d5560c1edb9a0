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
    """``writer`` acts, ``reader`` sees it; ``ours`` and ``theirs`` are the same two.

    Attributes:
        readers: the reader, and the writer unless it is a peer that cannot read from this server.
    """

    def __init__(self, ours: Ours, theirs: Peer, direction: str, bucket: str, theirs_reads: bool) -> None:
        self.ours = ours
        self.theirs = theirs
        self.bucket = bucket
        self.writer, self.reader = (ours, theirs) if direction == OURS_WRITE else (theirs, ours)
        self.readers: list[Peer] = [self.reader]
        if self.writer is ours or theirs_reads:
            self.readers.append(self.writer)

    @property
    def store(self) -> ObjectStore:
        return self.ours.store


@asynccontextmanager
async def opened(
    client: natsproto.Client, theirs: Peer, direction: str, bucket: str, theirs_reads: bool
) -> AsyncIterator[Pair]:
    """A fresh bucket with both on it, gone afterwards."""
    ours = Ours(client)
    await ours.create_bucket(bucket)
    try:
        await theirs.open_bucket(bucket)
        yield Pair(ours, theirs, direction, bucket, theirs_reads)
    finally:
        await theirs.close()
        try:
            await ours.js.delete_stream(f"OBJ_{bucket}")  # sealed ones too
        except StreamNotFoundError:
            pass
