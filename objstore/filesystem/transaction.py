"""Transactions: the files of a block become visible at its end."""

from __future__ import annotations

import logging
from collections import deque
from threading import Lock
from typing import TYPE_CHECKING

from fsspec.transaction import Transaction

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .files import ObjectFile
    from .filesystem import NatsObjectFileSystem

log: logging.Logger = logging.getLogger("objstore.filesystem")


class WriteTransaction(Transaction):
    """The transaction of a file system, which always ends, whatever becomes of its files.

    fsspec's own one, before 2026.9, stays if a commit fails. File systems live as long as the process, and so
    nothing that they write afterwards would ever be stored.

    Attributes:
        files: those that were opened in it, or with ``autocommit=False``.
    """

    files: deque[ObjectFile]

    def __init__(self, fs: NatsObjectFileSystem) -> None:
        super().__init__(fs)
        self._begun = Lock()  # once, by one of the threads that share the file system

    def start(self) -> None:
        """Begin.

        Raises:
            RuntimeError: the file system is in a transaction, whose files would be lost.
        """
        if self.fs.transaction is not self or not self._begun.acquire(blocking=False):
            raise RuntimeError(
                "this file system is in a transaction already, perhaps of another thread: "
                "use another file system (skip_instance_cache=True)"
            )
        super().start()

    def complete(self, commit: bool = True) -> None:
        """End it: commit the files one after the other, or discard them all. Without effect at another time.

        If a commit fails, the files after it are discarded. A note in its error says how many.
        """
        if self.fs is None:
            return
        # What was closed with an error, or left by an exception, is discarded already.
        files = deque(file for file in self.files if file.is_waiting)
        self.files = deque()
        super().complete()  # first of all: the file system leaves the transaction
        total = len(files)
        try:
            while commit and files:
                files[0].commit()
                files.popleft()
        except BaseException as exc:
            if total > 1:
                after = len(files) - 1
                exc.add_note(
                    f"{files[0].path!r} failed: {total - after - 1} of {total} files of the transaction "
                    f"stored before it, {after} discarded after it"
                )
            raise
        finally:
            _discard(files)


def _discard(files: Iterable[ObjectFile]) -> None:
    for file in files:
        try:
            file.discard()
        except Exception as exc:  # the others are discarded nevertheless, and the first error counts
            log.warning("%r could not be discarded: %s", file.path, exc)
