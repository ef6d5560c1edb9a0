"""The ordered consumer against a server that was started again, or that is behind: it counts anew."""

from __future__ import annotations

import pytest

from natsproto.errors import RequestTimeoutError
from natsproto.wire import Pub
from support.fake_session import turns, until
from support.fake_stream import Reader, Stream, finish


@pytest.fixture
async def stream() -> Stream:
    return Stream()


async def started(stream: Stream, upto: int = 5, **options: object) -> Reader:
    """A reader that was told of the first messages."""
    reader = Reader(stream, **options)
    await reader.consumer.start()
    for seq in range(1, upto + 1):
        stream.deliver(seq * 10, seq)
    return reader


async def goes_on_after(stream: Stream, reader: Reader, seq: int) -> None:
    """The consumer was made anew, after a sequence, and goes on."""
    await until(lambda: len(stream.configs) == 2)
    await turns()
    assert stream.configs[1]["deliver_policy"] == "by_start_sequence"
    assert stream.configs[1]["opt_start_seq"] == seq + 1
    before = list(reader.seqs)
    stream.deliver(seq + 1, 1)
    assert reader.seqs == [*before, seq + 1]
    await finish(stream, reader)


@pytest.mark.parametrize("policy", ["all", "last_per_subject"])
async def test_it_counts_from_one_with_something_new(stream: Stream, policy: str) -> None:
    reader = await started(stream, deliver_policy=policy)
    stream.deliver(60, 1)
    assert (reader.seqs, reader.restarts) == ([10, 20, 30, 40, 50], 1)
    await goes_on_after(stream, reader, 50)


async def test_it_tells_of_the_old_ones_first(stream: Stream) -> None:
    """What is known is no reason, and is not handed on again; what is new among it is one."""
    reader = await started(stream)
    stream.deliver(10, 1)
    stream.deliver(20, 2)
    assert (reader.seqs, reader.restarts) == ([10, 20, 30, 40, 50], 0)
    stream.deliver(51, 3)
    assert reader.restarts == 1
    await goes_on_after(stream, reader, 50)


async def test_it_counts_beyond_where_it_was(stream: Stream) -> None:
    """Nothing twice, nothing left out: what is new follows the old ones."""
    reader = await started(stream, 2)
    for count, seq in enumerate((1, 2, 10, 20, 31), 1):
        stream.deliver(seq, count)
    assert (reader.seqs, reader.restarts) == ([10, 20, 31], 0)
    stream.deliver(32, 6)
    assert reader.seqs == [10, 20, 31, 32]
    await finish(stream, reader)


@pytest.mark.parametrize("last", [0, 4])
async def test_a_heartbeat_that_has_counted_fewer(stream: Stream, last: int) -> None:
    """It has started over, and nothing new came of it yet."""
    reader = await started(stream)
    stream.heartbeat(last)
    assert (reader.idle, reader.restarts) == (0, 1)
    await goes_on_after(stream, reader, 50)


async def test_a_heartbeat_that_has_counted_as_many(stream: Stream) -> None:
    reader = await started(stream)
    stream.heartbeat(5)
    assert (reader.idle, reader.restarts) == (1, 0)
    await finish(stream, reader)


async def test_a_stalled_heartbeat_tells_as_well(stream: Stream) -> None:
    reader = await started(stream)
    stream.heartbeat(1, stalled=b"$JS.FC.S.%b.x" % stream.configs[-1]["name"].encode())
    assert (stream.answers, reader.restarts) == ([], 1)
    await goes_on_after(stream, reader, 50)


async def test_the_server_of_the_next_one_is_behind(stream: Stream) -> None:
    """Asked to begin beyond its end it begins there: with messages that are known."""
    reader = await started(stream)
    stream.deliver(80, 8)  # a gap
    await until(lambda: len(stream.configs) == 2)
    await turns()
    for count, seq in enumerate((30, 40, 50, 60, 70), 1):
        stream.deliver(seq, count)
    stream.heartbeat(5)
    assert (reader.seqs, reader.restarts) == ([10, 20, 30, 40, 50, 60, 70], 1)
    await finish(stream, reader)


async def test_nothing_before_the_start(stream: Stream) -> None:
    reader = Reader(stream, deliver_policy="by_start_sequence", start_seq=40)
    await reader.consumer.start()
    assert reader.consumer.first_seq == 40
    for count, seq in enumerate((38, 39, 40, 41), 1):
        stream.deliver(seq, count)
    assert reader.seqs == [40, 41]
    await finish(stream, reader)


async def test_nothing_before_a_new_one(stream: Stream) -> None:
    """Policy "new" on a server that is behind: what was stored before the start is no news."""
    stream.last_seq = 40
    reader = Reader(stream, deliver_policy="new")
    await reader.consumer.start()
    stream.deliver(40, 1)
    stream.deliver(41, 2)
    assert reader.seqs == [41]
    await finish(stream, reader)


async def test_a_new_one_of_an_empty_stream(stream: Stream) -> None:
    reader = Reader(stream, deliver_policy="new")
    await reader.consumer.start()
    assert stream.configs[0]["opt_start_seq"] == 1
    stream.deliver(1, 1)
    assert reader.seqs == [1]
    await finish(stream, reader)


async def test_a_creation_without_an_answer_is_not_waited_for_twice(stream: Stream) -> None:
    """The server that it was given to hangs: it will not answer the deletion either."""
    silent: list[str] = []

    def answer(verb: str, pub: Pub) -> bool:
        silent.append(verb)
        return verb != "CONSUMER.DELETE" or len(silent) < 3

    stream.answer = answer
    reader = Reader(stream, patience=0.05)
    with pytest.raises(RequestTimeoutError):
        await reader.consumer.start()
    await turns()
    assert silent == ["CONSUMER.CREATE", "CONSUMER.DELETE"]
    stream.answer = lambda verb, pub: False
    await reader.consumer.start()
    stream.deliver(1, 1)
    assert reader.seqs == [1]
    await finish(stream, reader)
