"""Enumerating a bucket: names without reading metas, metas one after the other, directories."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from natsproto.errors import NatsError, RemoteProtocolError, StaleConnectionError
from natsproto.jetstream.api.errors import ConsumerNotFoundError
from natsproto.jetstream.consumer import PullConsumer

from ._bucket import Bucket
from ._watch import OnInvalid, meta_reader, newest_metas, warn_invalid
from .format.naming import all_meta_subject, decode_meta_name

if TYPE_CHECKING:
    from .format.models import ObjectInfo

PAGE = 500
"""Metas fetched at a time: what an iteration holds in memory."""


@dataclass(frozen=True, slots=True)
class DirListing:
    """One level of names.

    Attributes:
        prefixes: what goes on below, each up to and including the delimiter, sorted.
        objects: the objects of this level, sorted by name.
    """

    prefixes: list[str]
    objects: list[ObjectInfo]


async def names(bucket: Bucket, prefix: str, *, live: bool) -> list[str]:
    """Every name with a meta message, sorted; see :meth:`ObjectStore.names`."""
    if live:
        found = {info.name for info in await newest_metas(bucket, lambda invalid: None) if not info.deleted}
    else:
        try:
            subjects = await bucket.retrying(
                lambda: bucket.js.stream_subjects(bucket.stream, all_meta_subject(bucket.name)), 0.0
            )
            found = {name for name in map(decode_meta_name, subjects) if name is not None}
        except (RemoteProtocolError, StaleConnectionError):
            # A page of 100 000 long names may exceed what a message may have.
            found = {info.name for info in await newest_metas(bucket, lambda invalid: None)}
    return sorted(name for name in found if name.startswith(prefix))


async def iterate(
    bucket: Bucket, prefix: str, *, include_deleted: bool, on_invalid: OnInvalid | None
) -> AsyncGenerator[ObjectInfo, None]:
    """The newest meta of every name, a page at a time; see :meth:`ObjectStore.iter`."""
    if bucket.skips_live:
        # Consumers of these servers lose their place when a meta is replaced meanwhile: read all at once.
        for info in await newest_metas(bucket, on_invalid):
            if info.name.startswith(prefix) and (include_deleted or not info.deleted):
                yield info
        return
    read = meta_reader(bucket, on_invalid or warn_invalid)
    cursor = 0
    consumer: PullConsumer | None = None
    try:
        while True:
            consumer = await bucket.retrying(partial(_consumer, bucket, cursor))
            left = consumer.info.num_pending
            while left:
                try:
                    page = await consumer.fetch(PAGE, timeout=bucket.js.timeout, no_wait=True)
                except (ConsumerNotFoundError, StaleConnectionError):
                    break  # the server has forgotten the consumer: go on after the cursor
                if not page:
                    left = (await bucket.js.consumer_info(bucket.stream, consumer.name)).num_pending
                for msg in page:
                    cursor = msg.metadata.stream_seq
                    left = msg.metadata.num_pending
                    found = read(msg._msg._frame, msg.metadata)
                    if found is None or not found.name.startswith(prefix):
                        continue
                    if include_deleted or not found.deleted:
                        yield found
            else:
                return
    finally:
        if consumer is not None:
            try:
                await consumer.delete()
            except NatsError:
                pass  # it expires by itself


async def _consumer(bucket: Bucket, after: int) -> PullConsumer:
    config = {
        "deliver_policy": "by_start_sequence" if after else "last_per_subject",
        "filter_subject": all_meta_subject(bucket.name),
        "ack_policy": "none",
        "inactive_threshold": 300_000_000_000,
        "mem_storage": True,
        "num_replicas": 1,
    }
    if after:
        config["opt_start_seq"] = after + 1
    return await bucket.js.pull_consumer(bucket.stream, config=config)


async def list_dirs(bucket: Bucket, prefix: str, delimiter: str) -> DirListing:
    """One level of names; see :meth:`ObjectStore.list_dirs`."""
    prefixes: set[str] = set()
    objects: list[ObjectInfo] = []
    for info in await newest_metas(bucket, None):
        if info.deleted or not info.name.startswith(prefix):
            continue
        head, found, _ = info.name[len(prefix) :].partition(delimiter)
        if found:
            prefixes.add(prefix + head + delimiter)
        else:
            objects.append(info)
    return DirListing(sorted(prefixes), sorted(objects, key=lambda info: info.name))
