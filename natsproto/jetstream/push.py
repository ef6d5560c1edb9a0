"""Push consumers: the server sends to a subject, this client subscribes to it and acknowledges (ADR-15).

The subscription survives a reconnect. Whether the consumer has survived, too, is asked then, and whenever
heartbeats are missed: they count as missed only after a PING was answered, so an application that did not run
for a while does not mistake its own pause for the server's. A consumer that is gone ends the iteration; one
that is only silent is reported to ``error_cb``.

Anybody may publish to the deliver subject. Only deliveries of this consumer of this stream are passed on, and
a flow control request is answered only if the consumer has flow control, and on a subject of the form that
servers use for this consumer. What such a message claims about the consumer's end is never believed: the
server is asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from math import inf
from typing import TYPE_CHECKING

from .._values import brief, seconds
from ..aio.msg import Msg
from ..aio.options import check_integer
from ..aio.subscription import Subscription
from ..errors import ConfigError, NatsError, PermissionsViolationError
from ..headers import header_value, status_of
from ..subjects import check_publish_subject, check_queue, secret_name
from .api.acks import is_flow_control, parse_ack_subject
from .api.codec import from_ns
from .api.errors import ConsumerNotFoundError, StreamNotFoundError, check_name, check_new_name
from .api.models import ConsumerConfig, ConsumerInfo
from .api.statuses import ConsumerDeletedError, ConsumerInUseError, MissedHeartbeatError
from .message import JetStreamMsg

if TYPE_CHECKING:
    from types import TracebackType

    from ..wire import Msg as WireMsg
    from .context import JetStreamContext

PENDING_MSGS = 512 * 1024
"""Messages that may wait to be read, by default: with flow control, a server sends up to 32 MiB of them."""

MISSED_HEARTBEATS = 2.5
"""Heartbeat intervals of silence after which they count as missed."""

PONG_TIMEOUT = 2.0
"""Seconds to wait for the answer to a PING before silence counts."""

FREE_PAUSES = (0.02, 0.05, 0.1, 0.2, 0.4)
"""Seconds between looks at a consumer that is in use: servers notice late that the last listener has gone."""

CHECK_INTERVAL = 30.0
"""Seconds between checks whether a consumer without heartbeats still exists: no server reports its end."""

CHECK_PAUSE = 1.0
"""Seconds between two checks at least: anybody may send messages that ask for one."""


class _Deliveries(Subscription):
    """The subscription to the deliver subject."""

    __slots__ = ("frame", "owner")

    owner: PushConsumer
    frame: WireMsg  # the message taken last

    def deliver(self, msg: WireMsg) -> None:
        owner = self.owner
        if msg.subject == self.subject and msg.header is not None and not msg.payload:
            status = status_of(msg.header)
            if status is not None:
                owner.on_status(status, msg)
                return
        delivery = parse_ack_subject(msg.reply)
        if delivery is None or delivery.consumer != owner.name or delivery.stream != owner.stream:
            return
        owner.on_delivery()
        super().deliver(msg)

    def _take(self) -> Msg:
        self.frame = self._msgs[0]  # no other task runs before the caller gets the message
        return super()._take()

    def on_reconnect(self) -> None:
        self.owner.on_reconnect()

    def on_refused(self, subject: bytes, exc: BaseException) -> int:
        if not is_flow_control(subject, self.owner.stream, self.owner.name):
            return super().on_refused(subject, exc)
        self.owner.on_failure(exc)  # without an answer the server silently stops sending
        return 1

    def on_end(self, exc: BaseException | None) -> None:
        super().on_end(exc)
        self.owner.on_end()


class PushConsumer:
    """A bound push consumer, from :meth:`natsproto.JetStreamContext.push_consumer`.

    ``async for`` ends after :meth:`unsubscribe` and when the application closes the client; it raises when
    the consumer is gone, the connection is lost for good, or the server refuses the subject. When the queue
    is full, new messages are dropped and counted in :attr:`dropped`, and delivered again after ``ack_wait``
    if the consumer asks for acknowledgements. With ``flow_control`` the server waits instead: its requests
    are answered when the messages before them were read.

    Attributes:
        stream: the stream's name.
        name: the consumer's name.
        info: its configuration and state when it was bound.
    """

    info: ConsumerInfo

    def __init__(
        self,
        js: JetStreamContext,
        stream: str,
        name: str,
        config: Mapping[str, object],
        *,
        temporary: bool,
        pending_msgs_limit: int | None,
        pending_bytes_limit: int | None,
    ) -> None:
        client = js.client
        options = client.connection.options
        deliver_subject, group = config.get("deliver_subject"), config.get("deliver_group")
        heartbeat = from_ns(config.get("idle_heartbeat"))
        self.stream: str = stream
        self.name: str = name
        self._js = js
        self._connection = client.connection
        self._loop = asyncio.get_running_loop()
        self._temporary = temporary  # nobody else knows it: it goes with this object
        # The members of a queue group share the heartbeats, too: each of them misses some.
        self._heartbeat = 0.0 if heartbeat is None or group else heartbeat.total_seconds()
        self._flow_control = bool(config.get("flow_control"))
        self._active = self._proven = self._loop.time()
        self._missing = False  # missed heartbeats were reported, and nothing has come since
        self._held: bytes | None = None  # a flow control request to be answered
        self._ahead = 0  # after so many messages were read
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._again = False  # whether to check once more
        self._checked = -inf
        self._may_ask = True
        self._deliveries = _Deliveries(
            client,
            check_publish_subject(deliver_subject if isinstance(deliver_subject, str) else ""),
            check_queue(group) if isinstance(group, str) and group else None,
            max_msgs=0,
            pending_msgs_limit=PENDING_MSGS if pending_msgs_limit is None else pending_msgs_limit,
            pending_bytes_limit=(
                options.pending_bytes_limit if pending_bytes_limit is None else pending_bytes_limit
            ),
        )
        self._deliveries.owner = self

    async def start(self, config: Mapping[str, object] | None, info: ConsumerInfo | None) -> None:
        """Subscribe, and create the consumer from ``config``, unless it exists: then ``info`` is its own."""
        self._connection.subscribe(self._deliveries)
        try:
            created = info if config is None else await self._js.create_consumer(self.stream, config)
            assert created is not None
        except BaseException:
            self._connection.unsubscribe(self._deliveries)
            raise
        self.info = created
        self._arm()

    # -- the application's side -------------------------------------------------------------------

    @property
    def pending_msgs(self) -> int:
        """Number of unread messages."""
        return self._deliveries.pending_msgs

    @property
    def pending_bytes(self) -> int:
        """Bytes of the unread messages, with headers, subjects and reply subjects."""
        return self._deliveries.pending_bytes

    @property
    def dropped(self) -> int:
        """Messages that were dropped because the queue was full."""
        return self._deliveries.dropped

    async def next_msg(self, timeout: float | None = None) -> JetStreamMsg:
        """Return the next message.

        Args:
            timeout: seconds; ``None`` waits until a message comes or the consumer ends.

        Raises:
            RequestTimeoutError: none came in time; the consumer continues.
            ConsumerDeletedError: the consumer is gone.
            ConnectionClosedError: the subscription has ended and its queue is empty.
        """
        await self._deliveries.next_msg(timeout)
        return self._read(self._deliveries.frame)

    def __aiter__(self) -> AsyncIterator[JetStreamMsg]:
        return self

    async def __anext__(self) -> JetStreamMsg:
        await anext(self._deliveries)
        return self._read(self._deliveries.frame)

    def _read(self, frame: WireMsg) -> JetStreamMsg:
        if self._held is not None:
            self._ahead -= 1
            self._answer()
        delivery = parse_ack_subject(frame.reply)
        assert delivery is not None  # deliver() has parsed it
        return JetStreamMsg(frame, self._js.client, delivery)

    async def unsubscribe(self) -> None:
        """End the subscription now; queued messages stay readable. The consumer stays on the server."""
        await self._deliveries.unsubscribe()

    async def drain(self, timeout: float | None = None) -> None:
        """Unsubscribe, receive what the server has already sent, and wait until the queue is read.

        Raises:
            RequestTimeoutError: the queue was not read within ``timeout`` (default: ``drain_timeout``).
        """
        await self._deliveries.drain(timeout)

    async def delete(self) -> None:
        """Unsubscribe, and delete the consumer on the server."""
        await self.unsubscribe()
        await self._js.delete_consumer(self.stream, self.name)

    async def __aenter__(self) -> PushConsumer:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Unsubscribe; a consumer that got a random name here is deleted, too."""
        await self._deliveries.__aexit__(kind, exc, trace)
        if self._temporary:
            try:
                await self._js.delete_consumer(self.stream, self.name)
            except NatsError:
                pass  # it expires by itself

    # -- the reading side -------------------------------------------------------------------------

    def on_delivery(self) -> None:
        """A message has come, so the consumer is there."""
        self._proven = self._loop.time()
        self._on_sign()

    def _on_sign(self) -> None:
        """Note a sign of life. A heartbeat proves nothing: it may be that of somebody's pull."""
        self._active = self._loop.time()
        self._missing = False

    def on_status(self, status: int, msg: WireMsg) -> None:
        """Handle a heartbeat, a flow control request, or what claims that the consumer has ended."""
        assert msg.header is not None
        if status != 100:
            self._check_soon()
            return
        self._on_sign()
        reply = msg.reply or header_value(msg.header, b"Nats-Consumer-Stalled")
        if reply is None or not is_flow_control(reply, self.stream, self.name):
            return  # a heartbeat; or somebody wants us to publish there
        if not self._flow_control:
            self._check_soon()  # not asked for; or the consumer is another one now
            return
        if reply != self._held:
            self._held, self._ahead = reply, self._deliveries.pending_msgs
        self._answer()

    def _answer(self) -> None:
        """Answer the flow control request if the messages before it were read.

        Not while the connection takes no more: a server that waits repeats the request in its heartbeats.
        """
        connection = self._connection
        if self._ahead <= 0 and self._held is not None and not connection.congested:
            reply, self._held = self._held, None
            if connection.session is not None:
                connection.publish(reply, b"")

    def on_reconnect(self) -> None:
        """Connected again: the subscription is restored; the consumer may be gone, or its server."""
        self._held = None
        self._on_sign()
        self._check_soon()

    def on_end(self) -> None:
        """No more messages will come."""
        self._held = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()

    # -- whether the consumer is there --------------------------------------------------------------

    @property
    def _listens(self) -> bool:
        return self._connection.handlers.get(self._deliveries.sid) is self._deliveries

    def _arm(self) -> None:
        if self._listens:
            self._timer = self._loop.call_later(self._heartbeat or CHECK_INTERVAL, self._tick)

    def _tick(self) -> None:
        now = self._loop.time()
        silent = now - self._active > self._heartbeat * MISSED_HEARTBEATS
        doubtful = self._may_ask and now - self._proven > CHECK_INTERVAL
        if (silent or doubtful) and self._connection.session is not None:
            self._check_soon()
        self._arm()

    def _check_soon(self) -> None:
        if self._task is not None:
            self._again = True  # what it asks may be out of date, or is lost with the connection
        elif self._listens:
            self._task = self._loop.create_task(self._check(), name="natsproto-push")
            self._task.add_done_callback(self._check_done)

    def on_failure(self, exc: BaseException) -> None:
        """End the subscription with an error."""
        self._deliveries.on_end(exc)  # first: the reason
        self._connection.unsubscribe(self._deliveries)

    def _check_done(self, task: asyncio.Task[None]) -> None:
        self._task = None
        exc = None if task.cancelled() else task.exception()
        if exc is not None:
            self.on_failure(exc)
        elif self._again:
            self._check_soon()

    async def _check(self) -> None:
        """Ask whether the consumer is still there, and delivers here.

        Raises:
            ConsumerDeletedError, ConsumerInUseError: it does not.
        """
        await asyncio.sleep(max(0.0, self._checked + CHECK_PAUSE - self._loop.time()))
        self._again = False
        self._checked = self._loop.time()
        before = self._active
        silent = self._heartbeat > 0 and self._checked - before > self._heartbeat * MISSED_HEARTBEATS
        if silent:
            try:
                await self._js.client.flush(PONG_TIMEOUT)  # then all that the server had sent is processed
            except NatsError:
                return  # the connection is silent, not the consumer
            if self._active != before:
                return
        if self._may_ask:
            await self._ask()
        if silent and self._active == before and not self._missing:
            self._missing = True
            self._connection.report(
                MissedHeartbeatError(
                    f"consumer {brief(self.name)} has sent neither a message nor a heartbeat, which is due "
                    f"every {seconds(self._heartbeat)} s"
                )
            )

    async def _ask(self) -> None:
        try:
            info = await self._js.consumer_info(self.stream, self.name)
        except (ConsumerNotFoundError, StreamNotFoundError):
            raise ConsumerDeletedError(404, 10014, f"consumer {brief(self.name)} was deleted") from None
        except PermissionsViolationError:
            self._may_ask = False
        except NatsError:
            pass  # no leader or no connection at the moment
        else:
            self._proven = self._loop.time()
            if info.config.deliver_subject != self._deliveries.subject.decode():
                raise ConsumerInUseError(f"consumer {brief(self.name)} delivers to another subject now")
            self._flow_control = bool(info.config.flow_control)

    def __repr__(self) -> str:
        return f"<PushConsumer {self.stream}/{self.name} pending_msgs={self.pending_msgs}>"


async def bind(
    js: JetStreamContext,
    stream: str,
    consumer: str | None,
    config: ConsumerConfig | Mapping[str, object] | None,
    pending_msgs_limit: int | None,
    pending_bytes_limit: int | None,
) -> PushConsumer:
    """See :meth:`natsproto.JetStreamContext.push_consumer`."""
    check_name("stream", stream)
    limits = {"pending_msgs_limit": pending_msgs_limit, "pending_bytes_limit": pending_bytes_limit}
    for what, limit in limits.items():
        if limit is not None:
            check_integer(what, limit, 1)
    if (consumer is None) == (config is None):
        raise ConfigError("give the name of a consumer or the configuration of a new one")
    js.client.connection.check_open()
    js.client.connection.check_headers("a push consumer")
    document: dict[str, object] = {}
    if config is not None:
        document = config.to_json() if isinstance(config, ConsumerConfig) else dict(config)
        consumer = _checked_name(document)
    info = None if consumer is None else await _existing(js, stream, consumer, created=config is not None)
    if info is not None:
        bound = info.config
        if not bound.deliver_subject:
            raise ConfigError(f"consumer {brief(info.name)} is a pull consumer: fetch from it")
        if not bound.deliver_group:
            await _wait_until_free(js, info)
        if config is None:
            document = bound.to_json()
        # Whoever has created it with other filters may not be allowed to read what ours lets through. But an
        # inbox like ours is that of another instance of this program.
        ours = bound.deliver_subject.startswith(f"{js.client.connection.options.inbox_prefix}.")
        if ours or _filters(document) == _filters(bound.to_json()):
            document.setdefault("deliver_subject", bound.deliver_subject)
    temporary = consumer is None
    document.setdefault("deliver_subject", js.client.new_inbox())
    document["name"] = name = secret_name() if consumer is None else consumer
    push = PushConsumer(
        js,
        stream,
        name,
        document,
        temporary=temporary,
        pending_msgs_limit=pending_msgs_limit,
        pending_bytes_limit=pending_bytes_limit,
    )
    await push.start(document if config is not None else None, info)
    return push


def _filters(document: Mapping[str, object]) -> set[object]:
    """Return the subjects that a consumer delivers; empty for all."""
    several = document.get("filter_subjects")
    return {document.get("filter_subject"), *(several if isinstance(several, list) else ())} - {None, "", ">"}


async def _wait_until_free(js: JetStreamContext, info: ConsumerInfo) -> None:
    """Raise ``ConsumerInUseError`` if somebody else listens, and still does a moment later."""
    for pause in (*FREE_PAUSES, None):
        if info.raw.get("push_bound") is not True:
            return
        if pause is not None:
            await asyncio.sleep(pause)
            info = await js.consumer_info(info.stream, info.name)
    raise ConsumerInUseError(f"consumer {brief(info.name)} delivers to somebody else")


def _checked_name(document: Mapping[str, object]) -> str | None:
    """Check the configuration of a push consumer as far as the server does not; return its name, if any."""
    heartbeat, flow_control = document.get("idle_heartbeat"), document.get("flow_control")
    if document.get("deliver_group") and (heartbeat or flow_control):
        raise ConfigError("a queue group shares heartbeats and flow control, too: give it neither")
    if flow_control and not heartbeat:
        raise ConfigError("flow_control needs an idle_heartbeat: it repeats a request that was lost")
    name = document.get("name") or document.get("durable_name")
    return None if name is None else check_new_name("consumer", name)


async def _existing(js: JetStreamContext, stream: str, name: str, *, created: bool) -> ConsumerInfo | None:
    """Return the consumer; ``None`` if it does not exist and will be created."""
    try:
        return await js.consumer_info(stream, name)
    except ConsumerNotFoundError:
        if not created:
            raise
        return None
