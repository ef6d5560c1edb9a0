"""What a server says to those who read from a consumer, as errors (ADR-13, ADR-37, ADR-42).

A pull request that ends before it is complete ends with a status. ``description`` is the server's text::

    APIError
    ├── ConsumerNotFoundError
    │   └── ConsumerDeletedError           409 Consumer Deleted
    └── PullError                          any other status
        ├── BadPullError                   400 Bad Request …
        ├── NotPullConsumerError           409 Consumer is push based
        ├── PullLimitError                 409 Exceeded MaxRequestBatch, MaxRequestExpires, MaxRequestMaxBytes
        ├── MaxBytesError                  409 Message Size Exceeds MaxBytes
        └── PassingPullError               the same request may succeed now, or soon
            ├── MaxWaitingError            409 Exceeded MaxWaiting
            ├── LeadershipChangeError      409 Leadership Change
            ├── ServerShutdownError        409 Server Shutdown
            └── PinIdMismatchError         423 Nats-Wrong-Pin-Id, Nats-Pin-Id mismatch

    NatsError
    ├── ConsumerInUseError                 a push consumer delivers to somebody else
    └── …RequestTimeoutError
        └── MissedHeartbeatError           neither a message nor a heartbeat
"""

from __future__ import annotations

from ..._values import cut
from ...errors import APIError, NatsError, RequestTimeoutError
from ...headers import VERSION
from .errors import ConsumerNotFoundError


class ConsumerDeletedError(ConsumerNotFoundError):
    """The consumer was deleted while somebody waited for its messages."""


class PullError(APIError):
    """The server has refused a pull request, or ended it before it was complete."""


class BadPullError(PullError):
    """The server does not take the request as it is."""


class NotPullConsumerError(PullError):
    """The consumer has a deliver subject: it cannot be pulled from."""


class PullLimitError(PullError):
    """The request asks for more than the consumer's ``max_batch``, ``max_expires`` or ``max_bytes``."""


class MaxBytesError(PullError):
    """The next message alone is larger than the ``max_bytes`` of the request."""


class PassingPullError(PullError):
    """The same request may succeed now, or soon."""


class MaxWaitingError(PassingPullError):
    """As many requests as the consumer's ``max_waiting`` wait already.

    A request with a heartbeat gets no answer instead: then its heartbeats are missed.
    """


class LeadershipChangeError(PassingPullError):
    """Another server leads the consumer now; it does not know the request."""


class ServerShutdownError(PassingPullError):
    """The server that leads the consumer shuts down."""


class PinIdMismatchError(PassingPullError):
    """Another client is pinned now (ADR-42); the next request is sent without a pin id."""


class ConsumerInUseError(NatsError):
    """A push consumer without a queue group delivers to somebody else."""


class MissedHeartbeatError(RequestTimeoutError):
    """The server has sent neither a message nor a heartbeat for at least two heartbeat intervals.

    It answers a PING: only the consumer is silent. It may have no leader, or its server is cut off.
    """


_CONFLICTS: tuple[tuple[str, type[PullError]], ...] = (
    ("consumer is push based", NotPullConsumerError),
    ("exceeded maxrequest", PullLimitError),
    ("exceeded maxwaiting", MaxWaitingError),
    ("message size exceeds maxbytes", MaxBytesError),
    ("leadership change", LeadershipChangeError),
    ("server shutdown", ServerShutdownError),
)
"""Beginnings of the texts of status 409, in lower case."""


def pull_end(status: int, block: bytes) -> NatsError | None:
    """Return why a pull ended with a status, or ``None`` when that is no error.

    No error are 404 (no messages), 408 (the request has expired) and a completed batch.

    Args:
        status: the number in the version line; neither 100 (a heartbeat) nor 503 (nobody answers).
        block: the header block.
    """
    line = block.partition(b"\r\n")[0][len(VERSION) :].decode("utf-8", "replace")
    text = cut(line.strip()[3:].strip())
    if status in (404, 408):
        return None
    lower = text.lower()
    if status == 409:
        if lower.startswith("batch completed"):
            return None
        if lower.startswith("consumer deleted"):
            return ConsumerDeletedError(404, 10014, "the consumer was deleted while waiting")
        for begin, kind in _CONFLICTS:
            if lower.startswith(begin):
                return kind(status, 0, text)
    elif status == 423:
        return PinIdMismatchError(status, 0, text)
    elif status == 400:
        return BadPullError(status, 0, text)
    return PullError(status, 0, text)
