"""The data types users see.

All are frozen; ``dataclasses.replace`` makes changed copies. Fields beyond the first ones are keyword-only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, ClassVar, TypedDict

from natsproto import _values
from objstore.format import digest as _digest
from objstore.format.naming import DEFAULT_CHUNK_SIZE, stream_name
from objstore.format.records import Record


def _by_value(target: object, *names: str) -> None:
    """Store these fields as plain ``str``: a subclass might write something else on the wire."""
    for name in names:
        value = getattr(target, name)
        if isinstance(value, str) and type(value) is not str:
            object.__setattr__(target, name, _values.text(value))


class ObjectHeaders(Mapping[str, str]):
    """The headers of an object: an immutable mapping from a name to one or more values.

    ``headers[key]`` is the first value; :meth:`get_all` returns all of them. Names are case-sensitive, as in
    the meta message. It equals another ``ObjectHeaders`` with the same values, and a plain mapping whose
    values are either the first values or lists of all values.

    Args:
        values: each value is a ``str`` or a sequence of ``str``; a name without a value is left out.

    Raises:
        TypeError: a name or value is not a string.
    """

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, str | Sequence[str]] | None = None) -> None:
        stored: dict[str, tuple[str, ...]] = {}
        for key, value in (values or {}).items():
            if not isinstance(key, str):
                raise TypeError(f"a header name is a str, not {type(key).__name__}")
            key = _values.text(key)
            if isinstance(value, str):
                stored[key] = (_values.text(value),)
                continue
            if not isinstance(value, (list, tuple)):
                raise TypeError(
                    f"the value of header {_values.brief(key)} is a str or a list of str, "
                    f"not {type(value).__name__}"
                )
            for item in value:
                if not isinstance(item, str):
                    raise TypeError(
                        f"a value of header {_values.brief(key)} is a str, not {type(item).__name__}"
                    )
            if value:
                stored[key] = tuple(map(_values.text, value))
        self._values = stored

    @classmethod
    def of(cls, values: Mapping[str, str | Sequence[str]] | None) -> ObjectHeaders:
        """Return ``values`` as headers; an ``ObjectHeaders`` keeps its multiple values."""
        return values if isinstance(values, cls) else cls(values)

    def __getitem__(self, key: str) -> str:
        return self._values[key][0]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def get_all(self, key: str) -> list[str]:
        """Return every value of a header in order, ``[]`` when it is absent."""
        return list(self._values.get(key, ()))

    def as_wire(self) -> dict[str, list[str]]:
        """Return a new ``{name: [value, …]}``, the form ADR-20 writes."""
        return {key: list(values) for key, values in self._values.items()}

    def to_dict(self) -> dict[str, list[str]]:
        """Return a new ``{name: [value, …]}``, which ``json.dumps`` takes."""
        return self.as_wire()

    def __eq__(self, other: object) -> bool:
        if isinstance(other, ObjectHeaders):
            return self._values == other._values
        if not isinstance(other, Mapping) or len(other) != len(self._values):
            return NotImplemented if not isinstance(other, Mapping) else False
        for key, values in self._values.items():
            theirs = other.get(key)
            if isinstance(theirs, str):
                if theirs != values[0]:
                    return False
            elif not isinstance(theirs, (list, tuple)) or tuple(theirs) != values:
                return False
        return True

    __hash__: ClassVar[None] = None  # type: ignore[assignment]  # equal to plain dicts, which have no hash either

    def __repr__(self) -> str:
        shown = {key: values[0] if len(values) == 1 else list(values) for key, values in self._values.items()}
        return f"ObjectHeaders({shown!r})"


@dataclass(frozen=True, slots=True)
class ObjectLink(Record):
    """Where a link points.

    Attributes:
        bucket: the bucket it points to, or the bucket of its target object.
        name: the object it points to; ``None`` = the whole bucket.
    """

    bucket: str
    name: str | None = None

    def __post_init__(self) -> None:
        _by_value(self, "bucket", "name")

    @property
    def target(self) -> str:
        """``"bucket/name"``, or ``"bucket"``."""
        return self.bucket if self.name is None else f"{self.bucket}/{self.name}"


@dataclass(frozen=True, slots=True)
class ObjectMetaOptions(Record):
    """Options of an object.

    Attributes:
        link: set for links only.
        chunk_size: chunk size in bytes for this put; overrides ``max_chunk_size``, and is not stored itself.
        max_chunk_size: the chunk size in bytes that the meta message records.
    """

    link: ObjectLink | None = None
    chunk_size: int | None = None
    max_chunk_size: int = DEFAULT_CHUNK_SIZE


@lru_cache(maxsize=16)
def plain_options(max_chunk_size: int) -> ObjectMetaOptions:
    """Return options with only the recorded chunk size; all objects with that size share them."""
    return ObjectMetaOptions(max_chunk_size=max_chunk_size)


@dataclass(frozen=True, slots=True)
class ObjectMeta(Record):
    """The metadata a caller gives an object; in an update ``None`` keeps a value, ``""`` and ``{}`` clear it.

    Attributes:
        name: the object's name; in an update a different name renames the object.
        description: free text.
        headers: one value or a list of values per name.
        options: a link, or the chunk size.
        metadata: free ``str`` to ``str`` pairs.
        filename: kept as ``metadata["filename"]``.
    """

    name: str
    description: str | None = None
    headers: Mapping[str, str | Sequence[str]] | None = None
    options: ObjectMetaOptions | None = None
    metadata: Mapping[str, str] | None = field(default=None, kw_only=True)
    filename: str | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        _by_value(self, "name")


@dataclass(frozen=True, slots=True)
class ObjectInfo(Record):
    """An object as one meta message describes it.

    Attributes:
        name: the object's name.
        description: free text, ``None`` when there is none.
        headers: ``None`` when there are none.
        size: bytes.
        chunks: number of non-empty chunk messages.
        digest: ``"SHA-256=<hex>"``; ``""`` for links and deleted objects. An unreadable digest is given as
            recorded.
        deleted: whether this is a delete marker.
        mtime: when the server stored the meta message, aware UTC; the JSON field is ignored.
        nuid: identifies the chunks. As recorded, so possibly ``""`` or unsafe: only
            ``objstore.format.naming.chunk_subject`` may turn it into a subject.
        bucket: the bucket the meta message was found in, never the one it claims.
        links: ``["bucket/name"]`` or ``["bucket"]`` for links, else ``None``; always derived from
            ``options.link``; the constructor ignores the argument.
        options: as recorded, ``None`` when there are none.
        metadata: free pairs, empty when there are none.
        revision: stream sequence of the meta message, 0 when unknown.
        expires: when the server removes the object by itself (put with a ``ttl``), else ``None``. The
            beginning of 1970 when another client set a time to live in an unknown form.
        extra: JSON keys this library does not know, written back by an update.
    """

    name: str
    description: str | None
    headers: ObjectHeaders | None
    size: int
    chunks: int
    digest: str
    deleted: bool
    mtime: datetime
    nuid: str
    bucket: str
    links: list[str] | None = None
    options: ObjectMetaOptions | None = field(default=None, kw_only=True)
    metadata: Mapping[str, str] = field(default_factory=dict, kw_only=True)
    revision: int = field(default=0, kw_only=True)
    expires: datetime | None = field(default=None, kw_only=True)
    extra: Mapping[str, object] = field(default_factory=dict, kw_only=True, repr=False, compare=False)

    def __post_init__(self) -> None:
        link = None if self.options is None else self.options.link
        if link is not None:
            object.__setattr__(self, "links", [link.target])
        elif self.links is not None:
            object.__setattr__(self, "links", None)

    def __hash__(self) -> int:
        return hash((self.bucket, self.name, self.nuid, self.revision))

    @property
    def filename(self) -> str | None:
        """The file name given at the put, ``None`` when there was none."""
        return self.metadata.get("filename")

    @property
    def is_link(self) -> bool:
        """Whether this is a link, to an object or to a bucket."""
        return self.options is not None and self.options.link is not None

    @property
    def wire_digest(self) -> str:
        """The digest in ADR-20's form, ``"SHA-256=<URL-safe base64>"``; ``""`` when there is none."""
        return _digest.to_wire(self.digest)


class InfoDraft(Record):
    """An :class:`ObjectInfo` under construction: it has the same slots, and becomes one by ``__class__``.

    The constructor of a frozen dataclass takes five times as long, which would slow down listings. The info
    of a put becomes a draft again to add what is known only after its last byte.
    """

    __slots__ = ObjectInfo.__slots__


def plain_info(
    name: str,
    bucket: str,
    options: ObjectMetaOptions | None,
    mtime: datetime,
    size: int = 0,
    chunks: int = 0,
    digest: str = "",
    nuid: str = "",
    revision: int = 0,
) -> ObjectInfo:
    """Return the info of an object without other metadata that is not a link, in a fifth of the time."""
    draft: Any = InfoDraft()
    draft.name = name
    draft.description = None
    draft.headers = None
    draft.size = size
    draft.chunks = chunks
    draft.digest = digest
    draft.deleted = False
    draft.mtime = mtime
    draft.nuid = nuid
    draft.bucket = bucket
    draft.links = None
    draft.options = options
    draft.metadata = {}
    draft.revision = revision
    draft.expires = None
    draft.extra = {}
    draft.__class__ = ObjectInfo
    info: ObjectInfo = draft
    return info


def _reopen(info: ObjectInfo) -> Any:
    """Make ``info`` itself a draft again."""
    object.__setattr__(info, "__class__", InfoDraft)
    return info


def complete(
    info: ObjectInfo, *, nuid: str, size: int, chunks: int, digest: str, mtime: datetime
) -> ObjectInfo:
    """Fill in what is known after the last byte; changes ``info``, which no other code has seen yet."""
    draft = _reopen(info)
    draft.nuid = nuid
    draft.size = size
    draft.chunks = chunks
    draft.digest = digest
    draft.mtime = mtime
    draft.__class__ = ObjectInfo
    return info


def as_stored(info: ObjectInfo, revision: int, expires: datetime | None) -> ObjectInfo:
    """Fill in what is known after the commit, as :func:`complete` does."""
    draft = _reopen(info)
    draft.revision = revision
    draft.expires = expires
    draft.__class__ = ObjectInfo
    return info


@dataclass(frozen=True, slots=True)
class Placement(Record):
    """Where the servers put a bucket.

    Attributes:
        cluster: the name of a cluster; ``None`` = any.
        tags: tags that each of its servers must have.
    """

    cluster: str | None = None
    tags: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class BucketSource(Record):
    """A bucket that a mirror or an aggregate copies its objects from.

    Attributes:
        bucket: the other bucket's name.
        domain: the JetStream domain of that bucket; ``None`` = this one.
    """

    bucket: str
    domain: str | None = None

    def __post_init__(self) -> None:
        _by_value(self, "bucket", "domain")


@dataclass(frozen=True, slots=True)
class ObjectStoreConfig(Record):
    """The configuration of a bucket.

    Attributes:
        bucket: letters, digits, ``_`` and ``-``.
        description: free text.
        ttl: age at which objects expire; ``None`` or zero keeps them for ever.
        max_bytes: limit of the bucket in bytes, overhead included; -1 (or 0) for none.
        storage: ``"file"`` or ``"memory"``.
        replicas: 1 to 5.
        placement: cluster and tags.
        metadata: free pairs (nats-server 2.10).
        compression: compress stored bytes with S2 (nats-server 2.10).
        allow_direct: let every replica answer reads.
        allow_atomic: allow all-or-nothing puts (nats-server 2.12).
        allow_msg_ttl: allow a time to live per object (nats-server 2.11).
        mirror: make this a read-only copy of another bucket; a name that differs from the original's needs
            nats-server 2.10.
        sources: also copy the objects of other buckets (nats-server 2.10).
    """

    bucket: str
    description: str | None = None
    ttl: timedelta | None = None
    max_bytes: int = -1
    storage: str = "file"
    replicas: int = 1
    placement: Placement | None = None
    metadata: Mapping[str, str] | None = None
    compression: bool = field(default=False, kw_only=True)
    allow_direct: bool = field(default=True, kw_only=True)
    allow_atomic: bool = field(default=False, kw_only=True)
    allow_msg_ttl: bool = field(default=False, kw_only=True)
    mirror: BucketSource | str | None = field(default=None, kw_only=True)
    sources: Sequence[BucketSource | str] = field(default=(), kw_only=True)


class BucketFields(TypedDict, total=False):
    """The fields of :class:`objstore.ObjectStoreConfig`."""

    bucket: str
    description: str | None
    ttl: timedelta | None
    max_bytes: int
    storage: str
    replicas: int
    placement: Placement | None
    metadata: Mapping[str, str] | None
    compression: bool
    allow_direct: bool
    allow_atomic: bool
    allow_msg_ttl: bool
    mirror: BucketSource | str | None
    sources: Sequence[BucketSource | str]


@dataclass(frozen=True, slots=True)
class ObjectStoreStatus(Record):
    """A bucket's configuration and usage at one moment.

    Attributes:
        bucket: the bucket's name.
        description: ``None`` when there is none.
        ttl: ``None`` when objects are kept for ever.
        storage: ``"file"`` or ``"memory"``.
        replicas: number of replicas.
        sealed: whether the bucket is read-only.
        size: bytes of the stream: chunks, meta messages, delete markers and overhead.
        count: live objects; links count, deleted ones do not. -1 when they were not counted.
        backing_store: ``"JetStream"``.
        metadata: the bucket's own pairs; those the server adds (``_nats.…``) are left out.
        compression: whether stored bytes are compressed.
        max_bytes: limit in bytes, -1 for none.
        placement: ``None`` when none was asked for.
        allow_direct: whether every replica answers reads.
        allow_atomic: whether all-or-nothing puts are allowed.
        allow_msg_ttl: whether objects may have a time to live of their own.
        mirror: the bucket that this one is a copy of.
        sources: the other buckets whose objects it copies.
        messages: messages in the stream: chunks, metas and delete markers.
        consumers: consumers on the stream at that moment.
        created: when the bucket was created, aware UTC.
        raw: the server's whole response.
    """

    bucket: str
    description: str | None
    ttl: timedelta | None
    storage: str
    replicas: int
    sealed: bool
    size: int
    count: int
    backing_store: str
    metadata: Mapping[str, str] = field(default_factory=dict, kw_only=True)
    compression: bool = field(default=False, kw_only=True)
    max_bytes: int = field(default=-1, kw_only=True)
    placement: Placement | None = field(default=None, kw_only=True)
    allow_direct: bool = field(default=True, kw_only=True)
    allow_atomic: bool = field(default=False, kw_only=True)
    allow_msg_ttl: bool = field(default=False, kw_only=True)
    mirror: BucketSource | None = field(default=None, kw_only=True)
    sources: Sequence[BucketSource] = field(default=(), kw_only=True)
    messages: int = field(default=0, kw_only=True)
    consumers: int = field(default=0, kw_only=True)
    created: datetime | None = field(default=None, kw_only=True)
    raw: Mapping[str, object] = field(default_factory=dict, kw_only=True, repr=False, compare=False)

    @property
    def stream(self) -> str:
        """The name of the stream behind the bucket."""
        return stream_name(self.bucket)


@dataclass(frozen=True, slots=True)
class InvalidMeta(Record):
    """A meta message that could not be read.

    Attributes:
        subject: its subject.
        revision: its stream sequence.
        error: why it could not be read.
    """

    subject: str
    revision: int
    error: Exception
