"""Split any source of buffers into chunks of one size (ADR-20, "Chunking").

Every chunk but the last has exactly the recorded size, whatever pieces the source gives: only then does a
chunk's index times the chunk size give its offset.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from objstore.errors import BadObjectMetaError
from objstore.format.models import ObjectMetaOptions
from objstore.format.naming import DEFAULT_CHUNK_SIZE, MAX_CHUNK_SIZE


def resolve_chunk_size(
    explicit: int | None, max_payload: int, whose: str = "the server's max_payload"
) -> int:
    """Return the chunk size in bytes to write with.

    Args:
        explicit: the size the caller asked for; ``None`` means 128 KiB, clamped to ``max_payload``.
        max_payload: the server's limit in bytes; less what the headers of a chunk take.
            0 or less means that no limit is known.
        whose: the name of that limit, for the error.

    Raises:
        BadObjectMetaError: the explicit size is not an ``int``, not positive, above 1 MiB, or above
            ``max_payload``.
    """
    if explicit is None:
        return min(DEFAULT_CHUNK_SIZE, max_payload) if max_payload > 0 else DEFAULT_CHUNK_SIZE
    if not isinstance(explicit, int) or isinstance(explicit, bool):
        raise BadObjectMetaError(f"the chunk size is an int, not {type(explicit).__name__}")
    if explicit <= 0:
        raise BadObjectMetaError(f"the chunk size must be positive, got {explicit}")
    if explicit > MAX_CHUNK_SIZE:
        raise BadObjectMetaError(f"the chunk size must not be above {MAX_CHUNK_SIZE}, got {explicit}")
    if 0 < max_payload < explicit:
        raise BadObjectMetaError(f"the chunk size {explicit} is above {whose}: {max_payload}")
    return explicit


def requested_chunk_size(options: ObjectMetaOptions | None) -> int | None:
    """Return the chunk size a caller's options ask for, ``None`` when they leave it at the default.

    ``chunk_size`` overrides ``max_chunk_size``; the latter's default is not a request.
    """
    if options is None:
        return None
    if options.chunk_size is not None:
        return options.chunk_size
    return None if options.max_chunk_size == DEFAULT_CHUNK_SIZE else options.max_chunk_size


class Chunker:
    """Turn pieces of any size into chunks of exactly ``chunk_size`` bytes, except the last one.

    Large pieces are split without copying: their chunks are views of the caller's buffer, which must not
    change (and, being exported, cannot be resized) until the put has returned. Pieces that do not line up are
    gathered in new buffers; a buffer that was handed out is never written again.

    Args:
        chunk_size: bytes, as :func:`resolve_chunk_size` returned it.
        copy: copy every piece that is not ``bytes``, for sources that reuse their buffer.
    """

    __slots__ = ("_chunk_size", "_copy", "_filled", "_held", "_owned")

    def __init__(self, chunk_size: int, *, copy: bool = False) -> None:
        if chunk_size <= 0:
            raise BadObjectMetaError(f"the chunk size must be positive, got {chunk_size}")
        self._chunk_size = chunk_size
        self._copy = copy
        # Bytes that do not fill a chunk yet: a view of the caller's piece while they come from one piece, our
        # own buffer of chunk_size bytes once a second piece is added.
        self._held: memoryview | None = None
        self._filled = 0
        self._owned = False

    @property
    def held(self) -> int:
        """Bytes received that are not part of a chunk yet; always below the chunk size."""
        return self._filled

    def push(self, piece: bytes | bytearray | memoryview) -> Iterable[memoryview]:
        """Take one piece and return the chunks it completes, in order.

        The whole piece is taken in before this returns. The caller may iterate the chunks once, at any time;
        they precede the chunks of later pushes.

        Args:
            piece: any bytes-like object of any size, 0 included.

        Raises:
            TypeError: the piece is not a bytes-like object; for ``str`` the message names the alternatives.
        """
        if isinstance(piece, str):
            raise TypeError(
                "data must be bytes-like, not str: encode text with .encode(), store files with put_file()"
            )
        if self._copy and not isinstance(piece, bytes):
            piece = bytes(memoryview(piece))
        view = flat_view(piece)
        size = len(view)
        if not size:
            return ()
        chunk_size = self._chunk_size
        head: memoryview | None = None
        start = 0
        if self._held is not None:
            if not self._owned:
                gathered = memoryview(bytearray(chunk_size))
                gathered[: self._filled] = self._held
                self._held = gathered
                self._owned = True
            start = min(chunk_size - self._filled, size)
            self._held[self._filled : self._filled + start] = view[:start]
            self._filled += start
            if self._filled < chunk_size:
                return ()
            head, self._held, self._filled, self._owned = self._held, None, 0, False
        end = start + (size - start) // chunk_size * chunk_size
        if end < size:
            self._held = view[end:]
            self._filled = size - end
        if start == end:
            return () if head is None else (head,)
        return _cut(head, view, start, end, chunk_size)

    def finish(self) -> memoryview | None:
        """Return the last, shorter chunk, or ``None`` if nothing is left; the chunker is empty afterwards."""
        if self._held is None:
            return None
        last = self._held[: self._filled]
        self._held, self._filled, self._owned = None, 0, False
        return last


def flat_view(data: bytes | bytearray | memoryview) -> memoryview:
    """Return the bytes of any buffer, in C order, as a flat view, of the buffer itself where possible.

    Buffers that are not contiguous, and formats that the standard library does not know, are copied.
    A memoryview with a 0 in its shape cannot be cast; an empty view replaces it.

    Raises:
        TypeError: the argument is not a bytes-like object.
    """
    view = memoryview(data)
    if view.format == "B" and view.ndim == 1 and view.c_contiguous:
        return view
    if not view.nbytes:
        return memoryview(b"")
    if view.c_contiguous:
        try:
            return view.cast("B")
        except (TypeError, ValueError):
            pass
    return memoryview(view.tobytes())


def _cut(head: memoryview | None, view: memoryview, start: int, end: int, step: int) -> Iterator[memoryview]:
    if head is not None:
        yield head
    for offset in range(start, end, step):
        yield view[offset : offset + step]
