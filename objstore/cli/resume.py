"""``put --resume``: an upload that continues where an earlier command was interrupted.

What identifies the upload on the server, its token, is kept in a file in the user's state directory until the
upload is complete. It is the same file for the same bucket, name, source and options.
"""

from __future__ import annotations

import hashlib
import json
import os
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from .output import CommandError

if TYPE_CHECKING:
    from objstore.format.models import ObjectInfo
    from objstore.store import ObjectStore
    from objstore.write.upload import Upload

MAX_TOKEN = 1 << 20
"""Bytes of the largest token that is read from a file."""


def uploads_directory(environ: Mapping[str, str]) -> str:
    """Return where tokens are kept: below ``$XDG_STATE_HOME``, else below ``~/.local/state``."""
    state = environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return os.path.join(state, "objstore", "uploads")


def token_file(store: ObjectStore, name: str, file: str, args: Namespace) -> str:
    """Return the path of the file that keeps the token of one upload."""
    what = [
        store.bucket,
        name,
        os.path.abspath(file),
        args.description,
        args.headers,
        args.metadata,
        args.chunk_size,
    ]
    key = hashlib.sha256(json.dumps(what).encode()).hexdigest()[:32]
    return os.path.join(uploads_directory(os.environ), key)


async def put_resumed(
    store: ObjectStore,
    name: str,
    file: str,
    args: Namespace,
    headers: dict[str, list[str]] | None,
    progress: Callable[[int, int | None], None] | None,
) -> ObjectInfo:
    """Store a file, and continue with what an interrupted upload of it has stored.

    Raises:
        CommandError: another command uploads it at the moment; exit code 4.
    """
    from objstore.errors import BadObjectMetaError

    path = token_file(store, name, file, args)
    revision = 0 if args.create else args.if_revision
    with _locked(path) as kept:
        info: ObjectInfo | None = None
        upload = await _continued(store, name, kept)
        if upload is not None:
            with suppress(BadObjectMetaError):  # it was committed after all, and the file has changed since
                info = await upload.send(Path(file), if_revision=revision, progress=progress)
        if info is None:
            upload = await store.begin_upload(
                name,
                args.description,
                os.path.basename(file),
                headers,
                metadata=dict(args.metadata) or None,
                chunk_size=args.chunk_size,
            )
            _keep(kept, upload.token)
            info = await upload.send(Path(file), if_revision=revision, progress=progress)
        os.unlink(path)
    return info


async def _continued(store: ObjectStore, name: str, kept: BinaryIO) -> Upload | None:
    from objstore.errors import BadObjectMetaError

    token = kept.read(MAX_TOKEN).decode("ascii", "replace")
    if not token:
        return None
    try:
        return await store.begin_upload(name, token=token)
    except BadObjectMetaError:  # the file was damaged
        return None


def _keep(kept: BinaryIO, token: str) -> None:
    kept.seek(0)
    kept.truncate()
    kept.write(token.encode())
    kept.flush()
    os.fsync(kept.fileno())


@contextmanager
def _locked(path: str) -> Iterator[BinaryIO]:
    """Open a token's file; no other command has it open."""
    import fcntl

    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    with open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600), "r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CommandError(
                "put: another command is uploading this file at the moment: wait for it", 4
            ) from None
        yield file
