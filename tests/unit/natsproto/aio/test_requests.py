"""Dispatch of replies: by their subject, once, never to the wrong request."""

from __future__ import annotations

import asyncio
import string
from itertools import pairwise

import pytest

from natsproto.aio import requests as request_mux
from natsproto.aio.handlers import ReplySlot
from natsproto.aio.requests import GRAIN, RequestMux, RequestSlot
from natsproto.errors import (
    ConnectionClosedError,
    NoRespondersError,
    PermissionsViolationError,
    StaleConnectionError,
)
from natsproto.headers import encode_headers
from natsproto.wire import Msg
from support.fake_session import FakeServer
from support.simulation import in_virtual_time
from support.waits import standstill


class Slot(ReplySlot):
    __slots__ = ("got", "lost")

    def __init__(self, subject: bytes = b"") -> None:
        super().__init__(subject)
        self.got: list[tuple[bytes, bytes]] = []
        self.lost: list[BaseException] = []

    def on_reply(self, rest: bytes, msg: Msg) -> None:
        self.got.append((rest, bytes(msg.payload)))

    def place(self, rest: bytes, msg: Msg, size: int) -> bytearray:
        return bytearray(size)

    def on_lost(self, exc: BaseException) -> None:
        self.lost.append(exc)


def reply(subject: bytes, payload: bytes = b"x", header: bytes | None = None) -> Msg:
    msg = Msg(subject, b"1", None)
    msg.payload = payload
    msg.header = header
    return msg


def token_of(slot: ReplySlot) -> bytes:
    return slot.inbox.rpartition(b".")[2]


async def test_the_length_of_reply_subjects() -> None:
    """The longest is that of a publish window's last message."""
    server = FakeServer()
    slot = Slot()
    server.connection.mux.open(slot)
    assert len(b"%b.%d" % (slot.inbox, 9_999_999_999)) == server.client.reply_length
    assert len(server.client.new_inbox()) < server.client.reply_length


async def test_what_is_expected() -> None:
    mux = FakeServer().connection.mux
    slot = Slot()
    mux.open(slot)
    inbox = slot.inbox.decode()
    assert mux.expects(inbox)
    for other in ("", "$JS.API.STREAM.DELETE.S", inbox + ".1", inbox[:-1], inbox + "\udcff"):
        assert not mux.expects(other)
    mux.close(slot)
    assert not mux.expects(inbox)


async def test_s18_the_inbox_cannot_be_guessed() -> None:
    """Neither from another inbox nor from the nuids of objects, which everybody sees."""
    server = FakeServer()
    prefixes = {server.client.new_inbox().split(".")[1] for _ in range(500)}
    prefixes.add(server.client.connection.mux.subject.decode().split(".")[1])
    assert {len(prefix) for prefix in prefixes} == {22}
    for at in range(0, 20, 4):
        assert len({prefix[at : at + 4] for prefix in prefixes}) > 495
    mux = RequestMux(b"_INBOX.p")
    slots = [Slot() for _ in range(500)]
    for slot in slots:
        mux.open(slot)
    tokens = [token_of(slot) for slot in slots]
    assert {len(token) for token in tokens} == {12}
    for at in range(0, 12, 4):
        assert len({token[at : at + 4] for token in tokens}) > 495
    assert mux.subject == b"_INBOX.p.>"


async def test_s18_replies_go_by_token() -> None:
    mux = RequestMux(b"_INBOX.p")
    slots = [Slot() for _ in range(20)]
    for slot in slots:
        mux.open(slot)
    assert len({slot.inbox for slot in slots}) == 20
    for n, slot in enumerate(slots):
        mux.deliver(reply(slot.inbox, b"%d" % n))
        mux.deliver(reply(slot.inbox + b".7", b"more"))
    for n, slot in enumerate(slots):
        assert slot.got == [(b"", b"%d" % n), (b"7", b"more")]
    assert mux.place(reply(slots[3].inbox), 5000) == bytearray(5000)


async def test_s18_unknown_and_late_replies_are_dropped() -> None:
    mux = RequestMux(b"_INBOX.p")
    slot, other = Slot(), Slot()
    mux.open(slot)
    mux.open(other)
    mux.close(slot)
    mux.close(slot)
    assert len(mux) == 1
    for subject in (slot.inbox, b"_INBOX.p.", b"_INBOX.p.zzz", b"_INBOX.p", b"x", b"", b"_INBOX.p.\xff.1"):
        mux.deliver(reply(subject))
        assert mux.place(reply(subject), 5000) is None
    assert slot.got == other.got == []


async def test_s18_the_right_token_under_another_subject() -> None:
    """A pull consumer of a peer sends what its stream has to any inbox, under its own subject."""
    mux = RequestMux(b"_INBOX.p")
    slot = Slot()
    mux.open(slot)
    token = token_of(slot)
    for rest in (b"", b".0"):
        for subject in (b"_INBOX.q." + token, b"$O.own.C" + b"." + token, token, b"x" * 9 + token):
            mux.deliver(reply(subject + rest))
            assert mux.place(reply(subject + rest), 5000) is None
    assert slot.got == []


async def test_s18_a_reply_subject_tells_nothing_of_others() -> None:
    """Whoever sees the reply subject of one request can answer no other."""
    mux = RequestMux(b"_INBOX.p")
    slots = [Slot() for _ in range(1000)]
    for slot in slots:
        mux.open(slot)
    tokens = [token_of(slot) for slot in slots]
    assert len(set(tokens)) == 1000
    assert {len(token) for token in tokens} == {12}
    assert set(b"".join(tokens)) <= set((string.ascii_letters + string.digits + "-_").encode())
    # No place of a token says what stands there in the next one.
    for place in range(12):
        assert len({token[place] for token in tokens}) > 40
        assert sum(one[place] == other[place] for one, other in pairwise(tokens)) < 100
    other = RequestMux(b"_INBOX.p")
    other.open(slot := Slot())
    assert token_of(slot) not in tokens


async def test_closing_a_slot_of_another_inbox_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_mux, "_random_tokens", lambda: iter([b"same"]))
    old, new = RequestMux(b"_INBOX.old"), RequestMux(b"_INBOX.new")
    first, second = Slot(), Slot()
    old.open(first)
    new.open(second)
    assert token_of(first) == token_of(second)
    new.close(first)
    mux_msg = reply(second.inbox, b"for the second")
    new.deliver(mux_msg)
    assert second.got == [(b"", b"for the second")]


async def test_disconnect_end_and_refusal_reach_the_slots() -> None:
    mux = RequestMux(b"_INBOX.p")
    a, b = Slot(b"a"), Slot(b"b")
    mux.open(a)
    mux.open(b)
    stale = StaleConnectionError("lost")
    mux.on_disconnect(stale)
    assert a.lost == b.lost == [stale]
    denied = PermissionsViolationError("no", subject="a", operation="publish")
    assert mux.on_refused(b"a", denied)
    assert a.lost == [stale, denied]
    assert b.lost == [stale]
    assert not mux.on_refused(b"c", denied)
    mux.on_end(None)
    assert isinstance(b.lost[-1], ConnectionClosedError)


async def test_no_responders_is_told_from_a_forgery() -> None:
    loop = asyncio.get_running_loop()
    block = encode_headers({}, status=503)
    for header, payload, refused in [
        (block, b"", True),
        (encode_headers({"Nats-Subject": "q"}, status=503), b"", True),  # as nats-server 2.15 says it
        (block, b"data", False),
        (block[:-2] + b"Nats-Stream: S\r\nNats-Sequence: 7\r\n\r\n", b"", False),  # a stored message
        (encode_headers({}, status=404), b"", False),
        (encode_headers({"Status": "503"}), b"", False),
        (b"NATS/1.0 503", b"", None),
        (None, b"", False),
    ]:
        future: asyncio.Future[Msg] = loop.create_future()
        RequestSlot(b"q", future).on_reply(b"", reply(b"i", payload, header))
        if refused is None:
            assert future.done()
            future.exception()
        elif refused:
            with pytest.raises(NoRespondersError, match="'q'"):
                await future
        else:
            assert bytes((await future).payload) == payload


async def test_the_first_answer_counts() -> None:
    future: asyncio.Future[Msg] = asyncio.get_running_loop().create_future()
    slot = RequestSlot(b"q", future)
    slot.on_reply(b"", reply(b"i", b"1"))
    slot.on_reply(b"", reply(b"i", b"2"))
    slot.on_lost(StaleConnectionError("x"))
    assert bytes((await future).payload) == b"1"
    cancelled: asyncio.Future[Msg] = asyncio.get_running_loop().create_future()
    cancelled.cancel()
    RequestSlot(b"q", cancelled).on_reply(b"", reply(b"i"))
    RequestSlot(b"q", cancelled).on_lost(StaleConnectionError("x"))


class Timeouts:
    """What timed out, when, and a way to wait for so many of them."""

    def __init__(self, count: int) -> None:
        self.inboxes: list[bytes] = []
        self.times: list[float] = []
        self.count = count
        self.reached = asyncio.Event()

    def add(self, slot: Timed) -> None:
        self.inboxes.append(slot.inbox)
        self.times.append(asyncio.get_running_loop().time())
        if len(self.inboxes) >= self.count:
            self.reached.set()

    async def wait(self) -> None:
        async with asyncio.timeout(5):
            await self.reached.wait()


class Timed(ReplySlot):
    __slots__ = ("log",)

    def __init__(self, log: Timeouts) -> None:
        super().__init__()
        self.log = log

    def on_timeout(self) -> None:
        self.log.add(self)


def armed(mux: RequestMux, log: Timeouts, seconds: float) -> Timed:
    slot = Timed(log)
    mux.open(slot)
    mux.arm(slot, seconds)
    return slot


def test_deadlines_are_met_in_order() -> None:
    async def work() -> None:
        mux = RequestMux(b"_INBOX.p")
        log = Timeouts(3)
        began = asyncio.get_running_loop().time()
        waits = (0.09, 0.03, 60, 0.06)
        inboxes = [armed(mux, log, seconds).inbox for seconds in waits]
        await log.wait()
        assert log.inboxes == [inboxes[1], inboxes[3], inboxes[0]]
        for when, seconds in zip(log.times, (0.03, 0.06, 0.09), strict=True):
            assert when - began >= seconds - 1e-6  # never early
        mux.on_end(None)

    in_virtual_time(work)


async def test_deadlines_that_passed_while_the_loop_stood_still() -> None:
    mux = RequestMux(b"_INBOX.p")
    log = Timeouts(3)
    slots = [armed(mux, log, seconds) for seconds in (0.003, 0.001, 0.002)]
    in_order = [
        slot.inbox for slot in sorted(slots, key=lambda slot: slot.deadline)
    ]  # by when each was armed
    standstill(0.01)
    await log.wait()
    assert log.inboxes == in_order
    mux.on_end(None)


async def test_a_closed_slot_is_not_timed_out() -> None:
    mux = RequestMux(b"_INBOX.p")
    log = Timeouts(1)
    mux.close(armed(mux, log, 0.01))
    other = armed(mux, log, 0.02)
    await log.wait()
    assert log.inboxes == [other.inbox]
    assert mux._timer is None


async def test_armed_again_from_its_own_timeout() -> None:
    class Again(Timed):
        __slots__ = ()

        def on_timeout(self) -> None:
            super().on_timeout()
            if len(self.log.inboxes) == 1:
                mux.arm(self, 0.01)

    mux = RequestMux(b"_INBOX.p")
    log = Timeouts(2)
    slot = Again(log)
    mux.open(slot)
    mux.arm(slot, 0)
    await log.wait()
    assert mux._timer is None
    assert log.inboxes == [slot.inbox] * 2


async def test_many_deadlines_need_few_looks() -> None:
    """A thousand requests set one timer, and a thousand that are due are found in a few looks."""
    looks: list[float] = []

    class Counting(RequestMux):
        __slots__ = ()

        def _check_at(self, when: float) -> None:
            looks.append(when)
            super()._check_at(when)

    mux = Counting(b"_INBOX.p")
    log = Timeouts(1000)
    inboxes = [armed(mux, log, 0.01 + n * 1e-5).inbox for n in range(1000)]
    assert len(looks) == 1
    await log.wait()
    assert log.inboxes == inboxes
    assert len(looks) <= 1 + 0.02 / GRAIN


async def test_the_end_stops_the_timer() -> None:
    mux = RequestMux(b"_INBOX.p")
    armed(mux, Timeouts(1), 60)
    timer = mux._timer
    assert timer is not None
    mux.on_end(None)
    assert timer.cancelled()
