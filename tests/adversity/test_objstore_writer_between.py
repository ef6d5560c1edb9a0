"""B3 with a writer in between: a meta or its answer is lost or late, and meanwhile somebody changes the name.

Every verb ends with success, or with :class:`OutcomeUnknownError`; any other error must be true. Whatever it
ends with, nothing is lost: the names hold what they hold when both calls happen one after the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

import natsproto
from natsproto.errors import NatsError
from natsproto.jetstream.context import JetStreamContext
from natsproto.server import LocalServer
from natsproto.testing import DROP, FaultProxy
from natsproto.wire import Msg, Pub
from objstore import (
    ObjectAlreadyExists,
    ObjectLink,
    ObjectMeta,
    ObjectStore,
    OutcomeUnknownError,
    RevisionConflictError,
)
from support.objects import assert_exact, impatient, meta_subject, pattern

OLD, NEW, OTHER, TARGET = (pattern(size, size) for size in (900, 1000, 1100, 50))
SIZE = 400
LIMIT = 30.0

State = dict[str, bytes]
Hook = Callable[[], Awaitable[None]]


@pytest.fixture
async def store(server: LocalServer, js: JetStreamContext, bucket_name: str) -> AsyncIterator[ObjectStore]:
    """Where the server has batches a rename is one; on the older one it takes steps."""
    new = tuple(map(int, server.version.split(".")[:2])) >= (2, 12)
    yield await js.create_object_store(bucket=bucket_name, allow_atomic=new)
    await js.delete_object_store(bucket_name)


@pytest.fixture
async def proxy(server: LocalServer) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(server.url) as proxy:
        yield proxy
        assert proxy.errors == []


@pytest.fixture
async def faulty(proxy: FaultProxy, store: ObjectStore) -> AsyncIterator[ObjectStore]:
    async with natsproto.connect(proxy.url, reconnect_wait=0.02) as client:
        yield await impatient(client, store.bucket, 0.5)
        proxy.to_server = proxy.to_client = None


async def upload(store: ObjectStore, name: str) -> None:
    await (await store.begin_upload(name, chunk_size=SIZE)).send(NEW)


async def put_if(store: ObjectStore, name: str) -> None:
    revision = (await store.get_info(name)).revision
    await store.put(name, NEW, chunk_size=SIZE, if_revision=revision)


VERBS: dict[str, Callable[[ObjectStore, str], Awaitable[Any]]] = {
    "put": lambda store, name: store.put(name, NEW, chunk_size=SIZE),
    "empty": lambda store, name: store.put(name, b""),
    "create": lambda store, name: store.create(name, NEW, chunk_size=SIZE),
    "put if": put_if,
    "update": lambda store, name: store.update_meta(name, ObjectMeta(name, "changed")),
    "delete": lambda store, name: store.delete(name),
    "rename": lambda store, name: store.update_meta(name, ObjectMeta(f"{name} new")),
    "link": lambda store, name: store.add_link(name, ObjectLink(store.bucket, "target")),
    "atomic": lambda store, name: store.put(name, NEW, chunk_size=SIZE, atomic=True),
    "upload": upload,
}
OTHERS: dict[str, Callable[[ObjectStore, str], Awaitable[Any]]] = {
    "replaces": lambda store, name: store.put(name, OTHER, chunk_size=SIZE),
    "deletes": lambda store, name: store.delete(name),
    "updates": lambda store, name: store.update_meta(name, ObjectMeta(name, "otherwise")),
    "renames": lambda store, name: store.update_meta(name, ObjectMeta(f"{name} moved")),
}
ABSENT = ("create", "link")
"""What needs a name that holds nothing."""


def after(state: State, what: str, name: str) -> State:
    """What the names hold after a call, alone."""
    state = dict(state)
    match what:
        case "put" | "create" | "put if" | "atomic" | "upload":
            state[name] = NEW
        case "empty":
            state[name] = b""
        case "link":
            state[name] = TARGET
        case "replaces":
            state[name] = OTHER
        case "delete" | "deletes":
            state.pop(name, None)
        case "rename" | "renames" if name in state:
            state[f"{name} {'new' if what == 'rename' else 'moved'}"] = state.pop(name)
    return state


class Between:
    """The hooks of a proxy: at the first meta of each name something is done, once."""

    def __init__(self, proxy: FaultProxy, store: ObjectStore, when: str) -> None:
        self.when = when
        self.store = store
        self.actions: dict[bytes, Hook] = {}
        self.replies: dict[bytes, bytes] = {}
        self.hits: set[bytes] = set()
        proxy.to_server, proxy.to_client = self.to_server, self.to_client

    def subject(self, name: str) -> bytes:
        return meta_subject(self.store, name).encode()

    async def act(self, subject: bytes) -> None:
        self.hits.add(subject)
        await self.actions.pop(subject)()

    def to_server(self, event: Any, raw: bytes) -> Any:
        if not isinstance(event, Pub) or event.subject not in self.actions:
            return None
        subject = bytes(event.subject)
        if self.when == "answer lost":
            assert event.reply is not None
            self.replies.setdefault(bytes(event.reply), subject)
            return None
        return self.interrupt(subject)

    async def interrupt(self, subject: bytes) -> Any:
        await self.act(subject)
        return DROP if self.when == "lost" else None

    def to_client(self, event: Any, raw: bytes) -> Any:
        if isinstance(event, Msg) and (subject := self.replies.pop(bytes(event.subject), None)):
            return self.swallow(subject)
        return None

    async def swallow(self, subject: bytes) -> Any:
        if subject in self.actions:
            await self.act(subject)
        return DROP


async def attempt(call: Awaitable[Any]) -> NatsError | None:
    try:
        await call
    except NatsError as exc:
        return exc
    return None


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("when", ["answer lost", "lost", "late"])
async def test_somebody_changes_it(
    proxy: FaultProxy, faulty: ObjectStore, store: ObjectStore, when: str, other: str
) -> None:
    verbs = [verb for verb in VERBS if verb != "atomic" or store._bucket.atomic]
    before: dict[str, State] = {verb: {} if verb in ABSENT else {verb: OLD} for verb in verbs}
    await store.put("target", TARGET)
    for state in before.values():
        for name in state:
            await store.put(name, OLD, chunk_size=SIZE)
    between = Between(proxy, store, when)
    changed: dict[str, NatsError | None] = {}

    def action(name: str) -> Hook:
        async def run() -> None:
            changed[name] = await attempt(OTHERS[other](store, name))

        return run

    between.actions = {between.subject(verb): action(verb) for verb in verbs}
    async with asyncio.timeout(LIMIT):
        ends = await asyncio.gather(*(attempt(VERBS[verb](faulty, verb)) for verb in verbs))
    assert between.hits == {between.subject(verb) for verb in verbs}
    report = await store.verify(deep=True)
    assert report.ok, report
    found: State = {}
    for info in await store.list():
        found[info.name] = await store.get(info.name)
    assert found.pop("target") == TARGET

    for verb, error in zip(verbs, ends, strict=True):
        told = f"{verb} while another {other} it: {error!r}, {changed[verb]!r}"
        assert changed[verb] is None or isinstance(changed[verb], LookupError | OutcomeUnknownError), told
        names = {verb, f"{verb} new", f"{verb} moved"}
        stands = {name: data for name, data in found.items() if name in names}
        did = before[verb] if changed[verb] is not None else after(before[verb], other, verb)
        if when == "answer lost":
            allowed = [after(after(before[verb], verb, verb), other, verb)]
            certain = False
        else:
            allowed = [did] if error is not None else [after(did, verb, verb)]
            certain = when == "late" and changed[verb] is None  # refused: what it says of the other is true
        assert stands in allowed, told
        if error is not None and not isinstance(error, OutcomeUnknownError):
            assert certain, told
            assert isinstance(error, ObjectAlreadyExists | RevisionConflictError | LookupError), told

    await store.gc(older_than=timedelta(0))
    await assert_exact(store)
    for name, data in found.items():
        assert await store.get(name) == data
