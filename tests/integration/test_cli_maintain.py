"""``objstore verify`` and ``objstore gc`` against real servers: reports, documents, exit codes."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import natsproto
from natsproto.server import LocalServer
from natsproto.subjects import secret_name
from objstore import ObjectStore
from objstore.cli.main import main
from objstore.format.naming import meta_subject

DATA = bytes(range(256)) * 1000


class Command:
    """Runs the command against one server, in this process."""

    def __init__(self, url: str, capfd: pytest.CaptureFixture[str]) -> None:
        self.url = url
        self._capture = capfd
        self.out = ""
        self.err = ""

    def __call__(self, *words: str, code: int = 0) -> str:
        found = main(["--server", self.url, *words])
        self.out, self.err = self._capture.readouterr()
        assert found == code, self.err
        return self.out

    def json(self, *words: str, code: int = 0) -> Any:
        return json.loads(self("--json", *words, code=code))

    def with_store(self, bucket: str, use: Callable[[ObjectStore], Awaitable[Any]]) -> Any:
        """Do something by the library."""

        async def body() -> Any:
            async with natsproto.connect(self.url) as client:
                return await use(await client.jetstream().object_store(bucket))

        return asyncio.run(body())


@pytest.fixture
def command(
    server: LocalServer,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Command:
    for name in [name for name in os.environ if name.startswith("NATS_") and name != "NATS_SERVER_BIN"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return Command(server.url, capfd)


@pytest.fixture
def bucket(command: Command, bucket_name: str) -> str:
    command("bucket", "add", bucket_name, "--storage", "memory")

    async def fill(store: ObjectStore) -> None:
        info = await store.put("a", DATA, chunk_size=100_000)
        await store.put("b", b"1")
        await store.add_link("l", info)

    command.with_store(bucket_name, fill)
    return bucket_name


async def lose_a_chunk(store: ObjectStore) -> None:
    info = await store.get_info("a")
    subject = f"$O.{store.bucket}.C.{info.nuid}"
    last = await store.js.get_message(f"OBJ_{store.bucket}", last_by_subject=subject)
    await store.js.delete_message(f"OBJ_{store.bucket}", last.seq)


async def damage_a_chunk(store: ObjectStore) -> None:
    await lose_a_chunk(store)
    info = await store.get_info("a")
    await store.js.publish(f"$O.{store.bucket}.C.{info.nuid}", bytes(len(DATA) - 200_000))


async def orphan(store: ObjectStore) -> str:
    nuid = secret_name()
    for _ in range(3):
        await store.js.publish(f"$O.{store.bucket}.C.{nuid}", b"nobody's")
    return nuid


# -- verify -----------------------------------------------------------------------------------------------


def test_nothing_is_wrong(command: Command, bucket: str) -> None:
    assert command("verify", bucket) == ""
    assert f"no problems: 2 objects and 1 link in bucket '{bucket}'" in command.err
    assert "--deep reads them" in command.err
    command("verify", bucket, "--deep")
    assert "read and compared" in command.err
    assert command("-q", "verify", bucket) == command.err == ""
    assert command.json("verify", bucket) == {
        "bucket": bucket,
        "ok": True,
        "deep": False,
        "objects": 2,
        "links": 1,
        "size": len(DATA) + 1,
        "problems": [],
    }


def test_missing_chunks(command: Command, bucket: str) -> None:
    command.with_store(bucket, lose_a_chunk)
    head, row = command("verify", bucket, code=7).splitlines()
    assert head.split() == ["NAME", "PROBLEM", "DETAIL", "REVISION"]
    assert row.startswith("a     missing chunks  2 stored, 3 recorded")
    assert command.err == f"objstore: 1 problem among 2 objects and 1 link in bucket '{bucket}'\n"
    document = command.json("verify", bucket, code=7)
    assert document["ok"] is False
    (problem,) = document["problems"]
    assert (problem["kind"], problem["name"], problem["detail"]) == (
        "missing chunks",
        "a",
        "2 stored, 3 recorded",
    )
    assert problem["revision"] > 0


def test_only_deep_sees_changed_bytes(command: Command, bucket: str) -> None:
    command.with_store(bucket, damage_a_chunk)
    command("verify", bucket)
    document = command.json("verify", bucket, "--deep", code=7)
    assert document["deep"] is True
    assert [(each["kind"], each["name"]) for each in document["problems"]] == [("damaged", "a")]


def test_no_such_bucket(command: Command, bucket_name: str) -> None:
    for words in (["verify"], ["gc"], ["gc", "--dry-run"]):
        command(*words, bucket_name, code=3)
        assert "does not exist" in command.err
        assert command.err.count("\n") == 1


# -- gc ---------------------------------------------------------------------------------------------------


def test_orphans(command: Command, bucket: str) -> None:
    nuid = command.with_store(bucket, orphan)
    assert command("gc", bucket) == ""
    assert command.err == "0 orphans removed, 1 too young\n"
    document = command.json("gc", bucket)
    assert (document["orphans"], document["recent"]) == ([], [nuid])
    head, row = command("gc", bucket, "--older-than", "0s", "--dry-run").splitlines()
    assert head.split() == ["NUID", "CHUNKS", "STORED", "REMOVED"]
    assert row.split()[:2] == [nuid, "3"]
    assert row.endswith("no")
    assert command.err == "1 orphan would be removed, 0 too young\n"
    document = command.json("gc", bucket, "--older-than", "0")
    assert document["dry_run"] is False
    (found,) = document["orphans"]
    assert found.pop("stored").endswith("Z")
    assert found == {"nuid": nuid, "chunks": 3, "removed": True}
    assert command.json("gc", bucket, "--older-than", "0")["orphans"] == []
    command("verify", bucket, "--deep")


def test_unreadable_metas_are_named(command: Command, bucket: str) -> None:
    async def damage(store: ObjectStore) -> None:
        await store.js.publish(meta_subject(store.bucket, "x"), b"{")

    command.with_store(bucket, damage)
    command("gc", bucket)
    assert "is left alone" in command.err
    (found,) = command.json("gc", bucket)["unreadable"]
    assert found["revision"] > 0
    assert found["error"]
    (problem,) = command.json("verify", bucket, code=7)["problems"]
    assert problem["kind"] == "unreadable meta"


def test_a_half_done_rename_is_completed(command: Command, bucket: str) -> None:
    async def begin(store: ObjectStore) -> None:
        await store.put("old", b"bytes")
        subject = meta_subject(store.bucket, "old")
        message = await store.js.get_message(f"OBJ_{store.bucket}", last_by_subject=subject)
        document = json.loads(message.data) | {"metadata": {"natsproto.renaming": "new"}}
        await store.js.publish(subject, json.dumps(document).encode(), headers={"Nats-Rollup": "sub"})

    command.with_store(bucket, begin)
    command("gc", bucket, "--older-than", "0", "--dry-run")
    assert "half-done rename of 'old' to 'new'\n" in command.err
    command("gc", bucket, "--older-than", "0")
    assert "half-done rename of 'old' to 'new' completed\n" in command.err
    names = command("ls", bucket, "-n").splitlines()
    assert "new" in names
    assert "old" not in names


def test_a_sealed_bucket(command: Command, bucket: str) -> None:
    """Nothing can be removed there, and the exit code says so."""
    nuid = command.with_store(bucket, orphan)
    command.with_store(bucket, lambda store: store.seal())
    (found,) = command.json("gc", bucket, "--older-than", "0", code=1)["orphans"]
    assert (found["nuid"], found["removed"]) == (nuid, False)
    assert "1 orphan could not be removed" in command.err
    command("gc", bucket)
    command("verify", bucket)


@pytest.mark.parametrize(
    "words",
    [["verify"], ["gc"], ["gc", "b", "--older-than", "soon"], ["verify", "b", "--dry-run"]],
)
def test_bad_arguments(words: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert capfd.readouterr().err.startswith("objstore: ")
