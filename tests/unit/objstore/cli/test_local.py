"""``--local DIR``: the lock file, whose word is believed, and who may be at the other end."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest

from objstore.cli import local as module
from objstore.cli.local import LOCK_NAME, LocalDirectory, LockFile, Refused, check_peer, process_mark
from objstore.cli.output import CommandError


@pytest.fixture
def lock(tmp_path: Path) -> Any:
    lock = LockFile(str(tmp_path))
    lock.open()
    yield lock
    lock.close()
    lock.close()


def other(tmp_path: Path) -> LockFile:
    """Another command's."""
    lock = LockFile(str(tmp_path))
    lock.open()
    return lock


def test_one_has_it(lock: LockFile, tmp_path: Path) -> None:
    second = other(tmp_path)
    assert lock.try_lock()
    assert not second.try_lock()
    lock.unlock()
    assert second.try_lock()
    second.close()  # gives it back as well
    assert lock.try_lock()


def test_what_it_says(lock: LockFile, tmp_path: Path) -> None:
    assert lock.read() == {}
    lock.write({"url": "nats://t@127.0.0.1:4222", "pid": 7})
    lock.write({"url": "nats://127.0.0.1:1", "pid": 0})
    second = other(tmp_path)
    assert second.read() == {"url": "nats://127.0.0.1:1", "pid": 0}
    second.close()
    assert (tmp_path / LOCK_NAME).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "7", '{"url": "nats://h:99999999"}', '{"url": "nats://h:x"}', "[" * 5000]
)
def test_what_it_does_not_say(lock: LockFile, tmp_path: Path, text: str) -> None:
    (tmp_path / LOCK_NAME).write_text(text)
    assert lock.read() == {}


def test_removed_meanwhile_it_is_made_anew(lock: LockFile, tmp_path: Path) -> None:
    os.unlink(tmp_path / LOCK_NAME)
    assert not lock.try_lock(), "that of nobody else"
    assert lock.try_lock()
    second = other(tmp_path)
    assert not second.try_lock()
    second.close()


@pytest.mark.parametrize("kind", ["link", "second name", "pipe", "directory"])
def test_no_lock_file_of_ours(tmp_path: Path, kind: str) -> None:
    """Whoever put it there could send us to any server."""
    path, target = tmp_path / LOCK_NAME, tmp_path / "target"
    target.write_text("{}")
    if kind == "link":
        path.symlink_to(target)
    elif kind == "second name":
        os.link(target, path)
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    lock = LockFile(str(tmp_path))
    try:
        with pytest.raises((CommandError, OSError)):
            lock.open()
    finally:
        lock.close()
    assert target.read_text() == "{}"


async def test_a_directory_that_others_can_change(tmp_path: Path) -> None:
    directory = LocalDirectory(str(tmp_path / "new"))
    async with directory:
        assert directory.exposed == ""
        assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
        (tmp_path / "new").chmod(0o777)
        assert "chmod go-w" in directory.exposed
        (tmp_path / "new").chmod(0o755)
        assert directory.exposed == ""


class Transport:
    def __init__(self, sock: socket.socket) -> None:
        self._names = {"sockname": sock.getsockname(), "peername": sock.getpeername()}

    def get_extra_info(self, name: str) -> Any:
        return self._names[name]


@pytest.fixture
def transport() -> Any:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as sock,
        server.accept()[0],
    ):
        yield Transport(sock)


def test_our_own_user_is_let_in(transport: Any) -> None:
    check_peer(transport, lambda: False)


@pytest.mark.parametrize(
    ("user", "otherwise", "why", "for_good"),
    [
        (os.getuid() + 1, True, "another user of this machine listens", False),
        (None, True, "is gone, or another user", False),
        (OSError(), False, "cannot tell whose server", True),
        (OSError(), True, "", False),
    ],
)
def test_everybody_else_is_told_nothing(
    transport: Any, monkeypatch: pytest.MonkeyPatch, user: Any, otherwise: bool, why: str, for_good: bool
) -> None:
    def peer_user(local: object, peer: object) -> Any:
        if isinstance(user, OSError):
            raise user
        return user

    monkeypatch.setattr(module, "peer_user", peer_user)
    if not why:
        check_peer(transport, lambda: otherwise)
        return
    with pytest.raises(Refused, match=why) as told:
        check_peer(transport, lambda: otherwise)
    assert told.value.for_good is for_good


def test_whether_a_server_runs() -> None:
    mark = process_mark(os.getpid())
    assert module._runs({"pid": os.getpid(), "mark": mark})
    for there in ({}, {"pid": os.getpid()}, {"pid": os.getpid(), "mark": "0"}, {"pid": "1", "mark": mark}):
        assert not module._runs(there)
    assert module._port({"url": "nats://t@127.0.0.1:4711"}) == 4711
    assert module._port({}) is None


async def test_a_server_of_a_command_that_died_is_not_mistaken() -> None:
    """A later process of its number is left alone: this one lives on."""
    await module._end_stale({"pid": os.getpid(), "mark": "another process"})
    await module._end_stale({})
