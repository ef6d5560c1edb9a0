"""Put chunks together again, and prove that they are the object (ADR-20, "Getting an Object").

Every read path ends here: the object is delivered when its size, its number of chunks and its SHA-256 all
agree with the meta message, and an error is raised otherwise.
"""

from __future__ import annotations

import hmac
import io
from collections import deque

from objstore.errors import DigestMismatchError, IntegrityError
from objstore.format.digest import hex_digest, new_hasher, parse_digest
from objstore.format.memory import ask_for_huge_pages
from objstore.format.models import ObjectInfo

SPILL = 4096
"""Bytes a receive call may bring beyond the payload it is for: the beginning of what comes next."""


class BytesTarget:
    """A destination of known size that becomes one ``bytes`` object without a second copy.

    ``BytesIO(bytes(n))`` takes over the only reference to lazily zeroed memory, ``getbuffer()`` writes into
    it, and ``getvalue()`` gives that very object back once no view of it is left.

    Args:
        size: bytes. The memory is reserved here: check it against a limit first.
    """

    __slots__ = ("_io", "_view", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self._reserve()

    def slot(self, offset: int, size: int) -> memoryview:
        """Return a writable view of ``size`` bytes at ``offset``.

        Raises:
            ValueError: the range is not within the target, or :meth:`getvalue` was called.
        """
        if offset < 0 or size < 0 or offset + size > self.size:
            raise ValueError(f"bytes {offset}..{offset + size} are outside of a target of {self.size} bytes")
        return self._view[offset : offset + size]

    def renew(self, keep: int) -> None:
        """Go on in other memory, with the first ``keep`` bytes: who still writes to a slot does no harm."""
        old = self._view
        self._reserve()
        self._view[:keep] = old[:keep]

    def _reserve(self) -> None:
        self._io = io.BytesIO(bytes(self.size))
        self._view = self._io.getbuffer()
        ask_for_huge_pages(self._view)

    def getvalue(self) -> bytes:
        """Return the content. A view of the target that is still alive costs one copy, nothing else."""
        self._view.release()
        return self._io.getvalue()


class Assembly:
    """Take the chunks of one object in order, count and hash them, and judge the result.

    Without a target the payloads are only checked, and the caller passes each on after :meth:`accept`. With
    one, every payload ends at its offset in the target, and :meth:`place` lets a parser receive payloads
    right where they belong. Parsers run ahead of the reader and place only large frames; a payload that turns
    out to lie too far left, because small ones came before it, is moved.

    Args:
        info: a live object that is not a link.
        verify: check the SHA-256. Size and number of chunks are checked in any case.
        target: where the whole object goes; its size must be ``info.size``.

    Raises:
        DigestMismatchError: ``verify`` and the meta message has no digest, or one of an unknown algorithm.
        ValueError: the target has another size.
    """

    __slots__ = (
        "_expected",
        "_hasher",
        "_moves",
        "_placed",
        "_target",
        "chunks",
        "empty_chunks",
        "info",
        "received",
    )

    def __init__(self, info: ObjectInfo, *, verify: bool = True, target: BytesTarget | None = None) -> None:
        if target is not None and target.size != info.size:
            raise ValueError(f"a target of {target.size} bytes for an object of {info.size} bytes")
        self.info = info
        self.received = 0
        self.chunks = 0
        self.empty_chunks = 0
        self._hasher = None
        self._expected = b""
        if verify:
            try:
                self._expected = parse_digest(info.digest)
            except ValueError as exc:
                raise DigestMismatchError(
                    f"object {info.name!r} cannot be verified: {exc}; verify=False reads it unverified",
                    bucket=info.bucket,
                    name=info.name,
                    expected=info.digest,
                ) from exc
            self._hasher = new_hasher()
        self._target = target
        # Slots handed out whose payload was not accepted yet: (offset, view), in order.
        self._placed: deque[tuple[int, memoryview]] = deque()
        # Accepted payloads that cannot be written to their offset before the slots after them were accepted:
        # (true offset, payload, whether it lies in the target).
        self._moves: list[tuple[int, bytes | bytearray | memoryview, bool]] = []

    def place(self, size: int) -> memoryview | None:
        """Return where the payload of the next large frame belongs, or ``None`` to have it delivered apart.

        Never raises. A view given out must come back, as the same object, as the payload of an
        :meth:`accept`, or be given up by :meth:`forget_places`.

        Args:
            size: length of the payload in bytes.
        """
        if self._target is None or self._moves or size <= 0:
            return None
        offset = self.received
        if self._placed:
            last, view = self._placed[-1]
            offset = last + len(view)
        if offset + size > self.info.size:
            return None
        slot = self._target.slot(offset, size)
        self._placed.append((offset, slot))
        return slot

    def place_with_room(self) -> memoryview | None:
        """Return the place given out last with up to :data:`SPILL` bytes behind it; ``None``: none are there.

        What is written there meanwhile is overwritten by what belongs there: nothing was accepted beyond it.
        """
        assert self._target is not None
        offset, slot = self._placed[-1]
        room = min(SPILL, self.info.size - offset - len(slot))
        return self._target.slot(offset, len(slot) + room) if room else None

    def forget_places(self) -> None:
        """Give up the slots whose payload will never be accepted (a consumer was recreated).

        Call it before anything is placed for the new consumer. The rest of a frame may still be received into
        such a slot, and what was accepted meanwhile may belong just there: it is kept somewhere else.
        """
        if self._placed and self._target is not None:
            self._target.renew(self._moves[0][0] if self._moves else self.received)
        self._settle()
        self._placed.clear()

    def accept(self, payload: bytes | bytearray | memoryview) -> None:
        """Take the next payload in stream order.

        Zero-length ones are counted apart and otherwise ignored: some writers end objects with one. A placed
        payload is used up: its view is released.

        Raises:
            IntegrityError: more bytes than the object has.
        """
        size = len(payload)
        if not size:
            self.empty_chunks += 1
            return
        offset = self.received
        if offset + size > self.info.size:
            raise self._error(f"more than {self.info.size} bytes are stored")
        if self._hasher is not None:
            self._hasher.update(payload)
        self.received = offset + size
        self.chunks += 1
        if self._target is not None:
            self._store(offset, payload)

    def _store(self, offset: int, payload: bytes | bytearray | memoryview) -> None:
        assert self._target is not None
        if self._is_placed(payload):
            at, view = self._placed.popleft()
            if at == offset and not self._moves:
                _release(view)
                return
            if at <= offset:
                self._moves.append((offset, view, True))
            else:
                # Behind the slot of a payload that was not accepted: its place may be another one's.
                self._moves.append((offset, bytes(view), False))
                _release(view)
        elif self._placed or self._moves:
            self._moves.append((offset, payload, False))
        else:
            with self._target.slot(offset, len(payload)) as slot:
                slot[:] = payload
            return
        if not self._placed:
            self._settle()
        elif self.received == self.info.size:
            self.forget_places()

    def _is_placed(self, payload: bytes | bytearray | memoryview) -> bool:
        """Whether the payload lies in the first slot; slots before it, never accepted, are given up."""
        if self._placed and self._placed[0][1] is payload:
            return True
        if not any(payload is view for _, view in self._placed):
            return False
        while self._placed[0][1] is not payload:
            self._placed.popleft()
        return True

    def _settle(self) -> None:
        """Move what was accepted but could not be written to its offset yet.

        Slots lie at or left of their true offset, in order and apart. So, from the last to the first, a move
        never touches the source of one still to come.
        """
        if self._target is None or not self._moves:
            return
        for offset, payload, _ in reversed(self._moves):
            with self._target.slot(offset, len(payload)) as slot:
                slot[:] = payload
        for _, payload, placed in self._moves:
            if placed and isinstance(payload, memoryview):
                _release(payload)
        self._moves.clear()

    @property
    def complete(self) -> bool:
        """Whether all bytes and all chunks the meta message counts are here; nothing more need be awaited.

        A trailing empty message that the writer did not count is not waited for.
        """
        return self.received == self.info.size and self.chunks + self.empty_chunks >= self.info.chunks

    def finish(self) -> None:
        """Judge what was accepted; call it when complete, or when no more messages will come.

        Raises:
            IntegrityError: bytes are missing, or the number of chunks is wrong.
            DigestMismatchError: the bytes are not those of the put.
        """
        info = self.info
        if self.received != info.size:
            raise self._error(
                f"{self.received} of {info.size} bytes are stored ({self.chunks} of {info.chunks} chunks)"
            )
        # Empty messages count for writers that counted them, and do not for those that did not.
        if not self.chunks <= info.chunks <= self.chunks + self.empty_chunks:
            raise self._error(f"{self.chunks} chunks are stored where the meta message counts {info.chunks}")
        if self._hasher is None:
            return
        actual = self._hasher.digest()
        if not hmac.compare_digest(actual, self._expected):
            raise DigestMismatchError(
                f"object {info.name!r} does not have the recorded digest",
                bucket=info.bucket,
                name=info.name,
                expected=info.digest,
                actual=hex_digest(actual),
            )

    def _error(self, what: str) -> IntegrityError:
        info = self.info
        return IntegrityError(f"object {info.name!r} is damaged: {what}", bucket=info.bucket, name=info.name)


def _release(view: memoryview) -> None:
    try:
        view.release()
    except BufferError:  # someone made a view of the view; the target then costs one copy
        pass
