"""Open a bucket: look up its stream, and check that it is one of a bucket."""

from __future__ import annotations

from natsproto import _values
from natsproto.aio.lifeline import lifeline
from natsproto.jetstream.api.errors import StreamNotFoundError
from natsproto.jetstream.api.models import StreamInfo
from natsproto.jetstream.context import JetStreamContext

from ..errors import BadBucketError
from ..format.limits import holds_bucket
from ..format.naming import all_chunks_subject, all_meta_subject, check_bucket, stream_name
from .bucket import HEADERS_WANTED, Bucket
from .refusals import missing
from .retry import retrying

BIND_BUDGET = 6.0
"""Seconds to retry an open without a leader; much shorter than for a bucket known to exist."""

BIND_TIMEOUT = 2.0
"""Seconds one attempt of an open may take: while a stream changes its leader, no server responds."""


SOME = 10
"""Subjects of a stream that an error has: there may be a megabyte of them."""


async def bind(js: JetStreamContext, bucket: str) -> Bucket:
    """Look up a bucket's stream and return the bucket.

    Raises:
        BadBucketError: the name is not valid; or a stream of that name exists and is not a bucket.
        BucketNotFoundError: the bucket does not exist.
        UnsupportedFeatureError: the server takes no message headers, which the object store needs.
    """
    return Bucket(js, bucket, await bind_info(js, bucket))


async def bind_other(bucket: Bucket, name: str) -> Bucket:
    """:func:`bind` another bucket, for the same operation."""
    found = await bind(bucket.js, name)
    found.retry_budget = bucket.retry_budget
    return found


async def bind_info(js: JetStreamContext, bucket: str) -> StreamInfo:
    """Return the stream info that :func:`bind` uses; raises the same errors."""
    name = stream_name(check_bucket(bucket))
    js.client.connection.check_headers(HEADERS_WANTED)
    lifeline(js.client)  # its PONG comes before the answer
    try:
        budget = min(BIND_BUDGET, js.client.connection.options.retry_budget)
        timeout = min(BIND_TIMEOUT, js.timeout)
        info = await retrying(js.client, lambda: js.stream_info(name, timeout=timeout), budget)
    except StreamNotFoundError:
        raise missing(bucket) from None
    wrong = why_none(bucket, info)
    if wrong is not None:
        del info  # it may have a megabyte, which the traceback would keep
        raise wrong
    return info


def why_none(bucket: str, info: StreamInfo) -> BadBucketError | None:
    """Return what is wrong with a stream that is called as a bucket's: its subjects are none of a bucket."""
    config = info.config.to_json()
    if holds_bucket(config):
        return None
    subjects = config.get("subjects")
    held = ", ".join(map(str, subjects)) if isinstance(subjects, list) else "nothing"
    return BadBucketError(
        f"stream {stream_name(bucket)!r} is no bucket: it listens on {_values.brief(held)}, "
        f"a bucket has {all_chunks_subject(bucket)} and {all_meta_subject(bucket)}",
        bucket=bucket,
        field="subjects",
        value=subjects[:SOME] if isinstance(subjects, list) else subjects,
    )
