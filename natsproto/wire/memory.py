"""Memory that is written to in place and then becomes one ``bytes`` object.

The rule: nothing may depend on the order in which the garbage collector finalizes objects. Code that reads
into memory hands out views of it, to parsers, event loops and tracebacks, and any of them may end in a
reference cycle. So the memory's owner must not have a finalizer that minds its views. The owner behind
``BytesIO.getbuffer()`` has one: collected before its views, it raises ``BufferError`` where nobody can
catch it, and CPython before 3.11.8 and 3.12.2 crashes. Use :class:`Room` instead.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from weakref import ref


class Room:
    """Zeroed memory of known size; a large one costs nothing until it is written to.

    Args:
        size: bytes.

    Attributes:
        view: the memory, writable. Slices of it may be handed out; they stay valid for as long as they live.

    Raises:
        MemoryError: there is not enough memory.
    """

    __slots__ = ("_data", "_memory", "view")

    def __init__(self, size: int) -> None:
        self._data: bytes | None = None
        self._memory: Callable[[], object] = _gone
        # CPython shares its bytes objects of length 0 and 1: they must never be written to.
        writable = _writable() if size > 1 else None
        if writable is None:
            self.view: memoryview = memoryview(bytearray(size))
        else:
            self._data = bytes(size)
            self.view = writable(self._data)
            self._memory = ref(self.view.obj)

    def getvalue(self) -> bytes:
        """Return the content, which no view can change any more. Releases :attr:`view`.

        Copies the content only if a slice of the view is still alive.
        """
        data = self._data
        if data is None:
            data = self._data = bytes(self.view)
        self.view.release()
        return data if self._memory() is None else bytes(memoryview(data))

    def release(self) -> None:
        """Free the memory: now, or when its last slice is gone."""
        self.view.release()
        self._data = b""


def _gone() -> None:
    return None


@cache
def _writable() -> Callable[[bytes], memoryview] | None:
    """Return a function that makes new ``bytes`` writable; ``None`` where that is impossible.

    The C API allows it for an object that nobody else has seen yet (``PyBytes_AsString``). The memory's
    owner is a ctypes object: it has no finalizer, does not mind its views, and keeps the ``bytes`` alive.
    """
    if sys.implementation.name != "cpython":
        return None
    try:
        import ctypes

        address = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object)(("PyBytes_AsString", ctypes.pythonapi))
    except (ImportError, OSError, AttributeError):  # a Python built without ctypes
        return None

    class Memory(ctypes.Array[ctypes.c_char]):
        """Memory of any size: one class for all, since creating a class takes longer than a small read."""

        _type_ = ctypes.c_char
        _length_ = sys.maxsize  # nobody sees it: the view is cut to size below
        __slots__ = ("__weakref__", "data")

        data: bytes

    def writable(data: bytes) -> memoryview:
        memory = Memory.from_address(address(data))
        memory.data = data
        with memoryview(memory) as endless, endless.cast("B") as flat:
            return flat[: len(data)]

    return writable
