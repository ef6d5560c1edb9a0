"""What changes something: whole files, trees, buckets."""

from __future__ import annotations

import asyncio
import errno
import pickle
import signal
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fsspec.asyn import sync

from objstore import ObjectInfo, ObjectLink, ObjectStore
from objstore.filesystem import NatsObjectFileSystem
from support.imports import ROOT
from support.memory_server import MemoryServer

from .conftest import InMemory


def test_options(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are checked at once, and pickled without a connection."""
    fs = NatsObjectFileSystem("nats://127.0.0.1:1", retry_budget=3, batch_size=4)
    assert pickle.loads(pickle.dumps(fs)) is fs
    assert (fs.batch_size, NatsObjectFileSystem("nats://127.0.0.1:1").batch_size) == (4, 16)
    assert b"127.0.0.1:1" in pickle.dumps(fs)
    with pytest.raises(TypeError, match="retry_bugdet"):
        NatsObjectFileSystem(retry_bugdet=3)
    before = NatsObjectFileSystem()
    assert NatsObjectFileSystem() is before
    monkeypatch.setenv("NATS_URL", "nats://127.0.0.1:2")
    fs = NatsObjectFileSystem()
    assert fs is not before
    assert fs._connections._connecting.servers == "nats://127.0.0.1:2"
    with pytest.raises(ConnectionError, match=r"127\.0\.0\.1:2"):
        fs.ls("b")
    by_url = NatsObjectFileSystem(url="nats://127.0.0.1:3", domain="hub", asynchronous=True)
    assert by_url._connections._connecting.servers == "nats://127.0.0.1:3"


def test_the_extra_is_named_when_it_is_missing() -> None:
    program = "import sys; sys.modules['fsspec'] = None; import objstore.filesystem"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "MissingExtraError" in done.stderr
    assert "pip install 'natsproto[fsspec]'" in done.stderr


def test_pipe_and_touch(fs: NatsObjectFileSystem) -> None:
    fs.pipe({"b/a": b"1", "b/d/c": b"2"})
    assert fs.cat("b", recursive=True) == fs.cat("b/**") == {"b/a": b"1", "b/d/c": b"2"}
    assert fs.cat("b/*") == fs.cat(["b/a"]) == {"b/a": b"1"}
    assert fs.cat("b/a") == b"1"
    assert fs.cat(["b/a", "b/none"], on_error="omit") == {"b/a": b"1"}
    with pytest.raises(FileExistsError):
        fs.pipe_file("b/a", b"3", mode="create")
    fs.pipe_file("b/new", b"3", mode="create", description="d")
    assert fs.info("b/new")["description"] == "d"
    before = fs.info("b/new")
    fs.touch("b/new", truncate=False)
    after = fs.info("b/new")
    assert after["revision"] > before["revision"]
    assert after["digest"] == before["digest"]
    fs.touch("b/new")
    assert fs.info("b/new")["size"] == 0
    fs.touch("b/other", truncate=False)
    assert fs.cat_file("b/other") == b""
    with pytest.raises(IsADirectoryError):
        fs.pipe_file("b", b"1")


def test_put_and_get(fs: NatsObjectFileSystem, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "d" / "empty").mkdir(parents=True)
    (source / "a").write_bytes(b"1")
    (source / "d" / "c").write_bytes(b"2")
    fs.put(str(source), "b/to", recursive=True)
    assert fs.find("b") == ["b/to/a", "b/to/d/c"]
    fs.get("b/to", str(tmp_path / "got"), recursive=True)
    assert (tmp_path / "got" / "d" / "c").read_bytes() == b"2"
    fs.get(["b/to/a", "b/to/d/c"], [str(tmp_path / "x" / "1"), str(tmp_path / "2")])
    assert (tmp_path / "x" / "1").read_bytes() == b"1"
    fs.get("b/to/a", str(tmp_path / "got") + "/")
    fs.put_file(str(source / "a"), "b/new", mode="create")
    with pytest.raises(FileExistsError):
        fs.put_file(str(source / "a"), "b/new", mode="create")
    with pytest.raises(FileNotFoundError):
        fs.get("b/none", str(tmp_path / "none"), recursive=True)
    with pytest.raises(FileNotFoundError):
        fs.put(str(tmp_path / "none"), "b/none")


@pytest.mark.parametrize("name", ["../evil", "d/../../evil", "x/..", "/../evil", "d/./x"])
def test_a_tree_never_leaves_its_directory(fs: NatsObjectFileSystem, tmp_path: Path, name: str) -> None:
    """Names are made by others; nothing is written, not even a directory, and by itself it can be had."""
    fs.pipe({"b/t/good": b"1", f"b/t/{name}": b"2"})
    target = tmp_path / "in" / "target"
    with pytest.raises(ValueError, match="get it by itself"):
        fs.get("b/t", str(target), recursive=True)
    assert list(tmp_path.iterdir()) == []
    fs.get_file(f"b/t/{name}", str(tmp_path / "one"))
    assert (tmp_path / "one").read_bytes() == b"2"
    fs.get(f"b/t/{name}", str(tmp_path / "two"))
    assert (tmp_path / "two").read_bytes() == b"2"


def test_a_tree_has_so_many_levels(fs: NatsObjectFileSystem, tmp_path: Path) -> None:
    """Names are made by others, who may choose ones that take a thousand directories each."""
    name = "d/" * 100 + "f"
    fs.pipe({"b/t/good": b"1", f"b/t/{name}": b"2"})
    target = tmp_path / "target"
    with pytest.raises(ValueError, match="more than 100 levels: get it by itself"):
        fs.get("b/t", str(target), recursive=True)
    assert list(tmp_path.iterdir()) == []
    fs.get(f"b/t/{name}", str(tmp_path / "one"))
    assert (tmp_path / "one").read_bytes() == b"2"
    fs.get("b/t/d", str(target), recursive=True)
    assert (target / name.removeprefix("d/")).read_bytes() == b"2"


def test_an_empty_directory_has_so_many_levels(fs: NatsObjectFileSystem, tmp_path: Path) -> None:
    async def mark(name: str) -> None:
        await (await fs._store("b")).put(name, b"")

    sync(fs.loop, mark, "e/f/")
    fs.get("b", str(tmp_path / "to"), recursive=True)
    assert (tmp_path / "to" / "e" / "f").is_dir()
    sync(fs.loop, mark, "d/" * 1400)
    with pytest.raises(ValueError, match="more than 100 levels"):
        fs.get("b", str(tmp_path / "to"), recursive=True)
    assert not (tmp_path / "to" / "d").exists()


def test_files_alone_take_memory_in_proportion_to_their_names(fs: NatsObjectFileSystem) -> None:
    """The names: 56 kB; the paths of their directories: 40 MB."""
    names = [f"{number}/" + "d/" * 1400 + "f" for number in range(20)]
    fs.pipe({f"b/in/{name}": b"" for name in names})
    tracemalloc.start()
    try:
        assert len(fs.cat("b/in", recursive=True)) == 20
        fs.cp("b/in", "b/to", recursive=True)
        fs.mv("b/to", "b/on", recursive=True)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4_000_000
    assert fs.find("b") == sorted(f"b/{top}/{name}" for top in ("in", "on") for name in names)


def test_two_names_are_never_one_file(fs: NatsObjectFileSystem, tmp_path: Path) -> None:
    fs.pipe({"b/a/x": b"1", "b/a//x": b"2"})
    with pytest.raises(ValueError, match="both be"):
        fs.get("b/a", str(tmp_path / "to"), recursive=True)
    fs.rm("b/a/x")
    fs.get("b/a", str(tmp_path / "to"), recursive=True)
    assert (tmp_path / "to" / "x").read_bytes() == b"2"


def test_copy(fs: NatsObjectFileSystem) -> None:
    fs.pipe_file("b/d/a", b"1", description="d")
    fs.mkdir("c")
    fs.copy("b/d", "c/e", recursive=True)
    fs.copy("b/d/a", "c/")
    fs.copy("b/d/*", "c/f/")
    fs.copy(["b/d/a"], ["c/g"])
    assert fs.find("c") == ["c/a", "c/e/a", "c/f/a", "c/g"]
    assert fs.info("c/e/a")["description"] == "d"
    with pytest.raises(FileNotFoundError, match="missing"):
        fs.copy("b/d", "missing/d", recursive=True)
    with pytest.raises(FileNotFoundError):
        fs.copy("b/none", "c/none")
    with pytest.raises(FileNotFoundError):
        fs.copy("b/none", "c/none", recursive=True)


def test_move(fs: NatsObjectFileSystem, memory: MemoryServer) -> None:
    fs.pipe({"b/a": b"1", "b/d/x": b"2", "b/d/e/y": b"3"})
    chunks = memory.chunks()
    fs.mv("b/a", "b/z")
    fs.mv("b/d", "b/moved", recursive=True)
    assert memory.chunks() == chunks  # renamed: no byte was copied
    fs.mkdir("c")
    fs.mv("b/moved", "c/d", recursive=True)
    fs.mv("b/z", "c/")
    fs.mv("c/z", "c/z")
    assert fs.find("") == ["c/d/e/y", "c/d/x", "c/z"]
    fs.pipe_file("c/old", b"old")
    fs.mv("c/z", "c/old")
    assert fs.cat_file("c/old") == b"1"
    assert not fs.exists("c/z")
    with pytest.raises(FileNotFoundError):
        fs.mv("b/none", "b/other")
    with pytest.raises(FileNotFoundError):
        fs.mv("c/old", "missing/old")
    assert fs.exists("c/old")


MANY_TO_ONE: dict[str, Callable[[NatsObjectFileSystem, str], object]] = {
    "several into a directory": lambda fs, do: getattr(fs, do)(["b/p/x", "b/q/x"], "b/to/"),
    "patterns": lambda fs, do: getattr(fs, do)(fs.glob("b/p/*") + fs.glob("b/q/?"), "b/to"),
    "directories": lambda fs, do: getattr(fs, do)(["b/p", "b/q"], "b/to", recursive=True),
    "of two buckets": lambda fs, do: getattr(fs, do)(["b/p/x", "c/x"], "b/to"),
    "one target written in two ways": lambda fs, do: getattr(fs, do)(
        ["b/p/x", "b/q/x"], ["b/to", "natsobj://b/to/"]
    ),
    "in a ring": lambda fs, do: getattr(fs, do)(["b/p/x", "b/q/x"], ["b/q/x", "b/p/x"]),
    "in a row": lambda fs, do: getattr(fs, do)(["b/p/x", "b/q/x"], ["b/q/x", "b/r"]),
    "over one that stays": lambda fs, do: getattr(fs, do)(["b/p/x", "b/q/x"], "b/q/"),
    "a directory into itself": lambda fs, do: getattr(fs, do)("b/in/", "b/in/in", recursive=True),
}


@pytest.mark.parametrize("plan", MANY_TO_ONE)
@pytest.mark.parametrize("do", ["mv", "move", "rename", "copy", "cp"])
def test_no_file_replaces_another_one_of_the_same_call(fs: NatsObjectFileSystem, do: str, plan: str) -> None:
    """They go at the same time: whichever came last would be left."""
    fs.mkdir("c")
    files = {"b/p/x": b"1", "b/q/x": b"2", "b/in/x": b"3", "b/in/in/x": b"4", "c/x": b"5"}
    fs.pipe(files)
    with pytest.raises(ValueError, match=r"both be|would replace"):
        MANY_TO_ONE[plan](fs, do)
    assert fs.cat(fs.find("")) == files


def test_what_stays_where_it_is(fs: NatsObjectFileSystem) -> None:
    fs.pipe({"b/p/x": b"1", "b/q/y": b"2"})
    fs.mv(["b/p/x", "b/q/y"], "b/q/")
    assert fs.cat(fs.find("b")) == {"b/q/x": b"1", "b/q/y": b"2"}
    fs.mv("b/q", "b/q/deep", recursive=True)
    assert fs.find("b") == ["b/q/deep/x", "b/q/deep/y"]


def test_no_local_file_replaces_another_one(fs: NatsObjectFileSystem, tmp_path: Path) -> None:
    for name in ("p", "q"):
        (tmp_path / name / "d").mkdir(parents=True)
        (tmp_path / name / "x").write_bytes(name.encode())
    one, other = (str(tmp_path / name / "x") for name in ("p", "q"))
    for target in ("b/to/", ["b/to", "natsobj://b/to/"]):
        with pytest.raises(ValueError, match="both be"):
            fs.put([one, other], target)
    with pytest.raises(ValueError, match="both be"):
        fs.put([str(tmp_path / "p"), str(tmp_path / "q")], "b/to", recursive=True)
    with pytest.raises(ValueError, match="both be"):
        fs.pipe({"b/to": b"1", "natsobj://b/to": b"2"})
    assert fs.find("b") == []
    fs.put([one, str(tmp_path / "p" / "d"), str(tmp_path / "q" / "d")], "b/to")
    fs.put([one, other], ["b/1", "b/2"])
    assert fs.cat(fs.find("b")) == {"b/1": b"p", "b/2": b"q", "b/to/x": b"p"}
    with pytest.raises(ValueError, match="both be"):
        fs.get(["b/1", "b/2"], [str(tmp_path / "got"), f"{tmp_path}/./got"])
    assert not (tmp_path / "got").exists()


def test_a_move_loses_nothing(fs: NatsObjectFileSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is stored at the source while it is copied stays there."""
    fs.pipe({"b/a": b"1", "b/there": b"2"})
    copy = ObjectStore.copy

    async def overtaken(self: ObjectStore, name: str, new_name: str, **options: object) -> ObjectInfo:
        info = await copy(self, name, new_name, **options)  # type: ignore[arg-type]
        await self.put(name, b"newer")
        return info

    monkeypatch.setattr(ObjectStore, "copy", overtaken)
    with pytest.raises(OSError, match="revision") as caught:
        fs.mv("b/a", "b/there")
    assert caught.value.errno == errno.ESTALE
    assert fs.cat_file("b/a") == b"newer"


@pytest.mark.parametrize(
    ("verb", "step", "arguments"),
    [
        ("copy", "_cp_file", ["b/d", "b/e", True]),
        ("get", "_get_file", ["b/d", "{here}", True]),
        ("mv", "_mv_file", ["b/d", "b/e", True]),
        ("rm", "_rm_file", [[f"b/d/{number}" for number in range(50)]]),
    ],
)
def test_an_interrupt_ends_the_work(
    fs: NatsObjectFileSystem,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    verb: str,
    step: str,
    arguments: list[Any],
) -> None:
    """Else the loop in fsspec's thread would go on: to delete, for instance."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background inherits "ignored"
    fs.pipe({f"b/d/{number}": b"" for number in range(50)})
    begun, ended = 0, threading.Event()

    async def interrupted(*_: object, **__: object) -> None:
        nonlocal begun
        begun += 1
        if begun == 3:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

    monkeypatch.setattr(fs, step, interrupted)
    arguments = [str(tmp_path) if each == "{here}" else each for each in arguments]
    with pytest.raises(KeyboardInterrupt):
        getattr(fs, verb)(*arguments, batch_size=1)
    assert ended.wait(10)
    assert begun == 3


def test_remove(fs: NatsObjectFileSystem) -> None:
    fs.pipe({f"b/{name}": b"" for name in ("a", "a/b", "a//c", "ab", "d/x/y", "d/z", "1", "2")})
    fs.rm_file("b/1")
    fs.rm("b/2")
    with pytest.raises(IsADirectoryError):
        fs.rm("b/d")
    with pytest.raises(FileNotFoundError):
        fs.rm("b/none")
    for recursive in ("b/none", "b/none*"):
        with pytest.raises(FileNotFoundError):
            fs.rm(recursive, recursive=True)
    fs.rm("b/d", recursive=True, maxdepth=1)
    assert fs.find("b/d") == ["b/d/x/y"]
    fs.rm("b/a", recursive=True)
    assert fs.find("b") == ["b/ab", "b/d/x/y"]
    fs.rm([*fs.glob("b/a*"), "b/d"], recursive=True)
    assert fs.find("b") == []
    with pytest.raises(PermissionError):
        fs.rm("", recursive=True)
    fs.pipe_file("b/a", b"")
    fs.rm("b", recursive=True)
    assert fs.ls("") == []


def test_markers_go_with_their_directory(fs: NatsObjectFileSystem) -> None:
    async def mark(data: bytes) -> None:
        await (await fs._store("b")).put("d/", data)

    sync(fs.loop, mark, b"")
    fs.rmdir("b/d")
    assert not fs.exists("b/d")
    sync(fs.loop, mark, b"content")
    with pytest.raises(OSError, match="not empty"):
        fs.rmdir("b/d")
    with pytest.raises(OSError, match="not empty"):
        fs.rmdir("b")
    fs.rm("b/d", recursive=True)
    fs.rmdir("b")


def test_links_are_moved_and_removed_themselves(fs: NatsObjectFileSystem) -> None:
    async def link() -> None:
        store = await fs._store("b")
        await store.put("a", b"1")
        await store.add_link("l", ObjectLink("b", "a"))

    sync(fs.loop, link)
    fs.copy("b/l", "b/copy")
    assert fs.info("b/copy")["islink"] is False
    fs.rm("b/l")
    assert fs.find("b") == ["b/a", "b/copy"]


def test_buckets(fs: NatsObjectFileSystem) -> None:
    fs.mkdir("natsobj://new", description="d")
    assert fs.ls("", detail=False) == ["b", "new"]
    with pytest.raises(FileExistsError):
        fs.mkdir("new")
    fs.mkdir("new/below")
    assert not fs.exists("new/below")
    fs.makedirs("new", exist_ok=True)
    fs.makedirs("other/below", exist_ok=True)
    assert fs.exists("other")
    with pytest.raises(FileExistsError):
        fs.makedirs("new")
    with pytest.raises(FileNotFoundError):
        fs.mkdir("third/below", create_parents=False)
    with pytest.raises(ValueError, match="bucket names"):
        fs.mkdir("no bucket")
    with pytest.raises(FileExistsError):
        fs.mkdir("")
    fs.pipe_file("new/a", b"")
    with pytest.raises(OSError, match="not empty") as caught:
        fs.rmdir("new")
    assert caught.value.errno == errno.ENOTEMPTY
    with pytest.raises(NotADirectoryError):
        fs.rmdir("new/a")
    with pytest.raises(FileNotFoundError):
        fs.rmdir("new/none")
    with pytest.raises(PermissionError):
        fs.rmdir("")
    fs.rm("new/a")
    fs.rmdir("new")
    with pytest.raises(FileNotFoundError):
        fs.rmdir("new")
    fs.mkdir("new")  # and not a handle of the old one
    fs.pipe_file("new/a", b"1")


async def test_asynchronous() -> None:
    server = MemoryServer()
    await server.bucket()
    fs = NatsObjectFileSystem(asynchronous=True, skip_instance_cache=True)
    fs._connections = InMemory(server)
    await fs._pipe_file("b/a", b"1")
    assert await fs._cat("b/a") == b"1"
    await fs._mv("b/a", "b/c")
    await fs._touch("b/c")
    assert [each async for each in fs._walk("b")] == [("b", [], ["c"])]
    with pytest.raises(RuntimeError):
        fs.ls("b")
    await fs.aclose()
    await server.client.close()


def test_a_file_that_is_a_directory_as_well(fs: NatsObjectFileSystem) -> None:
    """A name can be a file and a directory at once: neither hides the other."""
    fs.pipe({"b/x": b"1", "b/x/y": b"2"})
    assert fs.find("b") == ["b/x", "b/x/y"]
    fs.rm("b/x")
    assert fs.find("b") == ["b/x/y"]
