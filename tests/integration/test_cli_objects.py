"""The commands on objects against real servers: several at once, directories, links, what is interrupted."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import natsproto
from natsproto.server import LocalServer
from natsproto.testing import FaultProxy
from objstore import ObjectStore
from objstore.cli import connection
from objstore.cli.main import main
from objstore.read import files
from support.objects import chunk_counts
from support.pipes import opened_by_a_reader, reads_a_pipe
from support.waits import eventually_here

WAIT = 60.0
DATA = bytes(range(256)) * 4000
BIG = DATA * 24


class Command:
    """Runs the command against one server, in this process or as a process of its own."""

    def __init__(self, url: str, capfd: pytest.CaptureFixture[str]) -> None:
        self.url = url
        self._capture = capfd
        self.err = ""

    def __call__(self, *words: str, code: int = 0) -> str:
        found = main(["--server", self.url, *words])
        out, self.err = self._capture.readouterr()
        assert found == code, self.err
        return out

    def records(self, *words: str) -> list[Any]:
        return [json.loads(line) for line in self("--json", *words).splitlines()]

    def process(self, *words: str, url: str = "", **options: Any) -> subprocess.Popen[bytes]:
        arguments = [sys.executable, "-m", "objstore", "--server", url or self.url, *words]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(arguments, **{**pipes, **options})

    def with_store(self, bucket: str, use: Callable[[ObjectStore], Awaitable[Any]]) -> Any:
        """Do something by the library."""

        async def body() -> Any:
            async with natsproto.connect(self.url) as client:
                return await use(await client.jetstream().object_store(bucket))

        return asyncio.run(body())


@pytest.fixture
def command(
    server: LocalServer, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Command:
    for name in [name for name in os.environ if name.startswith("NATS_") and name != "NATS_SERVER_BIN"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NATS_TIMEOUT", "10s")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")]))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return Command(server.url, capfd)


@pytest.fixture
def bucket(command: Command, bucket_name: str) -> str:
    command("bucket", "add", bucket_name, "--storage", "memory")
    return bucket_name


@pytest.fixture
def photos() -> dict[str, bytes]:
    found = {"2025/a.jpg": b"a" * 2000, "2025/raw/b.dng": DATA, "index.html": b"<html>"}
    for name, data in found.items():
        path = Path("photos", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return found


def content(directory: str) -> dict[str, bytes]:
    found = (path for path in Path(directory).rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in found}


def test_a_tree_goes_there_and_back(command: Command, bucket: str, photos: dict[str, bytes]) -> None:
    command("put", "-r", bucket, "photos", "--prefix", "p/")
    assert command("ls", bucket, "p/", "-n").splitlines() == ["p/2025/", "p/index.html"]
    assert command("ls", bucket, "-rn").splitlines() == [f"p/{name}" for name in photos]
    command("get", "-r", bucket, "p/", "-O", "back")
    assert content("back") == photos
    command("get", bucket, "p/**.jpg", "p/index.html", "-O", "some/")
    assert content("some") == {"2025/a.jpg": photos["2025/a.jpg"], "index.html": b"<html>"}
    assert command("find", bucket, "--larger", "10k").splitlines() == ["p/2025/raw/b.dng"]
    total = command.records("du", bucket)[-1]
    assert (total["count"], total["size"]) == (3, sum(map(len, photos.values())))
    command("rm", "-fr", bucket, "p/2025")
    assert command("ls", bucket, "-rn", "--sort", "time").splitlines() == ["p/index.html"]
    assert "deleted" in command("ls", bucket, "-r", "--deleted")


def test_names_of_others_are_passed_on(command: Command, bucket: str, tmp_path: Path) -> None:
    """What is printed with -0, given to rm as the manual says, deletes these objects, and no others."""
    theirs = ["tmp/**", "tmp/[a]", "-f", "--server=nats://127.0.0.1:1", "natsobj://b/x", "tmp/a\nb"]

    async def fill(store: ObjectStore) -> None:
        for name in ("keep", "tmp/a", "tmp/keep"):
            await store.put(name, b"small")
        for name in theirs:
            await store.put(name, bytes(2000))

    command.with_store(bucket, fill)
    names = command("find", bucket, "--larger", "1000", "-0")
    assert sorted(names.split("\0")[:-1]) == sorted(theirs)
    arguments = ["xargs", "-0", sys.executable, "-m", "objstore", "--server", command.url]
    arguments += ["rm", "-f", "--literal", bucket, "--"]
    subprocess.run(arguments, input=names.encode(), check=True, timeout=WAIT, capture_output=True)
    assert command("ls", bucket, "-rn").splitlines() == ["keep", "tmp/a", "tmp/keep"]


def test_sync_there_and_back(command: Command, bucket: str, photos: dict[str, bytes]) -> None:
    command("sync", "photos", f"natsobj://{bucket}/p/")
    command("sync", "photos", f"natsobj://{bucket}/p/")
    assert command.err == "stored 0 files (0 B), deleted 0, 3 were the same\n"
    Path("photos/2025/a.jpg").write_bytes(b"A" * 2000)
    os.unlink("photos/index.html")
    records = command.records("sync", "photos", f"natsobj://{bucket}/p/", "--delete")
    assert [(each["action"], each["name"]) for each in records] == [
        ("put", "p/2025/a.jpg"),
        ("delete", "p/index.html"),
    ]
    command("sync", f"natsobj://{bucket}/p/", "back")
    assert content("back") == content("photos")
    command("rm", "-f", bucket, "p/2025/a.jpg")
    command("sync", f"natsobj://{bucket}/p/", "back", "--delete")
    assert content("back") == {"2025/raw/b.dng": DATA}


def test_sync_deletes_nothing_that_was_left_out(
    command: Command, bucket: str, photos: dict[str, bytes]
) -> None:
    """A deployment moves a directory away and puts a link in its place; a file becomes a socket."""
    command("sync", "photos", f"natsobj://{bucket}/p/")
    before = command("ls", bucket, "-rn")
    os.rename("photos/2025", "elsewhere")
    os.symlink("../elsewhere", "photos/2025")
    os.unlink("photos/index.html")
    with socket.socket(socket.AF_UNIX) as made:
        made.bind("photos/index.html")
    command("sync", "photos", f"natsobj://{bucket}/p/", "--delete")
    assert (
        "'photos/2025' is left out, so what has its name or is below it is not deleted: 2 obj" in command.err
    )
    assert command("ls", bucket, "-rn") == before
    command("sync", f"natsobj://{bucket}/p/", "back")
    assert content("back") == photos


async def test_sync_keeps_files_that_change_meanwhile(
    command: Command, bucket: str, server: LocalServer, tmp_path: Path
) -> None:
    there = tmp_path / "work" / "there"
    there.mkdir()
    (there / "notes").write_bytes(b"old")
    (there / "page").write_bytes(b"old")
    async with natsproto.connect(server.url) as client:
        store = await client.jetstream().object_store(bucket)
        await store.put("page", BIG)

    async def change(name: str) -> bytes:
        """Write a file while the object comes; return what the command says."""
        async with FaultProxy(server.url) as proxy:
            proxy.rate = 2e6  # it takes 12 s if this test stands still
            process = command.process("sync", f"natsobj://{bucket}/", "there", "--delete", url=proxy.url)
            await proxy.wait_until(lambda: proxy.bytes_to_client > 1_000_000, timeout=WAIT)
            (there / name).write_bytes(b"mine")
            proxy.rate = None
            out, err = await asyncio.to_thread(process.communicate, timeout=WAIT)
        assert (process.returncode, out) == (4, b"")
        return err

    kept = b"objstore: 'there/page' is not as it was listed: it is kept. Run the command again\n"
    assert await change("page") == kept
    assert content(str(there)) == {"notes": b"old", "page": b"mine"}
    assert kept.replace(b"page", b"notes") in await change("notes")
    assert content(str(there)) == {"notes": b"mine", "page": BIG}


def test_cp_mv_ln_meta(command: Command, bucket: str, bucket_name: str) -> None:
    other = f"{bucket_name}-other"
    command("bucket", "add", other, "--storage", "memory")
    Path("f").write_bytes(DATA)
    command("cp", "f", f"natsobj://{bucket}/dir/")
    (before,) = command.records("ls", bucket, "-r")
    command("mv", bucket, "dir/f", "g")
    (after,) = command.records("ls", bucket)
    assert (before["nuid"], after["name"]) == (after["nuid"], "g")  # the data stay
    command("mv", f"natsobj://{bucket}/g", f"natsobj://{other}/h")
    assert command("ls", bucket) == ""
    command("ln", f"natsobj://{other}/h", f"natsobj://{bucket}/link")
    command("meta", other, "h", "--description", "text", "-H", "A:1", "--metadata", "k=v")
    (info,) = command.records("ls", other)
    assert (info["description"], info["headers"], info["metadata"]["k"]) == ("text", {"A": ["1"]}, "v")
    command("cp", f"natsobj://{bucket}/link", "back")
    assert Path("back").read_bytes() == DATA
    command("put", bucket, "f", "--create")
    command("put", bucket, "f", "--create", code=4)
    command("put", bucket, "f", "--if-revision", "1", code=4)


def test_cat(command: Command, bucket: str) -> None:
    Path("f").write_bytes(DATA)
    command("put", bucket, "f")
    for words, data in (
        (["cat", bucket, "f"], DATA),
        (["cat", f"natsobj://{bucket}/f", "--range", "100-299"], DATA[100:300]),
        (["cat", bucket, "f", "--range=-7"], DATA[-7:]),
    ):
        with command.process(*words) as process:
            assert process.communicate(timeout=WAIT) == (data, b"")
        assert process.returncode == 0
    command("cat", bucket, "f", "--range", "9999999-", code=2)


@pytest.mark.parametrize(
    "words", [["cat"], ["cat", "--range", "5-"], ["ls", "-0"]], ids=["cat", "range", "ls"]
)
def test_a_reader_that_stops_ends_it_quietly(command: Command, bucket: str, words: list[str]) -> None:
    """``objstore cat big | head``."""

    async def fill(store: ObjectStore) -> None:
        await asyncio.gather(*(store.put(f"{number:04}" + "n" * 900, b"") for number in range(200)))
        await store.put("big", bytes(5_000_000))

    command.with_store(bucket, fill)
    name = ["big"] if words[0] == "cat" else []
    with command.process(*words, bucket, *name) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


def small_files() -> None:
    """As on a full disk: no file may be longer than this."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))


@pytest.mark.parametrize("how", ["get", "get -r", "cp", "sync"])
def test_a_full_disk(command: Command, bucket: str, how: str) -> None:
    Path("f").write_bytes(DATA)
    command("put", bucket, "f")
    words = {
        "get": ["get", bucket, "f", "-O", "out/f"],
        "get -r": ["get", "-r", bucket, "-O", "out"],
        "cp": ["cp", f"natsobj://{bucket}/f", "out/f"],
        "sync": ["sync", f"natsobj://{bucket}", "out"],
    }
    os.mkdir("out")
    # A tracer would have no room for its data either.
    env = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    with command.process(*words[how], preexec_fn=small_files, env=env) as process:
        out, err = process.communicate(timeout=WAIT)
    assert (process.returncode, out) == (1, b"")
    assert err == b"objstore: 'out/f' cannot be written: file too large. Choose another place\n"
    assert os.listdir("out") == []


async def interrupted(command: Command, server: LocalServer, *words: str, up: bool) -> None:
    """Interrupt a command in the middle of its transfer."""
    async with FaultProxy(server.url) as proxy:
        proxy.rate = 80e6
        process = command.process(*words, url=proxy.url)
        try:
            await proxy.wait_until(
                lambda: proxy.bytes_to_server > 3_000_000 if up else proxy.bytes_to_client > 12_000_000,
                timeout=WAIT,
            )
            process.send_signal(signal.SIGINT)
            proxy.rate = None
            out, err = await asyncio.to_thread(process.communicate, timeout=WAIT)
        finally:
            process.kill()
    assert (process.returncode, out, err) == (130, b"", b"objstore: interrupted\n")


async def test_put_goes_on(command: Command, bucket: str, server: LocalServer, tmp_path: Path) -> None:
    """What was stored before the interrupt stays, under the token that is kept until everything is."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background inherits "ignored"
    (tmp_path / "work" / "f").write_bytes(BIG)
    await interrupted(command, server, "put", bucket, "f", "--resume", up=True)
    (kept,) = (tmp_path / "state" / "objstore" / "uploads").iterdir()
    nuid = json.loads(base64.urlsafe_b64decode(kept.read_text()))["nuid"]
    async with natsproto.connect(server.url) as client:
        store = await client.jetstream().object_store(bucket)
        before = (await chunk_counts(store))[nuid]
        assert 0 < before < 188
        await asyncio.to_thread(command, "put", bucket, "f", "--resume")
        info = await store.get_info("f")
        assert (info.nuid, info.chunks, info.size) == (nuid, 188, len(BIG))
        assert await store.get("f") == BIG
    assert not kept.exists()


async def test_get_goes_on(command: Command, bucket: str, server: LocalServer, tmp_path: Path) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    async with natsproto.connect(server.url) as client:
        store = await client.jetstream().object_store(bucket)
        await store.put("f", BIG)
    await interrupted(command, server, "get", bucket, "f", "-O", "new/", "--resume", up=False)
    (part,) = (tmp_path / "work" / "new").iterdir()
    assert part.name.startswith("..objstore-")
    async with FaultProxy(server.url) as proxy:
        with command.process("get", bucket, "f", "-O", "new/", "--resume", url=proxy.url) as process:
            await asyncio.to_thread(process.communicate, timeout=WAIT)
        assert process.returncode == 0
        assert proxy.bytes_to_client < len(BIG)  # not everything again
    assert content("new") == {"f": BIG}


async def test_an_interrupt_leaves_nothing(
    command: Command, bucket: str, server: LocalServer, tmp_path: Path
) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    async with natsproto.connect(server.url) as client:
        store = await client.jetstream().object_store(bucket)
        await store.put("f", BIG)
        await interrupted(command, server, "sync", f"natsobj://{bucket}", "new", up=False)
        assert list((tmp_path / "work" / "new").iterdir()) == []
        for name in ("g", "h"):
            (tmp_path / "work" / name).write_bytes(BIG)
        await interrupted(command, server, "put", bucket, "g", "h", up=True)
        assert await store.names() == ["f"]
        assert len(await chunk_counts(store)) == 1


def test_a_server_that_goes_away(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line for all that failed with it; what was written before is whole, and nothing else is there."""
    plain_settings, plain_get, got = connection.settings, files.get_file, []

    def impatient(*args: Any) -> connection.Settings:
        found = plain_settings(*args)
        found.options["retry_budget"] = 0.3  # type: ignore[typeddict-unknown-key]
        return found

    async def get(*args: Any, **options: Any) -> Any:
        got.append(args)
        if len(got) == 20:
            own.kill()
        return await plain_get(*args, **options)

    async def fill(store: ObjectStore) -> None:
        await asyncio.gather(*(store.put(f"{number}", DATA) for number in range(30)))

    with LocalServer() as own:
        command.url = own.url
        command("bucket", "add", "b", "--storage", "memory")
        command.with_store("b", fill)
        monkeypatch.setattr(connection, "settings", impatient)
        monkeypatch.setattr(files, "get_file", get)
        command("-q", "get", "-r", "b", "-O", "out", code=5)
    failed, summary = command.err.splitlines()
    assert "--resume" in failed or "Try again" in failed
    assert re.fullmatch(r"objstore: get: 1 of 30 failed, and \d+ were given up", summary)
    written = content("out")
    assert len(written) >= 10
    assert set(written.values()) == {DATA}
    assert all(name.isdigit() for name in written)


def test_ls_of_many(command: Command, bucket: str) -> None:
    """More rows than are sorted come in the order of their last change, as they arrive."""

    async def fill(store: ObjectStore) -> None:
        room = asyncio.Semaphore(50)

        async def put(number: int) -> None:
            async with room:
                await store.put(f"{number:04}", b"")

        await asyncio.gather(*(put(number) for number in range(1500)))
        await store.put("0000", b"again")

    command.with_store(bucket, fill)
    rows = command("ls", bucket, "-n").splitlines()
    assert rows[-1] == "0000"
    assert sorted(rows) == [f"{number:04}" for number in range(1500)]
    assert command("ls", bucket, "-n", "--sort", "name").splitlines() == sorted(rows)


def test_put_for_a_time_or_at_once(
    command: Command, server: LocalServer, bucket_name: str, tmp_path: Path
) -> None:
    """Where the server can; older ones say what they lack, and nothing is stored."""
    new = not server.binary.version.startswith("2.9.")
    file = tmp_path / "f"
    file.write_bytes(DATA)
    options = ("--allow-ttl", "--allow-atomic") if new else ()
    command("bucket", "add", bucket_name, *options)
    try:
        for flag in (("--ttl", "1h"), ("--atomic",)):
            command("put", *flag, bucket_name, str(file), "--name", flag[0][2:], code=0 if new else 1)
            assert new or "nats-server" in command.err
        if new:
            infos = command.with_store(bucket_name, lambda store: store.list())
            expires = {info.name: info.expires is not None for info in infos}
            assert expires == {"ttl": True, "atomic": False}
            assert command.with_store(bucket_name, lambda store: store.get("atomic")) == DATA
        else:
            assert command.with_store(bucket_name, chunk_counts) == {}
    finally:
        command("bucket", "rm", "-f", bucket_name)


@pytest.mark.parametrize("words", [("put", "BUCKET", "PIPE", "--name", "x"), ("cp", "PIPE", "TO")], ids=str)
def test_one_interrupt_ends_a_put_of_a_silent_pipe(
    command: Command, bucket: str, tmp_path: Path, words: tuple[str, ...]
) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    names = {"BUCKET": bucket, "PIPE": str(pipe), "TO": f"natsobj://{bucket}/x"}
    with command.process(*(names.get(word, word) for word in words)) as process:
        try:
            writer = opened_by_a_reader(pipe, process)
            os.write(writer, b"begun")
            eventually_here(lambda: reads_a_pipe(process))
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=20)
            os.close(writer)
        finally:
            process.kill()
    assert (process.returncode, out, err) == (130, b"", b"objstore: interrupted\n")
    assert command("ls", "-n", bucket) == ""


async def test_one_interrupt_ends_a_put_of_a_device_without_an_end(
    command: Command, bucket: str, server: LocalServer
) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    async with natsproto.connect(server.url) as client:
        store = await client.jetstream().object_store(bucket)
        with command.process("put", bucket, "/dev/zero", "--name", "x") as process:
            try:
                async with asyncio.timeout(WAIT):
                    while not await chunk_counts(store):
                        assert process.poll() is None
                process.send_signal(signal.SIGINT)
                out, err = await asyncio.to_thread(process.communicate, timeout=20)
            finally:
                process.kill()
        assert (process.returncode, out, err) == (130, b"", b"objstore: interrupted\n")
        assert await store.names() == []
        assert await chunk_counts(store) == {}
