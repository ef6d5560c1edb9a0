"""Files on systems and file systems that do less than Linux does, or fail where it seldom does."""

from __future__ import annotations

import errno
import io
import os
import stat
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from objstore.format.assembly import Assembly
from objstore.format.models import ObjectInfo
from objstore.read import files


@pytest.fixture
def assembly() -> Assembly:
    return Assembly(ObjectInfo("a", None, None, 4, 1, "", False, datetime.now(UTC), "N", "b"), verify=False)


def refuse(*args: object, **kwargs: object) -> Any:
    raise OSError(errno.EACCES, os.strerror(errno.EACCES))


def test_a_file_system_that_does_not_tell_how_long_names_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "pathconf", refuse)
    name = os.path.basename(files._temporary(str(tmp_path / ("n" * 255)), "mark"))
    assert len(name) == files.NAME_MAX
    assert name.startswith(".n")
    assert name.endswith(".mark.part")


def test_a_system_that_does_not_tell_the_umask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "open", refuse, raising=False)
    before = os.umask(0o027)
    try:
        assert files._new_mode(str(tmp_path / ".x.part")) == 0o640
    finally:
        os.umask(before)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("step", ["open", "fsync"])
def test_a_directory_that_cannot_be_written_to_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """The file has its name all the same."""
    part = tmp_path / "part"
    done = getattr(os, step)

    def but_for_directories(what: Any, *args: Any, **kwargs: Any) -> Any:
        if stat.S_ISDIR((os.fstat if isinstance(what, int) else os.stat)(what).st_mode):
            refuse()
        return done(what, *args, **kwargs)

    with part.open("wb") as file:
        file.write(b"content")
        monkeypatch.setattr(os, step, but_for_directories)
        files._finish(file, str(part), str(tmp_path / "name"), 0o600)
    assert (tmp_path / "name").read_bytes() == b"content"
    assert not part.exists()


def test_a_file_that_is_cut_short_while_it_is_read(assembly: Assembly) -> None:
    with pytest.raises(OSError, match="cut short") as caught:
        files._hash_again(io.BytesIO(b"abc"), 4, assembly, threading.Event())
    assert caught.value.errno == errno.EIO


def test_a_reading_that_is_given_up(assembly: Assembly) -> None:
    given_up = threading.Event()
    given_up.set()
    file = io.BytesIO(b"abcd")
    files._hash_again(file, 4, assembly, given_up)
    assert file.tell() == 0
