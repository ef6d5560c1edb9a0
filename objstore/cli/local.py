"""``--local DIR``: one private server over a directory, shared by all commands that run at the same time.

The first command starts the server and holds a lock (``flock``) on ``DIR/objstore.lock`` while it runs; the
file tells the others where the server is. The system releases the lock when the process ends in any way, so
it cannot be left behind. The server ends with the command that started it. The commands that still run then
compete for the lock. The winner starts the server again on the same port with a new token, and the others
reconnect to it. In between any user of the machine may listen there: nothing is sent before it is proven that
our own user is at the other end of the connection.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import stat
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

from natsproto._owner import peer_user
from natsproto.aio.auth import looks_secret
from natsproto.errors import AuthorizationError, NatsError, ServerProcessError, StaleConnectionError

from .output import CommandError

if TYPE_CHECKING:
    from typing import Unpack

    from natsproto.aio.client import Client
    from natsproto.server import LocalServer
    from natsproto.transport import Transport

    from .connection import ConnectOptions

LOCK_NAME = "objstore.lock"
JOIN = 30.0
"""Seconds within which a server must be found or started."""

LEFT_ALONE = 7.0
"""Seconds a server may take to end after its starter died: its watchdog needs up to five."""

POLL = 0.02
"""Seconds between two checks while waiting."""


class LockFile:
    """The file that names a directory's server: JSON with ``url``, ``pid`` of the server, ``starter``."""

    def __init__(self, directory: str) -> None:
        self.path: str = os.path.join(directory, LOCK_NAME)
        self._fd = -1

    def open(self) -> None:
        """Open or create the file.

        Raises:
            CommandError: the file belongs to another user, who could direct us to any server.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        self._fd = os.open(self.path, flags, 0o600)
        found = os.fstat(self._fd)
        if found.st_uid != os.geteuid():
            raise CommandError(f"{self.path!r} belongs to another user: use a directory of your own", 2)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
            raise CommandError(f"{self.path!r} is not our lock file: use a directory of your own", 2)
        os.fchmod(self._fd, 0o600)  # it contains the server's token

    def try_lock(self) -> bool:
        """Take the lock if it is free. Recreate a file that was removed meanwhile."""
        import fcntl

        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not self._current():
                self._reopen()
            return False
        if not self._current():
            self._reopen()
            return False
        return True

    def _current(self) -> bool:
        try:
            there = os.stat(self.path, follow_symlinks=False)
        except FileNotFoundError:
            return False
        ours = os.fstat(self._fd)
        return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)

    def _reopen(self) -> None:
        self.close()
        os.makedirs(os.path.dirname(self.path), mode=0o700, exist_ok=True)
        self.open()

    def unlock(self) -> None:
        """Release the lock."""
        import fcntl

        fcntl.flock(self._fd, fcntl.LOCK_UN)

    def read(self) -> dict[str, object]:
        """Return the content; ``{}`` while it is empty, being written, or without a valid address."""
        import json

        try:
            document = json.loads(os.pread(self._fd, 4096, 0))
            if not isinstance(document, dict):
                return {}
            _ = urlsplit(str(document.get("url"))).port
        except (ValueError, RecursionError):
            return {}
        return document

    def write(self, document: dict[str, object]) -> None:
        """Replace the content; only while holding the lock."""
        import json

        data = json.dumps(document).encode() + b"\n"
        os.pwrite(self._fd, data, 0)
        os.ftruncate(self._fd, len(data))

    def close(self) -> None:
        """Close the file, which also releases the lock."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def process_mark(pid: int) -> str | None:
    """Return what distinguishes a process from a later one with its pid; ``None`` for none or a zombie."""
    if pid <= 1:
        return None
    if sys.platform == "linux":
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            return None
        return None if fields[0] in (b"Z", b"X") else fields[19].decode()
    import subprocess

    try:
        ps = subprocess.run(
            ["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None  # we do not end a process that might be another one
    state, _, began = ps.stdout.strip().partition(" ")
    return None if state.startswith("Z") else began.strip() or None


class LocalDirectory:
    """One command's part in serving a directory; leaving ``async with`` ends the server it started.

    Args:
        directory: created if need be; the objects are in ``DIR/jetstream``.
        port: of the server, if this command starts it; default: the previous one, or a free one.

    Raises:
        CommandError: a seed or credentials instead of a directory; exit code 2.
    """

    def __init__(self, directory: str, port: int | None = None) -> None:
        if looks_secret(directory):
            raise CommandError(
                "DIR looks like a seed or credentials: it is the path of a directory (and if others could "
                "see it here, replace the key)",
                2,
            )
        self.directory: str = os.path.abspath(directory)
        self._wanted_port = port
        self.lock: LockFile = LockFile(self.directory)
        self.server: LocalServer | None = None
        self.url: str = ""
        self._token = ""
        self._refused: Refused | None = None  # why nothing was sent to the last peer

    async def __aenter__(self) -> Self:
        os.makedirs(self.directory, mode=0o700, exist_ok=True)
        for path in (self.directory, os.path.join(self.directory, "jetstream")):
            _check_link(path)
        self.lock.open()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        try:
            if self.server is not None:
                server, self.server = self.server, None
                await server.__aexit__(None, None, None)
                # Keep the port: a running or later command starts the server there.
                self.lock.write({"url": f"nats://127.0.0.1:{server.port}", "pid": 0})
        finally:
            self.lock.close()

    @property
    def exposed(self) -> str:
        """Which directory others can read, or replace its content, and why; ``""`` when they cannot."""
        for path in (self.directory, os.path.join(self.directory, "jetstream")):
            try:
                found = os.stat(path)
            except FileNotFoundError:
                continue
            if found.st_uid != os.geteuid():
                return f"{path!r} belongs to another user, who can read and replace its content"
            others = stat.S_IWOTH | (stat.S_IWGRP if found.st_gid != os.getegid() else 0)
            if found.st_mode & others:
                return f"{path!r} is writable for other users, who can replace its content (chmod go-w)"
        return ""

    @asynccontextmanager
    async def connect(self, **options: Unpack[ConnectOptions]) -> AsyncIterator[Client]:
        """Connect to the directory's server; start it if there is none.

        Raises:
            CommandError: no server was found or started in time; or another user listens in its place, or the
                system does not tell who listens.
            ServerProcessError: the server cannot be started.
        """
        try:
            async with self._connected(options) as client:
                yield client
        except NatsError as exc:
            if self._refused is None:
                raise
            raise CommandError(f"{self.directory!r}: {self._refused}", 5) from exc

    @asynccontextmanager
    async def _connected(self, options: ConnectOptions) -> AsyncIterator[Client]:
        lost = asyncio.Event()
        options["token"] = lambda: self._token
        options["disconnected_cb"] = lost.set
        options["reconnect_wait_max"] = 0.25
        client = await self._join(options)
        guard = asyncio.create_task(self._guard(client, lost), name="objstore-local")
        try:
            yield client
        finally:
            guard.cancel()
            await asyncio.wait([guard])
            if not guard.cancelled():
                guard.exception()
            await client.close()

    async def _connect(self, options: ConnectOptions) -> Client:
        import natsproto

        port = urlsplit(self.url).port
        connecting = natsproto.connect(f"nats://127.0.0.1:{port}", **options)
        connecting.check_peer = self._check_peer
        return await connecting

    def _check_peer(self, transport: Transport) -> None:
        """Check, at each connection, that the peer is the server of the lock file, before it gets the token.

        Raises:
            Refused: the peer is not proven to be that server.
            StaleConnectionError: the server is ending, or is not announced yet.
        """
        there = self.lock.read()
        try:
            # If the system does not tell: our own server listens for as long as it runs. On systems other
            # than Linux we assume the same for another command's server.
            check_peer(transport, lambda: self.server is not None or sys.platform != "linux")
        except Refused as exc:
            self._refused = exc
            raise
        self._refused = None
        if not _runs(there):
            raise StaleConnectionError("the server is ending, or was started just now")
        self._token = urlsplit(str(there.get("url"))).username or ""

    async def _join(self, options: ConnectOptions) -> Client:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + JOIN
        while True:
            if await self.try_start():
                return await self._connect(options)
            there = self.lock.read()
            url = there.get("url")
            if isinstance(url, str) and _runs(there):
                self.url = url
                try:
                    return await self._connect(options)
                except (ConnectionError, TimeoutError, AuthorizationError):
                    if self._refused is not None and (self._refused.for_good or loop.time() > deadline):
                        raise
                    # Otherwise it is ending, and its starter is about to release the lock.
            if loop.time() > deadline:
                raise CommandError(
                    f"another process (pid {there.get('starter', 'unknown')}) holds {self.lock.path!r}, "
                    f"but its server does not answer after {JOIN:.0f} s: end that process and try again",
                    5,
                )
            await asyncio.sleep(POLL)

    async def try_start(self) -> bool:
        """Take the lock and start the server; ``False`` when another command has the lock.

        Raises:
            ServerProcessError: the server cannot be started; the lock is released.
        """
        if not self.lock.try_lock():
            return False
        try:
            before = self.lock.read()
            await _end_stale(before)
            self.server = await self._start(_port(before))
            self._announce(self.server)
        except BaseException:
            if self.server is None:
                self.lock.unlock()
            raise
        return True

    def _announce(self, server: LocalServer) -> None:
        """Write the server's address for the other commands."""
        pid = server.pid
        self.lock.write({"url": self.url, "pid": pid, "mark": process_mark(pid), "starter": os.getpid()})

    async def _start(self, port: int | None) -> LocalServer:
        from natsproto.server import LocalServer, find_server

        binary = find_server().path
        token = secrets.token_hex(16)  # a new one each time: an overheard token is useless later
        for wanted in (self._wanted_port,) if self._wanted_port else dict.fromkeys((port, None)):
            server = LocalServer(
                binary=binary, store_dir=self.directory, port=wanted, token=token, monitoring=False
            )
            try:
                await server.__aenter__()
            except ServerProcessError:
                if wanted is None or wanted == self._wanted_port:
                    raise
                continue  # another process has taken the port meanwhile
            self.url = f"nats://{token}@127.0.0.1:{server.port}"
            return server
        raise AssertionError("unreachable")

    async def _guard(self, client: Client, lost: asyncio.Event) -> None:
        """After a lost connection, start the server again, unless another command does."""
        while True:
            await lost.wait()
            lost.clear()
            while not client.is_connected and not client.is_closed:
                try:
                    if self.server is None:
                        await self.try_start()
                    elif not self.server.running:
                        await self.server.__aenter__()
                        self._announce(self.server)
                except (NatsError, CommandError, OSError):
                    await asyncio.sleep(0.25)  # the command itself reports its failure
                await asyncio.sleep(POLL)


def _port(before: dict[str, object]) -> int | None:
    """Return the port of the previous server."""
    return urlsplit(str(before.get("url", ""))).port or None


def _check_link(path: str) -> None:
    """Refuse another user's link, which might lead to any directory of our user.

    Raises:
        CommandError: the path is such a link.
    """
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if stat.S_ISLNK(found.st_mode) and found.st_uid != os.geteuid():
        raise CommandError(f"{path!r} is another user's link: name the directory itself", 2)


class Refused(ConnectionError):
    """The peer on the server's port was refused; nothing was sent. ``for_good``: a retry does not help."""

    def __init__(self, text: str, *, for_good: bool = False) -> None:
        super().__init__(text)
        self.for_good = for_good


def check_peer(transport: Transport, otherwise: Callable[[], bool]) -> None:
    """Refuse a connection unless a process of our own user is proven to hold its other end.

    Args:
        transport: the connection; INFO has arrived, so the peer has accepted it.
        otherwise: the proof to use where the system does not tell the user.

    Raises:
        Refused: there is no proof.
    """
    local, peer = transport.get_extra_info("sockname"), transport.get_extra_info("peername")
    try:
        user = peer_user(local, peer)
    except OSError:
        if otherwise():
            return
        raise Refused(
            f"cannot tell whose server listens on port {peer[1]} (/proc/self/net/tcp cannot be "
            "read): run one command at a time, or start a nats-server yourself and name it with --server",
            for_good=True,
        ) from None
    if user is None:
        raise Refused(f"the server on port {peer[1]} is gone, or another user was in its place: try again")
    if user != os.geteuid():
        raise Refused(
            f"another user of this machine listens on port {peer[1]}, where the server was: try again"
        )


def _runs(there: dict[str, object]) -> bool:
    """Whether the server named in a lock file is running."""
    pid, mark = there.get("pid"), there.get("mark")
    return isinstance(pid, int) and mark is not None and process_mark(pid) == mark


async def _end_stale(before: dict[str, object]) -> None:
    """Wait for the end of a server whose starter died, or end it. Only while holding the lock.

    Raises:
        CommandError: the server does not end.
    """
    for number, patience in ((0, LEFT_ALONE), (signal.SIGTERM, LEFT_ALONE), (signal.SIGKILL, 2.0)):
        if not _runs(before):
            return
        pid = before.get("pid")
        if number and isinstance(pid, int):
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                return
        deadline = asyncio.get_running_loop().time() + patience
        while _runs(before):
            if asyncio.get_running_loop().time() > deadline:
                break
            await asyncio.sleep(POLL)
    if _runs(before):
        raise CommandError(f"the server of a command that died (pid {before['pid']}) cannot be ended", 5)
