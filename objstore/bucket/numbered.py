"""Chunks of uploads have numbers, so that two processes that send the same upload do not store a chunk twice.

A process that was suspended, or killed while its frames were on their way, may store chunks at any time, even
after another process has resumed the upload with its token. A number is made of nuid, first chunk and index,
the same for every sender, and it makes the message id: the server acknowledges the second copy as a duplicate
and does not store it, for as long as it remembers ids (its ``duplicate_window``, two minutes by default). The
sender has to notice copies that come later: see ``write/resumed.py``. No two uploads share a number, even in
different buckets: a bucket with ``sources`` would drop the second chunk as a duplicate.

Whoever knows an id may use it first, on any subject of the stream: then the chunk is not stored. So an id is
an HMAC of the number, by a secret of the upload's token. Ids that are stored tell nothing of the next ones.
"""

from __future__ import annotations

import hmac
from datetime import timedelta
from secrets import token_hex
from typing import TYPE_CHECKING, Any

from natsproto.headers import header_value
from natsproto.jetstream.publisher import PublishWindow

if TYPE_CHECKING:
    from natsproto.jetstream.api.models import StoredMessage
    from natsproto.transport import Buffer

GOES_ON = timedelta(hours=12)
"""An upload can be resumed for this long after its last chunk; later it is sent from the start."""

GONE = GOES_ON + timedelta(hours=1)
"""Chunks of an upload may be removed at this age: a sender that resumed it in time has committed since."""

NUMBER_ROOM = 176
"""Bytes reserved for the header of a numbered chunk."""


SECRET_BYTES = 16
"""Bytes of an upload's secret, and of the ids that it makes."""


def message_id(secret: bytes, number: str) -> str:
    """Return the message id for a number.

    Args:
        secret: that of the upload; empty for a token of version 1, which has none: the number is the id.
        number: different for each chunk of the upload.
    """
    if not secret:
        return number
    return hmac.digest(secret, number.encode(), "sha256")[:SECRET_BYTES].hex()


def numbered(message: StoredMessage) -> bool:
    """Whether the message is a chunk of an upload: other chunks have no message id."""
    return message.header is not None and header_value(message.header, b"Nats-Msg-Id") is not None


class NumberedWindow(PublishWindow):
    """A publish window whose messages carry ids made of :attr:`series` and their index.

    Attributes:
        secret: see :func:`message_id`.
        series: the beginning of the numbers.
        expected: the required sequence of the subject's last message, for the next publish only.
    """

    __slots__ = ("expected", "secret", "series")

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.secret: bytes = b""
        self.series: str = token_hex(8)
        self.expected: int | None = None

    async def publish(self, payload: Buffer) -> None:
        """Publish as :meth:`PublishWindow.publish` does."""
        condition = b""
        if self.expected is not None:
            condition = b"Nats-Expected-Last-Subject-Sequence: %d\r\n" % self.expected
        chosen = message_id(self.secret, f"{self.series}.{self.next_index}")
        self.header: bytes = b"NATS/1.0\r\nNats-Msg-Id: %b\r\n%b\r\n" % (chosen.encode(), condition)
        self.expected = None
        await super().publish(payload)
