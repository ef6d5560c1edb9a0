"""Stored messages, as the leader of their stream answers with them."""

from __future__ import annotations

import base64
import binascii

from ...errors import RemoteProtocolError
from .codec import is_number, parse_time
from .models import StoredMessage


def leader_message(answer: dict[str, object]) -> StoredMessage:
    """Return the message in an answer to ``STREAM.MSG.GET``.

    Raises:
        RemoteProtocolError: it has none, or cannot be parsed.
    """
    message = answer.get("message")
    if not isinstance(message, dict):
        raise RemoteProtocolError("an answer to STREAM.MSG.GET has no message")
    subject, seq = message.get("subject"), message.get("seq")
    if not isinstance(subject, str) or not is_number(seq):
        raise RemoteProtocolError("an answer to STREAM.MSG.GET lacks its subject or sequence")
    try:
        data = base64.b64decode(message.get("data") or "")
        header = base64.b64decode(message.get("hdrs") or "")
    except (binascii.Error, ValueError, TypeError):
        raise RemoteProtocolError("an answer to STREAM.MSG.GET is not base64") from None
    return StoredMessage(subject, seq, data, header or None, parse_time(message.get("time")))
