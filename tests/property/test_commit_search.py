"""The commit of a meta in every order of events: see support/commit_search.py.

Each case is looked at by chance, deep rather than complete. ``COMMIT_SEARCH=N`` looks at N states of each,
breadth first: at a few hundred thousand most cases are complete.
"""

from __future__ import annotations

import os
from dataclasses import replace
from itertools import product
from random import Random

import pytest

from objstore.commit.states import CommitStates, Standing, Step
from support.commit_search import Budget, Rules, Search

LIMIT = int(os.environ.get("COMMIT_SEARCH", "0"))
BY_CHANCE = 150

OPS = [
    ("put", "put"),
    ("put", "update"),
    ("put", "delete"),
    ("putif", "put"),
    ("putif", "update"),
    ("putif", "delete"),
    ("update", "delete"),
    ("delete", "delete"),
    ("delete-full",),
    ("put", "delete-full"),
    ("update", "delete-full"),
    ("put", "update", "delete"),
    ("guess", "put"),
    ("guess", "update"),
    ("guess", "delete"),
    ("guess", "delete-full"),
]
MISFORTUNES = {
    "crashes": Budget(drop=1, forget=1, crash=1, cancel=1),
    "a leader behind": Budget(stale=1, forget=1),
    "purges": Budget(purge=1, forget=1),
    "two leaders": Budget(deposed=1),
    "forged refusals": Budget(forged=1, purge=1),
}
SERVERS = {
    "replicated": Rules(),
    "replicated, revision first": Rules(revision_first=True),
    "single": Rules(replicated=False),
    "single, revision first": Rules(replicated=False, revision_first=True),
}


@pytest.mark.parametrize("ops", OPS, ids="-".join)
@pytest.mark.parametrize("misfortune", MISFORTUNES)
def test_nothing_goes_wrong(ops: tuple[str, ...], misfortune: str) -> None:
    for start, rules in product(("live", "marker", "empty"), SERVERS.values()):
        # A delete from a full bucket leaves nothing to tell a made up refusal by; nothing is lost.
        told_wrong = misfortune == "forged refusals" and "delete-full" in ops
        rules = rules._replace(two_leaders=told_wrong or misfortune == "two leaders")
        search = Search(ops, start, MISFORTUNES[misfortune], rules)
        found = search.run(LIMIT) if LIMIT else search.run(BY_CHANCE, Random(f"{ops}{start}"))
        assert found is None, "\n".join([found[0], f"start: {start}, {rules}", *found[1]])


# -- the search finds what it must --------------------------------------------------------------------------


class PurgesOnRefusal(CommitStates):
    """A refusal of a second copy is believed."""

    __slots__ = ()

    def lost(self) -> None:
        super().lost()
        self._lost = True

    def stands(self, standing: Standing, now: float, last_seq: int | None = None) -> None:
        if self._lost and standing.msg_id != self.msg_id:
            self._end(Step.CONFLICT, standing.revision)
        else:
            super().stands(standing, now, last_seq)


class CommitsAgain(CommitStates):
    """What was superseded is taken for a lost race, and committed once more."""

    __slots__ = ()

    def lost(self) -> None:
        super().lost()
        self._lost = True


class NeverDoubts(CommitStates):
    """Silence is taken for a failure."""

    __slots__ = ()

    def silent(self) -> None:
        self._end(Step.CONFLICT, 0)


class ForgetsItsId(CommitStates):
    """What stands is not looked at for the own id."""

    __slots__ = ()

    def stands(self, standing: Standing, now: float, last_seq: int | None = None) -> None:
        super().stands(replace(standing, msg_id=""), now, last_seq)


class BelievesDuplicates(CommitStates):
    """A duplicate from before the expected revision counts as a replacement of what is expected."""

    __slots__ = ()

    def acked(self, seq: int, duplicate: bool, now: float) -> None:
        self.removes = bool(self.replaced)
        self._end(Step.DONE, seq)


class BelievesRefusals(CommitStates):
    """A refusal counts as soon as something else stands, even if that is a change of ours."""

    __slots__ = ()

    def stands(self, standing: Standing, now: float, last_seq: int | None = None) -> None:
        if self._denied and standing.msg_id != self.msg_id and standing.revision > self.expected:
            self._end(Step.REFUSED, standing.revision)
        else:
            super().stands(standing, now, last_seq)


class ReplacesWhatIsNewer(CommitStates):
    """Any meta counts as older than the chunks."""

    __slots__ = ()

    def stands(self, standing: Standing, now: float, last_seq: int | None = None) -> None:
        after, self._after = self._after, 1_000_000
        super().stands(standing, now, last_seq)
        self._after = after


@pytest.mark.parametrize(
    ("machine", "ops", "start", "server", "misfortune", "fault"),
    [
        (PurgesOnRefusal, ("put",), "live", "replicated, revision first", Budget(), "LOSS"),
        (CommitsAgain, ("put", "put"), "empty", "single, revision first", Budget(forget=1), "TWICE"),
        (NeverDoubts, ("put",), "live", "single", Budget(), "LOSS"),
        (ForgetsItsId, ("putif", "update"), "empty", "single", Budget(deposed=1), "TWICE"),
        (BelievesDuplicates, ("put", "put"), "empty", "single", Budget(deposed=1), "LOSS"),
        (ReplacesWhatIsNewer, ("guess", "update"), "marker", "replicated", Budget(stale=1, forget=1), "LOSS"),
        (BelievesRefusals, ("put", "update"), "empty", "replicated", Budget(forged=1), "LOSS"),
    ],
)
def test_wrong_rules_are_found(
    machine: type[CommitStates], ops: tuple[str, ...], start: str, server: str, misfortune: Budget, fault: str
) -> None:
    found = Search(ops, start, misfortune, SERVERS[server]._replace(machine=machine)).run(20_000)
    assert found is not None
    assert found[0].startswith(fault)
