"""The demo fails where what it has seen is not what it promised."""

from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path

import pytest

from objstore.cli.demo import Report, _compare
from objstore.cli.output import CommandError, Output

DATA = b"data of the demo"


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    for name in ("path", "copy"):
        (tmp_path / name).write_bytes(DATA)
    return str(tmp_path / "path"), str(tmp_path / "copy")


def test_the_same_bytes_and_their_digest(files: tuple[str, str]) -> None:
    _compare(*files, f"SHA-256={sha256(DATA).hexdigest()}")


def test_other_bytes(files: tuple[str, str]) -> None:
    Path(files[1]).write_bytes(DATA.upper())
    with pytest.raises(CommandError, match="differs") as caught:
        _compare(*files, f"SHA-256={sha256(DATA).hexdigest()}")
    assert caught.value.code == 7


def test_another_digest(files: tuple[str, str]) -> None:
    with pytest.raises(CommandError, match="digest") as caught:
        _compare(*files, f"SHA-256={sha256(b'').hexdigest()}")
    assert caught.value.code == 7


def test_a_server_that_is_left_behind(tmp_path: Path) -> None:
    report = Report(Output(json=True, quiet=False, progress=False))
    with pytest.raises(CommandError, match="left behind") as caught:
        report.cleaned_up(os.getpid(), str(tmp_path / "gone"))
    assert caught.value.code == 1
