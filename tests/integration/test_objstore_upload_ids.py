"""The ids of an upload's chunks: a fellow client that takes ids first keeps no chunk from being stored."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

import natsproto
from natsproto.headers import header_value
from natsproto.server import LocalServer
from objstore import ObjectInfo, ObjectStore
from support.objects import chunk_counts, chunk_subject, meta_subject, stream
from support.uploads import CHUNK, DATA, Sleeper, begun, intact, sent, without_secret


class Stop(Exception):
    """What interrupts an upload here."""


async def cut_off(chunks: int) -> AsyncIterator[bytes]:
    yield DATA[: chunks * CHUNK]
    raise Stop


async def interrupted(store: ObjectStore, token: str, chunks: int = 5) -> str:
    """Store the first chunks, as a sender that was interrupted; return their nuid."""
    upload = await store.begin_upload("a", token=token)
    with pytest.raises(Stop):
        await upload.send(cut_off(chunks))
    return upload.nuid


async def ids(store: ObjectStore, nuid: str) -> list[str]:
    """What everybody who may read chunks can see."""
    messages = store._bucket.messages(chunk_subject(store, nuid))
    return [(header_value(each.header or b"", b"Nats-Msg-Id") or b"").decode() async for each in messages]


async def take(server: LocalServer, store: ObjectStore, nuid: str) -> None:
    """Use the ids that one may expect of the chunks, for messages to another name of the bucket."""
    known = await ids(store, nuid)
    first = await store.js.get_message(stream(store), next_by_subject=chunk_subject(store, nuid))
    series = {f"{nuid}.{first.seq}", *(each.rpartition(".")[0] or each for each in known)}
    async with natsproto.connect(server.url) as other:
        js = other.jetstream()
        for guess in known + [
            f"{each}.{index}" for each in series for index in range(2 * len(DATA) // CHUNK)
        ]:
            await js.publish(meta_subject(store, "own"), b"{}", headers={"Nats-Rollup": "sub"}, msg_id=guess)


@pytest.mark.parametrize("source", ["again", "once"])
@pytest.mark.parametrize("chunks", [1, 5])
async def test_ids_that_somebody_else_has_used(
    server: LocalServer, store: ObjectStore, source: str, chunks: int
) -> None:
    token = await begun(store)
    nuid = await interrupted(store, token, chunks)
    await take(server, store, nuid)
    before = store.js.client.stats.out_bytes
    data: Any = DATA if source == "again" else iter([DATA])
    info = await (await store.begin_upload("a", token=token)).send(data)
    assert info.nuid == nuid, "the upload was not continued"
    assert store.js.client.stats.out_bytes - before < len(DATA) - (chunks - 1) * CHUNK
    assert await store.get("a") == DATA
    assert await chunk_counts(store) == {nuid: len(DATA) // CHUNK}


async def test_new_chunks_that_no_token_names(server: LocalServer, store: ObjectStore) -> None:
    """What was stored under the token was deleted: the ids of those sent now cannot be guessed either."""
    token = await begun(store)
    await sent(store, token)
    await store.delete("a")
    sleeper = Sleeper()
    upload = await store.begin_upload("a", token=token)
    task = asyncio.create_task(upload.send(sleeper.source()))
    await sleeper.asleep.wait()
    async with asyncio.timeout(30):
        while sum((found := await chunk_counts(store)).values()) < sleeper.at // CHUNK:
            pass
    (nuid,) = found
    assert nuid != upload.nuid
    await take(server, store, nuid)
    sleeper.awake.set()
    assert (await task).nuid == nuid
    assert await store.get("a") == DATA


async def test_an_id_tells_nothing_of_the_next_one(store: ObjectStore) -> None:
    token = await begun(store)
    info = await sent(store, token)
    found = await ids(store, info.nuid)
    assert len(set(found)) == len(DATA) // CHUNK
    assert {len(each) for each in found} == {32}
    assert not [each for each in found if info.nuid in each or "." in each]


# -- tokens of earlier versions, which have no secret -----------------------------------------------------


@pytest.mark.parametrize("chunks", [1, 5, len(DATA) // CHUNK])
@pytest.mark.parametrize("source", ["again", "once"])
async def test_a_token_without_a_secret(store: ObjectStore, chunks: int, source: str) -> None:
    token = without_secret(await begun(store))
    nuid = await interrupted(store, token, chunks)
    upload = await store.begin_upload("a", token=token)
    assert (upload.nuid, upload.token) == (nuid, token)
    info = await upload.send(DATA if source == "again" else iter([DATA]))
    assert info.nuid == nuid
    first = await store.js.get_message(stream(store), next_by_subject=chunk_subject(store, nuid))
    assert (await ids(store, nuid))[1:] == [f"{nuid}.{first.seq}.{n}" for n in range(1, len(DATA) // CHUNK)]
    await intact(store, info)


async def test_two_senders_of_a_token_without_a_secret(store: ObjectStore) -> None:
    token, sleeper = without_secret(await begun(store)), Sleeper()
    task: asyncio.Task[ObjectInfo] = await sleeper.begin(store, token)
    info = await sent(store, token)
    sleeper.awake.set()
    assert (await task).revision == info.revision
    await intact(store, info)
