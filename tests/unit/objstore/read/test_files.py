"""Objects into files: complete and verified, or not at all; continued where a beginning of ours lies."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from objstore import DigestMismatchError, IntegrityError, ObjectInfo, ObjectStore
from objstore.bucket.bucket import Bucket
from objstore.format.codec import encode_meta
from objstore.format.naming import meta_subject
from objstore.read import get as _get
from objstore.read.files import get_file
from support.memory_server import MemoryServer
from support.objects import part_file

DATA = bytes(range(256)) * 40
CHUNK = 1000


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_get, "RECHECK_DELAYS", (0.0, 0.0))


@pytest.fixture
async def info(store: ObjectStore) -> ObjectInfo:
    return await store.put("a", DATA, chunk_size=CHUNK)


async def fetch(bucket: Bucket, path: Path, name: str = "a", **options: Any) -> ObjectInfo:
    return await get_file(bucket, name, str(path), **{"verify": True, **options})


def begun(path: Path, info: ObjectInfo) -> Path:
    return part_file(path, info)


@pytest.mark.parametrize("resume", [False, True])
async def test_it_appears_whole(
    store: ObjectStore, bucket: Bucket, info: ObjectInfo, tmp_path: Path, resume: bool
) -> None:
    done: list[int] = []
    found = await fetch(bucket, tmp_path / "out", resume=resume, progress=lambda n, _: done.append(n))
    assert found.nuid == info.nuid
    assert (tmp_path / "out").read_bytes() == DATA
    assert os.listdir(tmp_path) == ["out"]
    assert done[-1] == len(DATA)
    await store.put("empty", b"")
    await fetch(bucket, tmp_path / "empty", "empty", resume=resume)
    assert (tmp_path / "empty").read_bytes() == b""


async def test_the_permissions_of_what_is_replaced(bucket: Bucket, info: ObjectInfo, tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_text("old")
    path.chmod(0o4640)
    await fetch(bucket, path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    umask = os.umask(0o027)
    try:
        await fetch(bucket, tmp_path / "new")
    finally:
        os.umask(umask)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640


async def test_a_link_is_replaced_itself(bucket: Bucket, info: ObjectInfo, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("stays")
    (tmp_path / "out").symlink_to(elsewhere)
    await fetch(bucket, tmp_path / "out")
    assert not (tmp_path / "out").is_symlink()
    assert elsewhere.read_text() == "stays"


async def test_targets_that_cannot_be(
    server: MemoryServer, bucket: Bucket, info: ObjectInfo, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe")
    server.verbs()
    for path, kind in (
        (tmp_path, IsADirectoryError),
        (tmp_path / "none" / "out", FileNotFoundError),
        (tmp_path / "pipe", OSError),
    ):
        with pytest.raises(kind):
            await fetch(bucket, path)
    assert server.verbs() == [], "known before anything is asked for"
    assert os.listdir(tmp_path) == ["pipe"]


@pytest.mark.parametrize("resume", [False, True])
async def test_wrong_bytes_leave_nothing(
    server: MemoryServer, bucket: Bucket, info: ObjectInfo, tmp_path: Path, resume: bool
) -> None:
    (tmp_path / "out").write_text("old")
    server.stream().of(f"$O.b.C.{info.nuid}")[5].payload = b"x" * CHUNK
    with pytest.raises(DigestMismatchError):
        await fetch(bucket, tmp_path / "out", resume=resume)
    assert os.listdir(tmp_path) == ["out"]
    assert (tmp_path / "out").read_text() == "old"


@pytest.mark.parametrize("resume", [False, True])
async def test_a_digest_that_is_no_text(
    server: MemoryServer, bucket: Bucket, info: ObjectInfo, tmp_path: Path, resume: bool
) -> None:
    """A writer has put half a character there, as JSON can."""
    document = {**json.loads(encode_meta(info)), "digest": "SHA-256=\ud800"}
    server.put_raw(meta_subject("b", "a"), json.dumps(document).encode())
    with pytest.raises(DigestMismatchError):
        await fetch(bucket, tmp_path / "out", resume=resume)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("have", [0, 1, CHUNK - 1, CHUNK, 3 * CHUNK + 7, len(DATA), len(DATA) + 50])
async def test_a_beginning_is_continued(
    server: MemoryServer, bucket: Bucket, info: ObjectInfo, tmp_path: Path, have: int
) -> None:
    """Whole chunks of it are hashed again, the rest is read."""
    path = tmp_path / "out"
    beginning = begun(path, info)
    beginning.write_bytes((DATA + bytes(100))[:have])
    beginning.chmod(0o600)
    await fetch(bucket, path, resume=True)
    assert path.read_bytes() == DATA
    assert os.listdir(tmp_path) == ["out"]


async def test_a_wrong_beginning_is_found_out(bucket: Bucket, info: ObjectInfo, tmp_path: Path) -> None:
    path = tmp_path / "out"
    begun(path, info).write_bytes(b"x" * 3 * CHUNK)
    with pytest.raises(IntegrityError):
        await fetch(bucket, path, resume=True)
    assert os.listdir(tmp_path) == [], "the next try begins anew"
    await fetch(bucket, path, resume=True)
    assert path.read_bytes() == DATA


async def test_a_failure_keeps_what_came(
    server: MemoryServer, store: ObjectStore, bucket: Bucket, info: ObjectInfo, tmp_path: Path
) -> None:
    path = tmp_path / "out"

    def stop(done: int, total: int | None) -> None:
        raise KeyError("of the application")

    with pytest.raises(KeyError):
        await fetch(bucket, path, resume=True, progress=stop, window=CHUNK)
    assert begun(path, info).stat().st_size >= CHUNK
    with pytest.raises(KeyError):
        await fetch(bucket, tmp_path / "other", progress=stop, window=CHUNK)
    assert os.listdir(tmp_path) == [begun(path, info).name]
    await fetch(bucket, path, resume=True)
    assert path.read_bytes() == DATA


async def test_only_a_file_of_ours_is_continued(bucket: Bucket, info: ObjectInfo, tmp_path: Path) -> None:
    """Whoever may write to the directory can have put it there, to read what we write into it."""
    path = tmp_path / "out"
    beginning = begun(path, info)
    beginning.write_bytes(DATA[:CHUNK])
    os.link(beginning, tmp_path / "second name")
    with pytest.raises(PermissionError, match="not this user's alone"):
        await fetch(bucket, path, resume=True)
    (tmp_path / "second name").unlink()
    beginning.unlink()
    beginning.symlink_to(tmp_path / "target")
    with pytest.raises(OSError):
        await fetch(bucket, path, resume=True)
    assert not (tmp_path / "target").exists()


async def test_long_names(bucket: Bucket, info: ObjectInfo, tmp_path: Path) -> None:
    """As long as the file system allows: what is added beside them has to fit."""
    names = ["x" * 255, "ä" * 127, "y" * 254]
    for name in names:
        await fetch(bucket, tmp_path / name)
        await fetch(bucket, tmp_path / name, resume=True)
    assert sorted(os.listdir(tmp_path)) == sorted(names)


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("name", ["out", "n" * 255])
async def test_in_an_open_directory(
    server: MemoryServer,
    bucket: Bucket,
    info: ObjectInfo,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    resume: bool,
) -> None:
    """By its descriptor, not by its path: another directory may have that meanwhile."""
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    (inside / name).write_text("old")
    (inside / name).chmod(0o640)
    monkeypatch.chdir(outside)
    directory = os.open(inside, os.O_RDONLY)
    try:
        os.rename(inside, tmp_path / "renamed")
        await fetch(bucket, Path(name), resume=resume, dir_fd=directory)
        server.stream().of(f"$O.b.C.{info.nuid}")[5].payload = b"x" * CHUNK
        with pytest.raises(DigestMismatchError):
            await fetch(bucket, Path("wrong"), resume=resume, dir_fd=directory)
    finally:
        os.close(directory)
    assert (tmp_path / "renamed" / name).read_bytes() == DATA
    assert stat.S_IMODE((tmp_path / "renamed" / name).stat().st_mode) == 0o640
    assert os.listdir(tmp_path / "renamed") == [name]
    assert os.listdir(outside) == []


@pytest.mark.parametrize("resume", [False, True])
async def test_what_is_filled_has_lost_its_name(
    bucket: Bucket, info: ObjectInfo, tmp_path: Path, resume: bool
) -> None:
    """Another file has the name of the one that was filled and verified: it does not become the target."""
    (tmp_path / "out").write_bytes(b"old")

    @contextmanager
    def replacing(itself: os.stat_result) -> Iterator[None]:
        (part,) = tmp_path.glob(".out.*.part")
        assert part.stat().st_ino == itself.st_ino
        part.with_name("other").write_bytes(b"other")
        os.replace(part.with_name("other"), part)
        yield

    with pytest.raises(FileExistsError, match="something else has replaced"):
        await fetch(bucket, tmp_path / "out", resume=resume, replacing=replacing)
    assert (tmp_path / "out").read_bytes() == b"old"
