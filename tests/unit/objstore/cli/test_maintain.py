"""``verify`` and ``gc``: what they say, their documents, and their exit codes."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from objstore import ObjectStore
from objstore.cli.maintain import gc_document, verify_document
from objstore.cli.output import CommandError
from objstore.format.naming import meta_subject
from support.memory_server import MemoryServer, error


@pytest.fixture
async def store(server: MemoryServer, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    monkeypatch.setattr("objstore.maintenance.verify.RECHECK_DELAYS", (0.0,))
    store = await server.bucket()
    await store.put("a", b"x" * 100, chunk_size=10)
    return store


async def test_nothing_is_wrong(server: MemoryServer, store: ObjectStore, command: Any) -> None:
    out, err = await command("verify", "b")
    assert (out, "no problems: 1 object and 0 links in bucket 'b', 100 B, counted" in err) == ("", True)
    assert "read and compared" in (await command("verify", "b", "--deep"))[1]
    document = json.loads((await command("verify", "b", "--json"))[0])
    assert (document["ok"], document["objects"], document["problems"]) == (True, 1, [])


async def test_problems_are_exit_code_7(
    server: MemoryServer, store: ObjectStore, command: Any, capsys: Any
) -> None:
    server.stream().remove([server.stream().of("$O.b.C.*")[0].seq])
    with pytest.raises(CommandError, match="1 problem among 1 object and 0 links in bucket 'b'") as told:
        await command("verify", "b")
    assert told.value.code == 7
    table = capsys.readouterr().out.splitlines()
    assert table[0].split() == ["NAME", "PROBLEM", "DETAIL", "REVISION"]
    assert "missing chunks" in table[1]
    with pytest.raises(CommandError):
        await command("verify", "b", "--json")
    (problem,) = json.loads(capsys.readouterr().out)["problems"]
    assert (problem["kind"], problem["name"]) == ("missing chunks", "a")
    assert verify_document(await store.verify())["ok"] is False


async def test_gc(server: MemoryServer, store: ObjectStore, command: Any) -> None:
    server.put_raw("$O.b.C.ORPHAN", b"x")
    server.put_raw(meta_subject("b", "bad"), b"no JSON")
    out, err = await command("gc", "b")
    assert "0 orphans removed, 1 too young" in err
    assert "is left alone" in err
    out, err = await command("gc", "b", "--older-than", "0s", "--dry-run")
    assert "1 orphan would be removed" in err
    assert out.splitlines()[1].split()[0] == "ORPHAN"
    document = json.loads((await command("gc", "b", "--older-than", "0s", "--json"))[0])
    assert [(each["nuid"], each["removed"]) for each in document["orphans"]] == [("ORPHAN", True)]
    assert "ORPHAN" not in server.chunks()


async def test_gc_of_late_copies(server: MemoryServer, store: ObjectStore, command: Any) -> None:
    info = await store.put("a", b"content")
    server.put_raw(f"$O.b.C.{info.nuid}", b"content")
    dry = json.loads((await command("gc", "b", "--older-than", "0s", "--dry-run", "--json"))[0])
    assert dry["copies"] == [{"name": "a", "messages": 1}]
    assert (
        "late copies of chunks behind 'a' removed: 1 message"
        in ((await command("gc", "b", "--older-than", "0s"))[1])
    )
    assert server.chunks() == {info.nuid: 1}


async def test_orphans_that_stay_are_exit_code_1(
    server: MemoryServer, store: ObjectStore, command: Any
) -> None:
    server.put_raw("$O.b.C.ORPHAN", b"x")
    server.hook = lambda verb, body: error(500, 10001, "no") if verb == "STREAM.PURGE" else None
    with pytest.raises(CommandError, match="1 orphan could not be removed from bucket 'b'") as told:
        await command("gc", "b", "--older-than", "0s")
    assert told.value.code == 1
    document = gc_document(await store.gc(older_than=timedelta(0), dry_run=True))
    assert document["dry_run"] is True
    json.dumps(document)


async def test_purge_deleted(server: MemoryServer, store: ObjectStore, command: Any) -> None:
    await store.delete("a")
    _, err = await command("purge-deleted", "b")
    assert err == "0 delete markers removed from bucket 'b'\n"  # it is too young
    server.ahead = timedelta(hours=1)
    words = ["purge-deleted", "b", "--json", "--older-than"]
    assert json.loads((await command(*words, "2h"))[0]) == {"bucket": "b", "removed": 0}
    assert json.loads((await command(*words, "10m"))[0]) == {"bucket": "b", "removed": 1}
