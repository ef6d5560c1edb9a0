"""Read parts of one revision of an object: several requests never mix two revisions."""

from __future__ import annotations

import os
import threading
from bisect import bisect_right
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from ..bucket.at_once import run_all
from ..errors import ObjectChangedError
from ..format.assembly import check_digest, expected_digest
from ..format.digest import new_hasher
from ..format.marks import shown
from ..format.naming import DEFAULT_CHUNK_SIZE
from ..read import files
from ..read.get import again, changed, get_part
from ..read.links import FollowLinks, OtherBuckets, resolve
from .paths import limits, merged
from .tree import Entry, file_entry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..bucket.bucket import Bucket
    from ..bucket.operation import Progress
    from ..errors import IntegrityError
    from ..format.models import ObjectInfo
    from ..read.files import Replacing
    from ..store import ObjectStore

PARALLEL = 16
"""Ranges of one object that are read at the same time."""

MAX_GAP = 1024 * 1024
"""Most bytes that are read between two ranges: what a chunk has, whatever its description says.

No chunk has more where the server has its default limit.
"""

Range = tuple[int | None, int | None]
"""The bounds of a slice: ``data[start:end]``."""


class Pinned(NamedTuple):
    """One revision of an object, and the bucket that it is in, which a link may lead to."""

    bucket: Bucket
    info: ObjectInfo
    entry: Entry


async def find(
    store: ObjectStore, name: str, follow: FollowLinks, others: OtherBuckets | None = None
) -> tuple[Bucket, ObjectInfo]:
    """Return the object of a name, or of the link with that name, and its bucket.

    Args:
        others: as for :func:`objstore.read.links.resolve`.

    Raises:
        ObjectNotFoundError, LinkError: there is none, or ``follow`` forbids the link.
    """
    with store.client.connection.operation():
        return await resolve(store.bound_bucket, name, follow, others=others)


async def get_file(
    store: ObjectStore,
    name: str,
    path: str,
    progress: Progress,
    follow: FollowLinks,
    replacing: Replacing | None,
) -> None:
    """Read an object into a file as ``store.get_file`` does, which knows no ``replacing``."""
    bucket = store.bound_bucket
    with store.client.connection.operation():
        await files.get_file(
            bucket,
            bucket.check_name(name),
            os.fsdecode(path),
            verify=True,
            progress=progress,
            follow=follow,
            replacing=replacing,
        )


async def pin(store: ObjectStore, name: str, path: str, follow: FollowLinks) -> Pinned:
    """Return the object of a name, to read it.

    Raises:
        ObjectNotFoundError, LinkError: as for :func:`find`.
        IntegrityError, NatsError: it has no bytes, which no read would verify, and is damaged.
    """
    bucket, info = await find(store, name, follow)
    if not info.size:
        with bucket.connection.operation():
            await get_part(bucket, info, 0, 0)
    entry = file_entry(path, shown(info), shown(info))
    if (bucket.name, info.name) != (store.bucket, name):
        entry.update(islink=True, destination=f"{bucket.name}/{info.name}")
    return Pinned(bucket, info, entry)


async def part(pinned: Pinned, start: int, end: int) -> bytes:
    """Return the bytes of that revision from ``start`` to ``end``, as far as there are any.

    Raises:
        ObjectChangedError: it was replaced.
        IntegrityError, NatsError: it cannot be read.
    """
    low, high = limits(start, end, pinned.info.size)
    with pinned.bucket.connection.operation():
        return await get_part(pinned.bucket, pinned.info, low, high)


class RunningDigest:
    """The SHA-256 of what is read of an open file in pieces, as far as they go on from its beginning.

    Other pieces change nothing. Any thread may use it.
    """

    def __init__(self, info: ObjectInfo) -> None:
        self._info = info
        self._hasher = new_hasher()
        self._hashed = 0
        self._lock = threading.Lock()

    def wants(self, start: int, size: int) -> bool:
        """Whether that many bytes from ``start`` on go on from where the digest stands."""
        return start <= self._hashed < start + size

    def take(self, start: int, data: bytes) -> None:
        """Hash the bytes from ``start`` on, as far as they go on from where the digest stands.

        Raises:
            IntegrityError: it was the rest of the object, whose bytes are wrong. So it will be the next time.
        """
        if not self.wants(start, len(data)):
            return
        with self._lock:
            if not self.wants(start, len(data)):
                return
            hasher = self._hasher.copy()
            hasher.update(memoryview(data)[self._hashed - start :])
            end = start + len(data)
            if end == self._info.size:
                check_digest(self._info, expected_digest(self._info), hasher.digest())
            self._hasher, self._hashed = hasher, end


async def refuse(pinned: Pinned, exc: IntegrityError) -> NoReturn:
    """Raise the error of wrong bytes, or that which explains them.

    Raises:
        ObjectChangedError: it was replaced.
        IntegrityError, NatsError: as for :func:`part`.
    """
    with pinned.bucket.connection.operation():
        raise changed(await again(pinned.bucket, pinned.info, exc)) from None


async def parts(
    store: ObjectStore,
    name: str,
    path: str,
    ranges: Sequence[Range],
    follow: FollowLinks,
    gap: int | None = None,
) -> list[bytes]:
    """Return several ranges of one revision; if it is replaced meanwhile, of the new one.

    Ranges that overlap, or are close to each other, are read as one.

    Args:
        gap: bytes that may lie between two such ranges; default: a chunk's, since chunks are read
            whole, but no more than ``MAX_GAP``.
    """
    try:
        return await _parts(await pin(store, name, path, follow), ranges, gap)
    except ObjectChangedError:
        return await _parts(await pin(store, name, path, follow), ranges, gap)


async def _parts(pinned: Pinned, ranges: Sequence[Range], gap: int | None) -> list[bytes]:
    options = pinned.info.options
    if gap is None:
        gap = DEFAULT_CHUNK_SIZE if options is None else min(options.max_chunk_size, MAX_GAP)
    wanted = [limits(start, end, pinned.info.size) for start, end in ranges]
    blocks = merged((each for each in wanted if each[0] < each[1]), gap)
    found = await run_all((part(pinned, *block) for block in blocks), min(PARALLEL, len(blocks)) or 1)
    return [_cut(blocks, found, *each) for each in wanted]


def _cut(blocks: list[tuple[int, int]], found: list[bytes], start: int, end: int) -> bytes:
    if start >= end:
        return b""
    at = bisect_right(blocks, start, key=lambda block: block[0]) - 1
    low = blocks[at][0]
    return found[at][start - low : end - low]
