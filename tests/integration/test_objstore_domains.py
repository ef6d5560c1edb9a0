"""Buckets of one name in two JetStream domains: an acknowledgement counts in its own domain only.

A hub and a leaf node each have the bucket, so every message reaches both, and both answer.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import natsproto
from natsproto.aio.client import Client
from natsproto.errors import WrongStreamError
from natsproto.server import LocalCluster, LocalServer
from objstore import ForeignBucketError, ObjectMeta, ObjectStore
from support.clusters import SERVERS
from support.objects import CHUNK, assert_exact, pattern
from support.servers import old_binary
from support.sockets import reserved_port

LIMIT = 20.0
HERE = {f"leaf{n}": pattern(1000 + n, n) for n in range(6)} | {"both": pattern(3 * CHUNK, 7)}
THERE = {f"hub{n}": pattern(2000 + n, 100 + n) for n in range(3)} | {"both": pattern(2 * CHUNK, 8)}


@pytest.fixture(params=SERVERS, scope="module")
def binary(request: pytest.FixtureRequest) -> str | None:
    if request.param == "new":
        return None
    return old_binary()


@pytest.fixture
def port() -> Iterator[int]:
    with reserved_port() as port:
        yield port


async def fill(client: Client, objects: dict[str, bytes]) -> None:
    store = await client.jetstream().create_object_store(bucket="files")
    for name, data in objects.items():
        await store.put(name, data)


async def both_answer(client: Client, subject: str) -> None:
    """Wait until what ``client`` publishes reaches the streams of both sides: here each refuses it."""
    async with asyncio.timeout(LIMIT):
        while True:
            inbox = client.new_inbox()
            async with await client.subscribe(inbox) as answers:
                await client.publish(subject, b"", reply=inbox, headers={"Nats-Expected-Stream": "nobody"})
                try:
                    async with asyncio.timeout(0.2):
                        await anext(answers)
                        await anext(answers)
                    return
                except TimeoutError:
                    continue


class Linked:
    """The bucket ``files`` at a leaf node, at its hub, and at the hub as seen from the leaf node."""

    def __init__(self, here: ObjectStore, there: ObjectStore) -> None:
        self.here, self.there = here, there

    async def unchanged(self) -> None:
        """All that was there before is there, on both sides, chunks and all."""
        for store, objects in ((self.here, HERE), (self.there, THERE)):
            for name, data in objects.items():
                assert await store.get(name) == data, name
            report = await store.verify(deep=True)
            assert report.ok, report


@pytest.fixture(scope="module")
def filled(binary: str | None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What each side has stored before: the first test that needs it stores it, every one gets a copy."""
    return tmp_path_factory.mktemp("filled")


@pytest.fixture
async def linked(binary: str | None, tmp_path: Path, filled: Path, port: int) -> AsyncIterator[Linked]:
    """Each side is filled while the other is away."""
    for domain, objects in (("hub", THERE), ("leaf", HERE)):
        if not (filled / domain).exists():
            with LocalServer(name=domain, domain=domain, binary=binary, store_dir=filled / domain) as server:
                async with natsproto.connect(server.url) as client:
                    await fill(client, objects)
        shutil.copytree(filled / domain, tmp_path / domain)
    listen = f'leafnodes {{ listen: "127.0.0.1:{port}" }}'
    remote = f'leafnodes {{ remotes = [ {{ url: "nats://127.0.0.1:{port}" }} ] }}'
    with (
        LocalServer(
            name="hub", domain="hub", binary=binary, config=listen, store_dir=tmp_path / "hub"
        ) as hub,
        LocalServer(
            name="leaf", domain="leaf", binary=binary, config=remote, store_dir=tmp_path / "leaf"
        ) as leaf,
    ):
        async with natsproto.connect(hub.url) as at_hub, natsproto.connect(leaf.url) as at_leaf:
            here = await at_leaf.jetstream().object_store("files")
            there = await at_hub.jetstream().object_store("files")
            await both_answer(at_leaf, "$O.files.C.x")
            await both_answer(at_hub, "$O.files.C.x")
            yield Linked(here, there)


async def put(store: ObjectStore, name: str, data: bytes) -> Any:
    return await store.put(name, data)


async def put_pieces(store: ObjectStore, name: str, data: bytes) -> Any:
    return await store.put(name, (data[start : start + 5000] for start in range(0, len(data), 5000)))


async def create(store: ObjectStore, name: str, data: bytes) -> Any:
    return await store.create(name, data)


async def writer(store: ObjectStore, name: str, data: bytes) -> Any:
    async with store.open_writer(name) as out:
        await out.write(data)


async def upload(store: ObjectStore, name: str, data: bytes) -> Any:
    return await (await store.begin_upload(name)).send(data)


async def foreign(call: Awaitable[Any]) -> ForeignBucketError | None:
    try:
        await call
    except ForeignBucketError as exc:
        return exc
    return None


Write = Callable[[ObjectStore, str, bytes], Awaitable[Any]]
WRITES: list[Write] = [put, put_pieces, create, writer, upload]


@pytest.mark.parametrize(
    ("write", "context"),
    [*((write, {"domain": "hub"}) for write in WRITES), (put, {"prefix": "$JS.hub.API"})],
)
async def test_the_nearer_one_answers_first(linked: Linked, context: dict[str, str], write: Write) -> None:
    """From the leaf node into the hub's bucket: the leaf node's answers come before any of the hub's."""
    far = await linked.here.js.client.jetstream(**context).object_store("files")
    for name, size in (("new", 1), ("new", 12 * CHUNK + 3), ("leaf1", 5000), ("both", 4 * CHUNK)):
        if write is create and name == "both":
            continue
        async with asyncio.timeout(LIMIT):
            exc = await foreign(write(far, name, pattern(size, 50)))
        if exc is None:  # the hub was quicker for once: then the object is there, and what follows is no more
            assert await far.get(name) == pattern(size, 50)
            return
        assert isinstance(exc, WrongStreamError)
        assert (exc.bucket, exc.name, exc.stream, exc.domain) == ("files", name, "OBJ_files", "leaf")
        assert exc.expected_domain == "hub"
        for part in ("'leaf'", "'hub'", "jetstream(domain=…)", "gc()"):
            assert part in str(exc)
        await linked.unchanged()
        assert not await linked.there.exists("new")
        assert not await linked.here.exists("new")
        if write is not upload:  # which is meant to be continued
            await assert_exact(linked.there)


@pytest.mark.parametrize("write", WRITES)
async def test_the_farther_one_answers_late(linked: Linked, write: Write) -> None:
    """An OK means the bytes; the other side's answers stop the put if they come in time."""
    for number, size in enumerate((1, CHUNK, 12 * CHUNK + 3, 60 * CHUNK)):
        for store, elsewhere in ((linked.here, "hub"), (linked.there, "leaf")):
            name, data = f"new{number} not in {elsewhere}", pattern(size, number)
            async with asyncio.timeout(LIMIT):
                error = await foreign(write(store, name, data))
                if error is None:
                    assert await store.get(name) == data
                else:
                    assert error.domain == elsewhere
                    assert not await store.exists(name)
        await linked.unchanged()


async def test_gc_of_the_other_side_finds_what_was_left(linked: Linked) -> None:
    far = await linked.here.js.client.jetstream(domain="hub").object_store("files")
    with pytest.raises(ForeignBucketError) as caught:
        await far.put("new", pattern(5 * CHUNK))
    left = [orphan.nuid for orphan in (await linked.here.gc(older_than=timedelta(0))).orphans]
    assert left
    assert all(nuid in str(caught.value) for nuid in left)
    await assert_exact(linked.here)
    await linked.unchanged()


async def test_publish(linked: Linked) -> None:
    near, far = linked.here.js, linked.here.js.client.jetstream(domain="hub")
    assert "leaf" in {(await near.publish("$O.files.C.x", b"1")).domain for _ in range(20)}

    async def in_a_window() -> None:
        window = far.publish_window("$O.files.C.x", "OBJ_files")
        try:
            await window.publish(b"1")
            await window.settle()
        finally:
            window.close()

    async def by_itself() -> None:
        await far.publish("$O.files.C.x", b"1")

    for publish in (by_itself, in_a_window):
        with pytest.raises(WrongStreamError, match=r"'leaf'.*'hub'"):
            for _ in range(20):  # the nearer one answers first, on a busy machine only nearly always
                await publish()


# -- how the domain becomes known -------------------------------------------------------------------------


async def known(store: ObjectStore) -> str | None:
    """The domain a bucket expects; and a put, which must find it right."""
    await store.put("x", pattern(3 * CHUNK))
    await store.update_meta("x", ObjectMeta("x", "d"))
    return store._bucket.acks.domain


@pytest.mark.parametrize("domain", [None, "hub"])
async def test_known_when_opened(binary: str | None, domain: str | None) -> None:
    with LocalServer(domain=domain, binary=binary) as server:
        async with natsproto.connect(server.url) as client:
            contexts = [client.jetstream()]
            if domain is not None:
                contexts += [client.jetstream(domain="hub"), client.jetstream(prefix="$JS.hub.API")]
            for number, js in enumerate(contexts):
                bucket = f"b{number}"
                before = client.stats.out_msgs
                store = await js.create_object_store(bucket=bucket)
                # Without a domain nothing has to be asked for.
                assert client.stats.out_msgs - before == (1 if domain is None else 2)
                assert await known(store) == domain
                assert await known(await js.object_store(bucket)) == domain
                assert await known(await js.update_object_store(bucket=bucket, description="d")) == domain


@pytest.mark.cluster
async def test_known_in_a_cluster(binary: str | None) -> None:
    """There the answer to a change does not name it either."""
    with LocalCluster(domain="far", binary=binary) as cluster:
        async with natsproto.connect(cluster.url) as client:
            js = client.jetstream()
            assert await known(await js.create_object_store(bucket="b", replicas=3)) == "far"
            assert await known(await js.update_object_store(bucket="b", description="d")) == "far"
            assert await known(await js.object_store("b")) == "far"


# -- the connection moves to another domain -----------------------------------------------------------------


CALLS: dict[str, Callable[[ObjectStore], Awaitable[Any]]] = {
    "put": lambda store: store.put("both", pattern(5 * CHUNK)),
    "small put": lambda store: store.put("both", b"1"),
    "empty put": lambda store: store.put("both", b""),
    "put of a new name": lambda store: store.put("new", b"1"),
    "create": lambda store: store.create("new", b""),
    "delete": lambda store: store.delete("both"),
    "update_meta": lambda store: store.update_meta("both", ObjectMeta("both", "changed")),
    "rename": lambda store: store.update_meta("both", ObjectMeta("new")),
    "link": lambda store: store.update_meta("new", ObjectMeta("new")),
    "get": lambda store: store.get("both"),
    "get_info": lambda store: store.get_info("both"),
    "gc": lambda store: store.gc(older_than=timedelta(0)),
    "purge_deleted": lambda store: store.purge_deleted(),
    "status": lambda store: store.status(),
    "seal": lambda store: store.seal(),
    "verify": lambda store: store.verify(),
    "names": lambda store: store.names(),
}


@pytest.mark.parametrize("direct", [True, False])
async def test_reconnected_to_another_domain(binary: str | None, tmp_path: Path, direct: bool) -> None:
    """The other server has a bucket of that name, with other objects: the handle is not of that one."""
    one = LocalServer(domain="one", binary=binary, store_dir=tmp_path)
    with one, LocalServer(domain="two", binary=binary) as two:
        async with natsproto.connect(two.url) as client:
            other = await client.jetstream().create_object_store(bucket="files", allow_direct=direct)
            await other.put("both", THERE["both"])
            await client.jetstream().publish("$O.files.C.somebodys", b"1")
        servers = [one.url, two.url]
        async with natsproto.connect(servers, randomize=False, reconnect_wait=0.01) as client:
            store = await client.jetstream().create_object_store(bucket="files", allow_direct=direct)
            await store.put("both", HERE["both"])
            one.kill()
            async with asyncio.timeout(LIMIT):
                while client.server_info.get("domain") != "two":
                    with suppress(ConnectionError):
                        await client.flush()
            for name, call in CALLS.items():
                async with asyncio.timeout(LIMIT):
                    with pytest.raises(ForeignBucketError) as caught:
                        await call(store)
                assert (caught.value.domain, caught.value.expected_domain) == ("two", "one"), name
            fresh = await client.jetstream().object_store("files")
            assert await fresh.get("both") == THERE["both"]
            assert await fresh.names() == ["both"]
            assert [orphan.nuid for orphan in (await fresh.gc(older_than=timedelta(0))).orphans] == [
                "somebodys"
            ]
            await assert_exact(fresh)
            # Back where it came from, the handle is good again.
            one.start()
            two.kill()
            async with asyncio.timeout(LIMIT):
                while client.server_info.get("domain") != "one":
                    with suppress(ConnectionError):
                        await client.flush()
            assert await store.get("both") == HERE["both"]
            await store.put("both", b"1")
            assert await store.get("both") == b"1"
