"""Chunks with numbers: the same ones from every sender of an upload, and from no other one."""

from __future__ import annotations

import hashlib
import hmac
from datetime import UTC, datetime

import pytest

from natsproto.headers import parse_headers
from natsproto.jetstream.api.models import StoredMessage
from objstore.bucket.numbered import NUMBER_ROOM, NumberedWindow, message_id, numbered
from support.fake_session import FakeServer
from support.publish_windows import ack


def window(server: FakeServer) -> NumberedWindow:
    return NumberedWindow(server.client, b"$O.b.C.n", "S")


def fields(server: FakeServer, index: int) -> dict[str, str]:
    return dict(parse_headers(bytes(server.pubs[index].header or b"")).headers.items())


async def test_ids_without_a_secret_are_series_and_index() -> None:
    server = FakeServer()
    first, second = window(server), window(server)
    assert first.series != second.series
    second.series = first.series
    for each in (first, second):
        for payload in (b"one", b"two"):
            await each.publish(payload)
    ids = [fields(server, n)["Nats-Msg-Id"] for n in range(4)]
    assert ids[:2] == ids[2:] == [f"{first.series}.0", f"{first.series}.1"]
    for n in range(4):
        ack(server, n, n + 1)
    for each in (first, second):
        each.close()
    await server.client.close()


async def test_ids_are_the_same_for_whoever_has_the_secret() -> None:
    server = FakeServer()
    mine, same, other = (window(server) for _ in range(3))
    for each, secret in ((mine, b"s" * 16), (same, b"s" * 16), (other, b"t" * 16)):
        each.secret, each.series = secret, "n.1"
        for payload in (b"one", b"two"):
            await each.publish(payload)
    ids = [fields(server, n)["Nats-Msg-Id"] for n in range(6)]
    assert ids[:2] == ids[2:4] == [message_id(b"s" * 16, "n.1.0"), message_id(b"s" * 16, "n.1.1")]
    assert len(set(ids)) == 4
    for n in range(6):
        ack(server, n, n + 1)
    for each in (mine, same, other):
        each.close()
    await server.client.close()


def test_an_id_is_an_hmac_of_the_number() -> None:
    """Without the secret nobody can compute one, whatever other ones they have seen: no part is a number."""
    number = "n" * 24 + ".12345.7"
    expected = hmac.new(b"s" * 16, number.encode(), hashlib.sha256).digest()[:16].hex()
    assert message_id(b"s" * 16, number) == expected
    assert message_id(b"", number) == number


async def test_a_condition_is_for_the_next_one_alone() -> None:
    server = FakeServer()
    one = window(server)
    one.expected = 0
    await one.publish(b"first")
    await one.publish(b"second")
    one.expected = 9_999_999_999_999_999_999
    await one.publish(b"third")
    conditions = [fields(server, n).get("Nats-Expected-Last-Subject-Sequence") for n in range(3)]
    assert conditions == ["0", None, "9999999999999999999"]
    assert all(len(pub.header or b"") <= NUMBER_ROOM for pub in server.pubs)
    one.close()
    await server.client.close()


@pytest.mark.parametrize(
    ("header", "is_one"),
    [
        (None, False),
        (b"NATS/1.0\r\n\r\n", False),
        (b"NATS/1.0\r\nOther: x\r\n\r\n", False),
        (b"NATS/1.0\r\nNats-Msg-Id: a.0\r\n\r\n", True),
    ],
)
def test_which_chunks_are_an_uploads(header: bytes | None, is_one: bool) -> None:
    assert numbered(StoredMessage("$O.b.C.n", 1, b"", header, datetime.now(UTC))) is is_one
