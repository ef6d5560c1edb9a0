"""``put`` and ``get``: from files and pipes, into files and pipes; nothing is replaced that need not be."""

from __future__ import annotations

import errno
import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from objstore import ObjectNotFoundError, ObjectStore
from objstore.cli.fetching import check_get
from objstore.cli.output import CommandError
from objstore.cli.parser import parse
from objstore.cli.storing import check_put, name_of
from objstore.read import files
from support.memory_server import MemoryServer

DATA = bytes(range(256)) * 40


@pytest.fixture
async def store(server: MemoryServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    monkeypatch.chdir(tmp_path)
    store = await server.bucket()
    await store.put("a", DATA, chunk_size=1000)
    return store


async def test_put_a_file(server: MemoryServer, store: ObjectStore, command: Any, tmp_path: Path) -> None:
    (tmp_path / "file.bin").write_bytes(DATA)
    _, err = await command("put", "b", "file.bin", "-H", "A: 1", "-H", "A: 2", "--metadata", "k=v")
    assert "stored 'file.bin' in bucket 'b': 10.0 KiB, 1 chunk, SHA-256=" in err
    info = await store.get_info("file.bin")
    assert info.headers is not None
    assert (info.headers.get_all("A"), info.metadata["k"]) == (["1", "2"], "v")
    out, _ = await command("put", "b", "file.bin", "--name", "n", "--chunk-size", "1000", "--json")
    assert (json.loads(out)["name"], json.loads(out)["chunks"]) == ("n", 11)
    with pytest.raises(FileNotFoundError):
        await command("put", "b", "none")


async def test_put_what_comes(store: ObjectStore, command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()

    def feed() -> None:
        with open(writing, "wb") as file:
            file.write(DATA)

    thread = threading.Thread(target=feed)
    thread.start()
    with open(reading, "rb") as source:
        monkeypatch.setattr("sys.stdin", source)
        await command("put", "b", "-", "--name", "piped")
    thread.join()
    assert await store.get("piped") == DATA


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["f"], "f"),
        (["dir/f"], "f"),
        (["f", "--name", "x/y"], "x/y"),
        (["-"], ""),
        (["dir/"], ""),
        (["f", "--name", ""], ""),
    ],
)
def test_names(words: list[str], name: str) -> None:
    args = parse(["put", "b", *words])
    assert name_of(args.files[0], args) == name


async def test_get_into_a_file(store: ObjectStore, command: Any, tmp_path: Path) -> None:
    _, err = await command("get", "b", "a")
    assert (tmp_path / "a").read_bytes() == DATA
    assert "wrote 'a': 10.0 KiB, verified" in err
    with pytest.raises(CommandError, match="exists: pass --force") as told:
        await command("get", "b", "a")
    assert told.value.code == 4
    (tmp_path / "a").write_text("old")
    await command("get", "b", "a", "--force")
    assert (tmp_path / "a").read_bytes() == DATA
    out, _ = await command("get", "b", "a", "-O", "other", "--json")
    assert json.loads(out)["file"] == "other"
    with pytest.raises(CommandError, match="is a directory"):
        await command("get", "b", "a", "-O", ".")
    with pytest.raises(ObjectNotFoundError):
        await command("get", "b", "none")
    assert sorted(os.listdir(tmp_path)) == ["a", "other"]


async def test_a_file_that_others_make_meanwhile_stays(
    server: MemoryServer, store: ObjectStore, command: Any, tmp_path: Path
) -> None:
    def hook(verb: str, body: dict[str, Any]) -> None:
        (tmp_path / "a").write_text("of somebody")

    server.hook = hook
    with pytest.raises(CommandError, match="exists"):
        await command("get", "b", "a")
    assert (tmp_path / "a").read_text() == "of somebody"
    assert os.listdir(tmp_path) == ["a"]


async def test_get_into_a_pipe(store: ObjectStore, command: Any, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    got: list[bytes] = []

    def read() -> None:
        got.append((tmp_path / "pipe").read_bytes())

    with pytest.raises(CommandError, match=r"the pipe .* has no reader"):
        await command("get", "b", "a", "-O", "pipe")
    keep = os.open(tmp_path / "pipe", os.O_RDWR)
    thread = threading.Thread(target=read)
    thread.start()
    await command("get", "b", "a", "-O", "pipe")
    os.close(keep)
    thread.join(10)
    assert got == [DATA]


async def test_a_name_that_leads_elsewhere(store: ObjectStore, command: Any, tmp_path: Path) -> None:
    await store.put("../evil", b"x")
    with pytest.raises(CommandError):
        await command("get", "b", "../evil")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["put", "b", "-"], "standard input has no name"),
        (["put", "b", "dir/"], "has no base name"),
        (["put", "report.pdf", "b"], "the bucket comes first: objstore put b report.pdf"),
        (["get", "b", "a", "-O", ""], "-O needs the name of a file"),
        (["get", "b", "a", "-O", "-", "--json"], "both want standard output"),
        (["get", "b", "dir/.."], "-O"),
        (["get", "2026/report.pdf", "b"], "the bucket comes first: objstore get b 2026/report.pdf"),
    ],
)
def test_what_cannot_work(words: list[str], why: str) -> None:
    check = {"put": check_put, "get": check_get}[words[0]]
    with pytest.raises(CommandError, match=why) as told:
        check(parse(words))
    assert told.value.code == 2


async def test_a_bucket_that_comes_second(store: ObjectStore, command: Any, tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(DATA)
    with pytest.raises(CommandError, match="but 'b' is one: the bucket comes first") as told:
        await command("put", "other", "b")
    assert told.value.code == 3
    with pytest.raises(CommandError, match="but 'b' is one: the bucket comes first"):
        await command("get", "a", "b", "-O", "x")


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize(
    ("error", "why"),
    [
        (PermissionError(errno.EACCES, "Permission denied", ".objstore-hidden"), "permission denied. Choose"),
        (OSError(errno.ENOSPC, "No space left on device"), "no space left on device. Free some space, or"),
    ],
)
async def test_the_error_names_the_target(
    store: ObjectStore, command: Any, monkeypatch: pytest.MonkeyPatch, error: OSError, why: str, force: bool
) -> None:
    """Not the hidden file that is filled first, which nobody has heard of."""

    async def fail(*args: Any, **options: Any) -> None:
        raise error

    monkeypatch.setattr(files, "get_file", fail)
    with pytest.raises(CommandError, match=f"^'x/a' cannot be written: {why}") as told:
        await command("get", "b", "a", "-O", "x/a", *(["-f"] if force else []))
    assert told.value.code == 1
