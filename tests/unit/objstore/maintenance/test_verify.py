"""Does what is stored agree with the metas? Each kind of disagreement, and what only looks like one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from objstore import ObjectInfo, ObjectStore, VerifyReport
from objstore.bucket import bucket as _bucket
from objstore.bucket.binding import bind
from objstore.bucket.bucket import Bucket
from objstore.commit.renames import commit_meta
from objstore.format.codec import encode_meta
from objstore.format.marks import RENAMED_FROM, RENAMING
from objstore.format.naming import meta_subject
from objstore.maintenance import verify as module
from objstore.maintenance.verify import verify
from objstore.read import get
from objstore.read.parts import NotWhole
from support.at_once import Calls
from support.memory_server import ROLL_UP, MemoryServer


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RECHECK_DELAYS", (0.0, 0.0))
    monkeypatch.setattr(_bucket, "RECHECK_DELAYS", (0.0,))


def chunk(info: ObjectInfo) -> str:
    return f"$O.b.C.{info.nuid}"


def kinds(report: VerifyReport) -> list[tuple[str, str]]:
    return [(problem.kind, problem.name) for problem in report.problems]


def forge(server: MemoryServer, info: ObjectInfo, **changes: Any) -> None:
    payload = encode_meta(replace(info, **changes))
    server.put_raw(meta_subject("b", info.name), payload, ROLL_UP)


@pytest.mark.parametrize("deep", [False, True])
async def test_all_is_well(store: ObjectStore, bucket: Bucket, deep: bool) -> None:
    first = await store.put("a", bytes(1000), chunk_size=100)
    await store.put("empty", b"")
    await store.add_link("l", first)
    await store.put("gone", b"x")
    await store.delete("gone")
    report = await verify(bucket, deep=deep)
    assert report.ok
    assert (report.bucket, report.objects, report.links, report.size, report.deep) == ("b", 2, 1, 1000, deep)


@pytest.mark.parametrize("deep", [False, True])
async def test_chunks_that_are_missing_or_too_many(
    server: MemoryServer, store: ObjectStore, bucket: Bucket, deep: bool
) -> None:
    missing = await store.put("missing", bytes(1000), chunk_size=100)
    extra = await store.put("extra", bytes(1000), chunk_size=100)
    stream = server.stream()
    stream.remove([stream.of(chunk(missing))[3].seq])
    server.put_raw(chunk(extra), b"more")
    report = await verify(bucket, deep=deep)
    assert sorted(kinds(report)) == [("extra chunks", "extra"), ("missing chunks", "missing")]
    details = {problem.name: problem.detail for problem in report.problems}
    assert details == {"missing": "9 stored, 10 recorded", "extra": "11 stored, 10 recorded"}


async def test_several_objects_are_looked_at_again_at_once(
    server: MemoryServer, store: ObjectStore, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"{number:02}" for number in range(module.CONFIRMED_AT_ONCE * 2)]
    for name in names:
        server.stream().remove([server.stream().of(chunk(await store.put(name, b"x")))[0].seq])
    confirm = Calls(module._confirm)
    monkeypatch.setattr(module, "_confirm", confirm)
    report = await verify(bucket, deep=False)
    assert kinds(report) == [("missing chunks", name) for name in names]
    assert confirm.most == module.CONFIRMED_AT_ONCE


async def test_an_empty_message_at_the_end_is_some_writers_custom(
    server: MemoryServer, store: ObjectStore, bucket: Bucket
) -> None:
    info = await store.put("a", bytes(1000), chunk_size=100)
    server.put_raw(chunk(info), b"")
    assert (await verify(bucket, deep=True)).ok


async def test_wrong_bytes_are_found_by_a_deep_look_only(
    server: MemoryServer, store: ObjectStore, bucket: Bucket
) -> None:
    info = await store.put("a", b"content")
    message = server.stream().of(chunk(info))[0]
    message.payload = b"CONTENT"
    assert (await verify(bucket, deep=False)).ok
    report = await verify(bucket, deep=True)
    assert kinds(report) == [("damaged", "a")]
    assert "digest" in report.problems[0].detail.lower() or "SHA-256" in report.problems[0].detail


async def test_metas_that_cannot_be(server: MemoryServer, store: ObjectStore, bucket: Bucket) -> None:
    info = await store.put("a", b"content")
    seq = server.put_raw(meta_subject("b", "bad"), b"no JSON")
    forge(server, info, nuid="*")
    other = await store.put("size", b"content")
    forge(server, other, size=0)
    report = await verify(bucket, deep=False)
    assert sorted(kinds(report)) == [("unreadable meta", "bad"), ("unusable nuid", "a")]
    assert report.problems[0].revision == seq
    forge(server, other, size=5, chunks=0)
    server.stream().remove(each.seq for each in server.stream().of(chunk(other)))
    assert ("impossible size", "size") in kinds(await verify(bucket, deep=False))


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("wrong", ["missing chunks", "damaged", "another name's chunks"])
async def test_a_name_that_cannot_be_looked_at_again(
    server: MemoryServer, store: ObjectStore, bucket: Bucket, deep: bool, wrong: str
) -> None:
    """It is too long for a user who has nothing but consumers: the others are verified all the same."""
    good = await store.put("good", b"content")
    other = await store.put("other", b"content")
    name = "x" * 3050  # as other programs can store it
    long = replace(other, name=name)
    if wrong == "missing chunks":
        long = replace(long, nuid="N" * 22)
    elif wrong == "damaged":
        long = replace(long, digest="SHA-256=" + "0" * 64)
    server.put_raw(meta_subject("b", name), encode_meta(long))
    if wrong == "damaged":  # the only name of its chunks
        server.stream().remove([server.stream().of(meta_subject("b", "other"))[0].seq])
    else:
        server.put_raw(meta_subject("b", "other"), encode_meta(other), ROLL_UP)
    server.refused = {"DIRECT.GET", "STREAM.MSG.GET"}
    found = kinds(await verify(bucket, deep=deep))
    about = [kind for kind, of in found if of == name]
    assert about == ([wrong] if wrong == "missing chunks" or (wrong == "damaged" and deep) else [])
    assert good.name not in [of for _, of in found]


async def test_contents_that_grow_while_they_are_read(
    server: MemoryServer, store: ObjectStore, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others can store more for as long as they are read."""
    info = await store.put("a", b"content")
    messages, read = Bucket.messages, 0

    async def grows(self: Bucket, *args: Any, **options: Any) -> AsyncIterator[Any]:
        nonlocal read
        async for message in messages(self, *args, **options):
            read += 1
            assert read < 100
            server.put_raw(chunk(info), b"more")
            yield message

    monkeypatch.setattr(Bucket, "messages", grows)
    server.refused = {"DIRECT.GET", "CONSUMER.CREATE"}  # one by one, from the leader
    assert (await module._stored_content(bucket, info.nuid))[2] == 1


async def test_a_rename_that_is_half_done(server: MemoryServer, store: ObjectStore, bucket: Bucket) -> None:
    info = await store.put("a", b"content")
    await commit_meta(bucket, replace(info, metadata={RENAMING: "new"}), info.revision)
    await commit_meta(bucket, replace(info, name="new", metadata={RENAMED_FROM: "a"}), 0)
    report = await verify(bucket, deep=True)
    assert kinds(report) == [("half-done rename", "a")]
    assert report.problems[0].detail == "to 'new'"


async def test_what_is_replaced_meanwhile_is_no_problem(
    server: MemoryServer, store: ObjectStore, bucket: Bucket
) -> None:
    """The counts come from another answer than the metas."""
    info = await store.put("a", b"content")
    first = True

    def hook(verb: str, body: dict[str, Any]) -> None:
        nonlocal first
        if verb == "STREAM.INFO" and "subjects_filter" in body and first:
            first = False
            stream = server.stream()
            stream.remove(each.seq for each in stream.of(chunk(info)))
            forge(server, info, nuid="NEWER")
            server.put_raw("$O.b.C.NEWER", b"content")

    server.hook = hook
    assert (await verify(bucket, deep=False)).ok
    assert not first


async def test_what_expires_is_no_problem(server: MemoryServer, store: ObjectStore, bucket: Bucket) -> None:
    """Chunks are older than their meta, and expire before it."""
    info = await store.put("a", bytes(1000), chunk_size=100)
    server.stream().remove([server.stream().of(chunk(info))[0].seq])
    server.stream().config["max_age"] = int(timedelta(hours=1).total_seconds() * 1e9)
    assert (await verify(await bind(server.js, "b"), deep=False)).ok
    assert not (await verify(bucket, deep=False)).ok


async def test_chunks_that_come_and_go_all_the_time(
    store: ObjectStore, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One object that cannot be read whole is no reason to tell nothing of the others."""
    await store.put("a", b"x")
    await store.put("b", b"x")

    async def blocks(bucket: Bucket, info: ObjectInfo) -> Any:
        if info.name == "a":
            raise NotWhole("read it again")
        yield [b"x"]

    monkeypatch.setattr(module, "blocks", blocks)
    report = await verify(bucket, deep=True)
    assert (report.objects, report.problems) == (2, [])


# -- names that share their chunks ------------------------------------------------------------------------


def forged_names(server: MemoryServer, info: ObjectInfo, count: int, **changes: Any) -> list[str]:
    """Metas of other names with the chunks of this one; a change is a function of the number."""
    names = [f"{number:03}" for number in range(count)]
    for number, name in enumerate(names):
        changed = {field: change(number) for field, change in changes.items()}
        forge(server, replace(info, name=name), **changed)
    return names


async def reads(server: MemoryServer, bucket: Bucket, *infos: ObjectInfo) -> tuple[VerifyReport, int]:
    """Verify the bucket, and count the requests for these chunks."""
    server.asked.clear()
    report = await verify(bucket, deep=True)
    subjects = {chunk(info) for info in infos}
    return report, sum(
        verb == "DIRECT.GET" and body.get("next_by_subj") in subjects for verb, body in server.asked
    )


@pytest.fixture
async def shared(store: ObjectStore) -> ObjectInfo:
    return await store.put("z", bytes(range(256)) * 4, chunk_size=100)


async def test_chunks_of_several_names_are_read_once(
    server: MemoryServer, bucket: Bucket, shared: ObjectInfo
) -> None:
    _, alone = await reads(server, bucket, shared)
    names = forged_names(server, shared, 100)
    report, several = await reads(server, bucket, shared)
    assert (report.ok, report.objects, report.size) == (True, len(names) + 1, 101 * shared.size)
    assert several == alone > 0


@pytest.mark.parametrize("change", ["digest", "size", "both"])
async def test_metas_with_other_contents_are_judged_unread(
    server: MemoryServer, bucket: Bucket, shared: ObjectInfo, change: str
) -> None:
    """What the chunks are is known as soon as they have been read once."""
    _, alone = await reads(server, bucket, shared)
    changes: dict[str, Any] = {
        "digest": lambda number: f"SHA-256={number:064x}",
        "size": lambda number: shared.size + number + 1,
    }
    names = forged_names(server, shared, 50, **(changes if change == "both" else {change: changes[change]}))
    report, several = await reads(server, bucket, shared)
    assert kinds(report) == [("damaged", name) for name in names]
    assert {each.detail for each in report.problems} == {"it has the chunks of 'z': size or digest differ"}
    assert several == alone


async def test_other_clients_nuids_belong_to_no_name(
    server: MemoryServer, bucket: Bucket, store: ObjectStore
) -> None:
    """The digest of the bytes is known even if the first name has another one."""
    info = await store.put("source", b"content" * 100, chunk_size=100)
    for each in server.stream().of(chunk(info)):
        server.put_raw("$O.b.C.FOREIGN", each.payload)
    await store.delete("source")
    foreign = replace(info, nuid="FOREIGN")
    names = forged_names(server, foreign, 20, digest=lambda number: f"SHA-256={number:064x}")
    forge(server, replace(foreign, name="zz"))
    report, several = await reads(server, bucket, foreign)
    assert kinds(report) == [("damaged", name) for name in names]
    assert several <= 2


@pytest.mark.parametrize("whole", [False, True])
async def test_no_size_is_right(
    server: MemoryServer, bucket: Bucket, store: ObjectStore, monkeypatch: pytest.MonkeyPatch, whole: bool
) -> None:
    """A read that fails for the size tells nothing of the bytes: after a few, they are read by themselves."""
    monkeypatch.setattr(get, "RECHECK_DELAYS", (0.0,))
    info = await store.put("source", b"content" * 100, chunk_size=100)
    for each in server.stream().of(chunk(info)):
        server.put_raw("$O.b.C.FOREIGN", each.payload)
    await store.delete("source")
    foreign = replace(info, nuid="FOREIGN")
    names = forged_names(server, foreign, 40, size=lambda number: info.size + 1 + number)
    if whole:
        forge(server, replace(foreign, name="zz"))
    report, several = await reads(server, bucket, foreign)
    assert kinds(report) == [("damaged", name) for name in names]
    assert several <= 8 * module.READS  # of 40 names


async def test_each_name_of_damaged_chunks_is_reported(
    server: MemoryServer, bucket: Bucket, store: ObjectStore, shared: ObjectInfo
) -> None:
    server.stream().of(chunk(shared))[0].payload = b"y" * 100
    _, alone = await reads(server, bucket, shared)
    await store.put("between", b"x")
    names = forged_names(server, shared, 10)
    report, several = await reads(server, bucket, shared)
    assert several == alone
    assert kinds(report) == [("damaged", name) for name in ["z", *names]]
    own = report.problems[0].detail
    assert own == "object 'z' does not have the recorded digest"
    assert {each.detail for each in report.problems[1:]} == {f"it has the chunks of 'z': {own}"}
    revisions = {each.name: each.revision for each in await store.list()}
    assert all(each.revision == revisions[each.name] for each in report.problems)


async def test_a_name_that_was_replaced_meanwhile_does_not_share(
    server: MemoryServer, bucket: Bucket, store: ObjectStore, shared: ObjectInfo
) -> None:
    names = forged_names(server, shared, 3)
    server.stream().of(chunk(shared))[0].payload = b"y" * 100
    replaced = False

    def hook(verb: str, body: dict[str, Any]) -> None:
        nonlocal replaced
        if body.get("next_by_subj") == chunk(shared) and not replaced:
            replaced = True
            server.put_raw("$O.b.C.NEWER", b"content")
            forge(server, replace(shared, name=names[1]), nuid="NEWER", size=7, chunks=1)

    server.hook = hook
    report = await verify(bucket, deep=True)
    assert replaced
    assert kinds(report) == [("damaged", name) for name in ("z", names[0], names[2])]


async def test_a_name_that_was_replaced_meanwhile_proves_nothing(
    server: MemoryServer, bucket: Bucket, shared: ObjectInfo
) -> None:
    """The next one is read itself."""
    names = forged_names(server, shared, 2)
    server.stream().of(chunk(shared))[0].payload = b"y" * 100

    def hook(verb: str, body: dict[str, Any]) -> None:
        if body.get("next_by_subj") == chunk(shared):
            server.hook = None
            forge(server, shared, nuid="NEWER", size=7, chunks=1)

    server.hook = hook
    report = await verify(bucket, deep=True)
    assert kinds(report) == [("damaged", name) for name in names]
