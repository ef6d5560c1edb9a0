"""The commands that ``demo`` prints are the ones that work in the user's shell."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

import pytest

from objstore.cli import demo
from objstore.cli.output import Output


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "a dir" / "objstore"
    path.parent.mkdir()
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def first_step(capsys: pytest.CaptureFixture[str]) -> str:
    demo.Report(Output()).next_steps("some file")
    return capsys.readouterr().out.splitlines()[0].strip()


def test_found_by_the_shell(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], script: Path
) -> None:
    monkeypatch.setattr(sys, "argv", [str(script), "demo"])
    monkeypatch.setenv("PATH", str(script.parent))
    assert first_step(capsys) == "objstore --local objstore-data bucket add media"


def test_started_by_its_path(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], script: Path
) -> None:
    monkeypatch.setattr(sys, "argv", [str(script), "demo"])
    monkeypatch.setenv("PATH", "/nonexistent")
    assert shlex.split(first_step(capsys))[0] == str(script)


def test_started_as_a_module(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", [os.path.join("objstore", "__main__.py"), "demo"])
    assert shlex.split(first_step(capsys))[:3] == [sys.executable, "-m", "objstore"]
