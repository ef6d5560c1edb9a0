"""Rules of writing, one by one, against a made-up stream in virtual time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from random import Random
from typing import Any
from unittest.mock import patch

import pytest

from natsproto.errors import StaleConnectionError
from natsproto.jetstream.api.models import StoredMessage
from objstore import ObjectMeta, OutcomeUnknownError
from objstore.change import delete as _delete
from objstore.change.rename import _Both
from objstore.commit import discard as _discard
from objstore.commit.commit import Conflict
from objstore.commit.renames import commit_meta
from objstore.format.marks import RENAMED_FROM, RENAMING
from objstore.write.doubt import Unrepairable
from objstore.write.put import Put
from support.simulation import Link, Stream, VirtualLoop

META = "$O.b.M.YQ=="
CHUNKS = "$O.b.C."
PAUSES = {(0.001, 0.01, 0.5): 0.5, (0.01, 0.5, 3.0): 0.01}


class Steady(Random):
    """Nothing happens by chance: the stream applies late, the network is quick, what was cut off arrives."""

    def choice(self, seq: Sequence[Any]) -> Any:
        return PAUSES.get(tuple(seq), seq[0])

    def random(self) -> float:
        return 0.9


class World:
    """A stream, and clients of it."""

    def __init__(self, loop: VirtualLoop, *, replicated: bool, atomic: bool) -> None:
        self.loop = loop
        self.stream = Stream(loop, Steady(), replicated=replicated, revision_first=False)
        self.atomic = atomic
        self.links: list[Link] = []
        self.link = self.connect()

    def connect(self) -> Link:
        self.links.append(Link(self.stream, Steady(), atomic=self.atomic))
        return self.links[-1]

    async def close(self) -> None:
        for link in self.links:
            link.die()
            await link.server.client.close()


def run(
    history: Callable[[World], Coroutine[Any, Any, None]], *, replicated: bool = False, atomic: bool = False
) -> None:
    loop = VirtualLoop()

    async def whole() -> None:
        world = World(loop, replicated=replicated, atomic=atomic)
        try:
            await history(world)
        finally:
            await world.close()
        assert world.stream.wrong == []

    try:
        loop.run_until_complete(whole())
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()


@contextmanager
def publishing(stream: Stream, hook: Callable[..., None]) -> Iterator[None]:
    """Have ``hook(publish, subject, header, payload, answer)`` see what arrives."""
    plain = stream.publish
    stream.publish = lambda *args: hook(plain, *args)  # type: ignore[method-assign]
    try:
        yield
    finally:
        stream.publish = plain  # type: ignore[method-assign]


# -- commits ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["put", "update", "delete"])
def test_all_copies_are_alike(verb: str) -> None:
    """Whatever becomes of the answers: the stream sees one message, several times."""

    async def history(world: World) -> None:
        store = world.link.store
        await store.put("a", b"old")
        copies: list[tuple[bytes, bytes]] = []

        def hook(publish: Any, subject: str, header: bytes, payload: bytes, answer: Any) -> None:
            if subject != META:
                publish(subject, header, payload, answer)
                return
            copies.append((header, payload))
            if len(copies) == 3:
                publish(subject, header, payload, answer)

        with publishing(world.stream, hook):
            if verb == "put":
                await store.put("a", b"new")
            elif verb == "update":
                await store.update_meta("a", ObjectMeta("a", "d"))
            else:
                await store.delete("a")
        assert len(copies) == 3
        assert len(set(copies)) == 1

    run(history)


@pytest.mark.parametrize("verb", ["put", "update", "delete", "rename"])
def test_an_outcome_that_is_not_known_is_said_to_be_unknown(verb: str) -> None:
    async def history(world: World) -> None:
        store = world.link.store
        await store.put("a", b"old")
        calls: dict[str, Callable[[], Coroutine[Any, Any, object]]] = {
            "put": lambda: store.put("a", b"new"),
            "update": lambda: store.update_meta("a", ObjectMeta("a", "d")),
            "delete": lambda: store.delete("a"),
            "rename": lambda: store.update_meta("a", ObjectMeta("b")),
        }

        def hook(publish: Any, subject: str, header: bytes, payload: bytes, answer: Any) -> None:
            if not subject.startswith("$O.b.M."):
                publish(subject, header, payload, answer)

        with publishing(world.stream, hook), pytest.raises(OutcomeUnknownError):
            await calls[verb]()
        assert await store.get_info("a")

    run(history)


def test_a_full_bucket_is_freed_up_to_what_was_read() -> None:
    """What another writer has stored since is not removed, and its answer says that nothing was."""

    async def history(world: World) -> None:
        store = world.link.store
        read = await store.put("a", b"old")
        newer = await store.put("a", b"newer")
        assert await _discard.purge_metas(world.link.bucket, META, read.revision) == 0
        assert (await store.get_info("a")).revision == newer.revision
        assert await _discard.purge_metas(world.link.bucket, META, newer.revision) == 1

    run(history)


# -- renames ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("atomic", [True, False])
def test_the_marker_of_an_old_name_names_nothing(atomic: bool) -> None:
    """Else whoever takes the marker's word removes the chunks of the new name."""

    async def history(world: World) -> None:
        store = world.link.store
        put = await store.put("a", b"old")
        await store.update_meta("a", ObjectMeta("b"))
        (marker,) = [meta for meta in map(world.link.bucket.decode, stored_metas(world)) if meta.name == "a"]
        assert marker.deleted
        assert marker.nuid != put.nuid
        assert not marker.metadata.keys() & {RENAMING, RENAMED_FROM}

    run(history, atomic=atomic)


def stored_metas(world: World) -> Iterator[Any]:
    for each in world.stream.of("$O.b.M.>"):
        yield StoredMessage(each.subject, each.seq, each.payload, each.header, datetime.now(UTC))


def test_a_batch_whose_other_name_was_changed() -> None:
    """It is a lost race: nothing of it is stored, and it is not tried again."""

    async def history(world: World) -> None:
        store = world.link.store
        old = await store.put("a", b"old")
        await store.update_meta("a", ObjectMeta("a", "changed"))
        began = world.loop.time()
        with pytest.raises(Conflict):
            await _Both(world.link.bucket, replace(old, name="b"), 0, old, None).run()
        assert world.loop.time() - began < 5
        assert [info.name for info in map(world.link.bucket.decode, stored_metas(world))] == ["a"]

    run(history, atomic=True)


def test_the_revision_of_a_rename_is_its_own() -> None:
    """Its answer was lost, and the new name has been replaced since."""

    async def history(world: World) -> None:
        store, other = world.link.store, world.connect().store
        old = await store.put("a", b"old")
        publish = _Both._publish

        async def unheard(self: _Both, expected: int, msg_id: str, timeout: float) -> Any:
            ack = await publish(self, expected, msg_id, timeout)
            seqs.append(ack.seq)
            await other.put("b", b"another")
            raise StaleConnectionError("the answer was lost")

        seqs: list[int] = []
        with patch.object(_Both, "_publish", unheard):
            info = await store.rename("a", "b")
        assert [info.revision] == seqs
        assert info.nuid == old.nuid

    run(history, atomic=True)


def test_chunks_of_a_half_done_rename_stay() -> None:
    """Whichever of the two names is deleted, the other one keeps its bytes."""

    async def history(world: World) -> None:
        store = world.link.store
        old = await store.put("a", b"old")
        bucket = world.link.bucket
        info = await store.get_info("a")
        await commit_meta(bucket, replace(info, metadata={RENAMING: "b"}), info.revision)
        await commit_meta(bucket, replace(info, name="b", metadata={RENAMED_FROM: "a"}), 0)
        half = await bucket.leader_meta("a")
        assert half is not None
        assert half.nuid == old.nuid
        await _delete._discard(bucket, bucket.meta_subject("a"), half)
        assert world.stream.of(CHUNKS + old.nuid)

    run(history)


# -- chunks -------------------------------------------------------------------------------------------------


def sender_of(world: World, sent: list[bytes]) -> Any:
    """What is left of a put when its chunks were sent."""
    sender: Any = Put.__new__(Put)
    sender._bucket = world.link.bucket
    sender._nuid, sender._subject = "N", CHUNKS + "N"
    sender._hasher = hashlib.sha256(b"".join(sent))
    sender._chunks = len(sent)
    sender._window = None
    return sender


def store_chunks(world: World, *payloads: bytes) -> None:
    for payload in payloads:
        world.stream.publish(CHUNKS + "N", b"", payload, lambda _: None)


def test_only_its_own_messages_are_deleted() -> None:
    async def history(world: World) -> None:
        other = await world.link.store.put("a", b"another")
        store_chunks(world, b"one", b"two")
        sender = sender_of(world, [b"one", b"two"])
        for seq in range(1, other.revision + 1):
            with pytest.raises(Unrepairable):
                await sender._delete([seq])
        assert await world.link.store.get_info("a")
        assert len(world.stream.of(CHUNKS + other.nuid)) == 1
        await sender._delete([other.revision + 1])
        assert [each.payload for each in world.stream.of(CHUNKS + "N")] == [b"two"]

    run(history)


@pytest.mark.parametrize(("suspects", "right"), [({3}, True), ({2}, True), ({1}, False), (set(), False)])
def test_copies_are_removed_when_the_rest_is_what_was_sent(suspects: set[int], right: bool) -> None:
    """A hint may be forged: what it names is deleted only when all else adds up to the same SHA-256."""

    async def history(world: World) -> None:
        store_chunks(world, b"one", b"two", b"two")
        sender = sender_of(world, [b"one", b"two"])
        assert await sender._remove(suspects) is right
        left = [each.payload for each in world.stream.of(CHUNKS + "N")]
        assert left == ([b"one", b"two"] if right else [b"one", b"two", b"two"])

    run(history)


def test_a_chunk_that_is_stored_late_is_not_sent_again() -> None:
    """Cut off while a replicated stream has it, and has not stored it yet: it is waited for."""

    async def history(world: World) -> None:
        link, sent = world.link, 0

        def hook(publish: Any, subject: str, header: bytes, payload: bytes, answer: Any) -> None:
            nonlocal sent
            publish(subject, header, payload, answer)
            if subject.startswith(CHUNKS) and payload:
                sent += 1
                if sent == 1:
                    world.loop.call_soon(link.cut)

        def source() -> Iterator[bytes]:
            yield b"once"

        with publishing(world.stream, hook):
            info = await link.store.put("a", source(), chunk_size=32)
        assert sent == 1
        assert [each.payload for each in world.stream.of(CHUNKS + info.nuid)] == [b"once"]

    run(history, replicated=True)
