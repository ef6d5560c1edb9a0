"""SHA-256 digests in two forms (ADR-20, "Digest").

Users see ``SHA-256=<64 lowercase hex digits>``, as ``nats object info`` prints it. Meta messages hold
``SHA-256=<URL-safe base64 with padding>``. Only ``codec`` and ``plain_meta`` convert between the two.
"""

from __future__ import annotations

import hashlib
from binascii import a2b_base64, b2a_base64
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hashlib import _Hash

PREFIX = "SHA-256="
_HEX_LENGTH = 64
URL_SAFE = bytes.maketrans(b"+/", b"-_")


def url_safe(raw: bytes) -> str:
    """Return URL-safe base64 with padding: as the standard library's function, which makes two calls more."""
    return b2a_base64(raw, newline=False).translate(URL_SAFE).decode()


def new_hasher(data: bytes | bytearray | memoryview = b"") -> _Hash:
    """Return a new SHA-256 object, fed with ``data``."""
    return hashlib.sha256(data)


def hex_digest(raw: bytes) -> str:
    """Return the 32 bytes of a digest in the form users see."""
    return PREFIX + raw.hex()


def wire_digest(raw: bytes) -> str:
    """Return the 32 bytes of a digest in the form of meta messages."""
    return PREFIX + url_safe(raw)


def parse_digest(text: str) -> bytes:
    """Return the 32 bytes of a digest in either form.

    Accepts the prefix in upper or lower case, both base64 alphabets, and a missing padding.

    Raises:
        ValueError: the text names another algorithm, or is not a digest.
    """
    algorithm, found, value = text.partition("=")
    if (algorithm != "SHA-256" and algorithm.upper() != "SHA-256") or not found:
        raise ValueError(f"not a SHA-256 digest: {text[:80]!r}")
    try:
        if len(value) == _HEX_LENGTH:
            raw = bytes.fromhex(value)
        else:
            value = value.rstrip("=").replace("-", "+").replace("_", "/")
            raw = a2b_base64(value + "=" * (-len(value) % 4), strict_mode=True)
    except ValueError as exc:
        raise ValueError(f"malformed SHA-256 digest: {text[:80]!r}") from exc
    if len(raw) != 32:
        raise ValueError(f"malformed SHA-256 digest: {text[:80]!r}")
    return raw


def to_hex(text: str) -> str:
    """Return a digest in the form users see; unreadable text, ``""`` included, stays unchanged."""
    try:
        return PREFIX + parse_digest(text).hex()
    except ValueError:
        return text


def to_wire(text: str) -> str:
    """Return a digest in the form of meta messages; unreadable text, ``""`` included, stays unchanged."""
    try:
        return wire_digest(parse_digest(text))
    except ValueError:
        return text
