"""``--local DIR``: commands that run at the same time share one server, whatever becomes of its starter."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from natsproto.errors import NoRespondersError
from objstore.cli import local as cli_local
from objstore.cli.local import LOCK_NAME, LocalDirectory, LockFile, process_mark
from objstore.cli.main import main
from objstore.cli.output import CommandError
from support.sockets import listening, reserved_port

WAIT = 60.0

HOLDER = """
import asyncio, json, sys
from objstore.cli.local import LocalDirectory

async def hold():
    async with LocalDirectory(sys.argv[1]) as directory, directory.connect() as client:
        info = await client.jetstream().account_info()
        server = directory.server
        print(json.dumps([client.connected_url, server and server.pid, info["streams"]]), flush=True)
        await asyncio.to_thread(sys.stdin.readline)

asyncio.run(hold())
"""


@pytest.fixture(autouse=True)
def paths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("NATS_TIMEOUT", "10s")  # a server on a busy machine is not a silent one


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def port() -> Iterator[int]:
    """Where the server will be that is started: not where other tests expect nobody to listen."""
    with reserved_port() as number:
        yield number


@pytest.fixture
def start(directory: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start the command (or, without words, something that only holds on) over the directory."""
    started: list[subprocess.Popen[bytes]] = []

    def process(*words: str) -> subprocess.Popen[bytes]:
        command = (
            ["-m", "objstore", "--local", str(directory), *words] if words else ["-c", HOLDER, str(directory)]
        )
        started.append(
            subprocess.Popen(
                [sys.executable, *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        )
        return started[-1]

    yield process
    for one in started:
        one.kill()
        one.wait()
        for pipe in (one.stdin, one.stdout, one.stderr):
            assert pipe is not None
            try:
                pipe.close()
            except BrokenPipeError:
                pass


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition of other processes, at most ``WAIT`` seconds."""
    deadline = time.monotonic() + WAIT
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, what
        pause.wait(0.01)


def held(process: subprocess.Popen[bytes]) -> Any:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, process.stderr and process.stderr.read().decode()
    return json.loads(line)


def finish(process: subprocess.Popen[bytes], data: bytes = b"") -> bytes:
    out, err = process.communicate(data, timeout=WAIT)
    assert process.returncode == 0, err.decode()
    return out


def lock(directory: Path) -> dict[str, Any]:
    try:
        document: dict[str, Any] = json.loads((directory / LOCK_NAME).read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return document


def test_the_server_tells_other_users_nothing(
    directory: Path, start: Callable[..., subprocess.Popen[bytes]]
) -> None:
    """No monitoring: it would name buckets and inboxes, and before 2.10 the token."""
    held(start())
    assert listening(lock(directory)["pid"]).keys() == {urlsplit(lock(directory)["url"]).port}


def test_one_after_another(directory: Path, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    local = ["--local", str(directory), "-q"]
    (tmp_path / "f").write_bytes(b"data")
    assert main([*local, "bucket", "add", "b"]) == 0
    first = lock(directory)
    assert main([*local, "put", "b", str(tmp_path / "f")]) == 0
    assert lock(directory) == first
    assert first["pid"] == 0
    assert main([*local, "get", "b", "f", "-O", "-"]) == 0
    assert capfd.readouterr().out == "data"
    assert sorted(os.listdir(directory)) == ["jetstream", LOCK_NAME]
    assert os.stat(directory).st_mode & 0o777 == 0o700
    assert os.stat(directory / LOCK_NAME).st_mode & 0o777 == 0o600


def test_many_at_once_share_one_server(
    start: Callable[..., subprocess.Popen[bytes]], directory: Path
) -> None:
    processes = [start() for _ in range(6)]
    answers = [held(process) for process in processes]
    assert len({url for url, _, _ in answers}) == 1
    pids = [pid for _, pid, _ in answers if pid]
    assert len(pids) == 1
    assert lock(directory)["pid"] == pids[0]
    for process in processes:
        finish(process, b"\n")
    assert process_mark(pids[0]) is None
    assert lock(directory)["pid"] == 0


def test_race_of_two_commands(start: Callable[..., subprocess.Popen[bytes]], directory: Path) -> None:
    for number in range(5):
        pair = [start("bucket", "add", f"b{number}-{side}") for side in "ab"]
        for process in pair:
            finish(process)
    names = finish(start("ls", "-n")).decode().split()
    assert names == sorted(f"b{number}-{side}" for number in range(5) for side in "ab")


@pytest.mark.parametrize("end", ["finishes", "is killed"])
def test_the_other_takes_over_in_the_middle_of_a_put(
    start: Callable[..., subprocess.Popen[bytes]], directory: Path, end: str
) -> None:
    finish(start("bucket", "add", "b"))
    starter = start()
    url, pid, _ = held(starter)
    data = os.urandom(8 << 20)
    putting = start("put", "b", "-", "--name", "x")
    assert putting.stdin is not None
    putting.stdin.write(data[: 4 << 20])
    putting.stdin.flush()  # so it is connected and reading
    if end == "finishes":
        finish(starter, b"\n")
    else:
        starter.send_signal(signal.SIGKILL)
        starter.wait(WAIT)
    until(lambda: bool(lock(directory).get("starter") == putting.pid), "nobody took over")
    after = lock(directory)
    assert after["pid"] != pid
    assert process_mark(pid) is None
    assert after["url"].endswith(url.partition("://")[2])
    third = start()
    assert held(third)[:2] == [url, None]
    finish(putting, data[4 << 20 :])
    finish(third, b"\n")
    assert finish(start("get", "b", "x", "-O", "-")) == data
    assert lock(directory)["pid"] == 0


def test_a_lock_file_left_behind_by_a_crash(
    start: Callable[..., subprocess.Popen[bytes]], directory: Path
) -> None:
    starter = start()
    _, pid, _ = held(starter)
    starter.send_signal(signal.SIGKILL)
    starter.wait(WAIT)
    assert lock(directory)["pid"] == pid
    finish(start("bucket", "add", "b"))
    assert process_mark(pid) is None
    assert lock(directory)["pid"] == 0


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"nonsense",
        b"[]",
        b'{"url": 1, "pid": "x"}',
        b'{"url": "nats://t@127.0.0.1:PORT", "pid": 999999999, "mark": "1"}',
        b'{"url": "nats://t@127.0.0.1:99999", "pid": 0}',
        json.dumps({"url": "nats://t@127.0.0.1:PORT", "pid": os.getpid(), "mark": "0"}).encode(),
        b"[" * 4096,
        b'{"pid": ' + b"9" * 5000 + b"}",
    ],
    ids=[
        "empty",
        "no JSON",
        "no object",
        "no values",
        "no process",
        "no port",
        "not a server",
        "nested",
        "long",
    ],
)
def test_what_the_lock_file_says_may_be_nonsense(directory: Path, port: int, content: bytes) -> None:
    directory.mkdir()
    (directory / LOCK_NAME).write_bytes(content.replace(b"PORT", b"%d" % port))
    assert main(["--local", str(directory), "-q", "bucket", "add", "b"]) == 0


@pytest.mark.parametrize("url", ["nats://[::1", "nats://a:x", "nats://a:99999"])
def test_a_lock_file_with_an_address_that_is_none(directory: Path, url: str) -> None:
    directory.mkdir()
    (directory / LOCK_NAME).write_text(json.dumps({"url": url, "pid": 1, "mark": "1"}))
    holder = LockFile(str(directory))
    holder.open()
    assert holder.read() == {}
    holder.close()


def test_a_server_that_nobody_ends_is_ended(
    directory: Path,
    port: int,
    start: Callable[..., subprocess.Popen[bytes]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The starter and its watchdog are gone, the server still runs: never a second one beside it."""
    from objstore.cli import local

    monkeypatch.setattr(local, "LEFT_ALONE", 0.2)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as orphan:
        directory.mkdir()
        url = f"nats://t@127.0.0.1:{port}"
        document = {"url": url, "pid": orphan.pid, "mark": process_mark(orphan.pid)}
        (directory / LOCK_NAME).write_text(json.dumps(document))
        assert main(["--local", str(directory), "-q", "bucket", "add", "b"]) == 0
        assert orphan.wait(WAIT) == -signal.SIGTERM


def test_the_server_wants_the_token(start: Callable[..., subprocess.Popen[bytes]], directory: Path) -> None:
    starter = start()
    url, _, _ = held(starter)
    assert main(["-s", url, "-q", "ls"]) == 6
    assert main(["-s", lock(directory)["url"], "-q", "ls"]) == 0
    finish(starter, b"\n")


async def test_the_token_is_not_told_to_another_user(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two servers everybody may listen there. Here it is our user that has become another one."""
    closed = asyncio.Event()
    async with LocalDirectory(str(directory)) as local:
        with pytest.raises(CommandError, match=r"another user of this machine listens on port \d+, where"):
            async with local.connect(closed_cb=closed.set, max_reconnects=3) as client:
                assert local.server is not None
                monkeypatch.setattr(cli_local, "peer_user", lambda *ends: os.geteuid() + 1)
                local.server.kill()
                await asyncio.wait_for(closed.wait(), WAIT)
                await client.flush()
        assert client.stats.reconnects == 0


@pytest.mark.parametrize("way", ["v4", "v6", "closes by half", "resets", "wants TLS"])
async def test_who_listens_in_the_servers_place_is_told_nothing(
    directory: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """Whatever he does to look as if nobody was there. Our user becomes another one once more."""
    monkeypatch.setattr(cli_local, "JOIN", 2.0)
    told: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tls = b', "tls_required": true' if way == "wants TLS" else b""
        writer.write(b'INFO {"version": "2.12.0", "max_payload": 1048576, "headers": true' + tls + b"}\r\n")
        if way == "closes by half":
            writer.write_eof()
        elif way == "resets":
            await writer.drain()
            writer.transport.abort()
        try:
            told.append(await reader.read())
        except ConnectionError:
            told.append(b"")
        ended.set()
        writer.close()

    ended = asyncio.Event()
    family = socket.AF_INET6 if way == "v6" else socket.AF_INET
    with socket.create_server(
        ("::" if way == "v6" else "127.0.0.1", 0), family=family, dualstack_ipv6=way == "v6"
    ) as sock:
        server = await asyncio.start_server(answer, sock=sock)
        directory.mkdir()
        holder = LockFile(str(directory))
        holder.open()
        assert holder.try_lock()
        url = f"nats://secret@127.0.0.1:{sock.getsockname()[1]}"
        holder.write({"url": url, "pid": os.getpid(), "mark": process_mark(os.getpid())})
        async with LocalDirectory(str(directory)) as local:
            monkeypatch.setattr(os, "geteuid", lambda: 4242)
            with pytest.raises(CommandError):
                async with local.connect():
                    pass
        monkeypatch.undo()
        holder.close()
        await asyncio.wait_for(ended.wait(), WAIT)
        server.close()
    assert set(told) == {b""}


async def test_a_server_that_is_not_announced_is_told_nothing(
    directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its token is another one than that of the server before, which it would refuse for good."""
    async with LocalDirectory(str(directory)) as local, local.connect() as client:
        announced = local.lock.read()
        local.lock.write({**announced, "pid": 0})
        session = client.connection.session
        assert session is not None
        assert session.transport is not None
        session.transport.abort()
        await asyncio.to_thread(until, lambda: "started just now" in caplog.text, "nothing was refused")
        assert not client.is_connected
        local.lock.write(announced)
        await asyncio.wait_for(client.flush(timeout=WAIT), WAIT)


@pytest.mark.parametrize("platform", ["linux", "darwin"])
async def test_where_the_system_does_not_tell_who_listens(
    directory: Path, monkeypatch: pytest.MonkeyPatch, platform: str
) -> None:
    """The starter knows its own server. Who joins is refused on Linux; elsewhere the lock file has to do."""

    def untold(*ends: object) -> int | None:
        raise PermissionError

    monkeypatch.setattr(cli_local, "peer_user", untold)
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(cli_local, "process_mark", lambda pid: "began")  # there may be no ps here
    async with LocalDirectory(str(directory)) as first, first.connect() as client:
        await client.flush()
        async with LocalDirectory(str(directory)) as second:
            if platform == "linux":
                with pytest.raises(CommandError, match=r"cannot tell whose server .* --server"):
                    async with second.connect():
                        pass
            else:
                async with second.connect() as other:
                    await other.flush()


def test_the_token_of_a_server_that_ended_opens_nothing(
    directory: Path, start: Callable[..., subprocess.Popen[bytes]]
) -> None:
    tokens = set()
    for _ in range(2):
        starter = start()
        url, _, _ = held(starter)
        assert [main(["-s", url.replace("//", f"//{token}@"), "-q", "ls"]) for token in tokens] == [
            6 for _ in tokens
        ]
        tokens.add(urlsplit(lock(directory)["url"]).username)
        finish(starter, b"\n")
        assert urlsplit(lock(directory)["url"]).username is None
    assert len(tokens) == 2


def test_a_server_that_crashes_is_started_again(
    start: Callable[..., subprocess.Popen[bytes]], directory: Path
) -> None:
    finish(start("bucket", "add", "b"))
    starter = start()
    url, pid, _ = held(starter)
    os.kill(pid, signal.SIGKILL)
    until(lambda: lock(directory).get("pid") not in (pid, None), "it was not started again")
    assert finish(start("ls", "-n")) == b"b\n"
    other = start()
    assert held(other)[:2] == [url, None]
    finish(starter, b"\n")
    finish(other, b"\n")


def test_a_link_in_place_of_the_lock_file_is_refused(directory: Path, tmp_path: Path) -> None:
    directory.mkdir()
    (directory / LOCK_NAME).symlink_to(tmp_path / "other")
    assert main(["--local", str(directory), "-q", "ls"]) == 1
    assert not (tmp_path / "other").exists()


def test_the_port_was_given_to_somebody_else(directory: Path) -> None:
    """The server takes another one than the last time."""

    async def body(port: int) -> str:
        async with LocalDirectory(str(directory)) as local, local.connect() as client:
            assert str(port) not in str(client.connected_url)
            return str(client.connected_url)

    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        directory.mkdir(mode=0o700, exist_ok=True)
        (directory / LOCK_NAME).write_text(json.dumps({"url": f"nats://127.0.0.1:{port}", "pid": 0}))
        assert asyncio.run(body(port)).startswith("nats://127.0.0.1:")


def test_a_failure_that_is_not_about_the_server(directory: Path) -> None:
    """It passes through, and the server ends."""

    async def body() -> None:
        async with LocalDirectory(str(directory)) as local, local.connect():
            raise NoRespondersError("subject", "nobody")

    with pytest.raises(NoRespondersError):
        asyncio.run(body())
    assert lock(directory)["pid"] == 0
