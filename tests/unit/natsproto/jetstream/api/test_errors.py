"""Errors by the server's own codes."""

from __future__ import annotations

import pytest

from natsproto import errors as base
from natsproto.jetstream.api import errors as js

TABLE = {
    10059: js.StreamNotFoundError,
    10058: js.StreamNameInUseError,
    10109: js.StreamSealedError,
    10052: js.StreamConfigError,
    10025: js.StreamConfigError,
    10074: js.StreamConfigError,
    10113: js.StreamConfigError,
    10111: js.StreamConfigError,
    10014: js.ConsumerNotFoundError,
    10148: js.ConsumerExistsError,
    10013: js.ConsumerExistsError,
    10026: js.MaxConsumersError,
    10037: js.MessageNotFoundError,
    10043: js.MessageNotFoundError,
    10057: js.MessageDeleteError,
    10071: js.WrongLastSequenceError,
    10164: js.WrongLastSequenceError,
    10077: js.StorageFullError,
    10002: js.StorageFullError,
    10027: js.StorageFullError,
    10028: js.StorageFullError,
    10053: js.StorageFullError,
    10122: js.StorageFullError,
    10023: js.StorageFullError,
    10047: js.StorageFullError,
    10054: js.MessageTooLargeError,
    10097: js.MessageTooLargeError,
    10008: js.TemporarilyUnavailableError,
    10009: js.TemporarilyUnavailableError,
    10096: js.TemporarilyUnavailableError,
    10158: js.TemporarilyUnavailableError,
    10163: js.TemporarilyUnavailableError,
    10167: js.TemporarilyUnavailableError,
    10210: js.TemporarilyUnavailableError,
    10211: js.TemporarilyUnavailableError,
    10076: js.JetStreamNotEnabledError,
    10039: js.JetStreamNotEnabledError,
}


@pytest.mark.parametrize(("code", "kind"), TABLE.items())
def test_class_by_code(code: int, kind: type[base.APIError]) -> None:
    error = js.api_error({"code": 400, "err_code": code, "description": "words"})
    assert type(error) is kind
    assert (error.code, error.err_code, error.description) == (400, code, "words")
    assert isinstance(error, base.APIError)


def test_the_table_is_complete() -> None:
    assert js._CLASSES == TABLE


def test_two_classes_for_one_code_are_a_mistake_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    class Second(base.APIError):
        codes = (10059,)

    try:
        with pytest.raises(AssertionError, match="10059"):
            js._by_code()
    finally:
        Second.codes = ()  # it stays a subclass until it is collected


@pytest.mark.parametrize(
    "error", [None, "text", 5, [], {}, {"code": "x", "err_code": None, "description": 5}]
)
def test_whatever_the_error_object_is(error: object) -> None:
    found = js.api_error(error)
    assert type(found) is base.APIError
    assert (found.code, found.err_code) == (0, 0)


def test_a_text_of_megabytes_is_not_repeated() -> None:
    """It would go on to logs and terminals."""
    error = js.api_error({"code": 400, "err_code": 10052, "description": "no: " + "x" * 1_000_000})
    assert error.description == "no: " + "x" * 496 + "…"
    assert len(str(error)) < 600
    with pytest.raises(base.InvalidNameError) as caught:
        js.check_new_name("consumer", "x" * 1_000_000)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("text", "last"),
    [
        ("wrong last sequence: 17", 17),
        ("wrong last sequence: 0", 0),
        ("wrong last sequence", None),
        ("wrong last sequence: x", None),
        ("wrong last sequence: " + "9" * 40, None),
    ],
)
def test_last_sequence(text: str, last: int | None) -> None:
    error = js.api_error({"code": 400, "err_code": 10071, "description": text})
    assert isinstance(error, js.WrongLastSequenceError)
    assert error.last == last


@pytest.mark.parametrize("code", TABLE)
def test_retryable_by_code(code: int) -> None:
    wanted = TABLE[code] is js.TemporarilyUnavailableError
    assert js.retryable(js.api_error({"code": 503, "err_code": code})) is wanted


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        (base.NoRespondersError("x"), True),
        (base.StaleConnectionError("x"), True),
        (base.RequestTimeoutError("x"), True),
        (base.ConnectionClosedError("x"), False),
        (base.PermissionsViolationError("x"), False),
        (base.MaxPayloadError("x"), False),
        (base.APIError(503, 0, "x"), False),
        (base.APIError(400, 10005, "no suitable peers for placement, peer offline"), True),
        (base.APIError(400, 10005, "no suitable peers for placement, tags not matched ['x']"), False),
        (TimeoutError(), False),
        (ValueError(), False),
    ],
)
def test_retryable(error: BaseException, wanted: bool) -> None:
    assert js.retryable(error) is wanted


@pytest.mark.parametrize("name", ["S", "a-b_c", "Ünï", "$x", "x" * 255, "a:b"])
def test_good_names(name: str) -> None:
    assert js.check_new_name("stream", name) == name
    assert js.check_name("stream", name) == name


@pytest.mark.parametrize("name", ["\1", "a\x7f", "a\0b", "a\vb", "x" * 256, "a\u2028b", "a\xa0b"])
def test_names_that_others_may_have_chosen(name: str) -> None:
    assert js.check_name("consumer", name) == name
    with pytest.raises(base.InvalidNameError):
        js.check_new_name("consumer", name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        None,
        5,
        b"x",
        "a.b",
        "a*",
        ">",
        "a/b",
        "a\\b",
        "a b",
        "a\tb",
        "a\r\nb",
        "a\fb",
        "a\ud800b",
    ],
)
def test_bad_names(name: object) -> None:
    for check in (js.check_name, js.check_new_name):
        with pytest.raises(base.InvalidNameError):
            check("stream", name)
