"""The seam: whoever overrides nothing is told everything, and does no harm."""

from __future__ import annotations

from math import inf

from natsproto.aio.handlers import Handler, ReplySlot
from natsproto.errors import PermissionsViolationError, StaleConnectionError
from natsproto.wire import Msg, Parser
from support.fake_session import FakeServer, turns


async def test_a_handler_that_overrides_nothing() -> None:
    server = FakeServer()
    connection = server.connection
    handler = Handler(b"a.>", b"group")
    connection.subscribe(handler)
    assert (handler.sid, handler.delivered, handler.max_msgs) == (b"1", 0, 0)
    server.send(b"a.>", b"payload", subject=b"a.b")
    server.lose()
    server.connect()
    assert handler.base == handler.delivered
    refusal = PermissionsViolationError("no", subject="a.b", operation="publish")
    assert handler.on_refused(b"a.b", refusal) == 0
    await server.client.close()
    assert connection.handlers == {}
    await turns()
    assert server.client.last_error is None


def test_a_handler_names_no_destination() -> None:
    """The parser makes one then: the payload comes as bytes."""
    handler = Handler(b"a")
    parser = Parser("client", place=handler.place)
    (msg,) = parser.feed(b"MSG a 1 100000\r\n" + bytes(100_000) + b"\r\n")
    assert isinstance(msg, Msg)
    assert bytes(msg.payload) == bytes(100_000)


def test_a_slot_that_overrides_nothing() -> None:
    slot = ReplySlot(b"subject")
    msg = Msg(b"inbox", b"1", None)
    assert (slot.subject, slot.inbox, slot.deadline) == (b"subject", b"", inf)
    assert slot.place(b"", msg, 100_000) is None
    assert slot.under_way() == 1
    slot.on_reply(b"", msg)
    slot.on_lost(StaleConnectionError("lost"))
    slot.on_timeout()


def test_neither_has_room_for_more() -> None:
    """There may be very many of them: what a subclass adds it has to name."""
    for each in (Handler(b"a"), ReplySlot()):
        assert not hasattr(each, "__dict__")
