"""One name is one object, wherever clients have filed it: the newest message counts, at the leader."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import natsproto
from natsproto.errors import NatsError, RequestTimeoutError
from natsproto.testing import DROP, FaultProxy
from natsproto.wire import Msg
from objstore import ObjectStore
from objstore.format.naming import meta_subjects
from support.objects import impatient, write_raw

NAMES = ["abc", "ab", "a", "??>", "??>>~~", "??>>~ü", "~"]


@pytest.mark.parametrize("name", NAMES)
async def test_nothing(store: ObjectStore, name: str) -> None:
    bucket = store._bucket
    assert await bucket.locate(name) == (bucket.meta_subject(name), None)


@pytest.mark.parametrize("name", NAMES)
async def test_the_newest(store: ObjectStore, name: str) -> None:
    """Whatever came last, under whatever subject; the others are told, too."""
    bucket = store._bucket
    subjects = meta_subjects(store.bucket, name)
    stored: dict[str, int] = {}
    for subject in [*subjects, *reversed(subjects), subjects[0]]:
        stored[subject] = await write_raw(store.js, subject, {"name": name, "about": subject})
        lookup = bucket.start_locating(name)
        where, message = await lookup.wait()
        assert message is not None
        assert (where, message.subject, message.seq) == (subject, subject, stored[subject])
        others = {key: other.seq for key, other in lookup.others.items()}
        assert others == {key: seq for key, seq in stored.items() if key != subject}
    await store.js.purge_stream(f"OBJ_{store.bucket}", subject=subjects[0])
    where, message = await bucket.locate(name)
    assert where == max(subjects[1:], key=lambda subject: stored[subject], default=subjects[0])
    assert (message is None) is (len(subjects) == 1)


@pytest.mark.parametrize("name", NAMES)
async def test_one_flight(store: ObjectStore, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All subjects are asked before the first answer comes; where all encodings agree there is one."""
    monkeypatch.setattr("objstore.bucket.bucket.DIRECT_TIMEOUT", 5.0)  # however busy the machine is
    sent = store.js.client.stats.out_msgs
    lookup = store._bucket.start_locating(name)
    await asyncio.sleep(0)
    assert store.js.client.stats.out_msgs - sent == len(meta_subjects(store.bucket, name))
    await lookup.wait()
    # 2.9 may not find what is there: it is asked for the number of messages, too.
    flights = 2 if store._bucket.old.leads else 1
    assert store.js.client.stats.out_msgs - sent == flights * len(meta_subjects(store.bucket, name))
    assert len(store.js.client.connection.mux) == 0


@pytest.mark.parametrize("name", NAMES)
async def test_readers_ask_once(store: ObjectStore, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One request, or one for each alphabet and padding: not a second one because nothing is found there."""
    monkeypatch.setattr("objstore.bucket.bucket.DIRECT_TIMEOUT", 5.0)
    await store.put(name, b"")
    sent = store.js.client.stats.out_msgs
    await store.get_info(name)
    subjects = meta_subjects(store.bucket, name)
    wanted = len(subjects) if set("-_") & set(subjects[0].rpartition(".")[2]) else 1
    assert store.js.client.stats.out_msgs - sent == wanted


async def test_given_up(store: ObjectStore) -> None:
    lookup = store._bucket.start_locating("??>>~ü")
    lookup.close()
    lookup.close()
    task = asyncio.ensure_future(store._bucket.locate("??>>~ü"))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(store.js.client.connection.mux) == 0
    assert (await store._bucket.locate("??>>~ü"))[1] is None


@pytest.mark.parametrize("lost", [0, 1, 3])
async def test_lost_answers(store: ObjectStore, lost: int) -> None:
    name = "??>>~ü"
    subjects = meta_subjects(store.bucket, name)
    await write_raw(store.js, subjects[-1], {"name": name})
    answers = 0

    def lose(event: Any, raw: bytes) -> Any:
        nonlocal answers
        if isinstance(event, Msg) and b"stream_msg_get_response" in event.payload:
            answers += 1
            return DROP if answers == lost + 1 else None
        return None

    async with (
        FaultProxy(store.js.client.connected_url) as proxy,
        natsproto.connect(proxy.url) as client,
        asyncio.timeout(30),
    ):
        other = await impatient(client, store.bucket, 0.2)
        proxy.to_client = lose
        where, message = await other._bucket.locate(name)
        assert message is not None
        assert where == subjects[-1]
        assert answers > len(subjects)


async def test_the_bucket_is_gone(store: ObjectStore) -> None:
    await store.js.delete_object_store(store.bucket)
    with pytest.raises(NatsError) as caught:
        await store._bucket.locate("??>>~ü")
    assert not isinstance(caught.value, RequestTimeoutError)
