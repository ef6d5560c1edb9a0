"""C7: a file that cannot be written to its end: nothing is left over, what was there is untouched."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from objstore import ObjectStore
from support.objects import CHUNK, MIB, pattern
from support.skips import left_out, missing

DATA = pattern(4 * MIB + 1)
BEFORE = b"what was there"

Progress = Callable[[int, int | None], None]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    if os.geteuid():
        missing("root, for a file system of its own size,")
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(place)]).returncode:
        left_out("no file system can be mounted here")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def at(done: int, action: Callable[[], object]) -> Progress:
    """A progress callback that acts once so much was written."""

    def progress(written: int, total: int | None) -> None:
        if written >= done:
            action()

    return progress


def fail() -> None:
    raise LookupError("mine")


@pytest.mark.parametrize("done", [1, 2 * MIB, len(DATA)])
@pytest.mark.parametrize("there", [True, False], ids=["a file", "no file"])
async def test_progress_raises(store: ObjectStore, tmp_path: Path, there: bool, done: int) -> None:
    await store.put("a", DATA)
    target = tmp_path / "t"
    if there:
        target.write_bytes(BEFORE)
    with pytest.raises(LookupError, match="mine"):
        await store.get_file("a", target, progress=at(done, fail), window=4 * CHUNK)
    assert os.listdir(tmp_path) == (["t"] if there else [])
    assert not there or target.read_bytes() == BEFORE


@pytest.mark.parametrize("done", [1, 2 * MIB, len(DATA)])
async def test_cancelled(store: ObjectStore, tmp_path: Path, done: int) -> None:
    await store.put("a", DATA)
    target = tmp_path / "t"
    target.write_bytes(BEFORE)
    task: asyncio.Task[object] = asyncio.ensure_future(
        store.get_file("a", target, progress=at(done, lambda: task.cancel()), window=4 * CHUNK)
    )
    ended, _ = await asyncio.wait([task], timeout=10)
    assert ended
    assert task.cancelled()
    assert os.listdir(tmp_path) == ["t"]
    assert target.read_bytes() == BEFORE


async def test_disk_full(store: ObjectStore, disk: Path) -> None:
    """The error is the system's own; with room again it works."""
    await store.put("a", DATA)
    target = disk / "t"
    target.write_bytes(BEFORE)
    with pytest.raises(OSError) as caught:
        await store.get_file("a", target)
    assert caught.value.errno == errno.ENOSPC
    assert os.listdir(disk) == ["t"]
    assert target.read_bytes() == BEFORE
    subprocess.run(["mount", "-o", "remount,size=16m", str(disk)], check=True)
    await store.get_file("a", target)
    assert os.listdir(disk) == ["t"]
    assert target.read_bytes() == DATA


async def test_disk_full_and_continued(store: ObjectStore, disk: Path) -> None:
    """A read that is to be continued keeps what it has, beside the target, and goes on when there is room."""
    await store.put("a", DATA)
    target = disk / "t"
    target.write_bytes(BEFORE)
    with pytest.raises(OSError) as caught:
        await store.get_file("a", target, resume=True)
    assert caught.value.errno == errno.ENOSPC
    assert target.read_bytes() == BEFORE
    subprocess.run(["mount", "-o", "remount,size=16m", str(disk)], check=True)
    await store.get_file("a", target, resume=True)
    assert os.listdir(disk) == ["t"]
    assert target.read_bytes() == DATA
