"""Find the meta of a name.

Clients store a name under different subjects (:func:`objstore.format.naming.meta_subjects`). It is still one
object: of all messages under these subjects, the one with the highest sequence is the meta of the name; it
has replaced the others. Writers read all of them at the leader before they write.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from natsproto.errors import NatsError
from natsproto.jetstream.api.errors import retryable

from ..format.naming import meta_subjects

if TYPE_CHECKING:
    from natsproto.jetstream.api.models import StoredMessage

    from .bucket import Bucket
    from .message_reads import MessageRead


LOOKS = 3
"""Times that a name is looked up, where it should exist, until it counts as absent."""


class Lookup:
    """The requests for a name's newest message, on their way; call :meth:`wait` or :meth:`close`.

    All subjects are requested at once: this takes one round trip, and for every third name one request.

    Attributes:
        subjects: the subjects under which the name may be stored; this library's is the first.
        newest: after :meth:`wait`, the subject of the newest message.
        revision: after :meth:`wait`, its sequence; 0 = there is none.
        others: after :meth:`wait`, the older messages of the name under other subjects, by subject.
    """

    def __init__(self, bucket: Bucket, name: str, ways: tuple[str, ...] | None = None) -> None:
        self._bucket = bucket
        self._ways = ways
        self.subjects: list[str] = meta_subjects(bucket.name, name)
        self.newest: str = self.subjects[0]
        self.revision: int = 0
        self.others: dict[str, StoredMessage] = {}
        self._pending: list[MessageRead] = []
        self._ask()

    def _ask(self) -> None:
        try:
            for subject in self.subjects:
                self._pending.append(self._bucket.leader_read(subject, ways=self._ways))
        except BaseException:
            self.close()
            raise

    async def wait(self, *, expected: bool = False) -> tuple[str, StoredMessage | None]:
        """Return the subject and the message; this library's subject and ``None`` when there is none.

        Args:
            expected: there should be one. That there is none may be the answer to another question, which
                somebody has had sent to our inbox: it is asked for again.

        Raises:
            NatsError: the leader could not be asked within the retry budget.
        """
        for _ in range(LOOKS if expected else 1):
            found = await self._look()
            if found[1] is not None:
                break
        return found

    async def _look(self) -> tuple[str, StoredMessage | None]:
        bucket = self._bucket
        try:
            found = [] if bucket.old.index_broken else await self._newest()
            if not any(found):
                for subject in self.subjects:
                    await bucket.old.check_index(subject)
            if bucket.old.index_broken:
                found = [await bucket.leader_message(subject, self._ways) for subject in self.subjects]
        finally:
            self.close()
        there = {
            subject: message
            for subject, message in zip(self.subjects, found, strict=True)
            if message is not None
        }
        if not there:
            return self.subjects[0], None
        self.newest = max(there, key=lambda subject: there[subject].seq)
        message = there.pop(self.newest)
        self.revision = message.seq
        self.others = there
        return self.newest, message

    async def _newest(self) -> list[StoredMessage | None]:
        if self._pending:
            try:
                return await self._answers()
            except NatsError as exc:
                if not retryable(exc):
                    raise
        return await self._bucket.retrying(self._again)  # a second look, or another try

    async def _answers(self) -> list[StoredMessage | None]:
        return [await pending.wait() for pending in self._pending]

    async def _again(self) -> list[StoredMessage | None]:
        self.close()
        self._ask()
        return await self._answers()

    def close(self) -> None:
        """Drop the requests. Idempotent."""
        for pending in self._pending:
            pending.close()
        self._pending = []
