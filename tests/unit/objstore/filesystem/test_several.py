"""What fails for one object does not stop the others; what fails for all ends the call."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from fsspec.asyn import sync

from natsproto.errors import (
    AuthorizationError,
    ConnectionClosedError,
    NoRespondersError,
    PermissionsViolationError,
    RequestTimeoutError,
)
from objstore import (
    BucketNotFoundError,
    BucketSealedError,
    IntegrityError,
    LinkError,
    ObjectInfo,
    ObjectLink,
    ObjectNotFoundError,
    ObjectStore,
)
from objstore.bucket.bucket import Bucket
from objstore.filesystem import NatsObjectFileSystem
from objstore.filesystem.several import of_one
from objstore.format.naming import meta_subject
from objstore.read import links
from objstore.read.parts import NotWhole
from support.memory_server import SILENCE, MemoryServer

GOOD = [f"b/d/{number:02}" for number in range(40)]
BAD = ["b/d/00-damaged", "b/d/00-dangling"]
DAMAGED = {"name": "d/00-damaged", "bucket": "b", "nuid": "none", "size": 5, "chunks": 1, "digest": ""}


@pytest.fixture
def spoilt(fs: NatsObjectFileSystem, memory: MemoryServer) -> NatsObjectFileSystem:
    """A tree with two objects that somebody else has spoilt, among the first ones; and a bucket ``c``."""
    fs.pipe({path: path.encode() for path in GOOD})
    memory.put_raw(meta_subject("b", "d/00-damaged"), json.dumps(DAMAGED).encode())

    async def link() -> None:
        await (await fs._store("b")).add_link("d/00-dangling", ObjectLink("b", "gone"))

    fs.pipe_file("b/gone", b"")
    sync(fs.loop, link)
    fs.rm_file("b/gone")
    fs.mkdir("c")
    return fs


def files(directory: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in directory.iterdir()}


def in_c(fs: NatsObjectFileSystem) -> dict[str, bytes]:
    found: dict[str, bytes] = fs.cat("c", recursive=True)
    return found


GOT = {path.rpartition("/")[2]: path.encode() for path in GOOD}
COPIED = {f"c/{name}": data for name, data in GOT.items()}


def failed(caught: pytest.ExceptionInfo[Any], caplog: pytest.LogCaptureFixture, count: str) -> None:
    """The first one is raised, and each is told of."""
    assert caught.value.filename == BAD[0]
    assert caught.value.__notes__ == [f"{BAD[0]!r}: {count} failed"]
    assert sorted(text.partition(" failed: ")[0] for text in caplog.messages) == [repr(bad) for bad in BAD]


@pytest.mark.parametrize("at_once", [1, 3, -1])
def test_get(
    spoilt: NatsObjectFileSystem, tmp_path: Path, caplog: pytest.LogCaptureFixture, at_once: int
) -> None:
    with pytest.raises(OSError, match="00-damaged") as caught:
        spoilt.get("b/d/", str(tmp_path / "to"), recursive=True, batch_size=at_once)
    assert files(tmp_path / "to") == GOT
    failed(caught, caplog, "2 of 43")  # with the directory
    with pytest.raises(OSError, match="00-damaged"):
        spoilt.get([BAD[0], "b/none", BAD[1], *GOOD], str(tmp_path / "listed") + "/")
    assert files(tmp_path / "listed") == GOT
    with pytest.raises(OSError, match="dangling"):
        spoilt.get([BAD[1], GOOD[0]], [str(tmp_path / "1"), str(tmp_path / "2")])
    assert (tmp_path / "2").exists()
    caplog.clear()
    with pytest.raises(OSError, match="dangling") as caught:
        spoilt.get(BAD[1], str(tmp_path / "one"))
    assert (caplog.messages, hasattr(caught.value, "__notes__")) == ([], False)


def test_two_names_of_one_local_file(fs: NatsObjectFileSystem, tmp_path: Path) -> None:
    """A link to a directory makes two paths one file; what one object has written, another one leaves."""
    names = ["v1/x", "v1/y", "latest/x"]
    for name in names:
        fs.pipe_file(f"b/{name}", name.encode() * 1000)
    (tmp_path / "v1").mkdir()
    (tmp_path / "latest").symlink_to("v1")
    with pytest.raises(FileExistsError, match="just written for another object"):
        fs.get("b/", str(tmp_path), recursive=True)
    assert (tmp_path / "v1" / "x").read_bytes() in (b"v1/x" * 1000, b"latest/x" * 1000)
    assert (tmp_path / "v1" / "y").read_bytes() == b"v1/y" * 1000
    fs.get("b/v1/x", str(tmp_path / "latest" / "x"))
    assert (tmp_path / "v1" / "x").read_bytes() == b"v1/x" * 1000


def test_a_local_file_in_the_place_of_a_directory(fs: NatsObjectFileSystem, tmp_path: Path) -> None:
    fs.pipe({"b/d/a/b": b"1", "b/d/" + "x" * 300: b"2", "b/d/z": b"3"})
    (tmp_path / "a").write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        fs.get("b/d/", str(tmp_path), recursive=True)
    assert files(tmp_path) == {"a": b"mine", "z": b"3"}


@pytest.mark.parametrize("on_error", ["raise", "ignore", None])
def test_copy(spoilt: NatsObjectFileSystem, caplog: pytest.LogCaptureFixture, on_error: str | None) -> None:
    """As in fsspec, ``"ignore"`` leaves out what is not found, and nothing else."""
    with pytest.raises(OSError, match="00-damaged") as caught:
        spoilt.copy("b/d/", "c/", recursive=True, on_error=on_error)
    assert in_c(spoilt) == COPIED
    failed(caught, caplog, "2 of 42")


@pytest.mark.parametrize(("on_error", "raised"), [("raise", True), ("ignore", False)])
def test_copy_of_one_that_has_just_been_deleted(
    fs: NatsObjectFileSystem, caplog: pytest.LogCaptureFixture, on_error: str, raised: bool
) -> None:
    fs.pipe({path: path.encode() for path in GOOD})
    fs.mkdir("c")
    paths = ["b/d/none", *GOOD]
    with pytest.raises(FileNotFoundError, match="none") if raised else nullcontext():
        fs.copy(paths, "c/", on_error=on_error)
    assert in_c(fs) == COPIED
    assert len(caplog.messages) == raised


@pytest.mark.parametrize("at_once", [1, 16])
def test_move_between_buckets(
    spoilt: NatsObjectFileSystem, caplog: pytest.LogCaptureFixture, at_once: int
) -> None:
    """Each file by itself: what could not be copied stays."""
    with pytest.raises(OSError, match="00-damaged") as caught:
        spoilt.mv("b/d/", "c/", recursive=True, batch_size=at_once)
    assert in_c(spoilt) == COPIED
    assert spoilt.find("b") == BAD
    failed(caught, caplog, "2 of 42")


def test_move_within_a_bucket(spoilt: NatsObjectFileSystem, memory: MemoryServer) -> None:
    """Links are renamed, whatever they lead to."""
    paths = ["b/d/none", BAD[1], *GOOD]
    with pytest.raises(FileNotFoundError):
        spoilt.mv(paths, "b/to/")
    assert spoilt.find("b/d") == BAD[:1]
    assert len(spoilt.find("b/to")) == 41


def test_cat(spoilt: NatsObjectFileSystem, caplog: pytest.LogCaptureFixture) -> None:
    good = {path: path.encode() for path in GOOD}
    listed = [*BAD, *GOOD]
    for path, recursive in (("b/d", True), ("b/d/*", False), (listed, False)):
        caplog.clear()
        with pytest.raises(OSError, match="00-damaged") as caught:
            spoilt.cat(path, recursive=recursive)
        failed(caught, caplog, "2 of 42")
        caplog.clear()
        assert spoilt.cat(path, recursive=recursive, on_error="omit") == good
        found = spoilt.cat(path, recursive=recursive, on_error="return")
        assert {name: data for name, data in found.items() if isinstance(data, bytes)} == good
        assert [found[bad].errno for bad in BAD] == [errno.EIO, errno.ELOOP]
        assert caplog.messages == []
    with pytest.raises(OSError, match="00-damaged"):
        spoilt.cat(BAD[0], on_error="return")  # so fsspec does with a single one
    with pytest.raises(OSError, match="00-damaged"):
        spoilt.cat_ranges([*BAD, *GOOD], 0, 3, on_error="raise")
    caplog.clear()
    assert spoilt.cat_ranges([*BAD, *GOOD], 0, 3)[2:] == [b"b/d"] * 40


def test_cat_of_several_buckets(spoilt: NatsObjectFileSystem) -> None:
    """One that is gone is no error of the others."""
    spoilt.pipe_file("c/x", b"x")
    paths = ["gone/1", "b/d/00", "gone/2", "c/x"]
    found = spoilt.cat(paths, on_error="return")
    assert [type(found[path]) for path in paths] == [FileNotFoundError, bytes, FileNotFoundError, bytes]
    assert spoilt.cat(paths, on_error="omit") == {"b/d/00": b"b/d/00", "c/x": b"x"}
    assert spoilt.cat_ranges(paths, 0, 1)[1::2] == [b"b", b"x"]


@pytest.mark.parametrize("how", [["b/d", True], [[BAD[0], *GOOD], False], [["b/d/", "b/d"], True]])
def test_remove(fs: NatsObjectFileSystem, monkeypatch: pytest.MonkeyPatch, how: list[Any]) -> None:
    """Who may not delete one of them, deletes the others."""
    fs.pipe(dict.fromkeys((BAD[0], *GOOD), b""))
    delete = ObjectStore.delete

    async def denied(self: ObjectStore, name: str, **options: Any) -> Any:
        if name == "d/00-damaged":
            raise PermissionsViolationError("not this one")
        return await delete(self, name, **options)

    monkeypatch.setattr(ObjectStore, "delete", denied)
    with pytest.raises(PermissionError, match="not this one") as caught:
        fs.rm(how[0], recursive=how[1])
    assert caught.value.filename == BAD[0]
    assert fs.find("b") == BAD[:1]


def test_remove_what_has_gone(fs: NatsObjectFileSystem) -> None:
    fs.pipe(dict.fromkeys(GOOD, b""))
    with pytest.raises(FileNotFoundError):
        fs.rm(["b/d/none", *GOOD[:20]])
    with pytest.raises(FileNotFoundError):
        fs.rm(["b/none", "b/d"], recursive=True)
    assert fs.find("b") == []


def test_put(fs: NatsObjectFileSystem, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A local file that cannot be read, and one whose name cannot be that of an object."""
    for number in range(20):
        (tmp_path / f"{number:02}").write_bytes(b"x")
    (tmp_path / "00-none").symlink_to("nothing")
    (tmp_path / "d").mkdir()
    with pytest.raises(FileNotFoundError) as caught:
        fs.put(str(tmp_path) + "/", "b/to", recursive=True)
    assert len(fs.find("b/to")) == 20
    assert caught.value.__notes__ == [f"'{tmp_path}/00-none': 1 of 21 failed"]
    assert len(caplog.messages) == 1
    sources = [str(tmp_path / "none"), str(tmp_path / "00")]
    with pytest.raises(FileNotFoundError):
        fs.put(sources, ["b/listed/none", "b/listed/00"])
    with pytest.raises(FileNotFoundError):
        fs.put(sources, "b/here/")
    assert fs.find("b/listed") + fs.find("b/here") == ["b/listed/00", "b/here/00"]
    fs.put(str(tmp_path / "00"), ["b/single"])
    fs.put(tmp_path / "00", "b/path")
    assert fs.exists("b/single")
    assert fs.exists("b/path/00")


def test_pipe(fs: NatsObjectFileSystem) -> None:
    values = {"b/" + "x" * 9000: b"1", "b/old": b"2", **dict.fromkeys(GOOD, b"3")}
    fs.pipe_file("b/old", b"0")
    with pytest.raises(ValueError, match="x"):
        fs.pipe(values, mode="create")
    assert fs.find("b") == [*GOOD, "b/old"]
    assert fs.cat("b/old") == b"0"


BULK: dict[str, tuple[str, Callable[[NatsObjectFileSystem, str], object]]] = {
    "get": ("_get_file", lambda fs, here: fs.get("b/d", here, recursive=True)),
    "copy": ("_cp_file", lambda fs, here: fs.copy("b/d", "c/d", recursive=True)),
    "ignore": ("_cp_file", lambda fs, here: fs.copy(GOOD, "c/", on_error="ignore")),
    "mv": ("_mv_file", lambda fs, here: fs.mv("b/d", "c/d", recursive=True)),
    "cat": ("_cat_file", lambda fs, here: fs.cat(GOOD)),
    "rm": ("_rm_file", lambda fs, here: fs.rm(GOOD)),
    "pipe": ("_pipe_file", lambda fs, here: fs.pipe(dict.fromkeys(GOOD, b""))),
    "put": ("_put_file", lambda fs, here: fs.put([__file__] * 40, [f"b/{number}" for number in range(40)])),
}


def by_name(error: Exception) -> str:
    return type(error).__name__


@pytest.mark.parametrize(
    "error",
    [
        ConnectionClosedError("closed"),
        AuthorizationError("who?"),
        BucketNotFoundError("gone", bucket="b"),
        BucketSealedError("sealed", bucket="b"),
        OSError(errno.ENOSPC, "disk full"),
        RuntimeError("a fault of the program"),
    ],
    ids=by_name,
)
@pytest.mark.parametrize("verb", BULK)
def test_what_fails_for_all(
    fs: NatsObjectFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str, error: Exception
) -> None:
    """It ends the call: no other one is begun, and none that is under way is waited for."""
    fs.pipe(dict.fromkeys(GOOD, b""))
    fs.mkdir("c")
    step, call = BULK[verb]
    begun: list[object] = []

    async def fail(*arguments: object, **_: object) -> None:
        begun.append(arguments)
        if len(begun) == 16:
            raise error
        await asyncio.Event().wait()

    monkeypatch.setattr(fs, step, fail)
    with pytest.raises(type(error)) as caught:
        call(fs, str(tmp_path))
    assert caught.value is error
    assert len(begun) == 16
    assert "1 of 4" in error.__notes__.pop()


def test_what_fails_for_all_is_returned_for_all(
    fs: NatsObjectFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = ConnectionClosedError("closed")
    begun = []

    async def fail(path: str) -> bytes:
        begun.append(path)
        if len(begun) <= 3:
            return b"1"
        raise error

    monkeypatch.setattr(fs, "_cat_file", fail)
    found = fs.cat(GOOD, on_error="return", batch_size=1)
    assert list(found.values()) == [b"1"] * 3 + [error] * 37
    assert len(begun) == 4


@pytest.mark.parametrize(
    ("error", "raised"),
    [(RequestTimeoutError("no answer"), TimeoutError), (NoRespondersError("x"), NoRespondersError)],
)
@pytest.mark.parametrize("verb", BULK)
@pytest.mark.parametrize("away", [True, False])
def test_no_answer(
    fs: NatsObjectFileSystem,
    memory: MemoryServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    verb: str,
    error: Exception,
    raised: type[Exception],
    away: bool,
) -> None:
    """If the bucket gives none either, that ends the call. Else it was another one, that of a link."""
    fs.pipe(dict.fromkeys(GOOD, b""))
    fs.mkdir("c")
    step, call = BULK[verb]
    begun: list[object] = []
    monkeypatch.setattr("objstore.filesystem.several.ANSWER", 0.05)

    def silent(verb: str, _: object) -> object:
        return SILENCE if away and begun and verb == "STREAM.INFO" else None

    memory.hook = silent

    async def fail(*arguments: object, **_: object) -> None:
        begun.append(arguments)
        if len(begun) == 3:
            raise error
        if away:
            await asyncio.Event().wait()

    monkeypatch.setattr(fs, step, fail)
    with pytest.raises(raised):
        call(fs, str(tmp_path))
    assert len(begun) == (16 if away else 40)


def test_no_connection(
    fs: NatsObjectFileSystem, monkeypatch: pytest.MonkeyPatch, memory: MemoryServer
) -> None:
    """Nobody is asked then."""
    fs.pipe(dict.fromkeys(GOOD, b""))

    async def fail(path: str) -> bytes:
        memory.verbs()
        monkeypatch.setattr(type(memory.client), "is_connected", False)
        raise RequestTimeoutError("no answer")

    monkeypatch.setattr(fs, "_cat_file", fail)
    with pytest.raises(TimeoutError):
        fs.cat(GOOD, batch_size=1)
    assert memory.verbs() == []


@pytest.mark.parametrize("writable", [True, False])
def test_a_directory_that_cannot_be_written(
    fs: NatsObjectFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writable: bool
) -> None:
    fs.pipe(dict.fromkeys(GOOD, b""))
    begun = []

    async def denied(path: str, *_: object, **__: object) -> None:
        begun.append(path)
        raise PermissionError(errno.EACCES, "denied", path)

    monkeypatch.setattr(fs, "_get_file", denied)
    monkeypatch.setattr(os, "access", lambda path, mode: writable or path != str(tmp_path / "to"))
    with pytest.raises(PermissionError):
        fs.get("b/d/", str(tmp_path / "to"), recursive=True, batch_size=1)
    assert len(begun) == (40 if writable else 1)


def test_links_to_a_bucket_without_a_server(
    fs: NatsObjectFileSystem,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Each call waits for it once to list them and once to say why; not for each of them."""
    fs.pipe({path: path.encode() for path in GOOD})
    for bucket in ("c", "other"):
        fs.mkdir(bucket)
    fs.pipe_file("other/far", b"far")

    async def link() -> None:
        for number in range(50):
            await (await fs._store("b")).add_link(f"d/00-{number}", ObjectLink("other", "far"))

    sync(fs.loop, link)
    read = links.live_info
    waits = 0

    async def failing(bucket: Bucket, name: str, **more: bool) -> ObjectInfo:
        nonlocal waits
        if bucket.name == "other":
            waits += 1
            raise RequestTimeoutError("no answer")
        return await read(bucket, name, **more)

    monkeypatch.setattr(links, "live_info", failing)
    for call in (
        lambda: fs.get("b/d/", str(tmp_path), recursive=True, batch_size=1),
        lambda: fs.copy("b/d/", "c/", recursive=True, batch_size=1),
        lambda: fs.cat("b/d", recursive=True, batch_size=1),
    ):
        waits = 0
        caplog.set_level(logging.WARNING)
        with pytest.raises(OSError, match="cannot be read: no answer") as caught:
            call()
        assert caught.value.errno == errno.ELOOP
        assert waits <= 17  # the list is of 16 links at a time
    assert files(tmp_path) == GOT
    assert in_c(fs) == COPIED


def test_whose_error_it_is() -> None:
    for own in (
        LinkError("l"),
        ObjectNotFoundError("o"),
        IntegrityError("i"),
        NotWhole("n"),
        PermissionsViolationError("p"),
        BucketNotFoundError("gone", bucket="other"),
        FileExistsError(errno.EEXIST, "e"),
        ValueError("embedded null byte"),
    ):
        assert of_one(own, {"b"}), own
        wrapped = OSError(errno.EIO, "x")
        wrapped.__cause__ = own
        assert of_one(wrapped, {"b"}), own
    sealed = PermissionError(errno.EACCES, "x")
    sealed.__cause__ = BucketSealedError("sealed", bucket="b")
    assert not of_one(sealed, {"b"})
