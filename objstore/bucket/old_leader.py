"""What nats-server 2.9 needs: it forgets the newest message of a subject, and checks conditions too early."""

from __future__ import annotations

from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING

from natsproto.errors import APIError, NatsError, PermissionsViolationError

from .message_reads import MessageRead
from .server import server_version, told_in_clear
from .shown import shown
from .ways import AT_LEADER, LEADER

if TYPE_CHECKING:
    from natsproto.jetstream.api.models import StoredMessage, StreamInfo

    from .bucket import Bucket

USED_UP = (10002, 10023)
"""Error codes: the storage of the account or server is used up.

nats-server 2.9 stores such a message and removes it again, and then no longer knows the newest message of the
subject; it also does not reduce its usage when messages are purged by subject. Once 2.9 has reported one of
these, or has not found a message that is there, chunks are deleted one by one, and a message that is not
found is searched for from the beginning.
"""


class OldLeader:
    """What is known of a bucket's leader that is older than 2.10, or may be.

    Attributes:
        index_broken: it may not find the newest message of a subject; see :data:`USED_UP`.
    """

    __slots__ = ("_bucket", "_told", "index_broken")

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._told = False
        self.index_broken: bool = False

    def known_to(self, bucket: Bucket) -> OldLeader:
        """Return the same for another handle of the bucket."""
        found = OldLeader(bucket)
        found._told, found.index_broken = self._told, self.index_broken
        return found

    def learn(self, info: StreamInfo) -> None:
        """Take what the leader's info shows. Before 2.10 it does not tell the time.

        A version that was told in clear proves nothing, nor does that of the server we are connected to in a
        cluster.
        """
        in_doubt = "cluster" in info.raw or told_in_clear(self._bucket.client)
        self._told = "ts" not in info.raw and in_doubt

    @property
    def leads(self) -> bool:
        """Whether the bucket's leader is older than 2.10, or may be: in a cluster that is being upgraded."""
        version = server_version(self._bucket.client)
        return self._told or (version is not None and version < (2, 10))

    @property
    def checks_early(self) -> bool:
        """Whether the leader checks conditions before it has stored what it accepted before: 2.9, replicated.

        Of several messages that are under way together, all pass. See :meth:`settle`.
        """
        return self._bucket.replicated and self.leads

    async def settle(self) -> None:
        """Wait until the leader has stored all that it accepted before: a purge takes the same way.

        This one removes nothing: no message has such a subject. (2.9 moves consumers of the subject, which no
        filter has, to the end.) Without the right to it nothing is waited for.
        """
        try:
            bucket = self._bucket
            await bucket.js.purge_stream(bucket.stream, subject=f"$O.{bucket.name}.settle")
        except PermissionsViolationError:
            pass

    async def _ask_leader(self, subject: str, at: int | None = None) -> StoredMessage | None:
        bucket = self._bucket
        return await bucket.retrying(lambda: MessageRead(bucket, subject, at=at, ways=AT_LEADER).wait())

    async def check_index(self, subject: str) -> bool:
        """Whether a message may exist that the server did not find as the newest of its subject.

        Another client may have been told that the storage is used up, see :data:`USED_UP`.
        """
        if self.leads and not self.index_broken and self._bucket.ways.allowed(LEADER):
            try:
                found = await self._bucket.first_after(subject, 0, AT_LEADER)
                # It was there before and after the newest one was not found, and is not a new one.
                if found is not None and await self._ask_leader(subject) is None:
                    self.index_broken = await self._ask_leader(subject, at=found.seq) is not None
            except PermissionsViolationError as exc:
                if not self._bucket.ways.note_refusal(exc):
                    raise  # who may not ask the leader takes "not found" as it is
        return self.index_broken

    async def delete_each(self, subject: str, before: int | None) -> None:
        """Remove messages one by one; the purge removes the rest.

        All are read first: nats-server 2.9 finds no next message of a subject after its first was deleted.
        """
        bucket = self._bucket
        async with aclosing(bucket.messages(subject)) as messages:
            sequences = [message.seq async for message in messages if before is None or message.seq < before]
        try:
            if sequences:
                await shown(bucket, subject, sequences)
        except NatsError:
            return  # they may be another stream's: the purge removes what is the bucket's
        for seq in sequences:  # the first one first: without it, no upload resumes from the remaining chunks
            try:
                await bucket.retrying(partial(bucket.js.delete_message, bucket.stream, seq))
            except (APIError, PermissionsViolationError):
                pass  # already gone, or not allowed
