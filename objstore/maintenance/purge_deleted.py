"""Remove old delete markers."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from natsproto.jetstream.api.models import StreamInfo

from ..bucket.bucket import Bucket
from ..bucket.clock import server_time
from ..bucket.retry import RETRY_BUDGET
from ..commit.discard import purge_metas, remove_older
from ..commit.states import ZERO_WINDOW
from ..listing.metas import newest_metas
from ..listing.shown import show_metas

if TYPE_CHECKING:
    from natsproto.wire import Msg as WireMsg

    from ..format.models import ObjectInfo


async def purge_deleted(bucket: Bucket, older_than: timedelta) -> int:
    """Remove the delete markers that are older than ``older_than``; return how many.

    Markers younger than the sum of the stream's duplicate window, the retry budget and a minute stay: without
    them, a late copy of a commit that expected no previous meta would bring a deleted object back.

    What the leader answers names no stream, and may be another one's: a consumer must show the marker, too.
    """
    stream = await bucket.retrying(lambda: bucket.js.stream_info(bucket.stream))
    before = server_time(stream) - max(older_than, settled_after(stream))
    metas = await newest_metas(bucket, lambda invalid: None)
    old = [info for info in metas if info.deleted and info.mtime <= before]
    shown = await _shown_deleted(bucket) if old else {}
    removed = 0
    for info in old:
        lookup = bucket.start_locating(info.name)
        subject, message = await lookup.wait()
        if message is None or not message.seq == info.revision == shown.get(subject):
            continue  # written to meanwhile, or another stream's
        await remove_older(bucket, lookup, info)  # first: without the marker older metas would count again
        await purge_metas(bucket, lookup.newest, info.revision)
        removed += 1
    return removed


async def _shown_deleted(bucket: Bucket) -> dict[str, int]:
    """Return the sequence of each delete marker that is a name's newest meta, by subject."""
    shown: dict[str, int] = {}

    def take(msg: WireMsg, info: ObjectInfo | None) -> None:
        subject = msg.subject.decode("utf-8", "surrogateescape")
        shown.pop(subject, None)
        if info is not None and info.deleted:
            shown[subject] = info.revision

    await show_metas(bucket, take)
    return shown


SETTLED = timedelta(seconds=60)
"""A delete marker stays this much longer than a copy of an older commit may still arrive."""


def settled_after(stream: StreamInfo) -> timedelta:
    """Return the age at which no late copy of a commit can arrive any more."""
    window = stream.config.duplicate_window or timedelta(minutes=2)
    return window + timedelta(seconds=max(RETRY_BUDGET, ZERO_WINDOW)) + SETTLED
