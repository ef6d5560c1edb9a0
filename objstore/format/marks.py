"""The marks of renames: what they are, and how a meta message carries them.

A message carries marks as headers, which no other client shows: the metadata of an object belongs to its
users. In memory they are pairs of the metadata, which :func:`shown` leaves out; earlier versions of this
library wrote them there. What a mark means: see ``objstore/commit/renames.py``.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from binascii import a2b_base64
from collections.abc import Mapping
from dataclasses import replace

from natsproto.headers import header_value
from objstore.format.models import ObjectInfo
from objstore.format.naming import MAX_NAME_BYTES, is_nuid_of

RENAMING = "natsproto.renaming"
"""In the meta of an old name, during a rename: the new name."""
RENAMING_AT = "natsproto.renaming-at"
"""In the meta of an old name, during a rename: the revision at the new name."""
RENAMED_FROM = "natsproto.renamed-from"
"""In the meta of a new name, during a rename: the old name."""
MOVED = "natsproto.moved"
"""In the delete marker of an old name: the nuid of the chunks that now have another name."""
MOVED_TO = "natsproto.moved-to"
"""In the delete marker of an old name: the new name."""
RESERVED = "natsproto."
"""How the keys begin that this library acts upon. Callers may not set them."""

_HEADERS = {
    RENAMING: b"Natsproto-Renaming",
    RENAMING_AT: b"Natsproto-Renaming-At",
    RENAMED_FROM: b"Natsproto-Renamed-From",
    MOVED: b"Natsproto-Moved",
    MOVED_TO: b"Natsproto-Moved-To",
}
_ANY = b"\r\nNatsproto-"
MARKS = frozenset(_HEADERS)


def mark_lines(metadata: Mapping[str, str]) -> bytes:
    """Return the marks among some metadata as header lines; empty when there are none.

    Names are in the form in which they are in subjects, URL-safe base64. What is longer than a name is left
    out: somebody else wrote it, and it marks nothing.
    """
    if MARKS.isdisjoint(metadata):
        return b""
    lines = []
    for key, header in _HEADERS.items():
        value = metadata.get(key, "").encode("utf-8", "surrogatepass")
        if value and len(value) <= MAX_NAME_BYTES:
            lines.append(b"%b: %b\r\n" % (header, urlsafe_b64encode(value)))
    return b"".join(lines)


def marks_in(header: bytes | None) -> dict[str, str]:
    """Return the marks in a header block; what is not in the form of :func:`mark_lines` is none."""
    found: dict[str, str] = {}
    if header is None or _ANY not in header:
        return found
    for key, name in _HEADERS.items():
        value = header_value(header, name)
        if value and len(value) <= 2 * MAX_NAME_BYTES:
            try:
                found[key] = a2b_base64(value.translate(_TO_STANDARD), strict_mode=True).decode()
            except ValueError:  # binascii.Error and UnicodeDecodeError are ValueErrors
                pass
    return found


_TO_STANDARD = bytes.maketrans(b"-_", b"+/")


def unmarked(info: ObjectInfo) -> dict[str, str]:
    """Return the metadata without the marks of renames."""
    return {key: value for key, value in info.metadata.items() if key not in MARKS}


def shown(info: ObjectInfo) -> ObjectInfo:
    """Return the info for callers, without the marks of renames."""
    return info if MARKS.isdisjoint(info.metadata) else replace(info, metadata=unmarked(info))


def was_moved(marker: ObjectInfo, nuid: str) -> bool:
    """Whether a rename left this delete marker at the name for which those chunks were stored."""
    return marker.deleted and marker.metadata.get(MOVED) == nuid and is_nuid_of(nuid, marker.name)
