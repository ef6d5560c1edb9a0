"""Progress on a terminal: a plain line without tqdm, a bar with it, one for all parts."""

from __future__ import annotations

import io
import sys
from importlib.util import find_spec

import pytest

from objstore.cli import progress
from objstore.cli.output import Output
from objstore.cli.progress import Progress
from support.skips import left_out

MIB = 1 << 20


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def attached(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Make standard error a terminal. (No fixture: pytest replaces the stream after those.)"""
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    return stream


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tqdm", None)


def test_small_transfers_show_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = attached(monkeypatch)
    show = Progress("x").part()
    show(MIB, MIB)
    assert terminal.getvalue() == ""


@pytest.mark.usefixtures("plain")
def test_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = attached(monkeypatch)
    whole = Progress("name")
    whole.part()(2 * MIB, 2 * MIB)
    assert "name  2.0 MiB of 2.0 MiB (100 %)" in terminal.getvalue()
    whole.hide()
    assert terminal.getvalue().endswith("\r\x1b[K")
    before = terminal.getvalue()
    whole.hide()
    assert terminal.getvalue() == before


@pytest.mark.usefixtures("plain")
def test_several_parts_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = attached(monkeypatch)
    monkeypatch.setattr(progress, "PROGRESS_INTERVAL", 0.0)
    whole = Progress("all", 8 * MIB)
    one, two = whole.part(), whole.part()
    one(2 * MIB, 4 * MIB)
    two(4 * MIB, 4 * MIB)
    assert "all  6.0 MiB of 8.0 MiB (75 %)" in terminal.getvalue()
    one(0, 4 * MIB)  # it starts over
    assert "all  4.0 MiB of 8.0 MiB (50 %)" in terminal.getvalue()


@pytest.mark.usefixtures("plain")
def test_parts_say_how_long_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = attached(monkeypatch)
    monkeypatch.setattr(progress, "PROGRESS_INTERVAL", 0.0)
    whole = Progress("all")
    whole.part()(2 * MIB, 2 * MIB)
    two = whole.part()
    two(MIB, None)
    assert "all  3.0 MiB of 2.0 MiB" not in terminal.getvalue()
    two(MIB, 6 * MIB)
    assert "all  3.0 MiB of 8.0 MiB (37 %)" in terminal.getvalue()


def test_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = attached(monkeypatch)
    if find_spec("tqdm") is None:
        left_out("tqdm is in the extra 'progress'")
    monkeypatch.setattr(progress, "PROGRESS_INTERVAL", 0.0)
    whole = Progress("name")
    show = whole.part()
    show(2 * MIB, 8 * MIB)
    show(4 * MIB, 8 * MIB)
    text = terminal.getvalue()
    assert "name:  25%" in text
    assert "name:  50%" in text
    assert "4.00M/8.00M" in text
    assert "B/s" in text
    whole.hide()
    assert terminal.getvalue().endswith("\r")
    show(8 * MIB, 8 * MIB)
    assert "name: 100%" in terminal.getvalue()
    whole.hide()


def test_a_message_stands_above_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = attached(monkeypatch)
    out = Output()
    show = out.progress("name")
    assert show is not None
    show(2 * MIB, 2 * MIB)
    out.note("done")
    assert terminal.getvalue().endswith("done\n")
