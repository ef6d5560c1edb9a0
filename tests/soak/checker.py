"""The judge: does one order of events explain everything that clients were told? Pure: no I/O, no clock.

Revisions order the states of a name. From what was acknowledged and read, the checker knows at each moment a
*floor*: the newest revision that was certainly in place by then. Half a step above a revision stands for
"something newer, whose number nobody was told". Then, for every name:

* an acknowledged write has a revision above the floor at its beginning;
* whatever is read is not below the floor at the beginning of the read: nothing acknowledged is lost,
  resurrected or stale, and what was seen once is not unseen;
* what is said to be absent was removed by somebody who may have done it, and not replaced since;
* what is said to be there, or to be in the way, may have been there;
* what failed has no effect, ever; what is unknown has one of two;
* a compare-and-set has nothing between the revision it expected and its own;
* bytes are those of a body that somebody wrote to that name, or that came there by rename, copy or link.

An operation of unknown outcome may take effect until the end of the epoch, and not later: the soak lets
everything settle before it begins a new one.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace

from .content import TELLING, make
from .content import digest as digest_of
from .effects import CREATES, MAX_AGE_SLACK, Effects, Seen, effects, target_name
from .forgotten import Return
from .history import FAIL, OK, Op, Told, Version
from .known import Known, Name
from .markers import from_nowhere
from .watched import Violation

START = -math.inf

LEAD = 8.0
"""Seconds: a follower may have applied, and told its consumers of, what the leader, stopped in between, has
not. What it tells of is in place for readers at the leader when that much time has passed, or when its writer
was told so."""

LISTINGS = frozenset({"told", "list", "iter", "snapshot", "names", "dirs", "status"})


class BucketCheck:
    """Check one bucket's part of an epoch.

    Args:
        bucket: its name.
        ops: of this bucket, any order.
        initial: what every name was at the beginning: versions read when everything stood still. Names
            without one did not exist.
        began: when that was.
        lead: seconds by which what a listing or a watch tells may be ahead of reads, see :data:`LEAD`.
        back: versions of earlier epochs which a killed server has brought back, see :mod:`.brought_back`.
        returns: names that were deleted and are back, see :mod:`.forgotten`.
    """

    def __init__(
        self,
        bucket: str,
        ops: Iterable[Op],
        initial: Iterable[Version] = (),
        began: float = START,
        lead: float = 0.0,
        back: Iterable[Version] = (),
        returns: Iterable[Return] = (),
    ) -> None:
        self.bucket = bucket
        ahead = (replace(op, end=op.end + lead) if op.verb in LISTINGS else op for op in ops)
        self.ops = sorted(ahead, key=lambda op: op.begin)
        self.back = list(back)
        self.returns = sorted(returns, key=lambda each: each.killed)
        self.old = [version for each in self.returns for version in each.old]
        self.initial = [*initial, *self.back, *self.old]
        self.began = began
        self.violations: list[Violation] = []
        self._by_id = {op.id: op for op in self.ops}
        self._digests: dict[str, str] = {
            version.body: version.digest for version in self.initial if version.body
        }
        for op in self.ops:
            if op.verb in CREATES:
                self._digests[op.args["body"]] = op.args["digest"]
        bodies: defaultdict[str, set[str]] = defaultdict(set)
        for body, digest in self._digests.items():
            bodies[digest].add(body)
        self._bodies_of = {digest: frozenset(found) for digest, found in bodies.items()}
        self._names: dict[str, Name] = {}

    def run(self) -> list[Violation]:
        self._gather()
        for item in self._names.values():
            self._attribute(item)
        for item in self._names.values():
            self._compare(item)
            self._tombstones(item)
            self._sweep(item)
        return self.violations

    # -- gathering --------------------------------------------------------------------------------

    def _name(self, name: str) -> Name:
        item = self._names.get(name)
        if item is None:
            item = self._names[name] = Name(name)
        return item

    def _gather(self) -> None:
        returned = {version.name for version in self.back}
        for version in self.initial:
            item = self._name(version.name)
            item.known[version.revision] = Known(version, self.began, "the state at the beginning")
            if version in self.old:
                continue
            if version.name not in returned:
                item.floor.add(self.began, version.revision)
            elif version.deleted and version not in self.back:
                item.purged.add(version.revision)
        for each in self.returns:
            self._name(each.name).returns.append(each)
        universe = {op.name for op in self.ops if op.name} | {
            op.args["to"] for op in self.ops if op.args.get("to")
        }
        universe |= {version.name for version in self.initial}
        names = frozenset(universe)
        for op in self.ops:
            made = effects(op, names, self._bodies_of)
            self._range(op, made)
            for name in made.writes:
                self._name(name).writes.append(op)
                if op.args.get("ttl"):
                    self._name(name).expiring.append(op)
            for name in made.removes:
                self._name(name).removes.append(op)
            if made.writes and op.verb in ("rename", "retag"):
                for name in (*made.writes, *made.removes):
                    self._name(name).renamed = True
            for name in {*made.writes, *made.removes, *(seen.name for seen in made.seen)}:
                self._name(name).touching.append((op, made))
            if not made.writes and "info" in op.result and "digest" in op.result:
                row = Version.of_row(op.result["info"])
                if row.digest != op.result["digest"]:
                    text = f"{op.id} read {op.result['digest']}, the meta says {row.digest}"
                    self._bad("wrong bytes", self._name(row.name), text, op)
            for seen in made.seen:
                if seen.version is not None:
                    self._note(self._name(seen.name), seen.version, op)

    def _range(self, op: Op, made: Effects) -> None:
        """A range that the client could not match itself: whose bytes are these?"""
        part = op.result.get("part")
        if part is None:
            return
        start, end, want = part
        name = op.args.get("of") or op.name
        candidates = [other.args["body"] for other in self.ops if other.verb in CREATES]
        candidates += [version.body for version in self.initial if version.body]
        found = {body for body in candidates if digest_of(make(body)[start:end]) == want}
        if not found or end - start >= TELLING:  # a short one names nobody
            made.seen.append(Seen("content", name, bodies=frozenset(found)))

    def _note(self, item: Name, version: Version, op: Op) -> None:
        if version.name != item.name:
            self._bad("wrong name", item, f"{op.id} was given {version.name!r}", op)
            return
        known = item.known.get(version.revision)
        if known is None:
            item.known[version.revision] = Known(version, op.end, op.id)
            return
        known.seen = min(known.seen, op.end)
        if known.version.facts() != version.facts():
            self._bad(
                "one revision, two metas",
                item,
                f"{known.by} saw {known.version}, {op.id} saw {version}",
                op,
            )

    def _attribute(self, item: Name) -> None:
        """Whose version is it? What failed must not be anybody's writer."""
        first: dict[str, Version] = {}
        for known in sorted(item.known.values(), key=lambda known: known.version.revision):
            version = known.version
            if version.deleted or known.seen == self.began:
                continue
            writer = self._by_id.get(version.tag)
            if version.body:
                self._body(item, version, known)
            if writer is not None and writer in item.writes:
                if writer.outcome == FAIL:
                    self._bad(
                        "a failed write took effect",
                        item,
                        f"revision {version.revision} (seen by {known.by}) is of {writer.id}, which failed",
                        writer,
                    )
                item.wrote(known, writer)
                earlier = first.setdefault(version.tag, version)
                copied = any(
                    op.verb == "copy" and op.outcome != FAIL and op.begin <= known.seen for op in item.writes
                )  # back from where this version was copied to: the copy says who wrote it first
                if (
                    earlier is not version
                    and not item.renamed
                    and writer.verb != "upload"
                    and not (copied and version.nuid != earlier.nuid)
                ):
                    self._bad(
                        "committed twice",
                        item,
                        f"{writer.id} stands at revisions {earlier.revision} and {version.revision}",
                        writer,
                    )
                continue
            carried = [
                op
                for op in item.writes
                if op.verb in ("rename", "copy", "retag") and op.outcome != FAIL and op.begin <= known.seen
            ]
            kept = any(
                version.facts()[:3] == other.version.facts()[:3]
                for other in item.known.values()
                if other.version.revision < version.revision
            )
            if not carried and not (item.renamed and kept):
                self._bad(
                    "a version from nowhere",
                    item,
                    f"revision {version.revision} (seen by {known.by}, written by {version.tag or '?'}) "
                    "is of nobody who may have written it",
                    writer,
                )
            elif len(carried) == 1 and not kept:
                item.wrote(known, carried[0])

    def _body(self, item: Name, version: Version, known: Known) -> None:
        digest = self._digests.get(version.body)
        if digest is None:
            self._bad("unknown bytes", item, f"revision {version.revision} names body {version.body!r}")
        elif digest != version.digest:
            self._bad(
                "wrong digest in a meta",
                item,
                f"revision {version.revision}, seen by {known.by}: {version.digest}, the body has {digest}",
            )
        else:
            author = self._by_id.get(version.body.rpartition(":")[0])
            if author is not None and author.outcome == FAIL:
                self._bad(
                    "a failed write took effect",
                    item,
                    f"revision {version.revision} (seen by {known.by}) has the bytes of {author.id}, "
                    "which failed",
                    author,
                )

    # -- compare and set --------------------------------------------------------------------------

    def _compare(self, item: Name) -> None:
        versions = sorted(item.known.values(), key=lambda known: known.version.revision)
        for op in item.writes:
            if op.outcome == OK and (op.args.get("to") or op.name) == item.name:
                self._winner(item, op, versions)
        for op, _ in item.touching:
            if op.error == "RevisionConflictError" and (op.name == item.name or target_name(op) == item.name):
                self._conflict(item, op)

    def _winner(self, item: Name, op: Op, versions: list[Known]) -> None:
        revision = _revision(op)
        if revision is None:
            return
        before = [known for known in versions if known.version.revision < revision]
        before = [
            known
            for known in before
            if known.version.revision not in item.purged and not item.gone(op, known.version.revision)
        ]
        expected = op.args.get("if")
        if op.verb == "rename" or op.verb == "retag":
            expected = None  # it is the old name's
        if expected:
            between = [known for known in before if known.version.revision > expected]
            if op.verb == "put":  # its own, and updates of it, before it learnt that it was committed
                own = item.known[revision].version.nuid
                between = [known for known in between if known.version.nuid != own]
            if between:
                self._bad(
                    "two winners",
                    item,
                    f"{op.id} replaced revision {expected} by {revision}, but there was "
                    f"{[known.version.revision for known in between]} (seen by {between[0].by})",
                    op,
                )
        must_be_free = op.verb in ("create", "rename", "retag") or expected == 0
        if op.verb == "link" and before and not before[-1].version.link:
            must_be_free = True
        taken = must_be_free and before and not before[-1].version.deleted
        if taken and before[-1].version.nuid == item.known[revision].version.nuid:
            taken = False  # the same object: a rename that was half done
        if taken and not self._may_remove(item, before[-1], op):
            self._bad(
                "two winners",
                item,
                f"{op.id} found the name free, but revision {before[-1].version.revision} "
                f"(seen by {before[-1].by}) was there",
                op,
            )
        if op.verb == "update" and before and not before[-1].version.deleted:
            last, mine = before[-1].version, item.known[revision].version
            others = [
                other
                for other in item.writes
                if other is not op
                and other.outcome != FAIL
                and other.begin <= op.end
                and item.revision_of(other) is None
            ]
            if last.body != mine.body and not others:
                self._bad(
                    "a change of the meta changed the bytes",
                    item,
                    f"{op.id} made {mine.body} of {last.body}",
                    op,
                )

    def _may_remove(self, item: Name, known: Known, op: Op) -> bool:
        born = known.writer.begin if known.writer is not None else START
        if any(
            other.outcome != FAIL and other.begin <= op.end and not other.settled < born
            for other in item.removes
            if other is not op and not item.spent(other, op)
        ):
            return True
        return any(other.begin + other.args["ttl"] - MAX_AGE_SLACK <= op.end for other in item.expiring)

    def _conflict(self, item: Name, op: Op) -> None:
        """Somebody must have been in the way: another one, after the revision that was expected."""
        expected = op.args.get("if")
        if expected is None and op.verb not in ("rename", "retag"):
            self._bad("a conflict that was not asked for", item, f"{op.id} gave no revision", op)
            return
        if any(
            known.version.revision > (expected or 0) for known in item.known.values() if known.seen <= op.end
        ):
            return
        for other in {*item.writes, *item.removes}:
            if other is op or other.outcome == FAIL or other.begin > op.end:
                continue
            revision = item.revision_of(other)
            if other in item.removes or revision is None or expected is None or revision > expected:
                return
        if item.expiring:
            return
        self._bad("a conflict with nobody", item, f"{op.id} expected {expected}; nobody was in the way", op)

    # -- delete markers ---------------------------------------------------------------------------

    def _tombstones(self, item: Name) -> None:
        """Every delete marker has a removal of its own that may have made it."""
        if item.expiring:
            return
        marks = (known for known in item.known.values() if known.version.deleted and known.seen != self.began)
        for mark in from_nowhere(item, marks):
            self._bad(
                "a delete marker from nowhere",
                item,
                f"revision {mark.version.revision} (seen by {mark.by}): nobody who may have removed it",
                self._by_id.get(mark.by),
            )

    # -- the sweep --------------------------------------------------------------------------------

    def _sweep(self, item: Name) -> None:
        kills = [each.killed for each in item.returns]
        for op, made in sorted(item.touching, key=lambda pair: pair[0].end):
            while kills and kills[0] < op.end:
                item.floor.reset(kills.pop(0))
            floor = item.floor_of(op)
            writes = item.name in made.writes
            if writes and op.outcome == OK:
                revision = _revision(op)
                if revision is not None and revision <= floor:
                    self._bad(
                        "a write went back in time",
                        item,
                        f"{op.id} was given revision {revision}, when {floor} was in place",
                        op,
                    )
                item.in_place(op, max(floor, item.top_of(op)) + 0.5 if revision is None else revision)
            for seen in made.seen:
                if seen.name == item.name and not (writes and seen.kind == "version"):
                    self._look(item, op, seen, floor)
            expected = op.args.get("if")
            if op.outcome == OK and expected and op.name == item.name and floor > expected:
                self._bad(
                    "two winners",
                    item,
                    f"{op.id} changed revision {expected}, when {floor} was in place already",
                    op,
                )
            if item.name in made.removes and op.outcome == OK:
                item.in_place(op, math.floor(max(floor, item.top_of(op))) + 0.5)

    def _look(self, item: Name, op: Op, seen: Seen, floor: float) -> None:
        if seen.kind == "version":
            assert seen.version is not None
            self._version(item, op, seen.version, floor)
        elif seen.kind == "content":
            self._content(item, op, seen, floor)
        elif seen.kind == "absent":
            self._absent(item, op, floor)
        else:
            self._live(item, op, floor)

    def _version(self, item: Name, op: Op, version: Version, floor: float) -> None:
        floor = max(floor, item.gone(op, version.revision))
        if version.revision < floor:
            self._bad(
                "stale or lost",
                item,
                f"{op.id} saw revision {version.revision}, when {floor} was in place already",
                op,
                since=item.floor.since(version.revision),
                revision=version.revision,
            )
        known = item.known.get(version.revision)
        if known is not None and known.writer is not None and known.writer.begin > op.end:
            self._bad("from the future", item, f"{op.id} saw what {known.writer.id} wrote later", op)
        item.in_place(op, version.revision)

    def _content(self, item: Name, op: Op, seen: Seen, floor: float) -> None:
        if not seen.bodies:
            self._bad("wrong bytes", item, f"{op.id} was given bytes that nobody wrote", op)
            return
        fit = sorted(
            known.version.revision
            for known in item.known.values()
            if known.version.body in seen.bodies
            and not known.version.deleted
            and not self._begun_after(known, op)  # bodies of a few bytes are the same by chance
        )
        current = [revision for revision in fit if item.stands(op, revision, floor)]
        if current:
            item.in_place(op, current[0])
            return
        unseen = [
            other
            for other in item.writes
            if other is not op
            and other.outcome != FAIL
            and other.begin <= op.end
            and self._may_carry(item, other, seen.bodies, fit)
            and item.stands(op, item.revision_of(other), floor)
        ]
        if unseen:
            if len(unseen) == 1:
                item.in_place(op, math.floor(item.floor.at(unseen[0].begin)) + 0.5)
            return
        body = sorted(seen.bodies)[0]
        author = self._by_id.get(body.rpartition(":")[0])
        if fit:
            text = f"{op.id} read {body} of revision {fit[-1]}, when {floor} was in place already"
            since = item.floor.since(fit[-1])
            self._bad("stale or lost", item, text, op, author, since=since, revision=fit[-1])
        elif author is not None and author.outcome == FAIL:
            self._bad(
                "a failed write took effect", item, f"{op.id} read the bytes of {author.id}", op, author
            )
        else:
            self._bad("wrong bytes", item, f"{op.id} read {body}, which never had that name", op, author)

    def _begun_after(self, known: Known, op: Op) -> bool:
        writer = known.writer or self._by_id.get(known.version.tag)
        return writer is not None and writer.begin > op.end

    @staticmethod
    def _may_carry(item: Name, op: Op, bodies: frozenset[str], fit: list[int]) -> bool:
        if "body" in op.args:
            return op.args["body"] in bodies
        if op.verb == "update":  # keeps what was there
            return any(revision >= item.floor.at(op.begin) for revision in fit) or not fit
        return op.verb != "link"

    def _absent(self, item: Name, op: Op, floor: float) -> None:
        if floor == 0:
            return
        newest = item.known.get(int(floor)) if floor == int(floor) else None
        if newest is not None and newest.version.deleted:
            return
        for other in reversed(item.removes):
            if other is op or other.outcome == FAIL or other.begin > op.end or item.spent(other, op):
                continue
            if other.args.get("if") and item.floor.at(other.begin) > other.args["if"]:
                continue  # it would have found another revision
            replaced = any(
                write.outcome != FAIL and write.begin > other.settled and item.committed_by(write) < op.begin
                for write in item.writes
            )
            if not replaced:
                item.in_place(op, math.floor(floor) + 0.5)
                return
        for other in item.expiring:
            if other.begin + other.args["ttl"] - MAX_AGE_SLACK <= op.end:
                return
        self._bad("lost", item, f"{op.id} found nothing, when revision {floor} was in place", op)

    def _live(self, item: Name, op: Op, floor: float) -> None:
        for known in item.known.values():
            if not known.version.deleted and item.stands(op, known.version.revision, floor):
                return
        for other in item.writes:
            possible = other is not op and other.outcome != FAIL and other.begin <= op.end
            if possible and item.stands(op, item.revision_of(other), floor):
                return
        self._bad("not there", item, f"{op.id} said that it is there, when {floor} had removed it", op)

    # -- words ------------------------------------------------------------------------------------

    def _bad(
        self,
        kind: str,
        item: Name,
        text: str,
        *ops: Op | None,
        since: float = -math.inf,
        revision: int = 0,
    ) -> None:
        chosen = [op for op in ops if op is not None]
        around = self._around(item, chosen[0] if chosen else None)
        shown = {op.id: op for op in sorted([*chosen, *around], key=lambda op: op.begin)}
        self.violations.append(
            Violation(kind, self.bucket, item.name, text, [str(op) for op in shown.values()], since, revision)
        )

    @staticmethod
    def _around(item: Name, op: Op | None, count: int = 12) -> list[Op]:
        """What else happened to the name just before the end of ``op``."""
        others = [
            other
            for other in {id(other): other for other in (*item.writes, *item.removes)}.values()
            if op is None or other.begin <= op.end
        ]
        return sorted(others, key=lambda other: other.begin)[-count:]


def _revision(op: Op) -> int | None:
    row = op.result.get("info")
    return None if row is None else row[1]


def check_bucket(
    bucket: str,
    ops: Iterable[Op],
    initial: Iterable[Version] = (),
    began: float = START,
    told: Iterable[Told] = (),
    lead: float = 0.0,
    back: Iterable[Version] = (),
    returns: Iterable[Return] = (),
) -> list[Violation]:
    """See :class:`BucketCheck`; what watchers told of counts as read when it was told.

    A watcher may be late, so it is not stale; what it has told of is known from then on.
    """
    watched = [
        Op(
            f"{item.watcher}",
            "told",
            bucket,
            item.version.name,
            START,
            item.time,
            OK,
            result={"info": item.version.row()},
        )
        for item in told
        if item.bucket == bucket
    ]
    return BucketCheck(bucket, [*ops, *watched], initial, began, lead, back, returns).run()
