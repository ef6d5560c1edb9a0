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


async def test_what_cannot_be_read_of_another_directory(
    server: MemoryServer, store: ObjectStore, command: Any, tmp_path: Path
) -> None:
    """Who may write there does not decide what is deleted here."""
    await store.put("p/a", FILES["a"])
    for name in ("tmp/x", "p", "photos"):
        server.put_raw(store.bound_bucket.meta_subject(name), b"no JSON")
    await command("sync", "natsobj://b/p", "here", "--delete")
    assert content(tmp_path / "here") == {"a": FILES["a"]}
    server.put_raw("$O.b.M.!", b"no JSON")  # no name: it may be that of any
    with pytest.raises(CommandError, match="not everything could be read"):
        await command("sync", "natsobj://b/p", "here", "--delete")


async def test_a_failure_deletes_nothing(store: ObjectStore, command: Any, tmp_path: Path) -> None:
    await store.put("p/../../evil", b"")
    await store.put("p/good", b"g")
    with pytest.raises(CommandError, match="sync: 1 of 2 failed") as told:
        await command("sync", "natsobj://b/p", "here", "--delete")
    assert told.value.code == 2
    assert content(tmp_path / "here") == {**FILES, "good": b"g"}
    assert not (tmp_path / "evil").exists()
    assert not (tmp_path.parent / "evil").exists()


@pytest.mark.parametrize("name", [f".objstore-{'0a' * 8}", f"dir/.x.{'0a' * 6}.part"])
async def test_a_name_of_an_unfinished_transfer(
    store: ObjectStore, command: Any, tmp_path: Path, name: str
) -> None:
    """The directory would not show such a file: each later sync would find it changed."""
    await store.put(f"p/{name}", b"theirs")
    await store.put("p/good", b"g")
    for _ in range(2):
        with pytest.raises(CommandError, match=r"sync: 1 of 2 failed|of an unfinished transfer") as told:
            await command("sync", "natsobj://b/p", "there", "--delete")
        assert told.value.code == 2
        assert content(tmp_path / "there") == {"good": b"g"}
    await command("get", "b", f"p/{name}", "-O", "alone")
    assert (tmp_path / "alone").read_bytes() == b"theirs"


async def test_a_file_of_others_directory(store: ObjectStore, command: Any, tmp_path: Path) -> None:
    """An object that is called like the directory of others keeps none of them away."""
    for name in ("photos", "photos-", "photos/a", "photos/b"):
        await store.put(f"p/{name}", name.encode())
    for _ in range(2):
        with pytest.raises(CommandError, match=r"sync: 1 of 4 failed|is also a directory") as told:
            await command("sync", "natsobj://b/p", "there", "--delete")
        assert told.value.code == 2
        assert sorted(content(tmp_path / "there")) == ["photos-", "photos/a", "photos/b"]


async def test_many_levels(store: ObjectStore, command: Any, tmp_path: Path) -> None:
    """A tree that is there is stored; what others have called so is not written, and nothing is deleted."""
    name = "d/" * 100 + "f"
    (tmp_path / "here" / name).parent.mkdir(parents=True)
    (tmp_path / "here" / name).write_bytes(b"deep")
    await command("sync", "here", "natsobj://b/p")
    assert await objects(store, "p/") == FILES | {name: b"deep"}
    _, err = await command("sync", "natsobj://b/p", "here", "--delete")
    assert err == "wrote 0 files (0 B), deleted 0, 5 were the same\n"
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "mine").write_bytes(b"m")
    with pytest.raises(CommandError, match="sync: 1 of 5 failed") as told:
        await command("sync", "natsobj://b/p", "there", "--delete")
    assert told.value.code == 2
    assert content(tmp_path / "there") == FILES | {"mine": b"m"}
    assert not (tmp_path / "there" / "d").exists()


async def test_links_are_left_alone(store: ObjectStore, command: Any, tmp_path: Path) -> None:
    await store.add_link("p/link", await store.put("x", b"x"))
    _, err = await command("sync", "natsobj://b/p", "there")
    assert err.splitlines()[0] == "1 link is left alone"
    assert not (tmp_path / "there").exists()


async def test_a_link_that_came_since_is_not_read(store: ObjectStore, tmp_path: Path) -> None:
    await store.add_link("p/link", await store.put("x", b"x"))
    sides = Sides(False, str(tmp_path / "there"), "p/", {}, {}, set(), True, set(), set())
    with pytest.raises(LinkError):
        await _take(Step("get", "p/link", str(tmp_path / "there" / "link")), sides, store, None)
    assert content(tmp_path / "there") == {}


async def test_links_are_not_replaced(store: ObjectStore, command: Any, tmp_path: Path) -> None:
    """A link keeps its place on both sides, whatever the other side has under its name."""
    await store.add_link("p/a", await store.put("x", b"x"))
    _, err = await command("sync", "here", "natsobj://b/p")
    assert err.splitlines()[0] == "1 link is left alone"
    assert (await store.get_info("p/a")).is_link
    here = tmp_path / "here"
    (tmp_path / "elsewhere").write_bytes(b"mine")
    for name in ("file", "only-here"):
        (here / name).symlink_to("../elsewhere")
    (here / "dangling").symlink_to("nowhere")
    (here / "dir" / "b").write_bytes(b"b")
    await store.put("p/file", b"theirs")
    await store.put("p/dangling", b"theirs")
    _, err = await command("sync", "natsobj://b/p", "here", "--delete")
    assert "4 links are left alone" in err.splitlines()
    assert content(here) == {**FILES, "file": b"mine", "only-here": b"mine"}
    assert (tmp_path / "elsewhere").read_bytes() == b"mine"
    assert os.readlink(here / "dangling") == "nowhere"


async def test_nothing_is_written_behind_a_link(store: ObjectStore, command: Any, tmp_path: Path) -> None:
    (tmp_path / "here" / "link").symlink_to("dir")
    await store.put("p/link/b", b"theirs")
    with pytest.raises(CommandError, match="'here/link/b' is behind a link: nothing is written") as told:
        await command("sync", "natsobj://b/p", "here", "--delete")
    assert told.value.code == 2
    assert content(tmp_path / "here").items() >= FILES.items()


async def test_what_was_left_out_is_not_absent(store: ObjectStore, command: Any, tmp_path: Path) -> None:
    """What a deployment has replaced by a link, what became a pipe, and what looks unfinished, is there."""
    here, unfinished = tmp_path / "here", f".objstore-{'0a' * 8}"
    for name in (*FILES, unfinished, f"dir/{unfinished}", "dirt", "gone"):
        await store.put(f"p/{name}", FILES.get(name, b""))
    before = await objects(store, "p/")
    os.rename(here / "dir", tmp_path / "moved")
    (here / "dir").symlink_to("../moved")
    (here / "a").unlink()
    os.mkfifo(here / "a")
    (here / unfinished).write_bytes(b"half")
    (here / "dirt").write_bytes(b"")
    out, _ = await command("sync", "here", "natsobj://b/p", "--delete", "--dry-run")
    assert out == "delete natsobj://b/p/gone\n"
    out, err = await command("sync", "here", "natsobj://b/p", "--delete", "--json")
    assert [json.loads(line)["name"] for line in out.splitlines()] == ["p/gone"]
    assert await objects(store, "p/") == {name: data for name, data in before.items() if name != "gone"}
    told = [json.loads(line).get("warning", "") for line in err.splitlines()]
    kept = "is left out, so what has its name or is below it is not deleted"
    for name, what in (("a", "1 object"), ("dir", "3 objects"), (unfinished, "1 object")):
        assert f"'here/{name}' {kept}: {what}" in told


async def test_a_file_whose_name_no_object_can_have(store: ObjectStore, command: Any, tmp_path: Path) -> None:
    os.rename(tmp_path / "here" / "a", os.fsencode(tmp_path / "here") + b"/a\xff")
    await store.put("p/a", b"")
    with pytest.raises(CommandError, match="sync: 1 of 4 failed") as told:
        await command("sync", "here", "natsobj://b/p", "--delete")
    assert told.value.code == 2
    assert await store.exists("p/a")


async def test_below_a_link_between_objects(store: ObjectStore, command: Any, tmp_path: Path) -> None:
    """As a link to a directory: nobody has said that what it leads to is empty."""
    await store.put("p/a", FILES["a"])
    await store.add_bucket_link("p/dir", "other")
    _, err = await command("sync", "natsobj://b/p", "here", "--delete")
    assert (
        "objstore: warning: 'natsobj://b/p/dir' is a link, so what has its name or is below it is not " in err
    )
    assert "deleted: 2 files\n" in err
    assert content(tmp_path / "here") == {name: FILES[name] for name in ("a", "dir/b", "dir/deep/c")}


async def test_files_that_change_meanwhile(
    store: ObjectStore, command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is deleted or replaced is what was listed, or nothing."""
    here, plain = tmp_path / "here", ObjectStore.list
    await store.put("p/a", b"theirs")

    async def then_changed(self: ObjectStore, *args: Any, **options: Any) -> Any:
        infos = await plain(self, *args, **options)
        for name in changing:
            (here / name).write_bytes(b"mine")
        return infos

    monkeypatch.setattr(ObjectStore, "list", then_changed)
    changing = ["a"]
    with pytest.raises(CommandError, match="'here/a' is not as it was listed: it is kept") as told:
        await command("sync", "natsobj://b/p", "here", "--delete")
    assert told.value.code == 4
    assert content(here) == FILES | {"a": b"mine"}
    changing = ["dir/b"]
    with pytest.raises(CommandError, match="sync: 1 of 3 failed") as told:
        await command("sync", "natsobj://b/p", "here", "--delete")
    assert told.value.code == 4
    assert content(here) == {"a": b"theirs", "dir/b": b"mine"}
    await store.put("p/new", b"theirs")
    changing = ["new"]
    with pytest.raises(CommandError, match="'here/new' is not as it was listed: it is kept"):
        await command("sync", "natsobj://b/p", "here")
    assert (here / "new").read_bytes() == b"mine"


async def test_what_comes_to_both_sides_meanwhile(
    store: ObjectStore, command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The target is listed first: what another sync wrote after that is no surplus."""
    plain = ObjectStore.list

    async def before_and_after(self: ObjectStore, *args: Any, **options: Any) -> Any:
        infos = await plain(self, *args, **options)
        await self.put("p/new", b"new")
        (tmp_path / "here" / "new").write_bytes(b"new")
        return infos

    for name, data in FILES.items():
        await store.put(f"p/{name}", data)
    monkeypatch.setattr(ObjectStore, "list", before_and_after)
    await command("sync", "natsobj://b/p", "here", "--delete")
    assert (tmp_path / "here" / "new").read_bytes() == b"new"


async def test_a_source_that_goes_away(
    store: ObjectStore, command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory that is gone when it is listed is not an empty one."""
    plain = ObjectStore.list

    async def then_moved(self: ObjectStore, *args: Any, **options: Any) -> Any:
        infos = await plain(self, *args, **options)
        os.rename(tmp_path / "here", tmp_path / "moved")
        return infos

    await store.put("p/x", b"x")
    monkeypatch.setattr(ObjectStore, "list", then_moved)
    with pytest.raises(FileNotFoundError):
        await command("sync", "here", "natsobj://b/p", "--delete")
    assert await store.exists("p/x")


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
