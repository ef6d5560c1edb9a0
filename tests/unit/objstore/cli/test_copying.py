"""``cp`` and ``mv``: between names, buckets and files; nothing is lost."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from objstore import LinkError, ObjectNotFoundError, ObjectStore, RevisionConflictError
from objstore.cli.copying import check_cp
from objstore.cli.output import CommandError
from objstore.cli.parser import parse
from support.memory_server import MemoryServer

DATA = bytes(range(256)) * 40


@pytest.fixture
async def store(server: MemoryServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_bytes(DATA)
    (tmp_path / "photos" / "2025").mkdir(parents=True)
    (tmp_path / "photos" / "2025" / "a.jpg").write_bytes(b"a")
    store = await server.bucket()
    for name in ("a", "dir/b", "dir/c/d"):
        await store.put(name, DATA, "text", headers={"H": "1"}, metadata={"k": "v"}, chunk_size=1000)
    return store


@pytest.fixture
async def other(server: MemoryServer, store: ObjectStore) -> ObjectStore:
    return await server.bucket("other")


async def names(store: ObjectStore) -> list[str]:
    return await store.names(live=True)


async def test_cp_within_a_bucket(store: ObjectStore, command: Any) -> None:
    _, err = await command("cp", "b", "a", "new")
    assert "copied 'natsobj://b/a' to 'natsobj://b/new': 10.0 KiB" in err
    info = await store.get_info("new")
    assert (info.description, info.metadata["k"], await store.get("new")) == ("text", "v", DATA)
    await command("cp", "b", "dir/b", "a", "copies/")
    assert await names(store) == ["a", "copies/a", "copies/b", "dir/b", "dir/c/d", "new"]
    await command("cp", "-r", "b", "dir/", "again")
    assert (await names(store))[1:3] == ["again/b", "again/c/d"]
    with pytest.raises(CommandError, match="the same object") as told:
        await command("cp", "b", "a", "a")
    assert told.value.code == 4


async def test_cp_between_buckets(store: ObjectStore, other: ObjectStore, command: Any) -> None:
    out, _ = await command("cp", "natsobj://b/a", "natsobj://other/x", "--json")
    document = json.loads(out)
    assert (document["source"], document["target"]) == ("natsobj://b/a", "natsobj://other/x")
    await command("cp", "natsobj://b/dir/**", "natsobj://other/")
    await command("cp", "-r", "natsobj://b", "natsobj://other/all/")
    assert await names(other) == ["all/a", "all/dir/b", "all/dir/c/d", "b", "c/d", "x"]


async def test_cp_from_and_to_files(store: ObjectStore, command: Any, tmp_path: Path) -> None:
    await command("cp", "file", "natsobj://b/up/")
    await command("cp", "-r", "photos", "file", "natsobj://b/down")
    assert await names(store) == ["a", "dir/b", "dir/c/d", "down/2025/a.jpg", "down/file", "up/file"]
    await command("cp", "natsobj://b/a", "a")
    assert (tmp_path / "a").read_bytes() == DATA
    with pytest.raises(CommandError, match="exists: pass --force") as told:
        await command("cp", "natsobj://b/a", "a")
    assert told.value.code == 4
    await command("cp", "-f", "natsobj://b/a", "a")
    await command("cp", "-r", "natsobj://b/dir", "out")
    assert (tmp_path / "out" / "c" / "d").read_bytes() == DATA
    await command("cp", "natsobj://b/a", "photos")
    assert (tmp_path / "photos" / "a").read_bytes() == DATA
    await store.put("../evil", b"")
    await store.put("d/" * 1400 + "f", b"")
    with pytest.raises(CommandError, match="cp: 2 of 8 failed") as told:
        await command("cp", "-r", "natsobj://b", "out2")
    assert told.value.code == 2
    assert not (tmp_path / "out2" / "d").exists()
    assert (tmp_path / "out2" / "dir" / "b").read_bytes() == DATA
    assert not (tmp_path / "evil").exists()


async def test_a_directory_that_is_not_read_completely(
    store: ObjectStore, command: Any, tmp_path: Path
) -> None:
    (tmp_path / "photos" / "dangling").symlink_to("nowhere")
    for words in (["cp", "-r", "photos", "natsobj://b/x/"], ["put", "-r", "b", "photos", "--prefix", "y/"]):
        with pytest.raises(CommandError, match="not everything could be read") as told:
            await command(*words)
        assert told.value.code == 1
    assert (await names(store))[-2:] == ["x/2025/a.jpg", "y/2025/a.jpg"]


async def test_cp_of_a_stream(
    store: ObjectStore, command: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with open(tmp_path / "file") as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        await command("cp", "-", "natsobj://b/streamed")
    assert await store.get("streamed") == DATA
    monkeypatch.setattr("objstore.cli.transfer.standard_output", lambda: open(tmp_path / "out", "wb", 0))  # noqa: SIM115
    await command("cp", "natsobj://b/a", "-")
    assert (tmp_path / "out").read_bytes() == DATA


async def test_mv_within_a_bucket(store: ObjectStore, command: Any) -> None:
    before = await store.get_info("a")
    _, err = await command("mv", "b", "a", "new")
    assert "moved 'natsobj://b/a' to 'natsobj://b/new'" in err
    after = await store.get_info("new")
    assert (after.nuid, await names(store)) == (before.nuid, ["dir/b", "dir/c/d", "new"])
    with pytest.raises(CommandError, match="exists: pass --force") as told:
        await command("mv", "b", "new", "dir/b")
    assert told.value.code == 4
    await store.put("new", b"newer")
    await command("mv", "-f", "b", "new", "dir/b")
    assert await names(store) == ["dir/b", "dir/c/d"]
    assert await store.get("dir/b") == b"newer"
    await command("mv", "-r", "b", "dir/", "moved/")
    assert await names(store) == ["moved/b", "moved/c/d"]


async def test_mv_between_buckets(store: ObjectStore, other: ObjectStore, command: Any) -> None:
    await command("mv", "natsobj://b/a", "natsobj://other/a")
    assert await names(store) == ["dir/b", "dir/c/d"]
    info = await other.get_info("a")
    assert (info.description, info.headers, await other.get("a")) == ("text", {"H": ["1"]}, DATA)
    with pytest.raises(ObjectNotFoundError):
        await command("mv", "natsobj://b/none", "natsobj://other/x")
    await store.add_link("link", await store.get_info("dir/b"))
    await store.add_bucket_link("all", "other")
    await command("mv", "natsobj://b/link", "natsobj://b/all", "natsobj://other/")
    assert (await other.get_info("link")).links == ["b/dir/b"]
    assert (await other.get_info("all")).links == ["other"]
    assert await names(store) == ["dir/b", "dir/c/d"]


async def test_mv_reads_no_link_that_came_meanwhile(
    store: ObjectStore, other: ObjectStore, command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = await store.put("secret", b"secret")
    exists = ObjectStore.exists

    async def replaced(self: ObjectStore, name: str) -> bool:
        await store.delete("a")
        await store.add_link("a", secret)
        return await exists(self, name)

    monkeypatch.setattr(ObjectStore, "exists", replaced)
    with pytest.raises(LinkError):
        await command("mv", "natsobj://b/a", "natsobj://other/a")
    assert await names(other) == []
    assert (await store.get_info("a")).is_link


async def test_what_changes_meanwhile_is_kept(
    store: ObjectStore, other: ObjectStore, command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is deleted is the revision that was copied, or nothing."""
    plain = ObjectStore.copy

    async def then_changed(self: ObjectStore, name: str, *some: Any, **options: Any) -> Any:
        info = await plain(self, name, *some, **options)
        await store.put(name, b"newer")
        return info

    monkeypatch.setattr(ObjectStore, "copy", then_changed)
    with pytest.raises(RevisionConflictError):
        await command("mv", "natsobj://b/a", "natsobj://other/a")
    assert (await store.get("a"), await other.get("a")) == (b"newer", DATA)

    async def first_changed(self: ObjectStore, name: str, *some: Any, **options: Any) -> Any:
        await store.put(name, b"newest")
        return await plain(self, name, *some, **options)

    monkeypatch.setattr(ObjectStore, "copy", first_changed)
    with pytest.raises(CommandError, match="was changed meanwhile: it is not deleted") as told:
        await command("mv", "natsobj://b/a", "natsobj://other/b")
    assert told.value.code == 4
    assert await store.get("a") == b"newest"


async def test_mv_from_and_to_files(
    store: ObjectStore, command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CommandError, match="'natsobj://b/a' exists: pass --force"):
        await command("mv", "file", "natsobj://b/a")
    assert (tmp_path / "file").exists()
    await command("mv", "file", "natsobj://b/")
    assert not (tmp_path / "file").exists()
    await command("mv", "natsobj://b/file", "back")
    assert (tmp_path / "back").read_bytes() == DATA
    assert await names(store) == ["a", "dir/b", "dir/c/d"]
    with pytest.raises(CommandError, match="exists"):
        await command("mv", "natsobj://b/a", "back")
    assert await store.exists("a")
    await command("mv", "-f", "back", "natsobj://b/a")
    await command("cp", "natsobj://b/a", "back")

    plain = ObjectStore.put_file

    async def then_changed(self: ObjectStore, name: str, path: str, **options: Any) -> Any:
        info = await plain(self, name, path, **options)
        found = os.stat(path)
        while os.stat(path).st_ctime_ns == found.st_ctime_ns:  # the clock of files may be coarse
            Path(path).write_bytes(DATA[::-1])
            os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))  # as copies that keep times do
        return info

    monkeypatch.setattr(ObjectStore, "put_file", then_changed)
    with pytest.raises(CommandError, match="was changed while it was stored: it is not deleted"):
        await command("mv", "back", "natsobj://b/")
    assert (tmp_path / "back").read_bytes() == DATA[::-1]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["cp", "file", "other"], "write BUCKET NAME NEW"),
        (["cp", "natsobj://b/a", "file", "other"], "'other' is a file, too"),
        (["cp", "file", "natsobj://b/a", "file"], "is a file, too"),
        (["cp", "photos", "natsobj://b/"], "'photos' is a directory: pass -r"),
        (["cp", "natsobj://b/dir/", "x/"], "is a directory: pass -r"),
        (["cp", "natsobj://b/a", "natsobj://b/b", "natsobj://b/c"], "is no directory: end it with /"),
        (["cp", "natsobj://b/*", "natsobj://b/c"], "is no directory: end it with /"),
        (["cp", "natsobj://b/*", "file"], "is no directory: end it with /"),
        (["cp", "-", "file", "natsobj://b/"], "standard input can only be copied, and alone"),
        (["mv", "-", "natsobj://b/x"], "standard input can only be copied"),
        (["mv", "natsobj://b/x", "-"], "cannot be moved there"),
        (["cp", "natsobj://b/x", "-", "--json"], "--json wants it"),
    ],
)
def test_what_cannot_work(store: ObjectStore, words: list[str], why: str) -> None:
    with pytest.raises(CommandError, match=why) as told:
        check_cp(parse(words))
    assert told.value.code == 2


async def test_two_sources_of_one_target(store: ObjectStore, command: Any, tmp_path: Path) -> None:
    await store.put("a", b"")
    await store.put("x/a", b"")
    with pytest.raises(CommandError, match="would both be 'natsobj://b/new/a'"):
        await command("cp", "b", "a", "x/a", "new/")
    with open(tmp_path / "file") as stdin, pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdin", stdin)
        with pytest.raises(CommandError, match="standard input has no name"):
            await command("cp", "-", "natsobj://b/")


@pytest.mark.parametrize("verb", ["cp", "mv"])
async def test_a_target_that_is_the_source_of_another(
    server: MemoryServer, store: ObjectStore, command: Any, verb: str
) -> None:
    """They go at the same time: one would be copied after it was replaced."""
    bucket = await server.bucket("tree")
    await bucket.put("x/x/zebra", b"theirs")
    await bucket.put("x/zebra", b"mine")
    for number in range(20):
        await bucket.put(f"x/{number}", b"")
    with pytest.raises(CommandError, match="1 of 22 failed") as told:
        await command(verb, "-r", *["-f"] * (verb == "mv"), "natsobj://tree/x/", "natsobj://tree/")
    assert told.value.code == 4
    assert await bucket.get("zebra") == b"mine"
    assert await bucket.get("x/x/zebra") == b"theirs"
    if verb == "mv":
        await command("mv", "-r", "natsobj://tree/x/", "natsobj://tree/")
        assert await bucket.get("x/zebra") == b"theirs"
    else:
        assert await bucket.get("x/zebra") == b"mine"


@pytest.mark.parametrize("verb", ["cp", "mv"])
async def test_two_names_of_one_file(store: ObjectStore, command: Any, tmp_path: Path, verb: str) -> None:
    """What one step has written is not replaced by another, and no object is deleted whose file is gone."""
    (tmp_path / "out" / "dir").mkdir(parents=True)
    (tmp_path / "out" / "latest").symlink_to("dir")
    await store.put("latest/b", b"theirs")
    if verb == "cp":
        (tmp_path / "out" / "dir" / "b").write_bytes(b"old")
    with pytest.raises(CommandError, match="1 of 4 failed") as told:
        await command(verb, "-r", "-f", "natsobj://b/", "out/")
    assert told.value.code == 4
    written = (tmp_path / "out" / "dir" / "b").read_bytes()
    assert written in (DATA, b"theirs")
    left = await names(store)
    if verb == "mv":
        assert left == ["latest/b" if written == DATA else "dir/b"]
    else:
        assert len(left) == 4


async def test_a_file_of_others_directory(store: ObjectStore, command: Any, tmp_path: Path) -> None:
    await store.put("dir", b"in the way")
    with pytest.raises(CommandError, match="1 of 4 failed") as told:
        await command("mv", "-r", "natsobj://b/", "out/")
    assert told.value.code == 2
    assert (tmp_path / "out" / "dir" / "c" / "d").read_bytes() == DATA
    assert await names(store) == ["dir"]


@pytest.mark.parametrize("verb", ["cp", "mv"])
async def test_names_that_look_like_addresses(server: MemoryServer, command: Any, verb: str) -> None:
    bucket = await server.bucket("tree")
    for name in ("natsobj://tree/keep", "keep", "a*"):
        await bucket.put(name, name.encode())
    await command(verb, "--literal", "tree", "--", "natsobj://tree/keep", "a*", "to/")
    assert await bucket.get("to/keep") == b"natsobj://tree/keep"
    assert await bucket.get("to/a*") == b"a*"
    assert await bucket.get("keep") == b"keep"
