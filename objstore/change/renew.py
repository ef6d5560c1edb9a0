"""Changes in a bucket with a time to live: meta and chunks must have the same age.

A changed meta is a new message with a new age, but its chunks are as old as the upload. So the chunks are
copied to a new nuid, and the change is a put of the object on itself: it costs a download and an upload.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from natsproto.errors import NatsError

from ..bucket.bucket import CANCEL_WAIT
from ..bucket.ttl import remaining
from ..commit.commit import Conflict, unknown_outcome
from ..errors import ObjectChangedError, OutcomeUnknownError, RevisionConflictError
from ..format.chunking import resolve_chunk_size
from ..read.get import buffers, chunk_size_of
from ..write.put import Put
from ..write.source import Repeatable, open_source
from .delete import delete

if TYPE_CHECKING:
    from ..bucket.bucket import Bucket
    from ..format.models import ObjectInfo


def ages(bucket: Bucket, info: ObjectInfo) -> bool:
    """Whether a change of ``info`` must renew its chunks."""
    return bucket.max_age is not None and info.chunks > 0 and not info.is_link


async def renewed(bucket: Bucket, old: ObjectInfo, changed: ObjectInfo) -> ObjectInfo:
    """Replace ``old`` by ``changed``, with a copy of its bytes.

    Raises:
        Conflict: the revision is another one; nothing was changed.
        ObjectNotFoundError: the bytes expired meanwhile.
    """
    try:
        return await _copy(bucket, old, changed, old.revision)
    except RevisionConflictError as exc:
        raise Conflict(exc.current or 0, None) from exc
    except ObjectChangedError as exc:
        raise await _conflict(bucket, old) from exc


async def moved(bucket: Bucket, old: ObjectInfo, changed: ObjectInfo) -> ObjectInfo:
    """Store a copy as ``changed.name``, then delete the old name. Both are always whole objects.

    Raises:
        ObjectAlreadyExists: a live object has the new name.
        Conflict: another client changed the old object meanwhile; nothing was renamed.
        OutcomeUnknownError: the copy is stored; the old name may be there, too.
    """
    try:
        new = await _copy(bucket, old, changed, 0, must_not_exist=True)
    except ObjectChangedError as exc:
        raise await _conflict(bucket, old) from exc

    async def finish() -> ObjectInfo:
        stored = await bucket.leader_meta(new.name)  # an acknowledgement may be forged
        if stored is None or stored.deleted:
            raise unknown_outcome(bucket, new.name, new.nuid)
        if stored.nuid != new.nuid and not _copied_again(stored, new):
            raise unknown_outcome(bucket, new.name, new.nuid)
        try:
            await delete(bucket, old.name, old.revision)
        except (RevisionConflictError, LookupError) as exc:
            await delete(bucket, new.name, new.revision)
            raise Conflict(getattr(exc, "current", 0), None) from exc
        return new

    async def finish_for_certain() -> ObjectInfo:
        try:
            return await finish()
        except OutcomeUnknownError:
            raise
        except NatsError as exc:  # of a request after the copy: it does not tell what there is now
            raise OutcomeUnknownError(
                f"{old.name!r} in bucket {bucket.name!r} was copied to {new.name!r}; "
                f"whether the old name is gone is not known: {exc}",
                bucket=bucket.name,
                name=old.name,
                nuid=new.nuid,
            ) from exc

    # A cancellation must not leave two names behind.
    return await bucket.run_to_end(finish_for_certain(), wait_if_cancelled=CANCEL_WAIT)


async def _conflict(bucket: Bucket, old: ObjectInfo) -> Conflict:
    """Return what has changed an object while it was copied."""
    current = await bucket.leader_meta(old.name)
    return Conflict(0 if current is None else current.revision, current)


def _copied_again(stored: ObjectInfo, new: ObjectInfo) -> bool:
    """Whether another client has changed the new object meanwhile, which copies its bytes."""
    same = (stored.size, stored.digest) == (new.size, new.digest)
    return same and not stored.is_link and stored.revision > new.revision


async def _copy(
    bucket: Bucket, old: ObjectInfo, changed: ObjectInfo, revision: int, *, must_not_exist: bool = False
) -> ObjectInfo:
    limit = bucket.client.max_payload
    size = resolve_chunk_size(await chunk_size_of(bucket, old, limit), limit)
    return await Put(
        bucket,
        replace(changed, nuid="", revision=0),
        open_source(Repeatable(lambda: buffers(bucket, old))),
        chunk_size=size,
        if_revision=revision,
        must_not_exist=must_not_exist,
        ttl=await remaining(bucket, old.expires) if bucket.msg_ttl else None,
        end=old.expires if bucket.msg_ttl else None,
    ).run()
