"""The bounded queue of a subscription: order, limits, end, drain, cancellation."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from natsproto.aio.handlers import Handler
from natsproto.aio.operations import home_of
from natsproto.aio.subscription import Subscription
from natsproto.errors import (
    ConnectionClosedError,
    PermissionsViolationError,
    RequestTimeoutError,
    SlowConsumerError,
)
from natsproto.wire import Msg


class FakeClient:
    """What a subscription asks of its client."""

    def __init__(self) -> None:
        self.reports: list[BaseException] = []
        self.is_closed = False
        self.unsubscribed: list[int] = []
        self.options = SimpleNamespace(drain_timeout=0.05)
        self.connection: Any = self
        self.home = home_of(asyncio.get_running_loop())
        self.waiters: list[asyncio.Future[None]] = []

    def report(self, exc: BaseException) -> None:
        self.reports.append(exc)

    def unsubscribe(self, handler: Handler, max_msgs: int) -> None:
        self.unsubscribed.append(max_msgs)
        if not max_msgs:
            handler.on_end(None)

    async def drain_handler(self, handler: Handler) -> None:
        handler.on_end(None)

    def state_waiter(self) -> asyncio.Future[None]:
        self.waiters.append(asyncio.get_running_loop().create_future())
        return self.waiters[-1]

    def close(self) -> None:
        self.is_closed = True
        for waiter in self.waiters:
            if not waiter.done():
                waiter.set_result(None)


def make(msgs: int = 1000, size: int = 1_000_000) -> tuple[Subscription, FakeClient]:
    client = FakeClient()
    sub = Subscription(client, b"s.>", None, max_msgs=0, pending_msgs_limit=msgs, pending_bytes_limit=size)  # type: ignore[arg-type]
    return sub, client


def frame(payload: bytes = b"x", header: bytes | None = None) -> Msg:
    msg = Msg(b"s.a", b"1", None)
    msg.payload, msg.header = payload, header
    return msg


async def test_order_and_accounting() -> None:
    sub, _ = make()
    for n in range(100):
        sub.deliver(frame(b"%d" % n, b"NATS/1.0\r\n\r\n" if n % 2 else None))
    assert sub.pending_msgs == 100
    assert sub.pending_bytes == sum(len(b"s.a" + b"%d" % n) for n in range(100)) + 50 * 12
    assert [(await sub.next_msg()).data for _ in range(100)] == [b"%d" % n for n in range(100)]
    assert (sub.pending_msgs, sub.pending_bytes, sub.dropped) == (0, 0, 0)


async def test_long_subjects_count() -> None:
    """Whoever publishes chooses them, and the reply subject, too."""
    sub, _ = make(size=10_000)
    for _ in range(100):
        msg = Msg(b"s." + b"x" * 500, b"1", b"y" * 498)
        sub.deliver(msg)
    assert (sub.pending_msgs, sub.pending_bytes, sub.dropped) == (10, 10_000, 90)


@pytest.mark.parametrize("limit", ["msgs", "bytes", "header bytes"])
async def test_a13_a_full_queue_drops_the_newest_and_says_so_once(limit: str) -> None:
    sub, client = make(msgs=10) if limit == "msgs" else make(size=1000)
    header = None if limit != "header bytes" else b"NATS/1.0\r\n" + b"a:b\r\n" * 18 + b"\r\n"
    payload = b"x" * 100 if limit != "header bytes" else b""
    for _ in range(15):
        sub.deliver(frame(payload, header))
    kept = sub.pending_msgs
    assert 8 <= kept <= 10
    assert sub.dropped == 15 - kept
    (report,) = client.reports
    assert isinstance(report, SlowConsumerError)
    assert (report.subject, report.dropped) == ("s.>", 1)
    # Reading one and dropping another is still the same episode: one report, not one per message.
    for _ in range(5):
        await sub.next_msg()
        sub.deliver(frame(payload, header))
        sub.deliver(frame(payload, header))
        if sub.pending_msgs <= 5:
            break
    assert len(client.reports) == 1
    while sub.pending_msgs:
        await sub.next_msg()
    for _ in range(12):
        sub.deliver(frame(payload, header))
    assert len(client.reports) == 2


async def test_a_message_larger_than_the_queue_is_dropped_not_stuck() -> None:
    sub, client = make(size=10)
    sub.deliver(frame(b"x" * 11))
    sub.deliver(frame(b"ok"))
    assert (await sub.next_msg()).data == b"ok"
    assert sub.dropped == 1
    assert len(client.reports) == 1


async def test_waiting_readers_get_one_message_each() -> None:
    sub, _ = make()
    readers = [asyncio.create_task(sub.next_msg(timeout=5)) for _ in range(3)]
    await asyncio.sleep(0)
    for n in range(3):
        sub.deliver(frame(b"%d" % n))
    assert sorted([msg.data for msg in await asyncio.gather(*readers)]) == [b"0", b"1", b"2"]


async def test_a_cancelled_reader_passes_its_wake_up_on() -> None:
    sub, _ = make()
    first = asyncio.create_task(sub.next_msg(timeout=5))
    second = asyncio.create_task(sub.next_msg(timeout=5))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    sub.deliver(frame(b"only"))  # wakes the first …
    first.cancel()  # … which is cancelled before it runs
    await asyncio.wait([first])
    assert first.cancelled()
    assert (await asyncio.wait_for(second, 6)).data == b"only"


async def test_timeout() -> None:
    sub, _ = make()
    with pytest.raises(RequestTimeoutError, match=r"s\.>"):
        await sub.next_msg(timeout=0.01)
    sub.deliver(frame())
    assert (await sub.next_msg(timeout=0.01)).data == b"x"


async def test_an_end_wakes_everybody_after_the_queue() -> None:
    sub, _ = make()
    readers = [asyncio.create_task(sub.next_msg()) for _ in range(3)]
    await asyncio.sleep(0)
    sub.on_end(None)
    for result in await asyncio.gather(*readers, return_exceptions=True):
        assert isinstance(result, ConnectionClosedError)
    other, _ = make()
    other.deliver(frame(b"1"))
    other.deliver(frame(b"2"))
    other.on_end(None)
    assert [msg.data async for msg in other] == [b"1", b"2"]


async def test_an_error_comes_after_the_queue_and_stays() -> None:
    sub, client = make()
    sub.deliver(frame())
    refusal = PermissionsViolationError("no")
    sub.on_end(refusal)
    sub.on_end(None)
    assert client.reports == [refusal]  # whoever only iterates later, or never, must not miss it
    await sub.next_msg()
    depths = []
    for _ in range(3):
        with pytest.raises(PermissionsViolationError) as info:
            await sub.next_msg()
        depths.append(len(info.traceback))
    assert depths[0] == depths[2], "tracebacks pile up on the one exception"
    assert client.reports == [refusal]


async def test_drain_waits_until_the_queue_is_read() -> None:
    sub, _ = make()
    for _ in range(3):
        sub.deliver(frame())
    drain = asyncio.create_task(sub.drain(5))
    for _ in range(3):
        await asyncio.sleep(0)
        assert not drain.done()
        await sub.next_msg()
    await asyncio.wait_for(drain, 6)
    await sub.drain()
    assert [msg async for msg in sub] == []


async def test_drain_is_bounded() -> None:
    sub, _ = make()
    sub.deliver(frame())
    with pytest.raises(RequestTimeoutError, match="1 messages"):
        await sub.drain()
    with pytest.raises(RequestTimeoutError):
        await sub.drain(0.01)
    assert (await sub.next_msg()).data == b"x"


async def test_drain_ends_when_the_client_is_closed() -> None:
    sub, client = make()
    sub.deliver(frame())
    drain = asyncio.create_task(sub.drain(60))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    client.close()
    with pytest.raises(ConnectionClosedError, match="1 messages"):
        await asyncio.wait_for(drain, 6)


async def test_context_manager_unsubscribes_once() -> None:
    sub, client = make()
    async with sub:
        pass
    async with sub:
        pass
    assert client.unsubscribed == [0]
