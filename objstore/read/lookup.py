"""Find the live object of a name, or raise the error that says why there is none."""

from __future__ import annotations

from ..bucket.bucket import Bucket
from ..bucket.locate import LOOKS
from ..bucket.ways import ANY_WAY
from ..errors import (
    ObjectDeletedError,
    ObjectNotFoundError,
)
from ..format.models import ObjectInfo


def not_found(bucket: str, name: str) -> ObjectNotFoundError:
    """Return the error for a name without a meta message."""
    return ObjectNotFoundError(f"no object {name!r} in bucket {bucket!r}", bucket=bucket, name=name)


def deleted(info: ObjectInfo) -> ObjectDeletedError:
    """Return the error for a delete marker."""
    return ObjectDeletedError(
        f"object {info.name!r} in bucket {info.bucket!r} was deleted",
        bucket=info.bucket,
        name=info.name,
        revision=info.revision,
    )


async def newest_info(bucket: Bucket, name: str) -> ObjectInfo:
    """Return the newest meta of an object, which may be a delete marker.

    Raises:
        ObjectNotFoundError: there is none.
    """
    info = await find_info(bucket, name)
    if info is None:
        raise not_found(bucket.name, name)
    return info


async def find_info(bucket: Bucket, name: str, *, leader: bool = False) -> ObjectInfo | None:
    """Return the newest meta of a name; ``None`` when there is none.

    A peer can have that answer sent to us where several servers hold the bucket: it is asked for again.
    """
    for _ in range(LOOKS if bucket.replicated else 1):
        info = await (bucket.leader_meta(name, ANY_WAY) if leader else bucket.read_meta(name))
        if info is not None:
            break
    return info


async def live_info(bucket: Bucket, name: str, *, leader: bool = False) -> ObjectInfo:
    """Return the newest meta of a live object.

    Raises:
        ObjectNotFoundError, ObjectDeletedError: there is no live object.
    """
    info = await find_info(bucket, name, leader=leader)
    if info is None:
        raise not_found(bucket.name, name)
    if info.deleted:
        raise deleted(info)
    return info
