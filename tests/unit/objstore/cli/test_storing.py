"""``put``: several files, directories, conditions; and what is refused before anything is sent."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from objstore import (
    BadObjectMetaError,
    ObjectAlreadyExists,
    ObjectStore,
    RevisionConflictError,
    SourceChangedError,
)
from objstore.cli.output import CommandError
from objstore.cli.parser import parse
from objstore.cli.storing import check_put
from support.memory_server import MemoryServer


@pytest.fixture
async def store(server: MemoryServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    for name in ("photos/2025/a.jpg", "photos/b.jpg", "one", "two"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return await server.bucket()


async def test_several_files(store: ObjectStore, command: Any) -> None:
    _, err = await command("put", "b", "one", "two", "--prefix", "x/", "-H", "A:1")
    assert "stored 2 files in bucket 'b'" in err
    assert await store.names() == ["x/one", "x/two"]
    assert (await store.get_info("x/two")).headers == {"A": ["1"]}
    out, _ = await command("put", "b", "one", "two", "--json")
    assert sorted(json.loads(line)["name"] for line in out.splitlines()) == ["one", "two"]


async def test_a_directory(store: ObjectStore, command: Any) -> None:
    await command("put", "-r", "b", "photos", "one")
    assert await store.names() == ["2025/a.jpg", "b.jpg", "one"]
    await command("put", "-r", "b", "photos/", "--prefix", "album/")
    assert await store.names("album/") == ["album/2025/a.jpg", "album/b.jpg"]
    assert await store.get("2025/a.jpg") == b"photos/2025/a.jpg"


async def test_one_missing_file(store: ObjectStore, command: Any) -> None:
    with pytest.raises(CommandError, match="put: 1 of 3 failed") as told:
        await command("put", "b", "one", "missing", "two")
    assert told.value.code == 1
    assert await store.names() == ["one", "two"]


async def test_two_files_of_one_name(store: ObjectStore, command: Any, tmp_path: Path) -> None:
    (tmp_path / "photos" / "one").write_text("other")
    with pytest.raises(CommandError, match="would both be 'one'") as told:
        await command("put", "-r", "b", "photos", "one")
    assert told.value.code == 2
    assert await store.names() == []


async def test_conditions(store: ObjectStore, command: Any) -> None:
    await command("put", "b", "one", "--create")
    info = await store.get_info("one")
    assert info.metadata["filename"] == "one"
    with pytest.raises(ObjectAlreadyExists):
        await command("put", "b", "one", "--create")
    with pytest.raises(RevisionConflictError):
        await command("put", "b", "one", "--if-revision", "77")
    await command("put", "b", "one", "--if-revision", str(info.revision))
    await command("put", "b", "two", "--if-revision", "0", "--resume")
    with pytest.raises(BadObjectMetaError, match="chunk"):
        await command("put", "b", "one", "--chunk-size", "1GiB")


async def test_standard_input_of_a_size(
    store: ObjectStore, command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for size, extra in (("10", []), ("9", ["--create"]), ("11", [])):
        source, target = os.pipe()
        os.write(target, b"0123456789")
        os.close(target)
        with open(source) as stdin:
            monkeypatch.setattr("sys.stdin", stdin)
            put = command("put", "b", "-", "--name", f"of {size}", "--size", size, *extra)
            if size == "10":
                await put
            else:
                with pytest.raises(SourceChangedError, match=f"size is {size}"):
                    await put
    assert [info.name for info in await store.list()] == ["of 10"]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["-"], "standard input has no name"),
        (["-", "one", "--prefix", "x"], "standard input is stored alone"),
        (["-", "--name", "x", "--resume"], "cannot be read again"),
        (["photos"], "'photos' is a directory: pass -r"),
        (["one/"], "has no base name"),
        (["one", "--size", "3"], "--size is for standard input"),
        (["one", "two", "--name", "x"], "--name is for one file"),
        (["one", "two", "--if-revision", "1"], "--if-revision is for one file"),
        (["one", "--name", "a", "--prefix", "b"], "--name or --prefix"),
        (["one", "--create", "--if-revision", "1"], "--create or --if-revision"),
        (["one", "--resume", "--ttl", "1h"], "neither --ttl nor --atomic"),
        (["one", "--resume", "--atomic"], "neither --ttl nor --atomic"),
    ],
)
def test_what_cannot_work(store: ObjectStore, words: list[str], why: str) -> None:
    with pytest.raises(CommandError, match=why) as told:
        check_put(parse(["put", "b", *words]))
    assert told.value.code == 2


async def test_an_empty_directory(store: ObjectStore, command: Any, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(CommandError, match="no files in 'empty'"):
        await command("put", "-r", "b", "empty")
