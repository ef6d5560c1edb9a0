"""One stored message, in whatever way the user may read; what a refusal and a wrong answer lead to."""

from __future__ import annotations

from contextlib import aclosing
from typing import Any

import pytest

from natsproto.errors import PermissionsViolationError, RemoteProtocolError, RequestTimeoutError
from natsproto.jetstream.api.models import StoredMessage
from objstore.bucket.binding import bind
from objstore.bucket.bucket import Bucket
from objstore.bucket.message_reads import MOST_AHEAD, NO_MESSAGE, MessageRead, last_of
from objstore.bucket.ways import ANY_WAY, AT_LEADER, DELIVERIES, DIRECT_FIRST, PROOFS, REFUSED_FOR, UNASKED
from support.clock import Clock
from support.memory_server import NO_MESSAGE as NONE
from support.memory_server import MemoryServer

SUBJECT = "$O.b.C.n"


async def bound(server: MemoryServer, **config: Any) -> Bucket:
    await server.bucket(**config)
    bucket = await bind(server.js, "b")
    server.put_raw(SUBJECT, b"first")
    server.put_raw(SUBJECT, b"second", b"NATS/1.0\r\nA: 1\r\n\r\n")
    server.verbs()
    return bucket


@pytest.mark.parametrize(
    ("refused", "verb"),
    [
        ((), "STREAM.MSG.GET"),
        (("STREAM.MSG.GET",), "DIRECT.GET"),
        (("STREAM.MSG.GET", "DIRECT.GET"), "CONSUMER.CREATE"),
    ],
)
async def test_the_next_best_way(server: MemoryServer, refused: tuple[str, ...], verb: str) -> None:
    """Which ones are refused is known from the first refusal on."""
    bucket = await bound(server)
    server.refused = set(refused)
    for _ in range(2):
        message = await MessageRead(bucket, SUBJECT, ways=ANY_WAY).wait()
        assert message is not None
        assert (message.data, message.seq, message.subject) == (b"second", 2, SUBJECT)
        assert message.header is not None
        assert b"A: 1" in message.header
    verbs = server.verbs()
    assert verb in verbs
    for each in refused:
        assert verbs.count(each) <= 2  # direct get has two subjects
    assert len(server.connection.mux) == 0


async def test_a_right_that_is_given_later(server: MemoryServer) -> None:
    bucket = await bound(server)
    server.refused = {"STREAM.MSG.GET"}
    await MessageRead(bucket, SUBJECT, ways=ANY_WAY).wait()
    server.refused = set()
    assert not bucket.ways.allowed(AT_LEADER[0])
    Clock().forward(REFUSED_FOR)
    assert bucket.ways.allowed(AT_LEADER[0])
    server.verbs()
    await MessageRead(bucket, SUBJECT, ways=ANY_WAY).wait()
    assert server.verbs() == ["STREAM.MSG.GET"]


async def test_who_may_not_read_at_all(server: MemoryServer) -> None:
    bucket = await bound(server)
    server.refused = {"STREAM.MSG.GET", "DIRECT.GET", "CONSUMER.CREATE"}
    for ways, wanted in (
        (AT_LEADER, "STREAM.MSG.GET.OBJ_b"),
        (PROOFS, "DIRECT.GET.OBJ_b"),
        (ANY_WAY, "CONSUMER"),
    ):
        with pytest.raises(PermissionsViolationError, match=r"docs/permissions\.md") as told:
            await MessageRead(bucket, SUBJECT, ways=ways).wait()
        assert wanted in str(told.value)
        assert told.value.subject == "$JS.API.STREAM.MSG.GET.OBJ_b"
    assert len(server.connection.mux) == 0


@pytest.mark.parametrize("ways", [ANY_WAY, DIRECT_FIRST, ("CONSUMER.CREATE.{}.>",)])
async def test_the_next_one_after_a_sequence(server: MemoryServer, ways: tuple[str, ...]) -> None:
    bucket = await bound(server)
    if len(ways) == 1:
        ways = ANY_WAY
        server.refused = {"STREAM.MSG.GET", "DIRECT.GET"}
    for after, data in ((0, b"first"), (1, b"second"), (2, None)):
        message = await MessageRead(bucket, "$O.b.C.>", after=after, ways=ways).wait()
        assert (None if message is None else message.data) == data


async def test_without_direct_get_nobody_asks_for_it(server: MemoryServer) -> None:
    bucket = await bound(server, allow_direct=False)
    assert await MessageRead(bucket, SUBJECT, ways=DIRECT_FIRST).wait() is not None
    assert server.verbs() == ["STREAM.MSG.GET"]


async def test_none_is_none_however_it_is_said(server: MemoryServer) -> None:
    bucket = await bound(server)
    for answer in (NONE, NO_MESSAGE):
        server.hook = lambda verb, body, answer=answer: answer
        assert await MessageRead(bucket, SUBJECT, ways=AT_LEADER).wait() is None


@pytest.mark.parametrize("ways", [AT_LEADER, DIRECT_FIRST])
async def test_the_answer_to_another_question(server: MemoryServer, ways: tuple[str, ...]) -> None:
    """What is removed may depend on it."""
    bucket = await bound(server)
    server.put_raw("$O.b.C.other", b"x")
    find = server.stream().find
    server.stream().find = lambda body: find({"last_by_subj": "$O.b.C.other"})  # type: ignore[method-assign]
    with pytest.raises(RemoteProtocolError, match=r"asked for '\$O\.b\.C\.n' after 0"):
        await MessageRead(bucket, SUBJECT, ways=ways).wait()
    server.stream().find = lambda body: find({"seq": 1})  # type: ignore[method-assign]
    with pytest.raises(RemoteProtocolError):
        await MessageRead(bucket, SUBJECT, after=1, ways=ways).wait()


async def test_a_mirror_is_asked_over(server: MemoryServer) -> None:
    """It may answer a direct get with what it has; the leader has the last word."""
    bucket = await bound(server)
    block = server.stream().block
    server.stream().block = (  # type: ignore[method-assign]
        lambda each, lines=b"": block(each, lines).replace(b"Stream: OBJ_b", b"Stream: MIRROR")
    )
    message = await MessageRead(bucket, SUBJECT, ways=DIRECT_FIRST).wait()
    assert message is not None
    assert message.data == b"second"
    assert server.verbs() == ["DIRECT.GET", "STREAM.MSG.GET"]
    assert bucket.replicated


async def test_a_question_that_is_given_up(server: MemoryServer) -> None:
    bucket = await bound(server)
    read = MessageRead(bucket, SUBJECT, ways=ANY_WAY)
    read.close()
    read.close()
    assert len(server.connection.mux) == 0


def test_the_question_for_the_newest() -> None:
    assert last_of('a"b') == b'{"last_by_subj":"a\\"b"}'


@pytest.mark.parametrize("refused", [set(), {"STREAM.MSG.GET"}])
async def test_the_message_at_a_sequence(server: MemoryServer, refused: set[str]) -> None:
    """Only this very one, whatever else is sent to our inbox."""
    bucket = await bound(server)
    other = server.put_raw("$O.b.C.other", b"x")
    server.refused = refused

    async def at(seq: int) -> bytes | None:
        message = await MessageRead(bucket, SUBJECT, at=seq, ways=ANY_WAY).wait()
        return None if message is None else message.data

    first, second = (each.seq for each in server.stream().of(SUBJECT))
    assert [await at(seq) for seq in (first, second, other, 99)] == [b"first", b"second", None, None]
    assert [body for _, body in server.asked[-2:]] == [{"seq": other}, {"seq": 99}]
    server.refused = {"STREAM.MSG.GET", "DIRECT.GET"}
    with pytest.raises(PermissionsViolationError):  # no consumer can tell
        await at(first)


@pytest.mark.parametrize("times", [1, 9, 10])
async def test_it_is_asked_for_again_some_times(server: MemoryServer, times: int) -> None:
    bucket = await bound(server)
    first, second = (each.seq for each in server.stream().of(SUBJECT))
    left = times

    def hook(verb: str, body: dict[str, Any]) -> Any:
        nonlocal left
        left -= 1
        return server.leader_message(server.stream().messages[second]) if left >= 0 else None

    server.hook = hook
    reading = MessageRead(bucket, SUBJECT, at=first, ways=AT_LEADER).wait()
    if times < 10:
        found = await reading
        assert found is not None
        assert found.data == b"first"
    else:
        with pytest.raises(RemoteProtocolError, match=f"at {first}, got .* at {second}"):
            await reading
    assert len(server.connection.mux) == 0


@pytest.mark.parametrize("comes", [True, False])
async def test_an_idle_heartbeat_instead_of_the_message(server: MemoryServer, comes: bool) -> None:
    """It may be that of somebody's pull: the consumer counts a message, so there is one."""
    bucket = await bound(server)
    server.refused = {"STREAM.MSG.GET", "DIRECT.GET"}
    due, tries = server.stream().due, 0

    def late(consumer: Any, found: Any) -> None:
        nonlocal tries
        tries += 1
        if comes and tries == 3:
            due(consumer, found)
        else:
            inbox = consumer.config["deliver_subject"].encode()
            server.send(inbox, header=b"NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: 0\r\n\r\n")

    server.stream().due = late  # type: ignore[method-assign]
    if comes:
        message = await MessageRead(bucket, SUBJECT, ways=ANY_WAY).wait()
        assert message is not None
        assert message.data == b"second"
    else:
        with pytest.raises(RequestTimeoutError, match="does not deliver what it counts"):
            await MessageRead(bucket, SUBJECT, ways=ANY_WAY).wait()
    assert server.stream().consumers == {}


async def test_where_it_decides_only_the_leader_tells(server: MemoryServer) -> None:
    """Any stream with the bucket's subjects answers a direct get that is passed on to it."""
    bucket = await bound(server)
    block = server.stream().block
    server.stream().block = (  # type: ignore[method-assign]
        lambda each, lines=b"": block(each, lines).replace(b"Stream: OBJ_b", b"Stream: OTHER")
    )
    server.refused = {"STREAM.MSG.GET"}
    with pytest.raises(PermissionsViolationError, match=r"a mirror.*STREAM\.MSG\.GET\.OBJ_b;"):
        await MessageRead(bucket, SUBJECT, ways=PROOFS).wait()
    message = await MessageRead(bucket, SUBJECT, ways=DIRECT_FIRST).wait()
    assert message is not None, "a reader may see what it was before"


async def every(bucket: Bucket) -> list[StoredMessage]:
    async with aclosing(bucket.messages(SUBJECT, ways=ANY_WAY)) as messages:
        return [message async for message in messages]


@pytest.mark.parametrize("size", [1, 5000])
async def test_all_messages_by_a_few_consumers(server: MemoryServer, size: int) -> None:
    """Each consumer is sent 2 MiB before it can be stopped: one for each message would be a flood."""
    bucket = await bound(server)
    server.refused = {"STREAM.MSG.GET", "DIRECT.GET"}
    for number in range(MOST_AHEAD):
        server.put_raw(SUBJECT, b"%d" % number + b"x" * size)
    found = await every(bucket)
    assert [message.seq for message in found] == list(range(1, MOST_AHEAD + 3))
    assert [message.data for message in found] == [each.payload for each in server.stream().of(SUBJECT)]
    assert 2 <= server.verbs().count("CONSUMER.CREATE") <= 5


async def test_who_may_not_answer_flow_control(server: MemoryServer) -> None:
    """So much is read at once that the server does not ask for it."""
    bucket = await bound(server)
    server.refused = {"STREAM.MSG.GET", "DIRECT.GET"}
    await every(bucket)
    assert bucket.ways.note_refusal(
        PermissionsViolationError("refused", subject="$JS.FC.OBJ_b.x.y", operation="publish")
    )
    assert not bucket.ways.allowed(DELIVERIES)
    for _ in range(10):
        server.put_raw(SUBJECT, bytes(UNASKED // 2))
    server.verbs()
    assert len(await every(bucket)) == 12
    assert server.verbs().count("CONSUMER.CREATE") == 5


@pytest.mark.parametrize("version", ["2.9.10", "2.15.1"])
async def test_one_message_is_delivered_alone(version: str) -> None:
    """Consumers of 2.9 skip messages, so that there each is read by one of its own."""
    server = MemoryServer(version)
    bucket = await bound(server)
    server.refused = {"STREAM.MSG.GET", "DIRECT.GET"}
    message = await MessageRead(bucket, SUBJECT, after=0, ways=ANY_WAY).wait()
    assert message is not None
    assert message.data == b"first"
    read = [body["config"] for verb, body in server.asked if verb == "CONSUMER.CREATE"]
    assert [config["max_ack_pending"] for config in read] == [1]
    server.asked.clear()
    assert [each.data for each in await every(bucket)] == [b"first", b"second"]
    read = [body["config"] for verb, body in server.asked if verb == "CONSUMER.CREATE"]
    assert [config.get("max_ack_pending") for config in read] == (
        [1] * 3 if version == "2.9.10" else [None] * 2
    )
    await server.client.close()
