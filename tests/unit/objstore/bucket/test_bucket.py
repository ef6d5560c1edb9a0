"""One bound bucket: whose answers count, what is read from whom, what is refused before any byte."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from datetime import timedelta
from typing import Any

import pytest

from natsproto.errors import (
    APIError,
    NatsError,
    PermissionsViolationError,
    RemoteProtocolError,
    WrongStreamError,
)
from natsproto.jetstream.api.errors import MessageNotFoundError, StreamNotFoundError
from natsproto.jetstream.api.models import StoredMessage, StreamInfo
from natsproto.jetstream.in_flight import InFlight
from natsproto.wire import Msg
from objstore import (
    BadBucketError,
    BucketNotFoundError,
    BucketSealedError,
    ForeignBucketError,
    IntegrityError,
    ObjectMeta,
)
from objstore.bucket.binding import bind
from objstore.bucket.bucket import CONFIG_AGE, FIRST_DELIVERY, Bucket
from objstore.bucket.shown import NotShown
from objstore.errors import BadObjectMetaError
from objstore.format.models import ObjectLink, ObjectMetaOptions
from support.clock import Clock
from support.fake_session import turns
from support.memory_server import NO_MESSAGE, SILENCE, MemoryServer, error


async def bound(server: MemoryServer, name: str = "b", **config: Any) -> Bucket:
    if f"OBJ_{name}" not in server.streams:
        await server.bucket(name, **config)
    return await bind(server.js, name)


async def test_what_is_remembered_is_made_once(server: MemoryServer) -> None:
    bucket = await bound(server)

    def make(of: Bucket) -> list[Bucket]:
        return [of]

    assert bucket.remembered(make) is bucket.remembered(make)
    assert bucket.remembered(make) == [bucket]
    assert bucket.remembered(lambda of: 7) == 7


@pytest.mark.parametrize(
    ("version", "batches", "counts", "skips"),
    [
        ("2.9.10", False, False, True),
        ("2.10.0", False, False, False),
        ("2.11.4", True, False, False),
        ("2.12.0", True, True, False),
        ("2.15.1", True, True, False),
        ("nonsense", True, True, False),
    ],
)
async def test_what_servers_can(version: str, batches: bool, counts: bool, skips: bool) -> None:
    server = MemoryServer(version)
    bucket = await bound(server)
    assert (bucket.can_batch, bucket.batch_counts_are_right, bucket.consumers_skip) == (
        batches,
        counts,
        skips,
    )
    await server.client.close()


# -- whose answers count ---------------------------------------------------------------------------


async def test_acknowledgements_of_others(server: MemoryServer) -> None:
    bucket = await bound(server)
    own = b'{"stream":"OBJ_b","seq":5}'
    assert bucket.own_ack(Msg(b"i", b"1", payload=own)).seq == 5
    block = b"NATS/1.0\r\n\r\n"
    for stored in (Msg(b"i", b"1", header=block, payload=own), Msg(b"i", b"1", b"$JS.ACK", payload=own)):
        with pytest.raises(RemoteProtocolError, match="not an acknowledgement"):
            bucket.own_ack(stored)  # as a get, or a pull, delivers what anybody has stored
    with pytest.raises(WrongStreamError) as told:
        bucket.own_ack(Msg(b"i", b"1", payload=b'{"stream":"OTHER","seq":5}'))
    foreign = bucket.foreign_error(told.value, "name", "nuid")
    assert isinstance(foreign, ForeignBucketError)
    assert (foreign.stream, foreign.expected_stream, foreign.name) == ("OTHER", "OBJ_b", "name")
    assert "another stream listens" in str(foreign)
    assert "chunks nuid may be left" in str(foreign)
    domain = WrongStreamError("x", stream="OBJ_b", domain="hub", expected_stream="OBJ_b")
    assert "domain 'hub'" in str(bucket.foreign_error(domain))
    assert bucket.translate(told.value) is not told.value
    assert isinstance(bucket.translate(told.value), ForeignBucketError)


async def test_the_same_bucket_or_another_one(server: MemoryServer) -> None:
    bucket = await bound(server)
    await bucket.check_same()
    del server.streams["OBJ_b"]
    with pytest.raises(StreamNotFoundError):
        await bucket.check_same()
    server.ahead = timedelta(seconds=1)
    await server.bucket()
    with pytest.raises(BucketNotFoundError, match="created again meanwhile"):
        await bucket.check_same("a")


async def test_a_server_of_another_domain(server: MemoryServer) -> None:
    bucket = await bound(server)
    server.session.info["domain"] = "leaf"
    assert bucket.domain_changed
    info = server.stream().info({})
    server.hook = lambda verb, body: {**info, "domain": "leaf"} if verb == "STREAM.INFO" else None
    with pytest.raises(ForeignBucketError, match=r"opened in no domain.*domain 'leaf'"):
        await bucket.retrying(lambda: bucket.js.stream_info(bucket.stream))
    server.hook = None
    server.session.info["jetstream"] = False
    await bucket.check_same()  # the same one, seen from elsewhere
    assert not bucket.domain_changed


async def test_a_domain_that_is_asked_for_late(server: MemoryServer) -> None:
    """Until then no acknowledgement counts, whatever domain it names."""
    opened = await bound(server)
    info = server.stream().info({})
    bucket = Bucket(server.js, "b", StreamInfo.from_json(info), domain_known=False)
    acks = [b'{"stream":"OBJ_b","seq":1}', b'{"stream":"OBJ_b","domain":"hub","seq":1}']
    for ack in acks:
        with pytest.raises(WrongStreamError):
            bucket.own_ack(Msg(b"i", b"1", payload=ack))
    server.refused.add("STREAM.INFO")
    with pytest.raises(PermissionsViolationError):
        await bucket.retrying(lambda: bucket.js.stream_info(bucket.stream))
    server.refused.clear()
    server.session.info["domain"] = "hub"
    other = {**info, "domain": "hub", "created": "2020-01-01T00:00:00Z"}
    server.hook = lambda verb, body: other
    with pytest.raises(BucketNotFoundError, match="created again"):
        await bucket.check_same()
    with pytest.raises(WrongStreamError):
        bucket.own_ack(Msg(b"i", b"1", payload=acks[1]))
    server.hook = lambda verb, body: {**info, "domain": "hub"}
    server.lose()
    assert bucket.domain_changed
    server.connect().info["domain"] = "hub"
    await bucket.check_same()
    assert not bucket.domain_changed
    assert bucket.own_ack(Msg(b"i", b"1", payload=acks[1])).seq == 1
    with pytest.raises(WrongStreamError):
        bucket.own_ack(Msg(b"i", b"1", payload=acks[0]))
    server.hook = lambda verb, body: {**info, "domain": "leaf"}
    server.session.info["domain"] = "leaf"
    with pytest.raises(ForeignBucketError, match=r"opened in domain 'hub'"):
        await bucket.check_same()
    assert opened.acks.domain is None


async def test_no_configuration_waits_for_the_next_server(server: MemoryServer) -> None:
    """It may be one of another domain."""
    bucket = await bound(server)
    server.hook = lambda verb, body: {**server.stream().info({}), "domain": "leaf"}
    server.lose()
    server.loop.call_later(0.05, lambda: server.connect().info.update(domain="leaf"))
    with pytest.raises(ForeignBucketError, match="domain 'leaf'"):
        await bucket.retrying(lambda: bucket.update_stream({"name": bucket.stream}))
    assert [pub.subject for pub in server.pubs] == [b"$JS.API.STREAM.INFO.OBJ_b"]
    server.hook = None
    server.session.info["jetstream"] = False
    await bucket.retrying(lambda: bucket.update_stream({**server.stream().config, "description": "d"}))
    assert server.stream().config["description"] == "d"


async def test_only_what_is_ours_is_deleted(server: MemoryServer) -> None:
    bucket = await bound(server)
    seq = server.put_raw("$O.b.C.n", b"mine")
    assert not await bucket.delete_own(seq, lambda message: message.data == b"another's")
    assert not await bucket.delete_own(seq + 1, lambda message: True)
    assert seq in server.stream().messages
    assert await bucket.delete_own(seq, lambda message: message.data == b"mine")
    assert server.stream().messages == {}


async def test_a_deletion_whose_answer_was_lost(server: MemoryServer) -> None:
    """The error of the second try says nothing when the message has gone."""
    bucket = await bound(server)
    seq = server.put_raw("$O.b.C.n", b"mine")

    def gone(verb: str, body: dict[str, Any]) -> Any:
        if verb == "STREAM.MSG.DELETE":
            server.stream().remove([seq])
            return error(400, 10043, "message not found")
        return None

    server.hook = gone
    assert await bucket.delete_own(seq, lambda message: True)
    seq = server.put_raw("$O.b.C.n", b"mine")
    server.hook = lambda verb, body: error(400, 10057, "no") if verb == "STREAM.MSG.DELETE" else None
    with pytest.raises(APIError):
        await bucket.delete_own(seq, lambda message: True)


# -- configuration ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "config", [{"max_age": 1}, {"sealed": True}, {"mirror": {"name": "OBJ_x"}}, {"max_consumers": 5}]
)
async def test_it_is_learnt_again(server: MemoryServer, config: dict[str, Any]) -> None:
    bucket = await bound(server)
    bucket.check_writable()
    server.stream().config |= config
    await bucket.check_same()
    if "sealed" in config or "mirror" in config:
        with pytest.raises(BucketSealedError):
            bucket.check_writable()
    else:
        bucket.check_writable()
    assert bucket.replicated == ("mirror" in config)


@pytest.mark.parametrize("other", [{"domain": "leaf"}, {"config": {"name": "OBJ_c", "sealed": True}}])
async def test_nothing_is_learnt_from_another_stream(server: MemoryServer, other: dict[str, Any]) -> None:
    """Another domain may have a bucket of the same name, and somebody its answer sent to our inbox."""
    bucket = await bound(server)
    server.stream().config["sealed"] = True
    answer = (await server.js.stream_info("OBJ_b")).raw
    bucket.learn(StreamInfo.from_json({**answer, **other}))
    bucket.check_writable()
    bucket.learn(StreamInfo.from_json(answer))
    with pytest.raises(BucketSealedError):
        bucket.check_writable()


async def test_limits_of_chunks_and_messages(server: MemoryServer) -> None:
    bucket = await bound(server)
    assert bucket.max_message == server.client.max_payload
    assert not bucket.limits_messages
    bucket.check_chunks(10**9, "a")
    server.stream().config |= {"max_msgs_per_subject": 4, "max_msg_size": 1000}
    await bucket.check_same()
    assert bucket.max_message == 1000
    assert bucket.limits_messages
    bucket.check_chunks(4, "a")
    with pytest.raises(BadBucketError, match="keeps 4") as told:
        bucket.check_chunks(5, "a")
    assert (told.value.field, told.value.value) == ("max_msgs_per_subject", 4)


async def test_the_configuration_is_asked_for_beside_the_chunks(server: MemoryServer) -> None:
    bucket = await bound(server)
    server.verbs()
    assert bucket.request_config(10) is None, "it was learnt just now"
    large = bucket.request_config(10**9)
    assert large is not None
    server.stream().config["sealed"] = True
    await bucket.take_config(large)
    with pytest.raises(BucketSealedError):
        bucket.check_writable()
    Clock().forward(CONFIG_AGE)
    small = bucket.request_config(10)
    assert small is not None
    server.hook = lambda verb, body: error(500, 1, "nothing to learn")
    small.close()
    unknown = bucket.request_config(None)
    assert unknown is not None
    await bucket.take_config(unknown)  # what was known before has to do
    with pytest.raises(BucketSealedError):
        bucket.check_writable()


async def test_a_template_of_what_the_caller_says(server: MemoryServer) -> None:
    bucket = await bound(server)
    options = ObjectMetaOptions(None, 100)
    plain = bucket.template("a", (None, None, None, None), options)
    assert (plain.name, plain.bucket, plain.size, plain.description) == ("a", "b", 0, None)
    full = bucket.template("a", ("d", "f.txt", {"H": ["1"]}, {"k": "v"}), options)
    assert full.headers is not None
    assert (full.description, full.headers["H"], full.metadata["k"]) == ("d", "1", "v")
    linked = bucket.template("a", (None, None, None, None), ObjectMetaOptions(ObjectLink("c", "n")))
    assert linked.is_link
    with pytest.raises(BadObjectMetaError):
        bucket.template("a", (7, None, None, None), options)


# -- reading metas ---------------------------------------------------------------------------------


@pytest.mark.parametrize("direct", [True, False])
async def test_the_newest_meta(server: MemoryServer, direct: bool) -> None:
    store = await server.bucket(allow_direct=direct)
    bucket = await bound(server)
    assert await bucket.read_meta("a") is None
    assert await bucket.leader_meta("a") is None
    put = await store.put("a", b"1")
    server.verbs()
    for read in (bucket.read_meta, bucket.leader_meta):
        found = await read("a")
        assert found is not None
        assert (found.nuid, found.revision) == (put.nuid, put.revision)
    assert server.verbs()[0] == ("DIRECT.GET" if direct else "STREAM.MSG.GET")
    await store.delete("a")
    marker = await bucket.read_meta("a")
    assert marker is not None
    assert marker.deleted


async def test_direct_get_that_has_gone_is_the_leaders_to_tell(server: MemoryServer) -> None:
    store = await server.bucket()
    bucket = await bound(server)
    await store.put("a", b"1")
    server.stream().config["allow_direct"] = False
    assert await bucket.read_meta("a") is not None


@pytest.mark.parametrize("direct", [True, False])
async def test_all_messages_in_order(server: MemoryServer, direct: bool) -> None:
    await server.bucket(allow_direct=direct)
    bucket = await bound(server)
    sequences = [server.put_raw("$O.b.C.n", b"%d" % n) for n in range(20)]
    server.put_raw("$O.b.C.other", b"x")
    found = [message async for message in bucket.messages("$O.b.C.n", 3)]
    assert [message.seq for message in found] == sequences
    after = [message.seq async for message in bucket.messages("$O.b.C.n", after=sequences[4])]
    assert after == sequences[5:]
    server.verbs()
    counted: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(InFlight, "take", lambda self, size: counted.append(size) or True)
        patch.setattr(InFlight, "release", lambda self, *_: None)
        leader = [message.seq async for message in bucket.messages("$O.b.C.n", leader=True)]
    assert leader == sequences
    assert set(counted) == {FIRST_DELIVERY}, "others decide how large they are"
    assert set(server.verbs()) == {"STREAM.MSG.GET"}
    assert [message async for message in bucket.messages("$O.b.C.none")] == []


async def test_that_a_mirror_has_nothing_is_no_end(
    server: MemoryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any mirror may answer a direct get: the leader decides."""

    async def nothing(*_: Any, **__: Any) -> AsyncGenerator[StoredMessage, None]:
        raise MessageNotFoundError(404, 10037, "no message found")
        yield

    bucket = await bound(server)
    sequences = [server.put_raw("$O.b.C.n", b"%d" % n) for n in range(3)]
    monkeypatch.setattr(bucket.js, "get_batch", nothing)
    assert [message.seq async for message in bucket.messages("$O.b.C.n")] == sequences


async def test_a_mirror_that_answers_is_no_proof(server: MemoryServer) -> None:
    """From then on the bucket counts as one with replicas."""
    bucket = await bound(server)
    own = b"NATS/1.0\r\nNats-Stream: OBJ_b\r\nNats-Subject: s\r\nNats-Sequence: 1\r\n\r\n"
    assert not bucket.is_copy(None)
    assert not bucket.is_copy(own)
    forged = b"NATS/1.0\r\nNats-Stream: X Y\r\nNats-Subject: s\r\n\r\n"
    assert bucket.is_copy(forged)
    assert not bucket.replicated, "what cannot be told changes nothing"
    assert bucket.is_copy(own.replace(b"OBJ_b", b"MIRROR"))
    assert (bucket.replicated, bucket.direct_meta) == (True, False)
    assert len(bucket.proofs) == 1


# -- removing --------------------------------------------------------------------------------------


async def test_purging_the_chunks_of_one_nuid(server: MemoryServer) -> None:
    bucket = await bound(server)
    first = server.put_raw("$O.b.C.n", b"1")
    second = server.put_raw("$O.b.C.n", b"2")
    server.put_raw("$O.b.C.other", b"3")
    assert await bucket.stored_chunks("n") == 2
    await bucket.purge_chunks("n", before=second)
    assert first not in server.stream().messages
    assert server.chunks() == {"n": 1, "other": 1}
    await bucket.purge_chunks("n")
    assert server.chunks() == {"other": 1}
    for nuid in ("", "*", ">", "a.b", "n *"):
        with pytest.raises(IntegrityError):
            await bucket.purge_chunks(nuid)
    assert server.chunks() == {"other": 1}


async def test_what_must_be_done_is_done(server: MemoryServer) -> None:
    """A cancelled caller is told so at once, or after a while, and does not stop it."""
    bucket = await bound(server)
    go, done = asyncio.Event(), []

    async def work() -> int:
        await go.wait()
        done.append(1)
        return 7

    for wait in (0.0, 5.0):
        go.clear()
        task = asyncio.ensure_future(bucket.run_to_end(work(), wait_if_cancelled=wait))
        await turns()
        task.cancel()
        await turns()
        assert task.done() == (not wait)
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        await turns()
    assert done == [1, 1]
    assert await bucket.run_to_end(work()) == 7


async def test_errors_in_the_object_stores_words(server: MemoryServer) -> None:
    bucket = await bound(server)
    server.hook = lambda verb, body: error(404, 10059, "stream not found")
    with pytest.raises(BucketNotFoundError):
        await bucket.retrying(lambda: bucket.js.stream_info(bucket.stream))
    plain = NatsError("as it is")
    assert bucket.translate(plain) is plain
    server.hook = lambda verb, body: SILENCE
    bucket.js.timeout = 0.05
    with pytest.raises(NatsError):
        await bucket.retrying(lambda: bucket.js.stream_info(bucket.stream), 0.2)


async def test_names_are_checked_with_the_length_of_their_line(server: MemoryServer) -> None:
    bucket = await bound(server)
    assert bucket.check_name("größe/ b") == "größe/ b"
    for name in ("", "x" * 5000):
        with pytest.raises(ValueError, match="name"):
            bucket.check_name(name)
    assert ObjectMeta("a").name == bucket.check_name("a")


async def test_the_number_of_another_streams_message(server: MemoryServer) -> None:
    """The leader's answer names no stream: one with the bucket among its sources has numbers of its own."""
    bucket = await bound(server)
    own = server.stream().messages[server.put_raw("$O.b.C.n", b"mine")]
    seq = server.put_raw("$O.b.C.other", b"another's")
    other: Any = server.leader_message(own)
    other["message"]["seq"] = seq
    server.hook = lambda verb, body: other if verb == "STREAM.MSG.GET" else None
    with pytest.raises(NotShown):
        await bucket.delete_own(seq, lambda message: message.subject == "$O.b.C.n")
    answers = [other, NO_MESSAGE]
    server.hook = lambda verb, body: answers.pop(0) if verb == "STREAM.MSG.GET" else None
    assert not await bucket.delete_own(seq, lambda message: message.subject == "$O.b.C.n"), "gone meanwhile"
    assert seq in server.stream().messages
