"""What the command shows to people: facts, progress on a terminal, what is skipped."""

from __future__ import annotations

import asyncio
import io
import os
import sys
from collections.abc import Awaitable, Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import natsproto
from natsproto.jetstream.context import JetStreamContext
from natsproto.server import LocalServer
from objstore.cli.main import main
from objstore.format.naming import meta_subject
from support.skips import left_out

Run = Callable[..., str]
On = Callable[[Callable[[JetStreamContext], Awaitable[Any]]], Any]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of the user's environment counts; the working directory is a fresh one."""
    for name in [name for name in os.environ if name.startswith("NATS_") and name != "NATS_SERVER_BIN"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NATS_TIMEOUT", "10s")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(server: LocalServer, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command; what it printed, standard error last."""

    def command(*words: str, code: int = 0) -> str:
        found = main(["--server", server.url, *words])
        text = "".join(capsys.readouterr())
        assert found == code, text
        return text

    return command


@pytest.fixture
def on(server: LocalServer) -> On:
    """Do something by the library."""

    def do(use: Callable[[JetStreamContext], Awaitable[Any]]) -> Any:
        async def body() -> Any:
            async with natsproto.connect(server.url) as client:
                return await use(client.jetstream())

        return asyncio.run(body())

    return do


@pytest.fixture
def bucket(run: Run, bucket_name: str) -> str:
    run("bucket", "add", bucket_name, "--storage", "memory", "--description", "of the test")
    return bucket_name


def test_facts_of_a_bucket(run: Run, bucket: str) -> None:
    assert "Description  of the test" in run("info", bucket)


def test_facts_of_an_object(run: Run, bucket: str) -> None:
    Path("f").write_bytes(b"x")
    run("put", bucket, "f", "--description", "one letter", "-H", "A: 1", "-H", "A: 2", "--metadata", "k=v")
    lines = [line.strip() for line in run("info", bucket, "f").splitlines()]
    assert "Description  one letter" in lines
    assert "Header  A: 1" in lines
    assert "Header  A: 2" in lines
    assert "Metadata  k=v" in lines


def test_facts_of_a_link(run: Run, on: On, bucket: str) -> None:
    async def link(js: JetStreamContext) -> None:
        store = await js.object_store(bucket)
        await store.add_link("link", await store.put("target", b"x"))

    on(link)
    assert f"Link to  {bucket}/target" in run("info", bucket, "link")
    assert f"link -> {bucket}/target" in run("ls", bucket)


def test_an_empty_bucket(run: Run, bucket: str) -> None:
    assert run("ls", bucket) == f"bucket {bucket!r} is empty\n"


def test_a_meta_that_cannot_be_read_is_skipped(run: Run, on: On, bucket: str) -> None:
    async def spoil(js: JetStreamContext) -> None:
        await (await js.object_store(bucket)).put("whole", b"x")
        await js.publish(meta_subject(bucket, "broken"), b"{")

    on(spoil)
    text = run("ls", bucket)
    assert "the meta message at revision 3 is skipped" in text
    assert "whole" in text


def test_streams_that_are_no_buckets(run: Run, on: On, bucket: str) -> None:
    names = [f"{bucket}-stream", f"OBJ_{bucket}é"]

    async def create(js: JetStreamContext) -> None:
        for name in names:
            await js.create_stream({"name": name, "subjects": [name], "storage": "memory"})

    async def delete(js: JetStreamContext) -> None:
        for name in names:
            await js.delete_stream(name)

    on(create)
    try:
        assert bucket in run("ls", "-n").splitlines()
        assert not any(line.startswith((names[0], f"{bucket}é")) for line in run("ls", "-n").splitlines())
        assert not any(line.startswith((names[0], f"{bucket}é")) for line in run("ls").splitlines())
    finally:
        on(delete)


class TestProgress:
    """Transfers of more than 8 MiB show a line on a terminal."""

    DATA = bytes(9 << 20)

    def test_of_a_file(self, run: Run, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
        Path("big").write_bytes(self.DATA)
        monkeypatch.setitem(sys.modules, "tqdm", None)
        monkeypatch.setattr(sys, "stderr", terminal := Terminal())
        run("put", bucket, "big")
        assert "big  9.0 MiB of 9.0 MiB (100 %)" in terminal.getvalue()

    def test_bar_of_a_file(self, run: Run, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
        if find_spec("tqdm") is None:
            left_out("tqdm is in the extra 'progress'")
        Path("big").write_bytes(self.DATA)
        monkeypatch.setattr(sys, "stderr", terminal := Terminal())
        run("put", bucket, "big")
        assert "big: 100%|##########| 9.00M/9.00M" in terminal.getvalue()
        assert "\rstored 'big'" in terminal.getvalue()

    def test_of_what_has_no_size(self, run: Run, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
        read, write = os.pipe()
        os.write(write, b"x" * 1000)
        os.close(write)
        monkeypatch.setattr(sys, "stderr", terminal := Terminal())
        with open(read) as pipe:
            monkeypatch.setattr(sys, "stdin", pipe)
            run("put", bucket, "-", "--name", "piped")
        assert "stored 'piped'" in terminal.getvalue()

    def test_of_a_stream(self, run: Run, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
        Path("big").write_bytes(self.DATA)
        run("put", bucket, "big")
        monkeypatch.setitem(sys.modules, "tqdm", None)
        monkeypatch.setattr(sys, "stderr", terminal := Terminal())
        run("get", bucket, "big", "-O", os.devnull)
        assert "(100 %)" in terminal.getvalue()
