"""``get`` of several objects, and ``cat``: below the target directory only, whole or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from natsproto.errors import NatsError, RequestTimeoutError
from objstore import BucketNotFoundError, LinkError, ObjectNotFoundError, ObjectStore
from objstore.cli import fetching, transfer
from objstore.cli.fetching import bounds, check_cat, check_get
from objstore.cli.output import CommandError
from objstore.cli.parser import parse
from support.memory_server import MemoryServer
from support.objects import part_file

DATA = bytes(range(256)) * 40


@pytest.fixture
async def store(server: MemoryServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    monkeypatch.chdir(tmp_path)
    store = await server.bucket()
    for name in ("a", "dir/b", "dir/c/d", "dir/.hidden"):
        await store.put(name, DATA, chunk_size=1000)
    return store


def files(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())


async def test_several_names(store: ObjectStore, command: Any, tmp_path: Path) -> None:
    _, err = await command("get", "b", "a", "dir/b", "-O", "new/")
    assert files(tmp_path) == ["new/a", "new/b"]
    assert "wrote 2 files below 'new/'" in err
    with pytest.raises(CommandError, match="2 of 2 failed") as told:
        await command("get", "b", "a", "dir/b", "-O", "new")
    assert told.value.code == 4
    (tmp_path / "new" / "a").write_text("old")
    out, _ = await command("get", "-f", "b", "a", "dir/b", "-O", "new", "--json")
    assert sorted(json.loads(line)["file"] for line in out.splitlines()) == ["new/a", "new/b"]
    assert (tmp_path / "new" / "a").read_bytes() == DATA


async def test_directories_and_globs(store: ObjectStore, command: Any, tmp_path: Path) -> None:
    await command("get", "b", "dir/**", "-O", "x")
    assert files(tmp_path / "x") == [".hidden", "b", "c/d"]
    await command("get", "-r", "b", "dir", "-O", "y")
    assert files(tmp_path / "y") == [".hidden", "b", "c/d"]
    await command("get", "-r", "b", "-O", "z")
    assert files(tmp_path / "z") == ["a", "dir/.hidden", "dir/b", "dir/c/d"]
    with pytest.raises(
        CommandError, match="1 of 3 failed"
    ):  # the hidden one, as nobody has named the directory
        await command("get", "b", "dir/**")
    assert (tmp_path / "b").read_bytes() == DATA


@pytest.mark.parametrize(
    "name",
    [
        "../evil",
        "/evil",
        "x/../../evil",
        "-",
        "a\nb",
        "esc\x1b[31m",
        "back\\slash",
        "x/",
        "x//y",
        "./x",
        "x/.",
        "d/" * 100 + "f",
    ],
)
async def test_names_that_lead_elsewhere(
    server: MemoryServer, command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    store = await server.bucket()
    await store.put(name, b"evil")
    await store.put("good", b"good")
    with pytest.raises(CommandError, match="1 of 2 failed") as told:
        await command("get", "-r", "b", "-O", "out")
    assert told.value.code == 2
    assert files(tmp_path) == ["work/out/good"]
    assert os.listdir("out") == ["good"]


async def test_a_link_of_the_target_directory(store: ObjectStore, command: Any, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "dir").symlink_to(tmp_path)
    with pytest.raises(CommandError, match="3 of 4 failed"):
        await command("get", "-r", "b", "-O", "out")
    assert files(tmp_path) == ["out/a"]


async def test_two_names_of_one_file(store: ObjectStore, command: Any, tmp_path: Path) -> None:
    """A link to a directory makes two paths one file; what one object has written, another one leaves."""
    (tmp_path / "out" / "dir").mkdir(parents=True)
    (tmp_path / "out" / "latest").symlink_to("dir")
    await store.put("latest/b", b"other" * 9000, chunk_size=1000)
    with pytest.raises(CommandError, match="1 of 5 failed") as told:
        await command("get", "-r", "-f", "b", "-O", "out")
    assert told.value.code == 4
    assert (tmp_path / "out" / "dir" / "b").read_bytes() in (DATA, b"other" * 9000)
    with pytest.raises(CommandError, match="5 of 5 failed"):  # and without --force all of them exist
        await command("get", "-r", "b", "-O", "out")


async def test_a_file_of_others_directory(store: ObjectStore, command: Any, tmp_path: Path) -> None:
    """An object that is called like the directory of others keeps none of them away."""
    await store.put("dir", b"in the way")
    await store.put("dir-", b"sorts between them")
    for again in range(2):
        with pytest.raises(CommandError, match="1 of 6 failed") as told:
            await command("get", "-r", "-f", "b", "-O", "out")
        assert told.value.code == 2, again
        assert files(tmp_path / "out") == ["a", "dir-", "dir/.hidden", "dir/b", "dir/c/d"]


@pytest.mark.parametrize("resume", [False, True])
async def test_a_name_of_an_unfinished_transfer(
    store: ObjectStore, command: Any, tmp_path: Path, resume: bool
) -> None:
    """Else it would be taken for the file in which another object is received."""
    info = await store.get_info("dir/b")
    for name in (part_file(Path("dir/b"), info), Path(f"dir/.OBJSTORE-{'0A' * 8}")):
        await store.put(str(name), b"other")
    with pytest.raises(CommandError, match="2 of 6 failed") as told:
        await command("get", "-r", "-f", "b", "-O", "out", *["--resume"] * resume)
    assert told.value.code == 2
    assert files(tmp_path / "out") == ["a", "dir/.hidden", "dir/b", "dir/c/d"]
    assert (tmp_path / "out" / "dir" / "b").read_bytes() == DATA
    await command("get", "b", str(name), "-O", "alone")
    assert (tmp_path / "alone").read_bytes() == b"other"


@pytest.mark.parametrize(
    "error", [BucketNotFoundError("gone", bucket="other"), RequestTimeoutError("no answer")]
)
async def test_a_link_whose_bucket_is_gone_ends_nothing(
    server: MemoryServer,
    store: ObjectStore,
    command: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: NatsError,
) -> None:
    """What happens to another bucket while it is read says nothing of this one."""
    other = await server.bucket("other")
    for number in range(20):
        await other.put(f"{number}", DATA)
        await store.add_link(f"0/{number}", (await other.get_info(f"{number}")))
    read = transfer._read

    async def lost(store: ObjectStore, name: str, *args: Any, **options: Any) -> Any:
        if name.startswith("0/"):
            raise error
        return await read(store, name, *args, **options)

    monkeypatch.setattr(transfer, "_read", lost)
    with pytest.raises(CommandError, match=r"20 of 24 failed$"):
        await command("get", "-r", "b", "-O", "out")
    assert files(tmp_path / "out") == ["a", "dir/.hidden", "dir/b", "dir/c/d"]


async def test_two_objects_of_one_path(store: ObjectStore, command: Any, tmp_path: Path) -> None:
    await store.put("b", b"other")
    with pytest.raises(CommandError, match="'dir/b' and 'b' would both be 'b'") as told:
        await command("get", "-f", "b", "dir/b", "b")
    assert told.value.code == 2
    assert files(tmp_path) == []


async def test_a_name_that_looks_like_a_glob(store: ObjectStore, command: Any, tmp_path: Path) -> None:
    await store.put("report[1].pdf", b"1")
    await store.put("b*", b"2")
    await command("get", "b", "report[1].pdf")
    await command("get", "b", "report[1].pdf", "-O", "x")
    await command("get", "b", "report[[]1].pdf", "-O", "y")
    await command("get", "b", "b[*]", "-O", "z")
    assert files(tmp_path) == ["report[1].pdf", "x", "y", "z"]
    assert (tmp_path / "z").read_bytes() == b"2"
    with pytest.raises(CommandError, match="use cat for several") as told:
        await command("get", "b", "dir/*", "-O", "-")
    assert told.value.code == 2
    with pytest.raises(CommandError, match="'x' is a file"):
        await command("get", "b", "dir/*", "-O", "x")


async def test_resume(store: ObjectStore, command: Any, tmp_path: Path) -> None:
    await command("get", "b", "a", "--resume")
    assert (tmp_path / "a").read_bytes() == DATA
    assert os.listdir(tmp_path) == ["a"]
    with pytest.raises(CommandError, match="exists"):
        await command("get", "b", "a", "--resume")
    await command("get", "b", "a", "--resume", "-f")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ([], "or pass -r"),
        (["a", "b", "-O", "-"], "use cat"),
        (["a", "b", "-O", "file"], "'file' is a file"),
        (["a", "-O", ""], "-O needs the name of a file"),
        (["a", "-O", "-", "--json"], "both want standard output"),
    ],
)
def test_what_cannot_work(store: ObjectStore, tmp_path: Path, words: list[str], why: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CommandError, match=why) as told:
        check_get(parse(["get", "b", *words]))
    assert told.value.code == 2


async def test_cat(store: ObjectStore, command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (fetching, transfer):
        monkeypatch.setattr(module, "standard_output", lambda: open(tmp_path / "out", "ab", 0))  # noqa: SIM115
    await store.put("e", b"")
    for words, data in (
        (["b", "a"], DATA),
        (["natsobj://b/a"], DATA),
        (["b", "a", "e", "a"], DATA * 2),
        (["b", "dir/[bc]"], DATA),
        (["b", "a", "--range", "0-99"], DATA[:100]),
        (["b", "a", "--range", "10200-"], DATA[10200:]),
        (["b", "a", "--range=-10"], DATA[-10:]),
        (["b", "a", "--range", "5-99999999"], DATA[5:]),
        (["b", "e", "--range", "0-9"], b""),
    ):
        (tmp_path / "out").write_bytes(b"")
        await command("cat", *words)
        assert (tmp_path / "out").read_bytes() == data, words
    with pytest.raises(CommandError, match="begins at byte 99999"):
        await command("cat", "b", "a", "--range", "99999-")
    with pytest.raises(ObjectNotFoundError):
        await command("cat", "b", "none")
    (tmp_path / "out").write_bytes(b"")
    with pytest.raises(ObjectNotFoundError):
        await command("cat", "b", "a", "none", "dir/b")
    assert (tmp_path / "out").read_bytes() == DATA  # nothing follows what may be half an object


async def test_links(
    server: MemoryServer, store: ObjectStore, command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader may say how far others, who write to the bucket, can lead it."""
    for module in (fetching, transfer):
        monkeypatch.setattr(module, "standard_output", lambda: open(tmp_path / "out", "ab", 0))  # noqa: SIM115
    other = await server.bucket("other")
    await store.add_link("near", await store.get_info("a"))
    await store.add_link("far", await other.put("secret", b"secret"))
    ways = (
        ["cat", "b", "NAME"],
        ["cat", "b", "NAME", "--range", "0-3"],
        ["get", "b", "NAME", "-O", "-"],
        ["get", "b", "NAME", "-O", "file", "-f"],
        ["get", "b", "NAME", "-O", "new"],
        ["get", "b", "NAME", "a", "-O", "several/"],
        ["cp", "natsobj://b/NAME", "-"],
        ["cp", "natsobj://b/NAME", "file", "-f"],
        ["cp", "b", "NAME", "copy"],
        ["mv", "natsobj://b/NAME", "file", "-f"],
    )
    forbidden = (("far", "same-bucket"), ("far", "none"), ("near", "none"))
    (tmp_path / "file").write_bytes(b"old")
    for way in ways:
        for name, follow in forbidden:
            words = [name if word == "NAME" else word.replace("NAME", name) for word in way]
            with pytest.raises((LinkError, CommandError)) as told:
                await command(*words, "--follow-links", follow)
            assert "several/" in way or isinstance(told.value, LinkError)
    assert (tmp_path / "file").read_bytes() == b"old"
    assert files(tmp_path) == ["file", "several/a"]
    assert await store.names("copy") == []
    for name, follow, data in (("near", "same-bucket", DATA), ("far", "all", b"secret")):
        await command("get", "b", name, "-O", "file", "-f", "--follow-links", follow)
        assert (tmp_path / "file").read_bytes() == data
        await command("cp", "b", name, "copy", "--follow-links", follow)
        assert await store.get("copy") == data


def test_what_cat_refuses() -> None:
    for words, why in ((["natsobj://b"], "is a bucket"), (["b", "a", "--json"], "not JSON")):
        with pytest.raises(CommandError, match=why) as told:
            check_cat(parse(["cat", *words]))
        assert told.value.code == 2


def test_bounds() -> None:
    assert bounds((0, 99), 50) == (0, 50)
    assert bounds((None, 99), 50) == (0, 50)
    assert bounds((None, 0), 50) == (50, 50)
    assert bounds((50, None), 51) == (50, 51)
    assert bounds((0, None), 0) == (0, 0)
    with pytest.raises(CommandError):
        bounds((50, None), 50)
