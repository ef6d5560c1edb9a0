"""Tell late copies of an object's chunks from damage.

A server of a cluster may hold back chunks for a leader that it does not reach. The put sends them again, by
way of another leader, and is committed. If the first leader leads again when it gets the others, it stores
them behind the object. No client can prevent that, and nothing is lost: the chunks before are the object, as
its digest proves, and each one behind equals one of them. Any other chunk that is too many is damage.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from math import inf
from typing import TYPE_CHECKING, NamedTuple

from natsproto.jetstream.publisher import MAX_MESSAGES

from ..errors import IntegrityError
from ..format.assembly import Assembly
from ..format.digest import new_hasher
from ..format.naming import chunk_subject
from .parts import MOST_NEWER, ContentKey, content_key, is_newer

if TYPE_CHECKING:
    from ..bucket.bucket import Bucket
    from ..format.models import ObjectInfo

MOST = MAX_MESSAGES
"""Messages behind an object that are looked at: as many as one put can have under way."""

TIMES = 16
"""How often all of an object may lie behind it: its chunks are sent again with each lost connection."""

AT_ONCE = 8 * 1024 * 1024
"""Bytes that are requested at once, if each message is as large as can be."""

REMEMBERED = 1000
"""Objects of a bucket whose late copies, or damage, are remembered."""

DAMAGED_FOR = 60.0
"""Seconds for which damage is remembered: what lies behind may be removed, and something else come."""


class LateCopies(NamedTuple):
    """What follows an object: copies of its chunks, and perhaps empty messages.

    Attributes:
        end: sequence of the object's last chunk.
        first: sequence of the first copy; 0 = none is there, or no longer.
        all: sequences of all messages that follow the object.
        before: how many messages come before them.
    """

    end: int
    first: int
    all: list[int]
    before: int


class _Verdicts(dict[tuple[ContentKey, int], tuple[LateCopies | None, float]]):
    """What lies behind objects, by the number of messages that there are, and since when that is known."""

    def __init__(self, bucket: Bucket) -> None:
        super().__init__()


async def late_copies(
    bucket: Bucket, info: ObjectInfo, ways: tuple[str, ...] | None = None
) -> LateCopies | None:
    """Return the late copies behind an object; ``None``: it is damaged.

    It reads the object twice: call it only when there are too many chunks. For a read (with ``ways``) what
    was found out is remembered until the number of messages changes (damage, for a minute): whatever lies
    behind, the digest proves the object.

    Args:
        bucket: the bucket of the object.
        info: a live object that is not a link.
        ways: as for :meth:`Bucket.messages`.

    Raises:
        NatsError: the chunks could not be read.
    """
    stored = await bucket.stored_chunks(info.nuid)
    if stored > info.chunks + MOST:
        return None
    verdicts, key = bucket.remembered(_Verdicts), (content_key(info), stored)
    loop = asyncio.get_running_loop()
    known, since = verdicts.get(key, (None, -inf))
    if ways is not None and (known is not None or loop.time() < since + DAMAGED_FOR):
        return known
    found = await _look(bucket, info, ways)
    if len(verdicts) >= REMEMBERED:
        verdicts.clear()
    verdicts[key] = found, loop.time()
    return found


async def _look(bucket: Bucket, info: ObjectInfo, ways: tuple[str, ...] | None) -> LateCopies | None:
    subject = chunk_subject(bucket.name, info.nuid)
    batch = max(1, min(256, AT_ONCE // bucket.max_message))
    try:
        assembly = Assembly(info)
        end = before = largest = size = newer = 0
        behind: list[int] = []
        copies: dict[bytes, int] = {}  # their digests, and their sequences
        async with aclosing(bucket.messages(subject, batch, ways=ways)) as messages:
            async for message in messages:
                if not assembly.complete:
                    newer += is_newer(bucket, info, message.seq)
                    if newer > MOST_NEWER:
                        return None
                    assembly.accept(message.data)
                    end, before = message.seq, before + 1
                    largest = max(largest, len(message.data))
                    continue
                behind.append(message.seq)
                size += len(message.data)
                if len(behind) > MOST or len(message.data) > largest or size > TIMES * info.size:
                    return None  # somebody keeps storing them; or they are none
                if message.data:  # fences have none
                    copies.setdefault(new_hasher(message.data).digest(), message.seq)
        assembly.finish()
    except IntegrityError:
        return None
    if not copies:  # some writers end objects with an empty message
        return LateCopies(end, 0, behind, before) if len(behind) < 2 else None
    first = min(copies.values())
    async with aclosing(bucket.messages(subject, batch, ways=ways)) as messages:
        async for message in messages:
            if message.seq > end or not copies:
                break
            copies.pop(new_hasher(message.data).digest(), None)
    # What has gone meanwhile does no harm, whatever it was: its writer has removed it.
    if copies and await bucket.stored_chunks(info.nuid) > info.chunks:
        return None
    return LateCopies(end, first, behind, before)
