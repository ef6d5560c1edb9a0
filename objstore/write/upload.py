"""Resumable uploads: the token exists before the first byte, stored chunks stay, the rest follows later.

A resumed upload reads the source from its beginning and compares every stored chunk with it: stored chunks
are never trusted, whatever was interrupted and however the source has changed.
"""

from __future__ import annotations

import base64
import binascii
import json
from secrets import token_hex
from typing import TYPE_CHECKING, NotRequired, TypedDict

from natsproto.errors import PermissionsViolationError

from ..bucket import numbered
from ..bucket.bucket import Bucket, UserMeta, log
from ..bucket.collect import SilentConsumer
from ..bucket.counts import count_from
from ..bucket.numbered import NUMBER_ROOM, SECRET_BYTES
from ..bucket.operation import check_callback, operation
from ..errors import BadObjectMetaError, OutcomeUnknownError
from ..format.chunking import resolve_chunk_size
from ..format.naming import chunk_subject, is_nuid_of, is_safe_nuid, new_nuid
from ..listing.metas import NamesNotSentError
from . import resumed
from .checks import prepare
from .resumed import ResumedPut, same_content
from .source import open_source
from .upload_holders import Holders

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from natsproto.aio.client import Client

    from ..bucket.operation import Progress
    from ..format.models import ObjectInfo
    from .source import ObjectData

VERSION = 2
WITHOUT_SECRET = 1
"""The version of tokens whose chunks have ids that anybody can know."""

MAX_TOKEN = 1 << 20


class Token(TypedDict):
    """The content of a token; a forged token may contain anything, and is refused where it is used."""

    version: int
    bucket: str
    name: str
    nuid: str
    chunk_size: int
    description: str | None
    headers: Mapping[str, str | Sequence[str]] | None
    metadata: Mapping[str, str] | None
    secret: NotRequired[str]


class Upload:
    """An upload that can be resumed, in this process or another; created by ``begin_upload``.

    A paused upload's chunks belong to no object yet: :meth:`ObjectStore.gc` removes them when nothing was
    added for longer than its ``older_than`` (24 hours) and for 13 hours.

    Attributes:
        name: the object's name.
        token: keep it to resume the upload with :meth:`ObjectStore.begin_upload`. It is a secret: whoever
            has it, and may publish to the bucket, can write to the upload, or stop it.
    """

    def __init__(self, bucket: Bucket, document: Token) -> None:
        self._bucket = bucket
        self.client: Client = bucket.client
        self._document = document
        self._secret = _secret(document)
        self.name: str = document["name"]
        self.nuid: str = document["nuid"]
        self.token: str = base64.urlsafe_b64encode(json.dumps(document).encode()).decode()

    @operation
    async def stored(self) -> int:
        """Return how many chunks are stored so far."""
        return await self._bucket.stored_chunks(self.nuid)

    @operation
    async def send(
        self, data: ObjectData, *, if_revision: int | None = None, progress: Progress | None = None
    ) -> ObjectInfo:
        """Send the object, or its missing chunks; then commit it.

        After a failure or cancellation the stored chunks stay, and another ``send`` continues with them. If
        the object was already committed, this is detected and nothing is stored twice, even if it was renamed
        since (as long as the delete marker of its old name exists, and not in a bucket with a ``ttl``). If no
        chunk was added for 13 hours, the chunks are removed, and all are sent again under the same token. In
        some cases, such as after a delete, the object must be stored on new chunks that the token does not
        name (a warning is logged): a later ``send`` cannot continue with those, and stores the object again.

        Use only one ``send`` of a token at a time. Two concurrent ones with the same bytes each return the
        committed object, or fail; what one of them has committed stays unchanged.

        Args:
            data: the whole object from its beginning, as for :meth:`ObjectStore.put`.
            if_revision: as for :meth:`ObjectStore.put`.
            progress: called with ``(bytes done, total or None)``.

        Raises:
            OutcomeUnknownError: also when another ``send`` of the token has changed the stored chunks, and
                the source cannot be read again to compare.
            NatsError: as for :meth:`ObjectStore.put`.
        """
        document, bucket = self._document, self._bucket
        check_callback("progress", progress)
        source = open_source(data)
        holders: Holders | None
        known = holders = Holders(bucket, self.name, self.nuid)
        holder, unknown = None, ""
        try:
            holder = await known.begin()
        except NamesNotSentError as exc:  # so that nobody can tell whether the chunks were committed
            unknown = str(exc)
        if holder is not None and holder.name != self.name:
            if await known.is_upload(holder):
                if await same_content(source, holder):
                    return holder  # committed, and renamed since
                if not source.restartable:
                    raise self._held(holder, "and its source cannot be read again: begin another one")
            log.warning(
                "the upload of %r is stored on new chunks, which its token does not know: object %r names "
                "those that are there",
                self.name,
                holder.name,
            )
            holders = None  # another object's meta refers to these chunks: leave them to it
        elif holder is None and (why := unknown or await self._unusable(known)):
            log.warning(
                "the upload of %r is stored on new chunks, which its token does not know: %s", self.name, why
            )
            holders = None
        about = (
            document.get("description"),
            None,
            document.get("headers"),
            document.get("metadata"),
        )
        template, size = prepare(bucket, self.name, about, None, document["chunk_size"], None, NUMBER_ROOM)
        work = ResumedPut(
            bucket,
            template,
            source,
            chunk_size=size,
            if_revision=if_revision,
            progress=progress,
            holders=holders,
            secret=self._secret,
        )
        return await work.run()

    @operation
    async def abort(self) -> None:
        """Give up the upload for good and remove its chunks. Does nothing once it has been committed.

        Do not call it while another process sends with the same token: a commit at the same moment may be
        lost.

        Raises:
            OutcomeUnknownError: another object's meta refers to the chunks: a rename long ago, or a forged
                meta. The chunks are kept.
            PermissionsViolationError: this user may not create consumers, which show that no meta refers to
                the chunks. They are kept for ``gc``.
        """
        bucket = self._bucket
        holders = Holders(bucket, self.name, self.nuid)
        holder = await holders.look(proven=True)
        if holder is None:
            await bucket.purge_chunks(self.nuid)
        elif holder.name != self.name and not await holders.is_upload(holder):
            raise self._held(holder, "they are kept")

    async def _unusable(self, holders: Holders) -> str:
        """Return why not to continue with this nuid; "" to do so."""
        if holders.was_deleted:
            return "what it stored before was deleted since"
        try:
            if await self._usable(holders):
                return ""
        except NamesNotSentError as exc:
            return str(exc)
        return "those it has are old, and somebody may still be going on with them"

    async def _usable(self, holders: Holders) -> bool:
        """Whether to continue with this nuid. Chunks that are too old are removed first.

        A sender cannot see that a ``gc`` is about to remove the chunks, or another sender to commit them. So
        no sender resumes chunks older than GOES_ON, and only those older than GONE are removed.
        """
        bucket = self._bucket
        last = await bucket.leader_message(chunk_subject(bucket.name, self.nuid))
        if last is None:
            return True
        old = await resumed.age(bucket, last.time)
        if old <= numbered.GOES_ON:
            return True
        if old <= numbered.GONE:
            return await holders.look() is not None
        try:
            if await holders.look(proven=True) is not None:
                return True
            if await count_from(bucket, last.subject, last.seq + 1):
                return False  # that was not the newest one: others can have any of them sent to us
            log.warning("the upload of %r starts over: its stored chunks are too old", self.name)
            await bucket.purge_chunks(self.nuid, before=last.seq + 1)
        except (PermissionsViolationError, SilentConsumer):
            return await holders.look() is not None
        return True

    def _held(self, holder: ObjectInfo, so: str) -> OutcomeUnknownError:
        return OutcomeUnknownError(
            f"object {holder.name!r} in bucket {self._bucket.name!r} names the chunks of the upload of "
            f"{self.name!r}, {so}",
            bucket=self._bucket.name,
            name=self.name,
            nuid=self.nuid,
        )

    def __repr__(self) -> str:
        return f"<Upload of {self.name!r} to {self._bucket.name!r}, nuid {self.nuid}>"


def begin(bucket: Bucket, name: str, about: UserMeta, chunk_size: int | None) -> Upload:
    """Create a new upload; nothing is sent."""
    template, size = prepare(bucket, name, about, None, chunk_size, None, NUMBER_ROOM)
    document: Token = {
        "version": VERSION,
        "bucket": bucket.name,
        "name": name,
        "nuid": new_nuid(name),
        "chunk_size": size,
        "description": template.description,
        "headers": None if template.headers is None else template.headers.as_wire(),
        "metadata": dict(template.metadata),
        "secret": token_hex(SECRET_BYTES),
    }
    return Upload(bucket, document)


def _secret(document: Token) -> bytes:
    """Return the secret of a token.

    Raises:
        KeyError, TypeError, ValueError: it is forged.
    """
    if document["version"] == WITHOUT_SECRET:
        return b""
    secret = bytes.fromhex(document["secret"])
    if len(secret) != SECRET_BYTES:
        raise ValueError
    return secret


def resume(bucket: Bucket, name: str, token: str) -> Upload:
    """Return the upload of a token.

    Raises:
        BadObjectMetaError: it is not a token, or one of another bucket or object.
    """
    bucket.check_writable()
    try:
        if not isinstance(token, str) or len(token) > MAX_TOKEN:
            raise ValueError
        document: Token = json.loads(base64.b64decode(token.encode("ascii"), altchars=b"-_", validate=True))
        if document["version"] not in (VERSION, WITHOUT_SECRET) or not is_safe_nuid(document["nuid"]):
            raise ValueError
        resolve_chunk_size(document["chunk_size"], 0)
        upload = Upload(bucket, document)  # writes it as JSON again, which may be nested too deep for that
    except (ValueError, TypeError, KeyError, binascii.Error, RecursionError) as exc:
        raise BadObjectMetaError("not the token of an upload", bucket=bucket.name, name=name) from exc
    if (document.get("bucket"), document.get("name")) != (bucket.name, name) or not is_nuid_of(
        upload.nuid,
        name,  # a forged token could name the chunks of another object
    ):
        raise BadObjectMetaError(
            f"the token belongs to {document.get('name')!r:.80} in bucket {document.get('bucket')!r:.80}",
            bucket=bucket.name,
            name=name,
        )
    return upload
