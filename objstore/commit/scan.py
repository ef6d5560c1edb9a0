"""One scan of all metas, shared by all calls on a handle that ask whether other metas refer to some chunks.

The result of a scan is kept for a while, and the next scan reads only what was stored since. Concurrent calls
share a scan, unless it began before the call: it might lack the caller's latest commit, or those of others.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from ..format.codec import MetaDecodeError
from ..format.naming import decode_meta_name
from .references import References

if TYPE_CHECKING:
    from collections.abc import Collection

    from natsproto.aio.client import Client
    from natsproto.jetstream.api.models import StoredMessage

    from ..bucket.bucket import Bucket

MOST_NAMES = 50_000
"""Names that are remembered, about 12 MB of them; a bucket with more is not scanned."""
SCAN_TIME = 5.0
"""Seconds that a call waits for a scan; the next call continues it."""
KEPT = 60.0
"""Seconds after which a scan is dropped: to free memory, and because servers may lose stored messages."""
FULL_FOR = 600.0
"""Seconds for which a bucket counts as having too many names."""
MOST_MOVED = 10_000
"""Renames that a client remembers, on all of its handles."""
RECHECKED = 3
"""Metas that are requested again before all are read again."""


_moved_by: WeakKeyDictionary[Client, dict[str, None]] = WeakKeyDictionary()
"""Nuids of each client's renamed objects, the oldest first; nuids are random, so buckets share this."""


class Scan:
    """The known references of a bucket's metas, and the lock for reading further."""

    def __init__(self, bucket: Bucket) -> None:
        self._references: References | None = None
        self._of: tuple[object, ...] = ()
        self._timer: asyncio.TimerHandle | None = None
        self._turn = asyncio.Lock()
        self._begun = 0  # number of the last round that began
        self._done = 0  # number of the last round that ended
        self._moved = _moved_by.setdefault(bucket.client, {})

    def note_moved(self, nuid: str) -> None:
        """Remember that the object of these chunks was renamed from the name they were stored for.

        The delete marker that records it may be replaced long before the chunks are.
        """
        self._moved[nuid] = None
        if len(self._moved) > MOST_MOVED:
            del self._moved[next(iter(self._moved))]

    def has_moved(self, nuid: str) -> bool:
        """Whether :meth:`note_moved` was called for this nuid, as far as remembered."""
        return nuid in self._moved

    async def latest(self, bucket: Bucket, *, anew: bool = False) -> References:
        """Return the references of all current metas, and perhaps of some removed ones.

        Args:
            bucket: the bucket to scan.
            anew: read all metas again, to detect those removed without a newer one.

        Raises:
            NatsError: they could not be read.
        """
        begun = self._begun
        async with self._turn:
            if anew:
                self._references = None
            references = self._references
            if references is None or self._done <= begun:
                self._begun += 1
                number = self._begun
                references = await self._kept(bucket)
                await references.read_on(bucket)
                # Two leaders may have responded, and one of them may have been behind.
                while bucket.replicated and (kept := await self._kept(bucket)) is not references:
                    references = kept
                    await references.read_on(bucket)
                self._done = number
            return references

    async def _kept(self, bucket: Bucket) -> References:
        """Return the previous references, unless the leader or the stream has changed, or lost its end."""
        stream = await bucket.retrying(lambda: bucket.js.stream_info(bucket.stream))
        bucket.learn(stream)
        cluster = stream.raw.get("cluster")
        leader = cluster.get("leader") if isinstance(cluster, dict) else None
        of = (bucket.connection.epoch, stream.created, leader)
        kept = self._references
        if kept is None or of != self._of or stream.last_seq < kept.cursor:
            self._of = of
            self._references = kept = References(MOST_NAMES)
            self._forget_after(KEPT, FULL_FOR)
        return kept

    def _forget_after(self, delay: float, full_for: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(delay, self._forget, full_for)

    def _forget(self, full_for: float) -> None:
        if full_for and self._references is not None and self._references.full:
            self._forget_after(full_for, 0.0)
        else:
            self._references = None


async def scan_for(bucket: Bucket, nuid: str, but: Collection[str] = ()) -> References | None:
    """Determine whether a live meta refers to some chunks, at the leader; ``None``: one does, or may.

    Args:
        bucket: the bucket to scan.
        nuid: the nuid of the chunks.
        but: names that are ignored.

    Returns:
        The references read. If they are :attr:`~References.full`, the result is unknown.

    Raises:
        NatsError: this could not be determined.
    """
    for anew in (False, True):
        references = await bucket.remembered(Scan).latest(bucket, anew=anew)
        found = [at for at in references.naming(nuid) if decode_meta_name(at) not in but]
        if references.full or not (found or references.may_name(nuid)):
            return references
        for subject in found[:RECHECKED]:
            if _names(bucket, await bucket.leader_message(subject), nuid):
                return None
    return None


def _names(bucket: Bucket, message: StoredMessage | None, nuid: str) -> bool:
    """Whether the message is a meta that refers to these chunks, or an unreadable one that may."""
    if message is None:
        return False
    try:
        info = bucket.decode(message)
    except MetaDecodeError:
        return nuid.encode() in message.data
    return not info.deleted and info.nuid == nuid
