"""The commands on buckets, on a server in this process."""

from __future__ import annotations

import io
import json
import sys
from typing import Any

import pytest

from natsproto.errors import PermissionsViolationError
from objstore import BucketAlreadyExistsError, BucketNotFoundError, BucketSealedError
from objstore.bucket.bucket import Bucket
from objstore.cli.output import CommandError
from objstore.listing import metas
from objstore.listing.metas import newest_metas
from support.memory_server import MemoryServer


async def test_bucket_add(server: MemoryServer, command: Any) -> None:
    _, err = await command("bucket", "add", "new", "--ttl", "1h", "--max-bytes", "1MiB", "--metadata", "k=v")
    assert "'new'" in err
    config = server.stream("new").config
    assert (config["max_age"], config["max_bytes"]) == (3_600_000_000_000, 1 << 20)
    assert json.loads((await command("bucket", "add", "two", "--json"))[0])["bucket"] == "two"


async def test_every_option(server: MemoryServer, command: Any) -> None:
    words = ["--storage", "memory", "--description", "d", "--replicas", "3", "--cluster", "c", "--compress"]
    words += ["--tag", "t", "--tag", "u", "--allow-ttl", "--allow-atomic", "--no-allow-direct"]
    document = json.loads((await command("mb", "b", *words, "--source", "o@hub", "--json"))[0])
    created = document.pop("created")
    assert created.endswith("Z")
    assert document == {
        "bucket": "b",
        "description": "d",
        "stream": "OBJ_b",
        "ttl": 0,
        "max_bytes": -1,
        "storage": "memory",
        "num_replicas": 3,
        "compression": True,
        "sealed": False,
        "size": 0,
        "count": 0,
        "backing_store": "JetStream",
        "allow_direct": False,
        "allow_atomic": True,
        "allow_msg_ttl": True,
        "metadata": {},
        "placement": {"cluster": "c", "tags": ["t", "u"]},
        "sources": [{"bucket": "o", "domain": "hub"}],
    }
    out, _ = await command("bucket", "info", "b")
    for fact in ("atomic puts, a TTL per object", "Cluster  c", "Tag  u", "Source  o@hub", "Created  "):
        assert fact in out


async def test_a_mirror(server: MemoryServer, command: Any) -> None:
    await command("bucket", "add", "o")
    document = json.loads((await command("bucket", "add", "copy", "--mirror", "o", "--json"))[0])
    assert document["mirror"] == {"bucket": "o", "domain": None}
    assert "Mirror of  o" in (await command("bucket", "show", "copy"))[0]


async def test_another_configuration_is_told_field_by_field(server: MemoryServer, command: Any) -> None:
    await command(
        "bucket", "add", "b", "--storage", "memory", "--ttl", "1h", "--metadata", "k=v", "--tag", "t"
    )
    words = ["--replicas", "3", "--compress", "--allow-ttl", "--source", "o@hub", "--max-bytes", "1k"]
    with pytest.raises(BucketAlreadyExistsError) as told:
        await command("bucket", "add", "b", *words)
    text = str(told.value)
    for difference in (
        "storage is memory, not file",
        "ttl is 1h, not none",
        "metadata is k=v, not none",
        "placement is tag t, not none",
        "replicas is 1, not 3",
        "compress is off, not on",
        "allow-ttl is off, not on",
        "sources is none, not o@hub",
        "max-bytes is none, not 1024",
    ):
        assert difference in text
    assert "description" not in text
    assert text.endswith("Change it with: objstore bucket edit b")


async def test_a_stream_that_is_no_bucket(server: MemoryServer, command: Any) -> None:
    await server.js.create_stream({"name": "OBJ_b", "subjects": ["x"], "allow_direct": True})
    with pytest.raises(BucketAlreadyExistsError, match="'OBJ_b' exists, but not as bucket add creates it"):
        await command("bucket", "add", "b")


async def test_edit(server: MemoryServer, command: Any) -> None:
    await command("bucket", "add", "b", "--ttl", "1h", "--metadata", "k=v", "--metadata", "l=w", "--tag", "t")
    _, err = await command("bucket", "edit", "b", "--description", "d", "--metadata", "m=x")
    assert "bucket 'b' is changed" in err
    words = ["--unset-metadata", "k", "--max-bytes", "1k", "--no-allow-direct", "--tag", "", "--json"]
    document = json.loads((await command("edit", "b", *words))[0])
    assert (document["description"], document["ttl"]) == ("d", 3_600_000_000_000)
    assert (document["metadata"], document["max_bytes"]) == ({"l": "w", "m": "x"}, 1024)
    assert (document["allow_direct"], "placement" in document) == (False, False)
    words = ["--cluster", "c", "--tag", "t", "--json"]
    document = json.loads((await command("edit", "b", *words))[0])
    assert document["placement"] == {"cluster": "c", "tags": ["t"]}
    document = json.loads((await command("edit", "b", "--cluster", "d", "--json"))[0])
    assert document["placement"] == {"cluster": "d", "tags": ["t"]}
    document = json.loads((await command("edit", "b", "--ttl", "0", "--max-bytes", "0", "--json"))[0])
    assert (document["ttl"], document["max_bytes"]) == (0, -1)
    with pytest.raises(CommandError, match="name what to change") as told:
        await command("bucket", "edit", "b")
    assert told.value.code == 2
    with pytest.raises(BucketNotFoundError):
        await command("bucket", "edit", "missing", "--ttl", "1h")


async def test_ls(server: MemoryServer, command: Any) -> None:
    assert "there are no buckets" in (await command("bucket", "ls"))[1]
    await (await server.bucket()).put("n", b"x")
    lines = (await command("bucket", "ls"))[0].splitlines()
    assert [line.split()[:2] for line in lines] == [["BUCKET", "OBJECTS"], ["b", "1"]]
    assert await command("bucket", "ls", "-n") == ("b\n", "")
    assert json.loads((await command("bucket", "ls", "--json"))[0])["count"] == 1


async def test_ls_of_a_bucket_that_cannot_be_counted(
    server: MemoryServer, command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b", "c"):
        await (await server.bucket(name)).put("n", b"x")

    async def read(bucket: Bucket, on_invalid: Any) -> Any:
        if bucket.name == "b":
            raise PermissionsViolationError("this user may not", subject="$JS.API.STREAM.INFO.OBJ_b")
        return await newest_metas(bucket, on_invalid)

    monkeypatch.setattr(metas, "newest_metas", read)
    out, err = await command("bucket", "ls")
    assert [line.split()[:2] for line in out.splitlines()[1:]] == [["a", "1"], ["b", "?"], ["c", "1"]]
    assert "the objects of bucket 'b' were not counted: this user may not" in err
    lines = [json.loads(line) for line in (await command("ls", "--json"))[0].splitlines()]
    assert [line["count"] for line in lines] == [1, -1, 1]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("action", ["seal", "rm"])
async def test_what_cannot_be_undone_asks(
    server: MemoryServer, command: Any, monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    store = await server.bucket()
    with pytest.raises(CommandError, match="not a terminal: pass -f") as told:
        await command("bucket", action, "b")
    assert told.value.code == 2
    monkeypatch.setattr(sys, "stdin", Terminal("\n"))
    with pytest.raises(CommandError, match="nothing was") as told:
        await command("bucket", action, "b")
    assert told.value.code == 1
    await store.put("n", b"x")
    monkeypatch.setattr(sys, "stdin", Terminal("y\n"))
    await command("bucket", action, "b")
    with pytest.raises((BucketSealedError, BucketNotFoundError)):
        await store.put("n", b"y")


async def test_without_asking(server: MemoryServer, command: Any) -> None:
    await server.bucket()
    assert json.loads((await command("seal", "-f", "b", "--json"))[0])["sealed"] is True
    assert json.loads((await command("rb", "-f", "b", "--json"))[0]) == {"bucket": "b", "deleted": True}
    with pytest.raises(BucketNotFoundError):
        await command("bucket", "rm", "-f", "b")
