"""``ls``, ``find`` and ``du``: levels, prefixes, globs, order, and what is counted."""

from __future__ import annotations

import io
import json
import sys
import tracemalloc
from typing import Any

import pytest

from objstore import ObjectStore
from objstore.cli import listing
from objstore.cli.listing import place_of
from objstore.cli.output import CommandError
from objstore.cli.paths import MAX_LEVELS
from support.memory_server import MemoryServer

NAMES = ["a.log", "dir/a.log", "dir/b/c.log", "dir/z", "dir2/x", "report"]


@pytest.fixture
async def store(server: MemoryServer) -> ObjectStore:
    store = await server.bucket()
    for number, name in enumerate(reversed(NAMES)):
        await store.put(name, b"x" * (number * 1000))
    return store


def shown(text: str, *, recursive: bool = False) -> list[str]:
    place = place_of(text, recursive=recursive)
    return list(dict.fromkeys(found for found in map(place, NAMES) if found is not None))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", ["a.log", "dir/", "dir2/", "report"]),
        ("dir/", ["dir/a.log", "dir/b/", "dir/z"]),
        ("dir", ["dir/", "dir2/"]),
        ("rep", ["report"]),
        ("*", ["a.log", "dir/", "dir2/", "report"]),
        ("dir*", ["dir/", "dir2/"]),
        ("dir*/", ["dir/", "dir2/"]),
        ("*/", ["dir/", "dir2/"]),
        ("dir*/*", ["dir/a.log", "dir/b/", "dir/z", "dir2/x"]),
        ("**.log", ["a.log", "dir/a.log", "dir/b/c.log"]),
        ("none", []),
    ],
)
def test_one_level(text: str, found: list[str]) -> None:
    assert shown(text) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [("", NAMES), ("dir/", NAMES[1:4]), ("dir", NAMES[1:5]), ("*2", ["dir2/x"]), ("*.log", ["a.log"])],
)
def test_all_levels(text: str, found: list[str]) -> None:
    assert shown(text, recursive=True) == found


async def test_ls_of_a_level(store: ObjectStore, command: Any) -> None:
    out, _ = await command("ls", "b")
    rows = [line.split() for line in out.splitlines()]
    assert rows[0] == ["NAME", "SIZE", "MODIFIED"]
    assert [row[:2] for row in rows[1:]] == [
        ["a.log", "4.9"],
        ["dir/", "dir"],
        ["dir2/", "dir"],
        ["report", "0"],
    ]
    assert (await command("ls", "b", "dir/", "-n"))[0].splitlines() == ["dir/a.log", "dir/b/", "dir/z"]
    assert (await command("ls", "b", "-r", "-0"))[0].split("\0")[:-1] == NAMES
    documents = [json.loads(line) for line in (await command("ls", "b", "dir/", "--json"))[0].splitlines()]
    assert documents[1] == {"name": "dir/b/", "directory": True}
    assert (documents[0]["name"], documents[0]["size"]) == ("dir/a.log", 4000)
    with pytest.raises(CommandError, match="nothing in bucket 'b' matches 'none'") as told:
        await command("ls", "b", "none")
    assert told.value.code == 3


async def test_ls_long(store: ObjectStore, command: Any) -> None:
    info = await store.get_info("a.log")
    out, _ = await command("ls", "b", "-l")
    rows = [line.split() for line in out.splitlines()]
    assert rows[0] == ["NAME", "BYTES", "MODIFIED", "REVISION", "CHUNKS", "DIGEST"]
    assert rows[1][:2] == ["a.log", "5000"]
    assert rows[1][4:] == [str(info.revision), "1", info.digest]


async def test_order(store: ObjectStore, command: Any) -> None:
    async def names(*words: str) -> list[str]:
        return (await command("ls", "b", "-rn", *words))[0].splitlines()

    assert await names("--sort", "size") == NAMES
    await store.put("report", b"x" * 100_000)
    assert (await names("--sort", "size"))[0] == "report"
    assert set(await names("--sort", "time")) == set(NAMES)  # here, all are of the same time
    assert await names("--sort", "name") == NAMES
    assert await names() == NAMES


async def test_many_rows_come_as_they_arrive(
    store: ObjectStore, command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "SORTED", 2)
    monkeypatch.setattr(listing, "TOGETHER", 1)
    written = []

    async def flow(self: Any) -> None:
        written.append(len(self._held))

    monkeypatch.setattr("objstore.cli.output.Output.flow", flow)
    out, _ = await command("ls", "b", "-r")
    assert [line.split()[0] for line in out.splitlines()] == ["NAME", *reversed(NAMES)]
    assert written == [4, 5, 6, 7]
    out, _ = await command("ls", "b", "-r", "--sort", "name")
    assert [line.split()[0] for line in out.splitlines()] == ["NAME", *NAMES]


async def test_ls_of_what_was_deleted_and_when(store: ObjectStore, command: Any) -> None:
    await store.delete("report")
    assert "report" not in (await command("ls", "b"))[0]
    out, _ = await command("ls", "b", "--deleted")
    assert next(line.split()[1] for line in out.splitlines() if line.startswith("report")) == "deleted"
    out, err = await command("ls", "b", "-r", "--since", "2999-01-01")
    assert (out, err) == ("", "nothing has changed since\n")
    assert len((await command("ls", "b", "-rn", "--since", "2000-01-01"))[0].splitlines()) == 5


async def test_find(store: ObjectStore, command: Any) -> None:
    async def found(*words: str) -> list[str]:
        return (await command("find", "b", *words))[0].splitlines()

    assert await found() == NAMES
    assert await found("--name", "*.log") == ["a.log", "dir/a.log", "dir/b/c.log"]
    assert await found("dir/", "--name", "*.log") == ["dir/a.log", "dir/b/c.log"]
    assert await found("--name", "dir/*") == ["dir/a.log", "dir/z"]
    assert await found("d*/b") == ["dir/b/c.log"]
    assert await found("--larger", "3000", "--smaller", "5000") == ["dir/a.log"]
    assert await found("--newer", "2999-01-01T00:00:00Z") == []
    assert await found("--older", "2999-01-01") == NAMES
    assert await found("nowhere") == []
    assert (await command("find", "b", "-0", "--larger", "4000"))[0] == "a.log\0"
    document = json.loads((await command("find", "b", "--larger", "4000", "--json"))[0])
    assert document["size"] == 5000


async def test_du(store: ObjectStore, command: Any) -> None:
    await store.add_link("dir/link", await store.get_info("a.log"))
    out, _ = await command("du", "b")
    assert [line.split() for line in out.splitlines()] == [
        ["SIZE", "OBJECTS", "DIRECTORY"],
        ["8.8", "KiB", "4", "dir/"],
        ["2.9", "KiB", "1", "dir/b/"],
        ["1000", "B", "1", "dir2/"],
        ["14.6", "KiB", "7", "total"],
    ]
    assert "dir/b/" not in (await command("du", "b", "--depth", "1"))[0]
    lines = [json.loads(line) for line in (await command("du", "b", "dir/", "--json"))[0].splitlines()]
    assert lines == [
        {"directory": "dir/b/", "size": 3000, "count": 1},
        {"total": True, "prefix": "dir/", "size": 9000, "count": 4},
    ]


async def test_du_goes_down_so_many_levels(server: MemoryServer, command: Any) -> None:
    await (await server.bucket()).put("d/" * 1400 + "f", b"x")
    lines = [json.loads(line) for line in (await command("du", "b", "--json"))[0].splitlines()]
    assert lines[:-1] == [
        {"directory": "d/" * levels, "size": 1, "count": 1} for levels in range(1, MAX_LEVELS + 1)
    ]
    out, _ = await command("du", "b", "--depth", "1400")
    assert len(out.splitlines()) == 1402


async def test_du_of_characters_around_the_slash(server: MemoryServer, command: Any) -> None:
    store = await server.bucket()
    for name in ("a0", "a0/z", "a/y", "a-/x", "a//y", "a/b/c"):
        await store.put(name, b"x")
    lines = [json.loads(line) for line in (await command("du", "b", "--json"))[0].splitlines()]
    assert [(line.get("directory"), line["count"]) for line in lines] == [
        ("a-/", 1),
        ("a/", 3),
        ("a//", 1),
        ("a/b/", 1),
        ("a0/", 1),
        (None, 6),
    ]


class Sink(io.TextIOBase):
    """Standard output that keeps the number of its lines, and the last one."""

    lines = 0
    last = ""

    def write(self, text: str) -> int:
        self.lines += text.count("\n")
        self.last = text.rstrip("\n").rpartition("\n")[2]
        return len(text)


@pytest.mark.parametrize("more", [[], ["--json"]])
async def test_memory_of_du_is_in_proportion_to_the_names(
    server: MemoryServer, command: Any, monkeypatch: pytest.MonkeyPatch, more: list[str]
) -> None:
    store = await server.bucket()
    for number in range(20):
        await store.put(f"{number}/" + "d/" * 1400 + "f", b"x")  # 56 kB; their directories: 40 MB
    sink = Sink()
    tracemalloc.start()
    try:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", sink)
            await command("du", "b", "--depth", "2000", *more)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sink.lines == 20 * 1401 + 1 + (not more)
    assert sink.last.split()[-1] == ("20}" if more else "total")
    assert peak < 10_000_000
