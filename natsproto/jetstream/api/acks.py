"""Acknowledgements: of what was published (PubAck), and the subject that acknowledges a delivery (ADR-15)."""

from __future__ import annotations

import re
from functools import lru_cache

from ..._values import brief
from ...errors import (
    APIError,
    RemoteProtocolError,
    WrongStreamError,
)
from ...subjects import MAX_NAMES
from .codec import dumps_str, is_number, loads
from .errors import api_error
from .models import PubAck

ANY_DOMAIN = "*"
"""In :class:`AckCheck`: whatever domain (none is called that)."""


_usual_ack = re.compile(
    rb'\{"stream":"([0-9A-Za-z_-]+)"(?:, ?"domain": ?"([0-9A-Za-z_-]+)")?, ?"seq": ?([1-9][0-9]{0,17})'
    rb'(, ?"duplicate": ?true)?\}'
).fullmatch
"""What servers write, 2.9 with spaces; everything else is left to the JSON parser."""


def parse_pub_ack(payload: bytes | bytearray | memoryview) -> PubAck:
    """Parse an acknowledgement.

    Raises:
        APIError: the server refused the message.
        RemoteProtocolError: no acknowledgement at all.
    """
    usual = _usual_ack(payload)
    if usual is not None:
        stream, domain, seq, duplicate = usual.groups()
        return PubAck(
            stream.decode(), int(seq), duplicate is not None, None if domain is None else domain.decode()
        )
    return _parse_any_ack(payload)


def _parse_any_ack(payload: bytes | bytearray | memoryview) -> PubAck:
    document = loads(payload)
    error = document.get("error")
    if error is not None:
        raise api_error(error)
    stream, seq = document.get("stream"), document.get("seq")
    if not isinstance(stream, str) or not is_number(seq):
        raise RemoteProtocolError(
            "an answer to a publish is no acknowledgement: is the subject bound to a stream?"
        )
    domain = document.get("domain")
    return PubAck(stream, seq, document.get("duplicate") is True, domain if isinstance(domain, str) else None)


@lru_cache(maxsize=16)
def plain_ack_head(stream: str, domain: str | None = None) -> bytes:
    """An acknowledgement without anything unusual is this, the sequence and a brace."""
    if domain is None:
        return b'{"stream":%b,"seq":' % dumps_str(stream)
    return b'{"stream":%b,"domain":%b,"seq":' % (dumps_str(stream), dumps_str(domain))


def plain_ack_seq(payload: bytes | bytearray | memoryview, head: bytes) -> int:
    """The sequence in an acknowledgement that has nothing unusual about it, else 0."""
    if type(payload) is bytes and payload.startswith(head) and payload.endswith(b"}"):
        digits = payload[len(head) : -1]
        if digits.isdigit() and len(digits) < 20 and digits[0] != 48:  # JSON has no leading zeros
            return int(digits)
    return 0


class AckCheck:
    """Whose acknowledgement counts: one that names this stream, in this domain.

    Everybody who may read a subject sees where the answers to its messages go and can send one; and a stream
    of the same name in another domain (of a hub or a leaf node) takes, and acknowledges, the same messages.
    Hence the rule for all that builds on answers: **no delete, purge or publish is decided by unverified
    input.** An acknowledgement counts once, for the message whose token it came to, and only if it passes
    here. The sequence in any other is at most a hint where to look; a message is deleted by its sequence only
    after it has been read at the leader and is ours.

    Args:
        stream: the stream's name.
        domain: its JetStream domain as ``STREAM.INFO`` names it; ``None`` = none, :data:`ANY_DOMAIN` = not
            known.
    """

    __slots__ = ("domain", "head", "stream")

    def __init__(self, stream: str, domain: str | None) -> None:
        self.stream: str = stream
        self.domain: str | None = domain
        self.head: bytes = plain_ack_head(stream, None if domain == ANY_DOMAIN else domain)

    def parse(self, payload: bytes | bytearray | memoryview) -> PubAck:
        """Parse an acknowledgement and make sure that it is the stream's own.

        A refusal names no domain: whether another domain's stream of the same name has refused the message
        cannot be told.

        Raises:
            APIError: the message was refused, as far as can be told by this stream.
            WrongStreamError: another stream, or another domain's, answers.
            RemoteProtocolError: no acknowledgement at all.
        """
        seq = plain_ack_seq(payload, self.head)
        if seq:
            return PubAck(self.stream, seq, False, None if self.domain == ANY_DOMAIN else self.domain)
        try:
            ack = parse_pub_ack(payload)
        except APIError:
            named = loads(payload).get("stream")
            if isinstance(named, str) and named not in ("", self.stream):
                raise self._wrong(named, None, "refused by") from None
            raise
        if ack.stream != self.stream or (ack.domain != self.domain and self.domain != ANY_DOMAIN):
            raise self._wrong(ack.stream, ack.domain, f"stored as {ack.seq} in")
        return ack

    def _wrong(self, stream: str, domain: str | None, what: str) -> WrongStreamError:
        wanted = None if self.domain == ANY_DOMAIN else self.domain
        return WrongStreamError(
            f"{what} {_place(stream, domain)}; expected was {_place(self.stream, wanted)}",
            stream=stream,
            domain=domain,
            expected_stream=self.stream,
            expected_domain=wanted,
        )


def _place(stream: str, domain: str | None) -> str:
    return f"stream {brief(stream)}" + ("" if domain is None else f" of domain {brief(domain)}")


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
        self.domain: str | None = domain
        self.stream: str = stream
        self.consumer: str = consumer
        self._delivered = delivered
        self.stream_seq: int = stream_seq
        self.consumer_seq: int = consumer_seq
        self.time_ns: int = time_ns
        self.num_pending: int = num_pending

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
    if not digits.isdigit() or not delivered:
        return None
    # Beside a time of 19 digits, 22 of four numbers leave none of them more than 19.
    if (len(time_ns) != 19 or len(digits) > 41) and not _fit(
        delivered, stream_seq, consumer_seq, time_ns, num_pending
    ):
        return None
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


def _fit(*numbers: bytes) -> bool:
    """Whether all are numbers that a server counts with: of 64 bits."""
    return all(0 < len(each) <= 20 and int(each) < 1 << 64 for each in numbers)


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
