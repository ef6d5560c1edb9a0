"""What the command reads from and writes to, when that is no plain file."""

from __future__ import annotations

import asyncio
import errno
import io
import os
import sys
import threading
from pathlib import Path

import pytest

from objstore.cli import transfer
from objstore.cli.output import CommandError


@pytest.fixture
def no_hard_links(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)


@pytest.fixture
def part(tmp_path: Path) -> Path:
    path = tmp_path / "part"
    path.write_bytes(b"new")
    return path


@pytest.mark.usefixtures("no_hard_links")
class TestAFileSystemWithoutHardLinks:
    def test_the_file_gets_its_name(self, part: Path, tmp_path: Path) -> None:
        transfer._name_new(str(part), str(tmp_path / "name"))
        assert (tmp_path / "name").read_bytes() == b"new"
        assert not part.exists()

    def test_nothing_is_replaced(self, part: Path, tmp_path: Path) -> None:
        (tmp_path / "name").write_bytes(b"old")
        with pytest.raises(CommandError, match="exists") as caught:
            transfer._name_new(str(part), str(tmp_path / "name"))
        assert caught.value.code == 4
        assert (tmp_path / "name").read_bytes() == b"old"


def test_a_name_that_was_taken_meanwhile_is_not_replaced(part: Path, tmp_path: Path) -> None:
    (tmp_path / "name").write_bytes(b"old")
    with pytest.raises(CommandError, match="exists") as caught:
        transfer._name_new(str(part), str(tmp_path / "name"))
    assert caught.value.code == 4
    assert (tmp_path / "name").read_bytes() == b"old"


def test_a_pipe_that_nobody_reads(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CommandError, match=r"the pipe .* has no reader") as caught:
        transfer._open_stream(str(tmp_path / "pipe"))
    assert caught.value.code == 1


def test_a_stream_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        transfer._open_stream(str(tmp_path / "nothing"))


def test_standard_output_that_was_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(CommandError, match="standard output is closed") as caught:
        transfer.standard_output()
    assert caught.value.code == 1


def test_standard_input_without_a_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = io.BytesIO(b"bytes")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(buffer))
    assert transfer.standard_input() is buffer


async def test_standard_input_that_cannot_be_read(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(IsADirectoryError):
            await anext(transfer._pieces(descriptor))
    finally:
        os.close(descriptor)


def test_standard_input_that_comes_when_the_command_has_ended() -> None:
    """The thread that reads it has nobody to tell, and ends."""
    read, write = os.pipe()
    before = threading.enumerate()  # another test's may be at its end

    async def body() -> None:
        waiting = asyncio.ensure_future(anext(transfer._pieces(read)))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])

    asyncio.run(body())
    (reader,) = [
        thread for thread in threading.enumerate() if thread.name == "objstore-stdin" and thread not in before
    ]
    os.write(write, b"late")
    reader.join(10)
    assert not reader.is_alive()
    os.close(write)
    os.close(read)
