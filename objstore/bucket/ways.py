"""The ways to read a bucket's messages, and which of them are refused to the user, as far as is known."""

from __future__ import annotations

from natsproto.aio.connection import Connection
from natsproto.errors import APIError, PermissionsViolationError
from natsproto.jetstream.api.errors import retryable
from natsproto.subjects import split_api_subject

LEADER = "STREAM.MSG.GET.{}"
DIRECT = "DIRECT.GET.{}"
BY_SUBJECT = "DIRECT.GET.{}.>"
CONSUMER = "CONSUMER.CREATE.{}.>"
"""The ways to request a message: the API subjects of a stream to publish to."""

ANY_WAY = (LEADER, DIRECT, BY_SUBJECT, CONSUMER)
"""For reads of the leader's state; a user who may not ask the leader gets the next best."""

DIRECT_FIRST = (DIRECT, BY_SUBJECT, LEADER, CONSUMER)
"""For reads where a direct get is as good."""

PROOFS = (LEADER, DIRECT, BY_SUBJECT)
"""For reads whose response decides about a change or removal, where one server has the stream; where several
have it, only :data:`LEADER` is safe. A consumer proves nothing: it may skip messages, as on 2.9."""

AT_LEADER = (LEADER,)
"""For reads where an absent message causes a removal: a mirror may report it absent, too."""

DELIVERIES = "deliveries"
"""Not a way to request: what a consumer delivers beyond :data:`UNASKED`, which needs the right to answer flow
control."""

PAGES = "pages"
"""Not a way to request: what a consumer delivers when it is pulled, which needs another right."""

UNASKED = 512 * 1024
"""Bytes that a consumer delivers before its server asks for flow control: it does after 1 MiB."""

REFUSED_FOR = 30.0
"""Seconds after which a refused way is tried again: permissions may be granted without a reconnect."""


NO_CONSUMER = frozenset((10002, 10023, 10026, 10028, 10047, 10082, 10098, 10099, 10100, 10101, 10121, 10153))
"""Codes of lasting errors at the creation of a consumer: there are too many, the account has no memory for
one, the stream's ``consumer_limits`` (nats-server 2.10) allow none like ours, or the stream is a work queue,
which has one consumer per subject, and only such that acknowledge."""


class Ways:
    """What is known about the ways to read one bucket.

    A way is refused for a while after an error that says so, and until the connection is a new one.
    """

    __slots__ = ("_connection", "_named_by", "_prefix", "_refused", "_refused_once", "_stream")

    def __init__(self, connection: Connection, prefix: str, stream: str) -> None:
        self._connection = connection
        self._prefix = f"{prefix}."
        self._named_by = self._prefix  # the prefix in the server's refusals
        self._stream = stream
        # A way: the epoch of the connection, the expiry, and whether it is the right that lacks.
        self._refused: dict[str, tuple[int, float, bool]] = {}
        self._refused_once: dict[str, tuple[int, float]] = {}  # likewise

    def allowed(self, way: str) -> bool:
        """Whether the user may read that way, as far as is known."""
        return not self._refused or self._refusal(way) is None

    def has_right(self, way: str) -> bool:
        """Whether the user has the right to read that way, as far as is known.

        So it also has one that an ``APIError`` has refused. Nothing that is proven that way may be left
        unproven because of such an error: it does not say what it answers, and a peer may have had it sent.
        """
        return self._refusal(way) is not True

    def _refusal(self, way: str) -> bool | None:
        """Return whether it is the right that lacks; ``None``: the way is allowed."""
        refused = self._refused.get(way)
        if refused is None:
            return None
        epoch, until, right = refused
        connection = self._connection
        if epoch == connection.epoch and connection.loop.time() < until:
            return right
        self._refused.pop(way, None)
        return None

    def right_to(self, way: str) -> str:
        """Return the subject that a user needs the right to, as the server names it."""
        return self._named_by + way.format(self._stream)

    def can_deliver(self, size: int = UNASKED + 1) -> bool:
        """Whether a consumer can be had, and delivers so many bytes; default: any number."""
        return self.allowed(CONSUMER) and (size <= UNASKED or self.allowed(DELIVERIES))

    def refused_by(self, exc: PermissionsViolationError | APIError) -> str | None:
        """Return the way that this error refuses to the user; ``None`` when it refuses something else.

        An ``APIError`` is that of the creation of a consumer: the stream or the account allows no such one (a
        work queue), or not one more.
        """
        if isinstance(exc, APIError):
            other = self.allowed(LEADER) or self.allowed(DIRECT)
            return CONSUMER if other and exc.err_code in NO_CONSUMER and not retryable(exc) else None
        if exc.operation == "publish" and exc.subject.startswith("$JS.FC."):
            return DELIVERIES
        rest = self._request(exc.subject) if exc.operation == "publish" else None
        if rest is None:
            return None
        for way in (LEADER, DIRECT):
            if rest == way.format(self._stream):
                return way
        if rest.startswith("CONSUMER."):
            return PAGES if rest.startswith("CONSUMER.MSG.NEXT.") else CONSUMER
        return BY_SUBJECT if rest.startswith(DIRECT.format(self._stream) + ".") else None

    def _request(self, subject: str) -> str | None:
        """Return the request in an API subject, without the prefix; ``None`` for one of another API.

        A server may name it by the API's other prefix: see :mod:`natsproto.aio.permission_refusals`.
        """
        if subject.startswith(self._prefix):
            self._named_by = self._prefix
            return subject.removeprefix(self._prefix)
        ours = split_api_subject(f"{self._prefix}INFO".encode())
        theirs = split_api_subject(subject.encode("utf-8", "surrogateescape"))
        if ours is None or theirs is None or (ours[0] and theirs[0]):
            return None
        suffix = theirs[1].decode("utf-8", "surrogateescape")
        self._named_by = subject.removesuffix(suffix)
        return suffix

    def note_refusal(self, exc: PermissionsViolationError | APIError) -> bool:
        """Remember a refused way for a while; false when the error refuses something else.

        An ``APIError`` is remembered when it has come twice: a peer can have that of its own consumer sent to
        us. See also :meth:`has_right`.
        """
        way = self.refused_by(exc)
        if way is not None:
            connection = self._connection
            until = connection.epoch, connection.loop.time() + REFUSED_FOR
            once = self._refused_once.get(way)
            self._refused_once[way] = until
            again = once is not None and once[0] == until[0] and connection.loop.time() < once[1]
            right = not isinstance(exc, APIError)
            if again or right:
                self._refused[way] = (*until, right)
        return way is not None

    def forget_refusals(self) -> None:
        """Try every way again."""
        self._refused.clear()
        self._refused_once.clear()
