"""One scan of all metas, for everybody who must know on this handle whether another object names some chunks.

What a scan has read is kept for a while, and the next one reads only what was stored since. Whoever asks at
the same time shares it, unless it began before he asked: what he has just committed, or what he fears that
others did, might be lacking.
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
"""Names that are remembered, some 12 MB of them; of a bucket with more nothing is found out."""
SCAN_TIME = 5.0
"""Seconds that a call waits for a scan; the next one goes on where it was."""
KEPT = 60.0
"""Seconds after which a scan is forgotten: for the memory, and as servers may lose what they had stored."""
FULL_FOR = 600.0
"""Seconds for which a bucket is taken to have too many names."""
MOST_MOVED = 10_000
"""Renames that a client remembers, with whatever handles it made them."""
RECHECKED = 3
"""Metas that are asked for once more before all of them are."""


_moved_by: WeakKeyDictionary[Client, dict[str, None]] = WeakKeyDictionary()
"""Nuids of what each client has renamed, the oldest first; they are random, so buckets share them."""


class Scan:
    """What is known of a bucket's metas, and whose turn it is to read on."""

    def __init__(self, bucket: Bucket) -> None:
        self._references: References | None = None
        self._of: tuple[object, ...] = ()
        self._timer: asyncio.TimerHandle | None = None
        self._turn = asyncio.Lock()
        self._begun = 0  # rounds, by number
        self._done = 0  # the last one that came to its end
        self._moved = _moved_by.setdefault(bucket.client, {})

    def note_moved(self, nuid: str) -> None:
        """Remember that an object with these chunks stood at the name they were stored for, and was renamed.

        The delete marker that says so may be replaced long before the chunks are.
        """
        self._moved[nuid] = None
        if len(self._moved) > MOST_MOVED:
            del self._moved[next(iter(self._moved))]

    def has_moved(self, nuid: str) -> bool:
        """Whether :meth:`note_moved` was told of it, as far as is remembered."""
        return nuid in self._moved

    async def latest(self, bucket: Bucket, *, anew: bool = False) -> References:
        """All metas that stood when this was called, and maybe some that do not any more.

        Args:
            bucket: where.
            anew: read all of them, to know which were removed without a newer one.

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
                # Two leaders may have answered, and the one have known less than the other.
                while bucket.replicated and (kept := await self._kept(bucket)) is not references:
                    references = kept
                    await references.read_on(bucket)
                self._done = number
            return references

    async def _kept(self, bucket: Bucket) -> References:
        """What was read before, unless it need not hold: for another leader, or another stream of that name,
        or one that has lost its end."""
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
    """Find out whether metas name some chunks that are live at the leader; ``None``: one does, or may.

    Args:
        bucket: where.
        nuid: the chunks'.
        but: names that may.

    Returns:
        What was read. Where it is :attr:`~References.full`, nothing was found out.

    Raises:
        NatsError: it was not found out.
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
    """Whether it is a meta that names these chunks, or one that cannot be read and may."""
    if message is None:
        return False
    try:
        info = bucket.decode(message)
    except MetaDecodeError:
        return nuid.encode() in message.data
    return not info.deleted and info.nuid == nuid
