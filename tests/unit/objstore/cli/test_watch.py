"""``watch``: what it shows, where it begins and ends, and what ``--exec`` gets."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest

from objstore import ObjectStore
from objstore.cli import watch as module
from support.memory_server import MemoryServer
from support.waits import eventually


@pytest.fixture
async def store(server: MemoryServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    monkeypatch.chdir(tmp_path)
    store = await server.bucket()
    await store.put("a/1", b"x" * 2048)
    await store.put("b\x1b", b"")
    await store.delete("b\x1b")
    return store


def revisions(out: str) -> list[int]:
    return [json.loads(line)["revision"] for line in out.splitlines()]


async def test_what_is_there(store: ObjectStore, command: Any) -> None:
    out, _ = await command("watch", "b", "--all", "--count", "2")
    first, second = out.splitlines()
    assert first.split()[2:] == ["PUT", "2.0", "KiB", "a/1"]
    assert second.split()[2:] == ["DEL", "b\\x1b"]


async def test_json(store: ObjectStore, command: Any) -> None:
    out, err = await command("watch", "b", "--all", "--count", "2", "--json")
    assert [json.loads(line)["deleted"] for line in out.splitlines()] == [False, True]
    assert err == ""


async def test_where_it_begins(store: ObjectStore, command: Any) -> None:
    last = (await store.get_info("b\x1b", show_deleted=True)).revision
    out, _ = await command("watch", "b", "--from-revision", str(last), "--count", "1", "--json")
    assert revisions(out) == [last]
    out, _ = await command("watch", "b", "a/", "--all", "--count", "1", "--json")
    assert revisions(out) == [2]
    await store.put("c", b"")
    out, _ = await command("watch", "b", "--all", "--ignore-deletes", "--count", "2", "--json")
    assert [json.loads(line)["name"] for line in out.splitlines()] == ["a/1", "c"]


async def test_only_what_comes(server: MemoryServer, store: ObjectStore, command: Any) -> None:
    watching = asyncio.create_task(command("watch", "b", "--count", "1", "--json"))
    await eventually(lambda: server.stream().consumers)
    await store.put("new", b"")
    out, _ = await watching
    assert json.loads(out)["name"] == "new"


async def test_a_command_for_each(store: ObjectStore, command: Any, tmp_path: Path) -> None:
    script = 'cat >> documents; echo "$OBJSTORE_EVENT $OBJSTORE_BUCKET $OBJSTORE_NAME $OBJSTORE_SIZE" >> seen'
    out, err = await command("watch", "b", "--all", "--count", "2", "--exec", script)
    assert (out, err) == ("", "")
    assert (tmp_path / "seen").read_text() == "put b a/1 2048\ndelete b b\x1b 0\n"
    documents = [json.loads(line) for line in (tmp_path / "documents").read_text().splitlines()]
    assert [document["name"] for document in documents] == ["a/1", "b\x1b"]


async def test_names_are_no_part_of_the_command(store: ObjectStore, command: Any, tmp_path: Path) -> None:
    await store.put("$(touch evil); touch evil #", b"")
    await store.put("nul\0", b"")
    await command(
        "watch", "b", "--all", "--count", "4", "--exec", 'cat >/dev/null; echo "$OBJSTORE_NAME" >> n'
    )
    assert not (tmp_path / "evil").exists()
    assert "$(touch evil)" in (tmp_path / "n").read_text()


async def test_a_command_that_fails_is_a_warning(store: ObjectStore, command: Any) -> None:
    _, err = await command("watch", "b", "--all", "--count", "2", "--exec", "cat >/dev/null; exit 3")
    assert err.count("--exec: exit code 3 for revision") == 2
    _, err = await command("watch", "b", "--all", "--count", "1", "--exec", "true")  # reads nothing
    assert err == ""


@pytest.mark.parametrize(
    "digest",
    ["SHA-256=\0abc", "SHA-256=" + "A" * 300_000, "\ud800", "SHA-256=\n"],
    ids=["nul", "long", "no text", "two lines"],
)
async def test_what_a_writer_calls_a_digest(
    server: MemoryServer, store: ObjectStore, command: Any, tmp_path: Path, digest: str
) -> None:
    """The watch goes on, here and when it is started again; the document on standard input has it."""
    now = await store.put("good", b"1")
    forged = {"name": "evil", "bucket": "b", "nuid": "N" * 22, "size": 0, "chunks": 0, "digest": digest}
    server.put_raw(store.bound_bucket.meta_subject("evil"), json.dumps(forged).encode())
    script = 'cat >> documents; echo "$OBJSTORE_NAME $OBJSTORE_DIGEST" >> seen'
    words = ["--from-revision", str(now.revision), "--count", "2"]
    for _ in range(2):
        assert await command("watch", "b", *words, "--exec", script) == ("", "")
    assert (tmp_path / "seen").read_text() == 2 * f"good {now.digest}\nevil \n"
    assert json.loads((tmp_path / "documents").read_text().splitlines()[1])["digest"] == digest


@pytest.mark.parametrize("name", ["ü", "a\0b"])
async def test_a_name_that_does_not_fit_into_an_environment(
    store: ObjectStore, command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The command would find an empty one, which means a whole bucket, or directory, to many commands."""
    plain = os.fsencode
    monkeypatch.setenv("OBJSTORE_NAME", "of the command that has started this one")
    monkeypatch.setattr(os, "fsencode", lambda text: text.encode("ascii") if "ü" in text else plain(text))
    first = await store.put(name, b"")
    await store.put("good", b"")
    script = 'cat >/dev/null; echo "$OBJSTORE_NAME" >> seen'
    _, err = await command(
        "watch", "b", "--from-revision", str(first.revision), "--count", "2", "--exec", script
    )
    assert f"the command is not run for revision {first.revision}" in err
    assert (tmp_path / "seen").read_text() == "good\n"


@pytest.mark.parametrize(
    "error", [OSError(7, "Argument list too long"), ValueError("embedded null byte")], ids=type
)
async def test_a_command_that_cannot_be_run_is_a_warning(
    store: ObjectStore, command: Any, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    async def fail(*args: Any, **options: Any) -> None:
        raise error

    monkeypatch.setattr(asyncio, "create_subprocess_shell", fail)
    _, err = await command("watch", "b", "--all", "--count", "2", "--exec", "true")
    assert err.count(f"--exec: the command cannot be run for revision 2, 'a/1': {error}") == 1
    assert len(err.splitlines()) == 2


@pytest.mark.parametrize("stubborn", [False, True])
async def test_an_interrupt_ends_the_command(
    store: ObjectStore, command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stubborn: bool
) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.2 if stubborn else 5.0)
    trap = "trap '' TERM; " if stubborn else ""
    script = f"{trap}echo $$ > pid; while :; do read x < fifo; done"
    os.mkfifo(tmp_path / "fifo")
    watching = asyncio.create_task(command("watch", "b", "--all", "--exec", script))
    await eventually(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    watching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watching
    pid = int((tmp_path / "pid").read_text())
    await eventually(lambda: not is_there(pid))  # it was killed; another thread waits for its end


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
