"""A delete in a full bucket that a killed server forgot is known for what it is, and nothing else is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from tests.soak.brought_back import Past
from tests.soak.checker import check_bucket
from tests.soak.content import digest, make
from tests.soak.floor import Floor
from tests.soak.forgotten import Hollow, Return, forgotten_deletes, seen_beneath
from tests.soak.history import FAIL, OK, UNKNOWN, Op, Told, Version
from tests.soak.watched import Violation

BUCKET = "b"
KILLED = 100.0
MISSING = "object 'n' in bucket 'b' is damaged: chunks are missing"


def op(
    label: str, verb: str, begin: float, end: float, outcome: str = OK, error: str = "", name: str = "n",
    **result: Any,
) -> Op:  # fmt: skip
    return Op(label, verb, BUCKET, name, begin, end, outcome, error, result=result)


def put(
    label: str, begin: float, end: float, revision: int = 0, outcome: str = OK, size: int = 100, **args: Any
) -> Op:
    done = op(label, "put", begin, end, outcome)
    body = f"{label}:{size}"
    done.args = {"body": body, "digest": digest(make(body)), **args}
    if revision:
        done.result["info"] = version(done, revision).row()
    return done


def version(done: Op, revision: int) -> Version:
    return Version(
        "n", revision, done.id, done.args["body"], done.args["digest"], f"nuid-{done.args['body']}"
    )


def info(seen: Version, begin: float = 110.0) -> Op:
    return op(f"i-{begin}", "info", begin, begin + 1, info=seen.row())


def absent(begin: float) -> Op:
    return op(f"a-{begin}", "get", begin, begin + 1, FAIL, "ObjectNotFoundError")


FIRST, SECOND, REMOVED = put("w-1", 10, 11, 10), put("w-2", 20, 21, 20), put("w-3", 30, 31, 30)
OLDER, OLD, TOP = version(FIRST, 10), version(SECOND, 20), version(REMOVED, 30)
DELETE = op("d-1", "delete", 40, 41)
BEFORE = [FIRST, SECOND, REMOVED, DELETE]
ANOTHER = Version("n", 5, "v-1", "v-1:100", digest(make("v-1:100")), "nuid-v")


def found(
    ops: Sequence[Op],
    *initial: Version,
    told: Sequence[Told] = (),
    past: Past | None = None,
    kills: Sequence[float] = (KILLED,),
) -> list[Return]:
    return forgotten_deletes(ops, told, initial, past or Past(), kills)


def revisions(ops: Sequence[Op], *initial: Version, **more: Any) -> list[int]:
    return sorted(revision for each in found(ops, *initial, **more) for revision in each.versions)


def kinds(ops: Sequence[Op], *initial: Version, **more: Any) -> set[str]:
    returns = found(ops, *initial, **more)
    told = more.get("told", ())
    return {each.kind for each in check_bucket(BUCKET, ops, initial, 0.0, told, returns=returns)}


def remembering(*versions: Version) -> Past:
    past = Past()
    past.add([], [Told("w", BUCKET, -10.0, each) for each in versions])
    return past


# -- what is back ---------------------------------------------------------------------------------


@pytest.mark.parametrize("seen", [OLDER, OLD])
def test_an_older_version_is_back(seen: Version) -> None:
    ops = [*BEFORE, info(seen)]
    assert revisions(ops) == [seen.revision]
    assert kinds(ops) == set()
    assert kinds(ops, kills=()) == {"stale or lost"}


def test_the_old_name_of_a_rename_was_removed_as_well() -> None:
    renamed = op("d-1", "rename", 40, 41)
    renamed.args = {"to": "m"}
    assert revisions([FIRST, SECOND, REMOVED, renamed, info(OLD)]) == [20]
    renamed.args = {"to": "n"}
    assert revisions([FIRST, SECOND, REMOVED, renamed, info(OLD)]) == []


@pytest.mark.parametrize(
    "look",
    [
        op("l-1", "list", 110, 111, name="", list=[OLD.row()]),
        op("l-1", "get", 110, 111, digest=OLD.digest),
        op("l-1", "get", 110, 111, body=OLD.body),
        op("l-1", "range", 110, 111, part=[0, 50, digest(make(OLD.body)[:50])]),
    ],
)
def test_it_is_seen_in_every_way(look: Op) -> None:
    assert revisions([*BEFORE, look]) == [20]
    assert kinds([*BEFORE, look]) == set()


def test_it_is_seen_to_be_there() -> None:
    names = op("l-1", "names", 110, 111, name="", names=["n"])
    names.args = {"live": True}
    there = op("l-2", "exists", 110, 111, exists=True)
    in_the_way = op("l-3", "create", 110, 111, FAIL, "ObjectAlreadyExists")
    in_the_way.args = {"body": "l-3:1", "digest": digest(make("l-3:1"))}
    hollow = op("l-4", "get", 110, 111, FAIL, "IntegrityError")
    for look in (names, there, in_the_way, hollow):
        (back,) = found([*BEFORE, look])
        assert (back.versions, back.count) == ({10: OLDER, 20: OLD}, 1)
        assert kinds([*BEFORE, look]) == set()
    assert revisions([*BEFORE, there, info(OLD)]) == [20]
    names.args = {}
    assert found([*BEFORE, names]) == []
    assert kinds([*BEFORE, there], kills=()) == {"not there"}


def test_who_changes_it_has_seen_it() -> None:
    changed = op("d-2", "delete", 110, 111)
    changed.args = {"if": 20}
    assert revisions([*BEFORE, changed]) == [20]
    assert kinds([*BEFORE, changed]) == set()
    assert kinds([*BEFORE, changed], kills=()) == {"two winners"}


@pytest.mark.parametrize("versions", [[OLDER], [OLDER, OLD]])
def test_each_version_counts(versions: list[Version]) -> None:
    (back,) = found([*BEFORE, *(info(seen, 110.0 + seen.revision) for seen in versions)])
    assert back.count == len(versions)


def test_versions_of_the_beginning_and_of_epochs_before_are_known() -> None:
    ops = [REMOVED, DELETE, info(OLD)]
    assert revisions(ops, OLD) == [20]
    (back,) = found([DELETE, info(ANOTHER)], TOP, past=remembering(ANOTHER))
    assert back.old == [ANOTHER]
    assert kinds([DELETE, info(ANOTHER)], TOP, past=remembering(ANOTHER)) == set()
    assert kinds([absent(1), REMOVED, DELETE, info(ANOTHER)], past=remembering(ANOTHER)) == set()
    assert {"stale or lost", "a version from nowhere"} <= kinds([DELETE, info(ANOTHER)], TOP)


def test_other_facts_are_another_version() -> None:
    for other in (replace(OLD, nuid="x"), replace(OLD, revision=19), replace(OLD, name="m")):
        assert found([*BEFORE, info(other)]) == []
    assert found([DELETE, info(replace(ANOTHER, tag="x"))], TOP, past=remembering(ANOTHER)) == []


def test_a_version_whose_writer_was_not_told_of_it() -> None:
    untold = put("w-4", 22, 23, outcome=UNKNOWN)
    seen = version(untold, 25)
    assert revisions([*BEFORE, untold, info(seen)]) == [25]
    assert kinds([*BEFORE, untold, info(seen)]) == set()
    late = put("w-4", 105, 106, outcome=UNKNOWN)
    assert found([*BEFORE, late, info(version(late, 25))]) == []
    failed = put("w-4", 22, 23, outcome=FAIL)
    assert found([*BEFORE, failed, info(version(failed, 25))]) == []
    other = replace(seen, tag="nobody")
    assert found([*BEFORE, untold, info(other)]) == []


# -- what is not ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kills", [(), (120.0,), (5.0,)])
def test_only_after_a_kill_that_came_after_the_removal(kills: tuple[float, ...]) -> None:
    assert found([*BEFORE, info(OLD)], kills=kills) == []
    assert "stale or lost" in kinds([*BEFORE, info(OLD)], kills=kills)


def test_only_what_was_removed_comes_back() -> None:
    assert found([FIRST, SECOND, REMOVED, info(OLD)]) == []
    failed = op("d-1", "delete", 40, 41, FAIL, "NatsError")
    assert found([FIRST, SECOND, REMOVED, failed, info(OLD)]) == []
    later = op("d-1", "delete", 101, 102)
    assert found([FIRST, SECOND, REMOVED, later, info(OLD)]) == []
    elsewhere = op("d-1", "delete", 40, 41, name="m")
    assert found([FIRST, SECOND, REMOVED, elsewhere, info(OLD)]) == []


@pytest.mark.parametrize("end", [41.0, math.inf])
def test_a_removal_of_unknown_outcome_may_have_been_carried_out(end: float) -> None:
    perhaps = op("d-1", "delete", 40, end, UNKNOWN)
    ops = [FIRST, SECOND, REMOVED, perhaps, info(OLD)]
    assert revisions(ops) == [20]
    assert kinds(ops) == set()
    assert revisions([*ops, info(TOP, 50.0)]) == [20]  # it may have been carried out later
    again = put("w-4", 50, 51, 40)
    assert found([*ops, again]) == []


def test_a_removal_that_the_kill_interrupts() -> None:
    within = op("d-1", "delete", 99, 105)
    assert kinds([FIRST, SECOND, REMOVED, within, info(OLD)]) == set()


def test_what_was_written_after_the_removal_must_stay() -> None:
    again = put("w-4", 50, 51, 40)
    assert found([*BEFORE, again, info(OLD)]) == []
    assert kinds([*BEFORE, again, info(OLD)]) == {"stale or lost"}
    beside = put("w-3", 40.2, 40.8, 30)
    assert revisions([FIRST, SECOND, beside, DELETE, info(OLD)]) == [20]
    untold = put("w-4", 50, 51, outcome=UNKNOWN)
    assert revisions([*BEFORE, untold, info(OLD)]) == [20]
    assert found([*BEFORE, untold, info(version(untold, 40))]) == []


def test_what_was_seen_after_the_removal_must_stay() -> None:
    untold = put("w-4", 50, 51, outcome=UNKNOWN)
    seen = info(version(untold, 40), 60.0)
    assert found([*BEFORE, untold, seen, info(OLD)]) == []
    there = op("l-2", "exists", 60, 61, exists=True)
    assert found([*BEFORE, untold, there, info(OLD)]) == []


def test_a_removal_of_one_revision_has_removed_no_newer_one() -> None:
    removal = op("d-1", "delete", 40, 41, UNKNOWN)
    removal.args = {"if": 20}
    assert found([FIRST, SECOND, REMOVED, removal, info(OLDER)]) == []
    removal.args = {"if": 30}
    assert revisions([FIRST, SECOND, REMOVED, removal, info(OLDER)]) == [10]


def test_what_was_removed_itself_does_not_come_back() -> None:
    assert found([*BEFORE, info(TOP)]) == []
    assert kinds([*BEFORE, info(TOP)]) == {"stale or lost"}
    assert kinds([*BEFORE, info(OLD), info(TOP, 120.0)]) == {"stale or lost"}
    read = op("g-1", "get", 120, 121, digest=TOP.digest)
    assert kinds([*BEFORE, info(OLD), read]) == {"stale or lost"}


def test_a_delete_marker_is_not_forgotten() -> None:
    mark = Version("n", 35, nuid=TOP.nuid, deleted=True)
    assert found([*BEFORE, info(mark, 50.0), info(OLD)]) == []
    assert found([*BEFORE, info(OLD)], told=[Told("w", BUCKET, 50.0, mark)]) == []
    assert found([DELETE, info(OLD)], mark, past=remembering(OLD)) == []


def test_an_old_delete_marker_may_be_back() -> None:
    mark = Version("n", 15, nuid=OLDER.nuid, deleted=True)
    ops = [FIRST, op("d-0", "delete", 15, 16), SECOND, REMOVED, DELETE]
    assert kinds([*ops, info(mark)]) == set()
    assert kinds([*ops, info(mark)], kills=()) == {"stale or lost"}
    assert found([info(mark)], TOP) == []


def test_what_others_may_have_written_is_not_back() -> None:
    same = put("w-2", 105, 106, outcome=UNKNOWN)
    assert found([FIRST, REMOVED, DELETE, same, op("g-1", "get", 110, 111, digest=OLD.digest)], OLD) == []
    assert found([*BEFORE, same, op("e-1", "exists", 110, 111, exists=True)]) == []
    other = put("w-4", 105, 106, outcome=UNKNOWN)
    assert revisions([*BEFORE, other, op("g-1", "get", 110, 111, digest=OLD.digest)]) == [20]
    later = put("w-4", 120, 121, outcome=UNKNOWN)
    assert revisions([*BEFORE, later, op("e-1", "exists", 110, 111, exists=True)]) == [10, 20]
    newer = remembering(replace(ANOTHER, revision=50))
    assert revisions([*BEFORE, op("e-1", "exists", 110, 111, exists=True)], past=newer) == [10, 20]


# -- what follows ---------------------------------------------------------------------------------


def test_clients_work_with_what_is_back() -> None:
    replaced = put("w-4", 115, 116, 40, **{"if": 20})
    read = op("g-1", "get", 120, 121, digest=replaced.args["digest"])
    assert kinds([*BEFORE, info(OLD), replaced, read]) == set()
    assert kinds([*BEFORE, info(OLD), replaced, read], kills=()) == {"stale or lost", "two winners"}
    changed = op("u-1", "update", 115, 116, info=replace(OLD, revision=40, tag="u-1").row())
    assert kinds([*BEFORE, info(OLD), changed]) == set()
    assert kinds([*BEFORE, info(OLD), op("d-2", "delete", 115, 116), absent(120)]) == set()


def test_nothing_that_was_done_after_the_kill_is_lost() -> None:
    replaced = put("w-4", 115, 116, 40)
    ops = [*BEFORE, info(OLD), replaced]
    assert kinds([*ops, info(OLD, 120.0)]) == {"stale or lost"}
    assert kinds([*ops, absent(120)]) == {"lost"}
    assert kinds([*ops, op("g-1", "get", 120, 121, digest=OLD.digest)]) == {"stale or lost"}
    within = put("w-4", 99, 105, 40)
    assert kinds([*BEFORE, within, info(OLD)]) == {"stale or lost"}


def test_what_is_back_stays() -> None:
    assert kinds([*BEFORE, info(OLD), absent(120)]) == {"lost"}
    assert kinds([*BEFORE, info(OLD), info(OLDER, 120.0)]) == {"stale or lost"}
    created = put("w-4", 120, 121, 40)
    created.verb = "create"
    assert kinds([*BEFORE, info(OLD), created]) == {"two winners"}


def test_until_it_was_seen_the_name_may_be_free() -> None:
    """Another server may have answered, one that had not forgotten it."""
    within = op("l-1", "list", 99, 108, name="", list=[OLD.row()])
    created = put("w-4", 102, 103, 40)
    created.verb = "create"
    assert kinds([*BEFORE, within, created]) == set()


def test_what_is_removed_again_is_gone() -> None:
    again = op("d-2", "delete", 115, 116)
    for seen in (OLD, OLDER):
        assert kinds([*BEFORE, info(OLD), again, info(seen, 120.0)]) == {"stale or lost"}
    assert kinds([*BEFORE, again, info(OLD, 120.0)]) == {"stale or lost"}
    assert kinds([*BEFORE, put("w-4", 115, 116), info(OLD, 120.0)]) == {"stale or lost"}


def test_before_the_kill_nothing_is_excused() -> None:
    assert kinds([*BEFORE, info(OLD, 50.0), info(OLD)]) == {"stale or lost"}
    assert kinds([*BEFORE, put("w-4", 50, 51, 25), info(OLD)]) == {
        "a write went back in time",
        "stale or lost",
    }


@pytest.mark.parametrize("verb", ["list", "told"])
def test_what_an_operation_saw_before_the_kill_proves_nothing(verb: str) -> None:
    if verb == "list":
        late = [op("l-1", "list", 29, 108, name="", list=[TOP.row()])]
        assert kinds([*BEFORE, *late, info(OLD)]) == set()
    assert kinds([*BEFORE, info(OLD)], told=[Told("w", BUCKET, 105.0, TOP)]) == set()
    within = op("l-1", "list", 99, 108, name="", list=[OLD.row()])
    assert kinds([*BEFORE, within]) == set()


def test_each_kill_is_looked_at() -> None:
    after = [put("w-4", 110, 111, 40), put("w-5", 120, 121, 50), op("d-2", "delete", 130, 131)]
    seen = info(version(after[0], 40), 210.0)
    ops = [*BEFORE, info(OLD, 105.0), *after, seen]
    assert [each.killed for each in found(ops, kills=(KILLED, 200.0))] == [200.0, KILLED]
    assert kinds(ops, kills=(KILLED, 200.0)) == set()
    assert kinds(ops) == {"stale or lost"}
    perhaps = op("d-1", "delete", 40, 41, UNKNOWN)
    ops = [FIRST, SECOND, REMOVED, perhaps, info(OLD, 210.0)]
    assert [each.killed for each in found(ops, kills=(KILLED, 200.0))] == [200.0]


def test_since_a_reset_of_the_floor() -> None:
    floor = Floor()
    floor.add(1.0, 10)
    floor.reset(5.0)
    assert (floor.at(5.0), floor.at(6.0)) == (10, 0)
    assert floor.since(7) == math.inf
    floor.add(6.0, 8)
    assert (floor.at(7.0), floor.since(7)) == (8, 6.0)


# -- beneath what is removed ----------------------------------------------------------------------


def beneath(ops: Sequence[Op], *initial: Version, kills: Sequence[float] = (KILLED,)) -> list[bool]:
    wrong = check_bucket(BUCKET, ops, initial, 0.0)
    return [seen_beneath(violation, ops, initial, kills) for violation in wrong]


def test_what_is_beneath_shows_while_the_newest_is_removed() -> None:
    removal = op("d-2", "delete", 110, 111)
    written = [FIRST, SECOND, REMOVED, removal]
    listed = op("l-1", "list", 110.5, 120, name="", list=[OLD.row()])
    assert beneath([*written, listed]) == [True]
    (stale,) = check_bucket(BUCKET, [*written, listed])
    assert not seen_beneath(replace(stale, kind="two winners"), [*written, listed], (), [KILLED])
    assert beneath([REMOVED, removal, listed], OLD) == [True]
    read = op("g-1", "get", 110.5, 112, digest=OLD.digest)
    assert beneath([*written, read]) == [True]
    for kills in ((), (15.0,), (110.2,)):
        assert beneath([*written, listed], kills=kills) == [False]
    for begin, end in ((105, 109), (111.5, 112)):
        listed = op("l-1", "list", begin, end, name="", list=[OLD.row()])
        assert beneath([*written, listed]) == [False]


def test_only_while_it_is_removed() -> None:
    listed = op("l-1", "list", 110.5, 120, name="", list=[OLD.row()])
    for removal in (op("d-2", "delete", 110, 111, FAIL), op("d-2", "delete", 110, 111, name="m")):
        assert beneath([FIRST, SECOND, REMOVED, removal, listed]) == [False]
    lost = [FIRST, SECOND, REMOVED, op("d-2", "delete", 110, 111), put("w-4", 112, 113, 40), absent(120)]
    assert beneath(lost) == [False]


# -- without chunks -------------------------------------------------------------------------------


def missing(begin: float, revision: int = 20, kind: str = "missing chunks", name: str = "n") -> Op:
    return op("v-1", "verify", begin, begin + 1, name="", problems=[[kind, name, "0 stored", revision]])


def damaged(begin: float, error: str = "IntegrityError", message: str = MISSING, name: str = "n") -> Op:
    done = op("g-1", "get", begin, begin + 1, FAIL, error, name)
    done.message = message
    return done


@pytest.fixture
def hollow() -> Hollow:
    ops = [*BEFORE, info(OLD)]
    hollow = Hollow()
    hollow.add(found(ops), ops)
    return hollow


def test_its_chunks_may_be_missing(hollow: Hollow) -> None:
    assert hollow.excuses(missing(110))
    assert hollow.excuses(damaged(110))
    linked = damaged(110, name="link")
    assert not hollow.excuses(linked)
    linked.args = {"of": "n"}
    assert hollow.excuses(linked)


def test_nothing_else_may_be_wrong(hollow: Hollow) -> None:
    for other in (missing(110, 30), missing(110, kind="damaged"), missing(110, name="m"), missing(90)):
        assert not hollow.excuses(other)
    both = missing(110)
    both.result["problems"].append(["extra chunks", "m", "2 stored", 7])
    assert not hollow.excuses(both)
    both.result["problems"][1][0] = "half-done rename"
    assert hollow.excuses(both)
    assert not hollow.excuses(damaged(110, error="DigestMismatchError"))
    assert not hollow.excuses(damaged(110, message="the digest is another"))
    assert not hollow.excuses(damaged(110, name="m"))
    assert not hollow.excuses(damaged(90))
    assert not hollow.excuses(op("v-1", "verify", 110, 111, problems=[]))


@pytest.mark.parametrize("change", [put("w-4", 115, 116, 40), op("d-2", "delete", 115, 116)])
def test_it_is_whole_when_it_is_written_or_removed_again(change: Op) -> None:
    ops = [*BEFORE, info(OLD), change]
    hollow = Hollow()
    hollow.add(found(ops), ops)
    for looked in (missing, damaged):
        assert hollow.excuses(looked(115.5))
        assert not hollow.excuses(looked(117))
    change = replace(change, outcome=UNKNOWN)
    hollow.add([], [change])
    assert hollow.excuses(damaged(117))


def test_it_stays_so_in_later_epochs(hollow: Hollow) -> None:
    hollow.keep([OLD])
    hollow.add([], [])
    assert hollow.excuses(missing(210))
    assert hollow.excuses(damaged(210))
    again = put("w-4", 205, 206, 40)
    hollow.add([], [again])
    assert not hollow.excuses(damaged(210))
    hollow.keep([version(again, 40)])
    hollow.add([], [])
    assert not hollow.excuses(missing(310))
    assert not hollow.excuses(damaged(310))


def test_what_is_gone_at_the_end_of_an_epoch_is_whole_afterwards(hollow: Hollow) -> None:
    hollow.keep([])
    assert not hollow.excuses(missing(210))
    assert not hollow.excuses(damaged(210))


def test_what_the_audit_finds(hollow: Hollow) -> None:
    text = "missing chunks: 0 stored, 1 recorded (revision 20)"
    bad = Violation("verify found damage", BUCKET, "n", text, revision=20)
    assert hollow.excuses_found(bad)
    assert not hollow.excuses_found(replace(bad, revision=30))
    assert not hollow.excuses_found(replace(bad, name="m"))
    assert not hollow.excuses_found(replace(bad, text="damaged: another digest"))
    assert not hollow.excuses_found(replace(bad, kind="unreadable meta"))
    bad = Violation("unreadable when all is quiet", BUCKET, "n", f"IntegrityError({MISSING!r})", revision=20)
    assert hollow.excuses_found(bad)
    assert not hollow.excuses_found(replace(bad, kind="damaged"))
    assert not hollow.excuses_found(replace(bad, text=f"TimeoutError({MISSING!r})"))
    assert not hollow.excuses_found(replace(bad, text="IntegrityError('another digest')"))
