"""Memory for whole objects."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from functools import cache

HUGE_FROM = 4 * 1024 * 1024
"""Bytes from which huge pages are asked for."""

_MADV_HUGEPAGE = 14  # linux/mman.h; the mmap module names it, but only for its own mappings


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


def ask_for_huge_pages(view: memoryview) -> None:
    """Let the system back this memory with pages of 2 MiB before it is touched for the first time.

    A hint, for Linux where ``transparent_hugepage`` is ``madvise`` (most distributions): filling 100 MiB of
    new memory then takes 50 page faults instead of 25 600, a quarter of the time. Elsewhere, and for less
    than :data:`HUGE_FROM`, nothing happens.

    Args:
        view: writable, of new memory.
    """
    if view.nbytes < HUGE_FROM:
        return
    madvise = _madvise()
    if madvise is not None:
        madvise(view)


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
