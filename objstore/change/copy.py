"""Copy an object within a bucket, or into another one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..bucket.operation import check_callback
from ..format.marks import RESERVED
from ..format.naming import MAX_CHUNK_SIZE
from ..read import get
from ..read.links import check_follow_links, resolve
from ..write.source import Repeatable

if TYPE_CHECKING:
    from datetime import timedelta

    from ..bucket.operation import Progress
    from ..format.models import ObjectInfo
    from ..read.links import FollowLinks, OtherBuckets
    from ..store import ObjectStore


async def copy(
    store: ObjectStore,
    name: str,
    to: ObjectStore,
    new_name: str,
    *,
    chunk_size: int | None = None,
    ttl: timedelta | None = None,
    if_revision: int | None = None,
    progress: Progress | None = None,
    follow: FollowLinks = "all",
    others: OtherBuckets | None = None,
) -> ObjectInfo:
    """Copy an object as :meth:`ObjectStore.copy` does.

    Args:
        others: of the command that this is a part of, see :func:`~objstore.read.links.resolve`.
    """
    check_callback("progress", progress)
    check_follow_links(follow)
    with store.client.connection.operation():
        bound = store.bound_bucket
        bucket, info = await resolve(bound, bound.check_name(name), follow, others=others)
        if chunk_size is None:
            limit = min(to.bound_bucket.max_message, MAX_CHUNK_SIZE)
            chunk_size = await get.chunk_size_of(bucket, info, limit)
        return await to.put(
            new_name,
            Repeatable(lambda: get.buffers(bucket, info)),
            info.description,
            None,
            info.headers,
            metadata={key: value for key, value in info.metadata.items() if not key.startswith(RESERVED)},
            chunk_size=chunk_size,
            ttl=ttl,
            if_revision=if_revision,
            progress=progress,
            size=info.size,
        )
