"""Whether the configuration that goes back to a server is that of the bucket, and not of another one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from natsproto.errors import RequestTimeoutError
from natsproto.jetstream.all_answers import all_answers
from natsproto.jetstream.api.models import StreamInfo
from natsproto.subjects import secret_name

from ..errors import ForeignBucketError
from ..format.naming import stream_name
from .retry import retrying
from .server import domain_of

if TYPE_CHECKING:
    from natsproto.jetstream.api.models import ConsumerInfo
    from natsproto.jetstream.context import JetStreamContext


CREATION_BUDGET = 6.0
"""Seconds to retry the creation of a consumer, as for an open."""

CREATION_TIMEOUT = 2.0
"""Seconds the creation of a consumer may take; the next attempt may be assigned to another server."""

BEHIND = (0.0, 0.1, 0.3, 1.0)
"""Seconds before each consumer: it may be created at a replica that is behind."""


async def check_alone(js: JetStreamContext, bucket: str, found: StreamInfo) -> None:
    """Make sure that no other bucket of the name answers.

    Where the domain is not known, whoever sees a request can have another API answer it, too: one that is
    imported, or that of another domain. Nothing in its answers tells the two apart; but both come, unless the
    bucket that was asked has no leader. A new consumer, which it can have without one, tells how far it goes.

    Args:
        js: the context.
        bucket: the bucket's name.
        found: what was answered before.

    Raises:
        ForeignBucketError: two buckets have answered.
        RequestTimeoutError: none has answered, or it is not the one that was asked, or so much has come that
            this is not known.
        PermissionsViolationError: this user may create no consumer.
    """
    if js.answers_are_known:
        return
    stream = stream_name(bucket)
    ends: list[int] = []

    def take(document: dict[str, object]) -> None:
        info = StreamInfo.from_json(document)
        _check(stream, info, found, bucket)
        if info.config.name == stream:
            ends.append(info.last_seq)

    end = await _end(js, stream, found.last_seq)
    complete = await all_answers(js, f"STREAM.INFO.{stream}", take)
    if not complete or not found.last_seq <= end <= max(ends, default=-1):
        raise RequestTimeoutError(
            f"whether another bucket {bucket!r} answers, too, is not known: nothing was changed"
        )


async def _end(js: JetStreamContext, stream: str, known: int) -> int:
    """Return the last sequence of the stream that is asked, as a new consumer of it tells."""
    end = 0

    async def create() -> ConsumerInfo:
        config = {
            "name": secret_name(),
            "deliver_policy": "new",
            "ack_policy": "none",
            "inactive_threshold": 5_000_000_000,
            "mem_storage": True,
            "num_replicas": 1,
        }
        return await js.create_consumer(stream, config, timeout=min(CREATION_TIMEOUT, js.timeout))

    budget = min(CREATION_BUDGET, js.client.connection.options.retry_budget)
    for delay in BEHIND:
        await asyncio.sleep(delay)
        end = (await retrying(js.client, create, budget)).delivered.stream_seq
        if end >= known:
            break
    return end


def _check(stream: str, info: StreamInfo, found: StreamInfo, bucket: str) -> None:
    if info.config.name == stream and info.created != found.created:
        raise ForeignBucketError(
            f"two buckets {bucket!r} have answered: nothing was changed; open this one with "
            "jetstream(domain=…), or give them different names",
            bucket=bucket,
            stream=stream,
            domain=domain_of(info),
            expected_stream=stream,
            expected_domain=domain_of(found),
        )
