"""``rm``, ``meta`` and ``ln``: what is asked first, what is changed, and what is kept."""

from __future__ import annotations

import io
import json
import sys
from typing import Any

import pytest

from objstore import ObjectAlreadyExists, ObjectMeta, ObjectNotFoundError, ObjectStore, RevisionConflictError
from objstore.cli.change import check_ln, check_meta, check_rm
from objstore.cli.output import CommandError
from objstore.cli.parser import parse
from support.memory_server import MemoryServer


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
async def store(server: MemoryServer) -> ObjectStore:
    store = await server.bucket()
    for name in ("a.log", "b.log", "dir/c.log", "dir/d", "keep"):
        await store.put(name, b"x")
    return store


async def test_rm_of_a_glob(store: ObjectStore, command: Any) -> None:
    _, err = await command("rm", "-f", "b", "*.log", "dir/d")
    assert "deleted 3 objects" in err
    assert await store.names(live=True) == ["dir/c.log", "keep"]
    with pytest.raises(CommandError, match="no object matches") as told:
        await command("rm", "-f", "b", "*.log")
    assert told.value.code == 3


async def test_rm_of_a_directory(store: ObjectStore, command: Any) -> None:
    out, _ = await command("rm", "-fr", "b", "dir", "--json")
    assert {json.loads(line)["name"] for line in out.splitlines()} == {"dir/c.log", "dir/d"}
    assert await store.names(live=True) == ["a.log", "b.log", "keep"]
    await command("rm", "-fr", "natsobj://b/")
    assert await store.names(live=True) == []


async def test_rm_only_shows(store: ObjectStore, command: Any) -> None:
    out, _ = await command("rm", "--dry-run", "b", "**.log")
    assert sorted(out.splitlines()) == [
        f"delete natsobj://b/{name}" for name in ("a.log", "b.log", "dir/c.log")
    ]
    out, _ = await command("rm", "--dry-run", "b", "keep", "--json")
    assert json.loads(out) == {"bucket": "b", "name": "keep", "deleted": False}
    with pytest.raises(ObjectNotFoundError):
        await command("rm", "--dry-run", "b", "nothing")
    assert len(await store.names(live=True)) == 5


async def test_rm_goes_on(store: ObjectStore, command: Any) -> None:
    with pytest.raises(CommandError, match="rm: 1 of 3 failed") as told:
        await command("rm", "-f", "b", "a.log", "nothing", "b.log")
    assert told.value.code == 3
    assert await store.names(live=True) == ["dir/c.log", "dir/d", "keep"]


def test_rm_asks_once(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    args = parse(["rm", "-r", "b", "x", "y*"])
    with pytest.raises(CommandError, match="pass -f to delete without asking") as told:
        check_rm(args)
    assert told.value.code == 2
    monkeypatch.setattr(sys, "stdin", Terminal("y\n"))
    check_rm(args)
    assert capsys.readouterr().err == "Delete 'x', 'y*' and everything below from bucket 'b'? [y/N] "
    monkeypatch.setattr(sys, "stdin", Terminal("\n"))
    with pytest.raises(CommandError, match="nothing was deleted") as told:
        check_rm(parse(["rm", "-r", "natsobj://b"]))
    assert told.value.code == 1
    assert capsys.readouterr().err == "Delete everything from bucket 'b'? [y/N] "
    with pytest.raises(CommandError, match="is a bucket: pass -r"):
        check_rm(parse(["rm", "-f", "natsobj://b"]))


async def test_meta_shows(store: ObjectStore, command: Any) -> None:
    await store.put("a.log", b"x", "text", headers={"A": ["1", "2"]}, metadata={"k": "v"})
    out, _ = await command("meta", "b", "a.log")
    for fact in ("text", "A: 1", "A: 2", "k=v"):
        assert fact in out
    assert json.loads((await command("meta", "natsobj://b/a.log", "--json"))[0])["description"] == "text"


async def test_meta_changes(store: ObjectStore, command: Any) -> None:
    await store.put("a.log", b"x", "text", headers={"A": ["1", "2"], "B": "3"}, metadata={"k": "v", "l": "w"})
    _, err = await command(
        "meta", "b", "a.log", "-H", "C:4", "-H", "C:5", "--no-header", "B", "--metadata", "m=n"
    )
    assert "changed the meta of 'a.log'" in err
    info = await store.get_info("a.log")
    assert (info.description, info.metadata) == ("text", {"k": "v", "l": "w", "m": "n"})
    assert info.headers == {"A": ["1", "2"], "C": ["4", "5"]}
    await command("meta", "b", "a.log", "--description", "", "--no-metadata", "k", "-H", "A:9")
    info = await store.get_info("a.log")
    assert (info.description, info.metadata) == (None, {"l": "w", "m": "n"})
    assert info.headers == {"A": ["9"], "C": ["4", "5"]}
    assert await store.get("a.log") == b"x"
    with pytest.raises(RevisionConflictError):
        await command("meta", "b", "a.log", "--description", "d", "--if-revision", "1")


async def test_meta_keeps_what_others_change(
    store: ObjectStore, command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, times = ObjectStore.update_meta, []

    async def late(self: ObjectStore, name: str, meta: ObjectMeta, *, if_revision: int | None = None) -> Any:
        times.append(if_revision)
        if len(times) == 1:
            await plain(self, name, ObjectMeta(name, "of others"))
        return await plain(self, name, meta, if_revision=if_revision)

    monkeypatch.setattr(ObjectStore, "update_meta", late)
    await command("meta", "b", "a.log", "--metadata", "k=v")
    info = await store.get_info("a.log")
    assert (info.description, info.metadata, len(times)) == ("of others", {"k": "v"}, 2)


async def test_ln(server: MemoryServer, store: ObjectStore, command: Any) -> None:
    other = await server.bucket("other")
    _, err = await command("ln", "b", "keep", "dir/link")
    assert "'dir/link' in bucket 'b' is a link to 'b/keep'" in err
    assert await store.get("dir/link") == b"x"
    await command("ln", "natsobj://b/keep", "natsobj://other/link", "--description", "d")
    assert (await other.get_info("link")).description == "d"
    out, _ = await command("ln", "natsobj://b", "natsobj://other/all", "--json")
    assert json.loads(out)["options"] == {"link": {"bucket": "b", "name": None}}
    with pytest.raises(ObjectNotFoundError):
        await command("ln", "b", "nothing", "l")
    with pytest.raises(ObjectAlreadyExists):
        await command("ln", "b", "keep", "a.log")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["ln", "b", "a"], "write BUCKET TARGET LINK"),
        (["ln", "b", "a", "l", "m"], "write BUCKET TARGET LINK"),
        (["ln", "natsobj://b/a"], "write natsobj://BUCKET/TARGET"),
        (["ln", "natsobj://b/a", "natsobj://b"], "the link needs a name"),
        (["ln", "b", "*", "l"], "not a pattern"),
        (["meta", "b", "n", "m"], "name one object"),
        (["meta", "natsobj://b"], "name one object"),
    ],
)
def test_what_cannot_work(words: list[str], why: str) -> None:
    with pytest.raises(CommandError, match=why) as told:
        {"ln": check_ln, "meta": check_meta}[words[0]](parse(words))
    assert told.value.code == 2
