"""Acknowledgements of publishes (PubAck), and the reply subjects that acknowledge deliveries (ADR-15)."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

from ..._values import brief
from ...errors import (
    APIError,
    NatsError,
    RemoteProtocolError,
    RequestTimeoutError,
    WrongStreamError,
)
from ...subjects import MAX_NAMES
from .codec import dumps_str, is_number, loads
from .errors import api_error
from .models import PubAck

if TYPE_CHECKING:
    from ...wire import Msg

ANY_DOMAIN = "*"
"""For :class:`AckCheck`: accept any domain (no domain has this name)."""


_usual_ack = re.compile(
    rb'\{"stream":"([0-9A-Za-z_-]+)"(?:, ?"domain": ?"([0-9A-Za-z_-]+)")?, ?"seq": ?([1-9][0-9]{0,17})'
    rb'(, ?"duplicate": ?true)?\}'
).fullmatch
"""What servers write (2.9 with spaces); the JSON parser handles everything else."""


def parse_pub_ack(payload: bytes | bytearray | memoryview) -> PubAck:
    """Parse an acknowledgement.

    Raises:
        APIError: the server refused the message.
        RemoteProtocolError: not an acknowledgement.
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
            "the answer to a publish is not an acknowledgement: is the subject bound to a stream?"
        )
    domain, value, batch = (_text(document.get(key)) for key in ("domain", "val", "batch"))
    count = document.get("count")
    return PubAck(
        stream,
        seq,
        document.get("duplicate") is True,
        domain,
        value,
        batch,
        count if is_number(count) else None,
    )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


@lru_cache(maxsize=16)
def plain_ack_head(stream: str, domain: str | None = None) -> bytes:
    """Return the start of a plain acknowledgement; only the sequence and a brace follow it."""
    if domain is None:
        return b'{"stream":%b,"seq":' % dumps_str(stream)
    return b'{"stream":%b,"domain":%b,"seq":' % (dumps_str(stream), dumps_str(domain))


def plain_ack_seq(payload: bytes | bytearray | memoryview, head: bytes) -> int:
    """Return the sequence in a plain acknowledgement that starts with ``head``; 0 for any other one."""
    if type(payload) is bytes and payload.startswith(head) and payload.endswith(b"}"):
        digits = payload[len(head) : -1]
        if digits.isdigit() and len(digits) < 20 and digits[0] != 48:  # JSON has no leading zeros
            return int(digits)
    return 0


def check_ack(msg: Msg) -> None:
    """Make sure that a message may be an acknowledgement: it has neither headers nor a reply subject.

    A stored message has: anybody who may read one can have it sent to any inbox, with any payload.

    Raises:
        RemoteProtocolError: it is none.
    """
    if msg.header is not None or msg.reply is not None:
        raise RemoteProtocolError("not an acknowledgement: a message with headers, or with a reply subject")


class AckCheck:
    """Decides which acknowledgements count: those that name this stream, in this domain.

    Every client that may read a subject sees the reply subjects of its messages and can answer them; and a
    stream of the same name in another domain (of a hub or a leaf node) stores, and acknowledges, the same
    messages. Hence the rule for all that builds on answers: **no delete, purge or publish is decided by
    unverified input.** An acknowledgement counts once, for the message whose token it names, and only if it
    passes here. The sequence in any other one is at most a hint where to look; a message is deleted by its
    sequence only after it has been read at the leader and is ours.

    Args:
        stream: the stream's name.
        domain: its JetStream domain as ``STREAM.INFO`` reports it; ``None`` = none, :data:`ANY_DOMAIN` = not
            known.
    """

    __slots__ = ("domain", "head", "stream")

    def __init__(self, stream: str, domain: str | None) -> None:
        self.stream: str = stream
        self.domain: str | None = domain
        self.head: bytes = plain_ack_head(stream, None if domain == ANY_DOMAIN else domain)

    def parse(self, payload: bytes | bytearray | memoryview) -> PubAck:
        """Parse an acknowledgement and make sure that it is the stream's own.

        A refusal names the stream, but no domain, so it may come from a stream of the same name in another
        domain. An error that names no stream answers another request: anybody can have such an answer sent
        to any inbox.

        Raises:
            APIError: the message was refused, as far as can be known by this stream.
            WrongStreamError: another stream, or the stream of another domain, answered.
            RemoteProtocolError: not an acknowledgement.
        """
        seq = plain_ack_seq(payload, self.head)
        if seq:
            return PubAck(self.stream, seq, False, None if self.domain == ANY_DOMAIN else self.domain)
        try:
            ack = parse_pub_ack(payload)
        except APIError as exc:
            named = loads(payload).get("stream")
            if not isinstance(named, str) or not named:
                raise RemoteProtocolError(f"an error that names no stream: {exc}") from None
            if named != self.stream:
                raise self._wrong(named, None, "refused by") from None
            raise
        if ack.stream != self.stream or (ack.domain != self.domain and self.domain != ANY_DOMAIN):
            raise self._wrong(ack.stream, ack.domain, f"stored as {ack.seq} in")
        return ack

    def may_answer(self, payload: bytes | bytearray | memoryview, header: bytes) -> bool:
        """Whether this may answer a message with this header; false if only another one to the same stream.

        What another stream says, or what is no acknowledgement, is for :meth:`parse` to tell.
        """
        if (
            type(payload) is bytes
            and payload.startswith(self.head)
            and payload.find(b'"', len(self.head)) < 0
        ):
            return True  # nothing but a sequence follows
        try:
            ack = self.parse(payload)
        except APIError as exc:
            return can_cause(header, exc.err_code)
        except NatsError:
            return True
        return not ack.duplicate or has_id(header)

    def _wrong(self, stream: str, domain: str | None, what: str) -> WrongStreamError:
        wanted = None if self.domain == ANY_DOMAIN else self.domain
        return WrongStreamError(
            f"{what} {_described(stream, domain)}; expected {_described(self.stream, wanted)}",
            stream=stream,
            domain=domain,
            expected_stream=self.stream,
            expected_domain=wanted,
        )


ANY_MESSAGE = frozenset({10002, 10023, 10028, 10047, 10054, 10063, 10077, 10109, 10120, 10167})
"""Codes of refusals that any message can cause: limits, a sealed stream, too much to do."""

COUNTED = 10169
"""The code where a stream of counters (ADR-49) gets a message without an increment."""

HEADER_TOO_LONG = 10097

LONG_HEADER = 32 * 1024
"""Bytes of a header that may be too long for a stream: half of what it takes, as others may add to it."""

CAUSES: dict[int, tuple[bytes, ...]] = {
    10070: (b"Nats-Expected-Last-Msg-Id:",),
    10071: (b"Nats-Expected-Last-Sequence:", b"Nats-Expected-Last-Subject-Sequence:"),
    10111: (b"Nats-Rollup:", b"Nats-Schedule:"),
    10158: (b"Nats-Msg-Id:",),
    10163: (b"Nats-Expected-Last-Subject-Sequence:",),
    10164: (b"Nats-Expected-Last-Sequence:", b"Nats-Expected-Last-Subject-Sequence:"),
    10185: (b"Nats-Required-Api-Level:",),
    10193: (b"Nats-Expected-Last-Subject-Sequence-Subject:",),
    10227: (b"Nats-Stream-Source:",),
    **dict.fromkeys((10165, 10166), (b"Nats-TTL:", b"Nats-Schedule-TTL:")),
    **dict.fromkeys((10168, 10170, 10171, 10172), (b"Nats-Incr:",)),
    **dict.fromkeys((10174, 10175, 10176, 10177, 10179, 10199, 10200, 10201, 10210), (b"Nats-Batch-Id:",)),
    **dict.fromkeys((10188, 10189, 10190, 10191, 10192, 10203, 10212, 10223), (b"Nats-Schedule",)),
}
"""Codes of the other refusals, and how the headers begin of which a message needs one to cause them.

Not 10060, that another stream was expected: we expect the one that answers.
"""


def _has(header: bytes, name: bytes) -> bool:
    return header.find(b"\r\n" + name) >= 0  # servers tell case apart, too


def has_id(header: bytes) -> bool:
    """Whether a message with this header block can be a duplicate."""
    return _has(header, b"Nats-Msg-Id:")


def can_cause(header: bytes, code: int) -> bool:
    """Whether a message with this header block can cause a refusal with this code.

    Whoever may publish to the same stream can have its answer to a message of theirs sent to our inbox. Nor
    is an unknown code believed: the stream's own answer follows, or none does.
    """
    if code == COUNTED:
        return not _has(header, b"Nats-Incr:")
    if code == HEADER_TOO_LONG:
        return len(header) > LONG_HEADER
    return code in ANY_MESSAGE or any(_has(header, name) for name in CAUSES.get(code, ()))


class OwnAnswer:
    """Waits for a stream's own answer to a publish: ``counts=`` of a request.

    What cannot be the answer to our message does not count; see :func:`can_cause`.

    Args:
        acks: which stream it is.
        header: the message's header block.

    Attributes:
        other: why the answers so far do not count; ``None`` = there were none.
        passed: a refusal that another message has caused.
    """

    __slots__ = ("_ack", "_acks", "_header", "_refusal", "other", "passed")

    def __init__(self, acks: AckCheck, header: bytes) -> None:
        self._acks = acks
        self._header = header
        self._ack: PubAck | None = None
        self._refusal: APIError | None = None
        self.passed: APIError | None = None
        self.other: NatsError | None = None

    def __call__(self, msg: Msg) -> bool:
        try:
            ack = self._acks.parse(msg.payload)
            if ack.duplicate and not has_id(self._header):
                raise RemoteProtocolError(UNIDENTIFIED)
            self._ack = ack
        except APIError as exc:
            if not can_cause(self._header, exc.err_code):
                self.passed = exc
                return False
            self._refusal = exc
        except (WrongStreamError, RemoteProtocolError) as exc:
            if not isinstance(self.other, WrongStreamError):
                self.other = exc
            return False
        return True

    @property
    def refused(self) -> bool:
        """Whether the answer that counted is a refusal."""
        return self._refusal is not None

    def missing(self, timeout: RequestTimeoutError) -> NatsError:
        """Return the error where no answer has counted in time: why those that came do not."""
        if self.other is not None or self.passed is None:
            return self.other or timeout
        return unanswered(str(timeout), self.passed)

    def result(self) -> PubAck:
        """Return the acknowledgement that counted.

        Raises:
            APIError: the message was refused.
        """
        if self._ack is None:
            raise self._refusal or AssertionError("no answer")
        return self._ack


UNIDENTIFIED = "a message without an id was acknowledged as a duplicate"


def unanswered(what: str, passed: APIError | None) -> RequestTimeoutError:
    """Return the error for a message without an answer; ``passed``: the refusal that was not believed."""
    if passed is None:
        return RequestTimeoutError(what)
    error = RequestTimeoutError(f"{what}, but a refusal that it cannot have caused: {passed}")
    error.__cause__ = passed
    return error


def _described(stream: str, domain: str | None) -> str:
    return f"stream {brief(stream)}" + ("" if domain is None else f" of domain {brief(domain)}")


class Delivery:
    """What a ``$JS.ACK.…`` reply subject says about a delivery."""

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
        return int(self._delivered)  # parsed on demand: listing many messages does not need it

    def __repr__(self) -> str:
        return (
            f"<Delivery {self.stream}/{self.consumer} stream_seq={self.stream_seq} "
            f"consumer_seq={self.consumer_seq} num_pending={self.num_pending}>"
        )


def parse_ack_subject(reply: bytes | None) -> Delivery | None:
    """Parse a reply subject; ``None`` when it is not an acknowledgement subject.

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
    # With a time of 19 digits, at most 22 digits are left for four numbers: none has more than 19.
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
    """Whether all are unsigned 64-bit numbers, as servers use."""
    return all(0 < len(each) <= 20 and int(each) < 1 << 64 for each in numbers)


def is_flow_control(reply: bytes, stream: str, consumer: str) -> bool:
    """Whether ``reply`` is a subject on which a server expects the flow control answers of that consumer.

    Two forms exist::

        $JS.FC.<stream>.<consumer>.<token>
        $JS.FC.<domain>.<account>.<stream>.<consumer>.<token>            servers with ``js_ack_fc_v2``

    The check matters because anybody may send a request with any reply subject, and answering it publishes
    there. No server sends a subject that is too long for a control line.
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
