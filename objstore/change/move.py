"""Move an object where a rename cannot: into another bucket, or onto an object that it replaces."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..bucket.ttl import remaining

if TYPE_CHECKING:
    from ..bucket.operation import Progress
    from ..format.models import ObjectInfo
    from ..store import ObjectStore


async def copy_to_move(
    store: ObjectStore,
    info: ObjectInfo,
    to: ObjectStore,
    new: str,
    *,
    if_revision: int | None = None,
    progress: Progress | None = None,
) -> ObjectInfo:
    """Store an object under its new name; the caller then deletes it under the old one.

    A link stays a link, and replaces no object: what it leads to is not moved, and may be a secret of another
    bucket. The end that a ``ttl`` has set stays (to a second), unless the bucket allows none.

    Args:
        store: the bucket of the object.
        info: the object, as it was found.
        if_revision, progress: as for :meth:`ObjectStore.copy`; not for links.

    Raises:
        The errors of :meth:`ObjectStore.add_link` and :meth:`ObjectStore.copy`.
    """
    if info.is_link:
        assert info.options is not None
        link = info.options.link
        assert link is not None
        if link.name is None:
            return await to.add_bucket_link(new, link.bucket, description=info.description)
        return await to.add_link(new, link, description=info.description)
    bucket = to.bound_bucket
    ttl = await remaining(bucket, info.expires) if bucket.msg_ttl else None
    # It was no link: if it is one now, its target is not what is moved.
    return await store.copy(
        info.name, new, to=to, ttl=ttl, if_revision=if_revision, progress=progress, follow_links="none"
    )
