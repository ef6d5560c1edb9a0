"""The commit of one meta message as a state machine: it decides what to do next. No I/O, no clock.

Every change of an object goes through it: put, create, update_meta, delete, rename, links, uploads, atomic
batches. *V* is the meta to replace as the leader returned it, *expected* its revision (0 = there is none).
A copy is one publish of the meta. Copies are alike: each carries ``Nats-Rollup: sub``, the expected
revision and the same random ``Nats-Msg-Id``, the *id*.

=================  =====================================================  ==================================
state              event                                                  what follows
=================  =====================================================  ==================================
SEND                                                                      one more copy; WAIT
WAIT               PubAck, sequence > expected, and after its chunks      LANDED
WAIT               ``duplicate``, likewise: others may use our id, too    LANDED, and the leader is read
WAIT               refused by the revision, only copy                     LOST
WAIT               refused otherwise (full, sealed), only copy            DENIED
WAIT               this very copy was not allowed, only copy              REFUSED
WAIT               anything else: silence, a lost connection, 10158,      AMBIGUOUS
                   any refusal of a second copy, or one that may be
                   that of another message to the same subject
LOST, AMBIGUOUS    the standing meta has our id                           DONE, remove V's chunks
LOST, AMBIGUOUS,   the standing meta has our nuid, size, chunks and       KEPT
DENIED             digest, and came after the chunks (somebody updated
                   ours; what only names the nuid is another meta)
LOST               the revision is the expected one, for up to 2 s        read again: the writer that won is
                                                                          not visible yet
LOST, AMBIGUOUS    the revision is the expected one                       pause, SEND (expecting 0: at most
                                                                          20 s after the first);
                                                                          no time: UNKNOWN
LOST, AMBIGUOUS    nothing stands, as expected, and the chunks that       UNKNOWN: ours, or another meta with
                   ours names are gone                                    these chunks, may have been
                                                                          committed and deleted again
LOST, AMBIGUOUS    the revision is smaller, or nothing stands, and the    read again; no time: UNKNOWN
                   leader's last sequence < expected: it is behind
LOST               another meta, or none any more; last writer wins       SEND the same id and nuid, its
                                                                          revision expected, no copy yet
LOST               the marker of a rename of ours: the refusal was        UNKNOWN
                   forged
LOST               another meta, or none any more; otherwise              CONFLICT
LOST               a batch: another name in it was changed                CONFLICT
AMBIGUOUS          another meta that is older than our chunks, so ours   SEND the same id and nuid, its
                   was never stored; last writer wins                     revision expected; no time: UNKNOWN
AMBIGUOUS          any other meta, none any more, or a batch's other      UNKNOWN
                   name was changed
DENIED             the standing meta has our id: the refusal was forged   DONE, remove V's chunks
DENIED             V stands, or nothing; the stream is replicated, or     read again: the refusal may be
                   chunks would be removed: for up to 2 s                 forged, and ours on its way
DENIED             it has not: V stands, or nothing                       REFUSED
DENIED             another one, or the chunks are gone: ours may have     UNKNOWN; REFUSED where nobody could
                   been stored, and changed or deleted since              make a refusal up so early
LANDED             V has nothing to remove, and no ``duplicate``, and     DONE
                   nothing else will be removed
LANDED             ours stands, or one that replaced ours                 DONE, remove V's chunks
LANDED             V still stands                                         read again; no time: UNKNOWN
LANDED             an older one than V stands, or none                    DONE, remove nothing; UNKNOWN, if
                                                                          something else will be removed
LANDED             another one, older than the acknowledgement            UNKNOWN: that was forged
LANDED             another one; 2.9 with replicas, and ours has a         UNKNOWN: it may have been replaced
                   condition                                              by one that has not seen it
=================  =====================================================  ==================================

The standing meta is the newest of its subject at the leader. LOST, AMBIGUOUS, DENIED and LANDED are all
:attr:`Step.READ` (or ``READ_WITH_LAST``); ``_lost``, none, ``_denied`` and ``_acked`` tell them apart. "SEND
the same id" is :attr:`Step.REPLACE`.

The ends: DONE (committed), KEPT (committed; remove nothing), CONFLICT and REFUSED (not committed, for
certain), UNKNOWN. **The chunks of a commit are removed only after CONFLICT or REFUSED**, or when no copy
was ever sent: a refusal does not tell whether an earlier copy may still be on its way. After UNKNOWN
everything is kept, and ``gc`` removes what is not needed.

Anyone who sees the reply subject can forge a response. So V's chunks are removed only when the leader shows
that V is replaced, and the commit's own only when it shows that ours is not the newest meta.

With 0 expected, a late copy is stored a second time if meanwhile the first one was deleted, its marker
purged, and its id forgotten by the server. So all copies are sent within :data:`ZERO_WINDOW`, and
``purge_deleted`` keeps markers that are not much older. If there was no room for a marker, the missing chunks
reveal it.

A full bucket refuses the marker of a delete, since it checks the limit before the roll-up. Then the meta
subject is purged up to the revision read, the marker is committed with 0 expected, and :func:`after_full`
decides what may be removed. If the marker was refused again, it is tried once more when the chunks are gone,
so that watchers see the deletion. If a late copy of V has come meanwhile, it is deleted, too. What another
writer has stored since then stays.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

from ..format.marks import was_moved

if TYPE_CHECKING:
    from ..format.models import ObjectInfo, ObjectLink

ZERO_WINDOW = 20.0
"""Seconds between the first and the last copy of a commit that expects no meta."""


LOST_WAIT = 2.0
"""Seconds to wait for the writer that caused the conflict: another copy makes the outcome doubtful."""


class Step(Enum):
    """What the caller must do next, or how the commit ended."""

    SEND = auto()
    """Publish a copy, then report the response: :meth:`~CommitStates.acked` or a similar method."""
    READ = auto()
    """Read the newest meta at the leader, then :meth:`~CommitStates.stands`."""
    READ_WITH_LAST = auto()
    """Read it after requesting the stream's last sequence."""
    REPLACE = auto()
    """There is a newer meta, and the last writer wins: :meth:`~CommitStates.replace` it."""
    WAIT = auto()
    """A copy is on its way."""
    DONE = auto()
    KEPT = auto()
    CONFLICT = auto()
    REFUSED = auto()
    UNKNOWN = auto()


Content = tuple[str, int, int, str, "ObjectLink | None"]
"""Nuid, size, chunks, digest and link of an object: what an update of its meta keeps."""


def content_of(info: ObjectInfo) -> Content | None:
    """Return what a meta records of its bytes, or its link target; ``None`` for delete markers or no nuid."""
    if info.deleted or not info.nuid:
        return None
    link = None if info.options is None else info.options.link
    return info.nuid, info.size, info.chunks, info.digest, link


ENDS = (Step.DONE, Step.KEPT, Step.CONFLICT, Step.REFUSED, Step.UNKNOWN)


@dataclass(frozen=True, slots=True)
class Standing:
    """The newest meta of a subject, as the leader returned it.

    Attributes:
        revision: its sequence; 0 = there is none.
        msg_id: the id it was committed with, ``""`` when it has none.
        info: decoded; ``None`` when absent or unreadable.
        chunks_gone: there is no meta, and the chunks of the commit are gone, too.
    """

    revision: int = 0
    msg_id: str = ""
    info: ObjectInfo | None = None
    chunks_gone: bool = False

    @property
    def content(self) -> Content | None:
        """:func:`content_of` this meta."""
        return None if self.info is None else content_of(self.info)

    @property
    def nuid(self) -> str:
        """The nuid of its chunks."""
        return "" if self.info is None or self.info.deleted else self.info.nuid


class CommitStates:
    """One commit; see the table in the module docstring.

    Args:
        msg_id: the random id that all copies carry.
        expected: revision of V.
        replaced: nuid of V's chunks, if they are to be removed afterwards; ``""`` = none.
        content: what identifies our bytes (:func:`content_of`); ``None`` unless the chunks are this commit's
            own (those of an update, delete or rename are V's).
        after: sequence of the last chunk: the meta comes later in the stream.
        last_writer_wins: replace a newer meta, too.
        budget: seconds to determine the outcome, from the first copy on.
        replicated: the stream stores a message some time after it has accepted it.
        proven: something is removed when this is done: an acknowledgement alone does not count.
        early: the leader checks the revision before it has stored what it accepted earlier (nats-server 2.9
            with replicas): messages under way together all pass, and the last one replaces the others. Each
            is acknowledged. So what stands when they are stored decides.
        conditional: ours may not replace just any meta, and none may replace ours that has not seen it.

    Attributes:
        step: what to do next.
        again: pause before doing it.
        expected: the revision that the next copy expects.
        copies: copies sent, unless all of them were certainly refused.
        revision: our revision, when DONE; the newest one, when KEPT, CONFLICT or REPLACE.
        standing: the newest meta as last read.
        removes: V's chunks may be removed.
    """

    __slots__ = (
        "_acked",
        "_after",
        "_behind",
        "_budget",
        "_content",
        "_deadline",
        "_denied",
        "_exclusive",
        "_first",
        "_lost",
        "_patient_until",
        "_proven",
        "_replicated",
        "again",
        "copies",
        "expected",
        "last_writer_wins",
        "msg_id",
        "removes",
        "replaced",
        "revision",
        "standing",
        "step",
    )

    def __init__(
        self,
        msg_id: str,
        *,
        expected: int,
        replaced: str = "",
        content: Content | None = None,
        after: int = 0,
        last_writer_wins: bool = False,
        budget: float = 20.0,
        replicated: bool = False,
        proven: bool = False,
        early: bool = False,
        conditional: bool = True,
    ) -> None:
        self.msg_id: str = msg_id
        self._proven = proven or early
        self._exclusive = early and conditional
        self._replicated = replicated
        self._content = content
        self._after = after
        self.last_writer_wins: bool = last_writer_wins
        self.standing: Standing | None = None
        self.removes: bool = False
        self.revision: int = 0
        self._budget = budget
        self._begin()
        self._expect(expected, replaced)

    def _begin(self) -> None:
        """Note that no copy was sent that may still be stored."""
        self.copies: int = 0
        self._first = 0.0
        self._deadline: float | None = None

    def _expect(self, expected: int, replaced: str) -> None:
        self.expected: int = expected
        self.replaced: str = replaced
        self.again: bool = False
        self._lost = False  # LOST rather than AMBIGUOUS
        self._patient_until: float | None = None
        self._denied = False  # DENIED
        self._acked = 0  # LANDED: the sequence that was acknowledged
        self._behind = False  # the leader was seen to be behind: the next read asks for its last sequence
        self.step: Step = Step.SEND

    @property
    def certain(self) -> bool:
        """Whether ours is certainly not committed, and never will be."""
        return self.step in (Step.CONFLICT, Step.REFUSED) or not self.copies

    # -- answers to a copy ------------------------------------------------------------------------

    def attempt(self, now: float) -> None:
        """Note that a copy is about to be sent; the time counts from the first one."""
        if not self._first:
            self._first = now
        self.again = False

    def sent(self) -> None:
        """Note that the copy is sent."""
        self.copies += 1
        self.step = Step.WAIT

    def unsent(self, now: float) -> None:
        """Note that the copy was not sent: nothing of it can be stored."""
        if self.step is Step.WAIT:
            self.copies -= 1
        if now - self._first < self._budget:
            self._retry(Step.SEND)
        else:
            self.give_up()

    def acked(self, seq: int, duplicate: bool, now: float) -> None:
        """Take the stream's own acknowledgement of this copy."""
        if seq > max(self.expected, self._after):
            self._landed(seq, duplicate, now)
        else:
            self.silent()  # an impossible sequence: the stream was recreated, or it is not ours

    def lost(self) -> None:
        """Note that the copy was refused because of the revision."""
        self._doubt()
        self._lost = self.copies == 1

    def refused(self, *, unforgeable: bool) -> None:
        """Note that the copy was refused for another, permanent reason.

        Args:
            unforgeable: the refusal came from the server itself, or from this client, and concerns this copy.
        """
        only = self.copies == 1
        if only and unforgeable:
            self._end(Step.REFUSED, 0)
        else:
            self._doubt()
            self._denied = only

    def silent(self) -> None:
        """Note that no response tells the outcome of this copy, and none will come."""
        self._doubt()

    def _doubt(self) -> None:
        self._lost = self._denied = self.again = self._behind = False
        self.step = Step.READ
        if self._deadline is None:
            self._deadline = self._first + self._budget

    def _landed(self, seq: int, duplicate: bool, now: float) -> None:
        if not (self.replaced or duplicate or self._proven):  # a duplicate of what? Others may use our id
            self._end(Step.DONE, seq)
            return
        self._acked = seq
        self.step = Step.READ
        self._deadline = now + self._budget

    # -- the newest meta --------------------------------------------------------------------------

    def stands(self, standing: Standing, now: float, last_seq: int | None = None) -> None:
        """Take the leader's newest meta; ``last_seq`` is its last sequence, if it was requested before."""
        self.standing = standing
        revision = standing.revision
        if standing.msg_id == self.msg_id:
            self.removes = bool(self.replaced)
            self._end(Step.DONE, revision)
        elif self._acked:
            self._prove(standing, now)
        elif self._content is not None and standing.content == self._content and revision > self._after:
            self._end(Step.KEPT, revision)
        elif self._denied:
            doubtful = self._replicated or self._content is not None
            same = revision == self.expected and not standing.chunks_gone
            if doubtful and revision <= self.expected and self._in_time(now) and now < self._lost_until(now):
                self._retry(Step.READ)
            else:
                self._end(Step.REFUSED if same or not doubtful else Step.UNKNOWN, revision)
        elif revision == self.expected:
            in_time = self._in_time(now) and not standing.chunks_gone
            if in_time and self._lost and now < self._lost_until(now):
                self._retry(Step.READ)
            elif in_time and (self.expected or now - self._first <= ZERO_WINDOW):
                self._retry(Step.SEND)
            else:
                self._retry(Step.UNKNOWN)
        elif revision < self.expected and last_seq is None:
            self.step = Step.READ_WITH_LAST
            self.again = self._behind
        elif last_seq is not None and last_seq < self.expected:
            self._behind = True
            self._retry(Step.READ_WITH_LAST if self._in_time(now) else Step.UNKNOWN)
        elif not self._lost:
            older = 0 < revision <= self._after  # than any copy of ours, whose roll-up would have removed it
            again = older and self.last_writer_wins and self._in_time(now)
            self._end(Step.REPLACE if again else Step.UNKNOWN, revision)
        elif self.last_writer_wins:
            self._begin()
            self._end(Step.REPLACE, revision)
        elif self._was_moved(standing):
            self._end(Step.UNKNOWN, revision)
        else:
            self._end(Step.CONFLICT, revision)

    def _was_moved(self, standing: Standing) -> bool:
        """Whether the marker records that an object with our nuid was renamed: the refusal was forged."""
        own, info = self._content, standing.info
        return own is not None and info is not None and was_moved(info, own[0])

    def _lost_until(self, now: float) -> float:
        if self._patient_until is None:
            self._patient_until = now + LOST_WAIT
        return self._patient_until

    def batch_name_changed(self) -> None:
        """Note, instead of :meth:`stands`, that ours is not the newest and the batch's other name changed."""
        self._end(Step.CONFLICT if self._lost else Step.UNKNOWN, 0)

    def unreadable(self, now: float) -> None:
        """Note that the leader could not be asked."""
        self._retry(self.step if self._in_time(now) else Step.UNKNOWN)

    def _prove(self, standing: Standing, now: float) -> None:
        """Check the acknowledgement ``_acked`` before V's chunks are removed."""
        if standing.revision > self._acked and (not self.replaced or standing.nuid != self.replaced):
            if self._exclusive:
                self._end(Step.UNKNOWN, 0)  # by a later change, or by one that has not seen ours
            else:
                self.removes = bool(self.replaced)
                self._end(Step.DONE, self._acked)
        elif standing.revision == self.expected:
            self._retry(Step.READ if self._in_time(now) else Step.UNKNOWN)
        elif standing.revision < self.expected and not self._proven:
            self._end(Step.DONE, self._acked)  # behind, or purged meanwhile: gc removes V's chunks
        else:
            self._end(Step.UNKNOWN, 0)  # no meta can lie between V and ours: the response was forged

    def replace(self, replaced: str) -> None:
        """Expect the newest meta; ``replaced`` is the nuid of its chunks, ``""`` = nothing to remove."""
        self._expect(self.revision, replaced)

    def concede(self) -> None:
        """Do not replace the newest meta."""
        self._end(Step.CONFLICT if self.certain else Step.UNKNOWN, self.revision)

    # -- the end ----------------------------------------------------------------------------------

    def give_up(self) -> None:
        """End the commit: nothing more can be sent or read."""
        self._end(Step.UNKNOWN if self.copies else Step.REFUSED, 0)

    def hurry(self, now: float, seconds: float) -> None:
        """Limit the time after a cancellation, and begin nothing new."""
        self._deadline = now + seconds
        self._budget = min(self._budget, seconds)
        self.last_writer_wins = False
        if self.step is Step.REPLACE:
            self.concede()
        elif self.step is Step.WAIT:
            self._doubt()

    def left(self, now: float) -> float:
        """Return the seconds left to determine the outcome."""
        return (self._first + self._budget if self._deadline is None else self._deadline) - now

    def _in_time(self, now: float) -> bool:
        return self._deadline is None or now < self._deadline

    def _retry(self, step: Step) -> None:
        self.step = step
        self.again = True

    def _end(self, step: Step, revision: int) -> None:
        self.step = step
        self.revision = revision
        self.again = False


class AfterFull(Enum):
    """The outcome of a delete from a full bucket."""

    GONE = auto()
    """V is deleted: its chunks may be removed."""
    AGAIN = auto()
    """V was replaced before it was purged: start over with the newest meta."""
    STORED_AGAIN = auto()
    """V is deleted, and a late copy of its meta has come back: delete that one, too, and no other."""
    UNKNOWN = auto()


def after_full(replaced: str, purged: int | None, marker: Step, standing: Standing) -> AfterFull:
    """Decide what may be removed after the meta subject was purged up to V, and the marker was tried.

    Args:
        replaced: nuid of V's chunks.
        purged: how many messages the purge removed; ``None`` when its response was lost.
        marker: how the commit of the marker ended.
        standing: the leader's newest meta when it ended.
    """
    if marker in (Step.DONE, Step.KEPT):
        return AfterFull.GONE
    if marker is Step.UNKNOWN or purged is None:
        return AfterFull.UNKNOWN
    if not purged:
        return AfterFull.AGAIN
    return AfterFull.GONE if standing.nuid != replaced or not replaced else AfterFull.STORED_AGAIN
