"""How fast acknowledgements are: of publishes (documents), through the window, and of deliveries (subjects).

Run: ``pytest bench/micro/test_acks.py --benchmark-enable --benchmark-group-by=func``.
"""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import pytest

from natsproto.aio.operations import home_of
from natsproto.aio.requests import RequestMux
from natsproto.jetstream.api.acks import parse_ack_subject, parse_pub_ack
from natsproto.jetstream.publisher import PublishWindow
from natsproto.wire import Msg

COUNT = 1000
ACK = b'{"stream":"OBJ_bucket","seq":123456}'
ACK_WITH_DOMAIN = b'{"stream":"OBJ_bucket","domain":"hub","seq":123456,"duplicate":true}'
NINE = b"$JS.ACK.OBJ_bucket.consumer.1.123456.799.1700000000123456789.42"
TWELVE = b"$JS.ACK.hub.ACCOUNTHASH.OBJ_bucket.consumer.1.123456.799.1700000000123456789.42.random"


@pytest.mark.parametrize("payload", [ACK, ACK_WITH_DOMAIN], ids=["plain", "domain"])
def test_pub_ack(measure: Any, payload: bytes) -> None:
    ack = measure(lambda: [parse_pub_ack(payload) for _ in range(COUNT)], count=COUNT)[-1]
    assert (ack.stream, ack.seq) == ("OBJ_bucket", 123456)
    assert (ack.domain, ack.duplicate) == (("hub", True) if payload is ACK_WITH_DOMAIN else (None, False))


@pytest.mark.parametrize("payload", [ACK, ACK_WITH_DOMAIN], ids=["plain", "domain"])
def test_pub_ack_nats_py(measure: Any, payload: bytes) -> None:
    api = pytest.importorskip("nats.js.api")
    ack = measure(lambda: [api.PubAck.from_response(json.loads(payload)) for _ in range(COUNT)], count=COUNT)
    assert (ack[-1].stream, ack[-1].seq) == ("OBJ_bucket", 123456)


class Connection:
    """What a window needs of a client and its connection, without a network."""

    def __init__(self) -> None:
        self.mux = self._mux = RequestMux(b"_INBOX.0123456789ABCDEFGHIJKL")
        self.session = SimpleNamespace()
        self.loop = asyncio.get_running_loop()
        self.home = home_of(self.loop)
        self.congested = False
        self.replies: list[bytes] = []

    def publish(self, subject: bytes, payload: Any, reply: bytes, header: bytes) -> None:
        self.replies.append(reply)

    def check_size(self, header: int, payload: int) -> None:
        """Everything is small enough."""

    def window(self, size: int) -> PublishWindow:
        client: Any = SimpleNamespace(connection=self, reply_length=80)
        return PublishWindow(client, b"$O.bucket.C.x", "OBJ_bucket", max_bytes=size * COUNT)


def fill(window: PublishWindow, payload: bytes) -> None:
    for _ in range(COUNT):
        try:
            window.publish(payload).send(None)
        except StopIteration:
            continue
        raise AssertionError("publish() waits although the window has room")


async def test_window_publish(measure: Any) -> None:
    connection = Connection()
    payload = bytes(1024)
    windows: list[PublishWindow] = []

    def setup() -> Any:
        windows.append(connection.window(len(payload)))
        connection.replies.clear()
        return (windows[-1], payload), {}

    measure(fill, count=COUNT, setup=setup)
    assert len(connection.replies) == len(set(connection.replies)) == COUNT
    assert connection.replies[-1].endswith(b".%d" % (COUNT - 1))
    for window in windows:
        window.close()


async def test_window_acknowledged(measure: Any) -> None:
    """From the mux to the window: the cost of each acknowledgement of a chunk, without the parser."""
    windows: list[PublishWindow] = []

    def setup() -> Any:
        connection = Connection()
        window = connection.window(1024)
        windows.append(window)
        fill(window, bytes(1024))
        messages = [
            Msg(reply, b"1", None, None, b'{"stream":"OBJ_bucket","seq":%d}' % (1000 + number))
            for number, reply in enumerate(connection.replies)
        ]
        return (connection.mux, messages), {}

    def deliver(mux: RequestMux, messages: list[Msg]) -> None:
        for message in messages:
            mux.deliver(message)

    measure(deliver, count=COUNT, setup=setup)
    for window in windows:
        assert window.failure is None
        assert (window.acknowledged, window.last_seq, window.unproven) == (COUNT, 1999, {})
        window.close()


@pytest.mark.parametrize("reply", [NINE, TWELVE], ids=["9-tokens", "12-tokens"])
def test_delivery(measure: Any, reply: bytes) -> None:
    found = measure(lambda: [parse_ack_subject(reply) for _ in range(COUNT)], count=COUNT)[-1]
    assert found is not None
    assert (found.stream, found.consumer, found.stream_seq) == ("OBJ_bucket", "consumer", 123456)
    assert (found.consumer_seq, found.num_pending, found.delivered) == (799, 42, 1)
    assert found.domain == ("hub" if reply is TWELVE else None)


def test_no_delivery(measure: Any) -> None:
    found = measure(lambda: [parse_ack_subject(b"_INBOX.abc.def.1") for _ in range(COUNT)], count=COUNT)
    assert found == [None] * COUNT


@pytest.mark.parametrize("reply", [NINE, TWELVE], ids=["9-tokens", "12-tokens"])
def test_delivery_nats_py(measure: Any, reply: bytes) -> None:
    metadata = pytest.importorskip("nats.aio.msg").Msg.Metadata
    text = reply.decode()
    found = measure(lambda: [metadata._from_reply(text) for _ in range(COUNT)], count=COUNT)[-1]
    assert (found.stream, found.sequence.stream, found.num_pending) == ("OBJ_bucket", 123456, 42)
