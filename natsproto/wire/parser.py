"""The parser: bytes in, events out, for either side of a connection. No I/O, no clock, no event loop.

How it works: each call brings a piece of the stream. One loop (:meth:`Parser._run`) cuts whole frames out
of it. The rest, less than a frame, is kept in the parser's own buffer, together with the number of bytes
that the frame needs before parsing it again can succeed. So every byte is searched once and copied a
constant number of times, however the stream was split. A payload that does not fit the own buffer, or for
which ``place`` returned a destination, is not buffered at all: it is copied (or, through
:meth:`Parser.get_buffer`, received) straight to its destination.

What a parser returns and raises is a function of the bytes alone, never of how they were split: the
same events in the same order, the same error at the same position.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Literal

from ..errors import RemoteProtocolError
from .control_lines import CLIENT_OPS, SERVER_OPS, LineError, could_be, may_begin, operation
from .events import Event, Msg, Pub
from .limits import Limits
from .memory import Room

Role = Literal["client", "server"]
"""The side that parses. A client reads what servers send, a server what clients send."""
Target = bytearray | memoryview | tuple[memoryview, memoryview] | None
"""A buffer of the payload's size; or that and a longer view of the same memory, whose tail is scratch space;
or ``None`` for a new ``bytes`` object."""

Place = Callable[[Any, int], Target]
"""Called with a :class:`Msg` (client role) or a :class:`Pub` (server role), and the size of its payload."""

_CRLF: Final = b"\r\n"
_LONG_LINES: Final = (b"INFO", b"CONNECT")
_STEP: Final = 1024 * 1024  # bytes first allocated for a payload without a destination; doubled when full
_SHORT_READ: Final = 4096  # bytes of the own buffer offered after a large payload: another one may follow
_MEMO_SIZE: Final = 4096  # number tokens remembered as checked; a full table is cleared


class Parser:
    """Turn a byte stream into events.

    Give it bytes with :meth:`feed`, or receive into its buffers with :meth:`get_buffer` and
    :meth:`buffer_updated` (the two methods of ``asyncio.BufferedProtocol``). The two ways may alternate,
    but nothing may be fed between a ``get_buffer`` and its ``buffer_updated``.

    A broken rule raises :class:`~natsproto.errors.RemoteProtocolError` with ``position`` and, in ``events``,
    the events parsed before it; from then on every call raises. Malformed header blocks and undecodable
    subjects break no rule: any peer can send them, and they concern one message only.

    Args:
        role: ``"client"`` reads what servers send, ``"server"`` what clients send.
        limits: sizes above which input is refused; default :class:`Limits`.
        buffer_size: size of the own buffer in bytes.
        place: called as ``place(event, size)`` once for each message whose payload is at least
            ``place_from`` bytes, when its control line and header block are known and ``event.payload``
            is still ``b""``. It returns the payload's destination, a writable buffer of exactly ``size``
            bytes (``event.payload`` is then a view of it), or ``None`` for ``bytes`` as usual. Or it
            returns a pair: that buffer, and a longer flat one that begins at the same byte. The bytes
            behind the payload are then overwritten, too, which saves the receive call that would only
            bring the frame's end and the start of the next frame. It must not raise or call the parser.
        place_from: smallest payload, in bytes, for which ``place`` is called.
    """

    __slots__ = (
        "_body",
        "_body_at",
        "_body_room",
        "_body_size",
        "_boundary",
        "_buffer",
        "_buffer_size",
        "_error",
        "_fed",
        "_held",
        "_hot",
        "_limits",
        "_longest_line",
        "_need",
        "_numbers",
        "_ops",
        "_pending",
        "_place",
        "_place_from",
        "_short",
        "_shortest_limit",
        "_sizes",
        "_slack",
        "_unplaced",
        "_view",
    )

    def __init__(
        self,
        role: Role = "client",
        *,
        limits: Limits | None = None,
        buffer_size: int = 64 * 1024,
        place: Place | None = None,
        place_from: int = 4096,
    ) -> None:
        if role not in ("client", "server"):
            raise ValueError(f"role must be 'client' or 'server', not {role!r}")
        if buffer_size < 1:
            raise ValueError("buffer_size must be positive")
        self._ops = CLIENT_OPS if role == "client" else SERVER_OPS
        self._limits = limits or Limits()
        self._shortest_limit = min(self._limits.control_line, self._limits.info_line) + 1
        self._longest_line = max(self._limits.control_line, self._limits.info_line) + 2
        self._buffer_size = buffer_size
        self._place = place
        self._place_from = place_from

        self._buffer = bytearray()  # the unfinished frame; allocated when there is one
        self._view = memoryview(self._buffer)
        self._held = 0  # bytes in the buffer; byte 0 is the first of a frame (or of a payload's CRLF)
        self._need = 0  # parse again when this many are held; 0: when the line's LF has arrived
        self._fed = 0  # bytes received in all
        self._boundary = 0  # offset of the first byte of the unfinished frame

        self._pending: Msg | Pub | None = None  # the event whose payload goes straight to its destination
        self._body: memoryview | None = None  # that destination, while bytes are missing
        self._body_at = 0
        self._body_size = 0  # announced bytes of the payload; the destination may still be smaller
        self._slack: memoryview | None = None  # the destination with slack behind it, if place() gave one
        self._body_room: Room | None = None  # the destination's memory, if place() gave none
        self._unplaced = -1  # offset of the frame for which place() returned None
        self._short = False
        self._error: tuple[str, int] | None = None  # what was wrong, and where

        # For the hot loop: number tokens already checked. `_sizes` maps the last token of a line with its
        # CR to the number, or to its complement (below 0) if the message does not go through the buffer;
        # `_numbers` has sids and header lengths.
        self._sizes: dict[bytes, int] = {}
        self._numbers: dict[bytes, int] = {}
        self._hot = role == "client"

    # --- input ------------------------------------------------------------------------------------

    def feed(self, data: bytes | bytearray | memoryview) -> list[Event]:
        """Take the next bytes of the stream (any number of them) and return the events they complete.

        Raises:
            RemoteProtocolError: the peer broke the protocol, now or earlier.
        """
        if self._error is not None:
            raise self._dead()
        if type(data) is not bytes:
            data = bytes(data)
        events: list[Event] = []
        size = len(data)
        self._fed += size
        start = 0
        if self._body is not None:
            while self._body is not None and start < size:
                taken = min(size - start, len(self._body) - self._body_at)
                self._body[self._body_at : self._body_at + taken] = memoryview(data)[start : start + taken]
                self._body_filled(taken)
                start += taken
        elif self._held:
            joined = self._join(data)
            if joined is None:
                return events
            data = joined
        if start < len(data):
            self._run(data, start, events)
        return events

    def get_buffer(self, sizehint: int = -1) -> memoryview:
        """Return the buffer for the next bytes of the stream; never empty.

        It is valid until the next call of any other method. ``sizehint`` is ignored.

        Raises:
            RemoteProtocolError: the peer broke the protocol earlier.
        """
        if self._error is not None:
            raise self._dead()
        if self._body is not None:
            return (self._slack or self._body)[self._body_at :]
        held = self._held
        if held >= len(self._buffer):
            self._reserve(max(held + 1, min(2 * held, max(self._need, self._longest_line))))
        if self._short:
            return self._view[held : max(held + _SHORT_READ, self._need)]
        return self._view[held:] if held else self._view

    def buffer_updated(self, nbytes: int) -> list[Event]:
        """Take the ``nbytes`` written to the buffer returned last; return the events they complete.

        Raises:
            RemoteProtocolError: the peer broke the protocol, now or earlier.
        """
        if self._error is not None:
            raise self._dead()
        events: list[Event] = []
        self._fed += nbytes
        if self._body is not None:
            size = len(self._body)
            behind = self._body_at + nbytes - size
            if behind <= 0:
                self._body_filled(nbytes)
                return events
            assert self._slack is not None
            data = bytes(self._slack[size : size + behind])
            self._body_filled(nbytes - behind)
            self._run(data, 0, events)
            return events
        before = self._held
        held = self._held = before + nbytes
        if held < self._need:
            return events
        if not self._need and self._buffer.find(b"\n", before, held) < 0:
            self._check_open_line(bytes(self._view[: min(held, 16)]), held, self._boundary)
            return events
        data = bytes(self._view[:held])
        self._held = 0
        self._run(data, 0, events)
        return events

    def feed_eof(self) -> None:
        """Tell the parser that the stream has ended.

        Raises:
            RemoteProtocolError: it ended inside a frame, or the peer broke the protocol earlier.
        """
        if self._error is not None:
            raise self._dead()
        if not self.idle:
            raise self._broken("the stream ended inside a frame", self._boundary)

    @property
    def position(self) -> int:
        """Offset in the stream of the first byte that is not part of a returned event."""
        return self._boundary

    @property
    def buffered(self) -> int:
        """Bytes received that do not yet form a frame (including those already at their destination)."""
        return self._fed - self._boundary

    @property
    def idle(self) -> bool:
        """True at a frame boundary with nothing buffered, unless a rule was broken."""
        return self._fed == self._boundary and self._error is None

    # --- frames -----------------------------------------------------------------------------------

    def _run(self, data: bytes, pos: int, events: list[Event]) -> None:
        """Cut the frames out of ``data[pos:]``, which ends with the last byte received; keep the rest.

        Hot loop, measured by bench/micro/test_parser.py: plain ``MSG`` and ``HMSG`` lines whose number
        tokens were seen before are handled here (and in :meth:`_payload`, if they are large), everything else
        in :meth:`_frame`.
        """
        base = self._fed - len(data)
        find = data.find
        append = events.append
        new = Msg.__new__
        msg_class = Msg
        known = self._sizes.get
        numbers = self._numbers
        end_of_data = len(data)
        longest = self._limits.control_line + 1
        longest_header = self._limits.header_block
        msg_op, hmsg_op = (b"MSG", b"HMSG") if self._hot else (b" ", b" ")  # no token is a space
        tabs = b"\t" in data
        need = 0
        try:
            if self._pending is not None:
                if end_of_data - pos < 2:
                    self._keep(data, pos, 2)
                    return
                pos = self._finish_body(data, pos, base, events)
            start = pos
            while True:
                line_end = find(b"\n", pos)
                if line_end < 0:
                    if pos < end_of_data:
                        self._check_open_line(data[pos : pos + 16], end_of_data - pos, base + pos)
                    break
                line = data[pos:line_end]
                args = line.split(b" ")
                count = len(args)
                reply = None
                head = -1
                if args[0] == msg_op:
                    if count == 4:
                        _, subject, sid, size = args
                    elif count == 5:
                        _, subject, sid, reply, size = args
                    else:
                        size = b""  # not a number, so never remembered
                    total = known(size)
                elif args[0] == hmsg_op:
                    if count == 5:
                        _, subject, sid, header, size = args
                    elif count == 6:
                        _, subject, sid, reply, header, size = args
                    else:
                        header = size = b""
                    total = known(size)
                    head = numbers.get(header, -1)
                    if not 0 <= head <= longest_header or (
                        total is not None and head > total and head > ~total  # one of the two is negative
                    ):
                        total = None
                else:
                    total = None
                if (
                    total is not None
                    and sid in numbers
                    and subject
                    and reply != b""
                    and line_end - pos <= longest
                    and not (tabs and b"\t" in line)
                ):
                    msg = new(msg_class)
                    msg.subject = subject
                    msg.sid = sid
                    msg.reply = reply
                    if total < 0:
                        msg.header, msg.payload = None, b""
                        done = self._payload(msg, head, ~total, data, pos, line_end, base, events)
                        if done < 0:
                            need = self._need
                            break
                        pos = done
                        continue
                    body = line_end + 1
                    end = body + total
                    if end + 2 > end_of_data:
                        need = end + 2 - pos
                        break
                    if data[end] != 13 or data[end + 1] != 10:
                        raise self._broken("payload is not followed by CRLF", base + end)
                    if head < 0:
                        msg.header = None
                        msg.payload = data[body:end]
                    else:
                        middle = body + head
                        msg.header = data[body:middle]
                        msg.payload = data[middle:end]
                    append(msg)
                    pos = end + 2
                    continue
                done = self._frame(data, pos, line_end, base, events)
                if done < 0:
                    need = self._need
                    break
                pos = done
        except BaseException as exc:
            if self._error is None:  # place() raised, or KeyboardInterrupt: half a frame may be lost
                self._error = ("parsing was interrupted", base + pos)
            if isinstance(exc, RemoteProtocolError):
                exc.events = events
            raise
        self._boundary = base + pos
        if self._pending is None:
            if pos > start:
                self._short = False
            self._keep(data, pos, need)

    def _frame(self, data: bytes, pos: int, line_end: int, base: int, events: list[Event]) -> int:
        """Handle one frame with all checks. Return where the next one starts, or -1 if bytes are missing.

        In that case either ``_need`` says how many the frame needs, or its payload's destination is known
        and has the bytes that have arrived.
        """
        line = data[pos:line_end].removesuffix(b"\r")
        op = operation(line)
        handler = self._ops.get(op)
        if handler is None or line_end - pos > self._shortest_limit:
            self._check_open_line(data[pos : min(line_end, pos + 16)], line_end - pos, base + pos)
        if handler is None or len(line) == line_end - pos:
            raise self._broken("LF without CR in a control line", base + pos)
        try:
            event, header, total = handler(line[len(op) :])
        except LineError as exc:
            raise self._broken(f"{op.decode()}: {exc}", base + pos) from None
        if total < 0:
            events.append(event)
            return line_end + 1
        assert isinstance(event, (Msg, Pub))
        if header > self._limits.header_block:
            raise self._broken(f"header block of {header} bytes is above the limit", base + pos)
        if total > self._limits.message:
            raise self._broken(f"message of {total} bytes is above the limit", base + pos)
        if isinstance(event, Msg):
            self._remember(event.sid, header, total)
        return self._payload(event, header, total, data, pos, line_end, base, events)

    def _payload(
        self,
        event: Msg | Pub,
        header: int,
        total: int,
        data: bytes,
        pos: int,
        line_end: int,
        base: int,
        events: list[Event],
    ) -> int:
        """Take what follows a control line; arguments and result are those of :meth:`_frame`."""
        body = line_end + 1
        middle = body + max(header, 0)
        end = body + total
        size = end - middle
        wanted = self._place is not None and size >= self._place_from and self._unplaced != base + pos
        if len(data) < middle:
            self._need = (middle if wanted or end - pos > self._buffer_size else end + 2) - pos
            return -1
        if header >= 0:
            event.header = data[body:middle]
        if wanted:
            wanted = self._open_destination(event, size, base + pos)
        if len(data) < end + 2 and not wanted:
            if end + 2 - pos <= self._buffer_size:
                self._need = end + 2 - pos
                return -1
            self._body_room = Room(min(size, max(_STEP, len(data) - middle)))
            self._pending, self._body, self._body_at = event, self._body_room.view, 0
            self._body_size = size
            wanted = True
        if wanted:
            return self._fill_body(data, middle, end, base, events)
        if data[end : end + 2] != _CRLF:
            raise self._broken("payload is not followed by CRLF", base + end)
        event.payload = data[middle:end]
        events.append(event)
        return end + 2

    def _remember(self, sid: bytes, header: int, total: int) -> None:
        """Let the hot loop know the number tokens of a message line that passed all checks."""
        for memo in (self._sizes, self._numbers):
            if len(memo) >= _MEMO_SIZE:
                memo.clear()
        self._numbers[sid] = int(sid)
        if header >= 0:
            self._numbers[b"%d" % header] = header
        apart = (self._place is not None and total >= self._place_from) or total + 2 > self._buffer_size
        self._sizes[b"%d\r" % total] = ~total if apart else total

    # --- payloads that go straight to their destination ---------------------------------------------

    def _open_destination(self, event: Msg | Pub, size: int, position: int) -> bool:
        """Ask ``place`` where the payload goes; tell whether it returned a destination."""
        assert self._place is not None
        target = self._place(event, size)
        if target is None:
            self._unplaced = position
            return False
        slack = None
        if isinstance(target, tuple):
            target, slack = target
            if slack.nbytes <= size or len(slack) != slack.nbytes or slack.readonly:
                raise ValueError(f"place() must return a flat, writable buffer longer than {size} bytes")
        view = target if isinstance(target, memoryview) else memoryview(target)
        if view.nbytes != size or view.readonly:
            raise ValueError(f"place() must return a writable buffer of {size} bytes")
        event.payload = view
        flat = view if view.format == "B" and view.ndim == 1 else view.cast("B")
        self._pending, self._body, self._body_at, self._slack = event, flat, 0, slack
        self._body_size = size
        return True

    def _fill_body(self, data: bytes, middle: int, end: int, base: int, events: list[Event]) -> int:
        """Copy what has arrived of the payload to its destination; finish the frame if it is complete."""
        assert self._body is not None
        size = min(end, len(data)) - middle
        with memoryview(data) as view:
            self._body[:size] = view[middle : middle + size]
        self._body_filled(size)
        if len(data) >= end + 2:
            return self._finish_body(data, end, base, events)
        self._short = True
        if self._body is None:  # only the CRLF, or half of it, is missing
            self._keep(data, end, 2)
        return -1

    def _body_filled(self, nbytes: int) -> None:
        assert self._body is not None
        self._body_at += nbytes
        if self._body_at == len(self._body):
            if self._body_at < self._body_size:
                self._grow_body()
                return
            self._body = self._slack = None
            self._need = 2

    def _grow_body(self) -> None:
        """Continue in twice the memory: bytes that a peer has only announced cost nothing."""
        old = self._body_room
        assert old is not None
        self._body_room = room = Room(min(2 * self._body_at, self._body_size))
        self._body = room.view
        self._body[: self._body_at] = old.view
        old.release()

    def _finish_body(self, data: bytes, pos: int, base: int, events: list[Event]) -> int:
        """Check the CRLF at ``pos`` after a placed payload, then deliver its event."""
        if data[pos : pos + 2] != _CRLF:
            raise self._broken("payload is not followed by CRLF", base + pos)
        assert self._pending is not None
        if self._body_room is not None:
            self._pending.payload = self._body_room.getvalue()
            self._body_room = None
        events.append(self._pending)
        self._pending = None
        return pos + 2

    # --- the own buffer -----------------------------------------------------------------------------

    def _join(self, data: bytes) -> bytes | None:
        """Return the held bytes and ``data`` joined; or hold ``data``, too, if it cannot end a frame."""
        held = self._held
        total = held + len(data)
        if total >= self._need if self._need else b"\n" in data:
            self._held = 0
            return b"".join((self._view[:held], data))
        if not self._need:
            head = bytes(self._view[: min(held, 16)]) + data[:16]
            self._check_open_line(head[:16], total, self._boundary)
        if total > len(self._buffer):
            self._reserve(max(total, min(2 * held, max(self._need, self._longest_line))))
        self._view[held:total] = data
        self._held = total
        return None

    def _keep(self, data: bytes, pos: int, need: int) -> None:
        """Hold ``data[pos:]``, the start of a frame that needs ``need`` bytes (0: not known yet)."""
        held = len(data) - pos
        self._need = need
        self._held = 0
        if held:
            self._reserve(held)
            self._view[:held] = data[pos:]
            self._held = held
        elif len(self._buffer) > self._buffer_size:
            self._buffer = bytearray(self._buffer_size)
            self._view = memoryview(self._buffer)

    def _reserve(self, size: int) -> None:
        """Let the own buffer hold ``size`` bytes; keep what it holds."""
        if size <= len(self._buffer):
            return
        bigger = bytearray(max(size, self._buffer_size))
        bigger[: self._held] = self._view[: self._held]
        self._buffer = bigger
        self._view = memoryview(bigger)

    # --- errors -------------------------------------------------------------------------------------

    def _check_open_line(self, head: bytes, length: int, position: int) -> None:
        """Refuse a line, finished or not, that can no longer become valid.

        The first wrong byte decides, so the error is the same however the line was split.

        Args:
            head: its first bytes, 16 at most.
            length: bytes of it that have arrived, with CR, without LF.
            position: offset of its first byte.
        """
        if may_begin(head, self._ops) and length <= self._limit_of(head) + 1:
            return
        for end in range(1, len(head) + 1):  # find the first wrong byte
            part = head[:end]
            if not may_begin(part, self._ops):
                raise self._broken(f"unknown operation: the line begins with {part!r}", position)
            if end > self._limit_of(part) + 1:
                break
        raise self._broken(f"control line longer than {self._limit_of(part)} bytes", position)

    def _limit_of(self, head: bytes) -> int:
        """Bytes of the longest line that may begin with ``head``."""
        op = operation(head).removesuffix(b"\r")
        return self._limits.info_line if could_be(op, _LONG_LINES) else self._limits.control_line

    def _broken(self, message: str, position: int) -> RemoteProtocolError:
        """Mark the parser dead and return the error to raise."""
        self._error = (message, position)
        return RemoteProtocolError(message, position=position)

    def _dead(self) -> RemoteProtocolError:
        """Return the error for every call after the one that broke the parser."""
        assert self._error is not None
        message, position = self._error
        return RemoteProtocolError(f"the parser is dead since an earlier error: {message}", position=position)
