"""Which message a refusal may be about: a permissions violation names a subject, and no message.

So it is no answer to a request. Rights change while a connection lives on, and a message to the same subject
that was sent before may have been taken in, and be answered late. The rule: **a refusal is that of a request
for certain only when as many have come as messages to its subject may be meant**; see
:attr:`natsproto.errors.PermissionsViolationError.certain`. May be meant what was sent in this session and has
not been answered: what is waited for, and what is not any more (given up, cancelled) until the server has
answered a PING that was sent later. It answers in order.

What nobody has waited for from the beginning (``Client.publish``) is not counted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ..errors import PermissionsViolationError
    from .session import Session

MAX_SUBJECTS = 1024
"""Subjects with messages that were given up; with more of them any subject counts as one, until a PONG."""


class _Given(NamedTuple):
    """Messages to one subject that may be meant, sent before the PING ``pings + 1``."""

    number: int
    pings: int


class _Told(NamedTuple):
    """A refusal that was told, with so many messages that may still be refused, too."""

    error: PermissionsViolationError
    left: int
    pings: int


class Refusals:
    """Those of one session."""

    __slots__ = ("_all", "_given_up", "_session", "_told")

    def __init__(self, session: Session) -> None:
        self._session = session
        self._given_up: dict[bytes, _Given] = {}
        self._told: dict[bytes, _Told] = {}
        self._all: int | None = None  # since so many PINGs what was given up is not known by its subject

    def _answered(self, pings: int) -> bool:
        """Whether everything sent before the PING ``pings + 1`` has been processed."""
        return self._session.pings_answered > pings

    def gave_up(self, subject: bytes) -> None:
        """A request to ``subject`` is not waited for any more, and was not answered."""
        given_up, pings = self._given_up, self._session.pings_sent
        if len(given_up) >= MAX_SUBJECTS:
            self._given_up = given_up = {
                each: given for each, given in given_up.items() if not self._answered(given.pings)
            }
            if len(given_up) >= MAX_SUBJECTS:
                given_up.clear()
                self._all = pings
        given_up[subject] = _Given(self._take(subject) + 1, pings)

    def _take(self, subject: bytes) -> int:
        """How many that were given up may be meant, which are then counted elsewhere."""
        given = self._given_up.pop(subject, None)
        return 0 if given is None or self._answered(given.pings) else given.number

    def came(self, error: PermissionsViolationError, subject: bytes, failed: int) -> bool:
        """Note a refusal to publish to ``subject``, of which ``failed`` requests were told just now.

        Returns:
            Whether anybody was told of it, now or before.
        """
        told = self._told.pop(subject, None)
        if told is not None and self._answered(told.pings):
            told = None
        meant = failed + self._take(subject) + self._nameless()
        before = 0 if told is None else told.left
        if told is not None and not meant:
            error = told.error  # one more of those
        # Otherwise nobody knows whether it is one of those, or what was sent since.
        left = meant + before - 1
        if left > 0:
            self._told[subject] = _Told(error, left, self._session.pings_sent)
        elif left == 0:
            error.certain = True
        return bool(failed or before)

    def _nameless(self) -> bool:
        if self._all is not None and self._answered(self._all):
            self._all = None
        return self._all is not None
