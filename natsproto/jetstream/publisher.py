"""Publishing many messages to a stream: a window of unacknowledged ones.

The window is limited in bytes, not only in messages: the server queues at most 128 MiB or 100 000 messages
per stream and drops what exceeds that. A payload's buffer is kept, unchanged, until its acknowledgement: the
window is the replay buffer.
"""

from __future__ import annotations

import asyncio
from _thread import get_ident
from math import inf
from typing import TYPE_CHECKING

from .._values import seconds
from ..aio.client import as_payload
from ..aio.handlers import ReplySlot
from ..aio.operations import foreign_loop
from ..aio.requests import is_bare, no_responders
from ..errors import (
    APIError,
    NatsError,
    NoRespondersError,
    RemoteProtocolError,
    StaleConnectionError,
    WrongStreamError,
)
from ..subjects import MAX_NAMES, check_names
from .api.acks import ANY_DOMAIN, UNIDENTIFIED, AckCheck, can_cause, has_id, plain_ack_seq, unanswered

if TYPE_CHECKING:
    from ..aio.client import Client
    from ..transport import Buffer
    from ..wire import Msg as WireMsg

DEFAULT_WINDOW = 8 * 1024 * 1024
"""Bytes unacknowledged at a time; more than 16 MiB gains nothing and strains the server's ingest queue."""

MAX_MESSAGES = 4096
"""Messages unacknowledged at a time; limits tiny ones."""

FEW_REQUESTS = 2
"""Open requests up to which frames are flushed at once: gathering those of a loop iteration gains nothing."""

DEFAULT_PROGRESS = 15.0
"""Seconds without any acknowledgement after which a window gives up."""

CHECKS = 10
"""Checks for acknowledgements per progress timeout: they make the timeout exact to a tenth."""

PING_AFTER = 2
"""Checks in a row without an acknowledgement after which the server is sent a PING."""

LOST_AFTER = 6
"""Checks in a row without one after which messages count as lost if the PING was answered (a leader that
steps down drops what it has not stored): the rest of the time is for sending them again. A server that does
not answer the PING gets the whole time: it may be suspended, and continue."""

FOREIGN_AFTER = 4
"""Checks in a row without an acknowledgement after which an answer of another stream counts as the reason: a
peer can have one sent to us, but then the own answer comes as well."""

MAX_DOUBTS = 65536
"""Sequences of unexpected answers that are remembered; more of them are an attack, not a few duplicates."""


class OutOfOrderError(NatsError):
    """Acknowledged sequences did not rise in the order of publishing: the stream has another order."""


class PublishWindow(ReplySlot):
    """Publishes to one subject of one stream, in order, with many messages unacknowledged at a time.

    After the first failure nothing more is sent: ``failure`` has the error, :meth:`publish` and
    :meth:`settle` raise it, and ``unproven`` has every payload from the first one that is not part of the
    acknowledged prefix with rising sequences. An instance belongs to one task; close it when done.

    An unexpected answer (a second one to the same message, or one to no message) changes only ``doubts``: its
    sequence is added, or 0 when that tells nothing. Something on the way duplicates messages or
    acknowledgements, or somebody forges them; so check what is stored before you rely on it. The sequences
    are only hints. The answer of another stream counts only when the own one does not come, as does one that
    only another message can have caused: a duplicate without an id, a refusal for a header.

    Args:
        client: the connection.
        subject: where to publish (checked, bytes).
        stream: the stream whose acknowledgements count; a name alone = in any domain.
        max_bytes: unacknowledged payload bytes (8 MiB).
        progress_timeout: seconds without an acknowledgement before it fails (15); it may be changed later.
        first: index of the first publish (after a repair, the indexes continue).
        last_seq: the sequence acknowledged last, which the next ones must exceed.
        header: an encoded header block for every message.
        doubts: the set for unexpected answers (default: a new one).
    """

    __slots__ = (
        "_acked_early",
        "_acks",
        "_connection",
        "_draining",
        "_foreign",  # why an answer was not the stream's
        "_inflight",  # indexes of unanswered messages
        "_inflight_bytes",
        "_loop",
        "_mux",
        "_next_ack",
        "_next_index",
        "_passed",  # a refusal that no message of this window can have caused
        "_pong",
        "_quiet",
        "_recent",  # sequences of the newest messages of the acknowledged prefix
        "_seen",
        "_waiter",
        "doubts",
        "failure",
        "first_seq",
        "header",
        "last_seq",
        "max_bytes",
        "progress_timeout",
        "stream",
        "unproven",
    )

    def __init__(
        self,
        client: Client,
        subject: bytes,
        stream: str | AckCheck,
        *,
        max_bytes: int = DEFAULT_WINDOW,
        progress_timeout: float = DEFAULT_PROGRESS,
        first: int = 0,
        last_seq: int = 0,
        header: bytes = b"",
        doubts: set[int] | None = None,
    ) -> None:
        super().__init__(subject)
        if len(subject) + client.reply_length > MAX_NAMES:  # now, before the first message
            check_names(subject, b"r" * client.reply_length)
        self._acks = stream if isinstance(stream, AckCheck) else AckCheck(stream, ANY_DOMAIN)
        self.stream: str = self._acks.stream
        self.header: bytes = header
        self.max_bytes: int = max_bytes
        self.failure: NatsError | None = None
        self.first_seq: int = 0
        self.last_seq: int = last_seq
        self.unproven: dict[int, Buffer] = {}
        self.doubts: set[int] = set() if doubts is None else doubts
        self._connection = connection = client.connection
        self._loop = connection.loop
        self.progress_timeout: float = progress_timeout
        self._next_index = first
        self._next_ack = first
        self._inflight: set[int] = set()
        self._inflight_bytes = 0
        self._acked_early: dict[int, int] = {}
        self._recent: list[int] = []
        self._waiter: asyncio.Future[None] | None = None
        self._draining: asyncio.Timeout | None = None
        self._foreign: NatsError | None = None
        self._passed: APIError | None = None
        self._seen = 0
        self._quiet = 0  # checks in a row without an acknowledgement
        self._pong: asyncio.Future[None] | None = None
        self._mux = connection.mux
        self._mux.open(self)

    # -- the publishing task ----------------------------------------------------------------------

    @property
    def acknowledged(self) -> int:
        """The index below which everything is acknowledged in order."""
        return self._next_ack

    @property
    def next_index(self) -> int:
        """The index of the next publish."""
        return self._next_index

    @property
    def newest(self) -> list[int]:
        """The sequences of the newest acknowledged messages, at least as many as can be in flight at once."""
        return [*self._recent, *self._acked_early.values()]

    async def publish(self, payload: Buffer) -> None:
        """Send one message; wait while the window is full or the network does not keep up.

        The buffer must not change until it is acknowledged (at the latest when :meth:`settle` returns).

        Raises:
            LocalProtocolError, MaxPayloadError: refused, nothing was sent; the window stays usable.
            NatsError: the window has failed, see ``failure``.
        """
        if type(payload) not in (bytes, bytearray) and not (
            type(payload) is memoryview and payload.ndim == payload.itemsize == 1 and payload.c_contiguous
        ):
            payload = as_payload(payload)  # its len() is its size in bytes
        size = len(payload)
        connection = self._connection
        if connection.home._thread_id != get_ident():
            raise foreign_loop()
        connection.check_size(len(self.header), size)
        while self._inflight and (
            self._inflight_bytes + size > self.max_bytes or len(self._inflight) >= MAX_MESSAGES
        ):
            if self.failure is not None:
                raise self.failure
            await self._wait()
        if self.failure is not None:
            raise self.failure
        if connection.session is None:
            # Never through the reconnect buffer: what was stored must be read first.
            connection.check_open()
            self.failure = StaleConnectionError("not connected")
            await asyncio.sleep(0)  # whoever begins again at once must let it connect
            raise self.failure
        index = self._next_index
        self._next_index = index + 1
        if not index & (MAX_MESSAGES - 1):  # once per MAX_MESSAGES
            del self._recent[:-MAX_MESSAGES]
        self.unproven[index] = payload
        self._inflight.add(index)
        self._inflight_bytes += size
        connection.publish(self.subject, payload, b"%b.%d" % (self.inbox, index), self.header)
        if self.deadline == inf:
            self._mux.arm(self, self.progress_timeout / CHECKS)
        if connection.congested:
            await self._drain()

    async def _drain(self) -> None:
        """Wait until the network takes more, or until the window fails, which the next call raises.

        The connection sets no limit for this wait: it stays alive while any bytes get through.
        """
        try:
            async with asyncio.timeout(None) as self._draining:
                await self._connection.drain()
        except TimeoutError:
            pass
        finally:
            self._draining = None

    async def settle(self) -> None:
        """Wait until everything sent is acknowledged.

        Raises:
            NatsError: the window has failed; everything in flight has been answered or given up.
        """
        if len(self._mux) <= FEW_REQUESTS:
            self._connection.flush_now()
        while self._inflight and self.failure is None:
            await self._wait()
        if self.failure is not None:
            raise self.failure

    async def quiesce(self, timeout: float) -> None:
        """After a failure: wait, at most ``timeout`` seconds, for the missing answers."""
        try:
            async with asyncio.timeout(timeout):
                while self._inflight:
                    await self._wait()
        except TimeoutError:
            pass

    def close(self) -> None:
        """Forget the window; later answers are dropped. Idempotent."""
        self._mux.close(self)
        if self._inflight or self._draining is not None:  # else nobody waits
            self._give_up(NatsError("the publish window is closed"))
        elif self.failure is None:
            self.failure = NatsError("the publish window is closed")

    def _wait(self) -> asyncio.Future[None]:
        """Return the future of the next answer, or failure."""
        self._waiter = waiter = self._loop.create_future()
        return waiter

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # -- the reading side -------------------------------------------------------------------------

    def on_reply(self, rest: bytes, msg: WireMsg) -> None:
        if not is_bare(msg):
            return
        index = int(rest) if rest.isdigit() and len(rest) < 20 else -1
        inflight = self._inflight
        if index not in inflight:
            self._doubt(index, msg)
            return
        try:
            seq = self._seq(msg)
        except (WrongStreamError, RemoteProtocolError) as exc:
            # This does not answer the message: the stream's own answer is still missing.
            if self._in_another_domain(exc):
                self._fail(exc)
            else:
                self._foreign = self._foreign or exc
            return
        except NatsError as exc:
            if isinstance(exc, APIError) and not can_cause(self.header, exc.err_code):
                self._passed = exc
                return
            inflight.remove(index)
            self._inflight_bytes -= len(self.unproven[index])
            self._fail(exc)
            return
        self._seen += 1
        inflight.remove(index)
        self._inflight_bytes -= len(self.unproven[index])
        if index == self._next_ack:
            self._advance(index, seq)
            early = self._acked_early
            while early and self._next_ack in early:
                self._advance(self._next_ack, early.pop(self._next_ack))
        else:
            self._acked_early[index] = seq
        self._wake()

    def _seq(self, msg: WireMsg) -> int:
        if seq := plain_ack_seq(msg.payload, self._acks.head):
            return seq  # as AckCheck.parse() does, without a PubAck: a fifth of what an acknowledgement costs
        if no_responders(msg):
            raise NoRespondersError(
                self.subject.decode("utf-8", "replace"), f"no leader of stream {self.stream}?"
            )
        ack = self._acks.parse(msg.payload)
        if ack.duplicate:
            if not has_id(self.header):
                raise RemoteProtocolError(UNIDENTIFIED)
            self.doubts.add(0)  # nothing was stored now
        return ack.seq

    def _in_another_domain(self, exc: NatsError) -> bool:
        """Whether a stream of the same name has stored a message: it gets all of them, and ours may not."""
        return isinstance(exc, WrongStreamError) and exc.stream == self.stream

    def _doubt(self, index: int, msg: WireMsg) -> None:
        """Note an unexpected answer; see the class."""
        seq = 0
        try:
            ack = self._acks.parse(msg.payload)
        except (WrongStreamError, RemoteProtocolError) as exc:
            if self._in_another_domain(exc):
                self._fail(exc)
            return  # else it answers another message, somebody's to another stream
        except NatsError:
            pass
        else:
            back = self._next_ack - index  # 1 = the newest of the acknowledged prefix
            if 0 < back <= len(self._recent):
                known = self._recent[-back]
            else:
                known = self._acked_early.get(index, 0)
            if (known or 0 <= index < self._next_ack) and ack.seq != known and not ack.duplicate:
                seq = ack.seq
        if len(self.doubts) < MAX_DOUBTS:
            self.doubts.add(seq)

    def _advance(self, index: int, seq: int) -> None:
        if seq <= self.last_seq:
            self._fail(OutOfOrderError(f"chunk {index} was stored as {seq}, not after {self.last_seq}"))
            return
        self.last_seq = seq
        if not self.first_seq:
            self.first_seq = seq
        self._recent.append(seq)
        self._next_ack = index + 1
        del self.unproven[index]

    def under_way(self) -> int:
        return len(self._inflight)

    def on_lost(self, exc: BaseException) -> None:
        # With nothing in flight nothing is in doubt: the window stays usable after a reconnect.
        if self._inflight or not isinstance(exc, ConnectionError):
            self._give_up(exc if isinstance(exc, NatsError) else NatsError(str(exc)))

    def _give_up(self, exc: NatsError) -> None:
        """Fail, and wait for no more answers."""
        self._inflight.clear()
        self._inflight_bytes = 0
        self._fail(exc)

    def _fail(self, exc: NatsError) -> None:
        if self.failure is None:
            self.failure = exc
            if self._draining is not None:
                self._draining.reschedule(self._loop.time())
        self._wake()

    @property
    def silent(self) -> float:
        """Seconds (about) since the last acknowledgement, or since the first message if there was none."""
        return self._quiet * self.progress_timeout / CHECKS

    def on_timeout(self) -> None:
        if self.failure is not None:
            return
        if not self._inflight or self._seen:
            self._seen = self._quiet = 0
            self._pong = None
        else:
            self._quiet += 1
        session = self._connection.session
        if self._quiet == PING_AFTER and session is not None:
            self._pong = self._loop.create_future()
            session.ping(self._pong)
        answered = self._pong is not None and self._pong.done()
        foreign = self._foreign if self._quiet >= FOREIGN_AFTER else None
        if foreign is not None or self._quiet >= CHECKS or (answered and self._quiet >= LOST_AFTER):
            silence = unanswered(
                f"no acknowledgement from stream {self.stream!r} within {seconds(self.silent)} s",
                self._passed,
            )
            self._give_up(foreign or silence)
            self._connection.probe()
        elif self._inflight:
            self._mux.arm(self, self.progress_timeout / CHECKS)
