"""Where the meta of a name lies: of all subjects it may be filed under, the newest message counts."""

from __future__ import annotations

from typing import Any

import pytest

from natsproto.errors import NatsError
from objstore import ObjectMeta
from objstore.bucket.binding import bind
from objstore.bucket.bucket import Bucket
from objstore.bucket.locate import LOOKS
from objstore.format.codec import encode_meta
from objstore.format.models import ObjectMetaOptions
from objstore.format.naming import meta_subjects
from support.memory_server import NO_MESSAGE, MemoryServer, error

NAME = "größe??"
"""Its encodings differ: padding, and the two last letters of the alphabet."""


async def bound(server: MemoryServer) -> Bucket:
    await server.bucket()
    return await bind(server.js, "b")


def meta(bucket: Bucket, text: str) -> bytes:
    return encode_meta(bucket.template(NAME, (text, None, None, None), ObjectMetaOptions()))


def questions(server: MemoryServer) -> list[str]:
    return [body["last_by_subj"] for verb, body in server.asked if verb == "STREAM.MSG.GET"]


async def test_nothing_there(server: MemoryServer) -> None:
    bucket = await bound(server)
    assert len(meta_subjects("b", NAME)) > 1
    lookup = bucket.start_locating(NAME)
    assert await lookup.wait() == (meta_subjects("b", NAME)[0], None)
    assert lookup.others == {}
    assert questions(server) == lookup.subjects
    assert len(server.connection.mux) == 0


async def test_what_is_expected_is_looked_for_again(server: MemoryServer) -> None:
    """That there is none may answer somebody else's question."""
    bucket = await bound(server)
    seq = server.put_raw(meta_subjects("b", NAME)[1], meta(bucket, "here"))
    left = 2 * len(meta_subjects("b", NAME))

    def hook(verb: str, body: dict[str, Any]) -> Any:
        nonlocal left
        left -= 1
        return NO_MESSAGE if left >= 0 else None

    server.hook = hook
    subject, message = await bucket.start_locating(NAME).wait(expected=True)
    assert message is not None
    assert (subject, message.seq) == (meta_subjects("b", NAME)[1], seq)
    left = 100
    assert (await bucket.start_locating(NAME).wait(expected=True))[1] is None
    assert 100 - left == LOOKS * len(meta_subjects("b", NAME))
    assert len(server.connection.mux) == 0


@pytest.mark.parametrize("change", ["put", "update", "delete"])
async def test_a_condition_is_not_met_by_one_look(server: MemoryServer, change: str) -> None:
    store = await server.bucket()
    info = await store.put("a", b"x")
    wrong = 1

    def hook(verb: str, body: dict[str, Any]) -> Any:
        nonlocal wrong
        if verb == "STREAM.MSG.GET" and wrong:
            wrong -= 1
            return NO_MESSAGE
        return None

    server.stream().config["num_replicas"] = 3
    store = await server.js.object_store("b")
    server.hook = hook
    if change == "put":
        assert (await store.put("a", b"y", if_revision=info.revision)).revision > info.revision
    elif change == "update":
        await store.update_meta("a", ObjectMeta(name="a", description="d"), if_revision=info.revision)
    else:
        await store.delete("a", if_revision=info.revision)
    assert not wrong


async def test_a_name_with_one_encoding_costs_one_request(server: MemoryServer) -> None:
    bucket = await bound(server)
    server.verbs()
    await bucket.locate("abc")
    assert len(server.verbs()) == 1


@pytest.mark.parametrize("newest", [0, 1])
async def test_the_newest_counts_wherever_it_is_filed(server: MemoryServer, newest: int) -> None:
    bucket = await bound(server)
    subjects = meta_subjects("b", NAME)[:2]
    server.put_raw(subjects[1 - newest], meta(bucket, "older"))
    seq = server.put_raw(subjects[newest], meta(bucket, "newest"))
    lookup = bucket.start_locating(NAME)
    subject, message = await lookup.wait()
    assert message is not None
    assert (subject, message.seq, lookup.newest) == (subjects[newest], seq, subjects[newest])
    assert bucket.decode(message).description == "newest"
    assert {key: each.seq for key, each in lookup.others.items()} == {subjects[1 - newest]: seq - 1}


async def test_an_answer_that_is_lost_is_asked_for_again(server: MemoryServer) -> None:
    bucket = await bound(server)
    seq = server.put_raw(meta_subjects("b", NAME)[0], meta(bucket, "there"))
    failures = [error(503, 10008, "system temporarily unavailable")]

    def hook(verb: str, body: dict[str, Any]) -> Any:
        return failures.pop() if failures and verb == "STREAM.MSG.GET" else None

    server.hook = hook
    _, message = await bucket.locate(NAME)
    assert message is not None
    assert message.seq == seq
    assert len(server.connection.mux) == 0


async def test_one_that_is_given_up_leaves_no_request(server: MemoryServer) -> None:
    bucket = await bound(server)
    lookup = bucket.start_locating(NAME)
    assert len(server.connection.mux) == len(lookup.subjects)
    lookup.close()
    lookup.close()
    assert len(server.connection.mux) == 0
    server.hook = lambda verb, body: error(400, 10003, "bad request")
    with pytest.raises(NatsError):
        await bucket.locate(NAME)
    assert len(server.connection.mux) == 0
