"""The ordered push consumer (ADR-17): every message once, in stream order, across faults.

Each message is passed on by a synchronous callback from the reading side: no queue, task or future per
message. Flow control requests are answered at once, or when :meth:`OrderedConsumer.resume` is called: that
is the back-pressure. While the connection takes no more, the last request waits.

After a gap, a missed heartbeat, or a reconnect, a new consumer is created from the sequence after the last
one delivered. Heartbeats count as missed only after a PING was answered, so an application that did not run
for a while does not mistake its own pause for the server's.

A consumer lives in the memory of one server. When that server restarts, the consumer is recreated with its
original name and configuration, and counts from 1. To the server that is no error, so it is detected here: a
consumer sequence does not continue although the stream's does, or a heartbeat counts fewer messages than
came. Then a new consumer continues after the last stream sequence seen.

A server that is behind and is asked to begin beyond its own end begins at that end, so the first messages of
a consumer may be old. The stream's sequence decides: no message is passed on twice, or before the start.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from .._values import seconds
from ..aio.handlers import Handler
from ..backoff import Backoff
from ..errors import (
    APIError,
    ConfigError,
    ConnectionClosedError,
    NatsError,
    PermissionsViolationError,
    RequestTimeoutError,
)
from ..headers import header_value, status_of
from ..subjects import secret_name, subject_matches
from .api.acks import Delivery, is_flow_control, parse_ack_subject
from .api.errors import ConsumerNotFoundError, StreamNotFoundError, check_name, retryable
from .api.models import ConsumerInfo

if TYPE_CHECKING:
    from ..wire import Msg as WireMsg
    from ..wire import Target
    from .context import JetStreamContext

PONG_TIMEOUT = 2.0
"""Seconds to wait for the answer to a PING after missed heartbeats; longer while bytes keep coming."""

MISSED_HEARTBEATS = 2.5
"""Heartbeat intervals without any message or heartbeat before the consumer is recreated."""

PROOF_INTERVAL = 30.0
"""Seconds without a delivery after which the server is asked whether the consumer is still there; a user who
may not ask creates a new one. Whoever sees the deliver subject can have heartbeats sent there, by a pull of
their own with that reply subject."""

LAST_ATTEMPT = 1.0
"""Seconds that the last attempt may go beyond the retry budget."""

DELETE_TIMEOUT = 2.0
"""Seconds that deleting an abandoned consumer may take."""

INACTIVE_THRESHOLD = timedelta(seconds=5)
"""Time after which the server removes a consumer without a listener; normally we delete it at once."""

LONGEST_THRESHOLD = 1_000_000_000
"""Seconds: 31 years, which servers can count in nanoseconds."""


class _Incarnation(Handler):
    """One consumer on the server; frames for an older one no longer count."""

    __slots__ = ("alive", "began", "consumer_seq", "created", "name", "owner", "since")

    def __init__(self, owner: OrderedConsumer, inbox: bytes) -> None:
        super().__init__(inbox)
        self.owner: OrderedConsumer = owner
        self.name: str = secret_name()
        self.consumer_seq: int = 0
        self.created: bool = False  # the server has confirmed the creation
        self.began: int = owner.stream_seq  # last sequence passed on before this consumer
        self.since: float = owner.loop.time()
        self.alive: bool = False  # it works, although no message was due so far

    def deliver(self, msg: WireMsg) -> None:
        owner = self.owner
        if self is not owner.current or owner.stopped:
            return
        if msg.header is not None and not msg.payload and msg.subject == self.subject:
            if status_of(msg.header) == 100:
                owner.active = owner.loop.time()
                owner.control(self, msg)
            return
        delivery = parse_ack_subject(msg.reply)
        if delivery is None or delivery.consumer != self.name or delivery.stream != owner.stream:
            return  # not a delivery of this consumer: anybody may publish to our inbox
        owner.active = owner.proven = owner.loop.time()
        subject = msg.subject
        if subject != owner.expected and not subject.startswith(owner.prefix) and not owner.wants(subject):
            owner.restart()  # whoever may create consumers can change this one, and so its filter
            return
        fresh = delivery.stream_seq > owner.stream_seq
        if delivery.consumer_seq != self.consumer_seq + 1:
            if fresh or delivery.consumer_seq > self.consumer_seq:
                owner.restart()  # a gap, or it has started over; anything else is a duplicate
            return
        self.consumer_seq = delivery.consumer_seq
        if not fresh:
            return  # it has started over, or its server is behind the previous one
        owner.stream_seq = delivery.stream_seq
        try:
            owner.on_message(msg, delivery)
        except Exception as exc:  # it must not end the session, which others use
            owner.fail(exc)

    def place(self, msg: WireMsg, size: int) -> Target:
        return self.owner.place(self, msg, size)

    def on_reconnect(self) -> None:
        # A creation in flight has already failed; one that waited for the connection is being sent now.
        if self.created and self.owner.current is self:
            self.alive = self.owner.limit is None  # a reader that waits for news has missed none so far
            self.owner.restart()

    def on_refused(self, subject: bytes, exc: BaseException) -> int:
        owner = self.owner
        if self is not owner.current or not is_flow_control(subject, owner.stream, self.name):
            return 0
        owner.fail(exc)  # without an answer the server silently stops sending
        return 1

    def on_end(self, exc: BaseException | None) -> None:
        if self.owner.current is self:
            self.owner.fail(exc or ConnectionClosedError("the client was closed"))


def forget_consumers(js: JetStreamContext, stream: str, names: list[str]) -> None:
    """Ask the server to delete consumers, and empty the list, without waiting for answers."""
    inbox = js.client.new_inbox().encode()  # not a request: one that nobody waits for is not sent
    try:
        while names:
            js.client.connection.publish(js.subject(f"CONSUMER.DELETE.{stream}.{names.pop()}"), b"", inbox)
    except NatsError:
        pass  # closed, or the buffer is full: the consumers expire by themselves


def _nothing(*_: object) -> None:
    """Replaces the callbacks of a consumer that has ended."""


class OrderedConsumer:
    """See the module docstring.

    Args:
        js: the context (with its API prefix).
        stream: the stream's name.
        filter_subject: one subject or wildcard (the singular form: older servers ignore the plural one).
        on_message: called with each message and its delivery, in order. It must not block; an exception from
            it (or another callback) ends the consumer.
        on_failure: called once when the consumer cannot continue (stream gone, budget used up, closed).
        on_idle: called at a heartbeat: everything delivered so far has been received and nothing is due.
        on_restart: called when a consumer is abandoned; destinations reserved for payloads that never
            arrived may be reused.
        before: awaited before another consumer is created; that is no time without progress.
        placer: returns the destination of a large payload; called when its control line arrives, so messages
            before it may not have been passed on yet.
        deliver_policy: ``"all"``, ``"last"``, ``"last_per_subject"``, ``"new"`` or ``"by_start_sequence"``.
        start_seq: with ``"by_start_sequence"``.
        heartbeat: seconds between heartbeats of an idle consumer.
        inactive_threshold: seconds after which the server removes a consumer without a listener (default: 5).
            A program whose connection is away for longer gets a new consumer, as after any gap.
        headers_only: deliver headers and sizes, no payloads.
        single: deliver one message only: the server would send 2 MiB before it can be stopped.
        created: the stream's creation time, to notice a stream that was deleted and recreated.
        retry_budget: seconds without progress after which no new consumer is created (default: the client's).
        patience: seconds the creation of a consumer may take (default: as any request). The server that it
            is assigned to may hang; the next attempt may be assigned to another one.
        limit: seconds without a message after which the consumer fails, unless ``on_idle`` reports that
            nothing is due, or it is paused: for readers of what is stored. Default: none, for readers that
            wait for news. Such a server is not silent: its heartbeats say that we hold it back.

    Attributes:
        stream_seq: sequence of the last message passed on, or the one before the start.
        restarts: how many consumers were created after the first one.
        silent: how many of them, or of its predecessors, gave no sign of life although the server did.
        stream, on_message, limit: as given.
        expected: the filter: the subject of every message, unless it has wildcards.
        prefix: what every subject begins with that a filter lets through whose only wildcard is the last.
        loop: the event loop that it belongs to.
        current: the consumer on the server whose messages count, if any.
        active: when that consumer was last heard from, by the loop's clock.
        proven: when it was last certain that it is there: heartbeats may be those of another one.
        stopped: nothing more is passed on.
    """

    __slots__ = (  # see Session: more than 30 attributes
        "_answering",
        "_backoff",
        "_before",
        "_budget",
        "_connection",
        "_created",
        "_deadline",
        "_filter",
        "_headers_only",
        "_heartbeat",
        "_held",
        "_inactive_threshold",
        "_js",
        "_leftover",
        "_may_ask",
        "_on_failure",
        "_on_idle",
        "_on_restart",
        "_patience",
        "_paused",
        "_placer",
        "_policy",
        "_quiet",
        "_seen",
        "_single",
        "_start_seq",
        "_task",
        "_timer",
        "active",
        "current",
        "expected",
        "limit",
        "loop",
        "on_message",
        "prefix",
        "proven",
        "restarts",
        "silent",
        "stopped",
        "stream",
        "stream_seq",
    )

    def __init__(
        self,
        js: JetStreamContext,
        stream: str,
        filter_subject: str,
        *,
        on_message: Callable[[WireMsg, Delivery], None],
        on_failure: Callable[[BaseException], None],
        on_idle: Callable[[], None] | None = None,
        on_restart: Callable[[], None] | None = None,
        before: Callable[[], Awaitable[None]] | None = None,
        placer: Callable[[WireMsg, int], Target] | None = None,
        deliver_policy: str = "all",
        start_seq: int | None = None,
        heartbeat: float = 5.0,
        inactive_threshold: float = INACTIVE_THRESHOLD.total_seconds(),
        headers_only: bool = False,
        single: bool = False,
        created: datetime | None = None,
        retry_budget: float | None = None,
        patience: float | None = None,
        limit: float | None = None,
    ) -> None:
        self._js = js
        self._may_ask = True  # whether the consumer is there
        self.stream: str = check_name("stream", stream)
        self._filter = filter_subject
        self.expected: bytes = filter_subject.encode("utf-8", "surrogateescape")
        plain = self.expected.endswith(b".>") and b"*" not in self.expected
        self.prefix: bytes = self.expected[:-1] if plain else b"\n"  # which begins no subject
        self.on_message: Callable[[WireMsg, Delivery], None] = on_message
        self._on_failure = on_failure
        self._on_idle = on_idle
        self._on_restart = on_restart
        self._before = before
        self._placer = placer
        self._policy = deliver_policy
        self._start_seq = start_seq
        self._heartbeat = heartbeat
        if not 0.001 <= inactive_threshold <= LONGEST_THRESHOLD:
            raise ConfigError(f"inactive_threshold must be 0.001 to {LONGEST_THRESHOLD} seconds")
        self._inactive_threshold = inactive_threshold
        self._headers_only = headers_only
        self._single = single
        self._created = created
        self._budget = js.client.connection.options.retry_budget if retry_budget is None else retry_budget
        self._patience = patience
        self.limit: float | None = limit
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self._connection = js.client.connection
        self.current: _Incarnation | None = None
        self.stopped: bool = False
        self._paused = False
        self._held: bytes | None = None  # reply subject of a flow control request to be answered later
        self._answering: asyncio.Task[None] | None = None
        self.active: float = 0.0
        self.proven: float = 0.0
        self._seen = 0  # stream_seq at the last check
        self._quiet = 0  # checks since then
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._leftover: list[str] = []  # names of consumers still to be deleted on the server
        self._deadline: float | None = None  # of the attempts since the last progress
        self._backoff = Backoff()
        self.stream_seq: int = max(0, start_seq - 1) if start_seq is not None else 0
        self.restarts: int = 0
        self.silent: int = 0

    # -- life -------------------------------------------------------------------------------------

    async def start(self) -> ConsumerInfo:
        """Create the consumer; ``num_pending`` of the answer counts the messages that match now.

        Raises:
            APIError, NatsError: the creation failed; nothing is left behind.
        """
        self.stopped = False
        self._deadline = None
        try:
            if self._policy == "new":
                # Ask only once which message is the next one: a consumer that starts over would skip what
                # was stored meanwhile, and a server that is behind would deliver older messages.
                last = (await self._js.stream_info(self.stream)).last_seq
                self._policy, self._start_seq, self.stream_seq = "by_start_sequence", last + 1, last
            info = await self._create()
        except RequestTimeoutError:
            self._halt()
            self._forget()  # a server that did not answer that will not answer the deletion
            raise
        except BaseException as exc:
            self._halt()
            if isinstance(exc, PermissionsViolationError) and exc.certain:
                self._leftover.clear()  # there is none to delete, and that may be forbidden, too
            await self.stop()
            raise
        self._arm()
        return info

    async def _create(self) -> ConsumerInfo:
        """Subscribe and create; a failed consumer stays :attr:`current`, for the caller to drop."""
        connection = self._connection
        connection.check_headers("an ordered consumer")
        incarnation = _Incarnation(self, self._js.client.new_inbox().encode())
        connection.subscribe(incarnation)
        self.current = incarnation
        self.active = self.proven = incarnation.since = self.loop.time()
        self._quiet = 0
        info = await self._js.create_consumer(self.stream, self._config(incarnation), timeout=self._patience)
        incarnation.created = True
        return info

    def _config(self, incarnation: _Incarnation) -> dict[str, object]:
        config: dict[str, object] = {
            "name": incarnation.name,
            "deliver_subject": incarnation.subject.decode(),
            "deliver_policy": self._policy,
            "ack_policy": "none",
            "max_deliver": 1,
            "ack_wait": 22 * 3600 * 1_000_000_000,
            "replay_policy": "instant",
            "filter_subject": self._filter,
            "flow_control": True,
            "idle_heartbeat": int(self._heartbeat * 1_000_000_000),
            "inactive_threshold": int(self._inactive_threshold * 1_000_000_000),
            "num_replicas": 1,
            "mem_storage": True,
        }
        if self._headers_only:
            config["headers_only"] = True
        if self._single:  # nothing is ever acknowledged
            config.update(ack_policy="explicit", max_ack_pending=1)
        if self.stream_seq:
            config["deliver_policy"] = "by_start_sequence"
            config["opt_start_seq"] = self.stream_seq + 1
        elif self._start_seq is not None:
            config["opt_start_seq"] = self._start_seq
        return config

    async def stop(self) -> None:
        """Unsubscribe and delete the consumer on the server. Idempotent; never raises for a lost server."""
        self._halt()
        task, self._task = self._task, None
        if task is not None and task is not asyncio.current_task():
            task.cancel()
            await asyncio.wait([task])
        if self._answering is not None:
            await asyncio.wait([self._answering])
        if self._connection.session is not None:
            await self._clean()
        else:
            self._forget()  # sent after the reconnect, if there is one

    def _halt(self) -> None:
        """The part of :meth:`stop` that does not wait: even a cancelled stop leaves nothing subscribed."""
        self.stopped = True
        if self._timer is not None:
            self._timer.cancel()
        if self._answering is not None:
            self._answering.cancel()
        self._drop()

    def _forget(self) -> None:
        """Ask the server to delete the abandoned consumers, without waiting for answers."""
        forget_consumers(self._js, self.stream, self._leftover)

    def release(self) -> None:
        """Forget the callbacks, after :meth:`stop`: they may refer to this consumer and to received data.

        Otherwise all of that would stay in memory until the next garbage collection.
        """
        self.on_message = self._on_failure = self._on_idle = self._on_restart = _nothing
        self._placer = self._before = None

    def wants(self, subject: bytes) -> bool:
        """Whether the filter lets a subject through."""
        return subject_matches(self._filter, subject.decode("utf-8", "surrogateescape"))

    def _drop(self) -> None:
        """Stop listening to the current consumer; :meth:`_clean` deletes it."""
        incarnation, self.current = self.current, None
        self._held = None
        if incarnation is not None:
            # Only new messages are progress: a server can send old ones for ever.
            if self.stream_seq > incarnation.began or incarnation.alive or self._paused:
                self._deadline = None
            self._leftover.append(incarnation.name)
            self._connection.unsubscribe(incarnation)

    async def _clean(self) -> None:
        """Delete the abandoned consumers; a failed deletion is tried again, or the consumer expires."""
        while self._leftover:
            name = self._leftover[-1]
            try:
                await self._js.request(
                    f"CONSUMER.DELETE.{self.stream}.{name}", timeout=min(DELETE_TIMEOUT, self._js.timeout)
                )
            except NatsError as exc:
                if not isinstance(exc, APIError) or retryable(exc):
                    return
            if name in self._leftover:
                self._leftover.remove(name)

    @property
    def first_seq(self) -> int:
        """The lowest sequence that the next consumer would deliver."""
        return self.stream_seq + 1 if self.stream_seq else self._start_seq or 1

    # -- back-pressure ----------------------------------------------------------------------------

    def pause(self) -> None:
        """Stop answering flow control: the server pauses after its window (2 to 32 MiB)."""
        self._paused = True

    def resume(self) -> None:
        """Answer flow control again, starting with a request held back."""
        self._paused = False
        if self._held is not None:
            reply, self._held = self._held, None
            self._answer(reply)

    def _answer(self, reply: bytes) -> None:
        connection = self._connection
        if connection.session is None:
            return
        if not connection.congested:
            connection.publish(reply, b"")
            return
        # A server that does not read may send requests for ever. Only the last one counts, and answering it
        # now would not send the answer any sooner.
        self._held = reply
        if self._answering is None:
            self._answering = self.loop.create_task(self._answer_later(), name="natsproto-flow-control")

    async def _answer_later(self) -> None:
        try:
            await self._connection.drain()
            if self._held is not None and not self._paused and self._connection.session is not None:
                reply, self._held = self._held, None
                self._connection.publish(reply, b"")
        except NatsError:
            pass  # the connection has ended, which others report
        finally:
            self._answering = None
            self._connection.flush_now()

    # -- the reading side -------------------------------------------------------------------------

    def control(self, incarnation: _Incarnation, msg: WireMsg) -> None:
        """Handle a heartbeat or a flow control request."""
        assert msg.header is not None
        reply = msg.reply
        if reply is None:
            reply = header_value(msg.header, b"Nats-Consumer-Stalled")
            last = header_value(msg.header, b"Nats-Last-Consumer")
            if last is not None and last.isdigit() and int(last[:20]) != incarnation.consumer_seq:
                self.restart()  # a gap at the end, or it has started over
                return
            if reply is None:
                # Servers wait a whole interval before they report that nothing is due. A peer that reports it
                # at once could make us create consumers for ever, without a pause.
                incarnation.alive |= self.active - incarnation.since > self._heartbeat / 2
                self._call(self._on_idle)
                return
        if not is_flow_control(reply, self.stream, incarnation.name):
            return  # not from the server: somebody wants us to publish there
        if self._paused:
            self._held = reply
        else:
            self._answer(reply)

    def place(self, incarnation: _Incarnation, msg: WireMsg, size: int) -> Target:
        """Return the ``placer``'s destination of a large payload."""
        if self._placer is None or incarnation is not self.current or self.stopped:
            return None
        delivery = parse_ack_subject(msg.reply)
        if (
            delivery is None
            or delivery.consumer != incarnation.name
            or delivery.consumer_seq <= incarnation.consumer_seq
        ):
            return None
        try:
            return self._placer(msg, size)
        except Exception as exc:
            self.fail(exc)
            return None

    def _call(self, callback: Callable[[], None] | None) -> None:
        if callback is not None:
            try:
                callback()
            except Exception as exc:
                self.fail(exc)

    # -- restart ----------------------------------------------------------------------------------

    def _arm(self) -> None:
        if self.stopped:
            return
        self._timer = self.loop.call_later(self._heartbeat, self._check)

    def _check(self) -> None:
        now = self.loop.time()
        if now - self.active > self._heartbeat * MISSED_HEARTBEATS:
            before = self.active  # read now: a message may come before the task runs
            self._spawn(lambda: self._verify_silence(before))
        elif now - self.proven > PROOF_INTERVAL:
            self._spawn(self._prove)
        if self.limit is not None and self._stalled(self.limit):
            self.fail(
                RequestTimeoutError(f"stream {self.stream!r} sent neither a message nor an end of them")
            )
        self._arm()

    def _stalled(self, limit: float) -> bool:
        """Whether no message came for ``limit`` seconds.

        The time is counted in checks: an application that did not run has missed many, and makes one.
        """
        if self._paused or self._seen != self.stream_seq:
            self._seen, self._quiet = self.stream_seq, 0
        elif self._task is None:
            self._quiet += 1
        return self._quiet > MISSED_HEARTBEATS and self._quiet * self._heartbeat >= limit

    def _spawn(self, work: Callable[[], Coroutine[object, None, None]]) -> None:
        """Run ``work`` unless a task runs already, which will create a new consumer anyway."""
        if not self.stopped and (self._task is None or self._task.done()):
            self._task = self.loop.create_task(work(), name="natsproto-ordered")
            self._task.add_done_callback(self._task_done)

    def _task_done(self, task: asyncio.Task[None]) -> None:
        if self._task is task:
            self._task = None
        if not task.cancelled():
            exc = task.exception()
            if exc is not None:
                self.fail(exc)

    async def _verify_silence(self, before: float) -> None:
        end = self.loop.time() + self._budget
        while True:
            reads = self._reads()
            try:
                await self._js.client.flush(PONG_TIMEOUT)  # then all that the server had sent is processed
                if self.current is not None and self.active == before == self.current.since:
                    self.silent += 1
                break
            except NatsError:
                # On a slow link the answer waits behind a large message, while bytes keep coming.
                if self.active != before or self._reads() == reads or self.loop.time() > end:
                    break
        if self.current is not None and self.active == before:
            self._drop()
            self._call(self._on_restart)
        if self.current is None:
            await self._recreate()

    async def _prove(self) -> None:
        """Ask whether the consumer is still there, if anybody may be the one who sends its heartbeats."""
        incarnation = self.current
        if incarnation is not None and not await self._may_be_there(incarnation):
            self._drop()
            self._call(self._on_restart)
        if self.current is None:
            await self._recreate()

    async def _may_be_there(self, incarnation: _Incarnation) -> bool:
        if self._may_ask:
            try:
                await self._js.consumer_info(self.stream, incarnation.name)
            except (ConsumerNotFoundError, StreamNotFoundError):
                return False
            except PermissionsViolationError:
                self._may_ask = False  # asked once: the server logs each refusal
            except NatsError:
                return True  # no leader, or no connection: the next check asks again
            else:
                self.proven = self.loop.time()
                return True
        return self._paused  # a new one would not wait for us

    def _reads(self) -> int:
        session = self._connection.session
        return -1 if session is None else session.reads

    def restart(self) -> None:
        """Abandon the current consumer, and create a new one from after the last message delivered."""
        if not self.stopped:
            self._drop()
            self._call(self._on_restart)
            self._spawn(self._recreate)

    async def _recreate(self) -> None:
        failure: NatsError | None = None
        while not self.stopped:
            self._drop()
            if self._deadline is None:
                self._deadline = self.loop.time() + self._budget
                self._backoff.reset()
            elif self.loop.time() > self._deadline:
                raise failure or RequestTimeoutError(
                    f"a consumer of stream {self.stream!r} made no progress within {seconds(self._budget)} s"
                )
            else:
                await asyncio.sleep(self._backoff.seconds)
                self._backoff.grow()
            if self._before is not None:
                began = self.loop.time()
                await self._before()
                self._deadline += self.loop.time() - began
            self.restarts += 1
            limit = max(self._deadline, self.loop.time() + LAST_ATTEMPT)
            try:
                async with asyncio.timeout_at(limit):
                    await self._connection.wait_connected(max(0.1, self._deadline - self.loop.time()))
                    if failure is None:
                        await self._clean()
                    await self._check_stream()
                    await self._create()
                    if failure is not None:
                        await self._clean()  # only now: an unanswered deletion may wait for a dead server
            except (ConnectionClosedError, StreamNotFoundError):
                raise
            except NatsError as exc:
                if not retryable(exc):
                    raise
                failure = exc
            except TimeoutError:
                continue  # the budget is used up
            else:
                if self.current is not None:
                    return
                failure = None  # a gap during the creation: try again

    async def _check_stream(self) -> None:
        """Fail if the stream was recreated: its sequences start over, and ours might never come."""
        if self._created is None:
            return
        info = await self._js.stream_info(self.stream)
        if info.created != self._created:
            raise StreamNotFoundError(404, 10059, f"stream {self.stream} was deleted and created again")

    def fail(self, exc: BaseException) -> None:
        """Stop, and report ``exc`` to ``on_failure``. Idempotent."""
        if not self.stopped:
            self.stopped = True
            if self._timer is not None:
                self._timer.cancel()
            self._drop()
            try:
                self._on_failure(exc)
            except Exception as error:
                self._connection.unexpected(error)
