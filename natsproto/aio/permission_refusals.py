"""Finds out which message a refusal is about: a permissions violation names a subject, but no message.

So it is not the answer to one request. Permissions can change during a connection, and an earlier message to
the same subject may have been accepted, with its answer still to come. The rule: **a request was certainly
refused only when there were as many refusals as messages to its subject that they may be about**; see
:attr:`natsproto.errors.PermissionsViolationError.certain`. A refusal may be about any unanswered message of
this session: one that is waited for, or one that is not any more (given up, cancelled), until the server has
answered a later PING. The server answers in order.

Messages that nobody ever waited for (``Client.publish``) are not counted.

A server may name another subject than the one that was sent: see :func:`also_named`. It means the request to
the subject that it names, if there is one, else that to the other one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from ..subjects import split_api_subject

if TYPE_CHECKING:
    from ..errors import PermissionsViolationError
    from .session import Session

MAX_SUBJECTS = 1024
"""Subjects remembered whose requests were given up. Beyond that all are forgotten, and until the PONG of
the next PING any subject may be one of them."""


def also_named(subject: bytes, domain: object) -> bytes | None:
    """Return the other subject that a message may have been sent to, whose refusal names ``subject``.

    Servers map the API of JetStream before they look at the rights. One that belongs to a domain maps
    ``$JS.<domain>.API.…`` to ``$JS.API.…``; one with a ``default_js_domain`` for the account, the other way.

    Args:
        subject: what the server has named.
        domain: the server's own, as it says in INFO.
    """
    found = split_api_subject(subject)
    if found is None:
        return None
    named, suffix = found
    if named:
        return b"$JS.API.%b" % suffix
    own = domain.encode(errors="replace") if isinstance(domain, str) else b""
    return b"$JS.%b.API.%b" % (own, suffix) if own else None


class _GivenUp(NamedTuple):
    """How many requests to one subject were given up, all sent before the PING ``pings + 1``."""

    number: int
    pings: int


class _Reported(NamedTuple):
    """A refusal that was reported, and how many messages (``left``) may still be refused, too."""

    error: PermissionsViolationError
    left: int
    pings: int


class Refusals:
    """The refusals to publish of one session."""

    __slots__ = ("_forgotten_at", "_given_up", "_reported", "_session")

    def __init__(self, session: Session) -> None:
        self._session = session
        self._given_up: dict[bytes, _GivenUp] = {}
        self._reported: dict[bytes, _Reported] = {}
        self._forgotten_at: int | None = (
            None  # PINGs sent when the subjects became too many and were forgotten
        )

    def _answered(self, pings: int) -> bool:
        """Whether everything sent before the PING ``pings + 1`` has been processed."""
        return self._session.pings_answered > pings

    def stopped_waiting(self, subject: bytes) -> None:
        """Note that nobody waits for an unanswered request to ``subject`` any more."""
        given_up, pings = self._given_up, self._session.pings_sent
        if len(given_up) >= MAX_SUBJECTS:
            self._given_up = given_up = {
                each: entry for each, entry in given_up.items() if not self._answered(entry.pings)
            }
            if len(given_up) >= MAX_SUBJECTS:
                given_up.clear()
                self._forgotten_at = pings
        given_up[subject] = _GivenUp(self._take(subject) + 1, pings)

    def _take(self, subject: bytes) -> int:
        """Remove and return the number of unanswered requests to ``subject`` that were given up."""
        entry = self._given_up.pop(subject, None)
        return 0 if entry is None or self._answered(entry.pings) else entry.number

    def _knows(self, subject: bytes) -> bool:
        """Whether an earlier message to ``subject`` may still be refused."""
        entries = self._given_up.get(subject), self._reported.get(subject)
        return any(entry is not None and not self._answered(entry.pings) for entry in entries)

    def received(
        self,
        error: PermissionsViolationError,
        subject: bytes,
        fail: Callable[[bytes], int],
        under_way: Callable[[bytes], int],
    ) -> bool:
        """Note a refusal to publish, and fail the requests that it may be about.

        Args:
            error: the refusal.
            subject: what it names.
            fail: fails the requests to a subject, and returns how many messages of them were unanswered.
            under_way: returns how many are unanswered.

        Returns:
            Whether it was reported to anybody, now or before.
        """
        failed = fail(subject)
        other = also_named(subject, self._session.info.get("domain"))
        if other is None:
            return self._note(error, subject, failed)
        if failed or self._knows(subject):
            return self._note(error, subject, failed, doubtful=bool(under_way(other)) or self._knows(other))
        return self._note(error, other, fail(other))

    def _note(
        self, error: PermissionsViolationError, subject: bytes, failed: int, *, doubtful: bool = False
    ) -> bool:
        """Note a refusal of a message to ``subject``, with which ``failed`` requests have just failed.

        It is never certain while it is ``doubtful`` whether the message was sent there.
        """
        reported = self._reported.pop(subject, None)
        if reported is not None and self._answered(reported.pings):
            reported = None
        candidates = failed + self._take(subject) + self._forgotten_may_be_refused()
        open_from_earlier = 0 if reported is None else reported.left
        if reported is not None and not candidates:
            error = reported.error  # another refusal of the same messages
        # Else newer messages are waiting, too: it may be about either.
        left = candidates + open_from_earlier - 1
        if left > 0:
            self._reported[subject] = _Reported(error, left, self._session.pings_sent)
        elif left == 0 and not doubtful:
            error.certain = True
        return bool(failed or open_from_earlier)

    def _forgotten_may_be_refused(self) -> bool:
        """Whether a request to any of the forgotten subjects may still be refused."""
        if self._forgotten_at is not None and self._answered(self._forgotten_at):
            self._forgotten_at = None
        return self._forgotten_at is not None
