"""Users with few rights in a JetStream domain: a server may name another subject than was sent.

It maps the API's prefixes to each other before it looks at the rights. Each refusal reaches its request: a
call without a right ends at once, and one that has another way to read goes on with that.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import natsproto
from natsproto.aio.client import Client
from natsproto.errors import NatsError, PermissionsViolationError
from natsproto.jetstream.api.models import ConsumerConfig
from natsproto.jetstream.context import JetStreamContext
from natsproto.server import LocalServer
from objstore import ObjectStore
from support.clusters import SERVERS
from support.rights import BYTES, CASES, SETS, Case, call, prepare
from support.servers import old_binary
from support.sockets import reserved_port

LIMIT = 60.0
"""Seconds for what takes less than one; a request whose refusal is not recognised takes :data:`TIMEOUT`."""

TIMEOUT = 120.0


class Place(NamedTuple):
    """Where the users are, and how they reach the buckets of the domain ``hub``."""

    leaf: str | None = None  # JetStream of the leaf node that they are connected to; ``None``: to the hub
    default: bool = False  # the leaf node has ``default_js_domain``
    domain: str | None = "hub"  # of the context
    prefix: str = "$JS.hub.API."  # of the subjects that need rights


PLACES = {
    "at the hub": Place(prefix="$JS.API."),
    "at a leaf node": Place("enabled"),
    "at one with a default domain": Place("off", default=True, domain=None),
    "at one with JetStream for others": Place("disabled", default=True, domain=None),
    "at one with a default domain and by name": Place("off", default=True),
}


def users_of(rights: dict[str, list[str]]) -> str:
    users = ["{ user: all, password: p }"]
    for name, subjects in rights.items():
        allowed = ", ".join(f'"{subject}"' for subject in subjects)
        users.append(
            f'{{ user: {name}, password: p, permissions: {{ publish: [{allowed}], subscribe: "_INBOX.>" }} }}'
        )
    return ", ".join(users)


class Guarded:
    """A hub, perhaps a leaf node, and users with few rights."""

    def __init__(self, hub: LocalServer, near: LocalServer, place: Place) -> None:
        self.hub, self.near, self.place = hub, near, place

    @asynccontextmanager
    async def user(self, name: str) -> AsyncIterator[JetStreamContext]:
        """The context of a user. A refusal that nobody has waited for is an error."""
        told: list[BaseException] = []
        options: dict[str, Any] = {"user": name, "password": "p", "error_cb": told.append}
        async with asyncio.timeout(LIMIT), natsproto.connect(self.near.url, **options) as client:
            yield client.jetstream(domain=self.place.domain, timeout=TIMEOUT)
            await client.flush()
            assert told == []

    @asynccontextmanager
    async def owner(self) -> AsyncIterator[Client]:
        async with natsproto.connect(self.hub.url, user="all", password="p") as client:
            yield client


def of_bucket(bucket: str, *sets: str) -> list[str]:
    return [subject.replace("BUCKET", bucket) for name in sets for subject in SETS[name]]


RIGHTS = {f"c{i}": case.rights(f"c{i}") for i, case in enumerate(CASES)} | {
    "nobody": ["nothing"],
    "opener": of_bucket("b", "open"),
    "maker": of_bucket("made", "create", "metas", "chunks"),
    "whole": [
        "$JS.API.DIRECT.GET.STREAM",
        "$JS.API.CONSUMER.CREATE.STREAM.*",
        "$JS.API.CONSUMER.INFO.STREAM.*",
    ],
}


@pytest.fixture(scope="module", params=SERVERS)
def binary(request: pytest.FixtureRequest) -> str | None:
    return None if request.param == "new" else old_binary()


@pytest.fixture(scope="module", params=PLACES)
def guarded(binary: str | None, request: pytest.FixtureRequest) -> Iterator[Guarded]:
    place = PLACES[request.param]
    rights = {name: [*subjects] for name, subjects in RIGHTS.items()}
    for index, case in enumerate(CASES):
        if place.domain is None and case.call in ("update_object_store", "seal"):
            rights[f"c{index}"] += of_bucket(f"c{index}", "consumer")
    for subjects in rights.values():
        subjects[:] = [each.replace("$JS.API.", place.prefix) for each in subjects]
    users = users_of(rights)
    with ExitStack() as stack:
        port = stack.enter_context(reserved_port())
        listen = f'leafnodes {{ listen: "127.0.0.1:{port}" }}'
        accounts = f"accounts {{ A {{ jetstream: enabled, users: [ {users} ] }} }}"
        hub = near = stack.enter_context(
            LocalServer(binary=binary, domain="hub", config=f"{listen}\n{accounts}")
        )
        if place.leaf is not None:
            remote = f'{{ url: "nats://all:p@127.0.0.1:{port}", account: A }}'
            jetstream = "" if place.leaf == "off" else f"jetstream: {place.leaf}, "
            config = (
                f"leafnodes {{ remotes: [ {remote} ] }}\naccounts {{ A {{ {jetstream}users: [ {users} ] }} }}"
            )
            if place.default:
                config += '\ndefault_js_domain: { A: "hub" }'
            on = place.leaf != "off"
            near = stack.enter_context(
                LocalServer(binary=binary, jetstream=on, domain="leaf" if on else None, config=config)
            )
        yield Guarded(hub, near, place)


@pytest.fixture
async def linked(guarded: Guarded) -> Guarded:
    """The leaf node is connected."""
    async with natsproto.connect(guarded.near.url, user="all", password="p") as client:

        async def reaches() -> bool:
            try:
                info = await client.jetstream(domain="hub", timeout=1).account_info()
            except NatsError:
                return False
            return info.domain == "hub"

        async with asyncio.timeout(LIMIT):
            while not await reaches():
                await client.flush()
    return guarded


async def test_the_rights_on_the_page_are_enough(linked: Guarded, tmp_path: Path) -> None:
    failed: dict[str, str] = {}
    few = asyncio.Semaphore(6)

    async def check(index: int, case: Case) -> None:
        user, path = f"c{index}", tmp_path / str(index)
        path.mkdir()
        try:
            async with few:
                await prepare(linked.hub.url, user, case, path)
                async with linked.user(user) as js:
                    await call(js, user, case, path)
        except Exception as exc:
            failed[case.id] = repr(exc)

    await asyncio.gather(*(check(index, case) for index, case in enumerate(CASES)))
    assert failed == {}


async def test_without_rights(linked: Guarded, tmp_path: Path) -> None:
    """Nothing is waited for, and the error names the subject that needs the right."""
    for case in {case.call: case for case in CASES}.values():
        async with linked.user("nobody") as js:
            with pytest.raises(PermissionsViolationError) as caught:
                await call(js, "b", case, tmp_path)
        assert caught.value.subject.startswith(linked.place.prefix), (case.id, caught.value.subject)


@pytest.fixture
async def opened(linked: Guarded) -> AsyncIterator[ObjectStore]:
    """A bucket, of a user who may do nothing else than open it."""
    async with AsyncExitStack() as stack:
        owner = await stack.enter_async_context(linked.owner())
        store = await owner.jetstream().create_or_update_object_store(bucket="b")
        await store.put("o", BYTES)
        js = await stack.enter_async_context(linked.user("opener"))
        yield await js.object_store("b")


READS: list[Callable[[ObjectStore], Awaitable[Any]]] = [
    lambda store: store.get("o"),
    lambda store: store.get_range("o", 10, 20),
    lambda store: store.list(),
    lambda store: store.exists("o"),
    lambda store: store.delete("o"),
]


async def test_no_way_to_read(linked: Guarded, opened: ObjectStore) -> None:
    """All ways were tried, and each was refused: the error names them as the server does."""
    for read in READS * 2:
        with pytest.raises(PermissionsViolationError) as caught:
            await read(opened)
        assert caught.value.subject.startswith(linked.place.prefix)
        assert linked.place.prefix in str(caught.value)


async def test_a_bucket_whose_domain_may_not_be_asked(linked: Guarded) -> None:
    """It is created. A write asks for the domain first, and no byte is sent without it."""
    async with linked.owner() as owner:
        for _ in range(2):
            async with linked.user("maker") as js:
                store = await js.create_object_store("made")
                for data in (BYTES, b"x"):
                    with pytest.raises(PermissionsViolationError) as caught:
                        await store.put("n", data)
                    assert caught.value.subject == f"{linked.place.prefix}STREAM.INFO.OBJ_made"
        info = await owner.jetstream().stream_info("OBJ_made")
        assert info.last_seq == 0
        await owner.jetstream().delete_object_store("made")


async def test_streams(linked: Guarded) -> None:
    """Who may only read the whole stream is refused once; and a fetch that is refused ends."""
    async with linked.owner() as owner:
        js = owner.jetstream()
        await js.create_stream({"name": "STREAM", "subjects": ["orders.>"], "allow_direct": True})
        await js.publish("orders.1", b"1")
        async with linked.user("whole") as js:
            assert (await js.direct_get("STREAM", last_by_subject="orders.1")).data == b"1"
            config = ConsumerConfig(name="c", filter_subject="orders.1", ack_policy="none")
            await js.create_consumer("STREAM", config)
            pull = await js.pull_consumer("STREAM", "c")
            with pytest.raises(PermissionsViolationError, match=r"CONSUMER\.MSG\.NEXT"):
                await pull.fetch(1, timeout=TIMEOUT)
        await owner.jetstream().delete_stream("STREAM")
