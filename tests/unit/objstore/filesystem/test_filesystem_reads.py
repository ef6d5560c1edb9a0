"""What is where: listings, facts and bytes, of any name."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from fsspec.asyn import sync
from fsspec.callbacks import Callback

from natsproto.errors import NatsError, NoServersError, RemoteProtocolError, RequestTimeoutError
from objstore import BucketNotFoundError, ObjectInfo, ObjectLink, ObjectStore
from objstore.bucket import bucket
from objstore.bucket.bucket import Bucket
from objstore.filesystem import NatsObjectFileSystem
from objstore.filesystem.filesystem_lists import LOOKS
from objstore.format.codec import MetaDecodeError
from objstore.format.naming import meta_subject
from objstore.read import links
from objstore.read.links import FollowLinks
from support.memory_server import MemoryServer

NAMES = ["a", "a//b", "a/b", "d/e/f", "/tmp/x", "d/../g", "100%.txt", "sp ace/é", "q?*[1]"]


def do(fs: NatsObjectFileSystem, verb: str, *arguments: object) -> Any:
    """A call of the bucket itself."""

    async def run() -> object:
        store: ObjectStore = await fs._store("b")
        return await getattr(store, verb)(*arguments)

    return sync(fs.loop, run)


@pytest.fixture
def full(fs: NatsObjectFileSystem) -> NatsObjectFileSystem:
    for name in NAMES:
        do(fs, "put", name, name.encode())
    return fs


def test_every_name_is_found_and_read(full: NatsObjectFileSystem) -> None:
    assert full.find("b") == sorted(f"b/{name}" for name in NAMES)
    for name in NAMES:
        assert full.cat_file(f"natsobj://b/{name}") == name.encode()
        assert full.info(f"b/{name}")["size"] == len(name.encode())
    walked = {f"{at}/{name}" for at, _, names in full.walk("b") for name in names if name}
    assert walked == {f"b/{name}" for name in NAMES}


def test_listing(full: NatsObjectFileSystem) -> None:
    assert full.ls("", detail=False) == full.ls("/", detail=False) == ["b"]
    assert full.ls("b/d", detail=False) == ["b/d/..", "b/d/e"]
    assert full.ls("b/a", detail=False) == ["b/a", "b/a//b", "b/a/b"]
    assert [entry["name"] for entry in full.ls("natsobj://b//tmp/")] == ["b//tmp/x"]
    assert [entry["type"] for entry in full.ls("b/d/e/f")] == ["file"]
    with pytest.raises(FileNotFoundError):
        full.ls("b/none")
    with pytest.raises(FileNotFoundError):
        full.ls("none")
    assert full.ls("b/d", detail=False) == ["b/d/..", "b/d/e"]


def test_walking(full: NatsObjectFileSystem) -> None:
    assert [at for at, _, _ in full.walk("")][:2] == ["", "b"]
    assert [at for at, _, _ in full.walk("b/d", topdown=False)] == ["b/d/..", "b/d/e", "b/d"]
    assert len(list(full.walk("b", maxdepth=1))) == 1
    pruned = []
    for at, directories, _ in full.walk("b"):
        pruned.append(at)
        directories.clear()
    assert pruned == ["b"]
    assert next(full.walk("b/d", detail=True))[1]["e"]["type"] == "directory"
    assert list(full.walk("b/none")) == [("b/none", [], [])]
    assert list(full.walk("b/none", detail=True)) == [("b/none", {}, {})]
    told: list[OSError] = []
    assert list(full.walk("none", on_error=told.append)) == [("none", [], [])]
    assert len(told) == 1
    with pytest.raises(FileNotFoundError):
        list(full.walk("b/none", on_error="raise"))
    for search in (full.walk, full.find):
        with pytest.raises(ValueError, match="maxdepth"):
            list(search("b", maxdepth=0))


def test_finding(full: NatsObjectFileSystem) -> None:
    assert full.find("") == full.find("b")
    assert full.find("", maxdepth=1, withdirs=True) == ["b"]
    assert full.find("none") == full.find("b/none") == []
    assert full.glob("b/d/*/f") == ["b/d/e/f"]
    assert full.glob("b/sp*/?") == ["b/sp ace/é"]
    assert full.glob("*") == ["b"]
    assert full.du("b/d") == len("d/e/f") + len("d/../g")
    assert full.du("b/d/e", total=False) == {"b/d/e/f": 5}


def test_what_a_path_is(full: NatsObjectFileSystem) -> None:
    kinds = {"": "directory", "b": "directory", "b/d": "directory", "b//tmp": "directory", "b/a": "file"}
    assert {path: full.info(path)["type"] for path in kinds} == kinds
    assert full.isdir("b/sp ace")
    assert full.isfile("b/a")
    for path in ("b/none", "b/d/e/", "none", "no bucket/x", "b/" + "x" * 5000, "b/d\udc80"):
        assert not full.isfile(path), path
        assert full.exists(path) is (path == "b/d/e/"), path
    assert full._parent("b//tmp/x") == "b//tmp"
    assert full._parent("b//tmp") == full._parent("b/x") == "b"
    assert full._parent("b") == ""
    assert full.unstrip_protocol("b/a") == "natsobj://b/a"


def test_a_directory_of_deleted_names_is_none(fs: NatsObjectFileSystem) -> None:
    for number in range(LOOKS + 2):
        do(fs, "put", f"d/{number:02}", b"")
        do(fs, "delete", f"d/{number:02}")
    assert not fs.exists("b/d")
    do(fs, "put", "d/later", b"")
    assert fs.isdir("b/d")


@pytest.mark.parametrize("unreadable", [1, LOOKS + 2])
def test_a_directory_of_names_that_cannot_be_read(
    fs: NatsObjectFileSystem, memory: MemoryServer, unreadable: int
) -> None:
    for number in range(unreadable):
        memory.put_raw(meta_subject("b", f"d/{number:02}"), b"{no json")
    assert not fs.exists("b/d")
    do(fs, "put", "d/later", b"x")
    assert fs.info("b/d")["type"] == "directory"
    assert fs.glob("b/*") == ["b/d"]
    fs.cp_file("b/d/later", "b/d/copy")
    assert fs.ls("b/d", detail=False) == ["b/d/copy", "b/d/later"]


def test_names_that_end_in_a_slash(fs: NatsObjectFileSystem, caplog: pytest.LogCaptureFixture) -> None:
    """They mark directories, and one with content is told of."""
    do(fs, "put", "m/", b"")
    do(fs, "put", "/", b"")
    assert fs.ls("b", detail=False) == ["b/m"]
    assert fs.isdir("b/m")
    assert fs.ls("b/m") == []
    assert caplog.messages == []
    do(fs, "put", "full/", b"content")
    with caplog.at_level(logging.WARNING):
        fs.ls("b")
        fs.ls("b")
    assert caplog.messages == ["object 'b/full/' has no path of its own: its name ends in a slash"]


def test_held(full: NatsObjectFileSystem) -> None:
    do(full, "add_link", "link", ObjectLink("b", "d/e/f"))
    do(full, "add_link", "broken", ObjectLink("b", "a"))
    do(full, "delete", "a")
    do(full, "add_bucket_link", "bucket", "b")
    for entry in (full.info("b/link"), full.find("b", detail=True)["b/link"]):
        assert (entry["type"], entry["size"], entry["destination"]) == ("file", 5, "b/d/e/f")
        assert entry["digest"] == full.ukey("b/d/e/f")
    assert full.cat_file("b/link", 2, 3) == b"e"
    for name in ("broken", "bucket"):
        assert full.info(f"b/{name}")["type"] == "other"
        with pytest.raises(OSError, match="link"):
            full.cat_file(f"b/{name}")


def reads(fs: NatsObjectFileSystem, path: str, target: Path) -> list[Callable[[], object]]:
    return [
        lambda: fs.cat_file(path),
        lambda: fs.cat_file(path, 1, 2),
        lambda: fs.cat_ranges([path], 1, 2, on_error="raise"),
        lambda: fs.get_file(path, str(target)),
        lambda: fs.get_file(path, io.BytesIO()),
        lambda: fs.copy(path, "b/copy", on_error="raise"),
        lambda: fs.open(path, "rb").read(1),
    ]


@pytest.mark.parametrize(
    ("follow", "name", "allowed"),
    [
        ("all", "far", True),
        ("same-bucket", "far", False),
        ("same-bucket", "near", True),
        ("none", "near", False),
    ],
)
def test_links_that_the_reader_follows(
    full: NatsObjectFileSystem, tmp_path: Path, follow: FollowLinks, name: str, allowed: bool
) -> None:
    full.mkdir("other")
    full.pipe_file("other/secret", b"secret")
    do(full, "add_link", "near", ObjectLink("b", "d/e/f"))
    do(full, "add_link", "far", ObjectLink("other", "secret"))
    fs = NatsObjectFileSystem(skip_instance_cache=True, follow_links=follow)
    fs._connections = full._connections
    path, target = f"b/{name}", tmp_path / "target"
    kind = "file" if allowed else "other"
    assert fs.info(path)["type"] == fs.find("b", detail=True)[path]["type"] == kind
    for read in reads(fs, path, target):
        if allowed:
            read()
        else:
            with pytest.raises(OSError, match="follow_links"):
                read()
    assert target.exists() == allowed
    full.mkdir("third")
    if not allowed:
        with pytest.raises(OSError, match="is not moved"):
            fs.mv(path, "third/moved")
    else:
        fs.mv(path, "third/moved")
        assert full.info("third/moved")["type"] == "file"
    assert full.exists(path) != allowed


@pytest.mark.parametrize(
    "error",
    [
        RequestTimeoutError("no answer"),
        RemoteProtocolError("odd"),
        BucketNotFoundError("gone", bucket="other"),
        MetaDecodeError("bad", bucket="other", subject="", revision=1),
    ],
)
def test_links_to_a_bucket_that_cannot_be_read(
    full: NatsObjectFileSystem, monkeypatch: pytest.MonkeyPatch, error: NatsError
) -> None:
    """They are shown as such: the bucket that is listed is whole."""
    full.mkdir("other")
    full.pipe_file("other/far", b"far")
    do(full, "add_link", "far", ObjectLink("other", "far"))
    found = full.find("b")
    read = links.live_info

    async def failing(bucket: Bucket, name: str, **more: bool) -> ObjectInfo:
        if bucket.name == "other":
            raise error
        return await read(bucket, name, **more)

    monkeypatch.setattr(links, "live_info", failing)
    assert full.find("b") == found
    assert {entry["name"]: entry["type"] for entry in full.ls("b")}["b/far"] == "other"
    assert full.info("b/far")["type"] == "other"


def test_links_are_followed_in_one_of_three_ways() -> None:
    with pytest.raises(ValueError, match="follow_links is one of"):
        NatsObjectFileSystem(skip_instance_cache=True, follow_links="some")  # type: ignore[arg-type]


def test_facts(full: NatsObjectFileSystem) -> None:
    assert full.ukey("b/a") == full.checksum("b/a") == do(full, "get_info", "a").digest
    assert full.modified("b/a") == full.created("b/a") == do(full, "get_info", "a").mtime
    assert isinstance(full.created("b"), datetime)
    with pytest.raises(IsADirectoryError):
        full.modified("b/d")
    with pytest.raises(NotImplementedError, match="credentials"):
        full.sign("b/a")


def test_bytes(fs: NatsObjectFileSystem) -> None:
    data = bytes(range(100))
    do(fs, "put", "a", data)
    for start, end in (
        (None, None),
        (5, None),
        (None, 5),
        (-5, None),
        (5, -5),
        (90, 200),
        (200, 300),
        (9, 3),
    ):
        assert fs.cat_file("b/a", start, end) == data[start:end]
    assert fs.cat_ranges(["b/a", "b/a"], [0, 50], [5, 55]) == [data[:5], data[50:55]]
    assert fs.cat_ranges(["b/a", "b/a"], 0, 5) == [data[:5]] * 2
    found = fs.cat_ranges(["b/a", "b/none", "b/a"], [0, 0, 9], [5, 5, 12])
    assert (found[0], found[2]) == (data[:5], data[9:12])
    assert isinstance(found[1], FileNotFoundError)
    with pytest.raises(FileNotFoundError):
        fs.cat_ranges(["b/none"], [0], [5], on_error="raise")
    with pytest.raises(TypeError):
        fs.cat_ranges("b/a", [0], [5])
    with pytest.raises(ValueError, match="same length"):
        fs.cat_ranges(["b/a"], [0, 1], [5])
    assert fs.head("b/a", 3) == data[:3]
    assert fs.tail("b/a", 3) == data[-3:]


class Told(Callback):
    """Notes each state."""

    def __init__(self) -> None:
        super().__init__()
        self.states: list[tuple[object, object]] = []

    def call(self, *arguments: object, **more: object) -> None:
        self.states.append((self.size, self.value))


def test_one_file_to_disk(full: NatsObjectFileSystem, tmp_path: Path) -> None:
    told = Told()
    full.get_file("b/d/e/f", str(tmp_path / "f"), callback=told)
    assert (tmp_path / "f").read_bytes() == b"d/e/f"
    assert told.states[-1] == (5, 5)
    memory, told = io.BytesIO(), Told()
    full.get_file("b/d/e/f", memory, callback=told)
    assert memory.getvalue() == b"d/e/f"
    assert told.states[-1] == (5, 5)
    full.get_file("b/d", str(tmp_path / "directory"))
    assert (tmp_path / "directory").is_dir()
    with pytest.raises(FileNotFoundError):
        full.get_file("b/none", str(tmp_path / "none"))
    assert not (tmp_path / "none").exists()


def test_trouble_is_not_an_empty_answer(
    fs: NatsObjectFileSystem, memory: MemoryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nobody(self: object, bucket: str) -> ObjectStore:
        raise NoServersError("nobody answers")

    monkeypatch.setattr(type(fs._connections), "store", nobody)
    for ask in (
        fs.exists,
        fs.isdir,
        fs.isfile,
        fs.ls,
        fs.find,
        fs.info,
        fs.cat_file,
        lambda p: list(fs.walk(p)),
    ):
        with pytest.raises(ConnectionError):
            ask("b/a")


def test_buckets_that_others_remove(fs: NatsObjectFileSystem, memory: MemoryServer) -> None:
    assert fs.exists("b")
    memory.streams.clear()
    assert not fs.exists("b")
    fs.mkdir("b")
    fs.pipe_file("b/a", b"")
    memory.streams.clear()
    assert not fs.exists("b/a")
    with pytest.raises(FileNotFoundError):
        fs.ls("b")
    fs.mkdir("b")
    assert fs.ls("b") == []


def test_a_bucket_that_others_create_again(
    full: NatsObjectFileSystem, memory: MemoryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket, "ALONE_AGE", 0.0)
    monkeypatch.setattr("natsproto.jetstream.all_answers.WAIT", 0.05)

    def again() -> None:
        """Somebody else does so; this file system still has the old one open."""
        memory.streams.clear()
        sync(full.loop, memory.bucket)

        async def put() -> None:
            await (await memory.js.object_store("b")).put("new/x", b"x")

        sync(full.loop, put)

    again()
    assert full.isdir("b/new")
    again()
    assert full.ls("b/new", detail=False) == ["b/new/x"]
    again()
    assert full.find("b/new") == ["b/new/x"]
    again()
    full.rm("b/new", recursive=True)
    assert full.find("b") == []


def test_forgetting(fs: NatsObjectFileSystem) -> None:
    fs.ls("b")
    links = list(fs._connections._held.values())
    fs.invalidate_cache("b/x")
    assert links[0].stores == {}
    fs.ls("b")
    fs.invalidate_cache()
    assert links[0].stores == {}
