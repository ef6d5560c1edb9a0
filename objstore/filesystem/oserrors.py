"""The errors of the object store as the :class:`OSError` that programs which use files expect."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from natsproto.errors import AuthorizationError, NatsError, PermissionsViolationError

from ..errors import (
    BucketAlreadyExistsError,
    BucketNotFoundError,
    BucketSealedError,
    IntegrityError,
    LinkError,
    ObjectAlreadyExists,
    ObjectChangedError,
    ObjectNotFoundError,
    ObjectTooLargeError,
    RevisionConflictError,
    StoreFullError,
)

_CODES: tuple[tuple[tuple[type[NatsError], ...], int], ...] = (
    ((ObjectNotFoundError, BucketNotFoundError), errno.ENOENT),
    ((ObjectAlreadyExists, BucketAlreadyExistsError), errno.EEXIST),
    ((AuthorizationError, PermissionsViolationError), errno.EACCES),
    ((BucketSealedError,), errno.EACCES),
    ((StoreFullError,), errno.ENOSPC),
    ((LinkError,), errno.ELOOP),
    ((ObjectTooLargeError,), errno.EFBIG),
    ((ObjectChangedError,), errno.ESTALE),
    ((IntegrityError,), errno.EIO),
)


def os_error(exc: NatsError, path: str) -> OSError | None:
    """Return the error that a file system raises instead; ``None`` if the error fits as it is."""
    if isinstance(exc, RevisionConflictError):
        return OSError(errno.ESTALE if exc.expected else errno.EEXIST, str(exc), path)
    for classes, code in _CODES:
        if isinstance(exc, classes):
            return OSError(code, str(exc), path)
    return None


@contextmanager
def os_errors(path: str) -> Iterator[None]:
    """Raise the errors of the object store as those of a file system, with the original as their cause."""
    try:
        yield
    except NatsError as exc:
        error = os_error(exc, path)
        if error is None:
            raise
        raise error from exc
