"""Find the chunks of an object among copies of them, in a bucket that copies another one.

A put removes a chunk that was stored twice before its commit. Mirrors and sources do not copy that: there the
copy stays, in the middle of the object. Nothing marks it but its bytes, which an object may really have
twice. So a few likely choices are tried, and the digest of the object decides.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import aclosing
from itertools import accumulate, compress
from typing import TYPE_CHECKING, NamedTuple

from ..errors import DigestMismatchError, IntegrityError
from ..format.assembly import Assembly
from ..format.digest import new_hasher
from ..format.naming import chunk_subject
from .parts import ContentKey, content_key

if TYPE_CHECKING:
    from ..bucket.bucket import Bucket
    from ..format.models import ObjectInfo

MOST = 100_000
"""Chunks of the largest object that is looked into: it takes some 200 bytes of memory for each."""

AT_ONCE = 8 * 1024 * 1024
"""Bytes that are requested at once, if each message is as large as can be."""

REMEMBERED = 2 * MOST
"""Messages of the objects of a bucket that are remembered."""


class Doubled(NamedTuple):
    """What is stored under the nuid of an object.

    Attributes:
        seqs: sequences of the object's chunks.
        offsets: their offsets, and the end.
        copies: sequences of the copies.
        stored: the number of all messages.
    """

    seqs: array[int]
    offsets: array[int]
    copies: frozenset[int]
    stored: int


class Known(dict[ContentKey, Doubled]):
    """What was found."""

    def __init__(self, bucket: Bucket) -> None:
        super().__init__()

    def note(self, key: ContentKey, found: Doubled) -> None:
        """Remember one; forget the oldest while there are too many."""
        self.pop(key, None)
        self[key] = found
        while sum(each.stored for each in self.values()) > REMEMBERED:
            del self[next(iter(self))]


async def doubled_chunks(bucket: Bucket, info: ObjectInfo, ways: tuple[str, ...]) -> Doubled | None:
    """Return which chunks are the object; ``None``: none is too many, or it is damaged.

    It reads the object twice, when there are too many chunks.

    Args:
        bucket: the bucket of the object.
        info: a live object that is not a link.
        ways: as for :meth:`Bucket.messages`.

    Raises:
        NatsError: the chunks could not be read.
    """
    if not bucket.copied or info.chunks > MOST:
        return None
    stored = await bucket.stored_chunks(info.nuid, info.chunks)
    if not info.chunks < stored <= 2 * info.chunks:
        return None
    known, key = bucket.remembered(Known), content_key(info)
    found = known.get(key)
    if found is not None and found.stored == stored:
        return found
    subject = chunk_subject(bucket.name, info.nuid)
    seqs, sizes = array("Q"), array("Q")
    digests: list[bytes] = []
    size, most = 0, 2 * info.size + bucket.max_message
    batch = max(1, min(256, AT_ONCE // bucket.max_message))
    async with aclosing(bucket.messages(subject, batch, ways=ways)) as messages:
        async for message in messages:
            size += len(message.data)
            if len(seqs) >= stored or size > most:
                return None  # somebody keeps storing them; or they are no copies of its chunks
            if message.data:  # some writers end an object with an empty message
                seqs.append(message.seq)
                sizes.append(len(message.data))
                digests.append(new_hasher(message.data).digest())
    choices = {
        tuple(chosen): None
        for chosen in _choices(digests, len(seqs) - info.chunks)
        if sum(compress(sizes, chosen)) == info.size
    }
    chosen = await _proven(bucket, info, ways, seqs, list(choices)) if choices else None
    if chosen is None:
        return None
    found = Doubled(
        array("Q", compress(seqs, chosen)),
        array("Q", accumulate(compress(sizes, chosen), initial=0)),
        frozenset(seq for seq, keep in zip(seqs, chosen, strict=True) if not keep),
        stored,
    )
    known.note(key, found)
    return found


def _choices(digests: list[bytes], extra: int) -> Iterator[bytearray]:
    """Yield likely choices of all messages but ``extra`` ones: 1 for each one that is kept.

    A copy that came twice lies behind its original; one that was sent again, too, or its original came late.
    Chunks that the object itself repeats are stored more often than others.
    """
    if extra <= 0:
        return
    count = Counter(digests)

    def without(copies: Iterable[int]) -> Iterator[bytearray]:
        dropped = list(copies)[:extra]
        if len(dropped) == extra:
            chosen = bytearray(b"\1") * len(digests)
            for index in dropped:
                chosen[index] = 0
            yield chosen

    later = _seen_before(digests)
    rare = sorted(later, key=lambda index: count[digests[index]])
    yield from without(sorted(rare, key=lambda index: digests[index] != digests[index - 1]))
    yield from without(rare)
    earlier = [len(digests) - 1 - index for index in _seen_before(digests[::-1])]
    yield from without(sorted(earlier, key=lambda index: count[digests[index]]))


def _seen_before(digests: list[bytes]) -> list[int]:
    """Return the indexes of all that equal an earlier one."""
    first: dict[bytes, int] = {}
    return [index for index, digest in enumerate(digests) if first.setdefault(digest, index) != index]


async def _proven(
    bucket: Bucket, info: ObjectInfo, ways: tuple[str, ...], seqs: array[int], choices: list[tuple[int, ...]]
) -> tuple[int, ...] | None:
    """Return the choice that has the object's digest."""
    try:
        assemblies = [Assembly(info) for _ in choices]
    except DigestMismatchError:
        return None  # there is none
    index = 0
    async with aclosing(bucket.messages(chunk_subject(bucket.name, info.nuid), ways=ways)) as messages:
        async for message in messages:
            if not message.data:
                continue
            if index == len(seqs) or message.seq != seqs[index]:
                return None
            for chosen, assembly in zip(choices, assemblies, strict=True):
                if chosen[index]:
                    assembly.accept(message.data)
            index += 1
    for chosen, assembly in zip(choices, assemblies, strict=True):
        try:
            assembly.finish()
        except IntegrityError:
            continue
        return chosen
    return None
