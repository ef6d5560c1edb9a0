"""Which messages a consumer shows: proof that they are the bucket's own.

What the leader answers names no stream. Somebody who sees a request may have another stream answer it, which
numbers its messages differently: that of another domain or account with the same name, or one that has the
bucket as a source. What a consumer delivers names its stream and the consumer, whose name is secret. It may
come from a replica that is behind, but a sequence never gets another message.
"""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Collection
from typing import TYPE_CHECKING

from natsproto.errors import APIError, PermissionsViolationError, RemoteProtocolError
from natsproto.jetstream.api.errors import retryable

from .collect import Collector, SilentConsumer
from .message_reads import no_way
from .unheard import UnheardConsumers
from .ways import CONSUMER

if TYPE_CHECKING:
    from natsproto.jetstream.api.acks import Delivery
    from natsproto.wire import Msg as WireMsg

    from .bucket import Bucket

CATCH_UP = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4)
"""Seconds after each look at what a consumer shows, until it has what the leader answers: its replica may be
behind."""


class NotShown(RemoteProtocolError):
    """No consumer shows a message that the leader has shown: nothing is deleted."""


def check_shows(bucket: Bucket) -> None:
    """Raise what a consumer that must show something would, as far as it is known.

    Raises:
        PermissionsViolationError: this user may create no consumer.
        SilentConsumer: nothing of one comes.
    """
    if not bucket.ways.has_right(CONSUMER):
        raise no_way(bucket, (CONSUMER,))
    if bucket.remembered(UnheardConsumers).now:
        raise SilentConsumer(
            f"no consumer of stream {bucket.stream!r} delivers to this user, as where another account "
            "imports the API: nothing is removed without one"
        )


async def shown(bucket: Bucket, subject: str, wanted: Collection[int], *, start: int = 0) -> array[int]:
    """Return the sequences of the messages of a subject as a consumer shows them, in order.

    Args:
        bucket: the bucket.
        subject: the subject, without wildcards.
        wanted: sequences that must be among them; the highest is the last one that is returned.
        start: the first sequence to return; default: the lowest one wanted.

    Raises:
        PermissionsViolationError: this user may create no consumer.
        NotShown: no consumer shows all that are wanted, or none can be had.
        NatsError: the consumer failed.
    """
    first, last = start or min(wanted), max(wanted)
    try:
        check_shows(bucket)
    except SilentConsumer as exc:
        raise NotShown(str(exc)) from exc
    try:
        for pause in CATCH_UP:
            found = await _shown_once(bucket, subject, first, last)
            if set(wanted).issubset(found):
                return found
            await asyncio.sleep(pause)
    except SilentConsumer as exc:
        bucket.remembered(UnheardConsumers).note()
        raise NotShown(str(exc)) from exc
    except PermissionsViolationError as exc:
        bucket.ways.note_refusal(exc)
        raise
    except APIError as exc:
        if retryable(exc):
            raise
        raise NotShown(f"no consumer of stream {bucket.stream!r} can be had: {exc}") from exc
    raise NotShown(f"no consumer of stream {bucket.stream!r} shows what is to be deleted")


async def _shown_once(bucket: Bucket, subject: str, first: int, last: int) -> array[int]:
    found = array("q")

    def on_message(msg: WireMsg, delivery: Delivery) -> None:
        if reading.over:
            return
        if delivery.stream_seq <= last and msg.subject == subject.encode():
            found.append(delivery.stream_seq)
        if delivery.stream_seq >= last or not delivery.num_pending:
            reading.finish()

    async with Collector(
        bucket, subject, on_message, "all", after=first - 1, headers_only=True, other_way=True
    ) as reading:
        if (await reading.start()).num_pending:
            await reading.ended
    return found
