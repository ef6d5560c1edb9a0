"""Receive payloads right where they belong, although what comes may not be what is taken."""

from __future__ import annotations

from collections import deque

from objstore.format.memory import BytesTarget

SPILL = 4096
"""Bytes a receive call may bring beyond the payload it is for: the beginning of what comes next."""

Payload = bytes | bytearray | memoryview


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
        self.filled = 0
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
