"""Chunks of uploads have numbers, so that two processes that send the same upload do not store one twice.

A process that was suspended, or killed while its frames were on their way, may store chunks at any time, also
when another one has gone on with its token. A number is a message id of nuid, first chunk and index, the same
for every sender: the server acknowledges the second copy as a duplicate of the first and does not store it,
for as long as it remembers ids (its ``duplicate_window``, two minutes by default). What comes later than that
is for the sender to notice: see ``write/resumed.py``. No two uploads share a number, in whatever buckets: one
that collects from several (``sources``) would leave out what it takes for known.
"""

from __future__ import annotations

from datetime import timedelta
from secrets import token_hex
from typing import TYPE_CHECKING, Any

from natsproto.headers import header_value
from natsproto.jetstream.publisher import PublishWindow

if TYPE_CHECKING:
    from natsproto.jetstream.api.models import StoredMessage
    from natsproto.transport import Buffer

GOES_ON = timedelta(hours=12)
"""An upload to which nothing was added for longer is stored anew."""

GONE = GOES_ON + timedelta(hours=1)
"""Older chunks of an upload may be removed: whoever has gone on with them before that has committed since."""

NUMBER_ROOM = 176
"""Bytes the header of a numbered chunk takes at most."""


def numbered(message: StoredMessage) -> bool:
    """Whether it is a chunk of an upload: others have no message id."""
    return message.header is not None and header_value(message.header, b"Nats-Msg-Id") is not None


class NumberedWindow(PublishWindow):
    """A publish window whose messages carry ids made of :attr:`series` and their index.

    Attributes:
        series: the beginning of the ids.
        expected: the sequence that the last message of the subject must have, for the next publish alone.
    """

    __slots__ = ("expected", "series")

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.series: str = token_hex(8)
        self.expected: int | None = None

    async def publish(self, payload: Buffer) -> None:
        """As :meth:`PublishWindow.publish`."""
        condition = b""
        if self.expected is not None:
            condition = b"Nats-Expected-Last-Subject-Sequence: %d\r\n" % self.expected
        self.header: bytes = b"NATS/1.0\r\nNats-Msg-Id: %b.%d\r\n%b\r\n" % (
            self.series.encode(),
            self.next_index,
            condition,
        )
        self.expected = None
        await super().publish(payload)
