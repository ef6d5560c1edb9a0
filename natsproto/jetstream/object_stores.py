"""The only file of ``natsproto`` that imports ``objstore`` at run time, for ``js.object_store()``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from objstore import ObjectStore
    from objstore.format.models import BucketFields, ObjectStoreConfig, ObjectStoreStatus

    from .context import JetStreamContext


async def open_bucket(js: JetStreamContext, bucket: str, create: bool) -> ObjectStore:
    import objstore.manager as manager

    return await manager.open_bucket(js, bucket, create)


async def create_bucket(
    js: JetStreamContext, config: ObjectStoreConfig | str | None, params: BucketFields
) -> ObjectStore:
    import objstore.manager as manager

    return await manager.create_bucket(js, config, params)


async def update_bucket(
    js: JetStreamContext, config: ObjectStoreConfig | str | None, params: BucketFields
) -> ObjectStore:
    import objstore.manager as manager

    return await manager.update_bucket(js, config, params)


async def create_or_update_bucket(
    js: JetStreamContext, config: ObjectStoreConfig | str | None, params: BucketFields
) -> ObjectStore:
    import objstore.manager as manager

    return await manager.create_or_update_bucket(js, config, params)


async def bucket_names(js: JetStreamContext) -> list[str]:
    import objstore.manager as manager

    return await manager.bucket_names(js)


async def bucket_statuses(js: JetStreamContext) -> list[ObjectStoreStatus]:
    import objstore.manager as manager

    return await manager.bucket_statuses(js)


async def delete_bucket(js: JetStreamContext, bucket: str) -> bool:
    import objstore.manager as manager

    return await manager.delete_bucket(js, bucket)
