"""What a message answers to: its reply subject is the choice of whoever sent it."""

from __future__ import annotations

import pytest

from natsproto.aio.msg import Msg
from natsproto.errors import BadSubjectError, NatsError
from natsproto.jetstream.context import JetStreamContext
from natsproto.wire import Msg as Frame
from support.fake_session import FakeServer


def message(server: FakeServer, reply: bytes | None) -> Msg:
    return Msg(Frame(b"service", b"1", reply), server.client)


@pytest.mark.parametrize(
    "reply",
    ["_INBOX.abc.1", "answers", "a.$JS.API", "_GR_.x", "$JS.ACK.S.C.1.2.3.4.5", "$JS.FC.S.C.t"],
)
async def test_respond(reply: str) -> None:
    server = FakeServer()
    await message(server, reply.encode()).respond(b"data", headers={"K": "v"})
    (pub,) = server.pubs
    assert (pub.subject, pub.payload) == (reply.encode(), b"data")
    assert pub.header == b"NATS/1.0\r\nK: v\r\n\r\n"


@pytest.mark.parametrize(
    "reply",
    ["$JS.API.STREAM.PURGE.OBJ_b", "$O.b.M.name", "$KV.b.key", "$SYS.REQ.SERVER.PING", "$JS", "$JS.ACK", "$",
     "$JS.ACKS.x", "$JS.FCS.x", "$js.ack.x", "$NRG.x"],
)  # fmt: skip
async def test_no_answer_to_a_subject_of_the_server(reply: str) -> None:
    """It would be published with the permissions of the one who answers."""
    server = FakeServer()
    asked = message(server, reply.encode())
    with pytest.raises(BadSubjectError, match=r"publish\(msg\.reply"):
        await asked.respond(b"data")
    assert server.pubs == []
    assert asked.reply is not None
    await server.client.publish(asked.reply, b"meant")
    assert [pub.subject for pub in server.pubs] == [reply.encode()]


async def test_no_answer_below_a_prefix_of_the_api() -> None:
    """What an account maps to ``$JS.API`` reaches it just as well."""
    server = FakeServer()
    JetStreamContext(server.client, prefix="hub.API")
    with pytest.raises(BadSubjectError, match="server's own"):
        await message(server, b"hub.API.STREAM.DELETE.OBJ_b").respond()
    await message(server, b"hub.APIS.x").respond()
    assert [pub.subject for pub in server.pubs] == [b"hub.APIS.x"]


@pytest.mark.parametrize("reply", [b"a..b", b"a.*", b">", b"r.\xff\xfe", b"r" * 4070])
async def test_no_answer_to_what_is_no_subject(reply: bytes) -> None:
    """Servers deliver whatever a peer writes."""
    server = FakeServer()
    with pytest.raises(BadSubjectError):
        await message(server, reply).respond(b"data")
    assert server.pubs == []


async def test_nobody_to_respond_to() -> None:
    server = FakeServer()
    for asked in (message(server, None), Msg(Frame(b"service", b"1", b"r"), None)):
        with pytest.raises(NatsError, match="nobody"):
            await asked.respond()
    assert server.pubs == []
