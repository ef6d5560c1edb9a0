"""Meta messages as JSON (ADR-20, "Object Metadata").

It writes what every client accepts and reads what any client ever wrote. List-valued headers exist only in
this module.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import ItemsView, Iterator, Mapping, Sequence, ValuesView
from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice
from typing import Any, NoReturn

from natsproto import _values
from objstore.errors import BadObjectMetaError, IntegrityError
from objstore.format import digest as _digest
from objstore.format.marks import RESERVED
from objstore.format.models import (
    InfoDraft,
    ObjectHeaders,
    ObjectInfo,
    ObjectLink,
    ObjectMetaOptions,
    plain_options,
)
from objstore.format.naming import (
    DEFAULT_CHUNK_SIZE,
    MAX_NAME_BYTES,
    decode_meta_name,
    encodes_name,
    is_safe_nuid,
)
from objstore.format.records import format_rfc3339 as format_rfc3339

MAX_META_BYTES = 1024 * 1024
"""Bytes of the longest meta message that is read or written; checked before any parsing."""
MAX_INTEGER = 2**63 - 1
LONGEST_REASON = 300
"""Characters of the longest reason in a :class:`MetaDecodeError`: reports hold many, and each is logged."""

# "revision" is a known key so that it is dropped: nats.js writes it, and it would be wrong when written back.
_KNOWN_KEYS = frozenset(("name", "description", "headers", "metadata", "options", "bucket", "nuid", "size"))
_KNOWN_KEYS |= {"mtime", "chunks", "digest", "deleted", "revision"}
_KNOWN_OPTIONS = frozenset(("link", "max_chunk_size"))
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(?:\.\d+)?(?:[Zz]|[+-]\d\d:\d\d)")


class MetaDecodeError(IntegrityError, ValueError):
    """A stored meta message that cannot be read.

    Attributes:
        reason: what is wrong with it, in a few words.
        subject: where it was found, ``""`` when unknown.
        revision: its stream sequence.
    """

    def __init__(self, reason: str, *, bucket: str = "", subject: str = "", revision: int = 0) -> None:
        if len(reason) > LONGEST_REASON:
            reason = reason[:LONGEST_REASON] + "…"
        where = f" at revision {revision}" if revision else ""
        super().__init__(
            f"unreadable meta message{where}: {reason}",
            bucket=bucket,
            name=(decode_meta_name(subject) or "") if subject else "",
        )
        self.reason = reason
        self.subject = subject
        self.revision = revision


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):  # json would write "Infinity", which is not JSON
        raise ValueError(f"{text[:80]} is out of range")
    return value


_DECODER = json.JSONDecoder(parse_float=_finite, parse_constant=_refuse_constant)
_ENCODE = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode
_quote = json.encoder.encode_basestring  # quotes as _ENCODE does


# --- time -------------------------------------------------------------------------------------------------


def parse_rfc3339(text: str) -> datetime:
    """Return a server's timestamp as aware UTC; digits below the microsecond are dropped.

    Raises:
        ValueError: not an RFC 3339 date and time with an offset.
    """
    if _RFC3339.fullmatch(text) is None:
        raise ValueError(f"not an RFC 3339 time: {text[:80]!r}")
    try:
        return datetime.fromisoformat(text.upper()).astimezone(UTC)
    except OverflowError as exc:  # year 1 or 9999, and the offset leaves the range
        raise ValueError(f"time out of range: {text[:80]!r}") from exc


# --- meta messages: writing -------------------------------------------------------------------------------


def meta_fields(
    description: str | None = None,
    headers: Mapping[str, str | Sequence[str]] | None = None,
    metadata: Mapping[str, str] | None = None,
    filename: str | None = None,
) -> tuple[str | None, ObjectHeaders | None, dict[str, str]]:
    """Check a caller's metadata of an object and return it in the form of :class:`ObjectInfo`.

    The arguments are not changed. ``""`` and ``{}`` count as absent; a ``filename`` becomes
    ``metadata["filename"]``, and ``""`` removes that key.

    Returns:
        description, headers and metadata.

    Raises:
        BadObjectMetaError: a value has the wrong type, or text that cannot be written as UTF-8; or a metadata
            key is reserved for this library, which acts upon it: a program may pass on what its users choose.
    """
    if description is not None:
        description = _check_text("the description", description)
    wire_headers: ObjectHeaders | None = None
    if headers is not None:
        if not isinstance(headers, Mapping):
            raise BadObjectMetaError(f"headers is a mapping, not {type(headers).__name__}")
        try:
            wire_headers = ObjectHeaders.of(headers)
        except TypeError as exc:
            raise BadObjectMetaError(str(exc)) from exc
        for key in wire_headers:
            if not key:
                raise BadObjectMetaError("a header name must not be empty")
            _check_text("a header name", key)
            for value in wire_headers.get_all(key):
                _check_text(f"the value of header {_values.brief(key)}", value)
    pairs: dict[str, str] = {}
    if metadata is not None:
        if not isinstance(metadata, Mapping):
            raise BadObjectMetaError(f"metadata is a mapping, not {type(metadata).__name__}")
        for key, value in metadata.items():
            key = _check_text("a metadata key", key)
            if key.startswith(RESERVED):
                raise BadObjectMetaError(
                    f"metadata {_values.brief(key)}: keys that begin with {RESERVED!r} are reserved"
                )
            pairs[key] = _check_text(f"the value of metadata {_values.brief(key)}", value)
    if filename is not None:
        filename = _check_text("the filename", filename)
        if filename:
            pairs["filename"] = filename
        else:
            pairs.pop("filename", None)
    return description or None, wire_headers or None, pairs


def _check_text(what: str, value: object) -> str:
    if not isinstance(value, str):
        raise BadObjectMetaError(f"{what} is a str, not {type(value).__name__}")
    value = _values.text(value)
    try:
        value.encode()
    except UnicodeEncodeError as exc:
        raise BadObjectMetaError(f"{what} cannot be written as UTF-8") from exc
    return value


META_HEADER = 224
"""Bytes reserved for the header block of a meta message."""


def largest_meta(template: ObjectInfo) -> int:
    """Return the most bytes, headers included, that the meta message of an object may take.

    The object's content is not known yet.
    """
    digest = "SHA-256=" + "0" * 64
    filled = replace(template, nuid="x" * 22, size=2**63 - 1, chunks=2**32 - 1, digest=digest)
    return META_HEADER + len(encode_meta(filled))


def encode_meta(info: ObjectInfo, digest: bytes | None = None) -> bytes:
    """Return the meta message of an object, in the form every known client accepts.

    Keys with empty values are left out. ``mtime`` is ``info.mtime``, the writer's clock, as RFC 3339, which
    every client parses (two of them fail on ``""``); our own readers use the server's time instead. Headers
    are lists, a link to a bucket has ``"name":null``, the digest is URL-safe base64 with padding, and keys
    this library does not know are written back.

    Args:
        info: the object.
        digest: the 32 bytes of ``info.digest``, if the caller has them.

    Raises:
        BadObjectMetaError: the message would exceed 1 MiB or have more than :data:`MOST_VALUES` values, or
            ``extra`` cannot be written as JSON.
    """
    plain = _encode_plain(info, digest)
    if plain is not None:
        return plain
    doc: dict[str, object] = {"name": info.name}
    if info.description:
        doc["description"] = info.description
    if info.headers:
        doc["headers"] = ObjectHeaders.of(info.headers).as_wire()
    if info.metadata:
        doc["metadata"] = dict(info.metadata)
    options = _encode_options(info)
    if options:
        doc["options"] = options
    doc["bucket"] = info.bucket
    doc["nuid"] = info.nuid
    doc["size"] = info.size
    doc["mtime"] = format_rfc3339(info.mtime)
    doc["chunks"] = info.chunks
    if info.digest:
        doc["digest"] = info.wire_digest
    if info.deleted:
        doc["deleted"] = True
    doc.update((key, value) for key, value in info.extra.items() if key not in _KNOWN_KEYS)
    payload = _dump(doc, info)
    if len(payload) > MAX_META_BYTES:
        raise BadObjectMetaError(
            f"the metadata of {info.name!r} takes {len(payload)} bytes, the limit is {MAX_META_BYTES}",
            bucket=info.bucket,
            name=info.name,
        )
    if len(payload) > MOST_VALUES and _too_many(str(payload, "utf-8")):
        raise BadObjectMetaError(
            f"the metadata of {info.name!r} has more than {MOST_VALUES} values",
            bucket=info.bucket,
            name=info.name,
        )
    return payload


def _encode_plain(info: ObjectInfo, digest: bytes | None) -> bytes | None:
    """Return the same bytes in a third of the time for an object with little metadata: nearly every put."""
    options = info.options
    if (
        info.description
        or info.headers
        or info.metadata
        or info.deleted
        or info.extra
        or not info.digest
        or options is None
        or options.link is not None
        or options.chunk_size is not None
        or len(info.name) + len(info.nuid) + len(info.digest) > 2 * MAX_NAME_BYTES
    ):
        return None
    wire_digest = info.wire_digest if digest is None else _digest.wire_digest(digest)
    try:
        return (
            f'{{"name":{_quote(info.name)},"options":{{"max_chunk_size":{options.max_chunk_size}}},'
            f'"bucket":{_quote(info.bucket)},"nuid":{_quote(info.nuid)},"size":{info.size},'
            f'"mtime":"{format_rfc3339(info.mtime)}","chunks":{info.chunks},"digest":{_quote(wire_digest)}}}'
        ).encode()
    except (TypeError, UnicodeEncodeError):  # a lone surrogate, or not a string: the slow path decides
        return None


def _encode_options(info: ObjectInfo) -> dict[str, object]:
    doc: dict[str, object] = {}
    options = info.options
    if options is not None:
        if options.link is not None:
            # An explicit null is a bucket link to every client. Without the key nats.net cannot read it, nor
            # a list with it: NatsObjLink.Name is "required" (still so in August 2026).
            doc["link"] = {"bucket": options.link.bucket, "name": options.link.name or None}
        else:
            size = options.max_chunk_size if options.chunk_size is None else options.chunk_size
            doc["max_chunk_size"] = size
    unknown = info.extra.get("options")
    if isinstance(unknown, Mapping):
        for key, value in unknown.items():
            doc.setdefault(key, value)
    return doc


def _dump(doc: dict[str, object], info: ObjectInfo) -> bytes:
    try:
        # Only text read from another client's meta can hold lone surrogates: \uXXXX keeps them. Nothing else
        # is escaped, since that could triple the length.
        return _ENCODE(doc).encode("utf-8", "backslashreplace")
    except (TypeError, ValueError, RecursionError) as exc:
        raise BadObjectMetaError(
            f"the metadata of {info.name!r} cannot be written as JSON: {exc}",
            bucket=info.bucket,
            name=info.name,
        ) from exc


def tombstone_info(info: ObjectInfo, *, mtime: datetime | None = None) -> ObjectInfo:
    """Return the info of the object after deletion: no bytes, chunks or digest, everything else kept."""
    return replace(info, deleted=True, size=0, chunks=0, digest="", mtime=mtime or info.mtime)


def tombstone(info: ObjectInfo, *, mtime: datetime | None = None, limit: int = MAX_META_BYTES) -> bytes:
    """Return the delete marker of an object (ADR-20, "Deleting an Object").

    Every object that can be read can be deleted: if all of its metadata does not fit, the marker keeps only
    what is needed.

    Args:
        info: the current object, deleted or not.
        mtime: the writer's clock; ``info.mtime`` when not given.
        limit: bytes the marker may take; the shortest marker may exceed it if the name is long.
    """
    gone = tombstone_info(info, mtime=mtime)
    try:
        payload = encode_meta(gone)
        if len(payload) <= limit:
            return payload
    except BadObjectMetaError:
        pass
    return encode_meta(_shortest(gone))


def _shortest(gone: ObjectInfo) -> ObjectInfo:
    """Return a delete marker without anything that may be long."""
    return replace(
        gone,
        description=None,
        headers=None,
        metadata={},
        nuid=gone.nuid if is_safe_nuid(gone.nuid) else "",
        options=None if gone.is_link else gone.options,
        extra={},
    )


# --- meta messages: reading -------------------------------------------------------------------------------

_WHITE = " \t\n\r"  # JSON's white space
_BRACKETS = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]')  # matches strings to skip brackets within them

DEEPEST = 200
"""Levels of nesting allowed in a meta message. Python's own limit depends on its version and on the depth of
the caller's stack, so it would not be certain that a message can be read, or written again."""

MOST_VALUES = 50_000
"""Values allowed in a meta message: decoded, short ones take 24 times their bytes, and some 1 µs each."""

GROWTH = 4
"""Factor by which a meta message grows at most when it is written again: ``1e15`` is written in full."""
_SURELY_WRITABLE = MAX_META_BYTES // GROWTH  # bytes


# Matches strings to skip what is within them. One that does not end goes to the end of the text: else each of
# its quotes would begin another search for an end.
_MARKS = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?|[\[{,]', re.S)


class _AsText(Mapping[str, object]):
    """Keys of a meta that this library does not know: few look at them, and decoded they are large."""

    __slots__ = ("_text",)

    def __init__(self, values: Mapping[str, object]) -> None:
        self._text = _ENCODE(values)

    def _values(self) -> dict[str, object]:
        found: dict[str, object] = _DECODER.decode(self._text)
        return found

    def __getitem__(self, key: str) -> object:
        return self._values()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values())

    def __len__(self) -> int:
        return len(self._values())

    def items(self) -> ItemsView[str, object]:
        return self._values().items()

    def values(self) -> ValuesView[object]:
        return self._values().values()

    def __repr__(self) -> str:
        return repr(self._values())


class _Invalid(Exception):
    """Carries the reason to :func:`decode_meta`, which knows where the message was found."""


def decode_meta(
    payload: bytes | bytearray | memoryview,
    *,
    bucket: str,
    subject: str | None = None,
    revision: int,
    timestamp: datetime,
) -> ObjectInfo:
    """Read a meta message of any client.

    Unknown keys are kept in ``extra``. ``mtime`` and ``bucket`` of the JSON are ignored: the arguments count.
    An unusable nuid or digest does not make the message unreadable, so that the object can still be listed
    and deleted; :func:`~objstore.format.naming.chunk_subject` and
    :class:`~objstore.format.assembly.Assembly` refuse to read its content.

    Args:
        payload: the message's payload.
        bucket: the bucket it was found in.
        subject: where it was found; when given, the name must be the one it encodes.
        revision: its stream sequence.
        timestamp: when the server stored it, aware UTC.

    Raises:
        MetaDecodeError: the message is above 1 MiB, nested deeper than :data:`DEEPEST` levels, not JSON or
            not an object, or has more than :data:`MOST_VALUES` values; it has no name or another name than
            its subject; a value has the wrong type or is out of range; or, written again without description,
            headers and metadata, it would exceed 1 MiB.
    """
    try:
        return _decode(payload, bucket, subject, revision, timestamp)
    except _Invalid as exc:
        reason = str(exc)
    except RecursionError:
        reason = f"nested more than {DEEPEST} levels deep"
    except ValueError as exc:  # UnicodeDecodeError, JSONDecodeError, integers of too many digits
        reason = f"not JSON: {exc}"
    # Not chained: a decoder's error holds the whole text, up to a megabyte.
    raise MetaDecodeError(reason, bucket=bucket, subject=subject or "", revision=revision) from None


def _decode(
    payload: bytes | bytearray | memoryview,
    bucket: str,
    subject: str | None,
    revision: int,
    timestamp: datetime,
) -> ObjectInfo:
    if len(payload) > MAX_META_BYTES:
        raise _Invalid(f"{len(payload)} bytes are above the limit of {MAX_META_BYTES}")
    text = str(payload, "utf-8").strip(_WHITE)
    if len(text) > MOST_VALUES and _too_many(text):
        raise _Invalid(f"it has more than {MOST_VALUES} values")
    doc, end = _DECODER.raw_decode(text)
    if end != len(text):
        raise _Invalid("not JSON: something follows the object")
    if text.count("{") + text.count("[") > DEEPEST and _too_deep(text):
        raise _Invalid(f"nested more than {DEEPEST} levels deep")
    if type(doc) is not dict:
        raise _Invalid("not a JSON object")
    name = doc.get("name")
    if type(name) is not str or not name:
        raise _Invalid("it has no name")
    if subject is not None:
        if not encodes_name(subject, bucket, name):
            raise _Invalid("its name is not the one its subject encodes")
    elif not is_utf8(name):
        raise _Invalid("its name cannot be written as UTF-8")
    deleted = doc.get("deleted")
    if deleted is not None and type(deleted) is not bool:
        raise _Invalid("'deleted' is not a boolean")
    options, unknown_options = _decode_options(doc.get("options"))
    link = None if options is None else options.link
    digest = _text(doc, "digest")
    if digest:
        digest = "" if deleted or link is not None else _digest.to_hex(digest)
    extra = {} if _KNOWN_KEYS.issuperset(doc) else {k: v for k, v in doc.items() if k not in _KNOWN_KEYS}
    if unknown_options:
        extra["options"] = unknown_options
    draft: Any = InfoDraft()
    draft.name = name
    draft.description = _text(doc, "description") or None
    draft.headers = _decode_headers(doc.get("headers"))
    draft.size = _count(doc, "size")
    draft.chunks = _count(doc, "chunks")
    draft.digest = digest
    draft.deleted = deleted or False
    draft.mtime = timestamp
    draft.nuid = _text(doc, "nuid")
    draft.bucket = bucket
    draft.links = None if link is None else [link.target]
    draft.options = options
    draft.metadata = _decode_metadata(doc.get("metadata"))
    draft.revision = revision
    draft.expires = None
    draft.extra = _AsText(extra) if extra else extra
    draft.__class__ = ObjectInfo
    info: ObjectInfo = draft
    if len(payload) > _SURELY_WRITABLE:
        _check_writable(info)
    return info


def _check_writable(info: ObjectInfo) -> None:
    try:
        encode_meta(replace(info, description=None, headers=None, metadata={}))
    except BadObjectMetaError:
        raise _Invalid(f"written again it would exceed the limit of {MAX_META_BYTES} bytes") from None


def _too_deep(text: str) -> bool:
    """Whether valid JSON has more levels than :data:`DEEPEST`."""
    depth = 0
    for found in _BRACKETS.finditer(text):
        first = found[0][0]
        if first in "{[":
            depth += 1
            if depth > DEEPEST:
                return True
        elif first in "}]":
            depth -= 1
    return False


def _too_many(text: str) -> bool:
    """Whether JSON has more values than :data:`MOST_VALUES`, as commas and brackets show."""
    if text.count(",") + text.count("{") + text.count("[") <= MOST_VALUES:
        return False
    marks = (found for found in _MARKS.finditer(text) if found[0][0] != '"')
    return next(islice(marks, MOST_VALUES, None), None) is not None


def is_utf8(text: str) -> bool:
    try:
        _values.text(text).encode()
    except UnicodeEncodeError:
        return False
    return True


def _text(doc: dict[str, object], key: str) -> str:
    value = doc.get(key)
    if value is None:
        return ""
    if type(value) is not str:
        raise _Invalid(f"{key!r} is not a string")
    return value


def _count(doc: dict[str, object], key: str) -> int:
    value = doc.get(key)
    if value is None:
        return 0
    # bool is an int to isinstance(), and 1e30 is a float to JSON: neither is a count.
    if type(value) is not int:
        raise _Invalid(f"{key!r} is not an integer")
    if not 0 <= value <= MAX_INTEGER:
        raise _Invalid(f"{key!r} is out of range")
    return value


def _decode_options(value: object) -> tuple[ObjectMetaOptions | None, dict[str, object]]:
    if value is None:
        return None, {}
    if type(value) is not dict:
        raise _Invalid("'options' is not an object")
    unknown = (
        {}
        if _KNOWN_OPTIONS.issuperset(value)
        else {key: item for key, item in value.items() if key not in _KNOWN_OPTIONS}
    )
    max_chunk_size = _count(value, "max_chunk_size") or DEFAULT_CHUNK_SIZE
    link = value.get("link")
    if link is None:
        return plain_options(max_chunk_size), unknown
    if type(link) is not dict:
        raise _Invalid("'link' is not an object")
    target = _text(link, "bucket")
    if not target:
        raise _Invalid("its link names no bucket")
    return ObjectMetaOptions(ObjectLink(target, _text(link, "name") or None), None, max_chunk_size), unknown


def _decode_headers(value: object) -> ObjectHeaders | None:
    if value is None:
        return None
    if type(value) is not dict:
        raise _Invalid("'headers' is not an object")
    inner = value.get("inner") if len(value) == 1 else None
    found = inner if type(inner) is dict else value  # async-nats before 0.44, nats.rs #1470
    try:
        headers = ObjectHeaders({key: [] if item is None else item for key, item in found.items()})
    except TypeError as exc:
        raise _Invalid(f"'headers' is malformed: {exc}") from exc
    return headers or None


def _decode_metadata(value: object) -> dict[str, str]:
    if value is None:
        return {}
    if type(value) is not dict:
        raise _Invalid("'metadata' is not an object")
    for key, item in value.items():
        if type(item) is not str:
            raise _Invalid(f"metadata {_values.brief(key)} is not a string")
    return value
