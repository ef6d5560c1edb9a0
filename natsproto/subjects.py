"""Subjects, queue names and tokens: what may be sent, and which pattern matches which subject (ADR-6).

A name with a space or a line break in it would let its author write protocol lines of his own, and real
servers accept more than is good for anyone, so everything is checked here before any byte is sent.
"""

from __future__ import annotations

from functools import lru_cache

from . import _values
from .errors import BadSubjectError, InvalidNameError

_UNSAFE = bytes(range(0x21)) + b"\x7f"  # C0 controls, SPACE, DEL; as bytes, so UTF-8 text is untouched


def _checked_text(name: str, what: str) -> str:
    if not isinstance(name, str):
        raise BadSubjectError(f"{what} is a str, not {type(name).__name__}")
    return _values.text(name)


def _encode(name: str, what: str) -> bytes:
    """Return ``name`` as UTF-8 if it can be one token of a control line."""
    try:
        raw = _checked_text(name, what).encode()
    except UnicodeEncodeError:
        raise BadSubjectError(f"{what} cannot be encoded as UTF-8: {name!r}") from None
    if not raw:
        raise BadSubjectError(f"{what} is empty")
    if len(raw.translate(None, _UNSAFE)) != len(raw):
        raise BadSubjectError(f"{what} has white space or control characters: {name!r}")
    return raw


def _tokens(raw: bytes, what: str) -> list[bytes]:
    tokens = raw.split(b".")
    if b"" in tokens:
        raise BadSubjectError(f"{what} has an empty token: {raw.decode()!r}")
    return tokens


def check_publish_subject(s: str) -> bytes:
    """Return ``s`` as bytes if it can be published to (or used as a reply subject).

    Raises:
        BadSubjectError: it is empty, has white space, C0 control characters or DEL, an empty token
            (``a..b``), a wildcard token (``*``, ``>``), or cannot be encoded as UTF-8.
    """
    # By value before the look-up: subclasses may be equal to one another and hold different text.
    return plain_publish_subject(s if type(s) is str else _checked_text(s, "subject"))


@lru_cache(maxsize=1024)
def plain_publish_subject(s: str) -> bytes:
    """:func:`check_publish_subject` where ``type(s) is str`` is known. Hot path: one look-up."""
    raw = _encode(s, "subject")
    tokens = _tokens(raw, "subject")
    if b"*" in tokens or b">" in tokens:
        raise BadSubjectError(f"wildcards cannot be published to: {s!r}")
    return raw


def check_subscribe_subject(s: str) -> bytes:
    """Return ``s`` as bytes if it can be subscribed to; wildcards are ``*`` and, as last token, ``>``.

    Raises:
        BadSubjectError: as :func:`check_publish_subject`, or ``>`` is not the last token.
    """
    return _plain_subscribe_subject(s if type(s) is str else _checked_text(s, "subject"))


@lru_cache(maxsize=1024)
def _plain_subscribe_subject(s: str) -> bytes:
    raw = _encode(s, "subject")
    if b">" in _tokens(raw, "subject")[:-1]:
        raise BadSubjectError(f"'>' is only allowed as the last token: {s!r}")
    return raw


def check_queue(s: str) -> bytes:
    """Return the queue group name ``s`` as bytes.

    Raises:
        BadSubjectError: it is empty, has white space or control characters, or cannot be encoded as UTF-8.
    """
    return _encode(s, "queue name")


def check_token(s: str, what: str = "name") -> str:
    """Return ``s`` if it can be one token of a subject: a stream, consumer, bucket or durable name.

    Args:
        s: the name.
        what: what it names, for the error's message.

    Raises:
        InvalidNameError: it is empty, has white space, control characters, one of ``. * > / \\``, or
            cannot be encoded as UTF-8 (ADR-6).
    """
    try:
        _encode(s, what)
    except BadSubjectError as exc:
        raise InvalidNameError(str(exc)) from None
    s = _values.text(s)
    if any(char in s for char in ".*>/\\"):
        raise InvalidNameError(f"{what} must not contain any of . * > / \\: {s!r}")
    return s


def subject_matches(pattern: str, subject: str) -> bool:
    """Tell whether a subscription to ``pattern`` gets a message on ``subject``.

    ``*`` stands for one token, a last ``>`` for one or more. Neither argument is checked.
    """
    wanted = pattern.split(".")
    tokens = subject.split(".")
    if wanted[-1] == ">":
        wanted.pop()
        if len(tokens) <= len(wanted):
            return False
    elif len(tokens) != len(wanted):
        return False
    return all(want in ("*", token) for want, token in zip(wanted, tokens, strict=False))
