"""Progress on a terminal: a bar of ``tqdm`` if the extra ``progress`` is installed, else a plain line."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING

from .output import human_size, say

if TYPE_CHECKING:
    from tqdm import tqdm

PROGRESS_FROM = 1024 * 1024
"""Bytes above which a transfer shows its progress."""

PROGRESS_INTERVAL = 0.1
"""Seconds between two updates."""


class Progress:
    """The progress of a transfer, which may consist of parts: one bar or line for all of them.

    Args:
        label: shown before it, escaped.
        total: bytes of all parts; ``None``: what the parts say.
    """

    def __init__(self, label: str, total: int | None = None) -> None:
        self._label = label
        self._total = total
        self._said = 0  # bytes that the parts have promised
        self._done = 0
        self._start = self._last = monotonic()
        self._line: _Line | _Bar | None = None

    def part(self) -> Callable[[int, int | None], None]:
        """Return the callback of one more part: bytes done, and bytes of the part if known."""
        before = promised = 0

        def show(done: int, total: int | None) -> None:
            nonlocal before, promised
            self._done += done - before
            self._said += (total or 0) - promised
            before, promised = done, total or 0
            self._show(final=done == total)

        return show

    def _show(self, *, final: bool) -> None:
        now = monotonic()
        total = self._said if self._total is None else self._total
        total = total if total >= self._done else 0  # some part has not said how long it is
        if max(self._done, total) <= PROGRESS_FROM or (now - self._last < PROGRESS_INTERVAL and not final):
            return
        self._last = now
        if self._line is None:
            self._line = _line(self._label, self._start)
        self._line.show(self._done, total)

    def hide(self) -> None:
        """Remove the bar; the next step shows it again."""
        if self._line is not None:
            self._line.hide()
            self._line = None


def _line(label: str, start: float) -> _Line | _Bar:
    try:
        from tqdm import tqdm
    except ImportError:
        return _Line(label, start)
    import threading

    tqdm.set_lock(threading.RLock())  # its own one is for several processes
    tqdm.monitor_interval = 0  # no thread that looks after slow bars
    return _Bar(label, start)


class _Line:
    """One plain line that replaces itself."""

    def __init__(self, label: str, start: float) -> None:
        self._label = label
        self._start = start

    def show(self, done: int, total: int) -> None:
        of = f" of {human_size(total)} ({done * 100 // total} %)" if total else ""
        rate = human_size(int(done / max(monotonic() - self._start, 0.001)))
        say(f"\r\x1b[K{self._label}  {human_size(done)}{of}  {rate}/s")

    def hide(self) -> None:
        say("\r\x1b[K")


class _Bar:
    """A bar of tqdm, with rate and remaining time."""

    def __init__(self, label: str, start: float) -> None:
        self._label = label
        self._start = start
        self._bar: tqdm[None] | None = None

    def show(self, done: int, total: int) -> None:
        bar = self._bar
        if bar is None:
            from tqdm import tqdm

            bar = self._bar = tqdm(
                desc=self._label,
                total=total or None,
                unit="B",
                unit_scale=True,
                unit_divisor=1024,
                mininterval=0,
                miniters=0,
                leave=False,
                dynamic_ncols=_has_width(),
                file=_StandardError(),
            )
            bar.start_t -= monotonic() - self._start
        bar.total = total or None
        bar.n = done
        bar.refresh()

    def hide(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _has_width() -> bool:
    """Whether the terminal says how wide it is; tqdm shows nothing on one of no columns."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns > 0
    except (OSError, ValueError):
        return False


class _StandardError:
    """Standard error for tqdm: a terminal that is gone does not end the transfer."""

    def write(self, text: str) -> None:
        say(text)

    def flush(self) -> None:
        """Do nothing: :func:`say` has flushed."""

    def fileno(self) -> int:
        return sys.stderr.fileno()
