"""Uploads that may be interrupted: the token comes before the first byte, the chunks stay, the rest follows.

On resumption every stored chunk is compared with the source, which is read from its beginning: what is stored
is never taken on trust, whatever was interrupted and whatever became of the source meanwhile.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any

from natsproto.nuid import next_nuid

from ._bucket import Bucket, MetaDecodeError, log
from ._callbacks import check_callback
from ._chunks import SETTLE
from ._doubt import Unrepairable
from ._newest import newest_metas
from ._operation import operation
from ._prepare import prepare
from ._put import Put
from ._source import open_source
from .errors import BadObjectMetaError, OutcomeUnknownError, StoreFullError
from .format.chunking import resolve_chunk_size
from .format.digest import hex_digest
from .format.naming import chunk_subject, is_safe_nuid

if TYPE_CHECKING:
    from natsproto.errors import NatsError
    from natsproto.jetstream.api.models import StoredMessage

    from ._commit import Conflict
    from ._put import Progress
    from ._source import ObjectData
    from .format.models import ObjectInfo

VERSION = 1
MAX_TOKEN = 1 << 20


class Upload:
    """An upload that can be continued, in this process or another; made by ``begin_upload``.

    A paused upload's chunks belong to no object yet: :meth:`ObjectStore.gc` removes them when nothing was
    added for longer than its ``older_than`` (24 hours).

    Attributes:
        name: the object's name.
        token: keep it: :meth:`ObjectStore.begin_upload` takes it to continue.
    """

    def __init__(self, bucket: Bucket, document: dict[str, Any]) -> None:
        self._bucket = bucket
        self.client = bucket.client
        self._document = document
        self.name: str = document["name"]
        self.nuid: str = document["nuid"]
        self.token = base64.urlsafe_b64encode(json.dumps(document).encode()).decode()

    @operation
    async def stored(self) -> int:
        """How many chunks are stored so far."""
        bucket = self._bucket
        subject = chunk_subject(bucket.name, self.nuid)
        counts = await bucket.retrying(lambda: bucket.js.stream_subjects(bucket.stream, subject))
        return counts.get(subject, 0)

    @operation
    async def send(
        self, data: ObjectData, *, if_revision: int | None = None, progress: Progress | None = None
    ) -> ObjectInfo:
        """Send the whole object, or what of it is missing; then commit it.

        A failure or cancellation leaves what is stored, to be continued by another ``send``. When the object
        had been committed already, that is found out and nothing is stored twice (if it was renamed since,
        ``data`` is not compared with it). One ``send`` of a token at a time: of two at least one fails.

        Args:
            data: the whole object from its beginning, as :meth:`ObjectStore.put`.
            if_revision: as :meth:`ObjectStore.put`.
            progress: called with ``(bytes done, total or None)``.

        Raises:
            As :meth:`ObjectStore.put`.
        """
        document, bucket = self._document, self._bucket
        check_callback("progress", progress)
        source = open_source(data)
        holder = await self._holder() if await self.stored() else None
        if holder is not None and holder.name != self.name:
            return holder  # committed, and renamed since
        about = (
            document.get("description"),
            document.get("filename"),
            document.get("headers"),
            document.get("metadata"),
        )
        template, size = prepare(bucket, self.name, about, None, document["chunk_size"], None)
        work = ResumedPut(
            bucket,
            template,
            source,
            chunk_size=size,
            if_revision=if_revision,
            progress=progress,
            nuid=self.nuid,
        )
        return await work.run()

    @operation
    async def abort(self) -> None:
        """Give the upload up for good: its chunks are removed. Does nothing once it has been committed."""
        bucket = self._bucket
        # The list of all may come from a replica that is behind; the leader knows of the likeliest one.
        if await standing(bucket, self.name, self.nuid) is None and await self._holder() is None:
            await bucket.purge_chunks(self.nuid)

    async def _holder(self) -> ObjectInfo | None:
        """The live object that has these chunks, under whatever name; reads every meta."""
        found = [
            info
            for info in await newest_metas(self._bucket, lambda invalid: None)
            if info.nuid == self.nuid and not info.deleted
        ]
        # In the middle of a rename there are two of them.
        return next((info for info in found if info.name != self.name), found[0] if found else None)

    def __repr__(self) -> str:
        return f"<Upload of {self.name!r} to {self._bucket.name!r}, nuid {self.nuid}>"


async def standing(bucket: Bucket, name: str, nuid: str) -> ObjectInfo | None:
    """The live object ``name``, for the leader, if it has the chunks ``nuid``."""
    try:
        info = await bucket.leader_meta(name)
    except MetaDecodeError:
        return None
    return None if info is None or info.deleted or info.nuid != nuid else info


def begin(bucket: Bucket, name: str, about: dict[str, Any], chunk_size: int | None) -> Upload:
    """A new upload; nothing is sent."""
    values = (about.get("description"), about.get("filename"), about.get("headers"), about.get("metadata"))
    template, size = prepare(bucket, name, values, None, chunk_size, None)
    document = {
        "version": VERSION,
        "bucket": bucket.name,
        "name": name,
        "nuid": next_nuid(),
        "chunk_size": size,
        "description": template.description,
        "headers": None if template.headers is None else template.headers.as_wire(),
        "metadata": dict(template.metadata),
    }
    return Upload(bucket, document)


def resume(bucket: Bucket, name: str, token: str) -> Upload:
    """The upload a token stands for.

    Raises:
        BadObjectMetaError: no token, or another bucket's or object's.
    """
    bucket.check_writable()
    try:
        if not isinstance(token, str) or len(token) > MAX_TOKEN:
            raise ValueError
        document = json.loads(base64.b64decode(token.encode("ascii"), altchars=b"-_", validate=True))
        if document["version"] != VERSION or not is_safe_nuid(document["nuid"]):
            raise ValueError
        resolve_chunk_size(document["chunk_size"], 0)
        upload = Upload(bucket, document)  # written again: what was just not too deep to be read may be now
    except (ValueError, TypeError, KeyError, binascii.Error, RecursionError) as exc:
        raise BadObjectMetaError("not the token of an upload", bucket=bucket.name, name=name) from exc
    if (document.get("bucket"), document.get("name")) != (bucket.name, name):
        raise BadObjectMetaError(
            f"the token is of {document.get('name')!r} in bucket {document.get('bucket')!r}",
            bucket=bucket.name,
            name=name,
        )
    return upload


class _Superseded(Exception):
    """An earlier commit of the chunks may have been replaced already; or they are wrong, for a ``reason``."""

    def __init__(self, reason: NatsError | None = None) -> None:
        super().__init__()
        self.reason = reason


class ResumedPut(Put):
    """A put on a nuid that may have chunks already, and that keeps them when it fails.

    An earlier one may have been committed, and replaced since: whoever replaced it is about to remove the
    chunks, and a meta that names them again would destroy what stands. Or its commit may still be on its way,
    and would name what is changed now. So

    * when it stands, nothing is committed again;
    * not one of the chunks that are there is replaced or removed;
    * when all of them are there, they are committed only in place of a meta that is older than the last one:
      then no earlier commit has landed, and no other one does, as the revision is no longer what it expects;
    * when some were lacking, no commit was sent; or they were all removed, after one: a removal that comes
      late removes only what is older than the meta that it is about.

    Else the object is stored anew, on another nuid.
    """

    counts_afterwards = True

    def __init__(self, *args: Any, nuid: str, **options: Any) -> None:
        super().__init__(*args, **options)
        self._fixed: str | None = nuid
        self._restartable = self._source.restartable
        self._source.restartable = False  # the token would not know the other nuid: only where it must be
        self._stored: AsyncGenerator[StoredMessage, None] | None = None
        self._last_seq = 0

    async def run(self) -> ObjectInfo:
        """As :meth:`Put.run`."""
        try:
            return await super().run()
        except _Superseded as exc:
            if not self._restartable:
                raise exc.reason or self._unknown() from None
            reason = exc.reason or "those that are there may have been committed before"
            log.warning("the upload of %r starts over on new chunks: %s", self._template.name, reason)
        self._fixed = None
        self._source.restartable = True
        self._guard.partial = False
        self._budget.progress()
        return await super().run()

    def _unknown(self) -> OutcomeUnknownError:
        bucket, name = self._bucket.name, self._template.name
        return OutcomeUnknownError(
            f"whether the upload of {name!r} to bucket {bucket!r} was stored before could not be found out, "
            f"and its source cannot be read again: begin another one; its chunks ({self._nuid}) are kept",
            bucket=bucket,
            name=name,
            nuid=self._nuid,
        )

    def _begin(self) -> None:
        super()._begin()
        if self._fixed is not None:
            self._nuid = self._fixed
            self._subject = chunk_subject(self._bucket.name, self._nuid)

    def _expects_new(self) -> bool:
        return False  # what stands has to be read

    def _check_condition(self, previous: tuple[int, ObjectInfo | None]) -> None:
        if not self._ours(previous[1]):
            super()._check_condition(previous)

    async def _commit(self, previous: tuple[int, ObjectInfo | None]) -> ObjectInfo:
        revision, old = previous
        if old is not None and self._ours(old):
            if old.digest != hex_digest(self._hasher.digest()):
                raise _Superseded  # it is damaged, and these are other bytes
            return old
        if self._all_there and not 0 < revision <= self._last_seq:
            raise _Superseded
        info = await super()._commit(previous)
        if self._fixed is not None and info.digest != hex_digest(self._hasher.digest()):
            raise _Superseded  # a commit of an earlier one has landed, and the chunks are no longer its own
        return info

    async def _stand_back(self, conflict: Conflict) -> bool:
        if self._all_there:
            raise _Superseded
        return await super()._stand_back(conflict)

    def _ours(self, info: ObjectInfo | None) -> bool:
        return self._fixed is not None and info is not None and not info.deleted and info.nuid == self._nuid

    @property
    def _all_there(self) -> bool:
        """An earlier one may have been as far as its commit: no chunk was lacking."""
        return self._fixed is not None and self._window is None and self._chunks > 0

    @property
    def _last_chunk(self) -> int:
        return self._last_seq if self._window is None else self._window.last_seq

    async def _send_chunks(self) -> None:
        if self._fixed is None:
            await super()._send_chunks()
            return
        self._stored = self._bucket.messages(self._subject)
        self._guard.partial = True
        try:
            await super()._send_chunks()
            await self._check_strays(None)
            if self._chunks:
                await self._check_stored()  # another process may be sending with the same token
        except Unrepairable as exc:
            raise _Superseded(exc.reason) from exc
        except StoreFullError as exc:
            if self._all_there:  # on 2.9 this is how missing chunks are explained; none was sent
                raise _Superseded(exc) from exc
            raise
        finally:
            if self._stored is not None:
                await self._stored.aclose()

    async def _send(self, chunk: memoryview) -> None:
        if self._stored is not None:
            message = await anext(self._stored, None)
            if message is not None and message.data == chunk:
                self._last_seq = message.seq
                self._count(chunk)
                return
            await self._check_strays(message)
            await self._check_uncommitted()
            self._window = self._open_window(self._chunks, self._last_seq)
        await super()._send(chunk)

    async def _check_strays(self, message: StoredMessage | None) -> None:
        """Whatever is stored beyond what agrees with the source is of another one.

        Args:
            message: the first of that, if it was read already.
        """
        stored, self._stored = self._stored, None
        if stored is None:
            return
        if message is None:
            message = await anext(stored, None)
        await stored.aclose()
        if message is not None:
            await self._check_uncommitted()
            raise _Superseded

    async def _check_uncommitted(self) -> None:
        """The chunks of an object that stands, whole, are not those of another one.

        Raises:
            BadObjectMetaError: they are.
        """
        bucket = self._bucket
        whose = await standing(bucket, self._template.name, self._nuid)
        if whose is not None and await bucket.stored_chunks(self._nuid) == whose.chunks:
            raise BadObjectMetaError(
                f"the upload of {self._template.name!r} was committed already, with other content: begin "
                "another one",
                bucket=bucket.name,
                name=self._template.name,
            )

    async def _committed(self) -> None:
        await super()._committed()
        if self._chunks:
            await self._check_again()

    async def _cleanup(self) -> None:
        if self._fixed is None:
            await super()._cleanup()
        elif self._window is not None:
            await self._window.quiesce(SETTLE)
            self._window.close()
