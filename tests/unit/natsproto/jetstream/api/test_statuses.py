"""What a status says: the texts of nats-server 2.9.10 to 2.15.1, and those of a peer that is none."""

from __future__ import annotations

import pytest

from natsproto.errors import APIError, NatsError, RequestTimeoutError
from natsproto.jetstream.api import statuses
from natsproto.jetstream.api.errors import ConsumerNotFoundError
from natsproto.jetstream.api.statuses import (
    BadPullError,
    ConsumerDeletedError,
    LeadershipChangeError,
    MaxBytesError,
    MaxWaitingError,
    MissedHeartbeatError,
    NotPullConsumerError,
    PassingPullError,
    PinIdMismatchError,
    PullError,
    PullLimitError,
    ServerShutdownError,
    pull_end,
)


def end(line: str) -> NatsError | None:
    return pull_end(int(line[:3]), b"NATS/1.0 " + line.encode() + b"\r\nNats-Pending-Messages: 1\r\n\r\n")


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("409 Exceeded MaxRequestBatch of 5", PullLimitError),
        ("409 Exceeded MaxRequestExpires of 1s", PullLimitError),
        ("409 Exceeded MaxRequestMaxBytes of 1024", PullLimitError),
        ("409 Message Size Exceeds MaxBytes", MaxBytesError),
        ("409 Consumer is push based", NotPullConsumerError),
        ("409 Exceeded MaxWaiting", MaxWaitingError),
        ("409 exceeded maxwaiting", MaxWaitingError),
        ("409 Leadership Change", LeadershipChangeError),
        ("409 Server Shutdown", ServerShutdownError),
        ("423 Nats-Wrong-Pin-Id", PinIdMismatchError),
        ("423 Nats-Pin-Id mismatch", PinIdMismatchError),
        ("400 Bad Request - Priority Group missing", BadPullError),
        ("409 Something New", PullError),
        ("412 Required Api Level", PullError),
        ("409", PullError),
    ],
)
def test_kinds(line: str, kind: type[PullError]) -> None:
    error = end(line)
    assert type(error) is kind
    assert (error.code, error.err_code, error.description) == (int(line[:3]), 0, line[4:])


@pytest.mark.parametrize(
    "line",
    [
        "404 No Messages",
        "408 Request Timeout",
        "408 Requests Pending",
        "408 Interest Expired",
        "409 Batch Completed",
    ],
)
def test_ends_that_are_no_error(line: str) -> None:
    assert end(line) is None


def test_a_deleted_consumer() -> None:
    error = end("409 Consumer Deleted")
    assert isinstance(error, ConsumerDeletedError)
    assert isinstance(error, ConsumerNotFoundError)
    assert (error.code, error.err_code) == (404, 10014)


def test_which_pass() -> None:
    passing = {MaxWaitingError, LeadershipChangeError, ServerShutdownError, PinIdMismatchError}
    assert set(PassingPullError.__subclasses__()) == passing
    assert issubclass(PassingPullError, PullError)
    assert issubclass(PullError, APIError)
    assert issubclass(MissedHeartbeatError, RequestTimeoutError)


def test_what_a_peer_sends_is_cut() -> None:
    error = end("409 " + "x" * 1_000_000)
    assert isinstance(error, PullError)
    assert len(error.description) < 600
    assert pull_end(409, b"NATS/1.0 409 \xff\r\n\r\n") is not None


def test_the_table_in_the_docstring_is_complete() -> None:
    assert statuses.__doc__ is not None
    for name, kind in vars(statuses).items():
        if isinstance(kind, type) and issubclass(kind, NatsError) and kind.__module__ == statuses.__name__:
            assert f" {name}" in statuses.__doc__, name
