"""Checks that the server still answers: a PING at intervals, and one after a request has timed out."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ..errors import StaleConnectionError

if TYPE_CHECKING:
    from .session import Session

PROBE_TIMEOUT = 2.0
"""Seconds of silence after the PING that follows a timed-out request, before the connection is abandoned."""


class Liveness:
    """Watches one session and ends it when the server is silent.

    Any received bytes show that it is alive, even without a PONG: on a slow link a PONG waits behind
    megabytes of data. But they do not count while senders wait and the peer acknowledges nothing: one
    direction of a connection can be stuck alone, and nothing else would end that wait. PINGs of the
    application do not count as unanswered ones.

    Args:
        session: the session to watch, from now until :meth:`stop`.
        interval: seconds between PINGs.
        misses: PINGs in a row without a received, or an acknowledged, byte before the session is ended.
    """

    def __init__(self, session: Session, *, interval: float, misses: int) -> None:
        self._session = session
        self._interval = interval
        self._misses = misses
        self._loop = asyncio.get_running_loop()
        self._seen = 0
        self._taken: int | None = None
        self._silent = 0
        self._ping_timer = self._loop.call_later(interval, self._ping_due)
        self._probe_timer: asyncio.TimerHandle | None = None

    def stop(self) -> None:
        """Stop watching. Idempotent."""
        self._ping_timer.cancel()
        if self._probe_timer is not None:
            self._probe_timer.cancel()

    def _ping_due(self) -> None:
        session = self._session
        transport = session.transport
        taken = transport.taken if transport is not None and transport.congested else None
        stuck = taken is not None and taken == self._taken
        self._silent = self._silent + 1 if stuck or session.reads == self._seen else 0
        self._seen, self._taken = session.reads, taken
        if self._silent >= self._misses:
            self._give_up("takes nothing that is sent" if stuck else "does not answer PING")
            return
        session.ping(None)
        self._ping_timer = self._loop.call_later(self._interval, self._ping_due)

    def probe(self) -> None:
        """A request timed out: make sure that the server still answers, or end the session."""
        if self._probe_timer is None:
            answer: asyncio.Future[None] = self._loop.create_future()
            answer.add_done_callback(self._answered)
            self._arm_probe()
            self._session.ping(answer)

    def _arm_probe(self) -> None:
        self._probe_timer = self._loop.call_later(PROBE_TIMEOUT, self._probe_due, self._session.reads)

    def _answered(self, answer: asyncio.Future[None]) -> None:
        if self._probe_timer is not None:
            self._probe_timer.cancel()
            self._probe_timer = None

    def _probe_due(self, reads: int) -> None:
        if self._session.reads == reads:
            self._give_up("does not answer PING")
        else:
            self._arm_probe()

    def _give_up(self, why: str) -> None:
        self._session.fail(StaleConnectionError(f"{self._session.server.url} {why}", silent=True))
