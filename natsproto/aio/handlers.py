"""The seam between the connection and the layers above: who is told of frames, synchronously."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..wire import Msg as WireMsg
    from ..wire import Target


class Handler:
    """One server-side subscription. Layers above subclass it to see frames without queue or task.

    All methods are called synchronously from the reading side and must neither block nor raise.
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
        """A message for this subscription."""

    def place(self, msg: WireMsg, size: int) -> Target:
        """Name the place for a large payload, or ``None``."""
        return None

    def on_disconnect(self, exc: BaseException) -> None:
        """The connection was lost; it may come back."""

    def on_reconnect(self) -> None:
        """Connected again; the subscription has been restored."""

    def on_refused(self, subject: bytes, exc: BaseException) -> int:
        """What was published to ``subject`` was refused; returns how many of this one's messages that was."""
        return 0

    def on_end(self, exc: BaseException | None) -> None:
        """No further message will come: unsubscribed (``None``), refused, or closed for good."""


class ReplySlot:
    """Receives the replies to one inbox ``<prefix>.<token>[.<rest>]``; subclass it.

    Called synchronously from the reading side; methods must neither block nor raise.

    Attributes:
        inbox: the reply subject to publish with; ``.<rest>`` may be appended to tell replies apart.
        subject: where the request goes; a permissions violation there fails this slot at once.
        deadline: when :meth:`on_timeout` is due, by the loop's clock; set by :meth:`RequestMux.arm`.
    """

    __slots__ = ("deadline", "inbox", "subject", "token")

    def __init__(self, subject: bytes = b"") -> None:
        self.subject: bytes = subject
        self.inbox: bytes = b""
        self.token: bytes = b""
        self.deadline: float = inf

    def on_reply(self, rest: bytes, msg: WireMsg) -> None:
        """A reply; ``rest`` is what was appended to the inbox (empty when nothing was)."""

    def place(self, rest: bytes, msg: WireMsg, size: int) -> Target:
        """Name the place for a large payload, or ``None``."""
        return None

    def under_way(self) -> int:
        """How many of its messages were sent and not answered."""
        return 1

    def on_lost(self, exc: BaseException) -> None:
        """The connection was lost (or the subject refused) while the slot was open."""

    def on_timeout(self) -> None:
        """The time given to :meth:`RequestMux.arm` is over; it may be armed again."""
