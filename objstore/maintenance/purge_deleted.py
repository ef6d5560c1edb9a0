"""Remove old delete markers."""

from __future__ import annotations

from datetime import timedelta

from natsproto.jetstream.api.models import StreamInfo

from ..bucket.bucket import Bucket
from ..bucket.clock import server_time
from ..bucket.retry import RETRY_BUDGET
from ..commit.discard import purge_metas, remove_older
from ..commit.states import ZERO_WINDOW
from ..listing.metas import newest_metas


async def purge_deleted(bucket: Bucket, older_than: timedelta) -> int:
    """Remove the delete markers that are older than ``older_than``; return how many.

    Markers younger than the sum of the stream's duplicate window, the retry budget and a minute stay: without
    them, a late copy of a commit that expected no previous meta would bring a deleted object back.
    """
    stream = await bucket.retrying(lambda: bucket.js.stream_info(bucket.stream))
    before = server_time(stream) - max(older_than, settled_after(stream))
    removed = 0
    for info in await newest_metas(bucket, lambda invalid: None):
        if not info.deleted or info.mtime > before:
            continue
        lookup = bucket.start_locating(info.name)
        message = (await lookup.wait())[1]
        if message is None or message.seq != info.revision:
            continue  # written to meanwhile
        await remove_older(bucket, lookup, info)  # first: without the marker older metas would count again
        await purge_metas(bucket, lookup.newest, info.revision)
        removed += 1
    return removed


SETTLED = timedelta(seconds=60)
"""A delete marker stays this much longer than a copy of an older commit may still arrive."""


def settled_after(stream: StreamInfo) -> timedelta:
    """Return the age at which no late copy of a commit can arrive any more."""
    window = stream.config.duplicate_window or timedelta(minutes=2)
    return window + timedelta(seconds=max(RETRY_BUDGET, ZERO_WINDOW)) + SETTLED
