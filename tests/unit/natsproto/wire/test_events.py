"""Events compare by value and never show secrets."""

from __future__ import annotations

import pytest

from natsproto.wire import Connect, Err, Info, Msg, Ok, Ping, Pong, Pub, Sub, Unsub


def test_equality() -> None:
    assert Msg(b"a", b"1") == Msg(b"a", b"1")
    assert Msg(b"a", b"1") != Msg(b"a", b"1", b"r")
    assert Msg(b"a", b"1", payload=b"x") == Msg(b"a", b"1", payload=memoryview(b"x"))
    assert Ping() == Ping()
    assert Ping() != Pong()
    assert Info({"a": 1}, b'{"a":1}') == Info({"a": 1})
    assert Info({}) != Connect({})
    assert Err("x") != "x"


@pytest.mark.parametrize("event", [Msg(b"a", b"1"), Info({}), Ping()])
def test_events_are_not_hashable(event: object) -> None:
    with pytest.raises(TypeError):
        hash(event)


def test_repr() -> None:
    assert repr(Sub(b"a", None, b"1")) == "Sub(subject=b'a', queue=None, sid=b'1')"
    assert repr(Unsub(b"1", 2)) == "Unsub(sid=b'1', max_msgs=2)"
    assert repr(Ok()) == "Ok()"
    assert (
        repr(Pub(b"a", payload=b"x" * 65)) == "Pub(subject=b'a', reply=None, header=None, payload=<65 bytes>)"
    )
    assert "payload=b'x'" in repr(Msg(b"a", b"1", payload=memoryview(b"x")))


def test_repr_hides_secrets() -> None:
    secret = {"pass": "canary", "auth_token": "canary", "jwt": "canary", "sig": "canary", "nonce": "canary"}
    for event in (Connect(secret, b"canary"), Info(secret, b"canary")):
        assert "canary" not in repr(event)
