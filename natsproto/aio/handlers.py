"""The interface between the connection and the layers above: synchronous callbacks for frames."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..wire import Msg as WireMsg
    from ..wire import Target


class Handler:
    """One subscription at the server. Layers above subclass it to receive frames without queue or task.

    The reading side calls all methods synchronously; they must neither block nor raise.
    """

    __slots__ = ("base", "delivered", "max_msgs", "queue", "sid", "subject")

    def __init__(self, subject: bytes, queue: bytes | None = None) -> None:
        self.subject: bytes = subject
        self.queue: bytes | None = queue
        self.sid: bytes = b""
        self.max_msgs: int = 0
        self.delivered: int = 0
        self.base: int = 0
        """``delivered`` when this session began: the server counts from there."""

    def deliver(self, msg: WireMsg) -> None:
        """A message for this subscription has arrived."""

    def place(self, msg: WireMsg, size: int) -> Target:
        """Return the destination of a large payload, or ``None``."""
        return None

    def on_disconnect(self, exc: BaseException) -> None:
        """The connection was lost; it may come back."""

    def on_reconnect(self) -> None:
        """Connected again; the subscription has been restored."""

    def on_refused(self, subject: bytes, exc: BaseException) -> int:
        """Messages to ``subject`` were refused; return how many of them this handler had sent."""
        return 0

    def on_end(self, exc: BaseException | None) -> None:
        """No more messages will come: unsubscribed (``None``), refused, or closed for good."""


class ReplySlot:
    """Receives the replies to one inbox ``<prefix>.<token>[.<rest>]``; subclass it. The rest is one token.

    The reading side calls all methods synchronously; they must neither block nor raise.

    Attributes:
        inbox: the reply subject to publish with; ``.<rest>`` may be appended to distinguish replies.
        subject: the request's subject; a permissions violation there fails this slot at once.
        deadline: when :meth:`on_timeout` is due, by the loop's clock; set by :meth:`RequestMux.arm`.
    """

    __slots__ = ("deadline", "inbox", "subject")

    def __init__(self, subject: bytes = b"") -> None:
        self.subject: bytes = subject
        self.inbox: bytes = b""
        self.deadline: float = inf

    def on_reply(self, rest: bytes, msg: WireMsg) -> None:
        """A reply has arrived; ``rest`` is what was appended to the inbox (or empty)."""

    def place(self, rest: bytes, msg: WireMsg, size: int) -> Target:
        """Return the destination of a large payload, or ``None``."""
        return None

    def under_way(self) -> int:
        """How many of its messages were sent and are unanswered."""
        return 1

    def on_lost(self, exc: BaseException) -> None:
        """The connection was lost (or the subject refused) while the slot was open."""

    def on_timeout(self) -> None:
        """The time given to :meth:`RequestMux.arm` is over; it may be armed again."""
