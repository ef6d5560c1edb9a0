"""The error tree: the built-in second bases that the picture promises, and facts as attributes."""

from __future__ import annotations

import builtins
import re

import pytest

from natsproto import errors
from natsproto.errors import (
    APIError,
    LocalProtocolError,
    MaxPayloadError,
    MissingExtraError,
    NatsError,
    NoRespondersError,
    NoServersError,
    PermissionsViolationError,
    ProtocolError,
    RemoteProtocolError,
    ServerError,
    ServerProcessError,
    SlowConsumerError,
    StaleConnectionError,
    UnsupportedFeatureError,
    WrongStreamError,
)

PICTURE = re.findall(r"[├└]── (\w+)(?: \((\w+)\))?", errors.__doc__ or "")
CLASSES = {
    name: each
    for name, each in vars(errors).items()
    if isinstance(each, type) and issubclass(each, NatsError) and each is not NatsError
}


def test_the_picture_has_every_class() -> None:
    assert sorted(name for name, _ in PICTURE) == sorted(CLASSES)


@pytest.mark.parametrize(("name", "base"), PICTURE)
def test_bases(name: str, base: str) -> None:
    """``except TimeoutError`` does what a reader expects."""
    kind = CLASSES[name]
    assert issubclass(kind, NatsError)
    own = [each.__name__ for each in kind.__mro__ if each.__module__ == "builtins"]
    own = own[: own.index("Exception")]
    if base:
        assert issubclass(kind, getattr(builtins, base))
    else:
        assert own == []
    assert kind.__doc__


def test_both_sides_of_the_protocol() -> None:
    for kind in (LocalProtocolError, RemoteProtocolError):
        assert issubclass(kind, ProtocolError)
        exc = kind("broken", position=7, events=[1])
        assert (str(exc), exc.position, exc.events) == ("broken", 7, [1])
    plain = RemoteProtocolError("broken")
    assert (plain.position, plain.events) == (None, [])
    plain.events.append(1)
    assert RemoteProtocolError("another").events == []


def test_facts_are_attributes() -> None:
    exc: NatsError = MaxPayloadError("too large", size=11, max_payload=10)
    assert (exc.size, exc.max_payload) == (11, 10)  # type: ignore[attr-defined]
    attempts: list[tuple[str, BaseException]] = [("nats://a", OSError("x"))]
    assert NoServersError("none", attempts=attempts).attempts == attempts
    assert NoServersError("none").attempts == []
    assert (StaleConnectionError().silent, StaleConnectionError("x", silent=True).silent) == (False, True)
    slow = SlowConsumerError("slow", subject="s", dropped=3)
    assert (slow.subject, slow.dropped) == ("s", 3)
    denied = PermissionsViolationError("no", subject="s", operation="publish")
    assert (denied.subject, denied.operation) == ("s", "publish")
    wrong = WrongStreamError("another", stream="B", domain="hub", expected_stream="A")
    assert (wrong.stream, wrong.domain, wrong.expected_stream, wrong.expected_domain) == (
        "B",
        "hub",
        "A",
        None,
    )


def test_texts_that_are_made_of_facts() -> None:
    api = APIError(404, 10059, "stream not found")
    assert str(api) == "JetStream API error 404/10059: stream not found"
    assert (api.code, api.err_code, api.description) == (404, 10059, "stream not found")
    assert str(NoRespondersError("s")) == "no responders on 's'"
    assert str(NoRespondersError("s", "is JetStream on?")) == "no responders on 's': is JetStream on?"
    assert str(UnsupportedFeatureError("TTL", "2.11")) == "TTL needs nats-server 2.11 or newer"
    assert UnsupportedFeatureError("TTL", "2.11", "this is 2.9").minimum == "2.11"
    extra = MissingExtraError("ws:// needs websockets", "ws")
    assert str(extra) == "ws:// needs websockets. Install it with: pip install 'natsproto[ws]'"
    assert extra.extra == "ws"
    assert str(ServerError("Slow Consumer")) == "the server said: 'Slow Consumer'"
    assert ServerError("x" * 5000).text == "x" * 5000


def test_lines_of_a_log_stay_lines() -> None:
    assert str(ServerProcessError("not ready\nline one\x1b[2J\nline two")).splitlines() == [
        "not ready",
        "line one\\x1b[2J",
        "line two",
    ]
    assert str(NatsError("one\ntwo")) == "one\\ntwo"
