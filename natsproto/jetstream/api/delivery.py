"""What replies tell: the acknowledgement subject of a message (ADR-15), and that of flow control."""

from __future__ import annotations

from ...subjects import MAX_NAMES


class Delivery:
    """Facts from a ``$JS.ACK.…`` reply subject."""

    __slots__ = (
        "_delivered",
        "consumer",
        "consumer_seq",
        "domain",
        "num_pending",
        "stream",
        "stream_seq",
        "time_ns",
    )

    def __init__(
        self,
        domain: str | None,
        stream: str,
        consumer: str,
        delivered: bytes,
        stream_seq: int,
        consumer_seq: int,
        time_ns: int,
        num_pending: int,
    ) -> None:
        self.domain = domain
        self.stream = stream
        self.consumer = consumer
        self._delivered = delivered
        self.stream_seq = stream_seq
        self.consumer_seq = consumer_seq
        self.time_ns = time_ns
        self.num_pending = num_pending

    @property
    def delivered(self) -> int:
        """How often the message was delivered, this time included."""
        return int(self._delivered)  # only now: a long list has no use for it

    def __repr__(self) -> str:
        return (
            f"<Delivery {self.stream}/{self.consumer} stream_seq={self.stream_seq} "
            f"consumer_seq={self.consumer_seq} num_pending={self.num_pending}>"
        )


def parse_ack_subject(reply: bytes | None) -> Delivery | None:
    """Parse a reply subject; ``None`` when it is no acknowledgement subject.

    Two forms exist::

        $JS.ACK.<stream>.<consumer>.<delivered>.<sseq>.<cseq>.<time>.<pending>                     9 tokens
        $JS.ACK.<domain>.<account>.<stream>.<consumer>.<delivered>.<sseq>.<cseq>.<time>.<pending>[.<token>…]
    """
    if reply is None or not reply.startswith(b"$JS.ACK."):
        return None
    tokens = reply.split(b".")
    if len(tokens) == 9:
        domain = None
        _, _, stream, consumer, delivered, stream_seq, consumer_seq, time_ns, num_pending = tokens
    elif len(tokens) >= 11:
        domain = None if tokens[2] == b"_" else tokens[2].decode("utf-8", "replace")
        stream, consumer, delivered, stream_seq, consumer_seq, time_ns, num_pending = tokens[4:11]
    else:
        return None
    digits = b"".join((delivered, stream_seq, consumer_seq, time_ns, num_pending))
    if not digits.isdigit() or not delivered or len(digits) > 100:
        return None  # int() would take more than the server writes
    try:
        return Delivery(
            domain,
            stream.decode(),
            consumer.decode(),
            delivered,
            int(stream_seq),
            int(consumer_seq),
            int(time_ns),
            int(num_pending),
        )
    except ValueError:
        return None


def is_flow_control(reply: bytes, stream: str, consumer: str) -> bool:
    """Whether a server asks on that subject for the flow control of that consumer.

    Two forms exist::

        $JS.FC.<stream>.<consumer>.<token>
        $JS.FC.<domain>.<account>.<stream>.<consumer>.<token>            servers with ``js_ack_fc_v2``

    Anybody may send a request that names any other subject: whoever answers it publishes there. One that is
    too long for a line is no server's.
    """
    tokens = reply.split(b".")
    return (
        len(tokens) in (5, 7)
        and len(reply) <= MAX_NAMES
        and tokens[:2] == [b"$JS", b"FC"]
        and all(tokens)
        and tokens[-3:-1] == [stream.encode(), consumer.encode()]
        and not any(bad in reply for bad in (b"*", b">", b" ", b"\t", b"\r", b"\n"))
    )
