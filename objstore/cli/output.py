"""The output of the command: data on standard output, everything else on standard error.

With ``--json``, what lists or streams prints one JSON document per line (:meth:`Output.record`), everything
else one document (:meth:`Output.document`); standard error gets one document per line: ``warning``, or
``error`` at the end.

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

    from objstore.cli.progress import Progress
    from objstore.format.models import ObjectInfo, ObjectStoreStatus

WIDEST = 80
"""Characters to which a column is aligned: a longer cell moves the rest of its own row only."""

SHORT = 1024
"""Characters that fit into whatever has room for any."""


class CommandError(Exception):
    """A failure of the command itself, with one line and the exit code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class ReaderStopped(Exception):
    """The reader of standard output has stopped: the command ends without a word, with the exit code."""

    def __init__(self, code: int = 0) -> None:
        super().__init__("the reader of the output has stopped")
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


def human_duration(age: timedelta) -> str:
    """Return a duration as options take it: ``1h30m``, ``7d``; the fraction of a second is left out."""
    left = int(age.total_seconds())
    parts = []
    for unit, seconds in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        number, left = divmod(left, seconds)
        if number:
            parts.append(f"{number}{unit}")
    return "".join(parts) or f"{age.total_seconds():g}s"


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
        "allow_direct": status.allow_direct,
        "allow_atomic": status.allow_atomic,
        "allow_msg_ttl": status.allow_msg_ttl,
        "metadata": dict(status.metadata),
    }
    if status.placement is not None:
        document["placement"] = {"cluster": status.placement.cluster, "tags": list(status.placement.tags)}
    if status.mirror is not None:
        document["mirror"] = {"bucket": status.mirror.bucket, "domain": status.mirror.domain}
    if status.sources:
        document["sources"] = [{"bucket": each.bucket, "domain": each.domain} for each in status.sources]
    if status.created is not None:
        from objstore.format.codec import format_rfc3339

        document["created"] = format_rfc3339(status.created)
    return document


class Output:
    """The output streams of one run, and how much to print.

    Standard output is held back until :meth:`deliver`: its reader may be slow, or read nothing at all. What
    lists or streams calls :meth:`flow` to show what there is so far.

    Args:
        json: standard output gets JSON, and standard error, too.
        quiet: standard error gets errors only.
        progress: whether progress may be shown at all.
    """

    def __init__(self, *, json: bool = False, quiet: bool = False, progress: bool = True) -> None:
        self._left_out = 0
        self.json = json
        self.quiet = quiet
        self._progress = progress and not quiet and not json
        self._shown: Progress | None = None
        self._held: list[str] = []
        for stream in (sys.stdout, sys.stderr):
            reconfigure = getattr(stream, "reconfigure", None)
            if reconfigure is not None:
                reconfigure(errors="backslashreplace")  # a narrow locale must not turn a name into an error

    # -- standard error ---------------------------------------------------------------------------

    def note(self, text: str) -> None:
        """Print a line for people, unless ``--quiet`` or ``--json``."""
        if self.json:
            self.end_progress()
        elif not self.quiet:
            self._say(text)

    def warn(self, text: str) -> None:
        """Print a warning, unless ``--quiet``."""
        if self.quiet:
            return
        if self.json:
            self._say_document({"warning": text})
        else:
            self._say(f"objstore: warning: {text}")

    def error(self, text: str, exc: BaseException | None = None, code: int | None = None) -> None:
        """Print the one line about a failure; with ``--json`` its kind and exit code, too."""
        if self.json:
            code = exc.code if code is None and isinstance(exc, CommandError) else code
            self._say_document({"error": text, "kind": type(exc).__name__, "exit_code": code})
        else:
            self._say(f"objstore: {text}")

    def _say(self, text: str) -> None:
        self.end_progress()
        say(printable(text) + "\n")

    def _say_document(self, document: dict[str, object]) -> None:
        import json

        self.end_progress()
        say(json.dumps(document) + "\n")

    def progress(self, label: str) -> Callable[[int, int | None], None] | None:
        """Return a progress callback for one transfer; ``None`` when no progress is shown."""
        whole = self.progress_of(label)
        return None if whole is None else whole.part()

    def progress_of(self, label: str, total: int | None = None) -> Progress | None:
        """Return the progress of a transfer of several files, with one bar for all of them.

        Args:
            total: bytes of all; ``None``: what its parts say.
        """
        if not self._progress or not is_terminal(sys.stderr):
            return None
        from .progress import Progress

        self.end_progress()
        self._shown = Progress(printable(label), total)
        return self._shown

    def end_progress(self) -> None:
        """Remove the progress line; the next step of the transfer shows it again."""
        if self._shown is not None:
            self._shown.hide()

    # -- standard output --------------------------------------------------------------------------

    def document(self, document: object) -> None:
        """Set the JSON document of this run."""
        import json

        self.end_progress()
        self._hold(json.dumps(document, indent=2, ensure_ascii=_only_ascii(sys.stdout)))

    def record(self, document: object) -> None:
        """Add one JSON document on a line of its own: NDJSON, for what lists or streams."""
        import json

        self._hold(json.dumps(document, ensure_ascii=_only_ascii(sys.stdout)))

    def lines(self, texts: Sequence[str], *, null: bool = False) -> None:
        """Add one text per line, or each followed by a NUL; raw unless standard output is a terminal.

        Then what contains one is left out, see :meth:`check_whole`: its reader would take it for two texts.
        """
        tame = is_terminal(sys.stdout)
        for text in texts:
            if null and "\0" in text:
                self._left_out += 1
                self.warn(f"{text!r} is left out: it contains a NUL. Use --json")
                continue
            self._hold(printable(text) if tame else text, "\0" if null else "\n")

    def check_whole(self, command: str) -> None:
        """Tell the caller of a list if something was left out of it.

        Raises:
            CommandError: exit code 1.
        """
        if self._left_out:
            names = "1 name" if self._left_out == 1 else f"{self._left_out} names"
            raise CommandError(f"{command}: {names} left out", 1)

    def table(
        self,
        head: Sequence[str] | None,
        rows: Sequence[Sequence[str]],
        *,
        right: Sequence[int] = (),
        widths: Sequence[int] = (),
    ) -> list[int]:
        """Add a table with a head; the columns in ``right`` are aligned to the right.

        A table that comes in parts has its head in the first one; the others are given its widths.

        Returns:
            The widths of the columns.
        """
        cells = [[printable(cell) for cell in row] for row in ([head] if head else []) + list(rows)]
        fitting = list(widths) or [min(max(map(len, column)), WIDEST) for column in zip(*cells, strict=True)]
        for row in cells:
            texts = (
                cell.rjust(width) if column in right else cell.ljust(width)
                for column, (cell, width) in enumerate(zip(row, fitting, strict=True))
            )
            self._hold("  ".join(texts).rstrip())
        return fitting

    def facts(self, facts: Sequence[tuple[str, str]]) -> None:
        """Add one name and value per line."""
        width = max(len(key) for key, _ in facts)
        for key, value in facts:
            self._hold(f"{key.rjust(width)}  {printable(value)}")

    def _hold(self, text: str, end: str = "\n") -> None:
        self._held.append(text + end)

    async def flow(self) -> None:
        """Write what is held so far, in a daemon thread: an interrupt must not need a reader to take effect.

        Raises:
            ReaderStopped: the reader has stopped.
            OSError: it cannot be written.
        """
        from objstore.bucket.threads import in_daemon

        text, self._held = "".join(self._held), []
        self.end_progress()
        if text and sys.stdout is not None:
            try:
                await in_daemon(lambda: _write_now(sys.stdout, text))
            except BrokenPipeError:
                silence(sys.stdout)
                raise ReaderStopped from None

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


def _write_now(stream: TextIO, text: str) -> None:
    """Write around Python's buffers: their locks would delay the end of a program that is interrupted."""
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError):  # not a file
        stream.write(text)
        return
    data = memoryview(text.encode(stream.encoding, stream.errors or "strict"))
    while data:
        data = data[os.write(descriptor, data) :]


@contextmanager
def interruptible(*, in_python: bool = True) -> Iterator[None]:
    """Let one interrupt end a block that waits for a person or a pipe.

    The handler of a running event loop only cancels the task, and the system call would continue to wait.

    Args:
        in_python: ``False`` where a C library waits, which goes on after any handler: the interrupt ends the
            process, so there must be nothing to put in order.
    """
    import signal
    import threading

    before = signal.getsignal(signal.SIGINT)
    if not callable(before) or threading.current_thread() is not threading.main_thread():
        yield  # the parent process has it ignored, or we may not handle it
        return
    signal.signal(signal.SIGINT, signal.default_int_handler if in_python else signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def say(text: str) -> None:
    """Write to standard error; a missing reader is not an error."""
    if sys.stderr is None:  # the parent process may have closed it
        return
    try:
        if len(text) < SHORT and _has_room(sys.stderr):
            _write(sys.stderr, text)  # an interrupt meanwhile ends what runs, not this
        else:
            with interruptible():
                _write(sys.stderr, text)
    except OSError:
        silence(sys.stderr)
    except KeyboardInterrupt:
        if not _has_room(sys.stderr):
            silence(sys.stderr)  # the line about the interrupt would wait, too
        raise


def _write(stream: TextIO, text: str) -> None:
    stream.write(text)
    stream.flush()


def _has_room(stream: TextIO) -> bool:
    """Whether a short text can be written there without waiting."""
    import select

    try:
        return bool(select.select([], [stream], [], 0)[1])
    except (OSError, ValueError):
        return False


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


def confirm(command: str, question: str, verb: str, otherwise: str) -> None:
    """Ask a person on a terminal; nobody else is ever asked.

    Args:
        verb: what ``-f`` does without asking.
        otherwise: what the error says after any answer but yes.

    Raises:
        CommandError: standard input is not a terminal (exit code 2), or the answer is no (1).
    """
    if not is_terminal(sys.stdin):
        raise CommandError(
            f"{command}: standard input is not a terminal: pass -f to {verb} without asking", 2
        )
    say(f"{printable(question)} [y/N] ")
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise CommandError(f"{command}: {otherwise}", 1)


def _only_ascii(stream: TextIO | None) -> bool:
    """Whether JSON for that stream is escaped: for people, and where UTF-8 cannot be written."""
    import codecs

    encoding = getattr(stream, "encoding", None) or "utf-8"
    return is_terminal(stream) or codecs.lookup(encoding).name != "utf-8"


def is_terminal(stream: TextIO | None) -> bool:
    """Whether the stream is a terminal; a closed or missing stream is not."""
    try:
        return stream is not None and stream.isatty()
    except ValueError:
        return False
