"""Pull consumers: fetch a batch, or iterate; acknowledge each message (ADR-13, ADR-37, ADR-42).

Who sees a pull request can have a server end it: by a request to another consumer with the same inbox. A
status names no consumer. So one that tells of a lasting reason counts if this consumer explains it, or cannot
be asked about; and one that tells of no reason counts when the request expires, not before.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from math import inf
from typing import TYPE_CHECKING

from .._values import brief, seconds
from ..aio.handlers import Handler, ReplySlot
from ..aio.options import check_integer, check_seconds
from ..errors import (
    ConfigError,
    ConnectionClosedError,
    NatsError,
    NoRespondersError,
    PermissionsViolationError,
    RemoteProtocolError,
    RequestTimeoutError,
    StaleConnectionError,
)
from ..headers import status_of
from .api.acks import parse_ack_subject
from .api.codec import dumps
from .api.errors import ConsumerNotFoundError, retryable
from .api.models import ConsumerConfig, ConsumerInfo
from .api.statuses import (
    LeadershipChangeError,
    MaxBytesError,
    MissedHeartbeatError,
    PassingPullError,
    PinIdMismatchError,
    PullLimitError,
    ServerShutdownError,
    pull_end,
)
from .consumers import bounds, explains, is_much, pinned, priority_fields
from .message import JetStreamMsg

if TYPE_CHECKING:
    from typing import Unpack

    from ..wire import Msg as WireMsg
    from .consumers import PriorityOptions
    from .context import JetStreamContext

GRACE = 1.0
"""Seconds that a fetch waits beyond the server's own expiry."""

LONGEST = 1e9
"""Seconds of the longest pull: 31 years, which servers can count in nanoseconds."""

LONG = 30.0
"""Seconds of a pull above which heartbeats are asked for by default (ADR-37)."""

DEFAULT_HEARTBEAT = 5.0
"""Seconds between those."""

MISSED_HEARTBEATS = 2
"""Heartbeat intervals of silence after which they count as missed (ADR-37)."""

PONG_TIMEOUT = 2.0
"""Seconds to wait for the answer to a PING before silence counts."""

PIN_HEADER = len(b"NATS/1.0\r\nNats-Pin-Id: 1234567890123456789012\r\n\r\n")
"""Bytes that a server may add to a message after it has counted it against ``max_bytes``."""

FIRST_PAUSE = 0.01
LONGEST_PAUSE = 1.0
"""Seconds between pulls that end early without messages: the first pause, and the longest."""

CONFIRM = 2.0
"""Seconds to wait for what the server says of the consumer, when a status claims a lasting reason."""

UNHEARD = 1.0
"""Seconds for which a fetch that nobody has heard is sent again: servers learn of consumers one by one."""

EARLY = 0.9
"""Part of a request's time before which no server lets it expire."""

MAX_PIN_ID = 128
"""Characters of the longest pin id that is sent back; servers use 22."""

INTEREST_EXPIRED = b" Interest Expired"
"""In the status of a request from another account that has ended early: its server saw no listener."""

_PLAIN_ENDS = (LeadershipChangeError, ServerShutdownError)
"""Ends that are no error of a fetch: the next one may succeed."""


class _Pull(Handler):
    """Collects the messages of one pull request.

    It has its own subscription: messages come with the subject they were published on, so the shared inbox
    of requests could not tell which pull they belong to.
    """

    __slots__ = (
        "_eager", "_waiter", "active", "asked", "claim", "consumer", "done", "doubted", "due", "failure",
        "heartbeat", "js", "limit", "msgs", "on_pin", "pin_id", "request", "room", "told", "wanted",
    )  # fmt: skip

    def __init__(
        self,
        js: JetStreamContext,
        info: ConsumerInfo,
        request: bytes,
        asked: Mapping[str, object],
        wanted: int,
        room: float,
        heartbeat: float,
    ) -> None:
        super().__init__(js.client.new_inbox().encode())
        self.js = js
        self.consumer = info.stream, info.name
        self.request = request
        self.asked = asked
        self.wanted = wanted
        self.room = room  # bytes that may still come
        self.msgs: deque[JetStreamMsg] = deque()
        self.failure: NatsError | None = None
        self.done = False
        self.told = False  # a status that was not believed has said that it is over
        self.claim: NatsError | None = None  # why it is over, by a status that is not checked yet
        self.doubted: NatsError | None = None  # the same, and the consumer does not explain it
        self.on_pin: Callable[[str], None] | None = None  # if messages come with a pin id (ADR-42)
        self.pin_id: str | None = None  # sent, or received last
        self.heartbeat = heartbeat
        self.active = 0.0  # when something came last, by the loop's clock
        self.due = 0.0  # before that it does not expire
        self.limit = inf  # when the server's own expiry is long over
        self._eager = False  # whether to wake up for each message
        self._waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def deliver(self, msg: WireMsg) -> None:
        if self.done:
            return
        if msg.subject == self.subject:
            if msg.header is not None and msg.reply is None and not msg.payload:
                self._status(msg.header)
            return
        delivery = parse_ack_subject(msg.reply)
        if delivery is None or (delivery.stream, delivery.consumer) != self.consumer:
            return  # of another stream's consumer: its creator chose its name and where it delivers
        if self.room < 0:
            self.finish(
                RemoteProtocolError(f"consumer {brief(self.consumer[1])} sends more than was asked for")
            )
            return
        added = PIN_HEADER if self.on_pin is not None else 0
        self.room -= len(msg.payload) + max(0, len(msg.header or b"") - added)
        if self.heartbeat:
            self._alive()
        if self.on_pin is not None and msg.header is not None and (pin := _pin_id(msg.header)) is not None:
            self.pin_id = pin
            self.on_pin(pin)
        self.msgs.append(JetStreamMsg(msg, self.js.client, delivery))
        self.wanted -= 1
        if self.wanted == 0:
            self.finish()
        elif self._eager:
            self._wake()

    def _alive(self) -> None:
        self.active = asyncio.get_running_loop().time()

    def _status(self, block: bytes) -> None:
        status = status_of(block)
        if status is None:
            return
        self._alive()
        if status == 503:
            self.finish(NoRespondersError(self.request.decode(), "the consumer has no leader"))
        elif status != 100:  # which is a heartbeat
            self._end(pull_end(status, block), block)

    def _end(self, end: NatsError | None, block: bytes) -> None:
        """A status has said that the pull is over; see the module."""
        expired = asyncio.get_running_loop().time() >= self.due or INTEREST_EXPIRED in block
        if isinstance(end, PassingPullError) or (end is None and expired):
            self.finish(end)
            return
        self.told = True
        if end is not None:
            self.claim = end
            self._wake()

    def on_end(self, exc: BaseException | None) -> None:
        self.lost(exc or ConnectionClosedError("the client was closed"))

    def lost(self, exc: BaseException) -> None:
        self.finish(exc if isinstance(exc, NatsError) else StaleConnectionError(str(exc)))

    def finish(self, failure: NatsError | None = None) -> None:
        if not self.done:
            self.done = True
            self.failure = failure
            self.claim = None
            self._wake()

    def _wake(self) -> None:
        if not self._waiter.done():
            self._waiter.set_result(None)

    async def wait(self, *, eager: bool = False) -> None:
        """Wait until the pull has ended, or a status claims it, or (``eager``) until there is a message."""
        loop = asyncio.get_running_loop()
        self._eager = eager
        while not self.done and self.claim is None and not (eager and self.msgs):
            self._waiter = loop.create_future()
            try:
                async with asyncio.timeout_at(self._due()):
                    await self._waiter
            except TimeoutError:
                if loop.time() >= self._due():  # else heartbeats have come meanwhile
                    await self._overdue(eager)

    def _due(self) -> float:
        """When there should have been something, by the loop's clock."""
        if not self.heartbeat:
            return self.limit
        return min(self.limit, self.active + MISSED_HEARTBEATS * self.heartbeat)

    async def _overdue(self, eager: bool) -> None:
        """Nothing came for too long: end the pull, unless it was this program that did not run."""
        loop = asyncio.get_running_loop()
        before = self.active
        name = brief(self.consumer[1])
        client = self.js.client
        if loop.time() < self.limit or eager:
            try:
                await client.flush(PONG_TIMEOUT)  # then all that the server had sent is processed
            except NatsError:
                pass
        if self.done or self.claim is not None:
            return
        if loop.time() >= self.limit and self.told:
            self.finish(self.doubted)  # nothing has shown that it was false
        elif loop.time() >= self.limit:
            self.finish(RequestTimeoutError(f"no answer to a fetch from consumer {name}"))
            client.connection.probe()
        elif self.active == before:
            self.finish(
                MissedHeartbeatError(
                    f"consumer {name} has sent neither a message nor a heartbeat, which is due "
                    f"every {seconds(self.heartbeat)} s"
                )
            )


class _Watch(ReplySlot):
    """Tells a pull that the connection was lost, or that its request was not permitted."""

    __slots__ = ("pull",)

    def __init__(self, pull: _Pull) -> None:
        super().__init__(pull.request)
        self.pull = pull

    def on_lost(self, exc: BaseException) -> None:
        self.pull.lost(exc)


class PullConsumer:
    """A bound pull consumer; see :meth:`natsproto.JetStreamContext.pull_consumer`."""

    def __init__(self, js: JetStreamContext, info: ConsumerInfo) -> None:
        self._js = js
        self.info = info
        self._newest = info
        self._subject = js.subject(f"CONSUMER.MSG.NEXT.{info.stream}.{info.name}")
        self._pin_id: str | None = None
        self._last_end: NatsError | None = None

    @property
    def name(self) -> str:
        """The consumer's name."""
        return self.info.name

    @property
    def pin_id(self) -> str | None:
        """The id under which this client is pinned (policy ``pinned_client``); ``None`` while it is not."""
        return self._pin_id

    @property
    def last_end(self) -> NatsError | None:
        """Why the newest pull ended before its time, also when it returned messages or an empty list.

        ``None``: it was complete, or has expired, or there were no messages.
        """
        return self._last_end

    async def fetch(
        self,
        batch: int = 1,
        *,
        timeout: float = 5.0,
        max_bytes: int | None = None,
        no_wait: bool = False,
        idle_heartbeat: float | None = None,
        **priority: Unpack[PriorityOptions],
    ) -> list[JetStreamMsg]:
        """Fetch up to ``batch`` messages.

        Returns the messages that came within ``timeout`` seconds. An empty stream is no error: ``[]``; nor is
        a change of the leader, or a server that shuts down: :attr:`last_end` tells.

        Without ``max_bytes`` it returns what fits into 8 MiB, but at least one message if there is one: a
        server ends a connection for which too much waits. ``last_end`` is a ``MaxBytesError`` then.

        Other clients can have a server end a request that they see, by one of theirs. So the server is asked
        whether the consumer is gone, or does not allow the request. If it cannot be asked, that counts at
        once. If it contradicts, the fetch goes on, and raises that when the time is over without any sign
        that the server has the request.

        In a cluster, the server of this client may not have heard yet of a consumer that was created just
        now, and says that nobody listens. If the consumer is there, and no request waits for it, the fetch is
        sent again, for up to a second.

        Args:
            batch: the most messages to fetch.
            timeout: seconds to wait for them, and before that for a lost connection to come back.
            max_bytes: most bytes of the batch. Do not use it with the deliver policy ``last_per_subject``,
                whatever the ack policy: the message that does not fit is never delivered (seen with
                nats-server 2.9.10 and 2.15.1). Before nats-server 2.10.16, one that is delivered again loses
                a delivery so. Other consumers begin the next batch with it. By default, those that would
                lose it, and all before nats-server 2.11, are asked for fewer messages at a time instead: 15,
                if ``max_payload`` is 1 MiB. Then ``fetch`` asks again until it has 8 MiB.
            no_wait: return at once with the messages that are available.
            idle_heartbeat: seconds, at most half of ``timeout``: that often the server reports that it is
                there while it has no message (ADR-13, ADR-37). After twice that time without anything, and
                an answered PING, the fetch ends. 0 = none; by default 5 if ``timeout`` is above 30.
            **priority: see :class:`natsproto.jetstream.consumers.PriorityOptions` (ADR-42, nats-server 2.11).

        Raises:
            ConsumerNotFoundError: the consumer is gone.
            PullError: the server refuses the request; :mod:`natsproto.jetstream.api.statuses` has a class for
                each reason: a limit of the consumer, or the next message exceeds ``max_bytes``, or another
                client is pinned.
            ConfigError: the options do not fit together, or the consumer; nothing was sent.
            MissedHeartbeatError: the server answers, but sends neither messages nor heartbeats.
            NoRespondersError: the consumer has no leader at the moment, or its server is not reached.
            RemoteProtocolError: more than ``max_bytes`` came.
            StaleConnectionError: the connection was lost before any message came.
            RequestTimeoutError: the server did not answer at all.
        """
        clock = asyncio.get_running_loop().time
        found: list[JetStreamMsg] = []
        ends, left, pause, missing = 0.0, timeout, FIRST_PAUSE, batch
        while True:
            pull = self._new_pull(missing, left, max_bytes, idle_heartbeat, priority, no_wait=no_wait)
            try:
                async with self._sent(pull, left):
                    await pull.wait()
                    while (claim := pull.claim) is not None:
                        await self._check(claim, pull)
                        await pull.wait()
            except NatsError:
                if found:
                    return found
                raise
            failure = pull.failure
            if isinstance(failure, RemoteProtocolError):
                raise failure
            found += pull.msgs
            ends = ends or pull.limit - GRACE
            left = ends - clock()
            fewer = failure is None and not pull.wanted and pull.asked["batch"] != missing
            if fewer and left > 0 and not is_much(found):
                missing = batch - len(found)
            elif failure is None or found or isinstance(failure, _PLAIN_ENDS):
                return found
            elif left > 0 and max_bytes is None and _asked_wrongly(pull):
                missing = 1
            else:
                reason, info = await self._reason(failure)
                left = ends - clock() - pause
                unheard = isinstance(failure, NoRespondersError) and reason is failure
                unheard = unheard and (info is None or info.num_waiting == 0)
                if not unheard or left <= max(timeout - UNHEARD, 0):
                    raise reason
                await asyncio.sleep(pause)
                pause *= 2
            idle_heartbeat = min(pull.heartbeat, left / 2)

    def _new_pull(
        self,
        batch: int,
        timeout: float,
        max_bytes: int | None,
        idle_heartbeat: float | None,
        priority: PriorityOptions,
        *,
        no_wait: bool = False,
    ) -> _Pull:
        """Check the options; nothing is sent yet."""
        check_integer("batch", batch, 1)
        if not check_seconds("timeout", timeout) <= LONGEST:
            raise ConfigError(f"timeout must be at most {seconds(LONGEST)} s")
        if max_bytes is None:
            batch, max_bytes = bounds(self._newest, batch, self._js.client.max_payload)
        else:
            check_integer("max_bytes", max_bytes, 1)
        document: dict[str, object] = {"batch": batch}
        if max_bytes is not None:
            document["max_bytes"] = max_bytes
        heartbeat = 0.0
        if no_wait:
            if idle_heartbeat:
                raise ConfigError(
                    "a fetch that does not wait has no heartbeats: give no_wait or idle_heartbeat"
                )
            document["no_wait"] = True  # with an expiry, too, the server would wait after all
        else:
            heartbeat = (
                (DEFAULT_HEARTBEAT if timeout > LONG else 0.0) if idle_heartbeat is None else idle_heartbeat
            )
            if heartbeat:
                check_seconds("idle_heartbeat", heartbeat)
            if heartbeat > timeout / 2:
                raise ConfigError("idle_heartbeat must be at most half of the timeout")
            document["expires"] = int(timeout * 1e9)
            if heartbeat:
                document["idle_heartbeat"] = int(heartbeat * 1e9)
        document.update(priority_fields(self.info, priority))
        if self._pin_id is not None:
            document["id"] = self._pin_id
        room = inf if max_bytes is None else max_bytes
        pull = _Pull(self._js, self.info, self._subject, document, batch, room, heartbeat)
        if pinned(self.info):
            pull.on_pin, pull.pin_id = self._pinned, self._pin_id
        return pull

    def _pinned(self, pin_id: str) -> None:
        self._pin_id = pin_id

    @asynccontextmanager
    async def _sent(self, pull: _Pull, timeout: float) -> AsyncIterator[None]:
        """Send a pull request, and unsubscribe at the end."""
        connection = self._js.client.connection
        connection.check_open()
        # Never through the reconnect buffer: messages would go to a pull that has ended.
        await connection.wait_connected(timeout)
        connection.check_headers("a fetch")
        pull.active = asyncio.get_running_loop().time()
        pull.due = 0.0 if "no_wait" in pull.asked else pull.active + EARLY * timeout
        pull.limit = pull.active + timeout + GRACE
        watch = _Watch(pull)
        mux = connection.mux
        mux.open(watch)
        connection.subscribe(pull)
        try:
            connection.publish(self._subject, dumps(pull.asked), pull.subject)
            connection.flush_now()
            yield
        finally:
            self._last_end = pull.failure
            if isinstance(pull.failure, PinIdMismatchError) and pull.pin_id == self._pin_id:
                self._pin_id = None
            pull.done = True
            connection.unsubscribe(pull)
            mux.close(watch)

    async def _check(self, claim: NatsError, pull: _Pull) -> None:
        """End a pull for the reason that a status claims, or doubt that."""
        if await self._confirmed(claim, pull):
            pull.finish(claim)
            return
        pull.doubted = claim
        if pull.claim is claim:
            pull.claim = None

    async def _confirmed(self, claim: NatsError, pull: _Pull) -> bool:
        """Whether the consumer explains why a pull has ended, or cannot be asked about."""
        asked = pull.asked
        if isinstance(claim, MaxBytesError) and "max_bytes" in asked and pull.wanted != asked["batch"]:
            return True  # a usual end: the next message is one too many
        try:
            async with asyncio.timeout(CONFIRM):
                info = await self._js.consumer_info(self.info.stream, self.name)
        except (NatsError, TimeoutError):
            return True
        self._newest = info
        return info.created != self.info.created or explains(info, claim, asked)

    async def _reason(self, failure: NatsError) -> tuple[NatsError, ConsumerInfo | None]:
        """Return the error for a pull that got no message: its own, unless the consumer does not exist.

        And what the server says of the consumer, if it was asked, and the user may ask.
        """
        if isinstance(failure, NoRespondersError | RequestTimeoutError):
            # If the consumer does not exist, servers before 2.10 send no answer, later ones 503.
            try:
                return failure, await self._js.consumer_info(self.info.stream, self.name)
            except PermissionsViolationError:
                return failure, None
            except NatsError as exc:
                return exc, None
        return failure, None

    async def messages(
        self,
        *,
        batch: int = 100,
        timeout: float = 5.0,
        max_bytes: int | None = None,
        idle_heartbeat: float | None = None,
        **priority: Unpack[PriorityOptions],
    ) -> AsyncGenerator[JetStreamMsg, None]:
        """Iterate for ever over messages as they come; break out of the loop to stop.

        It asks for ``batch`` messages at a time, or for fewer as :meth:`fetch` does, and again when a request
        has ended: because it was complete, is full or has expired, because of a lost connection, a change of
        the leader, a server that shuts down, missed heartbeats, no answer, too many requests that wait, or
        another client that is pinned. Missed heartbeats, ``MaxWaitingError`` and ``PinIdMismatchError`` are
        reported to ``error_cb``. If such failures last for the client's ``retry_budget``, not counting the
        time without a connection, the last one is raised.

        After a request that ends early without messages it pauses for up to a second. What another client can
        have a server say of a request, it believes as :meth:`fetch` does; but it asks again rather than to
        raise that.

        Args:
            batch, timeout, max_bytes, idle_heartbeat: as for :meth:`fetch`.
            **priority: likewise.

        Raises:
            ConsumerNotFoundError, PullError, ConfigError, RemoteProtocolError: as :meth:`fetch`.
            ConnectionClosedError: the client was closed, or reconnecting was given up.
        """
        connection = self._js.client.connection
        clock = asyncio.get_running_loop().time
        pause = 0.0
        give_up = inf
        alone = False  # whether to ask for one message, whatever its size
        while True:
            pull = self._new_pull(1 if alone else batch, timeout, max_bytes, idle_heartbeat, priority)
            await connection.wait_connected()
            ends = clock() + timeout
            got = False
            async with self._sent(pull, timeout):
                while not pull.done or pull.msgs:
                    while pull.msgs:
                        got = True
                        yield pull.msgs.popleft()
                    await pull.wait(eager=True)
                    if (claim := pull.claim) is not None:
                        await self._check(claim, pull)
            failure = pull.failure
            alone = not got and max_bytes is None and _asked_wrongly(pull)
            if alone:
                failure, got = None, True  # the next one gets it
            elif failure is not None:
                failure = await self._passing(failure, got, doubted=failure is pull.doubted)
            if failure is None or isinstance(failure, StaleConnectionError):
                give_up = inf
            elif give_up == inf:
                give_up = clock() + connection.options.retry_budget
                connection.report(failure)
            elif clock() > give_up:
                raise failure
            pause = 0.0 if got else min(pause * 2 or FIRST_PAUSE, LONGEST_PAUSE, max(ends - clock(), 0.0))
            if pause:
                await asyncio.sleep(pause)

    async def _passing(self, failure: NatsError, got: bool, *, doubted: bool) -> NatsError | None:
        """Return the failure of a pull after which another one may succeed; ``None``: it was no failure.

        Args:
            got: whether messages came: then only that the consumer is gone matters, or that another client is
                pinned.
            doubted: whether the consumer does not explain it.

        Raises:
            NatsError: the failure, which will not pass.
        """
        if isinstance(failure, _PLAIN_ENDS):
            return None
        if got and not isinstance(failure, RemoteProtocolError | ConsumerNotFoundError | PinIdMismatchError):
            return None
        reason, _ = await self._reason(failure)
        if not doubted and not isinstance(reason, PassingPullError) and not retryable(reason):
            raise reason
        return reason

    async def delete(self) -> None:
        """Delete the consumer on the server."""
        await self._js.delete_consumer(self.info.stream, self.info.name)


async def bind(
    js: JetStreamContext,
    stream: str,
    consumer: str | None,
    config: ConsumerConfig | Mapping[str, object] | None,
) -> PullConsumer:
    """See :meth:`natsproto.JetStreamContext.pull_consumer`."""
    if (consumer is None) == (config is None):
        raise ConfigError("give the name of a consumer or the configuration of a new one")
    if config is not None:
        info = await js.create_consumer(stream, config)
    else:
        info = await js.consumer_info(stream, consumer or "")
    if info.config.deliver_subject:
        raise ConfigError(f"consumer {brief(info.name)} is a push consumer: it cannot be pulled from")
    return PullConsumer(js, info)


def _asked_wrongly(pull: _Pull) -> bool:
    """Whether a pull has ended because of its ``max_bytes``: too little for a message, or more than allowed.

    A message may be larger than this server's ``max_payload`` if it comes from another one. The limit may
    have changed since the consumer was looked at.
    """
    end = pull.failure
    refused = isinstance(end, PullLimitError) and "MaxRequestMaxBytes" in end.description
    return "max_bytes" in pull.asked and (refused or isinstance(end, MaxBytesError))


def _pin_id(header: bytes) -> str | None:
    """Return the id that the server has added: behind all headers of the stored message.

    It need not begin a line: of a stored header that lacks its end the server cuts off two bytes.
    """
    _, found, rest = header.rpartition(b"Nats-Pin-Id: ")
    value = rest.partition(b"\r\n")[0]
    return value.decode() if found and 0 < len(value) <= MAX_PIN_ID and value.isalnum() else None
