"""Chunks whose fate is unknown: a fence behind them, and what is told when they may come late."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from natsproto.aio.client import Client
from natsproto.errors import (
    NatsError,
    NoRespondersError,
    PermissionsViolationError,
    RequestTimeoutError,
    WrongStreamError,
)
from objstore.bucket.binding import bind
from objstore.bucket.bucket import Bucket
from objstore.bucket.budget import Budget
from objstore.bucket.shown import NotShown
from objstore.write import doubt
from objstore.write.doubt import (
    FENCE,
    Unrepairable,
    budget_spent_error,
    check_shown,
    delete_own,
    fence,
    late_chunks_error,
)
from support.memory_server import SILENCE, MemoryServer, error

SUBJECT = "$O.b.C.n"


async def bound(server: MemoryServer, replicas: int = 1) -> Bucket:
    await server.bucket(replicas=replicas)
    return await bind(server.js, "b")


async def test_a_fence_is_stored_by_no_stream(server: MemoryServer) -> None:
    """Its refusal comes after the answers to what was sent before it."""
    bucket = await bound(server)
    seen: list[bytes] = []

    def refuse(subject: str, header: bytes, payload: bytes) -> Any:
        seen.append(header)
        error = {"code": 400, "err_code": 10071, "description": "wrong last sequence"}
        return {"error": error, "stream": stream, "seq": 0}

    stream = "OBJ_b"
    server.on_publish = refuse
    await fence(bucket, SUBJECT)
    assert seen == [FENCE]
    server.on_publish = lambda subject, header, payload: {"stream": stream, "seq": 5}
    bucket.js.timeout = 0.05
    with pytest.raises(RequestTimeoutError):  # somebody else's message was stored
        await fence(bucket, SUBJECT)
    server.on_publish = lambda subject, header, payload: error(400, 10166, "per-message TTL is disabled")
    with pytest.raises(RequestTimeoutError, match="cannot have caused"):
        await fence(bucket, SUBJECT)
    server.on_publish = refuse
    stream, bucket.js.timeout = "OBJ_own", 0.05  # whoever sees the fence can have that stream refuse it
    with pytest.raises(WrongStreamError):
        await fence(bucket, SUBJECT)


async def test_where_there_are_replicas_it_is_a_chunk_that_goes_again(server: MemoryServer) -> None:
    bucket = await bound(server, replicas=3)
    seq = server.put_raw(SUBJECT, b"a chunk")
    await fence(bucket, SUBJECT)
    assert list(server.stream().messages) == [seq]
    assert server.stream().seq == seq + 1
    server.on_publish = lambda subject, header, payload: {"stream": "OBJ_b", "seq": seq}
    await fence(bucket, SUBJECT)
    assert seq in server.stream().messages, "what an answer names is read before it is deleted"


async def test_no_answer(server: MemoryServer) -> None:
    bucket = await bound(server)
    bucket.js.timeout = 0.05
    server.on_publish = lambda subject, header, payload: SILENCE
    with pytest.raises(RequestTimeoutError):
        await fence(bucket, SUBJECT)


async def test_a_right_that_is_lacking(server: MemoryServer) -> None:
    bucket = await bound(server)
    seq = server.put_raw(SUBJECT, b"x")
    server.refused = {"STREAM.MSG.DELETE"}
    with pytest.raises(Unrepairable) as told:
        await delete_own(bucket, seq, lambda stored: True)
    assert isinstance(told.value.reason, PermissionsViolationError)
    await delete_own(bucket, seq, lambda stored: False)


async def test_words() -> None:
    late = late_chunks_error("a", NatsError("cut"))
    assert late.silent
    assert "may still store chunks of 'a': cut" in str(late)
    budget = Budget(20.0, asyncio.get_running_loop())
    plain = NoRespondersError("s")
    assert budget_spent_error(plain, budget) is plain
    timed_out = budget_spent_error(RequestTimeoutError("within 0.4 s"), budget)
    assert isinstance(timed_out, RequestTimeoutError)
    assert "within 20 s (retry_budget)" in str(timed_out)


class PreviousServer:
    """The lifeline of a session whose server answers again."""

    def __init__(self, client: Client) -> None:
        self._client = client

    @asynccontextmanager
    async def connect_again(self, client: Client) -> AsyncIterator[Client]:
        yield self._client

    def precedes_all_of(self, client: Client) -> bool:
        return True


@pytest.mark.parametrize("ended", [True, False])
async def test_the_previous_server_may_still_hold_the_session(
    server: MemoryServer, monkeypatch: pytest.MonkeyPatch, ended: bool
) -> None:
    """Others that do not reach it know nothing of its subscriptions: it has to be asked itself."""
    bucket = await bound(server)
    sent: list[str] = []
    server.on_publish = lambda subject, header, payload: sent.append(subject)

    async def has_ended(client: Client, line: object, patience: float) -> bool:
        return ended

    monkeypatch.setattr(doubt, "has_ended", has_ended)
    line: Any = PreviousServer(bucket.client)
    assert await doubt.fence_behind(bucket, SUBJECT, b"", line, 10.0) is ended
    assert sent == ([SUBJECT] if ended else [])


async def test_what_no_consumer_shows_stays(server: MemoryServer) -> None:
    """It may be another stream's: the put begins again, under another nuid."""
    bucket = await bound(server)
    own = server.stream().messages[server.put_raw(SUBJECT, b"x")]
    seq = server.put_raw("$O.b.C.other", b"x")
    other: Any = server.leader_message(own)
    other["message"]["seq"] = seq
    server.hook = lambda verb, body: other if verb == "STREAM.MSG.GET" else None
    with pytest.raises(Unrepairable) as told:
        await delete_own(bucket, seq, lambda stored: stored.subject == SUBJECT)
    assert isinstance(told.value.reason, NotShown)
    await check_shown(bucket, SUBJECT, [own.seq])
    with pytest.raises(Unrepairable):
        await check_shown(bucket, SUBJECT, [own.seq, seq])
    assert seq in server.stream().messages


async def test_who_may_create_no_consumer_begins_again(server: MemoryServer) -> None:
    """As who may delete nothing: a fence between the chunks would stay."""
    bucket = await bound(server, replicas=3)
    server.refused = {"CONSUMER.CREATE"}
    with pytest.raises(Unrepairable) as told:
        await fence(bucket, SUBJECT)
    assert isinstance(told.value.reason, PermissionsViolationError)
    assert "STREAM.MSG.DELETE" not in server.verbs()
