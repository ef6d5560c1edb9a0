"""Files of any name the file system takes, written to and read from."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from objstore import ObjectStore
from objstore.read.files import _temporary
from support.objects import pattern

DATA = pattern(300_000)

NAMES = [
    "a" * 255,
    "報" * 80,
    "報" * 85,
    "😀" * 63,
    "é" * 127 + "x",
    "e\u0301" * 85,
    "a" * 210,
    "a" * 240,
    "." + "a" * 254,
    " ",
    "-",
    "~",
    "...",
    "a\nb",
    "\x01\x7f",
    "a\\b",
    "'\"$`;",
]
RAW = [b"caf\xe9.txt", b"\xff" * 255, b"\x80" * 200, bytes(range(0xA0, 0x100)), b"a" * 240 + b"\xe5\xa0"]
EVERY = pytest.mark.parametrize("name", [*map(os.fsencode, NAMES), *RAW], ids=ascii)


@EVERY
@pytest.mark.parametrize("resume", [False, True])
async def test_written_to(store: ObjectStore, tmp_path: Path, name: bytes, resume: bool) -> None:
    await store.put("o", DATA)
    for directory in (os.fsencode(tmp_path), tmp_path):
        path = os.path.join(directory, name if isinstance(directory, bytes) else os.fsdecode(name))
        for _ in range(2):  # new, and replaced
            await store.get_file("o", path, resume=resume)
            assert os.listdir(os.fsencode(tmp_path)) == [name]
        with open(path, "rb") as file:
            assert file.read() == DATA
        os.unlink(path)
    path = Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), name)))
    await store.get_file("o", path, resume=resume)
    assert os.listdir(os.fsencode(tmp_path)) == [name]


@EVERY
async def test_read_from(store: ObjectStore, tmp_path: Path, name: bytes) -> None:
    raw = os.path.join(os.fsencode(tmp_path), name)
    with open(raw, "wb") as file:
        file.write(DATA)
    for path in (raw, os.fsdecode(raw), Path(os.fsdecode(raw))):
        info = await store.put_file("o", path)
        assert await store.get("o") == DATA
        assert info.filename == (await store.get_info("o")).filename == name.decode("utf-8", "replace")
        await store.put("o", b"")
        await store.put("o", Path(os.fsdecode(raw)))
        assert await store.get("o") == DATA
    info = await store.put_file("o", raw, filename="given")
    assert info.filename == "given"


@pytest.mark.parametrize("name", ["a" * 255, "報" * 85, "short"], ids=ascii)
async def test_continued(store: ObjectStore, tmp_path: Path, name: str) -> None:
    """What an interrupted read has left is found again, and goes with the next one."""
    await store.put("o", DATA)

    def stop(done: int, total: int | None) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await store.get_file("o", tmp_path / name, resume=True, progress=stop)
    (part,) = os.listdir(tmp_path)
    assert part.startswith(".")
    await store.get_file("o", tmp_path / name, resume=True, progress=stop)  # it is all there: nothing is read
    assert os.listdir(tmp_path) == [name]
    assert (tmp_path / name).read_bytes() == DATA


@pytest.mark.parametrize("resume", [False, True])
async def test_names_with_one_beginning(store: ObjectStore, tmp_path: Path, resume: bool) -> None:
    """Each target has a file of its own, however long their common beginning is."""
    await store.put("o", DATA)
    paths = [tmp_path / ("a" * 254 + end) for end in "0123456789"]
    await asyncio.gather(*(store.get_file("o", path, resume=resume) for path in paths))
    assert sorted(tmp_path.iterdir()) == paths
    assert {path.read_bytes() for path in paths} == {DATA}


async def test_what_is_no_name(store: ObjectStore, tmp_path: Path) -> None:
    """Told before a byte is sent."""
    await store.put("o", DATA)
    sent = store.js.client.stats.out_msgs
    for name in ("a" * 256, "報" * 86, "a\0b", "\ud800"):
        for resume in (False, True):
            with pytest.raises((OSError, ValueError)):
                await store.get_file("o", tmp_path / name, resume=resume)
        with pytest.raises((OSError, ValueError)):
            await store.put_file("o", tmp_path / name)
    for wrong in (5, None, ["x"]):
        with pytest.raises(TypeError):
            await store.get_file("o", wrong)  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            await store.put_file("o", wrong)  # type: ignore[arg-type]
    assert store.js.client.stats.out_msgs == sent
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("room", [143, 100, 60, 255])
@pytest.mark.parametrize("name", [*map(os.fsencode, NAMES), *RAW], ids=ascii)
@pytest.mark.parametrize("mark", ["0123456789ab", "N" * 22, "N" * 40])
def test_temporary_names(monkeypatch: pytest.MonkeyPatch, room: int, name: bytes, mark: str) -> None:
    """Within what the file system takes, some of which take less than others; no character is cut."""
    monkeypatch.setattr(os, "pathconf", lambda path, what: room)
    path = os.path.join(b"/directory", name)
    directory, base = os.path.split(os.fsencode(_temporary(os.fsdecode(path), mark)))
    assert directory == b"/directory"
    assert len(base) <= max(room, len(mark) + 24)
    assert base.startswith(b".")
    assert base.endswith(f".{mark}.part".encode())
    try:
        name.decode()
    except UnicodeDecodeError:
        return
    base.decode()
