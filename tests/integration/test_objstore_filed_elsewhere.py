"""Names that other clients filed without padding, or in the standard alphabet, are the same objects."""

from __future__ import annotations

from datetime import timedelta

import pytest

from natsproto.subjects import secret_name
from objstore import (
    ObjectAlreadyExists,
    ObjectDeletedError,
    ObjectLink,
    ObjectMeta,
    ObjectMetaOptions,
    ObjectNotFoundError,
    ObjectStore,
)
from objstore.format.codec import encode_meta
from objstore.format.naming import meta_subjects
from objstore.maintenance import purge_deleted as _purge_deleted
from support.objects import chunk_counts

NAMES = ["a?>.bin", "taken.txt2", "ÿÿ~~", "x/y?>"]


async def file_elsewhere(store: ObjectStore, name: str, data: bytes, which: int = 0) -> str:
    """Store an object under the name's other subject; returns its nuid."""
    info = await store.put("template", data)
    nuid = secret_name()
    await store.js.publish(f"$O.{store.bucket}.C.{nuid}", data)
    from dataclasses import replace

    subject = meta_subjects(store.bucket, name)[1:][which]
    payload = encode_meta(replace(info, name=name, nuid=nuid))
    await store.js.publish(subject, payload, headers={"Nats-Rollup": "sub"})
    await store.delete("template")
    return nuid


async def listed(store: ObjectStore, name: str) -> list[int]:
    """How often each way of listing tells of the name."""
    return [
        [info.name for info in await store.list()].count(name),
        [info.name async for info in store.iter()].count(name),
        (await store.names()).count(name),
        (await store.names(live=True)).count(name),
        await store.count(name, live=True),
        (await store.list_dirs(name)).objects.__len__() if "/" not in name else 1,
    ]


@pytest.mark.parametrize("name", NAMES)
async def test_one_object(store: ObjectStore, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_purge_deleted, "settled_after", lambda stream: timedelta(0))
    old = await file_elsewhere(store, name, b"old")
    assert await store.get(name) == b"old"
    with pytest.raises(ObjectAlreadyExists):
        await store.create(name, b"new")
    await store.put("other", b"other")
    with pytest.raises(ObjectAlreadyExists):
        await store.rename("other", name)
    assert await listed(store, name) == [1] * 6
    await store.put(name, b"new")
    assert await store.get(name) == b"new"
    assert await listed(store, name) == [1] * 6
    assert (await store.status()).count == 2
    await store.delete(name)
    assert await listed(store, name) == [0, 0, 1, 0, 0, 0 if "/" not in name else 1]
    await store.purge_deleted()
    assert not await store.exists(name)
    assert old not in await chunk_counts(store)


@pytest.mark.parametrize("name", NAMES)
async def test_changed_where_it_lies(store: ObjectStore, name: str) -> None:
    await file_elsewhere(store, name, b"old")
    info = await store.update_meta(name, ObjectMeta(name, "described"))
    assert (await store.get_info(name)).description == "described"
    await store.put(name, b"new", if_revision=info.revision)
    assert await store.get(name) == b"new"
    assert await listed(store, name) == [1] * 6
    await store.rename(name, "plain")
    assert not await store.exists(name)
    assert await store.get("plain") == b"new"
    with pytest.raises(ObjectNotFoundError):
        await store.delete(name)
    await store.create(name, b"again")
    assert await store.get(name) == b"again"
    assert (await store.verify(deep=True)).ok


@pytest.mark.parametrize("name", NAMES)
async def test_a_link_never_replaces_it(store: ObjectStore, name: str) -> None:
    old = await file_elsewhere(store, name, b"old")
    target = await store.put("other", b"other")
    for call in (
        lambda: store.add_link(name, target),
        lambda: store.update_meta(
            name, ObjectMeta(name, options=ObjectMetaOptions(ObjectLink(store.bucket, "other")))
        ),
        lambda: store.add_bucket_link(name, store.bucket),
    ):
        with pytest.raises(ObjectAlreadyExists):
            await call()
    assert await store.get(name) == b"old"
    assert old in await chunk_counts(store)
    await store.delete(name)
    await store.add_link(name, target)
    assert await store.get(name) == b"other"
    assert (await listed(store, name))[:4] == [1] * 4
    assert (await store.verify(deep=True)).ok


async def rewritten(store: ObjectStore, name: str) -> int:
    """An object of this library, and what another client has stored under its own subject since."""
    await store.put(name, b"ours")
    await file_elsewhere(store, name, b"newer")
    (info,) = await store.list()
    return info.revision


@pytest.mark.parametrize("name", NAMES)
async def test_replaced_at_the_revision_that_list_tells(store: ObjectStore, name: str) -> None:
    """What is acknowledged is what is read, whichever subject the reader asks first."""
    revision = await rewritten(store, name)
    await store.put(name, b"acknowledged", if_revision=revision)
    assert await store.get(name) == b"acknowledged"
    await store.gc(older_than=timedelta(0))  # for the older one: see discard()
    assert len(await chunk_counts(store)) == 1
    assert await listed(store, name) == [1] * 6


@pytest.mark.parametrize("name", NAMES)
async def test_changed_while_an_older_one_is_here(store: ObjectStore, name: str) -> None:
    await rewritten(store, name)
    await store.update_meta(name, ObjectMeta(name, description="new"))
    info = await store.get_info(name)
    assert (info.description, info.size) == ("new", 5)
    assert await store.get(name) == b"newer"
    await store.rename(name, "plain")
    assert not await store.exists(name)
    assert await store.get("plain") == b"newer"
    await store.gc(older_than=timedelta(0))  # for the older one: see discard()
    assert len(await chunk_counts(store)) == 1


@pytest.mark.parametrize("readable", [True, False])
@pytest.mark.parametrize("name", NAMES)
async def test_deleted_while_an_older_one_is_here(store: ObjectStore, name: str, readable: bool) -> None:
    await rewritten(store, name)
    if not readable:
        await store.js.publish(meta_subjects(store.bucket, name)[1:][0], b"{")
    await store.delete(name)
    assert not await store.exists(name)
    assert name not in [info.name for info in await store.list()]
    with pytest.raises((ObjectNotFoundError, ObjectDeletedError)):
        await store.delete(name)


@pytest.mark.parametrize("name", ["a?>.bin", "ÿÿ~~", "??>>"])
async def test_the_newest_in_either_alphabet_is_read(store: ObjectStore, name: str) -> None:
    """nats.java writes the other one, today."""
    await rewritten(store, name)
    assert await store.get(name) == b"newer"
    await store.put(name, b"ours again")
    assert await store.get(name) == b"ours again"
