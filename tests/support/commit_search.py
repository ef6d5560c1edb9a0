"""Every order of events around one name: an exhaustive search that drives the real commit state machine.

The world is one stream and one meta subject, with roll-up, compare-and-set, de-duplication and proposals that
are accepted, applied or dropped; a network that loses, delays and reorders copies and loses answers; a leader
that is behind, a deposed one that refuses what the next one takes; servers that forget message ids; purges of
the meta subject; writers that crash or are cancelled. Chunks are a set of nuids: only whether they are there
matters. Time is a choice: whenever the machine asks how late it is, it may be late.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from random import Random
from typing import Any, NamedTuple

from objstore.commit.states import (
    ENDS,
    LOST_WAIT,
    AfterFull,
    CommitStates,
    Standing,
    Step,
    after_full,
    content_of,
)

LATE = 1e9
WAITED = LOST_WAIT + 1
COPIES = 2
"""So many copies a writer sends while nothing is decided; then it is late."""

TRIES = 2
"""So often a writer begins again."""

SLOTS = CommitStates.__slots__
PUTS = ("put", "putif", "guess")
ENDED = ("ok", "kept", "fail", "gone", "unknown", "crash")


class Info(NamedTuple):
    """What the machine looks at in a decoded meta."""

    nuid: str
    deleted: bool
    size: int = 1
    chunks: int = 1
    digest: str = ""
    options: None = None

    @property
    def metadata(self) -> dict[str, str]:
        return {}


def own_info(nuid: str) -> Any:
    """The meta of a put's own object."""
    return Info(nuid, False)


class Meta(NamedTuple):
    rev: int = 0
    kind: str = "-"  # L live, T delete marker, - none
    nuid: str = ""
    id: str = ""

    def standing(self, chunks_gone: bool = False) -> Standing:
        info: Any = Info(self.nuid, self.kind == "T") if self.rev else None
        return Standing(self.rev, self.id, info, chunks_gone)


class Copy(NamedTuple):
    writer: int
    attempt: int
    id: str
    expected: int
    kind: str
    nuid: str


class Writer(NamedTuple):
    op: str
    phase: str = "start"
    states: tuple[Any, ...] | None = None
    own: str = ""  # nuid of the chunks it uploaded
    old: Meta = Meta()  # V
    kind: str = "L"
    nuid: str = ""  # that its meta names
    after: int = 0  # the stream's last sequence before its chunks
    attempt: int = 0
    mail: tuple[Any, ...] | None = None
    tries: int = 0
    purged: int | None = 0
    full: bool = False


class Budget(NamedTuple):
    """How often each misfortune may still happen."""

    drop: int = 0  # proposals in flight are dropped
    forget: int = 0  # message ids are forgotten
    purge: int = 0  # a delete marker is purged
    stale: int = 0  # the leader asked is behind
    crash: int = 0
    cancel: int = 0
    deposed: int = 0  # a deposed leader refuses a copy that goes on to the new one
    forged: int = 0  # a peer makes up the refusal of a copy that a server has; it is settled within WAITED


class World(NamedTuple):
    seq: int
    meta: Meta
    prev: Meta
    chunks: frozenset[str]
    ids: frozenset[tuple[str, int]]
    proposals: tuple[Copy, ...]
    net: tuple[Copy, ...]
    writers: tuple[Writer, ...]
    budget: Budget
    landed: frozenset[tuple[int, str, int]]


class Rules(NamedTuple):
    """Which servers, and which of our rules hold; the defaults are ours."""

    replicated: bool = True
    revision_first: bool = False  # the order of the server's two checks
    young_markers_stay: bool = True  # purge_deleted leaves them while operations are under way
    two_leaders: bool = False  # a deposed leader is believed, too
    machine: type[CommitStates] = CommitStates


def freeze(states: CommitStates) -> tuple[Any, ...]:
    return tuple(getattr(states, slot) for slot in SLOTS)


def thaw(values: tuple[Any, ...], kind: type[CommitStates]) -> CommitStates:
    states = kind.__new__(kind)
    for slot, value in zip(SLOTS, values, strict=True):
        setattr(states, slot, value)
    return states


class Search:
    """Explores the world; :meth:`run` returns what went wrong with the way there, or ``None``."""

    def __init__(self, ops: tuple[str, ...], start: str, budget: Budget, rules: Rules) -> None:
        meta = {"live": Meta(1, "L", "X", "x"), "marker": Meta(1, "T", "X", "x"), "empty": Meta()}[start]
        chunks = frozenset({"X"} if start == "live" else ())
        ids = frozenset({("x", 1)} if meta.rev else ())
        writers = tuple(Writer(op) for op in ops)
        self.rules = rules
        self.first = World(meta.rev, meta, meta, chunks, ids, (), (), writers, budget, frozenset())
        self.states = 0

    # -- what must hold ---------------------------------------------------------------------------

    def wrong(self, world: World) -> str | None:
        meta = world.meta
        # A delete from a full bucket may meet a late copy of what it deletes: it deletes it again.
        again = any(w.full and w.phase not in ENDED and w.old.nuid == meta.nuid for w in world.writers)
        if meta.kind == "L" and meta.nuid not in world.chunks and not again:
            return f"LOSS: the live meta {meta} has no chunks"
        if self.rules.two_leaders:
            return None  # nothing is lost then, but a conflict may be told that was none
        purges = any(writer.op == "delete-full" for writer in world.writers)
        for number, writer in enumerate(world.writers):
            mine = [each for each in world.landed if each[0] == number]
            if writer.phase == "fail" and mine:
                return f"FALSE FAILURE of {number}: its meta is committed"
            if writer.phase in ("ok", "kept") and not mine and not writer.full:
                return f"FALSE SUCCESS of {number}: its meta never was committed"
            if len({each[1] for each in mine}) > 1:
                return f"TWICE: {number} committed under two ids"
            # A put that is still under way may be deleted and land again: as if it had come later.
            if len(mine) > 1 and writer.phase in ENDED and not purges:
                return f"TWICE: {number} committed one message two times"
        if (
            not world.net
            and not world.proposals
            and all(w.phase in ("ok", "fail", "gone") for w in world.writers)
        ):
            needed = {meta.nuid} if meta.kind == "L" else set()
            if world.chunks - needed:
                return f"LEAK: {sorted(world.chunks - needed)} though every call ended for certain"
        return None

    # -- the server -------------------------------------------------------------------------------

    def answer(self, world: World, copy: Copy, mail: tuple[Any, ...]) -> World:
        writer = world.writers[copy.writer]
        waiting = writer.states is not None and thaw(writer.states, self.rules.machine).step is Step.WAIT
        if not waiting or writer.attempt != copy.attempt or writer.mail is not None:
            return world
        return put(world, copy.writer, writer._replace(mail=mail))

    def arrive(self, world: World, copy: Copy) -> World:
        known = next((seq for id_, seq in world.ids if id_ == copy.id), None)
        if known is None and any(each.id == copy.id for each in world.proposals):
            known = 0
        duplicate = None if known is None else ("duplicate", known) if known else ("busy",)
        conflict = world.meta.rev != copy.expected or bool(world.proposals)
        if conflict and (duplicate is None or self.rules.revision_first):
            return self.answer(world, copy, ("lost",))
        if duplicate is not None:
            return self.answer(world, copy, duplicate)
        world = world._replace(proposals=(*world.proposals, copy))
        return world if self.rules.replicated else self.apply(world)

    def apply(self, world: World) -> World:
        copy, seq = world.proposals[0], world.seq + 1
        world = world._replace(
            seq=seq,
            prev=world.meta,
            meta=Meta(seq, copy.kind, copy.nuid, copy.id),
            ids=world.ids | {(copy.id, seq)},
            proposals=world.proposals[1:],
            landed=world.landed | {(copy.writer, copy.id, seq)},
        )
        return self.answer(world, copy, ("ack", seq))

    def misfortunes(self, world: World) -> Iterator[tuple[str, World]]:
        budget = world.budget
        for index, copy in enumerate(world.net):
            rest = world._replace(net=world.net[:index] + world.net[index + 1 :])
            yield f"{copy} arrives", self.arrive(rest, copy)
            yield f"{copy} is lost", rest
            if budget.deposed:
                spent = world._replace(budget=budget._replace(deposed=budget.deposed - 1))
                yield f"a deposed leader refuses {copy}, which goes on", self.answer(spent, copy, ("lost",))
        if world.proposals:
            yield f"{world.proposals[0]} is applied", self.apply(world)
            if budget.drop:
                spent = world._replace(budget=budget._replace(drop=budget.drop - 1), proposals=())
                yield "a new leader drops the proposals", spent
        if budget.forget and world.ids:
            spent = world._replace(budget=budget._replace(forget=budget.forget - 1))
            yield "ids are forgotten", spent._replace(ids=frozenset())
        under_way = (
            world.net
            or world.proposals
            or any(writer.phase not in (*ENDED, "start") for writer in world.writers)
        )
        if budget.purge and world.meta.kind == "T" and not (self.rules.young_markers_stay and under_way):
            spent = world._replace(budget=budget._replace(purge=budget.purge - 1))
            yield "the marker is purged", spent._replace(meta=Meta(), prev=world.meta)

    # -- the writers ------------------------------------------------------------------------------

    def reads(self, world: World) -> Iterator[tuple[str, Meta, int, World]]:
        yield "", world.meta, world.seq, world
        if world.budget.stale and world.prev != world.meta:
            spent = world._replace(budget=world.budget._replace(stale=world.budget.stale - 1))
            yield " of a leader that is behind", world.prev, world.prev.rev, spent

    def steps(self, world: World, number: int) -> Iterator[tuple[str, World]]:
        writer = world.writers[number]
        if writer.phase in ENDED:
            return
        if writer.phase == "start" and writer.op == "guess":
            yield "guesses that there is nothing", self.begin(world, number, Meta())
            return
        if writer.phase == "start":
            for what, meta, _, after in self.reads(world):
                yield f"reads {meta}{what}", self.begin(after, number, meta)
            return
        # Twice full, and the ids forgotten, and a crash: what then lands late stays without chunks.
        if world.budget.crash and writer.purged != -1:
            spent = world._replace(budget=world.budget._replace(crash=world.budget.crash - 1))
            yield "crashes", put(spent, number, writer._replace(phase="crash"))
        if writer.phase == "free":
            if world.proposals:
                return  # purges are ordered with the proposals
            hit = 0 < world.meta.rev <= writer.old.rev
            after = world._replace(meta=Meta(), prev=world.meta) if hit else world
            for purged in (int(hit), None):
                done = writer._replace(
                    phase="run", purged=purged, states=freeze(self.machine(writer, number, 0, ""))
                )
                yield f"purges the meta subject: {purged}", put(after, number, done)
            return
        assert writer.states is not None
        states = thaw(writer.states, self.rules.machine)
        if world.budget.cancel and not writer.full and states.step in (Step.WAIT, Step.READ, Step.SEND):
            spent = world._replace(budget=world.budget._replace(cancel=world.budget.cancel - 1))
            hurried = thaw(writer.states, self.rules.machine)
            hurried.hurry(0.0, 5.0)
            if not hurried.copies:
                yield "is cancelled before it sent anything", self.end(spent, number, hurried, certain=True)
            else:
                yield "is cancelled", self.go_on(spent, number, hurried)
        yield from self.act(world, number, states)

    def machine(self, writer: Writer, number: int, expected: int, replaced: str) -> CommitStates:
        return self.rules.machine(
            f"i{number}.{writer.tries}" if writer.op not in PUTS else f"i{number}",
            expected=expected,
            replaced=replaced,
            content=content_of(own_info(writer.own)) if writer.own else None,
            after=writer.after,
            last_writer_wins=writer.op in ("put", "guess"),
            replicated=self.rules.replicated,
        )

    def begin(self, world: World, number: int, meta: Meta) -> World:
        writer = world.writers[number]
        live = meta.kind == "L"
        if writer.op in PUTS:
            own = f"N{number}"
            writer = writer._replace(own=own, nuid=own, old=meta, after=world.seq)
            world = world._replace(chunks=world.chunks | {own})
            replaced = meta.nuid if live else ""
        elif not live:
            # Begun again after a look at a leader that was behind, it may leave chunks to gc.
            phase = "kept" if writer.full and writer.tries else "gone"
            return put(world, number, writer._replace(phase=phase, states=None))
        elif writer.op == "update":
            writer, replaced = writer._replace(nuid=meta.nuid, old=meta), ""
        else:
            writer, replaced = writer._replace(kind="T", old=meta, nuid=meta.nuid), meta.nuid
        if writer.op == "delete-full":
            return put(world, number, writer._replace(phase="free", full=True))
        states = self.machine(writer, number, meta.rev, replaced)
        return put(world, number, writer._replace(phase="run", states=freeze(states)))

    def act(self, world: World, number: int, states: CommitStates) -> Iterator[tuple[str, World]]:
        writer = world.writers[number]
        step = states.step
        if step is Step.SEND:
            states.attempt(0.0)
            states.sent()
            attempt = writer.attempt + 1
            copy = Copy(number, attempt, states.msg_id, states.expected, writer.kind, writer.nuid)
            world = world._replace(net=tuple(sorted((*world.net, copy))))
            sent = writer._replace(attempt=attempt, mail=None, states=freeze(states))
            yield f"sends copy {states.copies} expecting {states.expected}", put(world, number, sent)
        elif step is Step.WAIT:
            yield (
                "hears nothing",
                self.go_on(world, number, apply_to(states, self.rules, lambda s: s.silent())),
            )
            if (
                world.budget.forged
                and (self.rules.replicated or writer.own)
                and not any(copy.writer == number for copy in world.net)
            ):  # Peers see a copy when a server has it; a single one has answered by then.
                denied = apply_to(states, self.rules, lambda machine: machine.refused(unforgeable=False))
                spent = world._replace(budget=world.budget._replace(forged=world.budget.forged - 1))
                yield "hears a forged refusal", self.go_on(spent, number, denied)
            if writer.full and writer.purged != -1:
                denied = apply_to(states, self.rules, lambda machine: machine.refused(unforgeable=False))
                lost = world._replace(
                    net=tuple(c for c in world.net if (c.writer, c.attempt) != (number, writer.attempt))
                )
                if lost.net != world.net:
                    yield "is told that it is full", self.go_on(lost, number, denied)
            mail = writer.mail
            if mail is not None:
                yield f"hears {mail}", self.go_on(world, number, apply_to(states, self.rules, heard(mail)))
        elif step is Step.REPLACE:
            standing = states.standing or Standing()
            if writer.tries < TRIES:
                states.replace(standing.nuid)
                again = writer._replace(tries=writer.tries + 1)
                yield "replaces it", self.go_on(put(world, number, again), number, states)
            else:
                states.concede()
                yield "gives up", self.go_on(world, number, states)
        else:
            for what, meta, last, after in self.reads(world):
                # Copies that expect nothing lie within 20 s: later than that none of them is on its way.
                others = any(each.writer != number for each in (*world.net, *world.proposals)) or any(
                    other.phase not in ENDED for other in world.writers if other is not writer
                )
                soon = states._denied and self.under_way(world, number)
                times = (0.0, WAITED) if (states._lost or states._denied) and not soon else (0.0,)
                for now in times if soon or (writer.full and others) else (*times, LATE):
                    told = last if step is Step.READ_WITH_LAST else None
                    chunks_gone = not (meta.rev or states.expected) and bool(writer.own)
                    stands = meta.standing(chunks_gone and writer.own not in world.chunks)
                    looked = apply_to(
                        states, self.rules, lambda s, m=stands, n=now, t=told: s.stands(m, n, t)
                    )
                    if looked.step is Step.SEND and looked.copies >= COPIES:
                        continue
                    late = ", late" if now else ""
                    yield f"reads {meta}{what}{late}: {looked.step.name}", self.go_on(after, number, looked)

    @staticmethod
    def under_way(world: World, number: int) -> bool:
        return any(copy.writer == number for copy in (*world.net, *world.proposals))

    def go_on(self, world: World, number: int, states: CommitStates) -> World:
        if states.step in ENDS:
            return self.end(world, number, states, certain=states.certain)
        return put(world, number, world.writers[number]._replace(states=freeze(states), mail=None))

    def end(self, world: World, number: int, states: CommitStates, *, certain: bool) -> World:
        writer = world.writers[number]._replace(states=freeze(states), mail=None)
        if writer.full:
            return self.settle_full(put(world, number, writer), number, states)
        chunks = world.chunks
        phase = "unknown"
        if states.step is Step.DONE:
            phase = "ok"
            if states.removes:
                chunks -= {states.replaced}
            elif states.replaced:
                phase = "kept"
        elif states.step is Step.KEPT:
            phase = "kept"
        elif certain:
            phase = "fail"
            if writer.op in ("update", "delete") and states.step is Step.CONFLICT and writer.tries < TRIES:
                return put(world, number, Writer(writer.op, tries=writer.tries + 1, attempt=writer.attempt))
            chunks -= {writer.own}
        return put(world._replace(chunks=chunks), number, writer._replace(phase=phase))

    def settle_full(self, world: World, number: int, states: CommitStates) -> World:
        writer = world.writers[number]
        if writer.purged == -1:  # the marker's second try
            standing = states.standing or Standing()
            if states.step in (Step.CONFLICT, Step.UNKNOWN) and standing.nuid == writer.old.nuid:
                return put(world, number, Writer("delete", attempt=writer.attempt, full=True, old=writer.old))
            return put(world, number, writer._replace(phase="gone"))
        standing = states.standing or Standing()
        outcome = after_full(writer.old.nuid, writer.purged, states.step, standing)
        if outcome is AfterFull.GONE:
            world = world._replace(chunks=world.chunks - {writer.old.nuid})
            if states.step is not Step.REFUSED:
                return put(world, number, writer._replace(phase="gone"))
            again = freeze(self.machine(writer._replace(tries=writer.tries + 1), number, 0, ""))
            return put(world, number, writer._replace(purged=-1, states=again))
        if outcome in (AfterFull.AGAIN, AfterFull.STORED_AGAIN) and writer.tries < TRIES:
            return put(
                world, number, Writer(writer.op, tries=writer.tries + 1, attempt=writer.attempt, full=True)
            )
        return put(world, number, writer._replace(phase="unknown"))

    # -- the search -------------------------------------------------------------------------------

    def run(self, limit: int, chance: Random | None = None) -> tuple[str, list[str]] | None:
        """Look at up to ``limit`` states, breadth first, or as ``chance`` has it: far sooner deep.

        Returns what is wrong, and the events that lead there. The attribute ``states`` says how many states
        were seen, ``complete`` whether these are all.
        """
        came: dict[World, tuple[World, str] | None] = {self.first: None}
        queue = deque([self.first])
        while queue and len(came) < limit:
            if chance is not None:
                queue.rotate(-chance.randrange(min(len(queue), 8)))
                world = queue.pop()
            else:
                world = queue.popleft()
            moves = list(self.misfortunes(world))
            open_writers = [n for n, writer in enumerate(world.writers) if writer.phase not in ENDED]
            able = False
            for number in open_writers:
                for what, after in self.steps(world, number):
                    able = True
                    moves.append((f"{number} ({world.writers[number].op}) {what}", after))
            if open_writers and not able and not world.proposals and not world.net:
                return "STUCK: a writer has nothing it can do", self.way(came, world)
            for what, after in moves:
                if after in came:
                    continue
                came[after] = (world, what)
                fault = self.wrong(after)
                if fault is not None:
                    self.states = len(came)
                    return fault, self.way(came, after)
                queue.append(after)
        self.states = len(came)
        self.complete = not queue
        return None

    def way(self, came: dict[World, tuple[World, str] | None], world: World) -> list[str]:
        events = []
        step = came[world]
        while step is not None:
            events.append(step[1])
            step = came[step[0]]
        return events[::-1]


def put(world: World, number: int, writer: Writer) -> World:
    return world._replace(writers=(*world.writers[:number], writer, *world.writers[number + 1 :]))


def apply_to(states: CommitStates, rules: Rules, event: Callable[[CommitStates], None]) -> CommitStates:
    """A copy of the machine after an event."""
    copy = thaw(freeze(states), rules.machine)
    event(copy)
    return copy


def heard(mail: tuple[Any, ...]) -> Callable[[CommitStates], None]:
    """The event a server's answer is."""

    def event(states: CommitStates) -> None:
        if mail[0] == "lost":
            states.lost()
        elif mail[0] == "busy":
            states.silent()
        else:
            states.acked(mail[1], mail[0] == "duplicate", 0.0)

    return event
