"""Remove the chunks of a meta that was replaced or deleted, unless another object needs them.

Any client that may write to a bucket can store a meta that refers to another object's chunks. Replacing or
deleting that meta would then destroy the other object. So chunks are purged without a check only if they were
stored for the meta's name, which the nuid proves (:func:`new_nuid`), and no rename has begun: after a rename
another name may have them. The nuids of other clients, of older versions and of renamed objects prove
nothing: then all metas of the bucket are scanned first (``scan.py``). A scan does not show an object whose
chunks are stored and whose meta is still on its way. So chunks that this library stored recently stay, too,
unless the delete marker of their original name records a rename. (Any other newer meta of that name proves
nothing: the put may be about to replace it.)
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING

from natsproto._values import seconds
from natsproto.errors import APIError, NatsError, PermissionsViolationError, RequestTimeoutError
from natsproto.jetstream.api.errors import retryable

from ..bucket import numbered
from ..bucket.bucket import CANCEL_WAIT, RECHECK_DELAYS, Bucket, log
from ..bucket.counts import count_from
from ..bucket.refusals import certainly_refused
from ..bucket.ways import CONSUMER
from ..errors import IntegrityError, OutcomeUnknownError
from ..format.codec import MetaDecodeError
from ..format.marks import RENAMING, was_moved
from ..format.models import ObjectInfo
from ..format.naming import all_subject, chunk_subject, is_nuid_of, is_own_nuid
from . import scan
from .renames import shares_chunks

if TYPE_CHECKING:
    from natsproto.jetstream.api.models import StoredMessage

    from ..bucket.locate import Lookup

COMMIT_TIME = timedelta(hours=1)
"""Time within which a meta follows its last chunk: many times the default ``retry_budget`` of 20 s."""


async def discard(
    bucket: Bucket, info: ObjectInfo, why: str, subject: str | None = None, *, unreplaced: bool = False
) -> None:
    """Purge the chunks of a removed meta; a failure is only logged, since the caller's change is committed.

    The chunks are older than the meta. Newer messages on their nuid belong to a resumed upload, and stay.

    Args:
        bucket: the bucket of the chunks.
        info: the removed meta.
        why: the caller, for the log.
        subject: the subject of the removed meta; ``None`` = this library's. Only there is a running put of
            that name sure to notice a newer meta, which tells it that its chunks may be gone.
        unreplaced: the meta was removed, and no newer one lies on its subject.
    """
    if info.is_link or not info.nuid:
        return
    try:
        if await shares_chunks(bucket, info):
            return
        ours = not unreplaced and (subject is None or subject == bucket.meta_subject(info.name))
        bound = ours and RENAMING not in info.metadata and is_nuid_of(info.nuid, info.name)
        left = "" if bound else await _reason_to_leave(bucket, info)
        if not left:
            await bucket.purge_chunks(info.nuid, before=info.revision)
            return
    except (NatsError, IntegrityError) as exc:
        left = str(exc)
    log.warning(
        "%s: chunks %r of %r in bucket %r are left behind: %s",
        why,
        info.nuid[:80],
        info.name,
        bucket.name,
        left,
    )


async def _reason_to_leave(bucket: Bucket, info: ObjectInfo) -> str:
    """Return why to keep chunks that may not be the object's own (``gc`` may remove them); ``""`` = purge."""
    try:
        async with asyncio.timeout(scan.SCAN_TIME):
            return await _reason_after_scan(bucket, info)
    except TimeoutError as exc:
        return (
            str(exc)
            or f"whether another object needs them was not found out within {seconds(scan.SCAN_TIME)} s"
        )


async def _reason_after_scan(bucket: Bucket, info: ObjectInfo) -> str:
    bucket.learn(await bucket.retrying(lambda: bucket.js.stream_info(bucket.stream)))
    last = await bucket.leader_message(chunk_subject(bucket.name, info.nuid))
    if last is not None and last.seq > info.revision:
        return "somebody has stored more of them since"
    references = await scan.scan_for(bucket, info.nuid)
    if references is None:
        return "another object names them"
    if references.full:
        return f"whether one of more than {scan.MOST_NAMES} objects needs them, only gc() finds out"
    if not is_own_nuid(info.nuid):
        return ""  # stored by another client
    if bucket.remembered(scan.Scan).has_moved(info.nuid):
        return ""  # their put has been committed, and we have renamed its object
    marker = references.left_by(info.nuid)
    message = None if marker is None else await bucket.leader_message(marker)
    if message is not None and was_moved(bucket.decode(message), info.nuid):
        return ""  # their original name records that the object was renamed
    if last is None:
        return ""  # only now: others can have that answer sent to us, too
    newest = await bucket.leader_message(all_subject(bucket.name))  # its time is the server's
    if newest is None or newest.time - last.time < (
        numbered.GONE if numbered.numbered(last) else COMMIT_TIME
    ):
        return "a put, or a rename, may be about to name them"
    return ""


async def purge_metas(bucket: Bucket, subject: str, revision: int) -> int | None:
    """Remove the meta messages of a name up to ``revision``; a newer one of another writer stays.

    Returns:
        How many; ``None`` when a response was lost and the retry found nothing.

    Raises:
        OutcomeUnknownError: a request was refused, but an earlier one may have been carried out.
        NatsError: refused; nothing was removed.
    """
    lost = False

    async def purge() -> int:
        nonlocal lost
        try:
            return await bucket.js.purge_stream(bucket.stream, subject=subject, seq=revision + 1)
        except PermissionsViolationError as exc:
            lost = lost or not await certainly_refused(bucket.client, exc, bucket.js.timeout)
            raise
        except NatsError as exc:
            lost = lost or retryable(exc)
            raise

    try:
        removed = await bucket.retrying(purge)
    except (APIError, PermissionsViolationError) as exc:
        if lost and not retryable(exc):
            raise OutcomeUnknownError(
                f"whether the meta messages of {subject!r} in bucket {bucket.name!r} were removed could "
                f"not be found out: {exc}",
                bucket=bucket.name,
            ) from exc
        raise
    return None if lost and not removed else removed


async def remove_older(bucket: Bucket, lookup: Lookup, newest: ObjectInfo | None) -> None:
    """Remove older metas of a name under other subjects, and the chunks that only they refer to.

    Do this before changing the newest meta under its subject: readers ask this library's subject first, and
    would see a meta there that was replaced long ago. A cancelled call still finishes.

    Raises:
        RequestTimeoutError: a consumer does not count the newest one: the leader's answers name no stream.
    """
    if lookup.others:
        await _check_newest(bucket, lookup)
        await bucket.run_to_end(_remove_each(bucket, lookup.others, newest), wait_if_cancelled=CANCEL_WAIT)


async def _check_newest(bucket: Bucket, lookup: Lookup) -> None:
    """Make sure that others were replaced: of two subjects the one with the newer message decides.

    Who may create no consumer relies on the answers.
    """
    if not bucket.ways.has_right(CONSUMER):
        return
    try:
        for delay in RECHECK_DELAYS:  # a replica may be behind
            await asyncio.sleep(delay)
            if await count_from(bucket, lookup.newest, lookup.revision):
                return
    except PermissionsViolationError as exc:
        if bucket.ways.note_refusal(exc):
            return
        raise
    except APIError as exc:
        raise bucket.translate(exc) from None
    raise RequestTimeoutError(
        f"bucket {bucket.name!r} has no message {lookup.revision} on {lookup.newest!r}, which was answered: "
        "nothing was changed, try again"
    )


async def _remove_each(
    bucket: Bucket, others: Mapping[str, StoredMessage], newest: ObjectInfo | None
) -> None:
    for subject, message in others.items():
        try:
            await purge_metas(bucket, subject, message.seq)
            older = bucket.decode(message)
            if not older.deleted and (newest is None or older.nuid != newest.nuid):
                await discard(bucket, older, "older meta", subject, unreplaced=True)
        except (MetaDecodeError, NatsError) as exc:
            log.warning("an older meta in bucket %r is left behind: %s", bucket.name, exc)
