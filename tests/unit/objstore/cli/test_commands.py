"""What the commands that list and show print: tables, names, facts, documents; and what rm asks."""

from __future__ import annotations

import io
import json
import sys
from typing import Any

import pytest

from objstore import BucketNotFoundError, ObjectNotFoundError
from objstore.cli.output import CommandError
from objstore.format.naming import meta_subject
from support.memory_server import MemoryServer


async def fill(server: MemoryServer) -> None:
    store = await server.bucket("b", description="d", metadata={"k": "v"})
    await store.put("z", b"x" * 2000, "text", headers={"H": ["1", "2"]}, metadata={"m": "n"})
    await store.put("a", b"")
    await store.add_link("l", await store.get_info("z"))


async def test_ls(server: MemoryServer, command: Any) -> None:
    await fill(server)
    out, err = await command("ls", "b")
    lines = out.splitlines()
    assert lines[0].split() == ["NAME", "SIZE", "MODIFIED"]
    assert [line.split()[0] for line in lines[1:]] == ["a", "l", "z"]
    assert "l -> b/z" in out
    assert (await command("ls", "b", "--names"))[0].splitlines() == ["a", "l", "z"]
    assert (await command("ls", "b", "--names", "-0"))[0].split("\0")[:3] == ["a", "l", "z"]
    documents = [json.loads(line) for line in (await command("ls", "b", "--json"))[0].splitlines()]
    assert [document["name"] for document in documents] == ["a", "l", "z"]
    server.put_raw(meta_subject("b", "bad"), b"no JSON")
    out, err = await command("ls", "b")
    assert "is skipped" in err


async def test_ls_of_nothing(server: MemoryServer, command: Any) -> None:
    out, err = await command("ls")
    assert (out, "there are no buckets" in err) == ("", True)
    await server.bucket("empty")
    out, err = await command("ls", "empty")
    assert (out, "is empty" in err) == ("", True)
    assert await command("ls", "empty", "--json") == ("", "")
    with pytest.raises(BucketNotFoundError):
        await command("ls", "nowhere")


async def test_buckets(server: MemoryServer, command: Any) -> None:
    await fill(server)
    await server.bucket("other")
    await server.js.create_stream({"name": "NO_BUCKET", "subjects": ["x"]})
    out, _ = await command("ls")
    assert [line.split()[:2] for line in out.splitlines()] == [
        ["BUCKET", "OBJECTS"],
        ["b", "3"],
        ["other", "0"],
    ]
    assert (await command("ls", "--names"))[0].splitlines() == ["b", "other"]
    assert (await command("ls", "--names", "--json"))[0] == '"b"\n"other"\n'


async def test_info(server: MemoryServer, command: Any) -> None:
    await fill(server)
    out, _ = await command("info", "b", "z")
    for fact in ("z", "text", "2000 bytes", "H: 1", "H: 2", "m=n", "SHA-256="):
        assert fact in out
    assert "b/z" in (await command("info", "b", "l"))[0]
    document = json.loads((await command("info", "b", "z", "--json"))[0])
    assert (document["name"], document["size"]) == ("z", 2000)
    status, _ = await command("info", "b")
    for fact in ("OBJ_b", "none", "file", "k=v"):
        assert fact in status
    assert json.loads((await command("info", "b", "--json"))[0])["bucket"] == "b"
    with pytest.raises(ObjectNotFoundError):
        await command("info", "b", "nothing")


async def test_rm(server: MemoryServer, command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    await fill(server)
    out, err = await command("rm", "-f", "b", "a")
    assert (out, "deleted 'a' from bucket 'b'" in err) == ("", True)
    assert json.loads((await command("rm", "-f", "b", "l", "--json"))[0])["deleted"] is True
    with pytest.raises(CommandError, match="not a terminal: pass -f") as told:
        await command("rm", "b", "z")
    assert told.value.code == 2

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal("n\n"))
    with pytest.raises(CommandError, match="nothing was deleted"):
        await command("rm", "b", "z")
    monkeypatch.setattr(sys, "stdin", Terminal("YES\n"))
    await command("rm", "b", "z")
    assert (await command("ls", "b", "--names"))[0] == ""
