"""What is kept of the metas that were read: no more of each than its subject and a nuid may have."""

from __future__ import annotations

import gc
import tracemalloc
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from objstore.bucket.binding import bind
from objstore.commit.references import References
from objstore.format.codec import MetaDecodeError, encode_meta
from objstore.format.models import InvalidMeta, ObjectInfo, plain_info
from objstore.format.naming import meta_subject, new_nuid
from objstore.listing.newest import AT_ONCE
from support.memory_server import MemoryServer, Stored

NOW = datetime(2026, 11, 22, tzinfo=UTC)


def named(name: str, nuid: str) -> ObjectInfo:
    return plain_info(name, "b", None, NOW, nuid=nuid, chunks=1, size=1)


def take(references: References, info: ObjectInfo) -> str:
    subject = meta_subject("b", info.name)
    references.read(info, subject)
    return subject


@pytest.mark.parametrize("field", ["nuid", "metadata"])
def test_what_is_no_nuid_is_not_kept(field: str) -> None:
    """A megabyte from each of 50,000 metas, for as long as a scan is remembered."""
    references = References()
    tracemalloc.start()
    try:
        for number in range(20):
            info = named(f"n{number}", "x")
            text = f"{number}" * 500_000
            marks = {"natsproto.moved": text, "natsproto.renaming": text}
            changed = replace(info, nuid=text) if field == "nuid" else replace(info, metadata=marks)
            take(references, changed)
        del info, changed, marks, text
        gc.collect()
        kept = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert kept < 500_000, f"{kept} bytes are kept of 20 metas"


def test_who_names_chunks() -> None:
    references, nuid = References(), new_nuid("a")
    subject = take(references, named("a", nuid))
    assert references.naming(nuid) == [subject]
    take(references, named("a", "*"))
    assert references.naming(nuid) == [subject], "until a consumer shows the newer meta"
    references = References()
    take(references, named("a", nuid))
    references.unread(InvalidMeta(subject, 5, MetaDecodeError("no JSON")), b"{")
    assert references.naming(nuid) == []
    assert references.named(nuid), "who wrote what cannot be read may need what it has superseded"
    take(references, named("b", "*"))
    references.unread(InvalidMeta(meta_subject("b", "b"), 6, MetaDecodeError("no JSON")), b"{")
    assert not references.may_name("*")


@pytest.mark.parametrize(("later", "reads"), [(2, 0), (5, 0), (6, 1)])
async def test_the_metas_that_follow_are_read_where_that_is_quicker(
    monkeypatch: pytest.MonkeyPatch, later: int, reads: int
) -> None:
    """Else one who writes all the time has the whole bucket read again for each orphan."""
    monkeypatch.setattr("objstore.commit.references.FEW", 2)
    server = MemoryServer()
    await server.bucket()
    for number in range(5 * AT_ONCE):
        server.put_raw(meta_subject("b", f"{number}"), b"no JSON")
    bucket = await bind(server.js, "b")
    references = References()
    await references.read_on(bucket)
    for number in range(later):
        server.put_raw(meta_subject("b", f"later {number}"), b"no JSON")
    server.asked.clear()
    await references.read_on(bucket)
    assert sum("subjects_filter" in body for _, body in server.asked) == reads
    assert len(references.unreadable) == 5 * AT_ONCE + later
    await server.client.close()


async def many_on_one_name(server: MemoryServer) -> str:
    """Store 301 metas of one name without roll-up, only the last but one readable; return its nuid."""
    await server.bucket()
    subject, nuid = meta_subject("b", "n"), new_nuid("n")
    for _ in range(299):
        server.put_raw(subject, b"{")
    server.put_raw(subject, encode_meta(named("n", nuid)))
    server.put_raw(subject, b"{")
    return nuid


async def test_many_metas_of_one_name_are_read_in_batches() -> None:
    """Who may write one name could else make all that removes chunks last as long as he likes."""
    server = MemoryServer()
    nuid = await many_on_one_name(server)
    bucket = await bind(server.js, "b")
    server.asked.clear()
    references = References()
    await references.read_on(bucket)
    assert references.named(nuid)
    assert len(server.asked) < 20
    await server.client.close()


async def test_batches_that_lack_the_newest_meta_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of a server that is behind, and has not removed some either: it has as many as the leader."""
    server = MemoryServer()
    nuid = await many_on_one_name(server)
    bucket = await bind(server.js, "b")
    stream = server.stream()
    before = dict(list(stream.messages.items())[:-2])
    stream.remove([1, 2])
    find = stream.find

    def behind(body: dict[str, Any]) -> list[Stored]:
        if "batch" not in body:
            return find(body)
        return [each for seq, each in before.items() if seq >= body.get("seq", 1)]

    monkeypatch.setattr(stream, "find", behind)
    references = References()
    await references.read_on(bucket)
    assert references.named(nuid)
    await server.client.close()
