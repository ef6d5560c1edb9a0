"""Counting messages by the word of a server that still leads the stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest

from natsproto.errors import APIError, RemoteProtocolError, RequestTimeoutError
from natsproto.jetstream.api.errors import MaxConsumersError, TemporarilyUnavailableError
from objstore.bucket import counts as _counts
from objstore.bucket.binding import bind
from objstore.bucket.counts import count_by_batch, count_messages, counts_from, leads
from support.fake_session import turns
from support.memory_server import SILENCE, MemoryServer, error

T = TypeVar("T")


def replica(seconds: float, **more: Any) -> dict[str, Any]:
    return {"name": "n", "current": True, "active": int(seconds * 1e9), **more}


def answer(count: Any, *seconds: float) -> dict[str, Any]:
    info: dict[str, Any] = {"state": {"subjects": {"s": count}}}
    if seconds:
        info["cluster"] = {"leader": "a", "replicas": [replica(each) for each in seconds]}
    return info


@pytest.mark.parametrize(
    ("replicas", "expected"),
    [
        ([replica(0.1), replica(1.4)], True),
        ([replica(0.1), replica(9)], True),
        ([replica(8), replica(9)], False),
        ([replica(0.1, offline=True), replica(9)], False),
        ([replica(0.1), replica(0.1), replica(9), replica(9)], True),
        ([replica(0.1), replica(9), replica(9), replica(9)], False),
        ([replica(-1), {"active": "x"}, None, 5], False),
        ([], True),
    ],
)
def test_a_leader_has_heard_of_a_majority(replicas: list[Any], expected: bool) -> None:
    assert leads({"cluster": {"leader": "a", "replicas": replicas}}) is expected


@pytest.mark.parametrize("info", [{}, {"cluster": None}, {"cluster": {"leader": "a"}}])
def test_one_server_leads_itself(info: dict[str, Any]) -> None:
    assert leads(info)


class Asked:
    """A bucket whose stream gives these answers, the last one again and again."""

    def __init__(self, *answers: dict[str, Any], budget: float = 20.0) -> None:
        self.answers = list(answers)
        self.asked = 0
        self.name, self.stream = "b", "OBJ_b"
        self.retry_budget = budget
        self.js = SimpleNamespace(request=self.request)
        self.ways = SimpleNamespace(allowed=lambda way: False)

    async def request(self, suffix: str, document: dict[str, Any]) -> dict[str, Any]:
        assert (suffix, document["subjects_filter"]) == ("STREAM.INFO.OBJ_b", "s")
        self.asked += 1
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    async def retrying(self, call: Callable[[], Awaitable[T]]) -> T:
        return await call()


async def count(bucket: Asked, wanted: int = 1) -> int:
    return await count_messages(bucket, "s", wanted)  # type: ignore[arg-type]


async def test_a_leader_that_was_cut_off_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_counts, "PAUSE", 0.001)
    bucket = Asked(answer(0, 8, 8), answer(0, 9, 9), answer(1, 0.1, 0.1))
    assert await count(bucket) == 1
    assert bucket.asked == 3


async def test_enough_is_believed_from_anybody() -> None:
    bucket = Asked(answer(3, 8, 8))
    assert await count(bucket, 3) == 3
    assert bucket.asked == 1


async def test_who_leads_is_believed_when_there_are_none() -> None:
    bucket = Asked({"state": {}, "cluster": {"replicas": [replica(0.1), replica(9)]}})
    assert await count(bucket, 3) == 0
    assert bucket.asked == 1


async def test_a_majority_that_stays_away_is_not_waited_for_longer_than_it_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_counts, "PAUSE", 0.001)
    monkeypatch.setattr(_counts, "STEPS_DOWN", 0.05)
    assert await count(Asked(answer(0, 8, 8))) == 0
    monkeypatch.setattr(_counts, "STEPS_DOWN", 60.0)
    assert await count(Asked(answer(0, 8, 8), budget=0.05)) == 0


async def test_a_count_that_is_none() -> None:
    with pytest.raises(RemoteProtocolError, match="not a number"):
        await count(Asked(answer("many")))


@pytest.mark.parametrize("refused", [set(), {"CONSUMER.CREATE"}])
async def test_that_there_are_none_is_proven(server: MemoryServer, refused: set[str]) -> None:
    """Whoever may ask for the stream's info can have another count sent to us: a number has its name."""
    store = await server.bucket()
    info = await store.put("a", b"x" * 300, chunk_size=100)
    bucket = await bind(server.js, "b")
    server.refused = refused
    left = 2

    def hook(verb: str, body: dict[str, Any]) -> Any:
        nonlocal left
        if body.get("subjects_filter") == f"$O.b.C.{info.nuid}" and left:
            left -= 1
            return server.stream().info({"subjects_filter": "$O.b.C.none"})
        return None

    server.hook = hook
    assert await bucket.stored_chunks(info.nuid, 3) == 3
    assert not left
    left = 1
    assert await bucket.stored_chunks("none") == 0
    assert left == 1
    assert server.stream().consumers == {}


async def test_a_count_that_is_withheld(server: MemoryServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_counts, "PAUSE", 0.001)
    store = await server.bucket()
    info = await store.put("a", b"x")
    bucket = await bind(server.js, "b")
    bucket.retry_budget = 0.5
    nothing = server.stream().info({"subjects_filter": "none"})
    server.hook = lambda verb, body: nothing if "subjects_filter" in body else None
    with pytest.raises(RequestTimeoutError, match="does not count"):
        await bucket.stored_chunks(info.nuid)


async def test_two_counts_at_once_leave_nothing(server: MemoryServer) -> None:
    """When one is refused, or the caller gives up, no task waits for the other."""
    store = await server.bucket(replicas=3)
    for name in ("a", "b", "c"):
        await store.put(name, b"")
    bucket = await bind(server.js, "b")
    assert await counts_from(bucket, "$O.b.M.>", 2, 1, 9) == [2, 3, 0]
    assert server.stream().consumers == {}
    others = asyncio.all_tasks()
    bucket.retry_budget = 0.5

    def hook(verb: str, body: dict[str, Any]) -> Any:
        if verb != "CONSUMER.CREATE":
            return None
        return SILENCE if body["config"]["opt_start_seq"] == 1 else error(400, 10026, "maximum consumers")

    server.hook = hook
    with pytest.raises(MaxConsumersError):
        await counts_from(bucket, "$O.b.M.>", 1, 2)
    assert asyncio.all_tasks() == others
    given_up = asyncio.create_task(counts_from(bucket, "$O.b.M.>", 1, 1))
    await turns()
    given_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await given_up
    assert asyncio.all_tasks() == others
    assert len(server.connection.mux) == 0


async def test_what_a_batch_counts(server: MemoryServer) -> None:
    await server.bucket()
    seqs = [server.put_raw("$O.b.C.N", b"x") for _ in range(4)]
    bucket = await bind(server.js, "b")
    for index, seq in enumerate(seqs):
        assert await count_by_batch(bucket, "$O.b.C.N", seq) == 4 - index
    assert await count_by_batch(bucket, "$O.b.C.N", 1) == 4
    assert await count_by_batch(bucket, "$O.b.C.N", seqs[-1] + 1) == 0
    assert server.stream().consumers == {}


@pytest.mark.parametrize("wrong", ["silence", "busy", "refused", "copy"])
async def test_a_batch_that_does_not_count(server: MemoryServer, wrong: str) -> None:
    await server.bucket()
    seq = server.put_raw("$O.b.C.N", b"x")
    bucket = await bind(server.js, "b")

    def get_batch(*_: object, **__: object) -> Any:
        return failing()

    async def failing() -> AsyncGenerator[SimpleNamespace, None]:
        if wrong == "copy":
            header = b"NATS/1.0\r\nNats-Stream: COPY\r\nNats-Subject: s\r\nNats-Sequence: 1\r\n\r\n"
            yield SimpleNamespace(num_pending=3, header=header)
        elif wrong == "busy":
            raise TemporarilyUnavailableError(503, 10008, "not now")
        elif wrong == "refused":
            raise APIError(408, 0, "Bad Request")
        else:
            raise RequestTimeoutError("no answer")

    bucket.js.get_batch = get_batch  # type: ignore[method-assign]
    if wrong == "refused":
        with pytest.raises(APIError):
            await count_by_batch(bucket, "$O.b.C.N", seq)
    else:
        assert await count_by_batch(bucket, "$O.b.C.N", seq) is None
    assert bucket.replicated == (wrong == "copy"), "a mirror may have other messages"


@pytest.mark.parametrize(
    ("version", "config"),
    [("2.11.4", {}), ("2.10.4", {}), ("2.15.1", {"allow_direct": False}), ("2.15.1", {"replicas": 3})],
)
async def test_no_batch_counts(version: str, config: dict[str, Any]) -> None:
    """2.11 counts one too many."""
    server = MemoryServer(version)
    await server.bucket(**config)
    seq = server.put_raw("$O.b.C.N", b"x")
    bucket = await bind(server.js, "b")
    server.verbs()
    assert await count_by_batch(bucket, "$O.b.C.N", seq) is None
    assert server.verbs() == []
    await server.client.close()
