"""A server's refusals in the object store's words."""

from __future__ import annotations

import pytest

from natsproto.errors import APIError, NatsError, RequestTimeoutError
from natsproto.jetstream.api.errors import (
    MessageDeleteError,
    MessageTooLargeError,
    StreamConfigError,
    api_error,
    retryable,
)
from objstore.bucket.refusals import translated
from objstore.errors import BucketNotFoundError, BucketSealedError, StoreFullError


def refusal(err_code: int, description: str = "words", code: int = 500) -> APIError:
    return api_error({"code": code, "err_code": err_code, "description": description})


@pytest.mark.parametrize("code", [400, 500, 503])
@pytest.mark.parametrize("err_code", [10077, 10002, 10023, 10028, 10047, 10027, 10053, 10122])
def test_full_whatever_the_words(err_code: int, code: int) -> None:
    exc = refusal(err_code, "anything at all", code)
    error = translated(exc, "b", "n")
    assert isinstance(error, StoreFullError)
    assert (error.bucket, error.name, error.err_code) == ("b", "n", err_code)
    assert "anything at all" in str(error)
    assert not retryable(exc)
    assert not retryable(error)


def test_the_disk() -> None:
    error = translated(refusal(10051, "write 4.blk: no space left on device"), "b")
    assert isinstance(error, StoreFullError)
    assert error.err_code == 0


@pytest.mark.parametrize(
    ("exc", "kind", "field"),
    [
        (refusal(10054), MessageTooLargeError, "max_msg_size"),
        (refusal(10111, "rollup not permitted"), StreamConfigError, "allow_rollup_hdrs"),
        (refusal(10110, "stream purge not permitted"), APIError, "deny_purge"),
        (refusal(10057, "message delete not permitted"), MessageDeleteError, "deny_delete"),
        (refusal(10098, "workqueue stream requires explicit ack"), APIError, "retention"),
    ],
)
def test_the_field_is_named_once(exc: APIError, kind: type[APIError], field: str) -> None:
    error = translated(exc, "b")
    assert type(error) is kind
    assert isinstance(error, APIError)
    assert (error.code, error.err_code) == (exc.code, exc.err_code)
    assert field in str(error)
    assert exc.description in str(error)
    assert translated(error, "b") is error


@pytest.mark.parametrize(
    ("exc", "kind"), [(refusal(10059), BucketNotFoundError), (refusal(10109), BucketSealedError)]
)
def test_others(exc: APIError, kind: type[NatsError]) -> None:
    assert type(translated(exc, "b")) is kind


@pytest.mark.parametrize("exc", [refusal(10057, "no message found"), RequestTimeoutError("late")])
def test_unchanged(exc: NatsError) -> None:
    assert translated(exc, "b") is exc
