"""Subjects, queue names and tokens: what may be sent, and which pattern matches which subject (ADR-6).

A space or newline in a name would inject protocol lines, and servers accept more than they should, so every
name is checked here before any byte is sent.
"""

from __future__ import annotations

import os
import re
from base64 import urlsafe_b64encode
from functools import lru_cache
from itertools import chain
from struct import iter_unpack

from . import _values
from .errors import BadSubjectError

MAX_LINE = 4096
"""Bytes of the longest control line that servers accept by default.

They do not announce their limit, and close a connection that exceeds it.
"""
MAX_NAMES = MAX_LINE - len("HPUB   9999999999 9999999999\r\n")
"""Bytes of all names on the longest line: subject and reply subject, or subject and queue name."""
HALF_ROOM = MAX_NAMES // 2
"""Bytes of a name up to which two names always fit, without :func:`check_names`."""

_UNSAFE = bytes(range(0x21)) + b"\x7f"  # C0 controls, SPACE, DEL; as bytes, so UTF-8 text is untouched
_BREAKS = b"\t\n\f\r "  # those that servers accept in no name: most end the token


def _checked_text(name: str, what: str) -> str:
    if not isinstance(name, str):
        raise BadSubjectError(f"{what} is a str, not {type(name).__name__}")
    return _values.text(name)


def _encode(name: str, what: str, unsafe: bytes = _UNSAFE) -> bytes:
    """Return ``name`` as UTF-8 if it can be one token of a control line."""
    try:
        raw = _checked_text(name, what).encode()
    except UnicodeEncodeError:
        raise BadSubjectError(f"{what} cannot be encoded as UTF-8: {_values.brief(name)}") from None
    if not raw:
        raise BadSubjectError(f"{what} is empty")
    check_names(raw)
    if len(raw.translate(None, unsafe)) != len(raw):
        raise BadSubjectError(f"{what} has white space or control characters: {_values.brief(name)}")
    return raw


def check_names(subject: bytes, other: bytes = b"") -> None:
    """Refuse a subject that is too long for one control line, together with a reply subject or queue name.

    The sender of a message chooses its reply subject: answering it must not cost us the connection.

    Raises:
        BadSubjectError: they have more than :data:`MAX_NAMES` bytes.
    """
    size = len(subject) + len(other)
    if size > MAX_NAMES:
        text = _values.brief(subject.decode("utf-8", "surrogateescape"))
        raise BadSubjectError(
            f"{size} bytes of names are too long for a protocol line, which has room for {MAX_NAMES} "
            f"(the server would close the connection): {text}"
        )


def _tokens(raw: bytes, what: str) -> list[bytes]:
    tokens = raw.split(b".")
    if b"" in tokens:
        raise BadSubjectError(f"{what} has an empty token: {_values.brief(raw.decode())}")
    return tokens


def check_publish_subject(s: str) -> bytes:
    """Return ``s`` as bytes if it can be published to (or used as a reply subject).

    Raises:
        BadSubjectError: it is empty, has white space, C0 control characters or DEL, an empty token
            (``a..b``), a wildcard token (``*``, ``>``), cannot be encoded as UTF-8, or has more than 4066
            bytes.
    """
    # Convert before the cache look-up: subclasses may compare equal although their text differs.
    return plain_publish_subject(s if type(s) is str else _checked_text(s, "subject"))


@lru_cache(maxsize=1024)
def plain_publish_subject(s: str) -> bytes:
    """:func:`check_publish_subject` for a plain ``str``. Hot path: one cache look-up."""
    return _literal(_encode(s, "subject"))


@lru_cache(maxsize=1024)
def api_subject(s: str) -> bytes:
    """:func:`check_publish_subject` for requests about streams and consumers: others choose their names.

    Control characters that servers accept in such a name are allowed.
    """
    return _literal(_encode(s, "subject", _BREAKS))


def _literal(raw: bytes) -> bytes:
    tokens = _tokens(raw, "subject")
    if b"*" in tokens or b">" in tokens:
        raise BadSubjectError(f"wildcards cannot be published to: {_values.brief(raw.decode())}")
    return raw


def check_subscribe_subject(s: str) -> bytes:
    """Return ``s`` as bytes if it can be subscribed to; wildcards are ``*`` and, as the last token, ``>``.

    Raises:
        BadSubjectError: as :func:`check_publish_subject`, or ``>`` is not the last token.
    """
    return _plain_subscribe_subject(s if type(s) is str else _checked_text(s, "subject"))


@lru_cache(maxsize=1024)
def _plain_subscribe_subject(s: str) -> bytes:
    raw = _encode(s, "subject")
    if b">" in _tokens(raw, "subject")[:-1]:
        raise BadSubjectError(f"'>' is only allowed as the last token: {_values.brief(s)}")
    return raw


def check_queue(s: str) -> bytes:
    """Return the queue group name ``s`` as bytes.

    Raises:
        BadSubjectError: it is empty, has white space or control characters, cannot be encoded as UTF-8, or
            has more than 4066 bytes.
    """
    return _encode(s, "queue name")


def has_wildcards(subject: str) -> bool:
    """Tell whether a subject is a pattern: ``*`` or ``>`` is one of its tokens."""
    return not {"*", ">"}.isdisjoint(subject.split("."))


def subject_matches(pattern: str, subject: str) -> bool:
    """Tell whether a subscription to ``pattern`` gets a message on ``subject``.

    ``*`` matches one token, a last ``>`` one or more. Neither argument is checked.
    """
    if pattern.endswith(".>") and "*" not in pattern:
        return subject.startswith(pattern[:-1])
    wanted = pattern.split(".")
    tokens = subject.split(".")
    if wanted[-1] == ">":
        wanted.pop()
        if len(tokens) <= len(wanted):
            return False
    elif len(tokens) != len(wanted):
        return False
    return all(want in ("*", token) for want, token in zip(wanted, tokens, strict=False))


_drawn: list[bytes] = []
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_drawn.clear)


_API_SUBJECT = re.compile(rb"\$JS\.(?:([^.]+)\.)?API\.(.+)", re.DOTALL)


def split_api_subject(subject: bytes) -> tuple[bytes, bytes] | None:
    """Return the domain in a subject of the JetStream API, empty without one, and what follows the prefix.

    ``None`` for other subjects, also for those of an API that is imported with a prefix of its own.
    """
    found = _API_SUBJECT.fullmatch(subject)
    return None if found is None else (found[1] or b"", found[2])


def random_bytes() -> bytes:
    """Return nine random bytes that nobody can guess. Many are drawn at a time: that is a system call."""
    while True:
        try:
            return _drawn.pop()
        except IndexError:
            _drawn.extend(chain.from_iterable(iter_unpack("9s", os.urandom(9 * 64))))


def secret_name() -> str:
    """Return a new name that nobody can guess: 128 random bits, 22 characters of ``[0-9A-Za-z_-]``.

    For inboxes, consumers and batches: anybody who knows the name of one may be able to write to it.
    """
    return urlsafe_b64encode(os.urandom(16))[:22].decode()
