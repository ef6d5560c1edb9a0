"""How fast the parsers are: ours, fed both ways, and nats-py's, on the same frames in 64 KiB reads.

Run: ``pytest bench/micro/test_parser.py --benchmark-enable --benchmark-group-by=param:size,param:kind``.
The relevant rate is ``frames_per_second`` under *extra_info*; every parser's events are checked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from natsproto.wire import Msg, Parser

READ = 64 * 1024
SIZES = [0, 16, 128, 1024, 128 * 1024, 1024 * 1024]
HEADER = b"NATS/1.0\r\nNats-Msg-Id: 1\r\n\r\n"


def stream(size: int, kind: str) -> tuple[list[bytes], int]:
    """Return about 8 MiB (at most 20 000 frames) cut into reads, and how many frames they hold."""
    payload = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    if kind == "msg":
        frame = b"MSG bench.subject.one 17 %d\r\n%b\r\n" % (size, payload)
    else:
        frame = b"HMSG bench.subject.one 17 _INBOX.abc.def %d %d\r\n%b%b\r\n" % (
            len(HEADER),
            len(HEADER) + size,
            HEADER,
            payload,
        )
    count = max(8, min(20_000, 8 * 1024 * 1024 // len(frame)))
    data = frame * count
    return [data[i : i + READ] for i in range(0, len(data), READ)], count


def feed(reads: list[bytes]) -> list[Any]:
    parser = Parser()
    events: list[Any] = []
    for read in reads:
        events += parser.feed(read)
    return events


def buffered(reads: list[bytes]) -> list[Any]:
    """Like an event loop with a BufferedProtocol; the copy stands for ``recv_into``."""
    parser = Parser()
    events: list[Any] = []
    for read in reads:
        view = memoryview(read)
        while view:
            target = parser.get_buffer()
            count = min(len(target), len(view))
            target[:count] = view[:count]
            view = view[count:]
            events += parser.buffer_updated(count)
    return events


def placed(reads: list[bytes]) -> list[Any]:
    """Payloads of 4 KiB and more go into one reused destination."""
    room = bytearray(1024 * 1024)
    parser = Parser(place=lambda msg, size: memoryview(room)[:size])
    events: list[Any] = []
    for read in reads:
        events += parser.feed(read)
    return events


def nats_py(reads: list[bytes]) -> list[Any]:
    peer = pytest.importorskip("nats.protocol.parser")

    class Client:
        def __init__(self) -> None:
            self.events: list[Any] = []

        async def _process_msg(
            self, sid: int, subject: bytes, reply: bytes, payload: bytes, header: bytes
        ) -> None:
            self.events.append((subject, sid, reply, header, payload))

    client = Client()
    parser = peer.Parser(client)

    async def run() -> None:
        for read in reads:
            await parser.parse(read)

    with pytest.raises(StopIteration):
        run().send(None)  # it never really waits, so no event loop blurs the figure
    return client.events


@pytest.mark.parametrize("kind", ["msg", "hmsg"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("parse", [feed, buffered, placed, nats_py])
def test_parser(benchmark: Any, parse: Callable[[list[bytes]], list[Any]], size: int, kind: str) -> None:
    reads, count = stream(size, kind)
    events = benchmark.pedantic(parse, args=(reads,), rounds=9, warmup_rounds=2)
    assert len(events) == count
    for event in (events[0], events[-1]):
        payload, subject = (event.payload, event.subject) if isinstance(event, Msg) else (event[4], event[0])
        assert len(payload) == size
        assert subject == b"bench.subject.one"
    if benchmark.enabled:
        benchmark.extra_info["frames_per_second"] = round(count / benchmark.stats.stats.min)
