"""Memory that is written to in place and then is one ``bytes`` object.

The rule: nothing may depend on the order in which the garbage collector takes things apart. Whoever reads
into memory hands out views of it, to parsers, event loops and tracebacks, and any of them may end in a dead
cycle. So the views must be of memory whose owner has nothing to say when it goes. ``BytesIO.getbuffer()``
is none: collected before its views it raises ``BufferError`` where nobody can catch it, and CPython before
3.11.8 and 3.12.2 crashes. Use :class:`Room` instead.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from weakref import ref


class Room:
    """Zeroed memory of known size; large ones cost nothing until they are written to.

    Args:
        size: bytes.

    Attributes:
        view: the memory, writable. Slices of it may be handed out; they are valid for as long as they live.

    Raises:
        MemoryError: there is not enough.
    """

    __slots__ = ("_data", "_memory", "view")

    def __init__(self, size: int) -> None:
        self._data: bytes | None = None
        self._memory: Callable[[], object] = _gone
        # CPython shares its objects of no and of one byte: they are never written to.
        writable = _writable() if size > 1 else None
        if writable is None:
            self.view: memoryview = memoryview(bytearray(size))
        else:
            self._data = bytes(size)
            self.view = writable(self._data)
            self._memory = ref(self.view.obj)

    def getvalue(self) -> bytes:
        """Return the content, which no view can change any more. Ends :attr:`view`.

        Without a copy, as long as no slice is alive; else it costs one.
        """
        data = self._data
        if data is None:
            data = self._data = bytes(self.view)
        self.view.release()
        return data if self._memory() is None else bytes(memoryview(data))

    def release(self) -> None:
        """Give the memory back: at once, or when the last slice of it goes."""
        self.view.release()
        self._data = b""


def _gone() -> None:
    return None


@cache
def _writable() -> Callable[[bytes], memoryview] | None:
    """How to write to new ``bytes``; ``None`` where that cannot be done.

    The C API allows it, for an object that nobody else has seen yet (``PyBytes_AsString``). The memory's
    owner is an object of ctypes: it has no finalizer, does not mind its views, and keeps the ``bytes`` alive.
    """
    if sys.implementation.name != "cpython":
        return None
    try:
        import ctypes

        address = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object)(("PyBytes_AsString", ctypes.pythonapi))
    except (ImportError, OSError, AttributeError):  # a Python built without it
        return None

    class Memory(ctypes.Array[ctypes.c_char]):
        """Of any size: one class for all, since making one takes longer than a small read."""

        _type_ = ctypes.c_char
        _length_ = sys.maxsize  # never seen by anyone: the view is cut to size below
        __slots__ = ("__weakref__", "data")

        data: bytes

    def writable(data: bytes) -> memoryview:
        memory = Memory.from_address(address(data))
        memory.data = data
        with memoryview(memory) as endless, endless.cast("B") as flat:
            return flat[: len(data)]

    return writable
