"""What the configuration of a bucket's stream does to the messages of an object.

A bucket created by an object store client keeps every message until it is purged. A stream that someone
created or edited directly may not. An object is one message per chunk, all on one subject, and a meta message
that rolls up the previous one; the stream must keep *all* of them. A configuration can prevent that in three
ways:

* the stream removes messages, or lacks what every write needs: :attr:`Limits.refusal`;
* it keeps small objects only: :attr:`Limits.message` and :attr:`Limits.chunks`, checked for each object;
* it makes room by removing its oldest messages: :attr:`Limits.evicts_oldest`; a put then checks first whether
  there is room.

Reads check none of this.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from natsproto.errors import RemoteProtocolError
from objstore.format.naming import all_chunks_subject, all_meta_subject, all_subject, stream_name

RECORD = 40
"""Bytes a stored message takes beyond subject, headers and payload: 34 in a file, 16 in memory."""


class Refusal(NamedTuple):
    """Why a stream cannot keep objects: the field, its value, what it does, and what to set."""

    field: str
    value: object
    why: str
    remedy: str


class Limits(NamedTuple):
    """How a stream limits objects; the default, no limit, is that of a bucket created by this library.

    Attributes:
        refusal: why nothing can be written; ``None`` when writes are possible.
        sealed: the stream is read-only.
        message: bytes of the largest message (``max_msg_size``), headers included; 0 = no limit.
        chunks: the most chunks of one object (``max_msgs_per_subject``); 0 = no limit.
        evicts_oldest: whether the stream removes its oldest messages when ``max_bytes`` or ``max_msgs`` is
            reached.
        max_bytes: the stream's limit in bytes; 0 = none.
        max_msgs: the stream's limit in messages; 0 = none.
    """

    refusal: Refusal | None = None
    sealed: bool = False
    message: int = 0
    chunks: int = 0
    evicts_oldest: bool = False
    max_bytes: int = 0
    max_msgs: int = 0


def limits_of(bucket: str, config: Mapping[str, object]) -> Limits:
    """Return the limits that a stream's configuration sets; absent fields have the server's default.

    Raises:
        RemoteProtocolError: a field has the wrong type.
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
            "the stream removes messages as soon as its consumers have received them, or at once without any",
            'recreate the stream with retention "limits"',
        )
    if config.get("no_ack") is True:
        return Refusal(
            "no_ack", True, "the stream does not say whether a message was stored", "set no_ack to false"
        )
    if config.get("deny_purge") is True:  # this excludes roll-ups, too, and cannot be undone
        return Refusal(
            "deny_purge",
            True,
            "neither the chunks nor the meta message of a replaced object could be removed",
            "recreate the stream with deny_purge false and allow_rollup_hdrs true",
        )
    if config.get("allow_rollup_hdrs") is False:
        return Refusal(
            "allow_rollup_hdrs",
            False,
            "a meta message could not replace the previous one",
            "set allow_rollup_hdrs to true",
        )
    if config.get("allow_msg_counter") is True:
        return Refusal(
            "allow_msg_counter",
            True,
            "the stream accepts nothing but counters",
            "recreate the stream without allow_msg_counter",
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
            raise RemoteProtocolError("an API response has a subject_transform whose 'src' is not a string")
        if source != target and any(_overlap(source, subject) for subject in wanted):
            return Refusal(
                "subject_transform",
                dict(transform),
                "messages are stored under other subjects than the ones that readers use",
                "remove subject_transform",
            )
    return None


def holds_bucket(config: Mapping[str, object]) -> bool:
    """Whether a stream called ``OBJ_…`` is a bucket: it listens on subjects of one, or copies one.

    Its name proves nothing. A bucket that somebody edited remains one, even if it listens on less than it
    should: then :func:`limits_of` says what to mend.
    """
    subjects = config.get("subjects")
    if isinstance(subjects, list) and any(
        isinstance(subject, str) and _overlap(subject, all_subject("*")) for subject in subjects
    ):
        return True
    sources = config.get("sources")
    return any(map(_copies_bucket, [config.get("mirror"), *(sources if isinstance(sources, list) else ())]))


def _copies_bucket(origin: object) -> bool:
    """Whether a mirror or source is a bucket's stream, or is copied to subjects of a bucket."""
    if not isinstance(origin, Mapping):
        return False
    if str(origin.get("name")).startswith(stream_name("")):
        return True
    transforms = origin.get("subject_transforms")
    return isinstance(transforms, list) and any(
        isinstance(each, Mapping) and str(each.get("dest")).startswith("$O.") for each in transforms
    )


def _covers(pattern: str, filter: str) -> bool:
    """Whether ``pattern`` matches every subject that ``filter`` matches."""
    tokens, wanted = pattern.split("."), filter.split(".")
    for index, token in enumerate(tokens):
        if token == ">":
            return len(wanted) > index
        if index >= len(wanted) or wanted[index] == ">" or token not in ("*", wanted[index]):
            return False
    return len(tokens) == len(wanted)


def _overlap(one: str, other: str) -> bool:
    """Whether some subject matches both patterns."""
    for a, b in zip(one.split("."), other.split("."), strict=False):
        if ">" in (a, b):
            return True
        if "*" not in (a, b) and a != b:
            return False
    return one.count(".") == other.count(".")
