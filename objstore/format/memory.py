"""Memory for whole objects, and payloads received right where they belong in it."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable
from functools import cache

from natsproto.wire.memory import Room

HUGE_FROM = 4 * 1024 * 1024
"""Bytes from which huge pages are asked for: one of 2 MiB fits in wherever they begin."""

STRETCH = 8 * 1024 * 1024
"""Bytes that huge pages are asked for at a time, as long as the system has them ready."""

SLOW = 0.001
"""CPU seconds for the first page of a stretch from which on it counts as slow. Zeroing one takes 0.3 ms; one
that a virtual machine has given back to its host meanwhile takes 5 ms, longer than 512 ordinary ones."""

PATIENCE = 3
"""Slow stretches after which ordinary pages do. Pages that were slow once are fast if they are used again
soon: reads in a row come to be fast, and one after a pause loses little."""

_MADV_HUGEPAGE = 14  # linux/mman.h; the mmap module names it, but only for its own mappings


SPILL = 4096
"""Bytes a receive call may bring beyond the payload it is for: the beginning of what comes next."""

Payload = bytes | bytearray | memoryview


class BytesTarget:
    """A destination of known size that becomes one ``bytes`` object without a second copy (:class:`Room`).

    Who makes one calls :meth:`release` when it is done, in a ``finally``: an error that somebody keeps then
    keeps no memory, whatever its traceback refers to.

    Args:
        size: bytes. Check them against a limit before :meth:`reserve`.
        clock: the CPU time of this thread, for memory whose slots are filled from the first to the last: huge
            pages are then asked for. Without one they are not.
    """

    __slots__ = ("_clock", "_patience", "_room", "_stretch", "_used", "_view", "size")

    def __init__(self, size: int, clock: Callable[[], float] | None = None) -> None:
        self.size: int = size
        self._clock = clock
        self._view: memoryview
        self._begin()

    def _begin(self) -> None:
        self._room: Room | None = None
        self._stretch = 0  # where the next one begins
        self._used = 0  # nothing was handed out from here on
        self._patience = PATIENCE

    def reserve(self) -> None:
        """Take the memory. The first :meth:`slot` does it, too, but may be called where nothing must fail.

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
        if offset >= self._stretch:
            self._begin_stretch(offset)
        if offset + size > self._used:
            self._used = offset + size
        return self._view[offset : offset + size]

    def renew(self, keep: int) -> None:
        """Go on in other memory, with the first ``keep`` bytes: who still writes to a slot does no harm."""
        new = Room(self.size)
        with self._view as old, old[:keep] as kept:
            self._begin()
            self._room, self._view = new, new.view
            with self.slot(0, keep) as slot:
                slot[:] = kept

    def _begin_stretch(self, offset: int) -> None:
        """Ask for huge pages from here on, and look how long the first one takes."""
        self.reserve()
        if offset + HUGE_FROM // 2 < self._used:
            return  # somebody's payload lies there
        clock = self._clock
        self._stretch = self.size + 1
        if clock is None or self.size - offset < HUGE_FROM:
            return
        with self._view[offset : offset + STRETCH] as stretch:
            if ask_for_huge_pages(stretch):
                before = clock()
                stretch[HUGE_FROM // 2] = 0
                self._patience -= clock() - before >= SLOW
                if self._patience:
                    self._stretch = offset + STRETCH

    def getvalue(self) -> bytes:
        """Return the content. A view of the target that is still alive costs one copy, nothing else."""
        self.reserve()
        assert self._room is not None
        return self._room.getvalue()

    def release(self) -> None:
        """Give the memory back, at once or with the last slot. Nothing but this may be called afterwards."""
        if self._room is not None:
            self._room.release()


def ask_for_huge_pages(view: memoryview) -> bool:
    """Let the system back this memory with pages of 2 MiB when it is touched for the first time.

    A hint, for Linux where ``transparent_hugepage`` is ``madvise`` (most distributions): filling 100 MiB of
    new memory then takes 50 page faults instead of 25 600, a quarter of the time. Elsewhere, and for less
    than :data:`HUGE_FROM`, nothing happens.

    Args:
        view: writable, of new memory.

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
    except (ImportError, OSError, AttributeError):  # a Python built without them
        return None
    function.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]

    def advise(view: memoryview) -> None:
        start = ctypes.addressof(ctypes.c_char.from_buffer(view))
        first = -(-start // PAGESIZE) * PAGESIZE  # whole pages only
        function(first, (start + view.nbytes) // PAGESIZE * PAGESIZE - first, _MADV_HUGEPAGE)

    return advise


class Places:
    """Payloads, one behind the other in a target, most of them received there.

    A parser runs ahead of the reader, asks for places of large frames only, and not all of those are taken
    in the end (one came twice). A payload that turns out to lie in a wrong place is moved.

    Args:
        target: where they go; together they must not have more bytes.

    Attributes:
        filled: bytes stored.
    """

    __slots__ = ("_moves", "_placed", "_target", "filled")

    def __init__(self, target: BytesTarget) -> None:
        self._target = target
        self.filled: int = 0
        # Slots handed out whose payload was not stored yet: (offset, view), in order.
        self._placed: deque[tuple[int, memoryview]] = deque()
        # Stored payloads that cannot be written to their offset before the slots after them were used:
        # (true offset, payload, whether it lies in the target).
        self._moves: list[tuple[int, Payload, bool]] = []

    def place(self, size: int) -> memoryview | None:
        """Return where the payload of the next large frame belongs, or ``None`` to have it delivered apart.

        Never raises once the target's memory is reserved. A view given out must come back, as the same
        object, to :meth:`store`, or be given up by :meth:`forget`.

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
        """Return the place given out last with up to :data:`SPILL` bytes behind it; ``None``: none are there.

        What is written there meanwhile is overwritten by what belongs there: nothing was stored beyond it.
        """
        offset, slot = self._placed[-1]
        room = min(SPILL, self._target.size - offset - len(slot))
        return self._target.slot(offset, len(slot) + room) if room else None

    def forget(self) -> None:
        """Give up the slots whose payload will never be stored (a consumer was recreated).

        Call it before anything is placed for what follows. The rest of a frame may still be received into
        such a slot, and what was stored meanwhile may belong just there: it is kept somewhere else.
        """
        if self._placed:
            self._target.renew(self._moves[0][0] if self._moves else self.filled)
        self._settle()
        self._placed.clear()

    def store(self, payload: Payload) -> None:
        """Take the next payload, which fits; a placed one is used up: its view is released."""
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
                # Behind the slot of a payload that was not stored: its place may be another one's.
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
        """Let go of the target, its memory and every slot, also of those that never came back.

        Their views are dropped, not released: a parser may still be receiving into one.
        """
        self._placed.clear()
        self._moves.clear()
        self._target.release()

    def _is_placed(self, payload: Payload) -> bool:
        """Whether the payload lies in the first slot; slots before it, never stored, are given up."""
        if self._placed and self._placed[0][1] is payload:
            return True
        if not any(payload is view for _, view in self._placed):
            return False
        while self._placed[0][1] is not payload:
            self._placed.popleft()
        return True

    def _settle(self) -> None:
        """Move what was stored but could not be written to its offset yet.

        Slots lie at or left of their true offset, in order and apart. So, from the last to the first, a move
        never touches the source of one still to come.
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
    except BufferError:  # someone made a view of the view; the target then costs one copy
        pass
