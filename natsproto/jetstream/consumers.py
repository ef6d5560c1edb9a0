"""Consumers beyond reading: pause and resume (2.11), priority groups (ADR-42), what a pull may ask for.

A server that lacks these is told by what it does: it does not know an API subject. No version is compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, TypedDict, cast

from .._values import brief
from ..errors import (
    APIError,
    ConfigError,
    NatsError,
    RemoteProtocolError,
    RequestTimeoutError,
    UnsupportedFeatureError,
)
from .api.codec import from_ns, is_number, parse_time
from .api.errors import check_name
from .api.statuses import BadPullError, MaxBytesError, NotPullConsumerError, PullLimitError

if TYPE_CHECKING:
    from .api.models import ConsumerInfo
    from .context import JetStreamContext
    from .message import JetStreamMsg

BAD_REQUEST = 10003
"""Error code for, among other things, an API subject that the server does not know."""

API_LEVEL = "_nats.level"
"""Key that servers from 2.11 on add to the metadata of every consumer."""

LIMITS = (("max_batch", "batch"), ("max_expires", "expires"), ("max_bytes", "max_bytes"))
"""Limits of a consumer, and what they are for in the request of a pull."""

MOST_BYTES = 8 * 1024 * 1024
"""Bytes of a pull by default, unless one message may have more.

A server ends a connection for which more than its ``max_pending`` waits, 64 MiB by default. Then all that the
connection does fails for a moment, and what was under way counts as delivered.
"""

UNLIMITED_BYTES = 16 * 1024 * 1024
"""Bytes of as many of the largest messages as a pull asks for where it cannot limit the bytes."""

ENVELOPE = 8 * 1024
"""Bytes that count besides header and payload: the subject, and the reply subject."""

PINNED = "pinned_client"
OVERFLOW = "overflow"
PRIORITIZED = "prioritized"


class PriorityOptions(TypedDict, total=False):
    """Options of a pull from a consumer with priority groups (ADR-42, nats-server 2.11).

    Attributes:
        group: one of the consumer's ``priority_groups``; needed for such a consumer, refused for others.
        min_pending: with the policy ``overflow``: take messages only while at least so many are pending.
        min_ack_pending: likewise: only while so many are delivered and not acknowledged. With both, either is
            enough.
        priority: with the policy ``prioritized`` (2.12): 0 to 9, lower numbers are served first.
    """

    group: str | None
    min_pending: int | None
    min_ack_pending: int | None
    priority: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerPause:
    """Whether a consumer is paused: the answer to pause and resume.

    Attributes:
        paused: whether it delivers nothing now.
        pause_until: when it continues by itself; ``None`` when it is not paused.
        pause_remaining: how long that is from now on, by the server's clock; ``None`` when it is not paused.
    """

    paused: bool
    pause_until: datetime | None
    pause_remaining: timedelta | None


def _config(info: ConsumerInfo) -> Mapping[str, object]:
    config = info.raw.get("config")
    return config if isinstance(config, dict) else {}


def pinned(info: ConsumerInfo) -> bool:
    """Whether the consumer serves one pinned client at a time."""
    return _config(info).get("priority_policy") == PINNED


def priority_fields(info: ConsumerInfo, options: PriorityOptions) -> dict[str, object]:
    """Return the fields of a pull request for a priority group.

    Raises:
        ConfigError: the options do not fit the consumer.
        TypeError: an option that does not exist.
    """
    unknown = options.keys() - PriorityOptions.__annotations__.keys()
    if unknown:
        raise TypeError(f"a pull has no option {min(unknown)!r}")
    fields = {name: value for name, value in options.items() if value is not None}
    config = _config(info)
    groups, policy = config.get("priority_groups"), config.get("priority_policy")
    name = f"consumer {brief(info.name)}"
    if not isinstance(groups, list) or not groups:
        if fields:
            raise ConfigError(f"{name} has no priority groups: {', '.join(sorted(fields))} cannot be given")
        return {}
    if fields.get("group") not in groups:
        raise ConfigError(f"{name} has priority groups: give one of {brief(str(groups))} as group")
    for option, wanted, lowest, highest in (
        ("min_pending", OVERFLOW, 1, 1 << 62),
        ("min_ack_pending", OVERFLOW, 1, 1 << 62),
        ("priority", PRIORITIZED, 0, 9),
    ):
        value = fields.get(option)
        if value is None:
            continue
        if policy != wanted:
            raise ConfigError(f"{option} needs the priority policy {wanted!r}; that of {name} is {policy!r}")
        if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value <= highest:
            raise ConfigError(f"{option} must be a number from {lowest} to {highest}")
    return fields


def bounds(info: ConsumerInfo, batch: int, max_payload: int) -> tuple[int, int | None]:
    """Return how many messages a pull asks for by default, and how many bytes; ``None``: it names none.

    A message that does not fit costs one of its deliveries where a server puts it back wrongly: before
    nats-server 2.10.16 if it is a redelivery, and on any with the policy ``last_per_subject``. There, fewer
    messages are asked for. Later servers are told by the level of their API, which is new in 2.11.
    """
    largest = max_payload + ENVELOPE
    if batch == 1 or batch * largest <= MOST_BYTES:
        return batch, None  # one message comes whatever its size
    config = _config(info)
    metadata = config.get("metadata")
    puts_back = isinstance(metadata, dict) and API_LEVEL in metadata
    once = config.get("ack_policy") == "none"
    if not (puts_back or once) or config.get("deliver_policy") == "last_per_subject":
        return min(batch, max(1, UNLIMITED_BYTES // largest)), None
    most, limit = max(MOST_BYTES, largest), config.get("max_bytes")
    return batch, min(most, limit) if is_number(limit) and limit > 0 else most


def is_much(messages: Iterable[JetStreamMsg]) -> bool:
    """Whether messages have as many bytes as a pull asks for by default."""
    return sum(len(msg.data) for msg in messages) >= MOST_BYTES


def explains(info: ConsumerInfo, end: NatsError, asked: Mapping[str, object]) -> bool:
    """Whether a server ends a pull so, by what the consumer is like now and what was asked for."""
    config = _config(info)
    if isinstance(end, NotPullConsumerError):
        return bool(config.get("deliver_subject"))
    if isinstance(end, MaxBytesError):
        return "max_bytes" in asked and info.num_pending + info.num_ack_pending > 0
    if isinstance(end, PullLimitError):
        limits = ((config.get(limit), asked.get(field)) for limit, field in LIMITS)
        return any(is_number(most) and is_number(value) and 0 < most < value for most, value in limits)
    if isinstance(end, BadPullError):
        priority = {name: asked[name] for name in PriorityOptions.__annotations__ if name in asked}
        try:
            priority_fields(info, cast("PriorityOptions", priority))
        except ConfigError:
            return True
        return "id" in asked and not pinned(info)
    return False


async def pause(js: JetStreamContext, stream: str, consumer: str, until: datetime | None) -> ConsumerPause:
    """See :meth:`natsproto.JetStreamContext.pause_consumer`; without a time: resume."""
    document: dict[str, object] = {}
    if until is not None:
        if not isinstance(until, datetime) or until.tzinfo is None:
            raise ConfigError("a consumer is paused until a datetime with a time zone")
        document["pause_until"] = until.astimezone(UTC).isoformat().replace("+00:00", "Z")
    answer = await _known(js, stream, consumer, "PAUSE", document, "pausing a consumer")
    if not isinstance(answer.get("paused"), bool):
        raise RemoteProtocolError("an answer to CONSUMER.PAUSE does not say whether the consumer is paused")
    if not answer["paused"]:
        return ConsumerPause(paused=False, pause_until=None, pause_remaining=None)
    return ConsumerPause(
        paused=True,
        pause_until=parse_time(answer.get("pause_until")),
        pause_remaining=from_ns(answer.get("pause_remaining")),
    )


async def unpin(js: JetStreamContext, stream: str, consumer: str, group: str) -> None:
    """See :meth:`natsproto.JetStreamContext.unpin_consumer`."""
    if not isinstance(group, str) or not group:
        raise ConfigError("give the name of a priority group")
    await _known(js, stream, consumer, "UNPIN", {"group": group}, "a pinned client")


async def _known(
    js: JetStreamContext, stream: str, consumer: str, what: str, document: Mapping[str, object], feature: str
) -> dict[str, object]:
    """Send a request about a consumer that servers before 2.11 do not know: most say nothing."""
    names = f"{check_name('stream', stream)}.{check_name('consumer', consumer)}"
    try:
        return await js.request(f"CONSUMER.{what}.{names}", document)
    except RequestTimeoutError:
        metadata = _config(await js.consumer_info(stream, consumer)).get("metadata")
        if isinstance(metadata, dict) and API_LEVEL in metadata:
            raise
    except APIError as exc:
        if exc.err_code != BAD_REQUEST:
            raise
    raise UnsupportedFeatureError(feature, "2.11.0", "this server does not know the request")
