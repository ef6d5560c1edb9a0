"""The errors of a file system, each with the object store's own as its cause."""

from __future__ import annotations

import errno

import pytest

from natsproto.errors import AuthorizationError, NatsError, NoServersError, PermissionsViolationError
from objstore import (
    BucketAlreadyExistsError,
    BucketNotFoundError,
    BucketSealedError,
    DigestMismatchError,
    LinkError,
    ObjectAlreadyExists,
    ObjectChangedError,
    ObjectDeletedError,
    ObjectNotFoundError,
    ObjectTooLargeError,
    RevisionConflictError,
    StoreFullError,
)
from objstore.filesystem.oserrors import os_errors


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (ObjectNotFoundError("gone"), FileNotFoundError, errno.ENOENT),
        (ObjectDeletedError("gone"), FileNotFoundError, errno.ENOENT),
        (BucketNotFoundError("gone"), FileNotFoundError, errno.ENOENT),
        (ObjectAlreadyExists("there"), FileExistsError, errno.EEXIST),
        (BucketAlreadyExistsError("there"), FileExistsError, errno.EEXIST),
        (RevisionConflictError("there", expected=0, current=3), FileExistsError, errno.EEXIST),
        (RevisionConflictError("other", expected=2, current=3), OSError, errno.ESTALE),
        (AuthorizationError("no"), PermissionError, errno.EACCES),
        (PermissionsViolationError("no"), PermissionError, errno.EACCES),
        (BucketSealedError("no"), PermissionError, errno.EACCES),
        (StoreFullError("full"), OSError, errno.ENOSPC),
        (LinkError("circle"), OSError, errno.ELOOP),
        (ObjectTooLargeError("large"), OSError, errno.EFBIG),
        (ObjectChangedError("changed"), OSError, errno.ESTALE),
        (DigestMismatchError("damaged"), OSError, errno.EIO),
    ],
)
def test_errors(error: NatsError, kind: type[OSError], code: int) -> None:
    with pytest.raises(kind) as caught, os_errors("b/a"):
        raise error
    assert caught.value.errno == code
    assert (caught.value.filename, caught.value.strerror) == ("b/a", str(error))
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("error", [NoServersError("nobody"), ValueError("other"), KeyError("other")])
def test_what_fits_already(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, os_errors("b/a"):
        raise error
    assert caught.value is error
