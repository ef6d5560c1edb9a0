"""What the configuration of a bucket's stream does to the messages of an object.

A bucket made by an object store client keeps every message until it is purged. A stream made or edited by
hand may not. An object is one message for each chunk, all on one subject, and a meta message that rolls up
the one before it; *all* of them have to stay. A configuration may stand in the way in three ways:

* the stream takes messages away, or lacks what every write needs: :attr:`Limits.refusal`;
* it keeps small objects only: :attr:`Limits.message` and :attr:`Limits.chunks`, checked object by object;
* it makes room by removing its oldest messages: :attr:`Limits.rolls`, where the room is looked at first.

Reading needs none of this.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from natsproto.errors import RemoteProtocolError
from objstore.format.naming import all_chunks_subject, all_meta_subject

RECORD = 40
"""Bytes a stored message takes beyond subject, headers and payload: 34 in a file, 16 in memory."""


class Refusal(NamedTuple):
    """Why a stream cannot keep objects: the field, its value, what it does, and what to set."""

    field: str
    value: object
    why: str
    remedy: str


class Limits(NamedTuple):
    """What a stream leaves of the room for objects; the default is what a bucket of ours leaves: all of it.

    Attributes:
        refusal: why nothing can be written, ``None`` when something can.
        sealed: the stream is read-only.
        message: bytes of the largest message (``max_msg_size``), headers included; 0 = no limit.
        chunks: the most chunks of one object (``max_msgs_per_subject``); 0 = no limit.
        rolls: whether the stream discards its oldest messages when ``max_bytes`` or ``max_msgs`` is reached.
        max_bytes: that limit; 0 = none.
        max_msgs: that limit; 0 = none.
    """

    refusal: Refusal | None = None
    sealed: bool = False
    message: int = 0
    chunks: int = 0
    rolls: bool = False
    max_bytes: int = 0
    max_msgs: int = 0


def limits_of(bucket: str, config: Mapping[str, object]) -> Limits:
    """Judge a stream's configuration, as the server gives it; what is not there has its usual value.

    Raises:
        RemoteProtocolError: a field is of another type.
    """
    max_bytes, max_msgs = _limit(config, "max_bytes"), _limit(config, "max_msgs")
    return Limits(
        _refusal(bucket, config),
        config.get("sealed") is True,
        _limit(config, "max_msg_size"),
        _limit(config, "max_msgs_per_subject"),  # one too many removes the oldest, or is refused as too much
        config.get("discard") == "old" and bool(max_bytes or max_msgs),
        max_bytes,
        max_msgs,
    )


def _limit(config: Mapping[str, object], field: str) -> int:
    value = config.get(field)
    return value if isinstance(value, int) and value > 0 else 0


def _refusal(bucket: str, config: Mapping[str, object]) -> Refusal | None:
    retention = config.get("retention") or "limits"
    if retention != "limits":
        return Refusal(
            "retention",
            retention,
            "the stream drops messages as soon as its consumers have taken them, or at once without any",
            'make the stream anew with retention "limits"',
        )
    if config.get("no_ack") is True:
        return Refusal(
            "no_ack", True, "the stream does not say whether a message was stored", "set no_ack to false"
        )
    if config.get("deny_purge") is True:  # then there is no roll-up either, and it cannot be taken back
        return Refusal(
            "deny_purge",
            True,
            "neither the chunks nor the meta message of a replaced object could be removed",
            "make the stream anew with deny_purge false and allow_rollup_hdrs true",
        )
    if config.get("allow_rollup_hdrs") is False:
        return Refusal(
            "allow_rollup_hdrs",
            False,
            "a meta message could not replace the one before it",
            "set allow_rollup_hdrs to true",
        )
    if config.get("allow_msg_counter") is True:
        return Refusal(
            "allow_msg_counter",
            True,
            "the stream takes nothing but counters",
            "make the stream anew without allow_msg_counter",
        )
    return _subjects_refusal(bucket, config)


def _subjects_refusal(bucket: str, config: Mapping[str, object]) -> Refusal | None:
    wanted = (all_chunks_subject(bucket), all_meta_subject(bucket))
    subjects = config.get("subjects")
    if subjects is not None or config.get("sources"):  # a mirror has none and is read-only anyway
        held = (
            [subject for subject in subjects if isinstance(subject, str)]
            if isinstance(subjects, list)
            else []
        )
        lacking = [subject for subject in wanted if not any(_covers(pattern, subject) for pattern in held)]
        if lacking:
            return Refusal(
                "subjects",
                subjects,
                f"the stream does not listen on {' and '.join(lacking)}",
                f"set subjects to {list(wanted)}",
            )
    transform = config.get("subject_transform")
    if isinstance(transform, Mapping):
        source, target = transform.get("src") or ">", transform.get("dest")
        if not isinstance(source, str):
            raise RemoteProtocolError("an API answer has a subject_transform whose 'src' is no text")
        if source != target and any(_overlap(source, subject) for subject in wanted):
            return Refusal(
                "subject_transform",
                dict(transform),
                "messages are stored under other subjects than they are looked for",
                "remove subject_transform",
            )
    return None


def _covers(pattern: str, filter: str) -> bool:
    """Whether every subject that ``filter`` matches is matched by ``pattern``, too."""
    tokens, wanted = pattern.split("."), filter.split(".")
    for index, token in enumerate(tokens):
        if token == ">":
            return len(wanted) > index
        if index >= len(wanted) or wanted[index] == ">" or token not in ("*", wanted[index]):
            return False
    return len(tokens) == len(wanted)


def _overlap(one: str, other: str) -> bool:
    """Whether some subject is matched by both."""
    for a, b in zip(one.split("."), other.split("."), strict=False):
        if ">" in (a, b):
            return True
        if "*" not in (a, b) and a != b:
            return False
    return one.count(".") == other.count(".")
