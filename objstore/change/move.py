"""Move an object where a rename cannot: into another bucket, or onto an object that it replaces."""

from __future__ import annotations

from typing import TYPE_CHECKING

from natsproto._values import brief

from ..bucket.ttl import remaining
from ..errors import LinkError
from ..format.models import ObjectMeta
from .links import add_link

if TYPE_CHECKING:
    from ..bucket.operation import Progress
    from ..format.models import ObjectInfo
    from ..read.links import FollowLinks, OtherBuckets
    from ..store import ObjectStore


async def copy_to_move(
    store: ObjectStore,
    info: ObjectInfo,
    to: ObjectStore,
    new: str,
    *,
    follow: FollowLinks = "all",
    if_revision: int | None = None,
    progress: Progress | None = None,
    others: OtherBuckets | None = None,
) -> ObjectInfo:
    """Store an object under its new name; the caller then deletes it under the old one.

    A link stays a link, and replaces no object: what it leads to is not moved, and may be a secret of another
    bucket. In another bucket it is a link of that one, which more readers may follow: so one that ``follow``
    forbids to read is not moved there, nor one that leads into that very bucket. The end that a ``ttl`` has
    set stays (to a second), unless the bucket allows none.

    Args:
        store: the bucket of the object.
        info: the object, as it was found.
        follow: the links that may be read.
        if_revision, progress: as for :meth:`ObjectStore.copy`; not for links.
        others: the buckets that the links of one command lead to, see there.

    Raises:
        LinkError: the link must not be moved there.
        The errors of :meth:`ObjectStore.add_link` and :meth:`ObjectStore.copy`.
    """
    if info.is_link:
        assert info.options is not None
        link = info.options.link
        assert link is not None
        if link.name is not None and to.bucket != store.bucket:
            forbidden = follow == "none" or (follow == "same-bucket" and link.bucket != store.bucket)
            if forbidden or link.bucket == to.bucket:
                why = f"follow_links={follow!r}" if forbidden else "who reads there follows more"
                raise LinkError(
                    f"link {info.name!r} in bucket {store.bucket!r} is not moved to bucket {to.bucket!r}: it "
                    f"leads to {brief(link.target)} ({why}): make it anew there, if that is meant",
                    bucket=store.bucket,
                    name=info.name,
                    target_bucket=link.bucket,
                    target_name=link.name,
                )
        if link.name is None:
            return await to.add_bucket_link(new, link.bucket, description=info.description)
        bucket = to.bound_bucket
        bucket.check_writable()
        with to.client.connection.operation():
            return await add_link(bucket, ObjectMeta(bucket.check_name(new), info.description), link, others)
    bucket = to.bound_bucket
    ttl = await remaining(bucket, info.expires) if bucket.msg_ttl else None
    # It was no link: if it is one now, its target is not what is moved.
    return await store.copy(
        info.name, new, to=to, ttl=ttl, if_revision=if_revision, progress=progress, follow_links="none"
    )
