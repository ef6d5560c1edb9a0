"""Direct gets to which others have other streams, and other requests, answered: the genuine answer counts."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from natsproto.errors import RemoteProtocolError, RequestTimeoutError
from natsproto.jetstream import reads
from natsproto.jetstream.context import JetStreamContext
from natsproto.wire import Pub
from support.api_answers import NOBODY, eob, pages, stored
from support.fake_session import FakeServer

NEW_YEAR = datetime(2024, 1, 1, tzinfo=UTC)
"""When the messages of these tests were stored."""


@pytest.fixture
async def server() -> FakeServer:
    return FakeServer()


@pytest.fixture
def js(server: FakeServer) -> JetStreamContext:
    return server.client.jetstream(timeout=0.5)


CHOICES: list[tuple[dict[str, Any], list[bytes]]] = [
    ({"seq": 3}, [stored(2), stored(4)]),
    ({"last_by_subject": "s.a"}, [stored(9, subject="s.b"), stored(9, subject="s.a.b")]),
    ({"last_by_subject": "s.*"}, [stored(9, subject="t.a"), stored(9, subject="s.a.b")]),
    ({"next_by_subject": "s.>"}, [stored(3, subject="t.a"), stored(3, subject="s")]),
    ({"next_by_subject": "s.>", "seq": 3}, [stored(2), stored(3, subject="t.a")]),
    ({"start_time": NEW_YEAR, "next_by_subject": "s.a"}, [stored(3, subject="t.a")]),
]


@pytest.mark.parametrize(("choice", "others"), CHOICES)
async def test_what_does_not_answer_a_direct_get(
    server: FakeServer, js: JetStreamContext, choice: dict[str, Any], others: list[bytes]
) -> None:
    """The genuine message follows."""

    def on_pub(pub: Pub) -> None:
        assert pub.reply is not None
        for header in others:
            server.reply(pub, b"forged", header)
        server.reply_to(pub.reply, b"forged", stored(3), b"$JS.ACK.OWN.c.1.1.1.1700000000000000000.0")
        server.reply(pub, b"forged", stored(3).replace(b"Nats-Stream: S\r\n", b""))
        server.reply(pub, b'{"stream":"OWN","seq":3}')
        server.reply(pub, b"", eob(0, 3))
        server.reply(pub, b"genuine", stored(3))
        server.reply(pub, b"late", stored(3))

    server.session.on_pub = on_pub
    assert (await js.direct_get("S", **choice)).data == b"genuine"


class Streams:
    """Other streams answer direct gets, the real one after them."""

    def __init__(self, server: FakeServer, **configs: dict[str, Any]) -> None:
        self.server = server
        self.configs = configs
        self.asked: list[str] = []
        self.others: list[bytes] = []
        self.own = [stored(3)]
        server.session.on_pub = self.on_pub

    def on_pub(self, pub: Pub) -> None:
        subject = pub.subject.decode()
        if not subject.startswith("$JS.API.STREAM.INFO."):
            for header in self.others + self.own:
                self.server.reply(pub, b"", header)
            return
        name = subject.rpartition(".")[2]
        self.asked.append(name)
        if name in self.configs:
            self.server.reply(pub, {"config": {"name": name, **self.configs[name]}})
        elif name == "GONE":
            missing = {"code": 404, "err_code": 10059, "description": "stream not found"}
            self.server.reply(pub, {"error": missing})
        elif name == "NOWHERE":
            self.server.reply(pub, b"", NOBODY)
        else:
            asyncio.get_running_loop().call_soon(self.server.refuse, subject)


FOREIGN: dict[str, dict[str, Any]] = {"OWN": {}, "OTHER": {"mirror": {"name": "T"}}, "ODD": {"mirror": "S"}}


@pytest.mark.parametrize("name", [*FOREIGN, "GONE"])
@pytest.mark.parametrize("cut", [b"", b"X: "], ids=["whole", "cut"])
async def test_messages_of_other_streams(
    server: FakeServer, js: JetStreamContext, name: str, cut: bytes
) -> None:
    """They fit in every other way. Who they are is asked once; their headers may be cut off."""
    streams = Streams(server, **FOREIGN)
    streams.others = [stored(3, stream=name, extra=cut)]
    for choice, _ in CHOICES:
        message = await js.direct_get("S", **choice)
        assert message.header == stored(3)
    assert streams.asked == [name]
    for batch in (js.get_batch("S"), js.get_last_messages("S", ["s.a"], seq=3)):
        streams.own = [stored(4, 0, previous=0), eob(0, 4, None)]
        streams.others = [stored(3, 1, stream=name, extra=cut, previous=0), eob(0, 3)]
        assert [m.seq async for m in batch] == [4]
    assert streams.asked == [name]


@pytest.mark.parametrize("name", ["COPY", "NOWHERE", "REFUSED"])
async def test_mirrors_answer_for_their_origin(server: FakeServer, js: JetStreamContext, name: str) -> None:
    """So do those of which this user cannot find out whether they are mirrors."""
    streams = Streams(server, COPY={"mirror": {"name": "S"}})
    streams.others, streams.own = [stored(3, stream=name)], []
    for choice, _ in CHOICES:
        assert (await js.direct_get("S", **choice)).header == stored(3, stream=name)
    streams.others = [stored(3, 1, stream=name, previous=0), stored(4, 0, stream=name, previous=3), eob(0, 4)]
    assert [m.seq async for m in js.get_last_messages("S", ["s.a"])] == [3, 4]
    assert streams.asked == [name]


async def test_it_is_not_remembered_for_ever(
    server: FakeServer, js: JetStreamContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream may be created again, as a mirror. An attacker who is always first ends the call."""
    monkeypatch.setattr(reads, "COPY_KNOWN", 0.0)
    streams = Streams(server, OWN={})
    streams.others = [stored(3, stream="OWN")]
    with pytest.raises(RemoteProtocolError, match="only other streams answer"):
        await js.direct_get("S", seq=3)
    assert streams.asked == ["OWN"] * 10
    streams.configs["OWN"] = {"mirror": {"name": "S"}}
    assert (await js.direct_get("S", seq=3)).header == streams.others[0]


async def test_a_batch_of_a_stream_that_is_looked_up_first(server: FakeServer, js: JetStreamContext) -> None:
    """Its first messages are not lost meanwhile: it is asked for again."""
    streams = Streams(server, OWN={}, COPY={"mirror": {"name": "S"}})
    streams.others = [stored(9, 0, stream="OWN", previous=0)]
    streams.own = [
        stored(3, 1, stream="COPY", previous=0),
        stored(4, 0, stream="COPY", previous=3),
        eob(0, 4, None),
    ]
    assert [m.seq async for m in js.get_batch("S", batch=2)] == [3, 4]
    assert streams.asked == ["OWN", "COPY"]
    assert len(server.connection.mux) == 0


FORGED = [
    stored(1, 5, previous=0),
    stored(4, 5, previous=0),
    stored(4, 5, previous=2),
    stored(4),
    stored(4, 5, stream="OWN", previous=3),
    stored(4, 5, subject="t.a", previous=3),
    eob(0, 9),
    eob(0, 9, None),
    b"NATS/1.0 404 Message Not Found\r\n\r\n",
    b"NATS/1.0\r\n\r\n",
]


@pytest.mark.parametrize("forged", FORGED)
async def test_what_does_not_belong_to_a_batch(
    server: FakeServer, js: JetStreamContext, forged: bytes
) -> None:
    """Answers to other requests come between its messages."""
    end = eob(0, 5, up_to=None)
    pages(server, [stored(3, 1, previous=0), forged, stored(5, 0, previous=3), forged, end])
    assert [m.seq async for m in js.get_batch("S", seq=3, subject="s.*")] == [3, 5]


@pytest.mark.parametrize(
    "forged",
    [
        stored(6, 1, previous=3),  # beyond the moment
        stored(4, 1, previous=3, subject="s.z"),
        eob(0, 3, up_to=4),
        eob(0, 4, up_to=5),
        eob(0, 9, up_to=5),
    ],
)
async def test_what_does_not_belong_to_a_multi_get(
    server: FakeServer, js: JetStreamContext, forged: bytes
) -> None:
    pages(server, [stored(3, 1, previous=0), forged, stored(5, 0, previous=3), eob(0, 5, up_to=5)])
    assert [m.seq async for m in js.get_last_messages("S", ["s.a", "t.*"], up_to_seq=5)] == [3, 5]


async def test_a_multi_get_ends_by_a_status(server: FakeServer, js: JetStreamContext) -> None:
    """Servers send it when a message is removed meanwhile."""
    pages(server, [stored(3, 1, previous=0), b"NATS/1.0 404 Message Not Found\r\n\r\n"])
    assert [m.seq async for m in js.get_last_messages("S", ["s.a"])] == [3]


async def test_a_message_that_is_lost_on_the_way(server: FakeServer, js: JetStreamContext) -> None:
    js.timeout = 0.02
    for end in ([stored(5, 0, previous=4), eob(0, 5, None)], [eob(0, 4, None)]):
        pages(server, [stored(3, 2, previous=0), *end])
        batch = js.get_batch("S")
        assert (await anext(batch)).seq == 3
        with pytest.raises(RequestTimeoutError, match="lost on the way"):
            await anext(batch)
