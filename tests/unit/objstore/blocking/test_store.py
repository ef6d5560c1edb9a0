"""The verbs that change a bucket: each hands everything on to its twin."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from objstore import ObjectAlreadyExists, ObjectLink, ObjectMeta, RevisionConflictError
from objstore.sync import ObjectStore


def test_stored(store: ObjectStore, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    info = store.put(
        "a",
        b"12345",
        "description",
        "file.txt",
        {"H": ["1", "2"]},
        metadata={"k": "v"},
        chunk_size=2,
        if_revision=0,
        window=1 << 20,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert (info.description, info.filename, info.chunks) == ("description", "file.txt", 3)
    assert (info.metadata["k"], info.headers.get_all("H") if info.headers else None) == ("v", ["1", "2"])
    assert seen[-1] == (5, 5)
    with pytest.raises(ObjectAlreadyExists):
        store.create("a", b"")
    with pytest.raises(RevisionConflictError):
        store.put("a", b"", if_revision=0)
    assert store.create("b", iter([b"1", b"2"]), chunk_size=1).chunks == 2
    path = tmp_path / "source"
    path.write_bytes(b"file")
    assert store.put_file("c", path, headers={"A": "b"}, chunk_size=3).chunks == 2
    assert store.put("d", path).size == 4
    with path.open("rb") as file:
        assert store.put("e", file).size == 4


def test_changed(store: ObjectStore) -> None:
    info = store.put("a", b"1")
    assert store.update_meta("a", ObjectMeta("a", "new"), if_revision=info.revision).description == "new"
    assert store.rename("a", "b").name == "b"
    assert store.copy("b", "c", chunk_size=1).name == "c"
    assert store.add_link("l", ObjectLink("b", "c"), description="link").description == "link"
    assert store.get("l") == b"1"
    assert store.add_bucket_link("bl", "other").links == ["other"]
    assert store.delete("c", if_revision=store.get_info("c").revision)
    assert store.purge_deleted(timedelta(days=1)) == 0
    assert store.gc(older_than=timedelta(0), dry_run=True).orphans == []
    assert store.seal()


def test_handles(store: ObjectStore) -> None:
    assert store.bucket == "b"
    assert store.twin.bucket == "b"
    assert store.js.client is store.client
    patient = store.with_options(retry_budget=60)
    assert isinstance(patient, ObjectStore)
    assert patient.twin.bound_bucket.retry_budget == 60
    assert repr(store) == "<ObjectStore 'b'>"
