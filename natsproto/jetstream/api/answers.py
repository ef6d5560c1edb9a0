"""How answers of the JetStream API begin: with their type.

A client that may publish to one API subject only, or to a stream of its own, can have the server send the
answer to our inbox. So an answer of another type, and an acknowledgement, which has none, do not count.
"""

from __future__ import annotations

_START = b'{"type":"io.nats.jetstream.api.v1.'

_TYPES = {
    "INFO": "account_info",
    "CONSUMER.DURABLE.CREATE": "consumer_create",
    "CONSUMER.LEADER.STEPDOWN": "consumer_leader_stepdown",
    "STREAM.LEADER.STEPDOWN": "stream_leader_stepdown",
    "STREAM.MSG.DELETE": "stream_msg_delete",
    "STREAM.MSG.GET": "stream_msg_get",
    "STREAM.PEER.REMOVE": "stream_remove_peer",
} | {
    f"{noun}.{verb}": f"{noun}_{verb}".lower()
    for noun, verbs in (
        ("STREAM", "CREATE DELETE INFO LIST NAMES PURGE RESTORE SNAPSHOT UPDATE"),
        ("CONSUMER", "CREATE DELETE INFO LIST NAMES PAUSE RESET UNPIN"),
    )
    for verb in verbs.split()
}
_BEGINNINGS = {words: _START + f'{kind}_response"'.encode() for words, kind in _TYPES.items()}


def answer_begins(suffix: str) -> bytes:
    """Return the first bytes of the answers to a request, errors included.

    All servers from 2.9 to 2.15 send the type first. Of a request that is not known here, any type is taken.

    Args:
        suffix: the request's subject after the API prefix: ``STREAM.INFO.orders``.
    """
    words = suffix.split(".", 3)
    for count in (3, 2, 1):
        begins = _BEGINNINGS.get(".".join(words[:count]))
        if begins is not None:
            return begins
    return _START


MSG_GET = answer_begins("STREAM.MSG.GET")
STREAM_INFO = answer_begins("STREAM.INFO")
