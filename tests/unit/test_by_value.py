"""What goes out is what a ``str`` or ``bytes`` holds, whatever a subclass makes of itself."""

import pytest

from natsproto import wire
from natsproto.errors import BadSubjectError, InvalidNameError, LocalProtocolError
from natsproto.headers import Headers, encode_headers
from natsproto.jetstream.api.errors import check_name
from natsproto.subjects import check_publish_subject, check_queue, check_subscribe_subject
from objstore.format.models import ObjectHeaders, ObjectLink, ObjectMeta
from objstore.format.naming import check_bucket, check_object_name
from support.hostile import AnyCase, HostileBytes, HostileStr, enum_of

TEXTS = pytest.mark.parametrize("make", [HostileStr, enum_of, AnyCase], ids=["hostile", "enum", "any case"])
CHECKS = [check_publish_subject, check_subscribe_subject, check_queue]
NAMES = [
    lambda name: check_name("stream", name),
    check_bucket,
    lambda name: check_object_name(name, "b"),
]


@TEXTS
@pytest.mark.parametrize("check", CHECKS)
def test_subjects(make, check):
    assert check(make("value")) == b"value"
    with pytest.raises(BadSubjectError):
        check(make("value\r\nPUB x 0"))
    with pytest.raises(BadSubjectError):
        check(make(""))


@TEXTS
@pytest.mark.parametrize("check", NAMES)
def test_names(make, check):
    name = check(make("value"))
    assert type(name) is str
    assert name == "value"
    with pytest.raises((InvalidNameError, ValueError)):
        check(make(""))
    with pytest.raises((InvalidNameError, ValueError)):
        check(make("a\ud800"))


@pytest.mark.parametrize("check", CHECKS)
def test_equal_names_are_not_mixed_up(check):
    """A name that says it is equal to another one is still sent as it is spelled."""
    assert [check(AnyCase(name)) for name in ("Foo", "foo", "FOO")] == [b"Foo", b"foo", b"FOO"]


@TEXTS
def test_headers(make):
    headers = {make("Name"): make("Value"), "List": [make("a"), make("b")]}
    wanted = b"NATS/1.0\r\nName: Value\r\nList: a\r\nList: b\r\n\r\n"
    assert encode_headers(headers) == wanted
    assert encode_headers(list(headers.items())) == wanted
    assert encode_headers(Headers(headers)) == wanted
    changed = Headers()
    changed[make("Name")] = make("Value")
    changed.setdefault(make("List"), make("a"))
    changed.add(make("List"), make("b"))
    assert encode_headers(changed) == wanted
    assert changed[make("name")] == "Value"
    assert make("NAME") in changed
    assert changed.get_all(make("list")) == ["a", "b"]
    assert {type(text) for pair in changed.multi_items() for text in pair} == {str}
    del changed[make("LIST")]
    assert list(changed) == ["Name"]


@pytest.mark.parametrize("make", [HostileStr, AnyCase])
def test_what_they_hold_is_checked(make):
    for headers in ({make("a b"): "v"}, {make(""): "v"}, {"n": make("v\r\nX: y")}):
        with pytest.raises(LocalProtocolError):
            encode_headers(headers)


@TEXTS
def test_frames(make):
    assert b"".join(wire.pub(make("s"), b"", reply=make("r"))) == b"PUB s r 0\r\n\r\n"
    assert b"".join(wire.sub(make("s"), 1, queue=make("q"))) == b"SUB s q 1\r\n"
    assert b"".join(wire.msg(make("s"), 1, reply=make("r"))) == b"MSG s 1 r 0\r\n\r\n"
    assert b"".join(wire.err(make("text"))) == b"-ERR 'text'\r\n"
    assert b"".join(wire.connect({make("name"): make("value")})) == b'CONNECT {"name":"value"}\r\n'


def test_bytes():
    block = HostileBytes(b"NATS/1.0\r\nA: b\r\n\r\n")
    payload = HostileBytes(b"payload")
    frame = b"HPUB s r 18 25\r\nNATS/1.0\r\nA: b\r\n\r\npayload\r\n"
    assert b"".join(wire.pub(HostileBytes(b"s"), payload, reply=HostileBytes(b"r"), header=block)) == frame
    frame = b"HMSG s 1 r 18 25\r\nNATS/1.0\r\nA: b\r\n\r\npayload\r\n"
    parts = wire.msg(HostileBytes(b"s"), HostileBytes(b"1"), payload, reply=HostileBytes(b"r"), header=block)
    assert b"".join(parts) == frame
    with pytest.raises(LocalProtocolError):
        wire.pub("s", header=HostileBytes(b"nothing like it"))
    with pytest.raises(BadSubjectError):
        wire.pub(HostileBytes(b"a b"))
    with pytest.raises(BadSubjectError):
        wire.unsub(HostileBytes(b"x"))


@TEXTS
def test_models(make):
    headers = ObjectHeaders({make("Name"): make("v"), "List": [make("a")]})
    assert headers.as_wire() == {"Name": ["v"], "List": ["a"]}
    assert {type(text) for key, values in headers.as_wire().items() for text in (key, *values)} == {str}
    assert ObjectLink(make("b"), make("n")).target == "b/n"
    assert type(ObjectMeta(make("n")).name) is str
