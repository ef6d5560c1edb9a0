"""Users with few rights: what is not allowed is told at once, by the subject that was refused."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import natsproto
from natsproto.errors import PermissionsViolationError
from natsproto.server import LocalCluster, LocalServer
from natsproto.testing import CUT, Action, FaultProxy
from objstore import InvalidMeta, ObjectMeta, ObjectStore, OutcomeUnknownError
from objstore.bucket.ways import LEADER, REFUSED_FOR
from objstore.format.codec import encode_meta
from objstore.format.naming import meta_subject
from support.clock import Clock
from support.objects import MIB, pattern
from support.rights import BYTES, CALLS, CASES, MANAGED, PAGE, SETS, Case, call, prepare


@pytest.fixture(params=["new", "old"])
def any_binary(request: pytest.FixtureRequest) -> Path:
    return Path(request.getfixturevalue(f"{request.param}_server").binary.path)


def with_few(*names: str, bucket: str = "b") -> str:
    """A server's configuration with the users ``all`` and ``few``, who has those sets of rights."""
    allowed = ", ".join(f'"{subject.replace("BUCKET", bucket)}"' for name in names for subject in SETS[name])
    few = f'{{ user: few, password: p, permissions: {{ publish: [{allowed}], subscribe: "_INBOX.>" }} }}'
    return f"accounts {{ A {{ jetstream: enabled, users: [ {{ user: all, password: p }}, {few} ] }} }}"


def test_every_call_has_a_row() -> None:
    assert {case.call for case in CASES} == CALLS.keys() | MANAGED.keys()
    assert all(name in SETS for case in CASES for name in case.sets)


class Lacking(NamedTuple):
    """A user who lacks one right of those a call needs, or all of those it could choose from."""

    case: Case
    right: str

    @property
    def id(self) -> str:
        return f"{self.case.call}-{'-'.join(self.case.sets)}-without-{self.right or 'any'}"


def lacking() -> list[Lacking]:
    found, seen = [], set()
    for case in CASES:
        if case.call == "purge_deleted":
            continue  # what it would remove has to be older than a test lasts
        needed = case.sets[: len(case.sets) - bool(case.one_of)]
        if case.one_of and (case.call, "") not in seen:
            found.append(Lacking(case._replace(sets=needed), ""))
        for right in [SETS[name][0] for name in needed]:
            if (case.call, right) not in seen:
                found.append(Lacking(case, right))
            seen.add((case.call, right))
        seen.add((case.call, ""))
    return found


LACKING = lacking()


@pytest.fixture(scope="module", params=["new", "old"])
def guarded(request: pytest.FixtureRequest) -> Iterator[LocalServer]:
    """A server with a user and a bucket for each of the above."""
    users = ["{ user: all, password: p }"]
    sets = [("c", i, case.rights(f"c{i}")) for i, case in enumerate(CASES)]
    sets += [("x", i, each.case.rights(f"x{i}", without=each.right)) for i, each in enumerate(LACKING)]
    for kind, index, rights in sets:
        allowed = ", ".join(f'"{subject}"' for subject in rights)
        users.append(
            f"{{ user: {kind}{index}, password: p, permissions: "
            f'{{ publish: {{ allow: [{allowed}] }}, subscribe: "_INBOX.>" }} }}'
        )
    binary = request.getfixturevalue(f"{request.param}_server").binary.path
    config = f"accounts {{ A {{ jetstream: enabled, users: [ {', '.join(users)} ] }} }}"
    with LocalServer(binary=binary, config=config) as server:
        yield server


async def act(guarded: LocalServer, user: str, case: Case, path: Path) -> None:
    await prepare(guarded.url, user, case, path)
    async with asyncio.timeout(15), natsproto.connect(guarded.url, user=user, password="p") as client:
        await call(client.jetstream(), user, case, path)


@pytest.mark.parametrize("index", range(len(CASES)), ids=[case.id for case in CASES])
async def test_the_rights_on_the_page_are_enough(guarded: LocalServer, tmp_path: Path, index: int) -> None:
    await act(guarded, f"c{index}", CASES[index], tmp_path)


@pytest.mark.parametrize("index", range(len(LACKING)), ids=[each.id for each in LACKING])
async def test_each_right_on_the_page_is_needed(guarded: LocalServer, tmp_path: Path, index: int) -> None:
    case, right = LACKING[index]
    user = f"x{index}"
    wanted = [right] if right else [SETS[name][0] for name in case.one_of]
    with pytest.raises(PermissionsViolationError, match=r"docs/permissions\.md") as caught:
        await act(guarded, user, case, tmp_path)
    assert caught.value.operation == "publish"
    stems = [subject.replace("BUCKET", user).removesuffix(">") for subject in wanted]
    assert any(caught.value.subject.startswith(stem) for stem in stems), caught.value.subject


async def test_the_example_on_the_page(any_binary: Path) -> None:
    config = PAGE.partition("## An example")[2].split("```")[1]
    with LocalServer(binary=any_binary, config=config) as server:
        async with (
            natsproto.connect(server.url, user="owner", password="o") as owner,
            natsproto.connect(
                server.url, user="writer", password="w", inbox_prefix="_INBOX_writer"
            ) as writer,
            natsproto.connect(
                server.url, user="reader", password="r", inbox_prefix="_INBOX_reader"
            ) as reader,
        ):
            store = await owner.jetstream().create_object_store(bucket="photos")
            ours, theirs = [await each.jetstream().object_store("photos") for each in (writer, reader)]
            await ours.put("a", BYTES)
            await ours.put("a", BYTES[:1000])
            for subject in ("_INBOX_reader.>", "_INBOX.>", "$O.photos.C.>"):
                with pytest.raises(PermissionsViolationError):  # what the others read is not seen
                    await (await writer.subscribe(subject)).next_msg(timeout=10)
            assert (await ours.get_info("a")).size == 1000
            assert await theirs.get("a") == BYTES[:1000]
            assert (await store.gc(older_than=timedelta(0))).orphans == []
            for refused in (ours.get("a"), theirs.put("a", b"x"), theirs.delete("a")):
                with pytest.raises(PermissionsViolationError):
                    await refused
            assert await theirs.get("a") == BYTES[:1000]
            assert (await store.verify(deep=True)).ok


async def test_one_refusal_of_many_is_told_once(guarded: LocalServer) -> None:
    """What asks for several messages at once is refused as often, and has failed with the first."""
    case = next(case for case in CASES if case.call == "exists" and case.sets[-1] == "consumer")
    told: list[BaseException] = []
    user = f"c{CASES.index(case)}"
    url = guarded.url
    async with natsproto.connect(url, user="all", password="p") as owner:
        await (await owner.jetstream().create_or_update_object_store(bucket=user)).put("o", BYTES)
    async with natsproto.connect(url, user=user, password="p", error_cb=told.append) as client:
        store = await client.jetstream().object_store(user)
        assert (await asyncio.gather(*(store.exists(name) for name in "onmlk")))[0]
        await client.flush()
        assert told == []


async def test_on_replicas_nothing_is_removed_without_the_leader() -> None:
    """A replica may be behind: reads are allowed to be, what removes chunks is not."""
    config = with_few("open", "direct", "consumer", "metas", "chunks", "purge")
    async with LocalCluster(3, config=config) as cluster:
        urls = [server.url for server in cluster.servers]
        async with (
            natsproto.connect(urls, user="all", password="p") as owner,
            natsproto.connect(urls, user="few", password="p") as client,
        ):
            await (await owner.jetstream().create_object_store(bucket="b", replicas=3)).put("o", BYTES)
            store = await client.jetstream().object_store("b")
            assert await store.get("o") == BYTES
            assert await store.get_range("o", 1000, 200_000) == BYTES[1000:200_000]
            assert [info.name for info in await store.list()] == ["o"]
            upload = await store.begin_upload("u")
            changes: list[Callable[[], Awaitable[Any]]] = [
                lambda: store.put("o", b"1"),
                lambda: store.put("n", b"1"),
                lambda: store.create("n", b"1"),
                lambda: store.rename("o", "m"),
                lambda: store.update_meta("o", ObjectMeta(name="o", description="d")),
                lambda: store.delete("o"),
                lambda: store.gc(older_than=timedelta(0)),
                lambda: upload.send(BYTES),
                upload.abort,
            ]
            for change in changes * 2:
                with pytest.raises(PermissionsViolationError, match=r"replicas.*STREAM\.MSG\.GET\.OBJ_b"):
                    await change()
            assert await store.get("o") == BYTES
            assert await (await owner.jetstream().object_store("b")).names() == ["o"]


async def test_a_mirror_makes_the_leader_necessary(new_server: LocalServer) -> None:
    """As replicas do; the error says why what has worked before does no longer.

    (With 2.9.10 it took more than 20 s until a mirror answered for its origin.)
    """
    config = with_few("open", "direct", "metas", "chunks", "purge")
    async with (
        LocalServer(binary=new_server.binary.path, config=config) as server,
        natsproto.connect(server.url, user="all", password="p") as owner,
        natsproto.connect(server.url, user="few", password="p") as client,
    ):
        await owner.jetstream().create_object_store(bucket="b")
        store = await client.jetstream().object_store("b")
        await store.put("o", b"1")
        mirror = {"name": "M", "mirror": {"name": "OBJ_b"}, "allow_direct": True, "mirror_direct": True}
        await owner.jetstream().create_stream(mirror)
        answered_by = None
        async with asyncio.timeout(60):
            while answered_by != "M":  # it begins once it has caught up
                msg = await owner.request("$JS.API.DIRECT.GET.OBJ_b", b'{"seq":1}', timeout=20)
                answered_by = msg.headers and msg.headers.get("Nats-Stream")
            with pytest.raises(PermissionsViolationError, match=r"a mirror.*STREAM\.MSG\.GET\.OBJ_b;"):
                while True:  # until it is the one that is asked
                    with suppress(OutcomeUnknownError):
                        await store.put("o", b"2")


@pytest.mark.parametrize("way", ["direct", "subject"])
async def test_what_a_mirror_lacks_is_not_missing(new_server: LocalServer, way: str) -> None:
    """The leader counts for everybody, also for those who may not read there."""
    config = with_few("open", way)
    async with (
        LocalServer(binary=new_server.binary.path, config=config) as server,
        natsproto.connect(server.url, user="all", password="p") as owner,
        natsproto.connect(server.url, user="few", password="p") as client,
    ):
        whole = await owner.jetstream().create_object_store(bucket="b")
        await whole.put("before", b"1")
        store = await client.jetstream().object_store("b")
        # It answers for its origin, and has no metas.
        mirror = {"name": "OBJ_b", "filter_subject": "$O.b.C.>"}
        await owner.jetstream().create_stream(
            {"name": "M", "mirror": mirror, "allow_direct": True, "mirror_direct": True}
        )
        answered_by = None
        async with asyncio.timeout(60):
            while answered_by != "M":
                msg = await owner.request("$JS.API.DIRECT.GET.OBJ_b", b'{"seq":2}', timeout=20)
                answered_by = "M" if msg.status == 404 else None
        for number in range(20):
            await whole.put(f"n{number}", b"1")
            assert await store.exists(f"n{number}")
            assert (await store.get_info(f"n{number}")).size == 1
        assert not await store.exists("nothing")


@pytest.mark.parametrize("way", ["leader", "direct"])
async def test_changes_where_bytes_have_an_age(any_binary: Path, way: str) -> None:
    """They copy the bytes: what a copy needs is enough, and without the right to chunks they fail."""
    config = with_few("open", "metas", "chunks", way)
    changes: list[Callable[[ObjectStore], Awaitable[Any]]] = [
        lambda store: store.update_meta("o", ObjectMeta(name="o", description="d")),
        lambda store: store.rename("o", "n"),
    ]
    for rights in (config, with_few("open", "metas", way)):
        async with (
            LocalServer(binary=any_binary, config=rights) as server,
            natsproto.connect(server.url, user="all", password="p") as owner,
            natsproto.connect(server.url, user="few", password="p") as client,
        ):
            made = await owner.jetstream().create_object_store(bucket="b", ttl=timedelta(hours=1))
            await made.put("o", BYTES)
            store = await client.jetstream().object_store("b")
            for change in changes:
                if rights == config:
                    await change(store)
                else:
                    with pytest.raises(PermissionsViolationError, match=r"\$O\.b\.C\."):
                        await change(store)
            assert await made.get("n" if rights == config else "o") == BYTES


@pytest.mark.parametrize("way", ["direct", "subject"])
async def test_a_bucket_without_direct_reads(any_binary: Path, way: str) -> None:
    async with (
        LocalServer(binary=any_binary, config=with_few("open", way)) as server,
        natsproto.connect(server.url, user="all", password="p") as owner,
        natsproto.connect(server.url, user="few", password="p") as client,
    ):
        await (await owner.jetstream().create_object_store(bucket="b", allow_direct=False)).put("o", b"1")
        store = await client.jetstream().object_store("b")
        for read in (store.get_info, store.get):
            with pytest.raises(PermissionsViolationError):
                await read("o")


@pytest.mark.parametrize("way", ["leader", "direct", "subject"])
async def test_sources_make_the_leader_necessary(new_server: LocalServer, way: str) -> None:
    """A source may bring a message at any time: as with replicas, the error says why."""
    config = with_few("open", "metas", "chunks", way)
    async with (
        LocalServer(binary=new_server.binary.path, config=config) as server,
        natsproto.connect(server.url, user="all", password="p") as owner,
        natsproto.connect(server.url, user="few", password="p") as client,
    ):
        js = owner.jetstream()
        await js.create_object_store(bucket="origin")
        await (await js.create_object_store(bucket="b", sources=["origin"])).put("o", b"1")
        store = await client.jetstream().object_store("b")
        for change in (lambda: store.put("n", BYTES), lambda: store.delete("o")):
            if way == "leader":
                await change()
            else:
                with pytest.raises(PermissionsViolationError, match=r"sources.*STREAM\.MSG\.GET\.OBJ_b;"):
                    await change()


async def test_a_consumer_is_no_proof(any_binary: Path) -> None:
    """It may leave messages out: enough to read by, not to replace or remove by."""
    config = with_few("open", "consumer", "metas", "chunks", "purge")
    async with (
        LocalServer(binary=any_binary, config=config) as server,
        natsproto.connect(server.url, user="all", password="p") as owner,
        natsproto.connect(server.url, user="few", password="p") as client,
    ):
        await (await owner.jetstream().create_object_store(bucket="b")).put("o", BYTES)
        store = await client.jetstream().object_store("b")
        assert await store.get("o") == BYTES
        for change in (
            lambda: store.put("o", b"1"),
            lambda: store.delete("o"),
            lambda: store.gc(older_than=timedelta(0)),
        ):
            with pytest.raises(PermissionsViolationError, match=r"STREAM\.MSG\.GET\.OBJ_b"):
                await change()
        assert await store.get("o") == BYTES


async def test_objects_whose_chunks_lie_between_others(any_binary: Path, tmp_path: Path) -> None:
    """Without consumers nothing counts what follows: the leader tells of each chunk."""
    config = with_few("open", "leader")
    data = {"a": pattern(2 * MIB + 1, 1), "b": pattern(2 * MIB + 2, 2)}
    async with (
        LocalServer(binary=any_binary, config=config) as server,
        natsproto.connect(server.url, user="all", password="p") as owner,
        natsproto.connect(server.url, user="few", password="p") as client,
    ):
        full = await owner.jetstream().create_object_store(bucket="b")
        await asyncio.gather(*(full.put(name, each, chunk_size=65536) for name, each in data.items()))
        store = await client.jetstream().object_store("b")
        for name, each in data.items():
            assert await store.get(name) == each
            assert await store.get_range(name, MIB - 3, MIB + 70_000) == each[MIB - 3 : MIB + 70_000]
            async with store.open_reader(name) as reader:
                await reader.seek(MIB + 5)
                assert await reader.read() == each[MIB + 5 :]


async def test_rights_that_were_given_later(tmp_path: Path, new_server: LocalServer) -> None:
    """A refusal is believed for a while, and not beyond the connection."""
    clock = Clock()
    async with (
        LocalServer(binary=new_server.binary.path, config=with_few("open", "direct")) as server,
        natsproto.connect(server.url, user="all", password="p") as owner,
        natsproto.connect(server.url, user="few", password="p") as client,
    ):
        await (await owner.jetstream().create_object_store(bucket="b")).put("o", BYTES)
        store = await client.jetstream().object_store("b")
        assert (await store.list())[0].name == "o"
        assert not store._bucket.ways.allowed(LEADER)
        assert store._bucket.can_batch
        clock.forward(REFUSED_FOR)
        assert store._bucket.ways.allowed(LEADER)


@pytest.mark.parametrize("sets", [("subject",), ("consumer",), ("subject", "consumer")], ids="-".join)
@pytest.mark.parametrize("readable", [True, False])
async def test_a_name_that_is_too_long_for_a_request(
    any_binary: Path, sets: tuple[str, ...], readable: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Other clients take longer names. One of them hides no other object."""
    with LocalServer(binary=any_binary, config=with_few("open", *sets)) as server:
        async with (
            natsproto.connect(server.url, user="all", password="p") as owner,
            natsproto.connect(server.url, user="few", password="p") as few,
        ):
            store = await owner.jetstream().create_object_store(bucket="b", allow_direct=True)
            info = await store.put("a", b"x")
            name = "z" * 3000
            body = encode_meta(replace(info, name=name)) if readable else b"no JSON"
            await owner.publish(meta_subject("b", name), body)
            await owner.flush()
            for _ in range(2):
                opened = await few.jetstream().object_store("b")
                told: list[InvalidMeta] = []
                found = {info.name for info in await opened.list(on_invalid=told.append)}
                assert found - {name} == {"a"}
                assert {meta.subject for meta in told} == (
                    set() if name in found else {meta_subject("b", name)}
                )
                iterated = {info.name async for info in opened.iter(on_invalid=lambda invalid: None)}
                assert iterated - {name} == {"a"}
                assert (await opened.status()).count == len(found)
                assert (await opened.verify()).objects == len(found)


@pytest.mark.parametrize("right", ["", "subject", "direct", "leader", "consumer"])
async def test_a_list_of_names_that_the_server_cannot_send(
    any_binary: Path, right: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """JSON writes each of these characters as six. Whoever may read the metas in order needs no list."""
    most = 1024 * 1024
    monkeypatch.setattr("natsproto.jetstream.streams.MAX_PENDING", most)
    config = f"max_pending: {most}\n" + with_few("open", *filter(None, [right]))
    async with (
        LocalServer(binary=any_binary, config=config) as server,
        natsproto.connect(server.url, user="all", password="p") as owner,
        natsproto.connect(server.url, user="few", password="p") as few,
    ):
        store = await owner.jetstream().create_object_store(bucket="b")
        await store.put("a", b"x")
        for n in range(most // 12_000):
            await owner.publish(f"$O.b.M.{n}{'<' * 3900}", b"")
        await owner.flush()
        opened = await few.jetstream().object_store("b")

        async def iterated() -> list[str]:
            return [info.name async for info in opened.iter(on_invalid=lambda invalid: None)]

        async def listed() -> list[str]:
            return [info.name for info in await opened.list(on_invalid=lambda invalid: None)]

        calls = [opened.names, opened.count, iterated, listed, opened.status, opened.verify]
        for call in calls:
            if right in ("", "subject"):
                with pytest.raises(PermissionsViolationError) as caught:
                    await call()
                assert "cannot send the list of all names in bucket 'b': it is too large" in str(caught.value)
                for way in ("STREAM.MSG.GET.OBJ_b", "DIRECT.GET.OBJ_b", "CONSUMER.CREATE.OBJ_b.>"):
                    assert f"$JS.API.{way}" in str(caught.value)
            else:
                await call()
        if right not in ("", "subject"):
            assert await opened.names() == await listed() == await iterated() == ["a"]
        assert few.stats.reconnects <= 2
        if right:
            assert (await opened.get_info("a")).size == 1


@pytest.mark.parametrize("right", ["", "subject"])
async def test_a_connection_that_is_lost_with_a_list(any_binary: Path, right: str) -> None:
    """The list is asked for again: users with these rights have no other way to read the names."""
    config = with_few("open", *filter(None, [right]))
    async with (
        LocalServer(binary=any_binary, config=config) as server,
        natsproto.connect(server.url, user="all", password="p") as owner,
        FaultProxy(server.url) as proxy,
        natsproto.connect(proxy.url, user="few", password="p") as few,
    ):
        await (await owner.jetstream().create_object_store(bucket="b")).put("a", b"x")
        opened = await few.jetstream().object_store("b")
        cut = 0

        def hook(event: object, frame: bytes) -> Action | None:
            nonlocal cut
            cut += b"subjects_filter" in frame
            return CUT if cut == 1 and b"subjects_filter" in frame else None

        proxy.to_server = hook
        for call in [opened.names, opened.list] if right else [opened.names]:
            cut = 0
            assert len(await call()) == 1
            assert cut > 1


@pytest.mark.parametrize("name", ['a"b', "a\\b", "\u202e", "\xe4"])
async def test_a_refusal_names_any_subject(any_binary: Path, name: str) -> None:
    """The server writes it as a Go string, where some characters are escaped."""
    with LocalServer(binary=any_binary, config=with_few("open", "consumer")) as server:
        async with (
            natsproto.connect(server.url, user="all", password="p") as owner,
            natsproto.connect(server.url, user="few", password="p") as few,
        ):
            subject = f"$O.b.M.{name}"
            for call in (few.request(subject, b"", timeout=20), few.subscribe("$" + subject)):
                with pytest.raises(PermissionsViolationError) as caught:
                    subscription = await call
                    await few.flush()
                    await subscription.next_msg(20)
                assert caught.value.subject in (subject, "$" + subject)
            store = await owner.jetstream().create_object_store(bucket="b", allow_direct=True)
            await store.put("a", b"x")
            await owner.publish(subject, b"encodes no name")
            await owner.flush()
            async with asyncio.timeout(20):
                assert [info.name for info in await (await few.jetstream().object_store("b")).list()] == ["a"]
