"""P5 against a real server: what the serializer accepts arrives byte-exact at a raw subscriber."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from natsproto import wire
from natsproto.headers import encode_headers
from natsproto.server import LocalServer
from natsproto.wire import Event, Msg, Parser

text = st.characters(exclude_categories=["Cs"])
tokens = st.text(text.filter(lambda c: c > " " and c not in ".*>\x7f"), min_size=1, max_size=8)
mixed_tokens = tokens | st.sampled_from(["a*b", "x>", "**", "-", "$x", "\u00a0", "\u2028"])
subjects = st.lists(mixed_tokens, min_size=1, max_size=3).map(lambda parts: "p5." + ".".join(parts))
names = st.text(
    st.characters(codec="ascii", min_codepoint=33, exclude_characters=":\x7f"), min_size=1, max_size=8
)
values = st.text(text.filter(lambda c: c not in "\r\n\0"), max_size=12)
blocks = st.none() | st.lists(st.tuples(names, values), max_size=3).map(encode_headers)
payloads = st.binary(max_size=60) | st.sampled_from([b"\r\nPING\r\n", b"\r", b"\n", b"PUB x 0\r\n\r\n"])


class RawClient:
    """A blocking socket with a parser: nothing between the test and the bytes."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.parser = Parser()
        self.events: list[Event] = []
        self.send(wire.connect({"verbose": False, "headers": True, "no_responders": True, "protocol": 1}))

    def send(self, buffers: wire.Buffers) -> None:
        self.socket.sendall(b"".join(buffers))

    def messages(self) -> list[Event]:
        """Return all messages the server sent before it answered one more PING."""
        self.send(wire.ping())
        while wire.PONG_EVENT not in self.events:
            data = self.socket.recv(65536)
            assert data, f"the server closed the connection: {self.events}"
            self.events += self.parser.feed(data)
        found: list[Event] = [event for event in self.events if isinstance(event, Msg | wire.Err)]
        self.events.clear()
        return found


@pytest.fixture(scope="module")
def client() -> Iterator[RawClient]:
    with LocalServer(jetstream=False) as server:
        client = RawClient(server.port)
        client.send(wire.sub("p5.>", 1))
        assert client.messages() == []
        yield client
        client.socket.close()


publish = st.tuples(subjects, payloads, st.none() | subjects, blocks)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(publish, min_size=1, max_size=5))
@example([("p5.a\x80\u0085b", b"\r\nPING\r\n", "p5.r", encode_headers({"A": ["", " x ", "ü"]}))])
def test_p5_byte_exact_through_a_real_server(client: RawClient, publishes: list[Any]) -> None:
    expected: list[Event] = []
    for subject, payload, reply, header in publishes:
        client.send(wire.pub(subject, payload, reply=reply, header=header))
        expected.append(
            Msg(subject.encode(), b"1", None if reply is None else reply.encode(), header, payload)
        )
    assert client.messages() == expected
