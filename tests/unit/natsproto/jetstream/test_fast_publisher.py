"""Fast-ingest batches against scripted answers: messages, the pace, ends, what is refused before a byte."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from natsproto.errors import (
    BadSubjectError,
    ConfigError,
    MaxPayloadError,
    NatsError,
    UnsupportedFeatureError,
)
from natsproto.jetstream import fast_batch
from natsproto.jetstream.context import JetStreamContext
from natsproto.jetstream.fast_publisher import BatchIncompleteError, FastPublisher
from natsproto.wire import Pub
from support.api_answers import NOBODY
from support.fake_session import FakeServer, turns, until
from support.fast_batches import (
    NOT_FOUND,
    Leader,
    Stream,
    answer,
    batches,
    error,
    final,
    flow,
    parts,
    stored_at,
)


@pytest.fixture
async def server() -> FakeServer:
    server = FakeServer()
    server.session.info["api_lvl"] = 4
    Stream(server)
    return server


@pytest.fixture
def js(server: FakeServer) -> JetStreamContext:
    return server.client.jetstream(timeout=5)


async def test_a_batch(server: FakeServer, js: JetStreamContext) -> None:
    Leader(server)
    batch = js.fast_publisher("S", flow=50)
    assert (batch.sent, batch.acknowledged, batch.lost, batch.refused) == (0, 0, 0, [])
    assert await batch.add("s.a", b"1") == 1
    assert await batch.add("s.b", bytearray(b"2"), headers={"A": "1"}, msg_id="x") == 2
    ack = await batch.commit("s.c", b"3")
    assert (ack.stream, ack.seq, ack.count) == ("S", 103, 3)
    assert (batch.sent, batch.acknowledged) == (3, 3)
    assert [parts(pub)[1:] for pub in server.pubs] == [
        (50, "fail", 1, 0),
        (50, "fail", 2, 1),
        (50, "fail", 3, 2),
    ]
    assert len({parts(pub)[0] for pub in server.pubs}) == 1
    assert server.pubs[1].header == b"NATS/1.0\r\nA: 1\r\nNats-Msg-Id: x\r\n\r\n"
    for call in (batch.add, batch.commit):
        with pytest.raises(ConfigError):
            await call("s.a", b"4")
    assert await batch.close() == ack
    assert batches(server) == []


async def test_a_batch_that_is_closed(server: FakeServer, js: JetStreamContext) -> None:
    Leader(server)
    async with js.fast_publisher("S", continue_on_gap=True) as batch:
        await batch.add("s.a", b"1")
    assert [parts(pub)[2:] for pub in server.pubs] == [("ok", 1, 0), ("ok", 2, 3)]
    assert (batch.sent, batch.acknowledged, repr(batch)) == (1, 1, "<FastPublisher 'S' committed 1/1>")
    async with js.fast_publisher("S") as batch:
        pass
    assert await batch.close() is None
    assert len(server.pubs) == 2


async def test_a_batch_of_one_message(server: FakeServer, js: JetStreamContext) -> None:
    Leader(server)
    assert (await js.fast_publisher("S").commit("s.a", b"1")).count == 1
    assert parts(server.pubs[0])[3:] == (1, fast_batch.COMMIT)


async def test_an_exception_commits_nothing(server: FakeServer, js: JetStreamContext) -> None:
    Leader(server)
    with pytest.raises(ZeroDivisionError):
        async with js.fast_publisher("S") as batch:
            await batch.add("s.a", b"1")
            raise ZeroDivisionError
    assert len(server.pubs) == 1
    assert batches(server) == []
    with pytest.raises(ConfigError):
        await batch.add("s.a", b"2")


async def test_the_first_message_waits(server: FakeServer, js: JetStreamContext) -> None:
    """Whoever gives up waiting has not begun a batch that another message may follow."""
    batch = js.fast_publisher("S")
    adding = asyncio.ensure_future(batch.add("s.a", b"1"))
    await until(lambda: server.pubs)
    adding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await adding
    adding = asyncio.ensure_future(batch.add("s.a", b"2"))
    await turns()
    assert len(server.pubs) == 1
    answer(server, server.pubs[0], flow(0, 10))
    assert await adding == 2
    Leader(server)
    await batch.close()


async def test_the_server_sets_the_pace(server: FakeServer, js: JetStreamContext) -> None:
    """Two acknowledgements may be due, of as many messages as the server says, but never more than asked."""
    leader = Leader(server, msgs=2)
    batch = js.fast_publisher("S", flow=5)
    for _ in range(4):
        await batch.add("s.a", b"x")
    adding = asyncio.ensure_future(batch.add("s.a", b"x"))
    await turns()
    assert len(server.pubs) == 4
    leader.say(flow(2, 1))  # slower: one message per acknowledgement
    await turns()
    assert not adding.done()
    leader.say(flow(4, 1000))
    assert await adding == 5
    for _ in range(9):
        await batch.add("s.a", b"x")
    adding = asyncio.ensure_future(batch.add("s.a", b"x"))
    await turns()
    assert len(server.pubs) == 14
    leader.say(flow(3, 5))  # an older one, that was overtaken
    assert batch.acknowledged == 4
    leader.say(flow(14, 0))
    assert await adding == 15
    assert batch.acknowledged == 14
    await batch.close()


@pytest.mark.parametrize(("size", "wanted"), [(0, 100), (1000, 100), (100_000, 20), (1 << 20, 2)])
async def test_large_messages_are_acknowledged_more_often(
    server: FakeServer, js: JetStreamContext, size: int, wanted: int
) -> None:
    Leader(server)
    await js.fast_publisher("S").commit("s.a", b"x" * size)
    assert parts(server.pubs[0])[1] == wanted


# -- another publisher's message in the place of one of the batch's -----------------------------------


TAKEN = "a message of another publisher has taken the place"
REFUSED = {"error": error(10071)}


@pytest.fixture
def stream(server: FakeServer) -> Stream:
    return Stream(server)


async def fill(batch: FastPublisher, count: int, **options: Any) -> None:
    for n in range(1, count + 1):
        await batch.add("s.a", bytearray(b"%d" % n), **options)


@pytest.mark.parametrize("continue_on_gap", [False, True])
@pytest.mark.parametrize("other", [("s.a", b"x"), ("s.b", b"3"), ("s.b", b"x")])
async def test_another_message_was_counted(
    server: FakeServer, js: JetStreamContext, stream: Stream, other: tuple[str, bytes], continue_on_gap: bool
) -> None:
    Leader(server)
    batch = js.fast_publisher("S", continue_on_gap=continue_on_gap)
    await fill(batch, 2)
    stream.others[103] = other
    with pytest.raises(BatchIncompleteError, match=TAKEN) as caught:
        await batch.commit("s.a", b"3")
    assert (caught.value.stored, batch.acknowledged) == (0, 0)
    assert caught.value.ack is not None
    assert caught.value.ack.count == 3
    assert stream.asked[:3] == [{"seq": 103}] * 3


async def test_another_message_ends_a_batch(server: FakeServer, js: JetStreamContext, stream: Stream) -> None:
    """The batch's own message of that number ends it. What was refused was not the reason."""
    leader = Leader(server, msgs=10)
    batch = js.fast_publisher("S")
    await fill(batch, 5)
    stream.others[104] = "s.b", b"x"
    leader.say({"type": "err", "seq": 5, "error": error(10071)})
    leader.say(final(server.pubs[-1], 4))
    for _ in range(2):
        with pytest.raises(BatchIncompleteError, match=TAKEN) as caught:
            await batch.add("s.a", b"6")
        assert caught.value.stored == batch.acknowledged == 0
    assert len([each for each in stream.asked if "next_by_subj" not in each]) == 3  # they were asked once
    with pytest.raises(BatchIncompleteError, match=TAKEN):
        await batch.close()


async def test_another_message_begins_a_batch(
    server: FakeServer, js: JetStreamContext, stream: Stream
) -> None:
    """It has overtaken the first one; as a duplicate of its own it is not even stored."""
    stream.others[101] = "s.b", b"x"
    for said in ({}, {"seq": 0}, {"seq": 7, "duplicate": True}):
        server.session.on_pub = lambda pub, said=said: answer(server, pub, final(pub, 1) | said)
        with pytest.raises(BatchIncompleteError, match=TAKEN) as caught:
            await js.fast_publisher("S").add("s.a", b"1")
        assert caught.value.stored == 0


async def test_the_number_of_those_stored(server: FakeServer, js: JetStreamContext, stream: Stream) -> None:
    """It is right when the newest of them is the batch's."""
    leader = Leader(server, msgs=10)
    batch = js.fast_publisher("S", flow=3)
    await fill(batch, 6)
    leader.say(flow(6, 3))  # another stream may say that
    leader.say(final(server.pubs[-1], 1))
    with pytest.raises(BatchIncompleteError, match="after 1 of 6") as caught:
        await batch.close()
    assert (caught.value.stored, stream.asked) == (1, [{"seq": 101}])


async def test_a_number_that_cannot_be_proven(
    server: FakeServer, js: JetStreamContext, stream: Stream
) -> None:
    """Another stream has acknowledged what this one has not: the message of that number is not kept."""
    leader = Leader(server, msgs=10)
    batch = js.fast_publisher("S", flow=3, max_outstanding_acks=1)
    await fill(batch, 3)
    leader.say(flow(3, 3))
    await batch.add("s.a", b"4")
    assert await batch.add("s.a", b"5") == 5
    leader.say(final(server.pubs[-1], 1))
    with pytest.raises(BatchIncompleteError) as caught:
        await batch.close()
    assert caught.value.stored == 0


async def test_answers_to_others_reads(server: FakeServer, js: JetStreamContext, stream: Stream) -> None:
    """Somebody has had a message of another stream, or another one of this one, sent to our inbox."""
    Leader(server)
    stream.answers = [stored_at(102, "other.x", b"x"), stored_at(101, "s.a", b"2")]
    batch = js.fast_publisher("S")
    await fill(batch, 1)
    assert (await batch.commit("s.a", b"2")).count == 2
    assert stream.asked == [{"seq": 102}] * 3


@pytest.mark.parametrize("answers", [[NOBODY], [NOT_FOUND], [REFUSED], [{}], [stored_at(9, "s.b", b"")] * 3])
async def test_what_cannot_be_read_is_believed(
    server: FakeServer, js: JetStreamContext, stream: Stream, answers: list[dict[str, Any] | bytes]
) -> None:
    Leader(server)
    stream.answers = answers
    batch = js.fast_publisher("S")
    await fill(batch, 1)
    assert (await batch.commit("s.a", b"2")).count == 2
    assert stream.answers == []


async def test_no_right_to_read(server: FakeServer, js: JetStreamContext) -> None:
    """It is refused at once: nothing waits for an answer."""
    Leader(server)

    def refuse(pub: Pub) -> bool:
        if b".MSG.GET." in pub.subject:
            server.refuse(pub.subject.decode())
        return b".MSG.GET." in pub.subject

    server.session.aside = refuse
    batch = js.fast_publisher("S", timeout=60)
    await batch.add("s.a", b"1")
    async with asyncio.timeout(10):
        assert (await batch.commit("s.a", b"2")).count == 2


async def test_the_connection_is_lost_at_the_end(server: FakeServer, js: JetStreamContext) -> None:
    Leader(server)
    batch = js.fast_publisher("S")
    await batch.add("s.a", b"1")
    server.session.aside = lambda pub: b".MSG.GET." in pub.subject
    ending = asyncio.ensure_future(batch.commit("s.a", b"2"))
    await turns()
    assert not ending.done()
    server.lose()
    assert (await ending).count == 2


async def test_subjects_that_the_server_maps(
    server: FakeServer, js: JetStreamContext, stream: Stream
) -> None:
    """None of those that were published is stored, at the time of the batch."""
    Leader(server)
    stream.find = lambda selector: (  # type: ignore[method-assign]
        NOT_FOUND if "next_by_subj" in selector else stored_at(102, "s.mapped.a", b"2")
    )
    batch = js.fast_publisher("S")
    await fill(batch, 1)
    assert (await batch.commit("s.a", b"2")).count == 2
    assert stream.asked[-1] == {"seq": 101, "next_by_subj": "s.a"}


async def test_counters(server: FakeServer, js: JetStreamContext, stream: Stream) -> None:
    """The server writes their payload: the subject tells."""
    Leader(server)
    for other, fits in (("s.a", True), ("s.b", False)):
        stream.others[102] = other, b'{"val":"2"}'
        batch = js.fast_publisher("S")
        await fill(batch, 1)
        ending = batch.commit("s.a", headers={"Nats-Incr": "1"})
        if fits:
            assert (await ending).count == 2
        else:
            with pytest.raises(BatchIncompleteError, match=TAKEN):
                await ending


async def test_the_same_stream_in_another_domain(
    server: FakeServer, js: JetStreamContext, stream: Stream
) -> None:
    """It has stored the batch, but cannot be asked."""
    stream.others[101] = "s.b", b"x"
    server.session.on_pub = lambda pub: answer(server, pub, final(pub, 1) | {"domain": "hub"})
    ack = await js.fast_publisher("S").commit("s.a", b"1")
    assert (ack.domain, len(stream.asked)) == ("hub", 3)


async def test_duplicates_at_the_end(server: FakeServer, js: JetStreamContext, stream: Stream) -> None:
    """They count, but the newest message is the one before them."""
    for count in (1, 3):
        for first in (0, 1):
            on_pub = Leader(server, msgs=10).on_pub
            stored_last = 100 + first if first else 0
            server.session.on_pub = lambda pub, on_pub=on_pub, seq=stored_last: (
                answer(server, pub, final(pub, parts(pub)[3] - 1, seq)) if parts(pub)[4] == 3 else on_pub(pub)
            )
            batch = js.fast_publisher("S")
            await fill(batch, first)
            await fill(batch, count, msg_id="again")
            ack = await batch.close()
            assert ack is not None
            assert ack.count == first + count


async def test_messages_that_were_lost_or_refused_at_the_end(
    server: FakeServer, js: JetStreamContext, stream: Stream
) -> None:
    """They count, too, where that is allowed."""
    leader = Leader(server, msgs=10)
    for said in (
        [{"type": "gap", "last_seq": 2, "seq": 4}],
        [{"type": "err", "seq": 2, "error": error(10071)}, {"type": "err", "seq": 3, "error": error(10071)}],
        [],
    ):
        batch = js.fast_publisher("S", continue_on_gap=True)
        await fill(batch, 3)
        for each in said:
            leader.say(each)
        server.session.on_pub = lambda pub: answer(server, pub, final(pub, 3, 101))
        if said:
            assert await batch.close() is not None
            assert batch.lost + len(batch.refused) == 2
        else:
            with pytest.raises(BatchIncompleteError, match=TAKEN):
                await batch.close()
        server.session.on_pub = leader.on_pub


# -- servers without it -----------------------------------------------------------------------------


async def test_an_older_server(server: FakeServer, js: JetStreamContext) -> None:
    """It would store the messages as others: not even the first one is sent."""
    server.session.info["api_lvl"] = 2
    server.session.on_pub = lambda pub: answer(server, pub, {"api": {"level": 2}})
    batch = js.fast_publisher("S")
    for call in (batch.add, batch.commit):
        with pytest.raises(UnsupportedFeatureError, match=r"2\.14\.0"):
            await call("s.a", b"x")
    assert await batch.close() is None
    assert [pub.subject for pub in server.pubs] == [b"$JS.API.INFO"]


async def test_an_older_server_behind_it(server: FakeServer, js: JetStreamContext) -> None:
    server.session.on_pub = lambda pub: answer(server, pub, {"stream": "S", "seq": 7})
    batch = js.fast_publisher("S")
    with pytest.raises(UnsupportedFeatureError, match="stored the first message as 7"):
        await batch.add("s.a", b"x")
    with pytest.raises(UnsupportedFeatureError):
        await batch.close()
    assert len(server.pubs) == 1


# -- what makes no sense ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"flow": 0},
        {"flow": -1},
        {"flow": 65536},
        {"flow": 1.5},
        {"flow": True},
        {"max_outstanding_acks": 0},
        {"max_outstanding_acks": 4},
        {"max_outstanding_acks": None},
        {"timeout": 0},
        {"timeout": -1.0},
        {"timeout": float("nan")},
        {"timeout": "5"},
    ],
)
async def test_options_that_make_no_sense(js: JetStreamContext, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        js.fast_publisher("S", **options)


async def test_messages_that_are_none(server: FakeServer, js: JetStreamContext) -> None:
    """They leave the batch as it was, also the first one."""
    leader = Leader(server)
    server.connection.max_payload = 50
    batch = js.fast_publisher("S")
    for subject, payload, options, kind in (
        ("s a", b"", {}, BadSubjectError),
        ("s.*", b"", {}, BadSubjectError),
        ("s." + "x" * 4050, b"", {}, BadSubjectError),
        ("s.a", b"x" * 51, {}, MaxPayloadError),
        ("s.a", "text", {}, NatsError),
        ("s.a", b"", {"expected_last_seq": -1}, ConfigError),
        ("s.a", b"", {"expected": 1}, TypeError),
    ):
        for _ in range(2):
            with pytest.raises(kind):
                await batch.add(subject, payload, **options)  # type: ignore[arg-type]
    assert (server.pubs, batch.sent, batches(server)) == ([], 0, [])
    await batch.add("s.a", b"x")
    with pytest.raises(MaxPayloadError):
        await batch.add("s.a", b"x" * 51)
    with pytest.raises(BadSubjectError):
        await batch.add("s." + "x" * 4050, b"")
    assert (batch.sent, leader.server.pubs[0].subject) == (1, b"s.a")
    await batch.close()
