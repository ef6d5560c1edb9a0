"""Memory for whole objects; payloads are received directly at their offset in it."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable
from functools import cache

from natsproto.wire.memory import Room

HUGE_FROM = 4 * 1024 * 1024
"""Bytes from which huge pages are requested: a page of 2 MiB fits in, wherever the memory begins."""

REGION = 8 * 1024 * 1024
"""Bytes for which huge pages are requested at a time, while the system provides them quickly."""

SLOW_PAGE = 0.001
"""CPU seconds: a first page that takes longer marks its region as slow. Zeroing a huge page takes 0.3 ms; one
that a virtual machine has returned to its host takes 5 ms, longer than 512 ordinary pages."""

SLOW_REGIONS = 3
"""Slow regions after which no more huge pages are requested. Pages that were slow once are fast if they are
used again soon: consecutive reads become fast, and a read after a pause loses little."""

_MADV_HUGEPAGE = 14  # linux/mman.h; the mmap module has it, but only for its own mappings


SPILL = 4096
"""Bytes a receive call may read beyond the payload: the beginning of the next frame."""

Payload = bytes | bytearray | memoryview


class BytesTarget:
    """A destination of known size that becomes one ``bytes`` object without a second copy (:class:`Room`).

    Its creator calls :meth:`release` in a ``finally``: an error that someone keeps then keeps no memory,
    whatever its traceback refers to.

    Args:
        size: bytes. Check them against a limit before :meth:`reserve`.
        clock: returns the CPU time of this thread. Give it for memory whose slots are filled in order: only
            then are huge pages requested.
    """

    __slots__ = ("_clock", "_next_region", "_room", "_slow_left", "_used", "_view", "size")

    def __init__(self, size: int, clock: Callable[[], float] | None = None) -> None:
        self.size: int = size
        self._clock = clock
        self._view: memoryview
        self._begin()

    def _begin(self) -> None:
        self._room: Room | None = None
        self._next_region = 0  # where the next one begins
        self._used = 0  # nothing was handed out from here on
        self._slow_left = SLOW_REGIONS

    def reserve(self) -> None:
        """Allocate the memory. The first :meth:`slot` does it, too, but may run where nothing may fail.

        Raises:
            MemoryError: there is not enough.
        """
        if self._room is None:
            self._room = Room(self.size)
            self._view = self._room.view

    def slot(self, offset: int, size: int) -> memoryview:
        """Return a writable view of ``size`` bytes at ``offset``.

        Raises:
            ValueError: the range is not within the target, or :meth:`getvalue` was called.
            MemoryError: as :meth:`reserve`.
        """
        if offset < 0 or size < 0 or offset + size > self.size:
            raise ValueError(f"bytes {offset}..{offset + size} are outside of a target of {self.size} bytes")
        if offset >= self._next_region:
            self._begin_region(offset)
        if offset + size > self._used:
            self._used = offset + size
        return self._view[offset : offset + size]

    def renew(self, keep: int) -> None:
        """Move the first ``keep`` bytes to new memory: late writes to an old slot then do no harm."""
        new = Room(self.size)
        with self._view as old, old[:keep] as kept:
            self._begin()
            self._room, self._view = new, new.view
            with self.slot(0, keep) as slot:
                slot[:] = kept

    def _begin_region(self, offset: int) -> None:
        """Request huge pages from ``offset`` on, and measure how long the first one takes."""
        self.reserve()
        if offset + HUGE_FROM // 2 < self._used:
            return  # a payload lies there
        clock = self._clock
        self._next_region = self.size + 1
        if clock is None or self.size - offset < HUGE_FROM:
            return
        with self._view[offset : offset + REGION] as region:
            if ask_for_huge_pages(region):
                before = clock()
                region[HUGE_FROM // 2] = 0
                self._slow_left -= clock() - before >= SLOW_PAGE
                if self._slow_left:
                    self._next_region = offset + REGION

    def getvalue(self) -> bytes:
        """Return the content. If a view of the target is still alive, this costs one copy."""
        self.reserve()
        assert self._room is not None
        return self._room.getvalue()

    def release(self) -> None:
        """Free the memory, at once or with the last slot. Only this method may be called afterwards."""
        if self._room is not None:
            self._room.release()


def ask_for_huge_pages(view: memoryview) -> bool:
    """Ask the system to back this memory with pages of 2 MiB when it is first touched.

    This is a hint for Linux where ``transparent_hugepage`` is ``madvise`` (most distributions): filling
    100 MiB of new memory then takes 50 page faults instead of 25 600, and a quarter of the time. Elsewhere,
    and below :data:`HUGE_FROM`, nothing happens.

    Args:
        view: a writable view of new memory.

    Returns:
        Whether the system was asked.
    """
    madvise = _madvise() if view.nbytes >= HUGE_FROM else None
    if madvise is None:
        return False
    madvise(view)
    return True


@cache
def _madvise() -> Callable[[memoryview], None] | None:
    if sys.platform != "linux":
        return None
    try:
        import ctypes
        from mmap import PAGESIZE

        function = ctypes.CDLL(None).madvise
    except (ImportError, OSError, AttributeError):  # this Python was built without them
        return None
    function.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]

    def advise(view: memoryview) -> None:
        start = ctypes.addressof(ctypes.c_char.from_buffer(view))
        first = -(-start // PAGESIZE) * PAGESIZE  # whole pages only
        function(first, (start + view.nbytes) // PAGESIZE * PAGESIZE - first, _MADV_HUGEPAGE)

    return advise


class Places:
    """Store payloads one after the other in a target; most of them are received there.

    The parser runs ahead of the reader and asks for destinations of large frames only. Some of these frames
    are never stored (duplicates). A payload that turns out to lie at the wrong offset is moved.

    Args:
        target: where the payloads go; together they must fit.

    Attributes:
        filled: bytes stored.
    """

    __slots__ = ("_moves", "_placed", "_target", "filled")

    def __init__(self, target: BytesTarget) -> None:
        self._target = target
        self.filled: int = 0
        # Slots handed out whose payload is not stored yet: (offset, view), in order.
        self._placed: deque[tuple[int, memoryview]] = deque()
        # Stored payloads that must wait for the slots after them before they go to their offset:
        # (true offset, payload, whether it lies in the target).
        self._moves: list[tuple[int, Payload, bool]] = []

    def place(self, size: int) -> memoryview | None:
        """Return the destination of the next large payload, or ``None`` to have it delivered separately.

        Never raises once the target's memory is reserved. The same view object must come back to
        :meth:`store`, or be given up by :meth:`forget`.

        Args:
            size: length of the payload in bytes.
        """
        if self._moves or size <= 0:
            return None
        offset = self.filled
        if self._placed:
            last, view = self._placed[-1]
            offset = last + len(view)
        if offset + size > self._target.size:
            return None
        slot = self._target.slot(offset, size)
        self._placed.append((offset, slot))
        return slot

    def place_with_room(self) -> memoryview | None:
        """Return the last destination with up to :data:`SPILL` bytes of slack; ``None`` without slack.

        Nothing is stored in the slack yet: later payloads overwrite what is written there.
        """
        offset, slot = self._placed[-1]
        room = min(SPILL, self._target.size - offset - len(slot))
        return self._target.slot(offset, len(slot) + room) if room else None

    def forget(self) -> None:
        """Give up the slots whose payload will never be stored (a consumer was recreated).

        Call it before the next :meth:`place`. The rest of a frame may still be received into such a slot, and
        later payloads may belong at the same offset: so the stored bytes move to new memory.
        """
        if self._placed:
            self._target.renew(self._moves[0][0] if self._moves else self.filled)
        self._settle()
        self._placed.clear()

    def store(self, payload: Payload) -> None:
        """Store the next payload, which must fit; the view of a placed one is released."""
        offset = self.filled
        self.filled = offset + len(payload)
        if self._is_placed(payload):
            at, view = self._placed.popleft()
            if at == offset and not self._moves:
                _release(view)
                return
            if at <= offset:
                self._moves.append((offset, view, True))
            else:
                # It lies behind the slot of a payload that was not stored: other bytes may belong there.
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
        elif self.filled == self._target.size:
            self.forget()

    def release(self) -> None:
        """Release the target, its memory and every slot, including slots whose payload never came.

        The views are dropped, not released: a parser may still be receiving into one.
        """
        self._placed.clear()
        self._moves.clear()
        self._target.release()

    def _is_placed(self, payload: Payload) -> bool:
        """Whether the payload lies in a slot; slots before it, whose payload never came, are given up."""
        if self._placed and self._placed[0][1] is payload:
            return True
        if not any(payload is view for _, view in self._placed):
            return False
        while self._placed[0][1] is not payload:
            self._placed.popleft()
        return True

    def _settle(self) -> None:
        """Move the stored payloads that could not be written to their offset before.

        Slots lie at or left of their true offset, in order, and do not overlap. So, from the last to the
        first, a move never overwrites the source of a later move.
        """
        for offset, payload, _ in reversed(self._moves):
            with self._target.slot(offset, len(payload)) as slot:
                slot[:] = payload
        for _, payload, placed in self._moves:
            if placed and isinstance(payload, memoryview):
                _release(payload)
        self._moves.clear()


def _release(view: memoryview) -> None:
    try:
        view.release()
    except BufferError:  # a view of the view exists; getvalue() then costs one copy
        pass
