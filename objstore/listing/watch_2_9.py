"""Watch on servers whose consumers skip messages.

A roll-up makes nats-server 2.9 move consumers past everything stored before it, delivered or not: if several
objects change within a moment, only some of the changes are delivered. So a delivery only signals that
something has changed; the metas are then read one by one from the leader, which skips none.
"""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING

from ..bucket.ways import ANY_WAY
from ..format.naming import all_meta_subject
from . import watch
from .decode import read_stored
from .metas import newest_metas

if TYPE_CHECKING:
    from natsproto.jetstream.api.acks import Delivery
    from natsproto.jetstream.api.models import StoredMessage
    from natsproto.wire import Msg as WireMsg

    from ..format.models import InvalidMeta


LOOK_AGAIN = 1.0
"""Seconds after which a change is noticed that the consumer did not deliver at all."""


CATCH_UP = 5.0
"""Seconds a watch may take to start when names are written again while it reads them."""


class ReadingWatch(watch.Watch):
    """A watch that reads the metas after its cursor whenever the consumer shows a sign of life."""

    _cursor = 0
    _read_pending = False
    _reading: asyncio.Task[None] | None = None

    async def _begin(self) -> None:
        bucket = self._bucket
        await self._check_revision()
        consumer = self._consume(self._read_on, "new", heartbeat=min(watch.WATCH_HEARTBEAT, LOOK_AGAIN))
        self._read_pending = True  # blocks `_read_on` until the state at the start has been read
        await bucket.retrying(consumer.start)
        self._cursor = began = consumer.first_seq - 1
        if self._from_revision is not None:
            self._cursor = self._from_revision - 1
        elif not self._updates_only:
            # The names are read one by one, not as one snapshot: metas newer than the start are left to the
            # read from the cursor on, which keeps the order and skips none.
            for info in await newest_metas(bucket, lambda each: self._report(each, began)):
                if info.revision <= began:
                    self._offer(info, 0)  # all names are read at once anyway
        if not self._updates_only:
            await self._read_all(asyncio.get_running_loop().time() + CATCH_UP)
        self._set_caught_up()
        self._read_pending = False
        self._read_on()

    async def _leave(self) -> None:
        if (reading := self._reading) is not None:
            reading.cancel()
            await asyncio.wait([reading])
        await super()._leave()

    def _on_message(self, msg: WireMsg, delivery: Delivery) -> None:
        self._read_on()

    def _read_on(self) -> None:
        if self._read_pending or self._stopped:
            return
        self._read_pending = True
        if self._reading is None:
            self._reading = self._bucket.connection.spawn(self._read(), "objstore-watch-read")

    async def _read(self) -> None:
        try:
            while self._read_pending:
                self._read_pending = False
                await self._read_all()
        except Exception as exc:
            self._fail(exc)
        finally:
            self._reading = None

    async def _read_all(self, deadline: float = math.inf) -> None:
        time = asyncio.get_running_loop().time
        while not self._stopped and not self._full and (message := await self._following()) is not None:
            self._cursor = message.seq
            self._take(message)
            if time() > deadline:
                break

    async def _following(self) -> StoredMessage | None:
        bucket = self._bucket
        return await bucket.first_after(all_meta_subject(bucket.name), self._cursor, ANY_WAY)

    def _take(self, message: StoredMessage) -> None:
        info = read_stored(self._bucket, message, self._on_invalid)
        if info is not None:
            self._offer(info, watch.weight(message.data))

    def _report(self, invalid: InvalidMeta, began: int) -> None:
        if invalid.revision <= began:
            self._on_invalid(invalid)
