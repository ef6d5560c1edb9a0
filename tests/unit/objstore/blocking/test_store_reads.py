"""The verbs that read a bucket: each hands everything on to its twin."""

from __future__ import annotations

from pathlib import Path

import pytest

from objstore import ObjectDeletedError, ObjectTooLargeError
from objstore.sync import ObjectStore


@pytest.fixture
def filled(store: ObjectStore) -> ObjectStore:
    for name in ("a/1", "a/2", "b"):
        store.put(name, name.encode())
    store.put("gone", b"")
    store.delete("gone")
    return store


def test_read(filled: ObjectStore, tmp_path: Path) -> None:
    seen: list[int] = []
    found = filled.get("b", verify=False, progress=lambda done, total: seen.append(done), follow_links="none")
    assert (found, type(found), seen[-1]) == (b"b", bytes, 1)
    with pytest.raises(ObjectTooLargeError):
        filled.get("a/1", max_size=2)
    with pytest.raises(ValueError, match="window"):
        filled.get("a/1", window=0)
    assert filled.get_range("a/1", 1, 3) == b"/1"
    assert filled.get_file("a/1", tmp_path / "copy", resume=True).size == 3
    assert (tmp_path / "copy").read_bytes() == b"a/1"
    assert filled.get_info("gone", True).deleted
    with pytest.raises(ObjectDeletedError):
        filled.get_info("gone")
    assert (filled.exists("b"), filled.exists("gone")) == (True, False)


def test_listed(filled: ObjectStore) -> None:
    assert [info.name for info in filled.list(prefix="a")] == ["a/1", "a/2"]
    assert [info.name for info in filled.iter(include_deleted=True)] == ["a/1", "a/2", "b", "gone"]
    assert filled.names("a") == ["a/1", "a/2"]
    assert (filled.count(live=True), filled.count()) == (3, 4)
    assert filled.list_dirs().prefixes == ["a/"]


def test_the_bucket(filled: ObjectStore) -> None:
    assert filled.status().count == 3
    assert filled.verify(deep=True).ok


def test_callbacks_are_checked_at_once(filled: ObjectStore) -> None:
    async def wrong() -> None: ...

    for call in (filled.list, filled.iter, filled.watch):
        with pytest.raises(TypeError, match="plain function"):
            call(on_invalid=wrong)  # type: ignore[operator]
