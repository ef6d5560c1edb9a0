"""Check that received chunks are the whole object (ADR-20, "Getting an Object").

Every read path ends here: the object is delivered when its size, its number of chunks and its SHA-256 all
match the meta message; otherwise an error is raised.
"""

from __future__ import annotations

import hmac

from objstore.errors import DigestMismatchError, IntegrityError
from objstore.format.digest import hex_digest, new_hasher, parse_digest
from objstore.format.models import ObjectInfo


class Unfit(Exception):
    """A chunk is not the expected one; the reader then tries another way."""


def expected_digest(info: ObjectInfo) -> bytes:
    """Return the 32 bytes of the recorded digest.

    Raises:
        DigestMismatchError: the meta message has no digest of a known algorithm.
    """
    try:
        return parse_digest(info.digest)
    except ValueError as exc:
        raise DigestMismatchError(
            f"object {info.name!r} cannot be verified: {exc}; verify=False reads it unverified",
            bucket=info.bucket,
            name=info.name,
            expected=info.digest,
        ) from exc


def check_digest(info: ObjectInfo, expected: bytes, actual: bytes) -> None:
    """Compare the digest of the whole object with the recorded one.

    Raises:
        DigestMismatchError: the bytes differ from those of the put.
    """
    if not hmac.compare_digest(actual, expected):
        raise DigestMismatchError(
            f"object {info.name!r} does not have the recorded digest",
            bucket=info.bucket,
            name=info.name,
            expected=info.digest,
            actual=hex_digest(actual),
        )


class Assembly:
    """Take the chunks of one object in order, count and hash them, and check the result.

    The payloads are only checked: after :meth:`accept` the caller keeps each one, or passes it on.

    Args:
        info: a live object that is not a link.
        verify: check the SHA-256. Size and number of chunks are always checked.

    Raises:
        DigestMismatchError: ``verify`` is set, and the meta message has no digest of a known algorithm.
    """

    __slots__ = (
        "_expected",
        "_hasher",
        "chunks",
        "empty_chunks",
        "info",
        "received",
    )

    def __init__(self, info: ObjectInfo, *, verify: bool = True) -> None:
        self.info: ObjectInfo = info
        self.received: int = 0
        self.chunks: int = 0
        self.empty_chunks: int = 0
        self._hasher = None
        self._expected = b""
        if verify:
            self._expected = expected_digest(info)
            self._hasher = new_hasher()

    def accept(self, payload: bytes | bytearray | memoryview) -> None:
        """Take the next payload in stream order.

        Empty payloads are counted separately and otherwise ignored: some writers end objects with one.

        Raises:
            IntegrityError: more bytes, or more messages, than the object has.
        """
        size = len(payload)
        if not size:
            self.empty_chunks += 1
            if self.chunks + self.empty_chunks > self.info.chunks + 1:
                raise self._error(f"more than {self.info.chunks} chunks are stored")
            return
        offset = self.received
        if offset + size > self.info.size:
            raise self._error(f"more than {self.info.size} bytes are stored")
        if self._hasher is not None:
            self._hasher.update(payload)
        self.received = offset + size
        self.chunks += 1

    def accept_run(self, payload: bytes | bytearray | memoryview, chunks: int, empty: int = 0) -> None:
        """Take bytes of the object that are not split into its chunks.

        Args:
            payload: the next bytes.
            chunks: how many non-empty chunks end in these bytes.
            empty: how many empty chunks end in these bytes.

        Raises:
            IntegrityError: as :meth:`accept`.
        """
        if self.received + len(payload) > self.info.size:
            raise self._error(f"more than {self.info.size} bytes are stored")
        if self._hasher is not None:
            self._hasher.update(payload)
        self.received += len(payload)
        self.chunks += chunks
        self.empty_chunks += empty

    @property
    def complete(self) -> bool:
        """Whether all bytes and chunks that the meta message counts have arrived.

        An uncounted empty message at the end is not waited for.
        """
        return self.received == self.info.size and self.chunks + self.empty_chunks >= self.info.chunks

    def finish(self) -> None:
        """Check what was accepted; call it when complete, or when no more messages will come.

        Raises:
            IntegrityError: bytes are missing, or the number of chunks is wrong.
            DigestMismatchError: the bytes differ from those of the put.
        """
        info = self.info
        if self.received != info.size:
            raise self._error(
                f"{self.received} of {info.size} bytes are stored ({self.chunks} of {info.chunks} chunks)"
            )
        # Some writers count empty messages, others do not.
        if not self.chunks <= info.chunks <= self.chunks + self.empty_chunks:
            raise self._error(f"{self.chunks} chunks are stored where the meta message counts {info.chunks}")
        if self._hasher is not None:
            check_digest(info, self._expected, self._hasher.digest())

    def _error(self, what: str) -> IntegrityError:
        info = self.info
        return IntegrityError(f"object {info.name!r} is damaged: {what}", bucket=info.bucket, name=info.name)
