"""Decode metas as they come; what cannot be read is reported, and the listing continues."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from natsproto._values import brief
from natsproto.aio.callbacks import BoundedLog
from natsproto.jetstream.api.codec import time_from_ns

from ..bucket.bucket import Bucket, log
from ..format.codec import MetaDecodeError
from ..format.models import InvalidMeta, ObjectInfo
from ..format.naming import decode_meta_name
from ..format.plain_meta import plain_reader

if TYPE_CHECKING:
    from natsproto.jetstream.api.acks import Delivery
    from natsproto.jetstream.api.models import StoredMessage
    from natsproto.wire import Msg as WireMsg

OnInvalid = Callable[[InvalidMeta], None]
"""Called with each meta message that cannot be read; the listing continues."""

MetaReader = Callable[["WireMsg", "Delivery"], ObjectInfo | None]


SKIPPED = "a meta message on %s (revision %d) is skipped: %s"


def warn_invalid(invalid: InvalidMeta) -> None:
    """Log one WARNING for a meta that cannot be read: the default of ``on_invalid``."""
    log.warning(SKIPPED, brief(invalid.subject), invalid.revision, invalid.error)


def bounded_warnings() -> OnInvalid:
    """Return a :func:`warn_invalid` for a watch: whoever may write a meta decides how many there are."""
    bounded = BoundedLog(log)

    def warn(invalid: InvalidMeta) -> None:
        bounded.warning("unreadable metas", SKIPPED, brief(invalid.subject), invalid.revision, invalid.error)

    return warn


def reports_of(prefix: str, on_invalid: OnInvalid | None) -> OnInvalid:
    """Return what reports unreadable metas, except those at the subjects of names without the prefix."""
    report = on_invalid or warn_invalid

    def within(invalid: InvalidMeta) -> None:
        name = decode_meta_name(invalid.subject)
        if name is None or name.startswith(prefix):
            report(invalid)

    return within if prefix else report


def report_invalid(on_invalid: OnInvalid, invalid: InvalidMeta) -> None:
    """Call ``on_invalid``; log what it raises."""
    try:
        on_invalid(invalid)
    except Exception:
        log.exception("on_invalid raised")


def meta_reader(bucket: Bucket, on_invalid: OnInvalid) -> MetaReader:
    """Return a function that decodes a delivered meta, or reports it and returns ``None``."""
    plain = plain_reader(bucket.name)

    def read(msg: WireMsg, delivery: Delivery) -> ObjectInfo | None:
        stored = time_from_ns(delivery.time_ns)
        header, payload = msg.header, msg.payload
        # bytes.find() takes half as long as "in".
        if type(payload) is bytes and (header is None or header.find(b"Nats-TTL") < 0):
            info = plain(msg.subject, payload, delivery.stream_seq, stored)
            if info is not None:
                return info
        subject = msg.subject.decode("utf-8", "surrogateescape")
        try:
            return bucket.decode_raw(payload, header, subject, delivery.stream_seq, stored)
        except MetaDecodeError as exc:
            exc.with_traceback(None)  # its frames hold the whole message
            report_invalid(on_invalid, InvalidMeta(subject, delivery.stream_seq, exc))
            return None

    return read


def read_stored(bucket: Bucket, message: StoredMessage, on_invalid: OnInvalid) -> ObjectInfo | None:
    """Decode a requested meta message, or report it and return ``None``."""
    try:
        return bucket.decode(message)
    except MetaDecodeError as exc:
        exc.with_traceback(None)
        report_invalid(on_invalid, InvalidMeta(message.subject, message.seq, exc))
        return None
