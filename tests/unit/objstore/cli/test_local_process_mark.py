"""What tells the server of a command that died from a later process with its number: only it may be ended."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from objstore.cli.local import process_mark


def test_a_process_and_a_later_one() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        mark = process_mark(process.pid)
        assert mark
        assert process_mark(process.pid) == mark
    assert process_mark(process.pid) is None
    assert process_mark(0) is process_mark(1) is None


@pytest.mark.parametrize(
    ("told", "mark"),
    [
        ("Ss   Mon Nov 30 10:00:00 2026\n", "Mon Nov 30 10:00:00 2026"),
        ("S+   Mon Nov 30 10:00:01 2026\n", "Mon Nov 30 10:00:01 2026"),
        ("Z    Mon Nov 30 10:00:00 2026\n", None),
        ("", None),
        (None, None),
    ],
)
def test_where_there_is_no_proc(told: str | None, mark: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its start time, from ps; a process that nothing is known of is left alone."""

    def run(command: list[str], **options: Any) -> Any:
        assert command == ["ps", "-o", "stat=,lstart=", "-p", "4711"]
        if told is None:
            raise FileNotFoundError("ps")
        return SimpleNamespace(stdout=told)

    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(subprocess, "run", run)
    assert process_mark(4711) == mark
