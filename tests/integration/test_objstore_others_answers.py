"""Genuine answers of a real server to another question, as peers who may ask it can have them sent to us."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from natsproto.aio.client import Client, PendingRequest
from natsproto.jetstream.context import JetStreamContext
from objstore import IntegrityError, ObjectMeta, ObjectStore
from objstore.bucket.ways import CONSUMER, Ways
from support.objects import CHUNK, chunk_subject, pattern

Question = dict[str, Any]
DATA = pattern(12 * CHUNK + 5)


@pytest.fixture
def singly(monkeypatch: pytest.MonkeyPatch) -> None:
    """The user may create no consumer, and the bucket has no direct get."""
    monkeypatch.setattr(Ways, "allowed", lambda ways, way: way != CONSUMER)


@pytest.fixture
async def leader_only(js: JetStreamContext, bucket_name: str) -> ObjectStore:
    return await js.create_object_store(bucket=bucket_name, allow_direct=False)


@pytest.fixture
def misled(
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[Callable[[Question], Question | None], int], list[int]]:
    """Have two of three questions to the leader replaced by others, as often as is said."""
    start = Client.start_request

    def mislead(other: Callable[[Question], Question | None], times: int) -> list[int]:
        count = [0, 0]

        def start_request(
            self: Client, subject: bytes, payload: Any, *args: Any, **options: Any
        ) -> PendingRequest:
            if b".STREAM.MSG.GET." in subject and count[1] < times:
                question = other(json.loads(bytes(payload)))
                count[0] += question is not None
                if question is not None and count[0] % 3:
                    count[1] += 1
                    payload = json.dumps(question).encode()
            return start(self, subject, payload, *args, **options)

        monkeypatch.setattr(Client, "start_request", start_request)
        return count

    return mislead


@pytest.mark.parametrize("later", [1, 3, 1000])
async def test_a_later_chunk_or_none(leader_only: ObjectStore, singly: None, misled: Any, later: int) -> None:
    store = leader_only
    await store.put("before", b"x")
    info = await store.put("a", DATA, chunk_size=CHUNK)
    subject = chunk_subject(store, info.nuid)
    count = misled(
        lambda asked: (
            {**asked, "seq": asked["seq"] + later} if asked.get("next_by_subj") == subject else None
        ),
        30,
    )
    assert await store.get("a") == DATA
    assert await store.get_range("a", CHUNK - 3, 5 * CHUNK) == DATA[CHUNK - 3 : 5 * CHUNK]
    async with store.open_reader("a") as reader:
        await reader.seek(7 * CHUNK)
        assert await reader.read(CHUNK) == DATA[7 * CHUNK : 8 * CHUNK]
    assert count[1]


@pytest.mark.parametrize("data", [DATA, b"small"], ids=["many", "one"])
async def test_a_chunk_that_is_gone_is_still_noticed(
    leader_only: ObjectStore, singly: None, data: bytes
) -> None:
    info = await leader_only.put("a", data, chunk_size=CHUNK)
    await leader_only.js.delete_message(leader_only._bucket.stream, info.revision - 1)
    with pytest.raises(IntegrityError, match="chunks are missing"):
        await leader_only.get("a")


@pytest.mark.parametrize("change", ["put", "update", "delete"])
async def test_a_condition(leader_only: ObjectStore, misled: Any, change: str) -> None:
    """That the name is gone does not end a change of it by one answer."""
    store = leader_only
    info = await store.put("a", b"x")
    store._bucket.replicated, store._bucket.direct_meta = True, False
    count = misled(lambda asked: {"last_by_subj": "$O.x.M.none"} if "last_by_subj" in asked else None, 1)
    if change == "put":
        await store.put("a", b"y", if_revision=info.revision)
        assert await store.get("a") == b"y"
    elif change == "update":
        await store.update_meta("a", ObjectMeta(name="a", description="d"), if_revision=info.revision)
    else:
        await store.delete("a", if_revision=info.revision)
        assert not await store.exists("a")
    assert count[1] == 1


@pytest.mark.parametrize("consumers", [True, False])
async def test_that_no_chunks_are_there(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch, consumers: bool
) -> None:
    info = await store.put("a", DATA, chunk_size=CHUNK)
    bucket, request, left = store._bucket, JetStreamContext.request, 2

    async def misleading(self: JetStreamContext, suffix: str, document: Any = None, **options: Any) -> Any:
        nonlocal left
        if (document or {}).get("subjects_filter") == chunk_subject(store, info.nuid) and left:
            left -= 1
            document = {**document, "subjects_filter": "none"}
        return await request(self, suffix, document, **options)

    monkeypatch.setattr(JetStreamContext, "request", misleading)
    if not consumers:
        monkeypatch.setattr(Ways, "allowed", lambda ways, way: way != CONSUMER)
    assert await bucket.stored_chunks(info.nuid, info.chunks) == info.chunks
    assert not left
    assert await bucket.stored_chunks("none") == 0
