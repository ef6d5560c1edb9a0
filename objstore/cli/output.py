"""The output of the command: data on standard output, everything else on standard error.

JSON documents use the field names of ADR-20. Sizes are bytes, ``ttl`` is nanoseconds (0: for ever) as in the
stream's configuration, times are RFC 3339, and ``digest`` is ``SHA-256=<hex>``, comparable to ``sha256sum``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from natsproto._values import printable

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from objstore.format.models import ObjectInfo, ObjectStoreStatus

PROGRESS_FROM = 1024 * 1024
"""Bytes above which a transfer shows its progress."""

PROGRESS_INTERVAL = 0.1
"""Seconds between two updates of the progress line."""


class CommandError(Exception):
    """A failure of the command itself, with one line and the exit code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def human_size(size: int) -> str:
    """Return a size as ``1.5 MiB``."""
    if size < 1024:
        return f"{size} B"
    value = float(size)
    for unit in ("KiB", "MiB", "GiB", "TiB", "PiB"):
        value /= 1024
        if value < 1023.95:
            return f"{value:.1f} {unit}"
    return f"{value:.1f} PiB"


def human_time(moment: datetime) -> str:
    """Return a time as ``2026-01-31 12:00:00Z``."""
    from datetime import UTC

    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def object_document(info: ObjectInfo) -> dict[str, object]:
    """Return the JSON document of an object."""
    from objstore.format.codec import format_rfc3339

    document: dict[str, object] = {"name": info.name}
    if info.description:
        document["description"] = info.description
    if info.headers:
        document["headers"] = info.headers.as_wire()
    if info.metadata:
        document["metadata"] = dict(info.metadata)
    if info.options is not None:
        link = info.options.link
        document["options"] = (
            {"max_chunk_size": info.options.max_chunk_size}
            if link is None
            else {"link": {"bucket": link.bucket, "name": link.name}}
        )
    document |= {
        "bucket": info.bucket,
        "nuid": info.nuid,
        "size": info.size,
        "mtime": format_rfc3339(info.mtime),
        "chunks": info.chunks,
        "digest": info.digest,
        "deleted": info.deleted,
        "revision": info.revision,
    }
    return document


def nanoseconds(age: timedelta | None) -> int:
    """Return a duration as the server writes it; ``None`` is 0."""
    from datetime import timedelta

    return 0 if age is None else age // timedelta(microseconds=1) * 1000


def status_document(status: ObjectStoreStatus) -> dict[str, object]:
    """Return the JSON document of a bucket."""
    document: dict[str, object] = {"bucket": status.bucket}
    if status.description:
        document["description"] = status.description
    document |= {
        "stream": status.stream,
        "ttl": nanoseconds(status.ttl),
        "max_bytes": status.max_bytes,
        "storage": status.storage,
        "num_replicas": status.replicas,
        "compression": status.compression,
        "sealed": status.sealed,
        "size": status.size,
        "count": status.count,
        "backing_store": status.backing_store,
        "metadata": dict(status.metadata),
    }
    if status.placement is not None:
        document["placement"] = {"cluster": status.placement.cluster, "tags": list(status.placement.tags)}
    return document


class Output:
    """The output streams of one run, and how much to print.

    Standard output is held back until :meth:`deliver`: its reader may be slow, or read nothing at all.

    Args:
        json: standard output gets one JSON document.
        quiet: standard error gets errors only.
        progress: whether a progress line may be shown at all.
    """

    def __init__(self, *, json: bool = False, quiet: bool = False, progress: bool = True) -> None:
        self.json = json
        self.quiet = quiet
        self._progress = progress and not quiet
        self._line_open = False
        self._held: list[str] = []
        for stream in (sys.stdout, sys.stderr):
            reconfigure = getattr(stream, "reconfigure", None)
            if reconfigure is not None:
                reconfigure(errors="backslashreplace")  # a narrow locale must not turn a name into an error

    # -- standard error ---------------------------------------------------------------------------

    def note(self, text: str) -> None:
        """Print a line for people, unless ``--quiet``."""
        if not self.quiet:
            self._say(text)

    def warn(self, text: str) -> None:
        """Print a warning, unless ``--quiet``."""
        if not self.quiet:
            self._say(f"objstore: warning: {text}")

    def error(self, text: str) -> None:
        """Print the one line about a failure."""
        self._say(f"objstore: {text}")

    def _say(self, text: str) -> None:
        self.end_progress()
        say(printable(text) + "\n")

    def progress(self, label: str) -> Callable[[int, int | None], None] | None:
        """Return a progress callback for a transfer; ``None`` when no progress line is shown."""
        if not self._progress or not is_terminal(sys.stderr):
            return None
        from time import monotonic

        label = printable(label)
        start = shown = monotonic()

        def show(done: int, total: int | None) -> None:
            nonlocal shown
            now = monotonic()
            if max(done, total or 0) <= PROGRESS_FROM or (now - shown < PROGRESS_INTERVAL and done != total):
                return
            shown = now
            of = f" of {human_size(total)} ({done * 100 // total} %)" if total else ""
            rate = human_size(int(done / max(now - start, 0.001)))
            say(f"\r\x1b[K{label}  {human_size(done)}{of}  {rate}/s")
            self._line_open = True

        return show

    def end_progress(self) -> None:
        """Remove the progress line."""
        if self._line_open:
            self._line_open = False
            say("\r\x1b[K")

    # -- standard output --------------------------------------------------------------------------

    def document(self, document: object) -> None:
        """Set the JSON document of this run."""
        import json

        self.end_progress()
        self._hold(json.dumps(document, indent=2, ensure_ascii=is_terminal(sys.stdout)))

    def lines(self, texts: Sequence[str], *, null: bool = False) -> None:
        """Add one text per line, or each followed by a NUL; raw unless standard output is a terminal."""
        tame = is_terminal(sys.stdout)
        for text in texts:
            self._hold(printable(text) if tame else text, "\0" if null else "\n")

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> None:
        """Add a table with a head; the columns in ``right`` are aligned to the right."""
        cells = [[printable(cell) for cell in row] for row in (head, *rows)]
        widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
        for row in cells:
            texts = (
                cell.rjust(width) if column in right else cell.ljust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            self._hold("  ".join(texts).rstrip())

    def facts(self, facts: Sequence[tuple[str, str]]) -> None:
        """Add one name and value per line."""
        width = max(len(key) for key, _ in facts)
        for key, value in facts:
            self._hold(f"{key.rjust(width)}  {printable(value)}")

    def _hold(self, text: str, end: str = "\n") -> None:
        self._held.append(text + end)

    def deliver(self) -> None:
        """Write the held output, outside of the event loop, so that an interrupt ends the write.

        Raises:
            OSError: it cannot be written; ``BrokenPipeError``: its reader has stopped.
        """
        text, self._held = "".join(self._held), []
        try:
            if sys.stdout is not None:  # the parent process may have closed it
                sys.stdout.write(text)
                sys.stdout.flush()
        except BaseException:
            silence(sys.stdout)
            raise


@contextmanager
def interruptible() -> Iterator[None]:
    """Let one interrupt end a block that waits for a person or a pipe.

    The handler of a running event loop only cancels the task, and the system call would continue to wait.
    """
    import signal
    import threading

    before = signal.getsignal(signal.SIGINT)
    if not callable(before) or threading.current_thread() is not threading.main_thread():
        yield  # the parent process has it ignored, or we may not handle it
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def say(text: str) -> None:
    """Write to standard error; a missing reader is not an error."""
    if sys.stderr is None:  # the parent process may have closed it
        return
    try:
        with interruptible():
            sys.stderr.write(text)
            sys.stderr.flush()
    except OSError:
        silence(sys.stderr)
    except KeyboardInterrupt:
        silence(sys.stderr)  # the line about the interrupt would wait, too
        raise


def silence(stream: TextIO | None) -> None:
    """Redirect a broken stream to the null device (the interpreter flushes it at its end)."""
    if stream is None:
        return
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
    except (OSError, ValueError):
        pass


def is_terminal(stream: TextIO | None) -> bool:
    """Whether the stream is a terminal; a closed or missing stream is not."""
    try:
        return stream is not None and stream.isatty()
    except ValueError:
        return False
