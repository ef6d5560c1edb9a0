"""``sync``: both sides become equal, nothing outside of them is touched, nothing is deleted on a guess."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from objstore import LinkError, ObjectStore
from objstore.cli.output import CommandError
from objstore.cli.parser import parse
from objstore.cli.sync import Sides, Step, _take, check_sync
from support.memory_server import MemoryServer

FILES = {"a": b"a" * 3000, "dir/b": b"b", "dir/deep/c": b"", ".hidden": b"h"}


@pytest.fixture
async def store(server: MemoryServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    monkeypatch.chdir(tmp_path)
    for name, data in FILES.items():
        path = tmp_path / "here" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return await server.bucket()


def content(directory: Path) -> dict[str, bytes]:
    found = (path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in found}


async def objects(store: ObjectStore, prefix: str = "") -> dict[str, bytes]:
    names = await store.names(prefix, live=True)
    return {name[len(prefix) :]: await store.get(name) for name in names}


async def test_both_ways(store: ObjectStore, command: Any, tmp_path: Path) -> None:
    _, err = await command("sync", "here", "natsobj://b/p/")
    assert err.splitlines()[-1] == "stored 4 files (2.9 KiB), deleted 0, 0 were the same"
    assert await objects(store, "p/") == FILES
    _, err = await command("sync", "here", "natsobj://b/p")
    assert err == "stored 0 files (0 B), deleted 0, 4 were the same\n"
    _, err = await command("sync", "natsobj://b/p", "there/new")
    assert err.splitlines()[-1] == "wrote 4 files (2.9 KiB), deleted 0, 0 were the same"
    assert content(tmp_path / "there" / "new") == FILES
    _, err = await command("sync", "natsobj://b/p", "there/new")
    assert err == "wrote 0 files (0 B), deleted 0, 4 were the same\n"


async def test_only_what_differs(store: ObjectStore, command: Any, tmp_path: Path) -> None:
    await command("sync", "here", "natsobj://b")
    before = await store.get_info("a")
    (tmp_path / "here" / "dir" / "b").write_bytes(b"B")  # of the same size
    out, _ = await command("sync", "here", "natsobj://b", "--json")
    assert json.loads(out) == {
        "action": "put", "done": True, "bucket": "b", "name": "dir/b", "file": "here/dir/b", "size": 1,
    }  # fmt: skip
    assert (await store.get("dir/b"), (await store.get_info("a")).revision) == (b"B", before.revision)
    await store.put("dir/b", b"C")
    await command("sync", "natsobj://b", "here")
    assert (tmp_path / "here" / "dir" / "b").read_bytes() == b"C"


async def test_delete_objects(store: ObjectStore, command: Any) -> None:
    await store.put("p", b"outside")
    await store.put("p2/x", b"outside")
    await store.put("p/old", b"")
    await store.add_link("p/link", await store.get_info("p"))
    await command("sync", "here", "natsobj://b/p")
    assert (await objects(store, "p/")).keys() == {*FILES, "old", "link"}
    out, _ = await command("sync", "here", "natsobj://b/p", "--delete", "--dry-run")
    assert out == "delete natsobj://b/p/old\n"
    assert await store.exists("p/old")
    await command("sync", "here", "natsobj://b/p", "--delete")
    assert (await store.names(live=True)) == sorted(["p", "p2/x", "p/link", *(f"p/{name}" for name in FILES)])


async def test_delete_files(store: ObjectStore, command: Any, tmp_path: Path) -> None:
    await store.put("p/a", FILES["a"])
    await store.put("outside", b"")
    (tmp_path / "here" / "elsewhere").symlink_to(tmp_path)
    (tmp_path / "precious").write_bytes(b"")
    out, _ = await command("sync", "natsobj://b/p", "here", "--delete", "--dry-run")
    assert sorted(out.splitlines()) == [f"delete here/{name}" for name in (".hidden", "dir/b", "dir/deep/c")]
    assert content(tmp_path / "here").keys() >= FILES.keys()
    _, err = await command("sync", "natsobj://b/p", "here", "--delete")
    assert err.splitlines()[-1] == "wrote 0 files (0 B), deleted 3, 1 were the same"
    assert sorted(os.listdir(tmp_path / "here")) == ["a", "elsewhere"]
    assert (tmp_path / "precious").exists()


async def test_nothing_is_deleted_on_a_guess(
    server: MemoryServer, store: ObjectStore, command: Any, tmp_path: Path
) -> None:
    """A meta that cannot be read may be the one of a file; a file that cannot be read is not gone."""
    await store.put("p/x", b"x")
    server.put_raw(store.bound_bucket.meta_subject("p/a"), b"no JSON")
    with pytest.raises(
        CommandError, match="not everything could be read, see the warnings, so nothing was deleted"
    ) as told:
        await command("sync", "natsobj://b/p", "here", "--delete")
    assert told.value.code == 1
    assert content(tmp_path / "here") == {**FILES, "x": b"x"}
    (tmp_path / "here" / "dangling").symlink_to("nowhere")
    await store.put("p/y", b"y")
    with pytest.raises(
        CommandError, match="not everything could be read, see the warnings, so nothing was deleted"
    ):
        await command("sync", "here", "natsobj://b/p", "--delete")
    assert await store.exists("p/y")


async def test_a_failure_deletes_nothing(store: ObjectStore, command: Any, tmp_path: Path) -> None:
    await store.put("p/../../evil", b"")
    await store.put("p/good", b"g")
    with pytest.raises(CommandError, match="sync: 1 of 2 failed") as told:
        await command("sync", "natsobj://b/p", "here", "--delete")
    assert told.value.code == 2
    assert content(tmp_path / "here") == {**FILES, "good": b"g"}
    assert not (tmp_path / "evil").exists()
    assert not (tmp_path.parent / "evil").exists()


async def test_links_are_left_alone(store: ObjectStore, command: Any, tmp_path: Path) -> None:
    await store.add_link("p/link", await store.put("x", b"x"))
    _, err = await command("sync", "natsobj://b/p", "there")
    assert err.splitlines()[0] == "1 link is left alone"
    assert not (tmp_path / "there").exists()


async def test_a_link_that_came_since_is_not_read(store: ObjectStore, tmp_path: Path) -> None:
    await store.add_link("p/link", await store.put("x", b"x"))
    sides = Sides(str(tmp_path / "there"), "p/", {}, {}, local_complete=True, remote_complete=True)
    with pytest.raises(LinkError):
        await _take(Step("get", "p/link", str(tmp_path / "there" / "link")), sides, store, None)
    assert content(tmp_path / "there") == {}


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["here", "there"], "one side is a directory"),
        (["natsobj://b", "natsobj://c"], "one side is a directory"),
        (["nowhere", "natsobj://b"], "'nowhere' does not exist"),
        (["here/a", "natsobj://b"], "'here/a' is not a directory"),
        (["natsobj://b", "here/a"], "'here/a' is not a directory"),
        (["s3://b", "natsobj://b"], "no address of an object"),
        (["here", "natsobj://b.c/"], "cannot be a bucket's name"),
    ],
)
def test_what_cannot_work(store: ObjectStore, words: list[str], why: str) -> None:
    with pytest.raises(CommandError, match=why) as told:
        check_sync(parse(["sync", *words]))
    assert told.value.code == 2
