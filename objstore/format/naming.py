"""Names of buckets and objects, their stream and subjects (ADR-20, "Naming"), and the sizes of chunks."""

from __future__ import annotations

import re
from base64 import b64encode, urlsafe_b64decode
from binascii import a2b_base64, b2a_base64
from bisect import bisect_left
from collections.abc import Sequence
from functools import lru_cache

from natsproto import _values
from natsproto.errors import InvalidNameError
from natsproto.subjects import MAX_LINE, random_bytes
from objstore.errors import BadBucketError, IntegrityError
from objstore.format.digest import new_hasher, url_safe

DEFAULT_CHUNK_SIZE = 128 * 1024
"""Bytes of a chunk when the caller sets no size."""
MAX_CHUNK_SIZE = 1024 * 1024
"""Bytes of the largest chunk a caller may ask for."""

VALID_BUCKET_RE = r"^[a-zA-Z0-9_-]+$"
OBJ_ALL_CHUNKS_PRE_TEMPLATE = "$O.{bucket}.C.>"
OBJ_ALL_META_PRE_TEMPLATE = "$O.{bucket}.M.>"
OBJ_STREAM_TEMPLATE = "OBJ_{bucket}"

MAX_BUCKET_LENGTH = 251
"""Characters of the longest bucket name: the server allows 255 in a stream name, and ``OBJ_`` needs four."""
MAX_NAME_BYTES = 2900
"""UTF-8 bytes of the longest object name, even if the control line would allow more.

This leaves about a hundred bytes of the control line free: routes and gateways add an account and a longer
reply to the same subject.
"""

_BUCKET = re.compile(VALID_BUCKET_RE)
_NUID = re.compile(r"[0-9A-Za-z_-]{1,64}")
NUID_LENGTH = 24
"""Characters of the nuids made here."""

# `HPUB <subject> <reply> <header> <total>\r\n`: the longest control line of a meta message.
_REPLY_LENGTH = 80  # bytes; enough for other clients with their own inbox prefixes
_SIZE_DIGITS = 10
_LINE_OVERHEAD = len("HPUB ") + 1 + 1 + _SIZE_DIGITS + 1 + _SIZE_DIGITS + len("\r\n")


def check_bucket(name: str) -> str:
    """Return the bucket name as plain text if it is valid.

    Args:
        name: letters, digits, ``_`` and ``-``; at most 251 of them.

    Raises:
        BadBucketError: the name is anything else (a trailing newline, an empty name, not a string …).
    """
    if isinstance(name, str):
        name = _values.text(name)
    if not isinstance(name, str) or _BUCKET.fullmatch(name) is None:
        raise BadBucketError(
            f"bucket names consist of letters, digits, '_' and '-', got {name!r:.80}",
            bucket=name if isinstance(name, str) else "",
        )
    if len(name) > MAX_BUCKET_LENGTH:
        raise BadBucketError(
            f"bucket names have at most {MAX_BUCKET_LENGTH} characters, got {len(name)}", bucket=name
        )
    return name


def stream_name(bucket: str) -> str:
    """Return the name of the bucket's stream; the caller has checked the bucket name."""
    return f"OBJ_{bucket}"


def all_chunks_subject(bucket: str) -> str:
    """Return the subject filter that matches every chunk of the bucket."""
    return f"$O.{bucket}.C.>"


def all_subject(bucket: str) -> str:
    """Return the subject filter that matches everything of the bucket."""
    return f"$O.{bucket}.>"


def all_meta_subject(bucket: str) -> str:
    """Return the subject filter that matches every meta message of the bucket."""
    return f"$O.{bucket}.M.>"


@lru_cache(maxsize=128)  # a put needs it twice
def meta_subject(bucket: str, name: str) -> str:
    """Return the subject of an object's meta messages.

    The name becomes one token: URL-safe base64 **with** padding of its UTF-8 bytes. The caller has checked
    both arguments.
    """
    return f"$O.{bucket}.M.{url_safe(name.encode())}"


def _encodings(name: str) -> dict[str, None]:
    """Every form in which some client writes a name as a token, ours first, without duplicates."""
    raw = name.encode()
    urlsafe = url_safe(raw)
    standard = b64encode(raw).decode("ascii")
    return dict.fromkeys((urlsafe, standard, urlsafe.rstrip("="), standard.rstrip("=")))


def meta_subjects(bucket: str, name: str) -> list[str]:
    """Return every subject under which a client may store a name, :func:`meta_subject` first.

    nats.java encodes with the standard base64 alphabet; old nats.c and deno clients left out the padding. For
    every third name all of them agree. Every subject that :func:`decode_meta_name` decodes to the name is
    included.
    """
    return [f"$O.{bucket}.M.{encoded}" for encoded in _encodings(name)]


def decode_meta_name(subject: str) -> str | None:
    """Return the object name that a meta subject encodes, or ``None`` if it encodes none.

    Accepts both base64 alphabets, with or without padding; nothing else.
    """
    tokens = subject.split(".")
    if len(tokens) != 4 or tokens[0] != "$O" or tokens[2] != "M":
        return None
    token = tokens[3]
    try:  # both alphabets, with padding: a fourth of the time
        raw = a2b_base64(token)
        if b2a_base64(raw, newline=False).decode("ascii") == token:
            return raw.decode() or None
    except ValueError:  # binascii.Error and UnicodeDecodeError are ValueErrors
        pass
    encoded = token.rstrip("=")
    if "-" in encoded or "_" in encoded:
        encoded = encoded.replace("-", "+").replace("_", "/")
    try:
        raw = a2b_base64(encoded + "=" * (-len(encoded) % 4), strict_mode=True)
        name = raw.decode()
    except ValueError:
        return None
    # Surplus bits, partial padding or a mix of both alphabets: no client would look up the name there.
    if name and (token == url_safe(raw) or token in _encodings(name)):
        return name
    return None


def is_directory(name: str, ordered: Sequence[str]) -> bool:
    """Whether one of some sorted names lies below this one, as in a directory."""
    inside = name + "/"
    at = bisect_left(ordered, inside)
    return at < len(ordered) and ordered[at].startswith(inside)


def encodes_name(subject: str, bucket: str, name: str) -> bool:
    """Whether :func:`decode_meta_name` of a subject is the name; at once for what this library stores."""
    if len(name) < len(subject):  # a longer name is not cached
        try:
            if meta_subject(bucket, name) == subject:
                return True
        except UnicodeEncodeError:
            return False
    return decode_meta_name(subject) == name


def new_nuid(name: str) -> str:
    """Return a new unique nuid for the chunks of an object: 24 characters of ``[0-9A-Za-z_-]``.

    It has 72 random bits, and 72 bits of the SHA-256 of these and the name. So a reader can tell that a meta
    of another name refers to chunks that are not its own (:func:`is_nuid_of`). Other clients' nuids have 22
    characters.
    """
    return _nuid(random_bytes(), name)


def is_own_nuid(nuid: str) -> bool:
    """Tell whether a nuid may come from :func:`new_nuid`, for any name."""
    return len(nuid) == NUID_LENGTH and is_safe_nuid(nuid)


def is_nuid_of(nuid: str, name: str) -> bool:
    """Tell whether :func:`new_nuid` made this nuid for this name.

    False proves nothing: other clients' nuids do not depend on the name, and a renamed object keeps its nuid.
    """
    return is_own_nuid(nuid) and nuid == _nuid(urlsafe_b64decode(nuid)[:9], name)


def _nuid(drawn: bytes, name: str) -> str:
    return url_safe(drawn + new_hasher(drawn + name.encode()).digest()[:9])


def is_safe_nuid(nuid: str) -> bool:
    """Tell whether a nuid is one token of harmless characters, so that it is safe in a subject.

    Otherwise a forged meta message with the nuid ``>`` would turn a purge of one object into a purge of the
    whole bucket.
    """
    return _NUID.fullmatch(nuid) is not None


def chunk_subject(bucket: str, nuid: str) -> str:
    """Return the subject of an object's chunks.

    Raises:
        IntegrityError: the nuid is empty or not safe in a subject. Our own nuids are always safe, so it comes
            from a stored meta message that must not be acted upon. It is never a caller's mistake.
    """
    if _NUID.fullmatch(nuid) is None:
        raise IntegrityError(
            f"the meta message names chunks by an unusable nuid: {nuid[:80]!r}", bucket=bucket
        )
    return f"$O.{bucket}.C.{nuid}"


@lru_cache(maxsize=128)
def _longest(bucket: int, max_control_line: int, reply_length: int) -> int:
    """Return the bytes of the longest object name; ``bucket``: the length of its name."""
    reply = max(reply_length, _REPLY_LENGTH)
    room = max_control_line - _LINE_OVERHEAD - reply - len("$O..M.") - bucket
    return min(MAX_NAME_BYTES, max(room, 0) // 4 * 3)


def check_object_name(
    name: str, bucket: str, *, max_control_line: int = MAX_LINE, reply_length: int = 0
) -> str:
    """Return the object name as plain text if it is valid.

    Every non-empty string that UTF-8 can encode is valid, as long as the control line of its meta message
    stays within the server's limit: the server closes the connection on a longer one.

    Args:
        name: the object's name.
        bucket: the bucket it is for; its length counts.
        max_control_line: the server's limit in bytes.
        reply_length: bytes of the client's reply subjects; at least 80 are assumed.

    Raises:
        InvalidNameError: the name is empty, not a string, not encodable (lone surrogates), or too long.
    """
    if not isinstance(name, str):
        raise InvalidNameError(f"an object name is a str, not {type(name).__name__}")
    if type(name) is not str:
        name = _values.text(name)
    if not name:
        raise InvalidNameError("an object name must not be empty")
    try:
        size = len(name.encode())
    except UnicodeEncodeError as exc:
        raise InvalidNameError(f"the object name cannot be written as UTF-8: {name[:80]!r}") from exc
    limit = _longest(len(bucket), max_control_line, reply_length)
    if size > limit:
        raise InvalidNameError(
            f"the object name has {size} bytes; bucket {bucket!r} takes names of up to {limit} bytes"
        )
    return name
