"""All metas in stream order: to an end, and counted, so that no answer to another request ends them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from natsproto.errors import PermissionsViolationError
from natsproto.jetstream.api.errors import MaxConsumersError
from objstore import ObjectChangedError
from objstore.bucket.binding import bind
from objstore.bucket.bucket import Bucket
from objstore.bucket.ways import CONSUMER
from objstore.format.codec import encode_meta
from objstore.format.naming import meta_subject
from objstore.listing import in_order
from objstore.listing.in_order import CATCH_UPS, metas_so_far
from support.memory_server import ROLL_UP, MemoryServer, error

NONE = error(404, 10037, "no message found")


async def read(bucket: Bucket, **options: Any) -> list[int]:
    return [each.seq async for each in metas_so_far(bucket, **options)]


@pytest.fixture(params=[None, 3], ids=["at once", "in stretches"], autouse=True)
def stretch(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param is not None:
        monkeypatch.setattr(in_order, "STRETCH", request.param)


async def filled(server: MemoryServer, **config: Any) -> tuple[Bucket, list[int]]:
    store = await server.bucket(**config)
    seqs = [(await store.put(f"n{number:02}", b"")).revision for number in range(8)]
    return await bind(server.js, "b"), seqs


async def test_an_end_while_others_write(server: MemoryServer) -> None:
    bucket, seqs = await filled(server)
    assert await read(bucket) == seqs
    server.stream().config["allow_direct"] = False  # the leader is asked for one after the other
    bucket = await bind(server.js, "b")
    found = await bucket.leader_message(meta_subject("b", "n00"))
    assert found is not None
    payload = encode_meta(bucket.decode(found))
    with pytest.raises(ObjectChangedError, match="change faster than they can be read"):
        async for _ in metas_so_far(bucket):
            server.put_raw(meta_subject("b", "n00"), payload, ROLL_UP)
    assert server.stream().seq < 3 * CATCH_UPS + 30


def skips(server: MemoryServer, seqs: list[int]) -> Callable[[str, dict[str, Any]], Any]:
    """The newest meta as the answer to who comes after the third: somebody asked for that."""

    def hook(verb: str, body: dict[str, Any]) -> Any:
        if verb == "STREAM.MSG.GET" and seqs[2] < body.get("seq", 0) <= seqs[-1]:
            return server.leader_message(server.stream().find({**body, "seq": seqs[-1]})[0])
        return None

    return hook


def ends(server: MemoryServer, seqs: list[int]) -> Callable[[str, dict[str, Any]], Any]:
    """That there is none behind the third."""

    def hook(verb: str, body: dict[str, Any]) -> Any:
        return NONE if verb == "STREAM.MSG.GET" and body.get("seq", 0) > seqs[2] else None

    return hook


@pytest.mark.parametrize("answers", [skips, ends])
async def test_an_answer_to_another_request(server: MemoryServer, answers: Any) -> None:
    """It leaves metas out: a removal would take their chunks for orphans."""
    bucket, seqs = await filled(server, replicas=3)
    server.hook = answers(server, seqs)
    for leader in (True, False):
        with pytest.raises(ObjectChangedError):
            await read(bucket, leader=leader)
    server.hook = None
    assert await read(bucket, leader=True) == seqs


async def test_a_meta_that_is_stored_between_two_counts(server: MemoryServer) -> None:
    """It is counted once too often: they are counted again."""
    bucket, seqs = await filled(server, replicas=3)
    counts = 0

    def hook(verb: str, body: dict[str, Any]) -> None:
        nonlocal counts
        if verb == "CONSUMER.CREATE" and body["config"]["opt_start_seq"] == 1:
            counts += 1
            if counts == 1:
                server.put_raw(meta_subject("b", "later"), b"{}")

    server.hook = hook
    assert (await read(bucket, leader=True))[:8] == seqs
    assert counts == 2


async def test_without_the_right_to_create_consumers(server: MemoryServer) -> None:
    """A list is read as well as it can be; what removes something is told what it needs."""
    bucket, seqs = await filled(server, replicas=3)
    server.refused.add("CONSUMER.CREATE")
    assert await read(bucket) == seqs
    with pytest.raises(PermissionsViolationError, match=r"CONSUMER\.CREATE"):
        await read(bucket, leader=True)


@pytest.mark.parametrize("leader", [True, False])
async def test_an_error_of_another_consumer_decides_nothing(server: MemoryServer, leader: bool) -> None:
    """Whoever has a consumer too many of their own can have that said to us, as often as they like."""
    bucket, seqs = await filled(server, replicas=3)
    too_many = error(400, 10026, "maximum consumers limit reached")
    leaves_out = skips(server, seqs)

    def hook(verb: str, body: dict[str, Any]) -> Any:
        return too_many if verb == "CONSUMER.CREATE" else leaves_out(verb, body)

    server.hook = hook
    for _ in range(3):
        with pytest.raises(MaxConsumersError) as told:
            await read(bucket, leader=leader)
        bucket.ways.note_refusal(told.value)  # as a list does, which reads name by name then
    assert not bucket.ways.allowed(CONSUMER)


async def test_what_is_replaced_beyond_the_end(server: MemoryServer) -> None:
    """Its chunks may be old: that there is nothing behind the others is not believed at once."""
    bucket, seqs = await filled(server, replicas=3)
    found = await bucket.leader_message(meta_subject("b", "n07"))
    assert found is not None
    payload = encode_meta(bucket.decode(found))

    def hook(verb: str, body: dict[str, Any]) -> Any:
        if verb == "STREAM.MSG.GET" and body.get("seq", 0) > seqs[6]:
            server.hook = None
            server.put_raw(meta_subject("b", "n07"), payload, ROLL_UP)
            return NONE
        return None

    server.hook = hook
    assert (await read(bucket, leader=True)) == [*seqs[:7], seqs[7] + 1]
