"""Connects, and connects again: which server is tried next, after which pause, and who learns of failures."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from .._values import seconds
from ..backoff import jittered
from ..errors import (
    AuthorizationError,
    ConfigError,
    ConnectionClosedError,
    NatsError,
    StaleConnectionError,
)
from .callbacks import BoundedLog, Callbacks
from .server_pool import Server, parse_url
from .session import Session, summary

if TYPE_CHECKING:
    from .connection import Connection

log: logging.Logger = logging.getLogger("natsproto")

T = TypeVar("T")

Attempts = list[tuple[Server, BaseException]]
"""Servers that did not answer, and why."""

SHORT_LIFE = 1.0
"""Seconds. A session that ends sooner counts as a failed attempt, to prevent a reconnect storm."""

LONGEST_DELAY = 24 * 3600.0
"""Seconds that ``reconnect_delay_cb`` may ask for at most; more is taken for a mistake."""


class Reconnect:
    """Makes the attempts to connect of one connection, one at a time.

    A round ends when every server has been tried, or one would be tried again.

    Args:
        connection: whose options, pool and state it uses.
        callbacks: run those of the user.
        established: is called with each session that works.
    """

    def __init__(
        self, connection: Connection, callbacks: Callbacks, established: Callable[[Session], None]
    ) -> None:
        self._connection = connection
        self._callbacks = callbacks
        self._established = established
        self._log = BoundedLog(log)
        self._short_lives = 0
        self._hurry = asyncio.Event()
        self._leaving: asyncio.Future[None] | None = None

    async def once(self) -> Attempts:
        """Try each server once; return the failures, or ``[]`` when one has answered."""
        attempts: Attempts = []
        for server in self._connection.pool.round():
            error = await self._attempt(server, limit=-1)
            if error is None:
                return []
            attempts.append((server, error))
        return attempts

    async def after(self, lived: float) -> bool:
        """:meth:`until_connected` after a session that has lived for so many seconds."""
        short = lived < SHORT_LIFE
        failed = self._short_lives if short else 0
        if not self._hurry.is_set():
            self._short_lives = self._short_lives + 1 if short else 0
        return await self.until_connected(failed)

    async def until_connected(self, failed: int = 0) -> bool:
        """Try servers until one answers, or none is left; return whether one has answered.

        Args:
            failed: attempts, and rounds, that count as made.
        """
        connection = self._connection
        pool, first = connection.pool, not connection.epoch
        attempts = rounds = failed
        tried: Attempts = []
        while len(pool):
            asking = not first or rounds > 0  # nobody is asked about the first round of the first connect
            server = await self._next(tried, asking)
            if server in [known for known, _ in tried]:
                self._round_failed(tried)
                rounds += 1
                tried = []
            await self._pause(await self._delay(attempts, rounds, asking, began=bool(tried)))
            while server not in pool.servers:  # the pool was replaced meanwhile
                server = await self._next(tried, asking)
            self._hurry.clear()
            error = await self._attempt(server, limit=connection.options.max_reconnects)
            if error is None:
                self._hurry.clear()
                return True
            attempts += 1
            tried.append((server, error))
            self._callbacks.call_bounded(self._failure(server, error))
        self._round_failed(tried)
        return False

    async def _attempt(self, server: Server, *, limit: int) -> BaseException | None:
        """Try one server; return why it failed."""
        connection = self._connection
        options = connection.options
        session = Session(connection, server)
        try:
            async with asyncio.timeout(options.connect_timeout):
                await session.establish()
        except asyncio.CancelledError:
            session.fail(ConnectionClosedError("connecting was cancelled"))
            raise
        except Exception as exc:  # after any failure, try the next server
            error: BaseException = exc
            if isinstance(exc, TimeoutError) and not isinstance(exc, NatsError):
                error = StaleConnectionError(f"no answer within {seconds(options.connect_timeout)} s")
            session.fail(error)
            connection.last_error = error
            connection.pool.failed(
                server,
                auth=isinstance(error, AuthorizationError) and not session.nonce_in_clear,
                limit=limit,
            )
            return error
        self._established(session)
        return None

    # -- events -----------------------------------------------------------------------------------

    def _failure(self, server: Server, error: BaseException) -> Callable[[], Awaitable[None] | None] | None:
        callback = self._connection.options.reconnect_error_cb
        return None if callback is None else partial(callback, summary([(server, error)]))

    def _round_failed(self, tried: Attempts) -> None:
        if self._connection.epoch:
            self._log.warning("reconnecting failed", "reconnecting failed: %s", summary(tried))
        else:
            self._connection.report(summary(tried, first=True))

    # -- which server -----------------------------------------------------------------------------

    async def _next(self, tried: Attempts, asking: bool) -> Server:
        """Return the server to try: the user's choice, or the next one that was not tried in this round."""
        pool, callback = self._connection.pool, self._connection.options.next_server_cb
        if callback is not None and asking:
            servers = {server.url: server for server in pool.servers}
            failures = {url: server.failures for url, server in servers.items()}
            url = await self._ask("next_server_cb", partial(callback, [*servers], failures))
            if url is not None:
                server = servers.get(_plain(url))
                if server is not None:
                    return server
                self._refused("next_server_cb", "returned no URL of the pool")
        order = pool.round()
        known = [server for server, _ in tried]
        return next((server for server in order if server not in known), order[0])

    # -- when -------------------------------------------------------------------------------------

    async def _delay(self, attempts: int, rounds: int, asking: bool, *, began: bool) -> float:
        """Return the seconds to wait: those the user wants, or a growing pause before each round."""
        options = self._connection.options
        callback = options.reconnect_delay_cb
        if callback is not None and asking:
            delay = await self._ask("reconnect_delay_cb", partial(callback, attempts, rounds))
            if isinstance(delay, int | float) and not isinstance(delay, bool) and 0 <= delay <= LONGEST_DELAY:
                return float(delay)
            if delay is not None:
                self._refused("reconnect_delay_cb", "returned no number of seconds from 0 to a day")
        if began:
            return 0.0
        return jittered(
            rounds,
            first=options.reconnect_wait,
            ceiling=options.reconnect_wait_max,
            rng=self._connection.pool.rng,
        )

    async def _pause(self, wait: float) -> None:
        """Wait, or until :meth:`now` is called."""
        if wait > 0:
            try:
                async with asyncio.timeout(wait):
                    await self._hurry.wait()
            except TimeoutError:
                pass

    async def now(self) -> None:
        """Leave the current session, or end the current pause: the next attempt is made at once.

        Everything sent so far is processed first, if the server answers within a second. In the middle of an
        attempt, the pause that follows it is left out.
        """
        self._hurry.set()
        session = self._connection.session
        if session is None:
            return
        if self._leaving is None or self._leaving.done():
            self._leaving = session.leave(StaleConnectionError("force_reconnect() was called"))
        await asyncio.wait([self._leaving])

    # -- the user's callbacks ---------------------------------------------------------------------

    async def _ask(self, what: str, callback: Callable[[], Awaitable[T] | T]) -> T | None:
        """Return a callback's answer; ``None`` if it failed, which is reported."""
        try:
            return await self._callbacks.ask(callback, self._connection.options.connect_timeout)
        except Exception as exc:
            self._refused(what, f"raised {type(exc).__name__}", exc)
            return None

    def _refused(self, what: str, why: str, cause: Exception | None = None) -> None:
        error = ConfigError(f"{what} {why}: the default is used instead")
        error.__cause__ = cause
        self._connection.report(error)


def _plain(url: object) -> str:
    """Return a URL as pools show it, without credentials; ``""`` if it is none."""
    try:
        return parse_url(url).url if isinstance(url, str) else ""
    except ConfigError:
        return ""
