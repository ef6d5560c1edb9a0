"""C7: a file that cannot be written to its end: nothing is left over, what was there is untouched."""

from __future__ import annotations

import asyncio
import errno
import io
import os
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from objstore import ObjectStore
from support.objects import CHUNK, MIB, part_file, pattern
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


# -- permissions ------------------------------------------------------------------------------------------


@pytest.fixture(params=[0o022, 0o077, 0o000], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("resume", [False, True], ids=["new", "resume"])
@pytest.mark.parametrize("told", [True, False], ids=["the kernel tells", "a file tells"])
async def test_nobody_else_reads_what_is_not_verified(
    store: ObjectStore, tmp_path: Path, umask: int, resume: bool, told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.put("a", DATA)
    if not told:
        monkeypatch.setattr("objstore.read.files.open", lambda *_: io.BytesIO(), raising=False)
    modes: list[int] = []
    look = at(1, lambda: modes.extend(mode(path) for path in tmp_path.glob(".*.part")))
    await store.get_file("a", tmp_path / "new", progress=look, resume=resume)
    assert set(modes) == {0o600}
    assert mode(tmp_path / "new") == 0o666 & ~umask
    for there, expected in ((0o640, 0o640), (0o7755, 0o755), (0o2600, 0o600), (0o400, 0o400)):
        (tmp_path / "new").chmod(there)
        modes.clear()
        await store.get_file("a", tmp_path / "new", progress=look, resume=resume)
        assert set(modes) == {0o600}
        assert mode(tmp_path / "new") == expected
    assert os.listdir(tmp_path) == ["new"]


async def test_only_a_file_of_our_own_is_continued(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = await store.put("a", DATA)
    part, other = part_file(tmp_path / "out", info), tmp_path / "other"

    async def refused(kind: type[OSError]) -> None:
        with pytest.raises(kind):
            async with asyncio.timeout(5 + 5):
                await store.get_file("a", tmp_path / "out", resume=True)
        assert not (tmp_path / "out").exists()
        assert other.read_bytes() == b"theirs"

    other.write_bytes(b"theirs")
    part.symlink_to(other)
    await refused(OSError)
    part.unlink()
    os.link(other, part)
    await refused(PermissionError)
    part.unlink()
    os.mkfifo(part)
    await refused(PermissionError)
    part.unlink()
    part.write_bytes(DATA[:CHUNK])
    if not os.geteuid():
        os.chown(part, 12345, -1)
        await refused(PermissionError)
        assert part.read_bytes() == DATA[:CHUNK]
        os.chown(part, 0, -1)
    part.chmod(0o666)
    await store.get_file("a", tmp_path / "out", resume=True)
    assert (tmp_path / "out").read_bytes() == DATA


async def test_what_others_put_there_lends_no_permissions(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.put("a", DATA)
    target, open_to_all = tmp_path / "out", tmp_path / "theirs"
    open_to_all.write_bytes(b"")
    open_to_all.chmod(0o666)
    before = os.umask(0o077)
    try:
        target.symlink_to(open_to_all)
        await store.get_file("a", target)
        assert (mode(target), target.is_symlink(), open_to_all.read_bytes()) == (0o600, False, b"")
        target.chmod(0o666)
        if not os.geteuid():
            os.chown(target, 12345, -1)
            await store.get_file("a", target)
            assert mode(target) == 0o600
    finally:
        os.umask(before)
