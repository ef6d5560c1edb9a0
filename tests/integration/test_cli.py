"""The command against real servers: documents, files, and every exit code."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import natsproto
from natsproto.jetstream import requests
from natsproto.server import LocalServer
from objstore import ObjectStore
from objstore.cli import transfer
from objstore.cli.main import main
from objstore.format.codec import encode_meta
from support.skips import left_out, missing

WAIT = 60.0


class Command:
    """Runs the command against one server, in this process or as a process of its own."""

    def __init__(self, url: str, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
        self.url = url
        self._capture = capfdbinary
        self.out = b""
        self.err = ""

    def __call__(self, *words: str, code: int = 0) -> bytes:
        """Run ``main``; what it printed is in ``out`` and ``err``."""
        found = main(["--server", self.url, *words])
        self.out, err = self._capture.readouterr()
        self.err = err.decode()
        assert found == code, self.err
        return self.out

    def json(self, *words: str) -> Any:
        return json.loads(self("--json", *words))

    def records(self, *words: str) -> list[Any]:
        return [json.loads(line) for line in self("--json", *words).splitlines()]

    def process(self, *words: str, **options: Any) -> subprocess.Popen[bytes]:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        arguments = [sys.executable, "-m", "objstore", "--server", self.url, *words]
        return subprocess.Popen(arguments, **{**pipes, **options})

    def with_store(self, bucket: str, use: Callable[[ObjectStore], Awaitable[Any]]) -> Any:
        """Do something by the library instead."""

        async def body() -> Any:
            async with natsproto.connect(self.url) as client:
                return await use(await client.jetstream().object_store(bucket))

        return asyncio.run(body())


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of the user's environment counts; the working directory is a fresh one."""
    for name in [name for name in os.environ if name.startswith("NATS_") and name != "NATS_SERVER_BIN"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NATS_TIMEOUT", "10s")  # a server on a busy machine is not a silent one
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")]))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")


@pytest.fixture
def command(server: LocalServer, capfdbinary: pytest.CaptureFixture[bytes]) -> Command:
    return Command(server.url, capfdbinary)


@pytest.fixture
def bucket(command: Command, bucket_name: str) -> str:
    command("bucket", "add", bucket_name, "--storage", "memory")
    return bucket_name


def refused(command: Command) -> None:
    """A failure is one line on standard error and nothing else; with --json that is a JSON object."""
    if command.err.startswith("{"):
        assert json.loads(command.err).keys() == {"error", "kind", "exit_code"}
        return
    assert command.err.startswith("objstore: "), command.err
    assert command.err.count("\n") == 1, command.err
    assert command.out == b""


def test_round_trip(command: Command, bucket: str) -> None:
    data = os.urandom(300_000)
    Path("report.bin").write_bytes(data)
    command("put", bucket, "report.bin", "--name", "a/b/report.bin", "--description", "text")
    assert command.out == b""
    assert "stored 'a/b/report.bin'" in command.err
    command("get", bucket, "a/b/report.bin", code=4)
    refused(command)
    os.unlink("report.bin")
    command("get", bucket, "a/b/report.bin")
    assert command.out == b""
    assert Path("report.bin").read_bytes() == data
    command("get", bucket, "a/b/report.bin", "-O", "elsewhere")
    assert Path("elsewhere").read_bytes() == data
    assert sorted(os.listdir()) == ["elsewhere", "report.bin"]
    assert command("-q", "get", bucket, "a/b/report.bin", "-O", "-") == data
    assert command.err == ""
    command("rm", bucket, "a/b/report.bin", "-f")
    command("rm", bucket, "a/b/report.bin", "-f", code=3)
    refused(command)


def test_json_documents(command: Command, bucket: str) -> None:
    data = b"x" * 1000
    Path("f").write_bytes(data)
    digest = "SHA-256=" + hashlib.sha256(data).hexdigest()
    stored = command.json(
        "put",
        bucket,
        "f",
        "-H",
        "A:1",
        "-H",
        "A:2",
        "--metadata",
        "k=v",
        "--chunk-size",
        "100",
        "--name",
        "n",
    )
    assert stored["name"] == "n"
    assert stored["bucket"] == bucket
    assert stored["size"] == 1000
    assert stored["chunks"] == 10
    assert stored["digest"] == digest
    assert stored["headers"] == {"A": ["1", "2"]}
    assert stored["metadata"] == {"k": "v", "filename": "f"}
    assert stored["options"] == {"max_chunk_size": 100}
    assert stored["mtime"].endswith("Z")
    info = command.json("info", bucket, "n")
    assert {**info, "mtime": ""} == {**stored, "mtime": ""}
    assert command.records("ls", bucket) == [info]
    assert command.records("ls", bucket, "-n") == ["n"]
    assert command.json("get", bucket, "n", "-O", "out")["file"] == "out"
    status = command.json("info", bucket)
    assert (status["bucket"], status["count"], status["storage"]) == (bucket, 1, "memory")
    assert status["size"] > 1000
    assert [found for found in command.records("ls") if found["bucket"] == bucket] == [status]
    assert bucket in command.records("ls", "-n")
    assert command.json("rm", bucket, "n", "-f") == {"bucket": bucket, "name": "n", "deleted": True}
    assert command.records("ls", bucket) == []


def test_bucket_options(command: Command, bucket_name: str) -> None:
    words = ["bucket", "add", bucket_name, "--ttl", "7d", "--max-bytes", "1GiB", "--description", "text"]
    status = command.json(*words)
    assert status["ttl"] == 7 * 86400 * 10**9
    assert status["max_bytes"] == 1 << 30
    assert status["description"] == "text"
    assert status["num_replicas"] == 1
    assert command.json(*words) == status


def test_tables(command: Command, bucket: str) -> None:
    Path("f").write_bytes(b"1" * 2048)
    command("put", bucket, "f", "--name", "evil\x1b[2J\nname")
    lines = command("ls", bucket).decode().splitlines()
    assert lines[0].split() == ["NAME", "SIZE", "MODIFIED"]
    assert lines[1].startswith("evil\\x1b[2J\\nname  2.0 KiB  20")
    assert len(lines) == 2
    assert command("ls", bucket, "-n") == b"evil\x1b[2J\nname\n"
    assert command("ls", bucket, "-0") == b"evil\x1b[2J\nname\0"
    assert bucket.encode() in command("ls", "-0").split(b"\0")
    assert [bucket, "1"] in [line.split()[:2] for line in command("ls").decode().splitlines()]
    assert b"evil\\x1b[2J\\nname" in command("info", bucket, "evil\x1b[2J\nname")
    command("info", bucket)
    assert b"Objects  1" in command.out


def test_standard_input(command: Command, bucket: str, tmp_path: Path) -> None:
    data = os.urandom(1_500_000)
    with command.process("put", bucket, "-", "--name", "pipe", "--json") as process:
        out, err = process.communicate(data, timeout=WAIT)
    assert process.returncode == 0, err
    assert json.loads(out)["size"] == len(data)
    assert "filename" not in json.loads(out).get("metadata", {})
    (tmp_path / "file").write_bytes(data)
    with (
        open(tmp_path / "file", "rb") as file,
        command.process("put", bucket, "-", "--name", "file", stdin=file) as process,
    ):
        assert process.communicate(timeout=WAIT)[0] == b""
    with command.process("get", bucket, "file", "-O", "-") as process:
        assert process.communicate(timeout=WAIT)[0] == data
    assert command("get", bucket, "pipe", "-O", "-") == data
    assert command.json("put", bucket, os.devnull, "--name", "empty")["size"] == 0
    assert command("get", bucket, "empty", "-O", "-") == b""


def test_get_never_replaces_unasked(command: Command, bucket: str) -> None:
    Path("f").write_bytes(b"stored")
    command("put", bucket, "f")
    Path("f").write_bytes(b"mine")
    Path("dangling").symlink_to("nowhere")
    for words in (["f"], ["f", "-O", "f"], ["f", "-O", "dangling"]):
        command("get", bucket, *words, code=4)
        refused(command)
        assert "--force" in command.err
    assert Path("f").read_bytes() == b"mine"
    assert not os.path.exists("nowhere")
    command("get", bucket, "f", "--force")
    assert Path("f").read_bytes() == b"stored"
    command("get", bucket, "f", "-f", "-O", "dangling")
    assert not os.path.islink("dangling")
    os.mkdir("d")
    command("get", bucket, "f", "-f", "-O", "d", code=2)
    assert sorted(os.listdir()) == ["d", "dangling", "f"]


def test_get_streams_into_what_is_no_file(command: Command, bucket: str) -> None:
    Path("f").write_bytes(b"stored")
    command("put", bucket, "f")
    before = os.stat(os.devnull)
    command("get", bucket, "f", "-O", os.devnull)
    assert os.stat(os.devnull).st_rdev == before.st_rdev


def without_a_reader(command: Command, *words: str, unread: str = "stdout") -> tuple[int, bytes]:
    """The exit code when nobody reads what the command writes there, and what it wrote to the other."""
    process = command.process(*words)
    streams = {"stdin": process.stdin, "stdout": process.stdout, "stderr": process.stderr}
    closed = streams.pop(unread)
    assert closed is not None
    closed.close()
    read = process.stderr if unread == "stdout" else process.stdout
    assert read is not None
    told = read.read()
    code = process.wait(WAIT)
    for stream in streams.values():
        assert stream is not None
        stream.close()
    return code, told


def damage(command: Command, bucket: str, name: str) -> None:
    """Store ``name`` anew with a digest that is not that of its bytes."""

    async def forge(store: ObjectStore) -> None:
        forged = replace(await store.get_info(name), digest="SHA-256=" + "00" * 32)
        subject = store._bucket.meta_subject(name)
        await store.js.publish(subject, encode_meta(forged), headers={"Nats-Rollup": "sub"})

    command.with_store(bucket, forge)


def test_a_reader_that_stops_is_no_error(command: Command, bucket: str) -> None:
    Path("f").write_bytes(bytes(5_000_000))
    command("put", bucket, "f")
    for words in (["ls", bucket], ["info", bucket], ["--json", "ls"], ["verify", bucket]):
        assert without_a_reader(command, "-q", *words) == (0, b""), words


def test_a_reader_that_stops_has_nothing_verified(command: Command, bucket: str) -> None:
    """Whether what was written is right is known at the end of the object only, and nobody got there."""
    stopped = b"objstore: get: the reader stopped before everything was verified\n"
    Path("f").write_bytes(bytes(5_000_000))
    command("put", bucket, "f")
    for _ in range(2):
        assert without_a_reader(command, "get", bucket, "f", "-O", "-") == (1, stopped)
        damage(command, bucket, "f")
    os.mkfifo("pipe")
    reader = os.open("pipe", os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open("pipe", os.O_WRONLY)
    with command.process("get", bucket, "f", "-O", "pipe") as process:
        full(writer, process)
        os.close(reader)
        assert process.stderr is not None
        assert process.stderr.read() == stopped
    os.close(writer)
    assert process.returncode == 1


def test_a_reader_that_stops_changes_no_exit_code(command: Command, bucket: str) -> None:
    Path("f").write_bytes(bytes(100))

    async def many(store: ObjectStore) -> None:
        await asyncio.gather(*(store.put(f"{number}" + "x" * 200, bytes(100)) for number in range(200)))

    command.with_store(bucket, many)
    damage(command, bucket, "7" + "x" * 200)
    command("verify", bucket, "--deep", code=7)
    code, told = without_a_reader(command, "verify", bucket, "--deep")
    assert code == 7
    assert told == command.err.encode()
    assert without_a_reader(command, "ls", "missing", unread="stderr") == (3, b"")
    assert without_a_reader(command, "put", bucket, "f", unread="stderr") == (0, b"")
    assert without_a_reader(command, "ls", "--frobnicate", unread="stderr") == (2, b"")


def full(writer: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until a pipe takes no more: who writes to it waits, or is about to."""
    deadline = time.monotonic() + WAIT
    while select.select([], [writer], [], 0)[1]:
        assert process.poll() is None
        assert time.monotonic() < deadline


@pytest.mark.parametrize("how", ["stdout", "fifo", "ls"])
def test_one_interrupt_is_enough(command: Command, bucket: str, how: str) -> None:
    """Also where nobody reads what is written."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background inherits "ignored"
    Path("f").write_bytes(bytes(5_000_000))

    async def many(store: ObjectStore) -> None:
        await asyncio.gather(*(store.put(f"{number:04}" + "n" * 200, b"") for number in range(500)))

    if how == "ls":
        command.with_store(bucket, many)
    else:
        command("put", bucket, "f")
    if how == "fifo":
        os.mkfifo("pipe")
        reader, writer = os.open("pipe", os.O_RDONLY | os.O_NONBLOCK), os.open("pipe", os.O_WRONLY)
    else:
        reader, writer = os.pipe()
    words = {"stdout": ["get", bucket, "f", "-O", "-"], "fifo": ["get", bucket, "f", "-O", "pipe"]}
    process = command.process(
        *words.get(how, ["ls", bucket]), stdout=subprocess.DEVNULL if how == "fifo" else writer
    )
    try:
        full(writer, process)
        process.send_signal(signal.SIGINT)
        assert process.wait(5 + 5) == 130
        assert process.stderr is not None
        assert process.stderr.read() == b"objstore: interrupted\n"
    finally:
        process.kill()
        process.communicate()
        os.close(reader)
        os.close(writer)


def refuses(path: str, code: int) -> bool:
    """Whether writing there fails as it should; some sandboxes have a /dev/full that swallows everything."""
    try:
        with open(path, "wb", buffering=0) as file:
            file.write(b"x")
    except OSError as error:
        return error.errno == code
    return False


def test_output_that_cannot_be_written_is_one_line(command: Command, bucket: str) -> None:
    Path("read-only").touch()
    outputs = [("read-only", "rb", b"objstore: bad file descriptor\n")]
    if refuses("/dev/full", errno.ENOSPC):
        outputs.append(("/dev/full", "wb", b"objstore: no space left on device\n"))
    for path, mode, line in outputs:
        for words in (["info", bucket], ["--help"]):
            for unbuffered in ("", "1"):
                environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
                with (
                    open(path, mode) as output,
                    command.process(*words, stdout=output, env=environment) as process,
                ):
                    _, err = process.communicate(timeout=WAIT)
                assert process.returncode == 1
                assert err == line


@pytest.mark.parametrize("step", ["fsync", "link"])
async def test_an_interrupt_in_the_last_steps_leaves_no_hidden_file(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Bringing it to disk and giving it its name are carried out, in threads; what is hidden then goes."""
    await store.put("f", b"1")
    real, loop = getattr(os, step), asyncio.get_running_loop()
    begun, cancelled = asyncio.Event(), threading.Event()

    def slow(*arguments: Any, **options: Any) -> Any:
        loop.call_soon_threadsafe(begun.set)
        assert cancelled.wait(WAIT)
        return real(*arguments, **options)

    monkeypatch.setattr(os, step, slow)
    getting = asyncio.create_task(transfer._to_new_file(store, "f", "out", None, follow="all"))
    async with asyncio.timeout(WAIT + 5):
        await begun.wait()
        getting.cancel()
        await asyncio.sleep(0)
        cancelled.set()
        with pytest.raises(asyncio.CancelledError):
            await getting
    assert set(os.listdir()) <= {"out"}


@pytest.mark.parametrize("value", ["x", [1], True, 10**400], ids=["text", "list", "bool", "huge"])
def test_an_answer_with_odd_numbers(
    command: Command, bucket: str, monkeypatch: pytest.MonkeyPatch, value: Any
) -> None:
    real = requests.loads

    def odd(payload: Any, limit: int | None = None) -> Any:
        document = real(payload, limit)
        for info in document.get("streams") or [document]:
            if isinstance(info, dict) and "state" in info:
                info["state"]["bytes"] = value
        return document

    monkeypatch.setattr(requests, "loads", odd)
    for words in (["ls"], ["info", bucket], ["--json", "ls"], ["--json", "info", bucket]):
        command(*words, code=1)
        refused(command)
        assert "internal error" not in command.err


class TestExitCodes:
    def test_1_unsupported(
        self, old_server: LocalServer, capfdbinary: pytest.CaptureFixture[bytes], bucket_name: str
    ) -> None:
        command = Command(old_server.url, capfdbinary)
        command("bucket", "add", bucket_name, "--compress", code=1)
        refused(command)
        assert "2.10" in command.err

    def test_2_names(self, command: Command, bucket: str) -> None:
        Path("f").touch()
        command("put", bucket, "f", "--name", "x" * 5000, code=2)
        refused(command)
        command("put", bucket, "f", "--chunk-size", "1G", code=2)
        refused(command)
        command("bucket", "add", "no spaces", code=2)
        refused(command)
        command("get", bucket, "../x", code=2)
        refused(command)

    def test_3_not_found(self, command: Command, bucket: str) -> None:
        for words in (["get", bucket, "x"], ["info", bucket, "x"], ["rm", "-f", bucket, "x"]):
            command(*words, code=3)
            refused(command)
        for words in (["ls", "missing"], ["info", "missing"], ["get", "missing", "x"]):
            command(*words, code=3)
            refused(command)
            assert "objstore bucket add missing" in command.err
        assert os.listdir() == []

    def test_4_conflict(self, command: Command, bucket: str) -> None:
        Path("f").touch()
        command("bucket", "add", bucket, "--storage", "file", code=4)
        refused(command)
        command.with_store(bucket, lambda store: store.seal())
        command("put", bucket, "f", code=4)
        refused(command)

    def test_5_unreachable(self, command: Command) -> None:
        command.url = "nats://127.0.0.1:1"
        command("ls", code=5)
        refused(command)
        assert "cannot reach nats://127.0.0.1:1 (connection refused). Start one with:" in command.err

    def test_6_wrong_password(
        self, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with LocalServer(user="me", password="right") as server:
            command = Command(server.url, capfdbinary)
            monkeypatch.setenv("NATS_USER", "me")
            monkeypatch.setenv("NATS_PASSWORD", "wrong")
            command("ls", code=6)
            refused(command)
            assert "wrong" not in command.err.replace("wrong or missing", "")
            monkeypatch.setenv("NATS_PASSWORD", "right")
            command("ls")

    def test_7_digest(self, command: Command, bucket: str) -> None:
        command.with_store(bucket, lambda store: store.put("x", b"data"))
        damage(command, bucket, "x")
        command("get", bucket, "x", code=7)
        refused(command)
        assert os.listdir() == []
        command("get", bucket, "x", "-O", "-", code=7)
        assert command.out == b"data"
        command("--json", "get", bucket, "x", code=7)
        refused(command)

    def test_130_interrupt(self, command: Command, bucket: str) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background inherits "ignored"
        process = command.process(
            "put", bucket, "-", "--name", "x", env={**os.environ, "PYTHONUNBUFFERED": "1"}
        )
        assert process.stdin is not None
        process.stdin.write(bytes(1_000_000))
        process.stdin.flush()  # more than the pipe holds, so the command is reading
        process.send_signal(signal.SIGINT)
        assert process.wait(WAIT) == 130
        assert process.stderr is not None
        assert process.stderr.read() == b"objstore: interrupted\n"
        for pipe in (process.stdout, process.stderr, process.stdin):
            assert pipe is not None
            try:
                pipe.close()
            except BrokenPipeError:
                pass
        assert command.records("ls", bucket) == []
        assert command.json("info", bucket)["size"] == 0

    def test_trace(self, command: Command) -> None:
        command("--trace", "ls", "missing", code=3)
        assert "Traceback" in command.err
        assert command.err.splitlines()[-1].startswith("objstore: ")


def test_secrets_in_files_are_not_in_the_process_list(
    capfdbinary: pytest.CaptureFixture[bytes], tmp_path: Path
) -> None:
    if not os.path.exists("/proc/self/cmdline"):
        left_out("no /proc on this platform")
    secret = tmp_path / "secret"
    secret.write_text("right")
    secret.chmod(0o600)
    with LocalServer(user="me", password="right") as server:
        command = Command(server.url, capfdbinary)
        command("--user", "me", "--password-file", str(secret), "bucket", "add", "b")
        with command.process(
            "--user", "me", "--password-file", str(secret), "put", "b", "-", "--name", "x"
        ) as process:
            line = Path(f"/proc/{process.pid}/cmdline").read_bytes()
            _, err = process.communicate(b"data", timeout=WAIT)
        assert process.returncode == 0, err
        assert b"right" not in line


def test_tls(new_server: LocalServer, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        missing("openssl")
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    made = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "k.pem", "-out", "c.pem"]
    subprocess.run([*made, "-days", "2", *names], check=True, capture_output=True)
    with LocalServer(tls={"cert_file": "c.pem", "key_file": "k.pem"}) as server:
        command = Command(server.url, capfdbinary)
        assert command.records("ls", "--tlsca", "c.pem") == []
        command("ls", code=5)
        refused(command)
        assert "--tlsca" in command.err
    command = Command(new_server.url, capfdbinary)
    command("ls", "--tlsca", "c.pem", code=5)
    refused(command)
    assert "TLS is required" in command.err


def test_without_jetstream(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    with LocalServer(jetstream=False) as server:
        command = Command(server.url, capfdbinary)
        command("ls", code=1)
        refused(command)
        assert "start it with -js" in command.err


def test_selected_context(command: Command, bucket: str, tmp_path: Path) -> None:
    contexts = tmp_path / "config/nats/context"
    contexts.mkdir(parents=True)
    (contexts / "here.json").write_text(json.dumps({"url": command.url}))
    assert main(["--context", "here", "-q", "info", bucket]) == 0
    (tmp_path / "config/nats/context.txt").write_text("here")
    assert main(["-q", "info", bucket]) == 0


def test_contexts_that_cannot_be_used(command: Command, tmp_path: Path) -> None:
    contexts = tmp_path / "config/nats/context"
    contexts.mkdir(parents=True)
    (contexts / "broken.json").write_text('{"url":')
    for name, why in {
        "gone": "does not exist",
        "broken": "broken.json' is not JSON (Expecting value: line 1 column 8 (char 7)): mend the file",
    }.items():
        command("--context", name, "ls", code=2)
        refused(command)
        assert why in command.err
