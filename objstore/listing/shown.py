"""What a consumer shows: its deliveries name their stream, and the leader's answers do not.

A peer who sees our requests can have another stream answer them. So nothing is removed, and nothing is left
out of a list, because of an answer that no consumer confirms.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import TYPE_CHECKING

from natsproto.errors import (
    APIError,
    PermissionsViolationError,
    RequestTimeoutError,
    StaleConnectionError,
)
from natsproto.jetstream.api.codec import time_from_ns
from natsproto.jetstream.api.models import StoredMessage
from natsproto.jetstream.direct_get import header_int

from ..bucket.at_once import run_all
from ..bucket.bucket import Bucket
from ..bucket.collect import Collector, SilentConsumer
from ..bucket.counts import counts_from
from ..bucket.room import LATER, Room
from ..bucket.shown import CATCH_UP, check_shows
from ..bucket.unheard import UnheardConsumers
from ..bucket.ways import ANY_WAY
from ..format.models import ObjectInfo
from ..format.naming import all_meta_subject
from .decode import meta_reader

if TYPE_CHECKING:
    from natsproto.jetstream.api.acks import Delivery
    from natsproto.wire import Msg as WireMsg

SHOWN_AT_ONCE = 16
"""Consumers at once, each of which shows one meta."""

SHOWN = 10
"""Consumers that show the newest metas, until one has delivered all that it had announced."""


async def show_metas(
    bucket: Bucket, take: Callable[[WireMsg, ObjectInfo | None], None], after: int = 0
) -> int:
    """Pass the newest meta of each subject to a callback, as a consumer shows them; perhaps several times.

    Args:
        bucket: the bucket to read.
        take: called with each message, and with its meta if that can be read.
        after: all metas after this sequence instead, in stream order.

    Returns:
        The highest sequence, 0 when there is none. A replica that is behind may have answered.

    Raises:
        PermissionsViolationError: this user may create no consumer.
        SilentConsumer: nothing of one comes.
        RequestTimeoutError: consumers deliver less than they announce.
        NatsError: no consumer can be had.
    """
    read = meta_reader(bucket, lambda invalid: None)
    highest = 0

    def on_message(msg: WireMsg, delivery: Delivery) -> None:
        nonlocal highest
        highest = max(highest, delivery.stream_seq)
        take(msg, read(msg, delivery))

    await _show(bucket, all_meta_subject(bucket.name), on_message, after)
    return highest


async def _show(
    bucket: Bucket,
    subject: str,
    take: Callable[[WireMsg, Delivery], None],
    after: int = 0,
    size: int | None = None,
) -> None:
    """Pass what a consumer delivers to a callback, perhaps several times; see :func:`show_metas`.

    ``size``: bytes of what it delivers, if they are known.
    """
    check_shows(bucket)
    size = LATER if after else size
    received, pending, end, last = 0, -1, after, 0
    policy = "last_per_subject"
    bare: dict[str, int] = {}  # the sequences of messages that seem to have lost their payloads, by subject

    def on_message(msg: WireMsg, delivery: Delivery) -> None:
        nonlocal received, end
        if not reading.over:
            received += 1
            end = delivery.stream_seq
            if not msg.payload and header_int(msg.header or b"", b"Nats-Msg-Size"):
                bare[msg.subject.decode("utf-8", "surrogateescape")] = end
            take(msg, delivery)
            # They come in stream order: so many later, all that were there have come, or are gone.
            if delivery.num_pending == 0 or (received == pending and not reading.restarted):
                reading.finish()

    try:
        for _ in range(SHOWN):
            received, pending, end = 0, -1, after
            bare.clear()
            async with (
                Room(bucket, subject, size=size) as room,
                Collector(
                    bucket,
                    subject,
                    on_message,
                    policy,
                    after=after or None,
                    other_way=True,
                    room=room,
                ) as reading,
            ):
                pending = (await reading.start()).num_pending
                if received < pending:
                    await reading.ended
            if bare and not await _are_empty(bucket, bare):
                continue  # whoever may create consumers has changed this one
            if received >= pending and not reading.restarted:
                return
            # Some have expired, or were removed; or the heartbeat of somebody's pull has ended this.
            last = last or (await bucket.retrying(lambda: bucket.js.stream_info(bucket.stream))).last_seq
            every, beyond, later = await counts_from(bucket, subject, after + 1, end + 1, last + 1)
            if every - beyond <= received:
                if beyond <= later:
                    return  # all that was there in the first round
                after = end
            policy = "all"  # the counts have what writers without roll-up leave behind, too
    except SilentConsumer:
        bucket.remembered(UnheardConsumers).note()
        raise
    except PermissionsViolationError as exc:
        bucket.ways.note_refusal(exc)
        raise
    except APIError as exc:
        raise bucket.translate(exc) from None
    raise RequestTimeoutError(f"consumers of bucket {bucket.name!r} do not deliver what they count")


async def _are_empty(bucket: Bucket, sequences: dict[str, int]) -> bool:
    """Whether these messages have no payload at the leader, either; anybody may store the header of one."""

    async def is_empty(subject: str, seq: int) -> bool:
        message = await bucket.leader_message(subject, ANY_WAY)
        return message is None or message.seq != seq or not message.data

    steps = (is_empty(subject, seq) for subject, seq in sequences.items() if bucket.can_request(subject))
    return all(await run_all(steps, SHOWN_AT_ONCE))


async def each_shown(
    bucket: Bucket, answers: list[tuple[str, StoredMessage | None]]
) -> AsyncGenerator[tuple[str, StoredMessage | None], None]:
    """Yield the newest message of each subject as :func:`show_newest` returns it, with several at once."""
    for at in range(0, len(answers), SHOWN_AT_ONCE):
        part = answers[at : at + SHOWN_AT_ONCE]
        tasks = [asyncio.create_task(show_newest(bucket, *each), name="objstore-show") for each in part]
        try:
            for (subject, _), task in zip(part, tasks, strict=True):
                yield subject, await task
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def show_newest(bucket: Bucket, subject: str, answer: StoredMessage | None) -> StoredMessage | None:
    """Return the newest message of a subject as a consumer shows it.

    The leader's answer names no stream, and a peer can have that of another one sent to us. But the
    consumer's server may be behind: then both are asked again for a while.

    Args:
        bucket: the bucket to read.
        subject: the subject.
        answer: what the leader has answered.

    Raises:
        StaleConnectionError: the leader keeps returning what no consumer shows.
        NatsError: no consumer can be had.
    """
    newest: StoredMessage | None = None

    def take(msg: WireMsg, delivery: Delivery) -> None:
        nonlocal newest
        if newest is None or delivery.stream_seq > newest.seq:
            stored, data = time_from_ns(delivery.time_ns), bytes(msg.payload)
            newest = StoredMessage(subject, delivery.stream_seq, data, msg.header, stored)

    loop = asyncio.get_running_loop()
    deadline, pauses = loop.time() + bucket.retry_budget, list(CATCH_UP)
    while True:
        await _show(bucket, subject, take, size=0 if answer is None else len(answer.data))
        if answer is None or not bucket.replicated or (newest is not None and newest.seq >= answer.seq):
            return newest
        if not pauses:
            info = await bucket.retrying(lambda: bucket.js.stream_info(bucket.stream))
            if info.last_seq < answer.seq:
                return newest  # it is another stream's
            if loop.time() > deadline:
                raise StaleConnectionError("the leader returns a meta that no consumer shows")
        await asyncio.sleep(pauses.pop(0) if pauses else CATCH_UP[-1])
        answer = await bucket.leader_message(subject, ANY_WAY)
