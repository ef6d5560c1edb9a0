"""Count the messages of a subject.

A leader that is cut off from the others continues to respond until it notices, and lacks what was stored
since.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING

from natsproto.errors import (
    APIError,
    NatsError,
    PermissionsViolationError,
    RemoteProtocolError,
    RequestTimeoutError,
)
from natsproto.jetstream.api.codec import is_number
from natsproto.jetstream.api.errors import MessageNotFoundError, retryable
from natsproto.subjects import secret_name

from .at_once import run_all
from .ways import AT_LEADER, CONSUMER, LEADER

if TYPE_CHECKING:
    from natsproto.jetstream.api.models import ConsumerInfo

    from .bucket import Bucket

STEPS_DOWN = 11.0
"""Seconds after which a leader that hears from no majority has stepped down (nats-server: 10)."""

HEARD = 3.0
"""Seconds within which a current follower was heard: an idle stream has a heartbeat every second or two."""

PAUSE = 0.5
"""Seconds between two requests."""


async def count_messages(bucket: Bucket, subject: str, wanted: int) -> int:
    """See :meth:`Bucket.stored_chunks`."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + min(STEPS_DOWN, bucket.retry_budget)
    document = {"subjects_filter": subject, "offset": 0}
    while True:
        info = await bucket.retrying(lambda: bucket.js.request(f"STREAM.INFO.{bucket.stream}", document))
        count, late = _count(info, subject), loop.time() > deadline
        if count >= wanted or leads(info) or late:
            if count or not await _are_there(bucket, subject):
                return count
            if late:
                raise RequestTimeoutError(f"the leader of bucket {bucket.name!r} does not count {subject!r}")
        await asyncio.sleep(PAUSE)


async def _are_there(bucket: Bucket, subject: str) -> bool:
    """Whether messages of a subject are stored although an answer has none.

    A number comes with its subject. An answer without it may be that to another question, which somebody has
    had sent to our inbox; a consumer's count names its question. Who may create none asks in another way.
    """
    if bucket.ways.allowed(CONSUMER):
        try:
            return await count_from(bucket, subject, 1) > 0
        except (PermissionsViolationError, APIError) as exc:
            bucket.ways.note_refusal(exc)
    if not bucket.ways.allowed(LEADER):
        return False
    return await bucket.retrying(lambda: bucket.leader_read(subject, ways=AT_LEADER).wait()) is not None


async def count_from(bucket: Bucket, subject: str, seq: int) -> int:
    """Return how many messages of a subject lie at ``seq`` or beyond, as a consumer counts them.

    The answer names its question: nobody can have that to another one sent instead.

    Raises:
        RemoteProtocolError: it names another one.
        NatsError: no consumer can be had.
    """
    question: dict[str, object] = {"opt_start_seq": seq, "filter_subject": subject}
    name = ""

    async def create() -> ConsumerInfo:
        nonlocal name
        name = secret_name()  # a new one each time: it may be given to a server that hangs
        config = {
            "name": name,
            "deliver_policy": "by_start_sequence",
            **question,
            "ack_policy": "none",
            "headers_only": True,
            "inactive_threshold": 5_000_000_000,
            "mem_storage": True,
            "num_replicas": 1,
        }
        return await bucket.js.create_consumer(bucket.stream, config, timeout=bucket.consumer_timeout)

    info = await bucket.retrying(create)
    created = info.raw.get("config")
    if info.name != name or not isinstance(created, dict) or not question.items() <= created.items():
        raise RemoteProtocolError("the answer to the creation of a consumer is that to another one")
    try:
        await bucket.js.request(f"CONSUMER.DELETE.{bucket.stream}.{name}", timeout=bucket.consumer_timeout)
    except NatsError:
        pass  # it expires by itself
    return info.num_pending


async def counts_from(bucket: Bucket, subject: str, *seqs: int) -> list[int]:
    """Return :func:`count_from` for each of these sequences, asked at once in this order.

    When one fails, or the caller is cancelled, the others end, too.
    """
    return await run_all((count_from(bucket, subject, seq) for seq in seqs), len(seqs))


async def count_by_batch(bucket: Bucket, subject: str, seq: int) -> int | None:
    """Return the same as a direct get of several messages tells; ``None``: this one does not.

    For users who may create no consumer, in buckets where one server alone responds.
    """
    if bucket.replicated or not (bucket.direct and bucket.can_batch and bucket.batch_counts_are_right):
        return None
    try:
        batch = bucket.js.get_batch(bucket.stream, subject=subject, seq=seq, batch=1)
        async with aclosing(batch) as messages:
            async for message in messages:
                if message.num_pending is not None and not bucket.is_copy(message.header):
                    return message.num_pending + 1
    except MessageNotFoundError:
        return 0
    except PermissionsViolationError as exc:
        if not bucket.ways.note_refusal(exc):
            raise
    except NatsError as exc:
        if not retryable(exc):
            raise
    return None


def _count(info: dict[str, object], subject: str) -> int:
    state = info.get("state")
    subjects = state.get("subjects") if isinstance(state, dict) else None
    count = subjects.get(subject, 0) if isinstance(subjects, dict) else 0
    if not is_number(count):
        raise RemoteProtocolError("an API response has a message count that is not a number")
    return count


def leads(info: dict[str, object]) -> bool:
    """Whether the response to ``STREAM.INFO`` shows that the server heard from a majority recently."""
    cluster = info.get("cluster")
    replicas = cluster.get("replicas") if isinstance(cluster, dict) else None
    if not isinstance(replicas, list):
        return True  # a stream with one replica
    heard = sum(map(_heard, replicas))
    return 2 * (heard + 1) > len(replicas) + 1


def _heard(replica: object) -> bool:
    if not isinstance(replica, dict) or replica.get("offline"):
        return False
    active = replica.get("active")
    return isinstance(active, int) and 0 <= active < HEARD * 1e9
