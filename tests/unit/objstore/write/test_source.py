"""Where the bytes of a put come from."""

from __future__ import annotations

import array
import asyncio
import io
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from objstore.write import source as _source
from objstore.write.source import open_source


async def read(data: Any) -> bytes:
    return b"".join([bytes(piece) async for piece in open_source(data).pieces()])


@pytest.mark.parametrize(
    "data",
    [
        b"abc",
        bytearray(b"abc"),
        memoryview(b"abc"),
        array.array("B", b"abc"),
        io.BytesIO(b"abc"),
        [b"a", b"bc"],
    ],
    ids=lambda data: type(data).__name__,
)
async def test_kinds(data: Any) -> None:
    source = open_source(data)
    assert source.restartable
    for _ in range(2):
        assert b"".join([bytes(piece) async for piece in source.pieces()]) == b"abc"


async def test_once_only() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"abc"

    assert not open_source(pieces()).restartable
    assert not open_source(iter([b"abc"])).restartable
    assert await read(pieces()) == b"abc"
    assert await read(iter([b"abc"])) == b"abc"


async def test_files(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"0123456789")
    source = open_source(path)
    assert (source.size, source.restartable, source.refills) == (10, True, False)
    assert await read(path) == b"0123456789"
    with path.open("rb") as file:
        file.seek(3)
        source = open_source(file)
        for _ in range(2):  # from where it stood, not from the beginning
            assert b"".join([bytes(piece) async for piece in source.pieces()]) == b"3456789"
        assert not file.closed
    with pytest.raises(FileNotFoundError):
        open_source(tmp_path / "missing")


async def test_pipe() -> None:
    reading, writing = os.pipe()
    with open(reading, "rb") as file, open(writing, "wb") as other:
        other.write(b"abc")
        other.close()
        source = open_source(file)
        assert not source.restartable
        assert b"".join([bytes(piece) async for piece in source.pieces()]) == b"abc"


async def test_given_up_while_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is closed by the thread that is still in it, and not before."""
    monkeypatch.setattr(_source, "RELEASE", 0.01)
    import threading

    entered, leave = threading.Event(), threading.Event()

    class Slow:
        closed = False
        gone = asyncio.Event()

        def read(self, size: int) -> bytes:
            entered.set()
            leave.wait(5)
            assert not self.closed
            return b""

        def close(self) -> None:
            self.closed = True
            self.gone.set()

    file = Slow()
    pieces = _source._file(lambda: file, None, own=True)
    task = asyncio.ensure_future(anext(pieces))
    await asyncio.to_thread(entered.wait, 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not file.closed
    leave.set()
    async with asyncio.timeout(5):
        await file.gone.wait()


@pytest.mark.parametrize(
    "data", ["text", 5, None, object(), io.StringIO("x")], ids=lambda data: type(data).__name__
)
def test_refused(data: Any) -> None:
    with pytest.raises(TypeError):
        open_source(data)
