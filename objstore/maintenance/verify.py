"""Check whether the stored chunks agree with the metas."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING

from natsproto.errors import (
    NatsError,
    StaleConnectionError,
)

from ..bucket.at_once import run_all
from ..bucket.bucket import RECHECK_DELAYS, Bucket
from ..bucket.ttl import expired
from ..bucket.ways import ANY_WAY
from ..errors import (
    DigestMismatchError,
    IntegrityError,
    ObjectChangedError,
)
from ..format.codec import MetaDecodeError
from ..format.digest import hex_digest, new_hasher
from ..format.marks import RENAMING
from ..format.models import InvalidMeta
from ..format.naming import chunk_subject, is_nuid_of, is_safe_nuid
from ..listing.metas import newest_metas
from ..read.get import blocks
from ..read.parts import NotWhole
from .reports import Problem, VerifyReport
from .stored_chunks import chunk_counts

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..format.models import ObjectInfo

READS = 3
"""Metas of other sizes than the chunks, after which these are read by themselves: forged ones may be many."""

MOST_READS = 10
"""The same where copies may be among the chunks."""

CONFIRMED_AT_ONCE = 16
"""Suspected objects that are looked at again at the same time."""


async def verify(bucket: Bucket, *, deep: bool) -> VerifyReport:
    """See :meth:`ObjectStore.verify`."""
    invalid: list[InvalidMeta] = []
    infos = await newest_metas(bucket, invalid.append)
    counts = await chunk_counts(bucket)
    problems = [
        Problem("unreadable meta", getattr(each.error, "name", ""), str(each.error), each.revision)
        for each in invalid
    ]
    live = [info for info in infos if not info.deleted]
    objects = [info for info in live if not info.is_link]
    by_nuid = {info.nuid: info.name for info in objects}
    if counts is None:
        counts = {nuid: await bucket.stored_chunks(nuid) for nuid in by_nuid if is_safe_nuid(nuid)}
    suspects = {info.name: info for info in objects if _check_counts(info, counts) is not None}
    confirmed: dict[str, Problem] = {}
    for wait in RECHECK_DELAYS:
        await asyncio.sleep(wait)
        again = (_confirm(bucket, suspects[name]) for name in (confirmed or suspects))
        found = await run_all(again, CONFIRMED_AT_ONCE)
        confirmed = {each.name: each for each in found if each is not None}
        if not confirmed:
            break
    if deep:
        unread = (info for info in objects if info.name not in confirmed)
        confirmed |= {problem.name: problem for problem in await _check_contents(bucket, unread)}
    for info in objects:
        problem = confirmed.get(info.name)
        if problem is not None:
            problems.append(problem)
        other = by_nuid[info.nuid]
        if other != info.name and await _marked(bucket, info) == other:
            problems.append(Problem("half-done rename", info.name, f"to {other!r}", info.revision))
    return VerifyReport(
        bucket.name,
        len(objects),
        len(live) - len(objects),
        sum(info.size for info in objects),
        deep,
        problems,
    )


async def _marked(bucket: Bucket, info: ObjectInfo) -> str | None:
    """Return the new name that the mark of a rename says; lists do not read marks."""
    if not bucket.can_request(bucket.meta_subject(info.name)):
        return None
    try:
        newest = await bucket.leader_meta(info.name, ANY_WAY)
    except MetaDecodeError:
        return None
    if newest is None or newest.revision != info.revision:
        return None  # the next run sees it
    return newest.metadata.get(RENAMING)


def _check_counts(info: ObjectInfo, counts: dict[str, int]) -> Problem | None:
    if not is_safe_nuid(info.nuid):
        return Problem("unusable nuid", info.name, f"{info.nuid[:80]!r} names no chunks", info.revision)
    stored = counts.get(info.nuid, 0)
    detail = f"{stored} stored, {info.chunks} recorded"
    if stored < info.chunks:
        return Problem("missing chunks", info.name, detail, info.revision)
    if stored > info.chunks:
        return Problem("extra chunks", info.name, detail, info.revision)
    if bool(info.size) != bool(info.chunks) and not (info.size == 0 and info.chunks == 1):
        return Problem(
            "impossible size", info.name, f"{info.size} bytes in {info.chunks} chunks", info.revision
        )
    return None


async def _is_current(bucket: Bucket, info: ObjectInfo) -> bool:
    if not bucket.can_request(bucket.meta_subject(info.name)):
        return True  # this user cannot look again: the name is too long for that
    newest = (await bucket.locate(info.name, ANY_WAY))[1]
    return newest is not None and newest.seq == info.revision


async def _confirm(bucket: Bucket, info: ObjectInfo) -> Problem | None:
    """Check again: the object may have changed between the two responses that were compared."""
    if not await _is_current(bucket, info):
        return None  # the next run sees it
    if not is_safe_nuid(info.nuid):
        return _check_counts(info, {})
    subject = chunk_subject(bucket.name, info.nuid)
    stored = await bucket.stored_chunks(info.nuid, info.chunks)
    if stored == info.chunks + 1:
        # Some writers end an object with an empty message that they do not count.
        last = await bucket.leader_message(subject, ANY_WAY)
        if last is None:
            return None  # removed meanwhile: the next run sees the result
        if not last.data:
            return None
    if stored < info.chunks and (bucket.max_age is not None or expired(info)):
        return None  # they have expired; the meta soon does, or a killed server has brought it back
    return _check_counts(info, {info.nuid: stored})


async def _check_contents(bucket: Bucket, objects: Iterable[ObjectInfo]) -> list[Problem]:
    """Read all objects, but chunks that several names have only once: anybody may write such metas."""
    by_nuid: dict[str, list[ObjectInfo]] = {}
    for info in objects:
        by_nuid.setdefault(info.nuid, []).append(info)
    return [problem for infos in by_nuid.values() for problem in await _check_names(bucket, infos)]


async def _check_names(bucket: Bucket, infos: list[ObjectInfo]) -> list[Problem]:
    """Read the chunks of one nuid, and compare the metas of all its names with what they are."""
    if len(infos) > 1:  # forged metas, which may have any size and digest, come last
        infos.sort(key=lambda info: (not is_nuid_of(info.nuid, info.name), info.revision))
    problems: list[Problem] = []
    known: dict[tuple[int, int, str], tuple[str, str]] = {}  # contents: who was read, and what is wrong
    stored: tuple[int, str] | None = None  # size and digest of the chunks
    reader = ""  # whose read has shown it
    vain = count = 0  # reads that have not; and how many chunks there are, after enough of these
    for info in infos:
        content = (info.size, info.chunks, info.digest)
        if stored is None and vain == READS:
            size, digest, count = await _stored_content(bucket, info.nuid)
            stored, reader = (size, digest), info.name
        # A mirror keeps copies of chunks: then fewer than there are may be the object.
        fewer = bucket.copied and info.chunks < count and vain < MOST_READS
        if content in known:
            name, detail = known[content]
        elif stored is not None and stored != (info.size, info.digest) and not fewer:
            name, detail = reader, "size or digest differ"
        else:
            read = await _read(bucket, info)
            if read is None:
                continue
            name, (detail, digest) = info.name, read
            known[content] = name, detail
            vain += not digest
            if digest:
                stored, reader = (info.size, digest), name
                known.setdefault((info.size, info.chunks, digest), (name, ""))
        if detail and name != info.name:
            detail = f"it has the chunks of {name!r}: {detail}"
            if not await _is_current(bucket, info):
                continue
        if detail:
            problems.append(Problem("damaged", info.name, detail, info.revision))
    return problems


async def _stored_content(bucket: Bucket, nuid: str) -> tuple[int, str, int]:
    """Return size, digest and number of all chunks of a nuid, whatever metas say of them."""
    size, hasher, count = 0, new_hasher(), 0
    end = (await bucket.retrying(lambda: bucket.js.stream_info(bucket.stream))).last_seq
    async with aclosing(bucket.messages(chunk_subject(bucket.name, nuid), ways=ANY_WAY)) as chunks:
        async for chunk in chunks:
            if chunk.seq > end:
                break  # others may store more without end
            hasher.update(chunk.data)
            size += len(chunk.data)
            count += 1
    return size, hex_digest(hasher.digest()), count


async def _read(bucket: Bucket, info: ObjectInfo, *, again: bool = True) -> tuple[str, str] | None:
    """Read an object; return what is wrong with it, and the digest of its bytes ("" if it is not known).

    Return ``None`` if it was replaced or deleted meanwhile.
    """
    reading = blocks(bucket, info)
    try:
        async for _ in reading:
            pass
    except IntegrityError as exc:
        return str(exc), exc.actual if isinstance(exc, DigestMismatchError) else ""
    except NotWhole:
        if not again:
            return "", ""  # somebody stores and removes chunks of it all the time
    except StaleConnectionError:
        if not again:
            raise
    except NatsError as exc:
        if isinstance(exc, LookupError | ObjectChangedError):
            return None
        raise
    else:
        return "", info.digest
    finally:
        await reading.aclose()
    return await _read(bucket, info, again=False)
