"""Every error of the ``objstore`` package, in one tree.

All of them derive from :class:`natsproto.errors.NatsError`; each also has the expected base from the standard
library::

    NatsError
    ├── BucketNotFoundError (LookupError)          no such bucket (server code 10059)
    ├── ObjectNotFoundError (LookupError)          no meta message under that name
    │   └── ObjectDeletedError                     the newest meta message is a delete marker
    ├── BadBucketError (ValueError)                bucket name or configuration refused
    │   └── BucketAlreadyExistsError               exists with another configuration (10058)
    ├── BadObjectMetaError (ValueError)            metadata, options or chunk size refused
    ├── ObjectTooLargeError (ValueError)           more bytes than get() may read into memory (max_size)
    ├── ObjectAlreadyExists                        create() or rename() found a live object
    ├── RevisionConflictError                      if_revision lost (10071, 10164); has the current revision
    ├── BucketSealedError                          the bucket is read-only (10109)
    ├── StoreFullError                             a limit of bucket, account or server (10077, 10002 …)
    ├── LinkError                                  bucket link read as an object, chain, cycle, dangling link
    ├── IntegrityError                             stored bytes or meta are damaged
    │   ├── DigestMismatchError                    the SHA-256 differs, or cannot be checked
    │   └── MetaDecodeError (ValueError)           in objstore.format.codec: an unreadable meta message
    ├── ObjectChangedError                         replaced or removed while being read
    ├── SourceChangedError (OSError)               a file shrank or grew while put() was reading it
    ├── OutcomeUnknownError (TimeoutError)         it is unknown whether the change was committed
    ├── ForeignBucketError (WrongStreamError)      a bucket of that name in another domain answered
    ├── UnsupportedFeatureError                    natsproto's, re-exported
    └── MissingExtraError (ImportError)            natsproto's, re-exported

The message is the only positional argument; facts (bucket, name …) are keyword arguments kept as attributes.
"""

from __future__ import annotations

from natsproto.errors import (
    AuthorizationError,
    BadSubjectError,
    ConfigError,
    ConnectionClosedError,
    InvalidNameError,
    MaxPayloadError,
    MissingExtraError,
    NatsError,
    NoRespondersError,
    NoServersError,
    OutboundBufferLimitError,
    PermissionsViolationError,
    RequestTimeoutError,
    SecureConnectionRequiredError,
    StaleConnectionError,
    UnsupportedFeatureError,
    WrongStreamError,
)

__all__ = [
    "NatsError",
    "BucketNotFoundError",
    "ObjectNotFoundError",
    "ObjectDeletedError",
    "BadBucketError",
    "BucketAlreadyExistsError",
    "BadObjectMetaError",
    "ObjectTooLargeError",
    "ObjectAlreadyExists",
    "RevisionConflictError",
    "BucketSealedError",
    "StoreFullError",
    "LinkError",
    "IntegrityError",
    "DigestMismatchError",
    "ObjectChangedError",
    "SourceChangedError",
    "OutcomeUnknownError",
    "ForeignBucketError",
    "UnsupportedFeatureError",
    "MissingExtraError",
    "exit_code",
]


class _StoreError(NatsError):
    """Base of the errors below: a message, and the names of the bucket and object it concerns.

    Attributes:
        bucket: the bucket's name, ``""`` when it does not matter or is unknown.
        name: the object's name, ``""`` when it does not matter or is unknown.
    """

    def __init__(self, message: str, *, bucket: str = "", name: str = "") -> None:
        super().__init__(message)
        self.bucket = bucket
        self.name = name


class BucketNotFoundError(_StoreError, LookupError):
    """The bucket does not exist (server code 10059)."""


class ObjectNotFoundError(_StoreError, LookupError):
    """The bucket has no object of that name."""


class ObjectDeletedError(ObjectNotFoundError):
    """The object was deleted; ``revision`` is the sequence of the delete marker (0 when unknown)."""

    def __init__(self, message: str, *, bucket: str = "", name: str = "", revision: int = 0) -> None:
        super().__init__(message, bucket=bucket, name=name)
        self.revision = revision


class BadBucketError(_StoreError, ValueError):
    """A bucket name or configuration that cannot be used; refused before any byte is sent.

    Attributes:
        field: the field of the stream's configuration that prevents storing objects, ``""`` when the error
            does not concern one.
        value: that field's value.
    """

    def __init__(
        self, message: str, *, bucket: str = "", name: str = "", field: str = "", value: object = None
    ) -> None:
        super().__init__(message, bucket=bucket, name=name)
        self.field = field
        self.value = value


class BucketAlreadyExistsError(BadBucketError):
    """The bucket exists with another configuration (server code 10058)."""


class BadObjectMetaError(_StoreError, ValueError):
    """Metadata, options or a chunk size that cannot be used; refused before any byte is sent."""


class ObjectTooLargeError(_StoreError, ValueError):
    """The object has more bytes (``size``) than ``get`` may read (``max_size``), or than memory holds."""

    def __init__(
        self, message: str, *, bucket: str = "", name: str = "", size: int = 0, max_size: int = 0
    ) -> None:
        super().__init__(message, bucket=bucket, name=name)
        self.size = size
        self.max_size = max_size


class ObjectAlreadyExists(_StoreError):
    """A live object already has that name; ``revision`` is its revision (0 when unknown)."""

    def __init__(self, message: str, *, bucket: str = "", name: str = "", revision: int = 0) -> None:
        super().__init__(message, bucket=bucket, name=name)
        self.revision = revision


class RevisionConflictError(_StoreError):
    """A compare-and-set lost (server codes 10071 and 10164).

    Attributes:
        expected: the caller's revision.
        current: the revision found, or ``None`` when it could not be read.
    """

    def __init__(
        self,
        message: str,
        *,
        bucket: str = "",
        name: str = "",
        expected: int | None = None,
        current: int | None = None,
    ) -> None:
        super().__init__(message, bucket=bucket, name=name)
        self.expected = expected
        self.current = current


class BucketSealedError(_StoreError):
    """The bucket is sealed: nothing in it can change any more (server code 10109)."""


class StoreFullError(_StoreError):
    """There is no room: nothing was stored, and nothing was changed.

    ``err_code`` tells which limit was reached: 10077 the bucket's (``max_bytes``), 10002 the account's, 10023
    the server's, 10028 or 10047 the account's or server's when a bucket is created, 0 the disk's.
    """

    def __init__(self, message: str, *, bucket: str = "", name: str = "", err_code: int = 0) -> None:
        super().__init__(message, bucket=bucket, name=name)
        self.err_code = err_code


class LinkError(_StoreError):
    """A link that cannot be followed or created.

    Attributes:
        target_bucket: the bucket the link points to, ``""`` when unknown.
        target_name: the object it points to, ``None`` for a bucket link.
    """

    def __init__(
        self,
        message: str,
        *,
        bucket: str = "",
        name: str = "",
        target_bucket: str = "",
        target_name: str | None = None,
    ) -> None:
        super().__init__(message, bucket=bucket, name=name)
        self.target_bucket = target_bucket
        self.target_name = target_name


class IntegrityError(_StoreError):
    """The stored chunks do not match the meta message: missing, short or extra chunks, an unsafe nuid …"""


class DigestMismatchError(IntegrityError):
    """The SHA-256 of the bytes differs from the recorded digest, or the recorded digest is unreadable.

    Attributes:
        expected: the recorded digest, ``"SHA-256=<hex>"`` (unchanged when it is unreadable).
        actual: the digest of the bytes received, ``""`` when it was not computed.
    """

    def __init__(
        self, message: str, *, bucket: str = "", name: str = "", expected: str = "", actual: str = ""
    ) -> None:
        super().__init__(message, bucket=bucket, name=name)
        self.expected = expected
        self.actual = actual


class ObjectChangedError(_StoreError):
    """The object was replaced or removed while it was being read; read it again."""


class SourceChangedError(_StoreError, OSError):
    """The source file shrank or grew while it was read, or a stream had not as many bytes as ``size`` said.

    The previous object remains.
    """


class OutcomeUnknownError(_StoreError, TimeoutError):
    """It could not be determined in time whether the change was committed.

    ``nuid`` identifies the chunks, which may or may not be referenced now; nothing was purged.
    """

    def __init__(self, message: str, *, bucket: str = "", name: str = "", nuid: str = "") -> None:
        super().__init__(message, bucket=bucket, name=name)
        self.nuid = nuid


class ForeignBucketError(_StoreError, WrongStreamError):
    """Another stream than the opened bucket's has answered: mostly a bucket of that name in another domain.

    If a hub and a leaf node each have a bucket of the same name, every message reaches both: nothing was
    committed here, but chunks may have been stored there as well (``gc`` of that bucket removes them). Give
    the buckets different names, or open the right one with ``jetstream(domain=…)``.

    Attributes:
        stream: the stream that answered.
        domain: its domain, ``None`` when it reports none.
        expected_stream: the stream of the opened bucket.
        expected_domain: the domain of the opened bucket, ``None`` when it has none.
    """

    def __init__(
        self,
        message: str,
        *,
        bucket: str = "",
        name: str = "",
        stream: str = "",
        domain: str | None = None,
        expected_stream: str = "",
        expected_domain: str | None = None,
    ) -> None:
        _StoreError.__init__(self, message, bucket=bucket, name=name)
        self.stream = stream
        self.domain = domain
        self.expected_stream = expected_stream
        self.expected_domain = expected_domain


# Subclasses come before their bases: the first match counts.
_EXIT_CODES: tuple[tuple[tuple[type[BaseException], ...], int], ...] = (
    ((BucketAlreadyExistsError, ObjectAlreadyExists, RevisionConflictError), 4),
    ((BucketSealedError, StoreFullError), 4),
    ((BucketNotFoundError, ObjectNotFoundError, LinkError), 3),
    ((IntegrityError, ObjectChangedError, SourceChangedError), 7),
    ((BadBucketError, BadObjectMetaError, ObjectTooLargeError), 2),
    ((BadSubjectError, InvalidNameError, MaxPayloadError, ConfigError), 2),
    ((AuthorizationError, PermissionsViolationError), 6),
    ((NoServersError, StaleConnectionError, ConnectionClosedError), 5),
    ((SecureConnectionRequiredError, OutboundBufferLimitError), 5),
    ((RequestTimeoutError, NoRespondersError, OutcomeUnknownError), 5),
    ((KeyboardInterrupt,), 130),
)


def exit_code(exc: BaseException) -> int:
    """Return the exit code with which the ``objstore`` command reports an error.

    Args:
        exc: the exception.

    Returns:
        2 invalid arguments, 3 not found, 4 conflict, sealed or full, 5 connection or timeout, 6 credentials
        or permissions, 7 integrity, 130 interrupted, 1 everything else (foreign exceptions included).
    """
    for classes, code in _EXIT_CODES:
        if isinstance(exc, classes):
            return code
    return 1
