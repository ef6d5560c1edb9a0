"""Following links: how far, and where a read may be led by whoever may write to a bucket."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from natsproto.errors import ConnectionClosedError, NatsError, RemoteProtocolError, RequestTimeoutError
from objstore import (
    BadBucketError,
    BucketNotFoundError,
    LinkError,
    ObjectDeletedError,
    ObjectLink,
    ObjectNotFoundError,
    ObjectStore,
)
from objstore.bucket.binding import bind
from objstore.bucket.bucket import Bucket
from objstore.format.codec import encode_meta
from objstore.format.models import ObjectMetaOptions
from objstore.format.naming import meta_subject
from objstore.read import links as _links
from objstore.read.links import MAX_LINKS, OtherBuckets, check_follow_links, resolve
from support.memory_server import ROLL_UP, MemoryServer
from support.waits import eventually


@pytest.fixture
async def store(server: MemoryServer) -> ObjectStore:
    store = await server.bucket()
    await store.put("target", b"content")
    return store


@pytest.fixture
async def bucket(server: MemoryServer, store: ObjectStore) -> Bucket:
    return await bind(server.js, "b")


def link(server: MemoryServer, bucket: Bucket, name: str, to: ObjectLink) -> None:
    """As other clients do, which look at no target."""
    info = bucket.template(name, (None, None, None, None), ObjectMetaOptions(to))
    server.put_raw(meta_subject("b", name), encode_meta(info), ROLL_UP)


async def test_an_object_is_its_own_target(bucket: Bucket) -> None:
    where, info = await resolve(bucket, "target")
    assert where is bucket
    assert info.name == "target"
    with pytest.raises(ObjectNotFoundError):
        await resolve(bucket, "nowhere")


async def test_links_in_a_row(server: MemoryServer, bucket: Bucket) -> None:
    for number in range(MAX_LINKS + 2):
        link(server, bucket, f"l{number}", ObjectLink("b", f"l{number - 1}" if number else "target"))
    assert (await resolve(bucket, f"l{MAX_LINKS - 1}"))[1].name == "target"
    with pytest.raises(LinkError, match=f"more than {MAX_LINKS} links"):
        await resolve(bucket, f"l{MAX_LINKS + 1}")


async def test_circles(server: MemoryServer, bucket: Bucket) -> None:
    link(server, bucket, "self", ObjectLink("b", "self"))
    link(server, bucket, "one", ObjectLink("b", "other"))
    link(server, bucket, "other", ObjectLink("b", "one"))
    for name in ("self", "one"):
        with pytest.raises(LinkError, match="leads in a circle") as told:
            await resolve(bucket, name)
        assert told.value.name == name


async def test_another_bucket(server: MemoryServer, bucket: Bucket) -> None:
    other = await server.bucket("other")
    await other.put("far", b"away")
    link(server, bucket, "l", ObjectLink("other", "far"))
    where, info = await resolve(bucket, "l")
    assert (where.name, info.name) == ("other", "far")
    with pytest.raises(LinkError, match="follow_links='same-bucket' does not allow that") as told:
        await resolve(bucket, "l", "same-bucket")
    assert (told.value.target_bucket, told.value.target_name) == ("other", "far")


async def test_a_list_looks_another_bucket_up_once(server: MemoryServer, bucket: Bucket) -> None:
    """Its info can have a megabyte; links may lead there and back, and any number of them."""
    other = await server.bucket("other")
    await other.put("far", b"away")
    link(server, bucket, "l0", ObjectLink("other", "far"))
    for number in range(1, 4):
        info = bucket.template(
            f"m{number}", (None,) * 4, ObjectMetaOptions(ObjectLink("b", f"l{number - 1}"))
        )
        server.put_raw(meta_subject("other", info.name), encode_meta(info), ROLL_UP, bucket="other")
        link(server, bucket, f"l{number}", ObjectLink("other", info.name))
    server.verbs()
    assert (await resolve(bucket, "l3"))[1].name == "far"
    assert server.verbs().count("STREAM.INFO") == 1
    others = OtherBuckets()
    bucket.remembered(_links._Kept).buckets.clear()
    for _ in range(5):
        where, found = await resolve(bucket, "l3", others=others)
        assert (where.name, found.name) == ("other", "far")
        bucket.remembered(_links._Kept).buckets.clear()
    assert server.verbs().count("STREAM.INFO") == 1


async def test_single_reads_look_it_up_once_in_a_while(
    server: MemoryServer, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever may write links decides how many lead to a bucket whose info has a megabyte."""
    other = await server.bucket("other")
    await other.put("far", b"away")
    for number in range(20):
        link(server, store.bound_bucket, f"l{number}", ObjectLink("other", "far"))
    server.verbs()
    for number in range(20):
        assert await store.get(f"l{number}") == b"away"
    assert server.verbs().count("STREAM.INFO") == 1
    await server.js.delete_object_store("other")
    with pytest.raises(LinkError, match="does not exist"):
        await store.get("l0")
    other = await server.bucket("other")
    await other.put("far", b"anew")
    assert await store.get("l0") == b"anew"
    await server.js.create_stream({"name": "OBJ_none", "subjects": ["none.>"]})
    for number in range(3):
        link(server, store.bound_bucket, f"n{number}", ObjectLink("none", "x"))
    server.verbs()
    for number in range(3):
        with pytest.raises(LinkError, match="does not exist"):
            await store.get(f"n{number}")
    assert server.verbs().count("STREAM.INFO") == 1
    monkeypatch.setattr(_links, "KEPT", 0.0)
    store.bound_bucket.remembered(_links._Kept).buckets.clear()
    server.verbs()
    for _ in range(3):
        await store.get("l0")
    assert server.verbs().count("STREAM.INFO") == 3


async def test_at_the_same_time_it_is_looked_up_once(
    server: MemoryServer, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long that takes, and whoever of those who wait gives up."""
    monkeypatch.setattr(_links, "KEPT", 0.0)
    bucket = store.bound_bucket
    other = await server.bucket("other")
    await other.put("far", b"away")
    await server.js.create_stream({"name": "OBJ_none", "subjects": ["none.>"]})
    looked: list[str] = []
    look_up, answered = _links.bind_other, asyncio.Event()

    async def slow(bucket: Bucket, name: str) -> Bucket:
        looked.append(name)
        await answered.wait()
        return await look_up(bucket, name)

    monkeypatch.setattr(_links, "bind_other", slow)
    for name, wrong in (("other", None), ("none", BadBucketError), ("nowhere", BucketNotFoundError)):
        link(server, bucket, name, ObjectLink(name, "far"))
        first = asyncio.create_task(resolve(bucket, name))
        tasks = [asyncio.create_task(resolve(bucket, name)) for _ in range(9)]
        await eventually(lambda: looked)
        first.cancel()
        tasks[0].cancel()
        await eventually(lambda: len(looked) == 2)
        answered.set()
        found = await asyncio.gather(first, *tasks, return_exceptions=True)
        assert [isinstance(each, asyncio.CancelledError) for each in found] == [True] * 2 + [False] * 8
        if wrong is None:
            assert {each[0].name for each in found[2:] if isinstance(each, tuple)} == {"other"}
        else:
            assert all(isinstance(each, LinkError | BadBucketError) for each in found[2:])
            assert all(isinstance(each.__cause__, wrong) for each in found[2:] if isinstance(each, LinkError))
        assert looked == [name] * 2, "once more, since the first one was cancelled"
        looked.clear()
        answered.clear()
    assert bucket.remembered(_links._Kept).looking._running == {}


async def test_each_call_has_its_own_budget(server: MemoryServer, store: ObjectStore) -> None:
    """What is kept of another bucket is kept of all calls of a handle."""
    await (await server.bucket("other")).put("far", b"away")
    bucket = store.bound_bucket
    link(server, bucket, "l", ObjectLink("other", "far"))
    hasty = store.with_options(retry_budget=1.0).bound_bucket
    server.verbs()
    for asked in (bucket, hasty, bucket):
        assert (await resolve(asked, "l"))[0].retry_budget == asked.retry_budget
    assert server.verbs().count("STREAM.INFO") == 1
    assert hasty.retry_budget == 1.0 != bucket.retry_budget


async def test_an_answer_that_is_too_large_is_remembered(
    server: MemoryServer, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has come before it is refused."""
    asked = 0

    async def refused(bucket: Bucket, name: str) -> Bucket:
        nonlocal asked
        asked += 1
        raise RemoteProtocolError("an API answer of 5000000 bytes is refused")

    monkeypatch.setattr(_links, "bind_other", refused)
    bucket = store.bound_bucket
    link(server, bucket, "l", ObjectLink("other", "far"))
    for _ in range(3):
        with pytest.raises(RemoteProtocolError):
            await resolve(bucket, "l")
    assert asked == 1
    monkeypatch.setattr(_links, "KEPT", 0.0)
    bucket.remembered(_links._Kept).wrong.clear()
    others = OtherBuckets()
    for _ in range(3):
        with pytest.raises(LinkError, match="cannot be read"):
            await resolve(bucket, "l", others=others)
    assert asked == 2


async def test_many_buckets_do_not_crowd_out_what_is_none(
    server: MemoryServer, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_links, "MOST_KEPT", 3)
    bucket = store.bound_bucket
    await server.js.create_stream({"name": "OBJ_none", "subjects": ["none.>"]})
    for number in range(5):
        await (await server.bucket(f"other{number}")).put("far", b"away")
        link(server, bucket, f"l{number}", ObjectLink(f"other{number}", "far"))
    link(server, bucket, "none", ObjectLink("none", "far"))
    server.verbs()
    for number in range(5):
        assert (await resolve(bucket, f"l{number}"))[1].name == "far"
        with pytest.raises(LinkError, match="is no bucket"):
            await resolve(bucket, "none")
    assert server.verbs().count("STREAM.INFO") == 6
    assert [*bucket.remembered(_links._Kept).buckets] == ["other2", "other3", "other4"]


async def test_a_list_keeps_what_is_no_bucket(
    server: MemoryServer, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_links, "KEPT", 0.0)
    await server.js.create_stream({"name": "OBJ_none", "subjects": ["none.>"]})
    for number in range(3):
        link(server, bucket, f"n{number}", ObjectLink("none", "x"))
    others = OtherBuckets()
    server.verbs()
    for number in range(3):
        with pytest.raises(LinkError, match="is no bucket"):
            await resolve(bucket, f"n{number}", others=others)
    assert server.verbs().count("STREAM.INFO") == 1


async def test_a_list_waits_once_for_a_bucket_without_servers(
    server: MemoryServer, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []

    async def away(asked: Bucket, name: str) -> Bucket:
        looks.append(name)
        raise error

    monkeypatch.setattr(_links, "bind_other", away)
    for name in ("l", "m"):
        link(server, bucket, name, ObjectLink("other", "far"))
    error: NatsError = RequestTimeoutError("no answer")
    with pytest.raises(RequestTimeoutError):
        await resolve(bucket, "l")
    looks.clear()
    others = OtherBuckets()
    for name in ("l", "m", "l"):
        with pytest.raises(LinkError, match=r"leads to .*far.*, which cannot be read: no answer") as told:
            await resolve(bucket, name, others=others)
        assert told.value.name == name
    assert looks == ["other"]
    error = ConnectionClosedError("closed")  # the client is: that is no link's fault
    with pytest.raises(ConnectionClosedError):
        await resolve(bucket, "l", others=OtherBuckets())
    link(server, bucket, "near", ObjectLink("b", "target"))

    async def silent(*args: object, **options: object) -> None:
        raise RequestTimeoutError("no answer")

    monkeypatch.setattr(_links, "live_info", silent)
    with pytest.raises(RequestTimeoutError):  # nor is what the listed bucket does
        await resolve(bucket, "near", others=OtherBuckets())


async def test_none_is_followed(server: MemoryServer, bucket: Bucket) -> None:
    link(server, bucket, "l", ObjectLink("b", "target"))
    assert (await resolve(bucket, "l", "same-bucket"))[1].name == "target"
    with pytest.raises(LinkError, match="follow_links='none'"):
        await resolve(bucket, "l", "none")
    assert (await resolve(bucket, "target", "none"))[1].name == "target"


async def test_where_nothing_is(server: MemoryServer, store: ObjectStore, bucket: Bucket) -> None:
    await store.put("gone", b"")
    await store.delete("gone")
    for number, to in enumerate(
        (ObjectLink("b", "gone"), ObjectLink("b", "nowhere"), ObjectLink("nowhere", "x"), ObjectLink("b"))
    ):
        link(server, bucket, f"l{number}", to)
        with pytest.raises(LinkError) as told:
            await resolve(bucket, f"l{number}")
        assert not isinstance(told.value, ObjectDeletedError)
        assert (told.value.bucket, told.value.name) == ("b", f"l{number}")


def test_what_can_be_asked_for() -> None:
    for follow in ("all", "same-bucket", "none"):
        assert check_follow_links(follow) == follow  # type: ignore[arg-type]
    wrong: list[Any] = ["", "ALL", None, True]
    for follow in wrong:
        with pytest.raises(ValueError, match="follow_links is one of 'all', 'same-bucket', 'none'"):
            check_follow_links(follow)
