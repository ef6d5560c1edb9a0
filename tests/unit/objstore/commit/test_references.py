"""What is kept of the metas that were read: no more of each than its subject and a nuid may have."""

from __future__ import annotations

import gc
import tracemalloc
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from objstore.commit.references import References
from objstore.format.codec import MetaDecodeError
from objstore.format.models import InvalidMeta, ObjectInfo, plain_info
from objstore.format.naming import meta_subject, new_nuid

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
