"""Real verbs of several clients against a made-up stream and network, by seed: see support/simulation.py.

``SIMULATIONS=N`` runs N seeds; 25 are the default, and ``.ci/run`` takes 50.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator
from datetime import timedelta
from random import Random
from typing import Any
from unittest.mock import patch

import pytest

from natsproto.aio.client import Client
from natsproto.aio.lifeline import Lifeline
from natsproto.errors import NatsError, NoServersError, PermissionsViolationError
from objstore import (
    BadObjectMetaError,
    IntegrityError,
    ObjectInfo,
    ObjectLink,
    ObjectMeta,
    OutcomeUnknownError,
)
from objstore.bucket.bucket import Bucket
from support.simulation import Link, Stream, VirtualLoop, passing

SEEDS = int(os.environ.get("SIMULATIONS", "25"))
CLIENTS = 3
OPS = 4
NO_CONSUMERS = PermissionsViolationError(
    "not here", subject="$JS.API.CONSUMER.CREATE.OBJ_b.c.>", operation="publish"
)
NAMES = ("a", "b", "c")


UNDUE = (BadObjectMetaError, IntegrityError)
"""Here is nobody whose metas cannot be trusted, and nothing is lost."""


class Operation:
    """One call, and how it ended: ``ok``, ``failed`` (for certain), ``unknown`` or ``cancelled``."""

    def __init__(self, mark: str, kind: str) -> None:
        self.mark = mark
        self.kind = kind
        self.end = "unknown"
        self.told: ObjectInfo | None = None

    def __repr__(self) -> str:
        return f"{self.kind} {self.mark}: {self.end}"


def call(link: Link, chance: Random, kind: str, mark: str, names: tuple[str, ...] = NAMES) -> Any:
    """A verb; what it writes says ``mark`` in its description."""
    store, name = link.store, chance.choice(names)
    data = mark.encode() * chance.choice((0, 1, 5, 40))
    revision = chance.choice((0, chance.randrange(1, 12)))
    match kind:
        case "put":
            return store.put(name, data, mark, chunk_size=32)
        case "stream":
            return store.put(name, iter([data, b"x" * 40]), mark, chunk_size=32)
        case "slow":
            return store.put(name, slowly(chance, data), mark, chunk_size=32)
        case "create":
            return store.create(name, data, mark, chunk_size=32)
        case "put if":
            return store.put(name, data, mark, chunk_size=32, if_revision=revision)
        case "atomic":
            return store.put(name, data, mark, chunk_size=32, atomic=True)
        case "update":
            return store.update_meta(name, ObjectMeta(name, mark))
        case "rename":
            other = chance.choice([each for each in NAMES if each != name])
            return store.update_meta(name, ObjectMeta(other, mark))
        case "upload":
            return upload(link, chance, name, mark, data)
        case "link":
            return store.update_meta("l", ObjectMeta("l", mark, options=link_to(name)))
        case _:
            return store.delete(name)


async def upload(link: Link, chance: Random, name: str, mark: str, data: bytes) -> Any:
    """Send it, interrupted up to twice; what an interrupted one did is not known.

    Some are not stopped when the next one takes over, here or in another process.
    """
    token = (await link.store.begin_upload(name, mark, chunk_size=32)).token
    senders: list[asyncio.Future[ObjectInfo]] = []
    pauses = [chance.choice((0.0005, 0.003, 0.01, 0.3)) for _ in range(chance.randrange(3))]
    try:
        for pause in (*pauses, 200):
            store = chance.choice([each for each in link.peers if not each.dead] or [link]).store
            again = await store.begin_upload(name, token=token)
            source = data if chance.random() < 0.7 else slowly(chance, data)
            sending = asyncio.ensure_future(again.send(source))
            sending.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
            senders.append(sending)
            await asyncio.wait([sending], timeout=pause)
            if sending.done() or len(link.peers) == 1 or chance.random() < 0.5:
                sending.cancel()
                await asyncio.wait([sending])
                if not sending.cancelled():
                    break
        await asyncio.wait(senders, timeout=200)
    finally:
        for each in senders:
            each.cancel()
        await asyncio.wait(senders)
    stored = [each for each in senders if not each.cancelled() and each.exception() is None]
    try:
        return (stored or senders)[-1].result()
    except NatsError as exc:
        raise OutcomeUnknownError("interrupted before", bucket="b", name=name, nuid="") from exc


async def slowly(chance: Random, data: bytes) -> AsyncIterator[bytes]:
    """A source that cannot be read twice, and stands still now and then."""
    for start in range(0, len(data), 32):
        if chance.random() < 0.2:
            await passing(chance.choice((0.01, 1, 1, 50)))
        yield data[start : start + 32]


def link_to(name: str) -> Any:
    from objstore import ObjectMetaOptions

    return ObjectMetaOptions(ObjectLink("b", name))


KINDS = (
    *(
        "put",
        "put",
        "stream",
        "slow",
        "create",
        "put if",
        "update",
        "rename",
        "rename",
        "link",
        "upload",
        "upload",
    ),
    *("delete", "delete"),
)


LAST_WRITER_WINS = ("put", "stream", "slow", "upload")
"""Whoever comes later replaces what these have stored."""


RENAMING = ("put", "create", "update", "update", "rename", "rename", "rename", "delete")
"""Mostly renames, and who comes by while they are half done."""


CHANGES = ("put", "put", "create", "put if", "update", "update", "update", "delete")
"""Mostly changes of one name at the same time, without renames."""


ONE_NAME = ("put", "put", "create", "update", "delete")
"""For several tasks of one client, which is refused now and then."""


async def work(
    link: Link, chance: Random, number: int, log: list[Operation], mix: tuple[str, ...], count: int
) -> None:
    kinds = (*mix, "atomic") if link.bucket.atomic else mix
    names = NAMES[:1] if mix in (ONE_NAME, CHANGES) else NAMES
    for index in range(count):
        kind = chance.choice(kinds)
        operation = Operation(f"{number}.{index}.", kind)
        log.append(operation)
        task = asyncio.ensure_future(call(link, chance, kind, operation.mark, names))
        task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        if chance.random() < 0.2:
            asyncio.get_running_loop().call_later(chance.choice((0.0005, 0.01, 0.3)), task.cancel)
        done, _ = await asyncio.wait([task], timeout=200)
        assert done, f"{operation} does not end"
        if task.cancelled():
            operation.end = "cancelled"
        elif task.exception() is None:
            operation.end = "ok"
            operation.told = task.result()
        elif isinstance(task.exception(), OutcomeUnknownError):
            operation.end = "unknown"
        else:
            assert isinstance(task.exception(), NatsError), repr(task.exception())
            assert link.stream.copy_answers or not isinstance(task.exception(), UNDUE), repr(task.exception())
            operation.end = "failed"
        await passing(chance.choice((0, 0.01, 1.0)))


async def misfortunes(stream: Stream, links: list[Link], chance: Random) -> None:
    while True:
        await passing(chance.choice((0.002, 0.02, 0.3, 2.0)))
        match chance.randrange(7):
            case 0 | 1 | 2:
                chance.choice(links).cut()
            case 3 if stream.replicated:
                stream.new_leader()
            case 4 if stream.doubles:
                stream.ids.clear()
            case 5 if chance.random() < 0.2:
                chance.choice(links[1:]).die()
            case 6:
                stream.full = not stream.full and chance.random() < 0.3


async def crowds(stream: Stream, chance: Random) -> None:
    """Others have all batches open, for moments or for minutes."""
    while True:
        stream.crowded = not stream.crowded
        await passing(chance.choice((0.01, 0.3, 2.0, 60.0)))


async def revocations(links: list[Link], chance: Random) -> None:
    """Rights to publish metas come and go, and the connections live on."""
    while True:
        await passing(chance.choice((0.002, 0.02, 0.3, 2.0)))
        link = chance.choice(links)
        link.allowed = not link.allowed


async def history(
    loop: VirtualLoop,
    seed: int,
    mix: tuple[str, ...],
    calm: bool,
    leaders_return: bool,
    copy_begins: int | None,
    early: bool,
    crowded: bool,
) -> tuple[Stream, list[Operation], list[str]]:
    chance = Random(seed)
    replicated = leaders_return or early or seed % 3 > 0
    stream = Stream(loop, chance, replicated=replicated, revision_first=seed % 2 > 0)
    stream.leaders_return, stream.early = leaders_return, early
    if copy_begins is not None:
        stream.copy_begins, stream.copy_answers = copy_begins, chance.choice((0.1, 0.5, 0.9))
    atomic = crowded or (seed % 4 == 0 and not early)
    links = [Link(stream, chance, atomic=atomic) for _ in range(CLIENTS)]
    if seed % 2:
        # A commit that comes twice may land after it was refused. That is nobody's promise, and where several
        # send one upload it is not rare. And a server that forgets ids stores what is removed only then.
        stream.doubles = False
        for link in links if not early else ():  # there nothing keeps senders of one upload apart
            link.peers = links
    log: list[Operation] = []
    trouble = asyncio.ensure_future(passing(1e9) if calm else misfortunes(stream, links, chance))
    if crowded:
        trouble = asyncio.gather(trouble, crowds(stream, chance))
    count = OPS if mix is KINDS else 2 * OPS
    tasks = links
    if mix is ONE_NAME:  # what one task does is refused while another one's is under way
        trouble = asyncio.gather(trouble, revocations(links, chance))
        stream.doubles = False  # a server that is sent a message twice might store one and refuse the other
        tasks = [link for link in links for _ in range(2)]
    workers = [asyncio.ensure_future(work(link, chance, n, log, mix, count)) for n, link in enumerate(tasks)]
    try:
        for link, worker in zip(tasks, workers, strict=True):
            while not worker.done() and not link.dead:
                await asyncio.wait([worker], timeout=1.0)
    finally:
        trouble.cancel()
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, trouble, return_exceptions=True)
    for worker in workers:
        if not worker.cancelled() and worker.exception() is not None:
            raise worker.exception()  # type: ignore[misc]
    # Whatever is still on its way arrives; then the one client that is left for certain cleans up.
    stream.full = stream.crowded = False
    links[0].allowed = True
    links[0].back()
    await passing(300)
    if copy_begins is not None:
        await clean_up(stream, links[0])
    found = await unreadable(stream, links[0]) if leaders_return else []
    await links[0].store.gc(older_than=timedelta(0))
    found += [*stream.wrong, *(f"gc leaves late copies behind {name}" for name in stream.behind())]
    needed = {meta["nuid"] for meta in stream.live()}
    left = {each.subject.rpartition(".")[2] for each in stream.of("$O.b.C.>")} - needed
    if left:
        found.append(f"gc leaves {left}")
    for operation in log if copy_begins is None else ():  # what is told then is not certain
        landed = [meta for meta in stream.metas.values() if meta.get("description") == operation.mark]
        if operation.kind == "delete":
            continue  # a marker keeps the description of what it deletes
        if operation.end == "ok" and not landed and not overtaken(stream, operation):
            found.append(f"{operation}, and it was never committed")
        if operation.end == "failed" and landed:
            found.append(f"{operation}, and it was committed")
        if operation.told is not None:
            found += untrue(stream, operation, operation.told)
            if operation.told.revision in stream.unseen and operation.kind not in LAST_WRITER_WINS:
                found.append(f"{operation}, and another one has replaced it without having seen it")
    for link in links:
        link.die()
        with contextlib.suppress(NatsError, TimeoutError):
            await link.server.client.close()
    return stream, log, found


async def clean_up(stream: Stream, link: Link) -> None:
    """What is removed while another stream answers, too; then that one is silent."""
    for _ in range(4):
        with contextlib.suppress(NatsError):
            await link.store.gc(older_than=timedelta(0))
        with contextlib.suppress(NatsError):
            await link.store.purge_deleted()
    stream.copy_answers = 0.0


async def unreadable(stream: Stream, link: Link) -> list[str]:
    """The objects that cannot be read, though their chunks are there."""
    link.bucket.ways.note_refusal(NO_CONSUMERS)
    found = []
    for meta in stream.live():
        try:
            await link.store.get(meta["name"])
        except NatsError as exc:
            found.append(f"{meta['name']} cannot be read: {exc}")
    link.bucket.ways.forget_refusals()
    return found


def overtaken(stream: Stream, operation: Operation) -> bool:
    """Whether it is a rename that another finished, and others replaced or deleted before it was changed."""
    told = operation.told
    if operation.kind != "rename" or told is None:
        return False
    later = (meta for seq, meta in stream.metas.items() if seq > told.revision and meta["name"] == told.name)
    after = next(later, None)
    return after is not None and (after["nuid"] != told.nuid or bool(after.get("deleted")))


def untrue(stream: Stream, operation: Operation, told: ObjectInfo) -> list[str]:
    """What the caller was told of the revision that was committed, and is not so."""
    stored = stream.metas[told.revision]
    facts = {"name": told.name, "description": told.description, "nuid": told.nuid, "size": told.size}
    return [
        f"{operation} was told {key} {value!r}, revision {told.revision} has {stored.get(key)!r}"
        for key, value in facts.items()
        if stored.get(key) != value and (stored.get(key) or value)
    ]


async def metas(bucket: Bucket, on_invalid: Any) -> list[ObjectInfo]:
    """As ``newest_metas``, without a consumer."""
    return [bucket.decode(message) async for message in bucket.messages("$O.b.M.>")]


@contextlib.asynccontextmanager
async def nobody_there(line: Lifeline, client: Client) -> AsyncIterator[Client]:
    """The server that was left cannot be reached."""
    raise NoServersError("cut off")
    yield client


def simulate(
    seed: int,
    mix: tuple[str, ...] = KINDS,
    *,
    calm: bool = False,
    leaders_return: bool = False,
    copy_begins: int | None = None,
    early: bool = False,
    crowded: bool = False,
) -> tuple[Stream, list[Operation], list[str]]:
    loop = VirtualLoop()
    try:
        with (
            patch("objstore.write.upload_holders.newest_metas", metas),
            patch("natsproto.aio.lifeline.Lifeline.connect_again", nobody_there),
        ):
            return loop.run_until_complete(
                history(loop, seed, mix, calm, leaders_return, copy_begins, early, crowded)
            )
    finally:
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


@pytest.mark.parametrize("seed", range(SEEDS))
def test_nothing_is_lost(seed: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    _, log, found = simulate(seed)
    assert not found, "\n".join([*found, *map(str, log)])


@pytest.mark.parametrize("seed", range(SEEDS))
def test_leaders_that_come_back(seed: int, caplog: pytest.LogCaptureFixture) -> None:
    """What was held back for them comes behind the object that another leader has stored meanwhile."""
    caplog.set_level(logging.CRITICAL)
    _, log, found = simulate(seed, leaders_return=True)
    assert not found, "\n".join([*found, *map(str, log)])


@pytest.mark.parametrize("mix", [KINDS, RENAMING], ids=["kinds", "renaming"])
@pytest.mark.parametrize("seed", range(SEEDS // 2))
def test_another_stream_answers(seed: int, mix: tuple[str, ...], caplog: pytest.LogCaptureFixture) -> None:
    """What the leader answers names no stream; one with the bucket among its sources has its subjects.

    Its sequences are others: where they are the same, a change may bring back what a name was before.
    """
    caplog.set_level(logging.CRITICAL)
    stream, log, _ = simulate(seed, mix, calm=True, copy_begins=10_000)
    assert not stream.wrong, "\n".join([*stream.wrong, *map(str, log)])


@pytest.mark.parametrize("mix", [KINDS, CHANGES], ids=["kinds", "changes"])
@pytest.mark.parametrize("seed", range(SEEDS))
def test_conditions_that_are_checked_early(
    seed: int, mix: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    """nats-server 2.9 with replicas acknowledges several messages that expect the same revision."""
    caplog.set_level(logging.CRITICAL)
    _, log, found = simulate(seed, mix, calm=seed % 2 == 0, early=True)
    assert not found, "\n".join([*found, *map(str, log)])


@pytest.mark.parametrize("calm", [False, True])
@pytest.mark.parametrize("seed", range(SEEDS))
def test_renames_beside_each_other(seed: int, calm: bool, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    _, log, found = simulate(seed, RENAMING, calm=calm)
    assert not found, "\n".join([*found, *map(str, log)])


@pytest.mark.parametrize("mix", [KINDS, RENAMING], ids=["kinds", "renaming"])
@pytest.mark.parametrize("seed", range(SEEDS))
def test_batches_that_are_refused(seed: int, mix: tuple[str, ...], caplog: pytest.LogCaptureFixture) -> None:
    """Renames go on in steps: beside those in one batch, and when a batch may have been committed."""
    caplog.set_level(logging.CRITICAL)
    _, log, found = simulate(seed, mix, calm=seed % 3 == 0, crowded=True)
    assert not found, "\n".join([*found, *map(str, log)])


@pytest.mark.parametrize("seed", range(2 * SEEDS))
def test_rights_that_come_and_go(seed: int, caplog: pytest.LogCaptureFixture) -> None:
    """A refusal names a subject: it may be that of what another task of this client has sent there."""
    caplog.set_level(logging.CRITICAL)
    _, log, found = simulate(seed, ONE_NAME, calm=True)
    assert not found, "\n".join([*found, *map(str, log)])


@pytest.mark.parametrize(("seed", "calm"), [(944, False), (282, True), (411, True), (3845, False)])
def test_renames_that_were_told_wrong(seed: int, calm: bool, caplog: pytest.LogCaptureFixture) -> None:
    """The rest of a change was lost; an error told of an object that was not there; one had no chunks."""
    test_renames_beside_each_other(seed, calm, caplog)


def test_the_histories_are_worth_it(caplog: pytest.LogCaptureFixture) -> None:
    """All verbs succeed somewhere, and every way to end occurs."""
    caplog.set_level(logging.CRITICAL)
    logs = [operation for seed in range(60) for operation in simulate(seed)[1]]
    assert {operation.kind for operation in logs if operation.end == "ok"} >= {*KINDS, "atomic"}
    assert {operation.end for operation in logs} == {"ok", "failed", "unknown", "cancelled"}
