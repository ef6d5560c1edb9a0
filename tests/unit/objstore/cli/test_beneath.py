"""Whatever others rename in a directory while a command works in it: nothing is done outside of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from objstore import ObjectStore
from objstore.cli import beneath, copying, sync, trees
from objstore.cli.beneath import name_at, parent_of
from objstore.cli.output import CommandError
from objstore.cli.trees import State, remove_file
from objstore.read import files
from support.memory_server import MemoryServer

Exchange = Callable[[], None]


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A directory with one in it, and another one beside it whose file has the same name."""
    for name in ("target/sub", "home"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "f").write_bytes(b"1")
    return tmp_path / "target"


@pytest.fixture
def exchange(target: Path) -> Exchange:
    """Puts a link to the other directory in the place of ``sub``; again: takes it away."""

    def swap() -> None:
        sub, moved = target / "sub", target / "moved"
        if moved.exists():
            sub.unlink()
            moved.rename(sub)
        else:
            sub.rename(moved)
            sub.symlink_to("../home")

    return swap


@pytest.fixture
async def store(server: MemoryServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    monkeypatch.chdir(tmp_path)
    store = await server.bucket()
    await store.put("sub/new", b"theirs")
    return store


def before(monkeypatch: pytest.MonkeyPatch, where: Any, name: str, exchange: Exchange) -> None:
    """Exchange when a function is called, before it does anything."""
    plain = getattr(where, name)

    def exchanged(*args: Any, **options: Any) -> Any:
        exchange()
        return plain(*args, **options)

    monkeypatch.setattr(where, name, exchanged)


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def refused(error: type[Exception], match: str, start: Any, path: Any, **options: bool) -> Any:
    with pytest.raises(error, match=match) as told, parent_of(str(start), str(path), **options):
        raise AssertionError
    return told.value


def found(start: Any, path: Any, **options: bool) -> list[str]:
    with parent_of(str(start), str(path), **options) as dir_fd:
        assert dir_fd is not None
        return os.listdir(dir_fd)


@pytest.mark.parametrize("inner_links", [False, True])
def test_directories_are_created_below_it_only(target: Path, tmp_path: Path, inner_links: bool) -> None:
    (target / "out").symlink_to(tmp_path)
    (target / "in").symlink_to("sub")
    (target / "file").write_bytes(b"")
    count = open_descriptors()
    assert found(target, target / "new" / "dir" / "f", create=True, inner_links=inner_links) == []
    assert (target / "new" / "dir").is_dir()
    path = target / "out" / "new" / "f"
    error = refused(
        CommandError, "out/new/f' is behind a link", target, path, create=True, inner_links=inner_links
    )
    assert error.code == 2
    assert not (tmp_path / "new").exists()
    for path in (target / "file" / "f", target / "file" / "deeper" / "f"):
        error = refused(CommandError, "where a file is", target, path, create=True, inner_links=inner_links)
        assert error.code == 4
    if inner_links:
        assert found(target, target / "in" / "f", inner_links=True) == ["f"]
    else:
        refused(CommandError, "behind a link", target, target / "in" / "f")
    assert open_descriptors() == count


def test_the_directory_itself_may_be_a_link(
    target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to("target")
    monkeypatch.chdir(tmp_path)
    assert found("link", "link/sub/f") == ["f"]
    assert found("link/", "link/sub/f") == ["f"]
    assert found(tmp_path / "link", tmp_path / "link" / "sub" / "f") == ["f"]
    assert found("new/start", "new/start/f", create=True) == []
    monkeypatch.chdir(target)
    assert found(".", "sub/f") == ["f"]
    assert found(".", "./sub/f") == ["f"]
    assert found("sub", "sub/f") == ["f"]
    assert found("../link/sub/..", "../link/sub/../sub/f") == ["f"]
    assert refused(CommandError, "where a file is", "sub/f", "sub/f/x", create=True).code == 4


def test_what_is_not_there_is_not_created_unasked(target: Path) -> None:
    for path in (target / "none" / "f", target / "none" / "deeper" / "f"):
        assert refused(FileNotFoundError, "No such file", target, path).filename == str(path)
    refused(FileNotFoundError, "No such file", target / "none", target / "none" / "f")
    refused(NotADirectoryError, "Not a directory", target, target / "sub" / "f" / "x")
    refused(ValueError, "is not below the directory", target / "sub", target / "f")


def test_a_directory_that_may_not_be_listed(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One may be allowed to write into it all the same; a link is refused as ever."""
    plain = os.open

    def refuse(path: str, flags: int, *args: Any, **options: Any) -> int:
        if path == "sub" and not flags & os.O_PATH:
            raise PermissionError(13, "Permission denied", path)
        return plain(path, flags, *args, **options)

    monkeypatch.setattr(os, "open", refuse)
    with parent_of(str(target), str(target / "sub" / "f")) as dir_fd:
        os.unlink("f", dir_fd=dir_fd)
    assert os.listdir(target / "sub") == []
    (target / "sub").rmdir()
    (target / "sub").symlink_to("../home")
    refused(CommandError, "behind a link", target, target / "sub" / "f")


def test_one_that_was_created_or_exchanged_meanwhile(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = os.mkdir

    def mkdir(name: str, *args: Any, **options: Any) -> None:
        if name == "link":
            (target / name).symlink_to("../home")
        else:
            plain(target / name)
        plain(name, *args, **options)

    monkeypatch.setattr(os, "mkdir", mkdir)
    assert found(target, target / "new" / "f", create=True) == []
    refused(CommandError, "behind a link", target, target / "link" / "f", create=True)


def test_one_that_is_gone_again(target: Path, exchange: Exchange, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was no directory when it was opened: nobody knows what else it was."""
    exchange()
    before(monkeypatch, beneath, "_is_file", (target / "sub").unlink)
    refused(CommandError, "behind a link", target, target / "sub" / "f")


def test_a_system_without_such_functions(
    target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beneath, "HAVE_DIR_FD", False)
    (target / "out").symlink_to(tmp_path)
    path = str(target / "new" / "f")
    with parent_of(str(target), path, create=True) as dir_fd:
        assert (dir_fd, name_at(path, dir_fd)) == (None, path)
        assert (target / "new").is_dir()
    refused(CommandError, "behind a link", target, target / "out" / "f")
    refused(CommandError, "where a file is", target, target / "sub" / "f" / "x", create=True)
    remove_file(str(target), str(target / "sub" / "f"), State.of(os.stat(target / "sub" / "f")))
    assert not (target / "sub").exists()


def test_what_is_deleted_is_below_it(
    target: Path, tmp_path: Path, exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last moment, between the comparison and the deletion."""
    path, plain = str(target / "sub" / "f"), trees.check_unchanged

    def then_exchanged(*args: Any) -> None:
        plain(*args)
        exchange()

    monkeypatch.setattr(trees, "check_unchanged", then_exchanged)
    remove_file(str(target), path, State.of(os.stat(path)))
    assert os.listdir(tmp_path / "home") == ["f"]
    assert os.listdir(target / "moved") == []


async def test_sync_deletes_nothing_outside(
    store: ObjectStore,
    target: Path,
    tmp_path: Path,
    exchange: Exchange,
    command: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What was listed behind the link is not what is there later, and the link is not followed then."""
    await store.delete("sub/new")
    plain = os.scandir

    def scandir(path: str) -> Any:
        if path == "target/sub":
            exchange()
        return plain(path)

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(os, "scandir", scandir)
        before(meanwhile, ObjectStore, "list", exchange)
        with pytest.raises(CommandError, match="'target/sub/f' is not as it was listed") as told:
            await command("sync", "natsobj://b/", "target", "--delete")
    assert told.value.code == 4
    before(monkeypatch, sync, "remove_file", exchange)
    with pytest.raises(CommandError, match="'target/sub/f' is behind a link") as told:
        await command("sync", "natsobj://b/", "target", "--delete")
    assert told.value.code == 2
    assert os.listdir(tmp_path / "home") == os.listdir(target / "moved") == ["f"]


WRITING = {
    "get": ["get", "-r", "b", "-O", "target"],
    "get -f": ["get", "-rf", "b", "-O", "target"],
    "get --resume": ["get", "-r", "b", "-O", "target", "--resume"],
    "cp": ["cp", "-r", "natsobj://b/", "target"],
    "mv -f": ["mv", "-rf", "natsobj://b/", "target"],
    "sync": ["sync", "natsobj://b/", "target"],
}


@pytest.mark.parametrize("step", ["_target_mode", "_create", "_finish"])
@pytest.mark.parametrize("words", [pytest.param(words, id=name) for name, words in WRITING.items()])
async def test_nothing_is_written_outside(
    store: ObjectStore,
    target: Path,
    tmp_path: Path,
    exchange: Exchange,
    command: Any,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    step: str,
) -> None:
    if "--resume" in words:
        step = step.replace("_create", "_reopen")
    before(monkeypatch, files, step, exchange)
    await command(*words)
    assert os.listdir(tmp_path / "home") == ["f"]
    assert sorted(os.listdir(target / "moved")) == ["f", "new"]
    assert (target / "moved" / "new").read_bytes() == b"theirs"


@pytest.mark.parametrize(
    "words", [["mv", "target/sub/f", "natsobj://b/f"], ["mv", "-r", "target", "natsobj://b/new/"]]
)
async def test_what_was_moved_away_is_deleted_below_it(
    store: ObjectStore,
    target: Path,
    tmp_path: Path,
    exchange: Exchange,
    command: Any,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
) -> None:
    same = State.same

    def then_exchanged(self: State, other: State) -> bool:
        found = same(self, other)
        exchange()
        return found

    monkeypatch.setattr(State, "same", then_exchanged)
    await command(*words)
    assert os.listdir(tmp_path / "home") == ["f"]
    assert os.listdir(target / "moved") == []


async def test_mv_deletes_nothing_behind_a_link(
    store: ObjectStore,
    target: Path,
    tmp_path: Path,
    exchange: Exchange,
    command: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before(monkeypatch, copying, "_upload", exchange)
    with pytest.raises(CommandError, match="'target/sub/f' is behind a link") as told:
        await command("mv", "-r", "target", "natsobj://b/")
    assert told.value.code == 2
    assert os.listdir(tmp_path / "home") == os.listdir(target / "moved") == ["f"]
