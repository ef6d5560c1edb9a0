"""Every row of the table in objstore/commit/states.py: each event in each state, and what follows."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from objstore.commit.states import (
    ENDS,
    LOST_WAIT,
    ZERO_WINDOW,
    AfterFull,
    CommitStates,
    Standing,
    Step,
    after_full,
)
from objstore.format.marks import MOVED
from objstore.format.naming import new_nuid

ID, OWN, V = "id", "OWN", "V"
EXPECTED, AFTER, OURS = 5, 9, 11
NOW, BUDGET = 100.0, 50.0
CONTENT = (OWN, 3, 1, "d", None)
LATE = NOW + BUDGET + 1


def standing(
    revision: int, msg_id: str = "", nuid: str = "", *, deleted: bool = False, size: int = 3
) -> Standing:
    info: Any = SimpleNamespace(
        nuid=nuid, deleted=deleted, size=size, chunks=1, digest="d", options=None, metadata={}
    )
    return Standing(revision, msg_id, info if nuid else None)


STANDING_V = standing(EXPECTED, "v", V)
ANOTHER = standing(12, "other", "OTHER")
NOTHING = Standing()


def fresh(**kwargs: Any) -> CommitStates:
    """A put that replaces V, its chunks sent."""
    options = {"expected": EXPECTED, "replaced": V, "content": CONTENT, "after": AFTER, "budget": BUDGET}
    return CommitStates(ID, **{**options, **kwargs})


def send(states: CommitStates, now: float = NOW) -> CommitStates:
    assert states.step is Step.SEND
    states.attempt(now)
    states.sent()
    assert states.step is Step.WAIT
    return states


def sent(copies: int = 1, **kwargs: Any) -> CommitStates:
    """WAIT for the answer to the last of so many copies."""
    states = send(fresh(**kwargs))
    for _ in range(copies - 1):
        states.silent()
        states.stands(standing(states.expected, "v", V if states.expected else ""), NOW)
        send(states)
    assert states.copies == copies
    return states


def lost(**kwargs: Any) -> CommitStates:
    states = sent(**kwargs)
    states.lost()
    return states


def silent(**kwargs: Any) -> CommitStates:
    states = sent(**kwargs)
    states.silent()
    return states


def denied(**kwargs: Any) -> CommitStates:
    states = sent(**kwargs)
    states.refused(unforgeable=False)
    return states


def landed(**kwargs: Any) -> CommitStates:
    states = sent(**kwargs)
    states.acked(OURS, False, NOW)
    return states


OPEN = {"LOST": lost, "AMBIGUOUS": silent, "a second copy lost": lambda **kw: lost(copies=2, **kw)}
Make = Callable[..., CommitStates]
open_states = pytest.mark.parametrize("make", OPEN.values(), ids=OPEN)


def waited(states: CommitStates, there: Standing, until: float = NOW + LOST_WAIT) -> None:
    """Who was in the way of a lost copy is waited for."""
    if states._lost:
        states.stands(there, until - LOST_WAIT)
        assert (states.step, states.again) == (Step.READ, True)
    states.stands(there, until)


def test_a_lost_race_is_told_when_the_winner_is_there() -> None:
    """With replicas it may still be under way: another copy would only make the outcome doubtful."""
    for winner, step in ((ANOTHER, Step.CONFLICT), (standing(OURS, ID, OWN), Step.DONE)):
        states = lost()
        for pause in (0, 0.5, 1.9):
            states.stands(STANDING_V, NOW + pause)
            assert (states.step, states.again) == (Step.READ, True)
        states.stands(winner, NOW + 1.95)
        assert states.step is step


# -- SEND, WAIT ---------------------------------------------------------------------------------------------


def test_one_more_copy() -> None:
    states = fresh()
    assert states.certain, "no copy was sent"
    send(states)
    assert states.copies == 1
    assert not states.certain


def test_acknowledged_after_what_is_replaced_and_after_the_chunks() -> None:
    states = sent(replaced="")
    states.acked(OURS, False, NOW)
    assert (states.step, states.revision, states.removes) == (Step.DONE, OURS, False)


@pytest.mark.parametrize(
    ("there", "step"),
    [
        (standing(OURS, ID, OWN), Step.DONE),
        (standing(OURS + 3, "other", "OTHER"), Step.DONE),  # it has replaced ours
        (standing(OURS + 3, "other", ""), Step.DONE),  # or deleted it
        (standing(EXPECTED, "v", ""), Step.READ),  # nothing was stored there: it is another message's
    ],
)
def test_a_duplicate_is_looked_at(there: Standing, step: Step) -> None:
    """Others may store a message with our id; the server takes ours for the same one then."""
    states = sent(replaced="")
    states.acked(OURS, True, NOW)
    assert states.step is Step.READ
    states.stands(there, NOW)
    assert (states.step, states.removes) == (step, False)


def test_acknowledged_with_something_to_remove_is_proven_first() -> None:
    states = landed()
    assert states.step is Step.READ
    assert not states.removes


@pytest.mark.parametrize(
    ("seq", "after"), [(AFTER, AFTER), (EXPECTED, 0), (EXPECTED + 1, AFTER), (0, 0), (-3, 0)]
)
def test_a_sequence_that_cannot_be_proves_nothing(seq: int, after: int) -> None:
    states = sent(replaced="", after=after)
    states.acked(seq, False, NOW)
    assert states.step is Step.READ


def test_a_duplicate_from_before_what_is_expected() -> None:
    """It may be that of another's message, too: the leader decides."""
    states = sent(after=0)
    states.acked(EXPECTED - 1, True, NOW)
    assert states.step is Step.READ


@pytest.mark.parametrize("seq", [0, -1, 2, AFTER])
def test_a_duplicate_from_before_its_own_chunks_proves_nothing(seq: int) -> None:
    states = sent(expected=20)
    states.acked(seq, True, NOW)
    assert states.step is Step.READ


def test_not_allowed_and_only_copy() -> None:
    states = sent()
    states.refused(unforgeable=True)
    assert (states.step, states.certain) == (Step.REFUSED, True)


@pytest.mark.parametrize("unforgeable", [True, False])
def test_a_refusal_of_a_second_copy_says_nothing_of_the_first(unforgeable: bool) -> None:
    states = sent(copies=2)
    states.refused(unforgeable=unforgeable)
    assert states.step is Step.READ
    states.stands(ANOTHER, NOW)
    assert (states.step, states.certain) == (Step.UNKNOWN, False)


# -- LOST, AMBIGUOUS ----------------------------------------------------------------------------------------


@open_states
def test_our_id_stands(make: Make) -> None:
    states = make()
    states.stands(standing(OURS, ID, OWN), NOW)
    assert (states.step, states.revision, states.removes) == (Step.DONE, OURS, True)


@open_states
def test_our_nuid_stands(make: Make) -> None:
    """Somebody has updated ours: it is committed, and what that replaced is not known."""
    states = make()
    states.stands(standing(OURS + 1, "other", OWN), NOW)
    assert (states.step, states.removes, states.certain) == (Step.KEPT, False, False)


@open_states
def test_without_chunks_of_its_own_no_nuid_is_ours(make: Make) -> None:
    states = make(content=None)
    states.stands(standing(12, "other", ""), NOW, 12)
    assert states.step in (Step.CONFLICT, Step.UNKNOWN)


@open_states
@pytest.mark.parametrize("forged", [standing(OURS + 1, "x", OWN, size=0), standing(AFTER, "x", OWN)])
def test_what_names_our_chunks_is_not_ours(make: Make, forged: Standing) -> None:
    """An update of ours says the same of the bytes, and comes after them. A nuid can be named by anybody."""
    states = make()
    states.stands(forged, NOW, OURS)
    assert states.step is (Step.CONFLICT if states._lost else Step.UNKNOWN)


@open_states
@pytest.mark.parametrize("expected", [EXPECTED, 0])
def test_the_expected_revision_stands(make: Make, expected: int) -> None:
    states = make(expected=expected, replaced="", after=0)
    there = STANDING_V if expected else NOTHING
    waited(states, there)
    assert (states.step, states.again, states.certain) == (Step.SEND, True, False)
    states = make(expected=expected, replaced="", after=0)
    states.stands(there, LATE)
    assert (states.step, states.certain) == (Step.UNKNOWN, False)


@open_states
def test_expecting_nothing_copies_are_close(make: Make) -> None:
    for late, step in ((ZERO_WINDOW, Step.SEND), (ZERO_WINDOW + 1, Step.UNKNOWN)):
        states = make(expected=0, replaced="", after=0)
        waited(states, NOTHING, NOW + late)
        assert states.step is step
    states = make()
    waited(states, STANDING_V, NOW + ZERO_WINDOW + 1)
    assert states.step is Step.SEND, "only those that expect nothing"


@open_states
def test_whoever_removed_the_chunks_has_seen_the_meta(make: Make) -> None:
    """A full bucket has no room for the marker of a delete, and a server that was killed forgets ids."""
    states = make(expected=0, replaced="")
    states.stands(Standing(chunks_gone=True), NOW)
    assert (states.step, states.certain) == (Step.UNKNOWN, False)


@open_states
@pytest.mark.parametrize("there", [standing(EXPECTED - 1, "older", "OLDER"), NOTHING])
def test_a_leader_that_is_behind(make: Make, there: Standing) -> None:
    states = make()
    states.stands(there, NOW)
    assert (states.step, states.again) == (Step.READ_WITH_LAST, False)
    states.stands(there, NOW, EXPECTED - 1)
    assert (states.step, states.again) == (Step.READ_WITH_LAST, True)
    states.stands(there, LATE, EXPECTED - 1)
    assert (states.step, states.certain) == (Step.UNKNOWN, False)


@open_states
def test_a_leader_that_is_not_behind(make: Make) -> None:
    """The subject was purged: what stands is none any more."""
    states = make()
    states.stands(NOTHING, NOW)
    states.stands(NOTHING, NOW, EXPECTED)
    assert states.step is (Step.CONFLICT if make is lost else Step.UNKNOWN)


def test_lost_and_the_last_writer_wins() -> None:
    states = lost(last_writer_wins=True)
    states.stands(ANOTHER, NOW)
    assert (states.step, states.revision) == (Step.REPLACE, 12)
    assert states.certain, "ours does not stand"
    states.replace("OTHER")
    assert (states.step, states.msg_id, states._content) == (Step.SEND, ID, CONTENT)
    assert (states.expected, states.replaced, states.copies) == (12, "OTHER", 0)
    send(states)
    states.lost()
    states.stands(standing(13, "third", "THIRD"), NOW)
    assert states.step is Step.REPLACE, "it is the only copy with this revision"
    states.concede()
    assert (states.step, states.certain) == (Step.CONFLICT, True)


def test_lost_with_a_condition() -> None:
    states = lost()
    states.stands(ANOTHER, NOW)
    assert (states.step, states.revision, states.certain) == (Step.CONFLICT, 12, True)


@pytest.mark.parametrize("last_writer_wins", [True, False])
@pytest.mark.parametrize("make", [silent, OPEN["a second copy lost"]])
def test_ambiguous_and_another_stands(make: Make, last_writer_wins: bool) -> None:
    """Never a conflict, never once more: ours may have been there, or may still come."""
    states = make(last_writer_wins=last_writer_wins)
    states.stands(ANOTHER, NOW)
    assert (states.step, states.certain, states.removes) == (Step.UNKNOWN, False, False)


AMBIGUOUS = pytest.mark.parametrize(
    "make", [silent, lambda **kw: lost(copies=2, **kw)], ids=["silence", "a second copy lost"]
)
OLDER = standing(AFTER - 1, "older", "OLDER")


@AMBIGUOUS
def test_ambiguous_and_what_stands_is_older_than_our_chunks(make: Make) -> None:
    """Ours would have removed it: it was not stored. A copy may still be on its way."""
    states = make(last_writer_wins=True, expected=0, replaced="")
    states.stands(OLDER, NOW)
    assert (states.step, states.revision, states.certain) == (Step.REPLACE, AFTER - 1, False)
    left = states.left(NOW)
    copies = states.copies
    states.replace("OLDER")
    assert (states.step, states.expected, states.replaced) == (Step.SEND, AFTER - 1, "OLDER")
    assert (states.copies, states.certain, states.left(NOW)) == (copies, False, left), "no time is won"
    send(states)
    states.lost()
    states.stands(ANOTHER, NOW)
    assert (states.step, states.certain) == (Step.UNKNOWN, False), "an earlier copy may have been replaced"


@AMBIGUOUS
@pytest.mark.parametrize(
    ("options", "there", "now"),
    [
        ({"last_writer_wins": False}, OLDER, NOW),
        ({"last_writer_wins": True}, standing(AFTER + 1, "newer", "NEWER"), NOW),
        ({"last_writer_wins": True}, OLDER, LATE),
        ({"last_writer_wins": True, "after": 0}, OLDER, NOW),
    ],
    ids=["a condition", "newer", "late", "no chunks"],
)
def test_ambiguous_and_ours_may_have_been_stored(
    make: Make, options: dict[str, Any], there: Standing, now: float
) -> None:
    states = make(**options)
    states.stands(there, now)
    assert (states.step, states.certain) == (Step.UNKNOWN, False)


@pytest.mark.parametrize("end", [CommitStates.concede, lambda states: states.hurry(NOW, 5.0)])
def test_ambiguous_and_what_is_older_is_not_replaced(end: Callable[[CommitStates], None]) -> None:
    states = silent(last_writer_wins=True)
    states.stands(OLDER, NOW)
    end(states)
    assert (states.step, states.certain) == (Step.UNKNOWN, False)


def test_another_name_of_the_batch_was_changed() -> None:
    states = lost()
    states.batch_name_changed()
    assert (states.step, states.certain) == (Step.CONFLICT, True)
    states = silent()
    states.batch_name_changed()
    assert (states.step, states.certain) == (Step.UNKNOWN, False)


def test_lost_is_forgotten_with_the_next_copy() -> None:
    states = lost()
    waited(states, STANDING_V)
    send(states)
    states.silent()
    states.stands(ANOTHER, NOW)
    assert states.step is Step.UNKNOWN


@open_states
def test_the_leader_cannot_be_asked(make: Make) -> None:
    states = make()
    states.unreadable(NOW)
    assert (states.step, states.again) == (Step.READ, True)
    states.unreadable(LATE)
    assert (states.step, states.certain) == (Step.UNKNOWN, False)


# -- DENIED -------------------------------------------------------------------------------------------------


def test_denied_although_ours_stands() -> None:
    states = denied()
    assert states.step is Step.READ, "an answer can be made up"
    states.stands(standing(OURS, ID, OWN), NOW)
    assert (states.step, states.removes) == (Step.DONE, True)


@pytest.mark.parametrize("there", [STANDING_V, NOTHING])
def test_denied_and_ours_may_be_on_its_way(there: Standing) -> None:
    """A refusal can be made up, and with replicas the commit is stored a moment later."""
    states = denied()
    states.stands(there, NOW)
    assert (states.step, states.again, states.certain) == (Step.READ, True, False)
    states.stands(standing(OURS, ID, OWN), NOW + 0.1)
    assert (states.step, states.removes) == (Step.DONE, True)
    states = denied()
    states.stands(there, NOW)
    states.stands(there, NOW + LOST_WAIT)
    certain = there is STANDING_V  # else ours may have been stored, renamed and purged since
    assert states.step is (Step.REFUSED if certain else Step.UNKNOWN)
    assert (states.certain, states.removes) == (certain, False)


@pytest.mark.parametrize("make", [denied, lost, silent])
def test_refused_and_somebody_has_changed_ours(make: Make) -> None:
    """A refusal can be made up, and whoever watches the bucket changes an object as soon as it is there."""
    states = make()
    states.stands(standing(12, "theirs", OWN), NOW)
    assert (states.step, states.certain, states.removes) == (Step.KEPT, False, False)


@pytest.mark.parametrize("make", [denied, lost, silent])
def test_refused_and_somebody_has_renamed_ours(make: Make) -> None:
    """The chunks belong to the new name."""
    nuid = new_nuid("n")
    marker: Any = SimpleNamespace(nuid="", deleted=True, name="n", metadata={MOVED: nuid}, options=None)
    states = make(content=(nuid, *CONTENT[1:]))
    states.stands(Standing(12, "theirs", marker), NOW)
    assert (states.step, states.certain, states.removes) == (Step.UNKNOWN, False, False)


@pytest.mark.parametrize("replicated", [False, True])
@pytest.mark.parametrize("content", [None, CONTENT], ids=["update", "put"])
def test_denied_and_another_stands(content: Any, replicated: bool) -> None:
    """It may have replaced ours as well as V."""
    states = denied(content=content, replicated=replicated)
    states.stands(ANOTHER, NOW)
    certain = content is None and not replicated
    assert states.step is (Step.REFUSED if certain else Step.UNKNOWN)
    assert (states.certain, states.removes) == (certain, False)


def test_denied_and_nobody_may_look() -> None:
    states = denied()
    states.give_up()
    assert (states.step, states.certain) == (Step.UNKNOWN, False)


def test_denied_where_nothing_would_be_removed() -> None:
    """A delete marker in a full bucket is refused again and again: nobody waits for it."""
    states = denied(content=None)
    states.stands(STANDING_V, NOW)
    assert (states.step, states.certain) == (Step.REFUSED, True)


def test_denied_in_a_replicated_stream() -> None:
    """A rename, an update or a delete may be on its way as well as a put."""
    states = denied(content=None, replicated=True)
    states.stands(STANDING_V, NOW)
    assert states.step is Step.READ
    states.stands(standing(OURS, ID, OWN), NOW + 0.1)
    assert states.step is Step.DONE


# -- LANDED -------------------------------------------------------------------------------------------------


def test_landed_and_ours_stands() -> None:
    states = landed()
    states.stands(standing(OURS, ID, OWN), NOW)
    assert (states.step, states.revision, states.removes) == (Step.DONE, OURS, True)


@pytest.mark.parametrize(
    ("there", "step"),
    [
        (standing(OURS, ID, OWN), Step.DONE),
        (ANOTHER, Step.DONE),
        (STANDING_V, Step.READ),
        (NOTHING, Step.UNKNOWN),
        (standing(OURS - 1, "other", "OTHER"), Step.UNKNOWN),
    ],
)
def test_an_acknowledgement_that_has_to_be_proven(there: Standing, step: Step) -> None:
    """A rename removes the old name because the new one is committed: that may be made up."""
    states = landed(replaced="", proven=True)
    assert states.step is Step.READ
    states.stands(there, NOW)
    assert (states.step, states.removes) == (step, False)


def test_landed_and_one_that_replaced_ours_stands() -> None:
    states = landed()
    states.stands(ANOTHER, NOW)
    assert (states.step, states.revision, states.removes) == (Step.DONE, OURS, True)


def test_landed_and_what_stands_names_the_chunks_that_were_replaced() -> None:
    """They are needed: somebody has put that meta back."""
    states = landed()
    states.stands(standing(12, "other", V), NOW)
    assert (states.step, states.removes) == (Step.UNKNOWN, False)


def test_landed_and_v_still_stands() -> None:
    states = landed()
    states.stands(STANDING_V, NOW)
    assert (states.step, states.again) == (Step.READ, True)
    states.stands(STANDING_V, LATE)
    assert (states.step, states.certain, states.removes) == (Step.UNKNOWN, False, False)


@pytest.mark.parametrize("there", [standing(EXPECTED - 1, "older", "OLDER"), NOTHING])
def test_landed_and_an_older_one_stands(there: Standing) -> None:
    states = landed()
    states.stands(there, NOW)
    assert (states.step, states.removes) == (Step.DONE, False)


def test_landed_and_an_older_one_than_the_acknowledgement_stands() -> None:
    states = landed()
    states.stands(standing(OURS - 1, "other", "OTHER"), NOW)
    assert (states.step, states.certain, states.removes) == (Step.UNKNOWN, False, False)


# -- the ends -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "step", "certain"),
    [
        (fresh, Step.REFUSED, True),
        (denied, Step.UNKNOWN, False),
        (silent, Step.UNKNOWN, False),
        (lost, Step.UNKNOWN, False),
        (landed, Step.UNKNOWN, False),
    ],
)
def test_given_up(make: Make, step: Step, certain: bool) -> None:
    states = make()
    states.give_up()
    assert (states.step, states.certain) == (step, certain)
    assert states.step in ENDS


def test_a_copy_that_never_left_does_not_count() -> None:
    states = sent()
    states.unsent(NOW)
    assert (states.step, states.copies, states.certain) == (Step.SEND, 0, True)
    send(states)
    states.unsent(LATE)
    assert (states.step, states.certain) == (Step.REFUSED, True)


def test_cancelled() -> None:
    """The outcome is looked for as long as the grace lasts, and nothing new is begun."""
    states = sent(last_writer_wins=True)
    states.hurry(NOW, 5.0)
    assert (states.step, states.left(NOW)) == (Step.READ, 5.0)
    states.stands(ANOTHER, NOW)
    assert (states.step, states.certain) == (Step.UNKNOWN, False)
    for early in (True, False):
        states = lost(last_writer_wins=True)
        if early:
            states.hurry(NOW, 5.0)
        states.stands(ANOTHER, NOW)
        if not early:
            states.hurry(NOW, 5.0)
        assert (states.step, states.certain) == (Step.CONFLICT, True)


# -- deleting from a full bucket ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("purged", "marker", "there", "outcome"),
    [
        (1, Step.DONE, standing(12, ID, ""), AfterFull.GONE),
        (0, Step.DONE, standing(12, ID, ""), AfterFull.GONE),
        (None, Step.KEPT, ANOTHER, AfterFull.GONE),
        (1, Step.UNKNOWN, NOTHING, AfterFull.UNKNOWN),
        (None, Step.REFUSED, NOTHING, AfterFull.UNKNOWN),
        (0, Step.REFUSED, ANOTHER, AfterFull.AGAIN),
        (0, Step.CONFLICT, NOTHING, AfterFull.AGAIN),
        (1, Step.REFUSED, NOTHING, AfterFull.GONE),
        (1, Step.CONFLICT, ANOTHER, AfterFull.GONE),
        (1, Step.CONFLICT, standing(12, "other", V), AfterFull.STORED_AGAIN),
    ],
)
def test_after_full(purged: int | None, marker: Step, there: Standing, outcome: AfterFull) -> None:
    assert after_full(V, purged, marker, there) is outcome
