"""The lock file of a directory: whose it is, and what happens when somebody removes it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from objstore.cli import local
from objstore.cli.local import LocalDirectory, LockFile
from objstore.cli.output import CommandError


@pytest.fixture
def lock(tmp_path: Path) -> Iterator[LockFile]:
    lock = LockFile(str(tmp_path / "store"))
    (tmp_path / "store").mkdir()
    lock.open()
    yield lock
    lock.close()
    lock.close()  # nothing is left to close


def test_of_another_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    us = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: us + 1)
    lock = LockFile(str(tmp_path))
    with pytest.raises(CommandError, match="another user") as caught:
        lock.open()
    lock.close()
    assert caught.value.code == 2


@pytest.mark.parametrize("kind", ["pipe", "second name"])
def test_what_is_no_lock_file(tmp_path: Path, kind: str) -> None:
    lock = LockFile(str(tmp_path))
    if kind == "pipe":
        os.mkfifo(lock.path)
    else:
        (tmp_path / "other").touch()
        os.link(tmp_path / "other", lock.path)
    with pytest.raises(CommandError, match="not our lock file") as caught:
        lock.open()
    lock.close()
    assert caught.value.code == 2


def test_one_that_was_removed_is_made_anew(lock: LockFile) -> None:
    os.unlink(lock.path)
    assert not lock.try_lock(), "the lock of a file that nobody else can see"
    assert os.path.exists(lock.path)
    assert lock.try_lock()


def test_one_that_was_removed_while_another_holds_it(lock: LockFile) -> None:
    holder = LockFile(os.path.dirname(lock.path))
    holder.open()
    try:
        assert holder.try_lock()
        assert not lock.try_lock()
        os.unlink(lock.path)
        assert not lock.try_lock()
        assert lock.try_lock(), "the holder's file is not the directory's any more"
    finally:
        holder.close()


async def test_a_holder_whose_server_does_not_answer(lock: LockFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "JOIN", 0.05)
    assert lock.try_lock()
    lock.write({"starter": 4711})
    directory = LocalDirectory(os.path.dirname(lock.path))
    directory.lock.open()
    with pytest.raises(CommandError, match=r"another process \(pid 4711\) holds") as caught:
        await directory._join({})
    directory.lock.close()
    assert caught.value.code == 5


class TestAServerThatNobodyEnds:
    @pytest.fixture
    def sent(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        """The signals that were sent, to a process that ignores them."""
        sent: list[int] = []
        monkeypatch.setattr(local, "LEFT_ALONE", 0.0)
        monkeypatch.setattr(local, "_runs", lambda there: True)
        monkeypatch.setattr(os, "kill", lambda pid, number: sent.append(number))
        return sent

    async def test_it_does_not_end(self, sent: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(CommandError, match="cannot be ended") as caught:
            await local._end_stale({"pid": 4711})
        assert sent == [signal.SIGTERM, signal.SIGKILL]
        assert caught.value.code == 5

    async def test_it_ends_before_the_signal(self, sent: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
        def gone(pid: int, number: int) -> None:
            raise ProcessLookupError

        monkeypatch.setattr(os, "kill", gone)
        await asyncio.wait_for(local._end_stale({"pid": 4711}), 10)
