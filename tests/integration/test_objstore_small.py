"""Objects of one chunk: how many messages they cost, and what happens when the short way is disturbed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import natsproto
from natsproto.aio.client import Client
from natsproto.jetstream.context import JetStreamContext
from natsproto.server import LocalServer
from natsproto.testing import CUT, DROP, DUPLICATE, FaultProxy, corrupt
from natsproto.wire import Msg
from objstore import (
    BucketNotFoundError,
    IntegrityError,
    ObjectAlreadyExists,
    ObjectNotFoundError,
    ObjectStore,
)
from objstore.write.put import GUESS_AFTER, NewNames
from support.objects import CHUNK, assert_exact, impatient, pattern, stream

LIMIT = 30.0


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """No request more because a machine is busy: what is known is not old, and an answer has time to come."""
    monkeypatch.setattr("objstore.bucket.bucket.CONFIG_AGE", 3600.0)
    monkeypatch.setattr("objstore.bucket.bucket.DIRECT_TIMEOUT", 5.0)


async def sent(nc: Client, work: Any) -> int:
    """Messages that ``work`` publishes."""
    before = nc.stats.out_msgs
    await work
    return nc.stats.out_msgs - before


@pytest.mark.parametrize("size", [1, 1024, CHUNK])
async def test_messages(nc: Client, store: ObjectStore, size: int) -> None:
    """A get is two requests; a put reads the meta, stores a chunk and a meta.

    Before it purges what it replaces it looks whether it has: an acknowledgement alone proves nothing.
    """
    data = pattern(size)
    assert await sent(nc, store.put("a", data)) == 3
    assert await sent(nc, store.get("a")) == 2
    assert await store.get("a") == data
    assert type(await store.get("a")) is bytes
    assert await sent(nc, store.put("a", data)) == 5
    assert await store.js.consumer_names(stream(store)) == []
    await assert_exact(store)


@pytest.fixture
async def guessing(store: ObjectStore) -> ObjectStore:
    """A bucket whose last puts all had new names: the next one is expected to have one."""
    for number in range(GUESS_AFTER):
        await store.put(f"new {number}", b"1")
    return store


async def test_messages_of_puts_to_new_names(nc: Client, guessing: ObjectStore) -> None:
    """Nobody asks what they replace; where one replaces something it is asked for again, for a while."""
    store = guessing
    assert [await sent(nc, store.put(f"n{number}", b"1")) for number in range(3)] == [2, 2, 2]
    assert await sent(nc, store.put("large", pattern(CHUNK + 1))) == 4  # large ones ask meanwhile
    assert await sent(nc, store.put("n0", b"2")) == 6  # chunk, refused meta, question, meta, proof, purge
    assert await sent(nc, store.put("n1", b"2")) == 5
    for number in range(GUESS_AFTER):
        assert await sent(nc, store.put(f"later {number}", b"3")) == 3
    assert await sent(nc, store.put("last", b"3")) == 2
    old = (
        store._bucket.old.leads
    )  # it may not find what is there: it is asked for the number of messages, too
    assert await sent(nc, store.put("condition", b"3", if_revision=0)) == 3 + old
    # It might be filed elsewhere.
    assert await sent(nc, store.put("conditional", b"3", if_revision=0)) == 4 + 2 * old
    assert [await store.get(name) for name in ("n0", "n1", "n2", "last")] == [b"2", b"2", b"1", b"3"]
    await assert_exact(store)


async def test_wrong_guesses(guessing: ObjectStore, js: JetStreamContext) -> None:
    """Over a deleted one, a link, an unreadable meta: what a put that asked would have done."""
    store = guessing
    bucket = store._bucket
    await store.delete("new 0")
    await store.add_link("link", await store.get_info("new 1"))
    await js.publish(bucket.meta_subject("broken"), b"{no json", headers={"Nats-Rollup": "sub"})
    for name in ("new 0", "new 1", "link", "broken"):
        bucket.remembered(NewNames).in_a_row = GUESS_AFTER
        info = await store.put(name, b"after")
        assert bucket.remembered(NewNames).in_a_row == 0
        assert info.revision == (await store.get_info(name)).revision
        assert await store.get(name) == b"after"
    bucket.remembered(NewNames).in_a_row = GUESS_AFTER
    with pytest.raises(ObjectAlreadyExists):
        await store.create("new 1", b"again")
    await assert_exact(store)


@pytest.mark.parametrize("size", [0, 1, CHUNK])
async def test_a_guess_in_a_bucket_that_is_gone(
    guessing: ObjectStore, js: JetStreamContext, size: int
) -> None:
    """Found out as soon as with a question."""
    await js.delete_object_store(guessing.bucket)
    async with asyncio.timeout(15):
        with pytest.raises(BucketNotFoundError):
            await guessing.put("a", bytes(size))
    await js.create_object_store(bucket=guessing.bucket)


async def test_a_race_for_a_new_name(guessing: ObjectStore) -> None:
    """All guess, one is right, the last one wins, and only its chunk stays."""
    infos = await asyncio.gather(*(guessing.put("race", b"%d" % number) for number in range(8)))
    last = max(infos, key=lambda info: info.revision)
    assert (await guessing.get_info("race")).nuid == last.nuid
    assert await guessing.get("race") == b"%d" % infos.index(last)
    await assert_exact(guessing)


async def test_progress_is_told_once(store: ObjectStore) -> None:
    await store.put("a", pattern(1024))
    calls: list[tuple[int, int | None]] = []
    await store.get("a", progress=lambda done, total: calls.append((done, total)))
    assert calls == [(1024, 1024)]


async def test_a_stray_of_the_same_size(js: JetStreamContext, store: ObjectStore) -> None:
    """The digest tells; without it, where there are batches, the number of chunks."""
    data = pattern(1024)
    info = await store.put("a", data)
    assert await store.get("a", verify=False) == data
    await js.publish(f"$O.{store.bucket}.C.{info.nuid}", pattern(1024, seed=1))
    with pytest.raises(IntegrityError):
        await store.get("a")
    if store._bucket.batches:
        with pytest.raises(IntegrityError):
            await store.get("a", verify=False)


async def test_many_at_once(store: ObjectStore) -> None:
    """Each gets its own bytes, whatever was sent together."""
    sizes = [1 + 37 * n for n in range(64)]
    infos = await asyncio.gather(*(store.put(f"n{n}", pattern(size, n)) for n, size in enumerate(sizes)))
    assert len({info.revision for info in infos}) == len(sizes)
    found = await asyncio.gather(*(store.get(f"n{n}") for n in range(len(sizes))))
    assert found == [pattern(size, n) for n, size in enumerate(sizes)]
    for n, info in enumerate(infos):
        assert await store.get_info(f"n{n}") == info.__class__(
            **{name: getattr(info, name) for name in info.__dataclass_fields__}
            | {"mtime": (await store.get_info(f"n{n}")).mtime}
        )
    await assert_exact(store)


async def test_many_puts_of_one_name(store: ObjectStore) -> None:
    infos = await asyncio.gather(*(store.put("a", pattern(500, n)) for n in range(8)))
    last = max(range(8), key=lambda n: infos[n].revision)
    assert await store.get("a") == pattern(500, last)
    await assert_exact(store)


@pytest.mark.parametrize("nth", [1, 2])
@pytest.mark.parametrize("action", [DROP, DUPLICATE, CUT, "corrupt"], ids=str)
async def test_disturbed_answers(server: LocalServer, store: ObjectStore, action: Any, nth: int) -> None:
    """The answer to the n-th request is lost, doubled, damaged or cut off: asked again, or noticed."""
    data = pattern(1024)
    await store.put("a", data)
    async with FaultProxy(server.url) as proxy:
        async with natsproto.connect(proxy.url, reconnect_wait=0.02) as client:
            faulty = await impatient(client, store.bucket, 0.5)
            seen = 0

            def hook(event: Any, raw: bytes) -> Any:
                nonlocal seen
                if isinstance(event, Msg):
                    seen += 1
                    if seen == nth:
                        return corrupt() if action == "corrupt" else action
                return None

            proxy.to_client = hook
            async with asyncio.timeout(LIMIT):
                try:
                    assert await faulty.get("a") == data
                except (IntegrityError, ObjectNotFoundError):
                    assert action == "corrupt"
                    assert nth == 1  # the meta; a damaged chunk is read once more
            assert seen >= nth
            proxy.to_client = None
            assert await faulty.get("a") == data
        assert proxy.errors == []


async def test_removed_between_the_two_requests(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaced meanwhile: the new bytes. Deleted meanwhile: said so."""
    from objstore.read import get as _get

    original = _get.only_chunk
    await store.put("a", b"old")

    async def replaced(*args: Any) -> Any:
        monkeypatch.setattr(_get, "only_chunk", original)
        await store.put("a", b"new")
        return await original(*args)

    monkeypatch.setattr(_get, "only_chunk", replaced)
    assert await store.get("a") == b"new"

    async def removed(*args: Any) -> Any:
        await store.delete("a")
        return await original(*args)

    monkeypatch.setattr(_get, "only_chunk", removed)
    with pytest.raises(ObjectNotFoundError):
        await store.get("a")
