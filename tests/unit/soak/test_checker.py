"""The soak's judge: made-up histories with one thing wrong each, and what must not be called wrong."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from objstore.bucket.counts import STEPS_DOWN
from tests.soak.checker import BucketCheck, check_bucket
from tests.soak.content import body_id, digest, make
from tests.soak.errors import by_one_cut_off
from tests.soak.floor import Floor
from tests.soak.history import FAIL, OK, UNKNOWN, Op, Told, Version
from tests.soak.watched import check_order, missing_from_watch

BUCKET = "b"


class Story:
    """Builds a history: times are given, revisions are given, the rest follows."""

    def __init__(self) -> None:
        self.ops: list[Op] = []
        self.told: list[Told] = []

    def op(
        self, verb: str, name: str, begin: float, end: float, outcome: str = OK, error: str = "", **rest: Any
    ) -> Op:
        args = {key: value for key, value in rest.items() if key in ("to", "of", "ttl", "prefix", "live")}
        if "expected" in rest:
            args["if"] = rest["expected"]
        result = rest.get("result", {})
        op = Op(f"w-{len(self.ops)}", verb, BUCKET, name, begin, end, outcome, error, "", args, result)
        self.ops.append(op)
        return op

    def write(
        self, name: str, begin: float, end: float, revision: int | None = None, outcome: str = OK,
        error: str = "", verb: str = "put", size: int = 100, **rest: Any
    ) -> Op:  # fmt: skip
        """A put that was given a revision, or failed, or whose outcome is unknown."""
        op = self.op(verb, name, begin, end, outcome, error, **rest)
        op.args["body"] = body_id(op.id, size)
        op.args["digest"] = digest(make(op.args["body"]))
        if revision is not None:
            op.result["info"] = self.version(op, name, revision).row()
        return op

    @staticmethod
    def version(op: Op, name: str, revision: int, body: str | None = None, tag: str | None = None) -> Version:
        body = op.args["body"] if body is None else body
        return Version(
            name, revision, op.id if tag is None else tag, body, digest(make(body)), f"nuid-{body}"
        )

    def read(self, op: Op, name: str, begin: float, end: float) -> Op:
        """Somebody gets the bytes of ``op``."""
        return self.op("get", name, begin, end, result={"digest": op.args["digest"]})

    def info(self, version: Version, begin: float, end: float, name: str | None = None) -> Op:
        return self.op("info", name or version.name, begin, end, result={"info": version.row()})

    def absent(self, name: str, begin: float, end: float, error: str = "ObjectNotFoundError") -> Op:
        return self.op("get", name, begin, end, FAIL, error)

    def remove(self, name: str, begin: float, end: float, outcome: str = OK, **rest: Any) -> Op:
        return self.op("delete", name, begin, end, outcome, **rest)

    def kinds(
        self, initial: Iterable[Version] = (), began: float = -math.inf, lead: float = 0.0
    ) -> list[str]:
        found = check_bucket(BUCKET, self.ops, initial, began, self.told, lead)
        return sorted({violation.kind for violation in found})


@pytest.fixture
def story() -> Story:
    return Story()


def test_floor_is_what_was_known_strictly_before() -> None:
    floor = Floor()
    floor.add(1.0, 5)
    floor.add(2.0, 3)  # older news
    floor.add(3.0, 8)
    assert [floor.at(time) for time in (0, 1.0, 1.5, 2.5, 3.0, 4)] == [0, 0, 5, 5, 5, 8]


class TestNothingWrong:
    def test_a_plain_life(self, story: Story) -> None:
        story.absent("n", 0, 1)
        first = story.write("n", 1, 2, 10)
        story.read(first, "n", 2, 3)
        second = story.write("n", 3, 4, 20)
        story.read(second, "n", 4, 5)
        story.remove("n", 5, 6)
        story.absent("n", 6, 7, "ObjectDeletedError")
        story.write("n", 7, 8, 40, verb="create")
        assert story.kinds() == []

    def test_a_follower_is_ahead_of_the_leader(self, story: Story) -> None:
        first = story.write("n", 0, 1, 10)
        second = story.write("n", 2, 20, 20)
        story.told.append(Told("w", BUCKET, 3.0, Version.of_row(second.result["info"])))
        story.read(first, "n", 4, 5)
        assert story.kinds() == ["stale or lost"]
        assert story.kinds(lead=8.0) == []
        story.read(first, "n", 12, 13)  # too long after it was told
        assert story.kinds(lead=8.0) == ["stale or lost"]

    def test_a_stale_answer_tells_since_when_it_is_one(self, story: Story) -> None:
        first = story.write("n", 0, 1, 10)
        story.write("n", 20, 21, 20)
        story.read(first, "n", 25, 26)
        (violation,) = check_bucket(BUCKET, story.ops)
        assert violation.since == 21
        read = next(op for op in story.ops if op.begin == 25)
        asked: list[tuple[float, float]] = []
        assert by_one_cut_off(violation, read, lambda begin, end: not asked.append((begin, end)))
        assert asked == [(25 - STEPS_DOWN, 26)]
        assert not by_one_cut_off(violation, read, lambda begin, end: False)
        assert not by_one_cut_off(replace(violation, since=13), read, lambda begin, end: True), "too long ago"
        assert not by_one_cut_off(replace(violation, kind="wrong bytes"), read, lambda begin, end: True)
        assert not by_one_cut_off(violation, replace(read, verb="update"), lambda begin, end: True)

    def test_concurrent_reads_see_either(self, story: Story) -> None:
        first = story.write("n", 1, 2, 10)
        second = story.write("n", 3, 6, 20)
        story.read(first, "n", 3.5, 4)
        story.read(second, "n", 4, 5)
        assert story.kinds() == []

    def test_unknown_outcomes_are_one_of_two(self, story: Story) -> None:
        first = story.write("n", 1, 2, 10)
        lost = story.write("n", 3, 4, outcome=UNKNOWN)
        story.read(first, "n", 5, 6)
        story.read(lost, "n", 7, 8)  # it landed late
        assert story.kinds() == []

    def test_killed_operations_have_no_end(self, story: Story) -> None:
        first = story.write("n", 1, 2, 10)
        story.remove("n", 3, math.inf, UNKNOWN)
        story.read(first, "n", 9, 10)
        story.absent("n", 11, 12)
        assert story.kinds() == []

    def test_an_unknown_delete_may_land_late(self, story: Story) -> None:
        story.write("n", 1, 2, 10)
        story.remove("n", 3, 4, UNKNOWN)
        story.write("n", 5, 6, 20)
        story.absent("n", 7, 8)
        assert story.kinds() == []

    def test_a_rename_moves_bytes(self, story: Story) -> None:
        first = story.write("a", 1, 2, 10)
        moved = Story.version(first, "b", 12)
        story.op("rename", "a", 3, 4, to="b", result={"info": moved.row()})
        story.absent("a", 5, 6, "ObjectDeletedError")
        story.read(first, "b", 5, 6)
        story.op("list", "", 7, 8, result={"list": [moved.row()]})
        assert story.kinds() == []

    def test_a_rename_under_way_shows_both_names(self, story: Story) -> None:
        first = story.write("a", 1, 2, 10)
        story.op("rename", "a", 3, math.inf, UNKNOWN, to="b")
        story.info(Story.version(first, "a", 11), 4, 5)  # marked
        story.info(Story.version(first, "b", 12), 4, 5)
        story.absent("a", 6, 7)
        assert story.kinds() == []

    def test_a_copy_carries_the_tag(self, story: Story) -> None:
        first = story.write("a", 1, 2, 10)
        copied = Story.version(first, "b", 11)
        story.op("copy", "a", 3, 4, to="b", result={"info": copied.row(), "body": first.args["body"]})
        story.read(first, "b", 5, 6)
        assert story.kinds() == []

    def test_losing_a_race_is_allowed(self, story: Story) -> None:
        story.write("n", 1, 2, 10)
        story.write("n", 3, 4, 20, expected=10)
        story.write("n", 3, 4, outcome=FAIL, error="RevisionConflictError", expected=10)
        story.write("n", 5, 6, outcome=FAIL, error="ObjectAlreadyExists", verb="create")
        assert story.kinds() == []

    def test_what_was_there_before(self, story: Story) -> None:
        old = Version("n", 5, "gone", "gone:3", digest(make("gone:3")), "x")
        story.info(old, 1, 2)
        story.op("get", "n", 2, 3, result={"digest": old.digest})
        assert story.kinds([old], 0.0) == []

    def test_expired_objects_are_absent(self, story: Story) -> None:
        story.write("n", 1, 2, 10, ttl=5.0)
        story.absent("n", 7, 8)
        assert story.kinds() == []

    def test_empty_bodies_are_alike(self, story: Story) -> None:
        story.write("n", 1, 2, 10, size=0)
        second = story.write("n", 3, 4, 20, size=0)
        story.read(second, "n", 5, 6)
        assert story.kinds() == []

    def test_a_late_watcher_is_not_stale(self, story: Story) -> None:
        first = story.write("n", 1, 2, 10)
        story.write("n", 3, 4, 20)
        story.told.append(Told("watch", BUCKET, 9.0, Story.version(first, "n", 10)))
        assert story.kinds() == []


class TestWrong:
    """Each rule, broken once."""

    def test_lost_write(self, story: Story) -> None:
        story.write("n", 1, 2, 10)
        story.absent("n", 3, 4)
        assert story.kinds() == ["lost"]

    def test_lost_write_in_a_list(self, story: Story) -> None:
        story.write("n", 1, 2, 10)
        story.op("list", "", 3, 4, result={"list": []})
        assert story.kinds() == ["lost"]

    def test_a_list_may_leave_out_other_prefixes(self, story: Story) -> None:
        story.write("n", 1, 2, 10)
        story.op("list", "", 3, 4, prefix="x", result={"list": []})
        assert story.kinds() == []

    def test_names_that_leave_one_out(self, story: Story) -> None:
        story.write("n", 1, 2, 10)
        story.op("names", "", 3, 4, result={"names": []})
        assert story.kinds() == ["lost"]

    def test_stale_list(self, story: Story) -> None:
        first = story.write("n", 1, 2, 10)
        story.write("n", 3, 4, 20)
        story.op("iter", "", 5, 6, result={"list": [Story.version(first, "n", 10).row()]})
        assert story.kinds() == ["stale or lost"]

    def test_stale_bytes(self, story: Story) -> None:
        first = story.write("n", 1, 2, 10)
        story.write("n", 3, 4, 20)
        story.read(first, "n", 5, 6)
        assert story.kinds() == ["stale or lost"]

    def test_resurrected(self, story: Story) -> None:
        first = story.write("n", 1, 2, 10)
        story.remove("n", 3, 4)
        story.read(first, "n", 5, 6)
        assert story.kinds() == ["stale or lost"]

    def test_seen_absent_and_back_again(self, story: Story) -> None:
        first = story.write("n", 1, 2, 10)
        story.remove("n", 3, 4, UNKNOWN)
        story.absent("n", 5, 6)
        story.read(first, "n", 7, 8)
        assert story.kinds() == ["stale or lost"]

    def test_seen_and_unseen(self, story: Story) -> None:
        first = story.write("n", 1, 2, 10)
        unknown = story.write("n", 3, 4, outcome=UNKNOWN)
        story.read(unknown, "n", 5, 6)
        story.read(first, "n", 7, 8)
        assert story.kinds() == ["stale or lost"]

    def test_said_to_exist_after_a_delete(self, story: Story) -> None:
        story.write("n", 1, 2, 10)
        story.remove("n", 3, 4)
        story.op("exists", "n", 5, 6, result={"exists": True})
        assert story.kinds() == ["not there"]

    def test_in_the_way_after_a_delete(self, story: Story) -> None:
        story.write("n", 1, 2, 10)
        story.remove("n", 3, 4)
        story.write("n", 5, 6, outcome=FAIL, error="ObjectAlreadyExists", verb="create")
        assert story.kinds() == ["not there"]

    def test_deleted_by_its_own_doing(self, story: Story) -> None:
        story.write("n", 1, 2, 10)
        story.remove("n", 3, 4, FAIL, error="ObjectDeletedError")
        assert story.kinds() == ["lost"]

    def test_false_failure_seen_as_meta(self, story: Story) -> None:
        failed = story.write("n", 1, 2, outcome=FAIL, error="RequestTimeoutError")
        story.info(Story.version(failed, "n", 10), 3, 4)
        assert story.kinds() == ["a failed write took effect"]

    def test_false_failure_seen_as_bytes(self, story: Story) -> None:
        failed = story.write("n", 1, 2, outcome=FAIL, error="RequestTimeoutError")
        story.read(failed, "n", 3, 4)
        assert story.kinds() == ["a failed write took effect"]

    def test_failed_change_of_a_meta_that_is_seen(self, story: Story) -> None:
        first = story.write("n", 1, 2, 10)
        failed = story.op("update", "n", 3, 4, FAIL, "RequestTimeoutError")
        story.info(Story.version(first, "n", 11, tag=failed.id), 5, 6)
        assert story.kinds() == ["a failed write took effect"]

    def test_failed_bytes_under_another_meta(self, story: Story) -> None:
        failed = story.write("n", 1, 2, outcome=FAIL, error="RequestTimeoutError")
        update = story.op("update", "n", 3, 4)
        update.result["info"] = Story.version(update, "n", 11, failed.args["body"]).row()
        assert story.kinds() == ["a failed write took effect"]

    def test_a_delete_explains_nothing_after_the_next_write(self, story: Story) -> None:
        story.write("n", 1, 2, 10)
        story.remove("n", 3, 4)
        story.write("n", 5, 6, 20)
        story.absent("n", 7, 8)
        assert story.kinds() == ["lost"]

    def test_false_conflict(self, story: Story) -> None:
        story.write("n", 1, 2, 10)
        story.write("n", 3, 4, outcome=FAIL, error="RevisionConflictError", expected=10)
        assert story.kinds() == ["a conflict with nobody"]

    def test_conflict_that_was_not_asked_for(self, story: Story) -> None:
        story.write("n", 1, 2, 10)
        story.write("n", 3, 4, 20)
        story.write("n", 3, 4, outcome=FAIL, error="RevisionConflictError")
        assert story.kinds() == ["a conflict that was not asked for"]

    def test_failed_delete_that_removed(self, story: Story) -> None:
        first = story.write("n", 1, 2, 10)
        story.remove("n", 3, 4, FAIL, error="RequestTimeoutError")
        marker = Version("n", 11, first.id, "", "", "x", deleted=True)
        story.info(marker, 5, 6)
        assert story.kinds() == ["a delete marker from nowhere"]

    def test_one_delete_two_markers(self, story: Story) -> None:
        first = story.write("n", 1, 2, 10)
        story.remove("n", 3, 8)
        story.info(Version("n", 11, first.id, "", "", "x", deleted=True), 4, 5)
        second = story.write("n", 5, 6, 12)
        story.info(Version("n", 13, second.id, "", "", "y", deleted=True), 9, 10)
        assert story.kinds() == ["a delete marker from nowhere"]

    def test_two_winners_of_a_revision(self, story: Story) -> None:
        story.write("n", 1, 2, 10)
        story.write("n", 3, 6, 20, expected=10)
        story.write("n", 3, 6, 21, expected=10)
        assert story.kinds() == ["two winners"]

    def test_an_object_that_was_updated_before_its_writer_knew(self, story: Story) -> None:
        story.write("n", 1, 2, 10)
        put = story.write("n", 3, 8, expected=10)
        story.info(story.version(put, "n", 20), 4, 5)
        update = story.op("update", "n", 5, 6, expected=20)
        now = story.version(put, "n", 21, tag=update.id)
        update.result["info"] = put.result["info"] = now.row()
        assert story.kinds() == []

    def test_bytes_that_are_written_once_more_later(self, story: Story) -> None:
        """A read of what an unknown change left is no read of the same few bytes that come after it."""
        first = story.write("n", 1, 2, 10)
        update = story.op("update", "n", 3, 4)  # its answer tells no revision; what it left was never seen
        story.read(first, "n", 5, 6)
        story.write("n", 7, 8, 15)
        again = story.write("n", 9, 10, 20)
        again.args["digest"] = first.args["digest"]
        again.result["info"][4] = first.args["digest"]
        assert update.outcome == OK
        assert story.kinds() == []

    def test_two_creators(self, story: Story) -> None:
        story.write("n", 1, 4, 10, verb="create")
        story.write("n", 1, 4, 11, verb="create")
        assert story.kinds() == ["two winners"]

    def test_a_delete_of_a_revision_that_was_replaced(self, story: Story) -> None:
        story.write("n", 1, 2, 10)
        story.write("n", 3, 4, 20)
        story.remove("n", 5, 6, expected=10)
        assert story.kinds() == ["two winners"]

    def test_a_rename_onto_a_live_object(self, story: Story) -> None:
        first = story.write("a", 1, 2, 10)
        story.write("b", 1, 2, 11)
        moved = Story.version(first, "b", 12)
        story.op("rename", "a", 3, 4, to="b", result={"info": moved.row()})
        assert story.kinds() == ["two winners"]

    def test_committed_twice(self, story: Story) -> None:
        first = story.write("n", 1, 2, 10)
        story.write("n", 3, 4, 20)
        story.info(Story.version(first, "n", 30), 5, 6)
        assert story.kinds() == ["committed twice"]

    def test_zero_names(self, story: Story) -> None:
        first = story.write("a", 1, 2, 10)
        moved = Story.version(first, "b", 12)
        story.op("rename", "a", 3, 4, to="b", result={"info": moved.row()})
        story.absent("a", 5, 6)
        story.absent("b", 5, 6)
        assert story.kinds() == ["lost"]

    def test_failed_rename_that_renamed(self, story: Story) -> None:
        first = story.write("a", 1, 2, 10)
        story.op("rename", "a", 3, 4, FAIL, "RevisionConflictError", to="b")
        story.info(Story.version(first, "b", 12), 5, 6)
        assert "a version from nowhere" in story.kinds()

    def test_bytes_of_another_name(self, story: Story) -> None:
        story.write("a", 1, 2, 10)
        other = story.write("b", 1, 2, 11)
        story.read(other, "a", 3, 4)
        assert story.kinds() == ["wrong bytes"]

    def test_bytes_of_nobody(self, story: Story) -> None:
        story.write("n", 1, 2, 10)
        story.op("get", "n", 3, 4, result={"digest": "0" * 64})
        assert story.kinds() == ["wrong bytes"]

    def test_bytes_that_differ_from_the_meta(self, story: Story) -> None:
        first = story.write("n", 1, 2, 10)
        second = story.write("n", 3, 4, 20)
        row = Story.version(second, "n", 20).row()
        story.op("reader", "n", 3.5, 5, result={"info": row, "digest": first.args["digest"]})
        assert "wrong bytes" in story.kinds()

    def test_wrong_digest_in_a_meta(self, story: Story) -> None:
        first = story.write("n", 1, 2, 10)
        version = Story.version(first, "n", 10)
        version.digest = "0" * 64
        first.result["info"] = version.row()
        assert story.kinds() == ["wrong digest in a meta"]

    def test_range_of_nobody(self, story: Story) -> None:
        story.write("n", 1, 2, 10)
        story.op("range", "n", 3, 4, result={"part": [0, 5, digest(b"wrong")]})
        assert story.kinds() == ["wrong bytes"]

    def test_range_of_an_older_one(self, story: Story) -> None:
        first = story.write("n", 1, 2, 10)
        story.write("n", 3, 4, 20)
        part = digest(make(first.args["body"])[50:80])
        story.op("range", "n", 5, 6, result={"part": [50, 80, part]})
        assert story.kinds() == ["stale or lost"]

    def test_update_that_changes_the_bytes(self, story: Story) -> None:
        first = story.write("n", 1, 2, 10)
        story.write("n", 3, 4, 20)
        update = story.op("update", "n", 5, 6)
        update.result["info"] = Story.version(update, "n", 30, first.args["body"]).row()
        assert story.kinds() == ["a change of the meta changed the bytes"]

    def test_one_revision_two_metas(self, story: Story) -> None:
        first = story.write("n", 1, 2, 10)
        other = Story.version(first, "n", 10)
        other.nuid = "another"
        story.info(other, 3, 4)
        assert story.kinds() == ["one revision, two metas"]

    def test_another_name_than_asked_for(self, story: Story) -> None:
        first = story.write("n", 1, 2, 10)
        story.info(Story.version(first, "n", 10), 3, 4, name="m")
        assert "wrong name" in story.kinds()

    def test_revision_that_goes_back(self, story: Story) -> None:
        story.write("n", 1, 2, 10)
        story.write("n", 3, 4, 9)
        assert story.kinds() == ["a write went back in time"]

    def test_from_the_future(self, story: Story) -> None:
        later = story.write("n", 5, 6, 10)
        story.info(Story.version(later, "n", 10), 1, 2)
        assert story.kinds() == ["a write went back in time", "from the future"]

    def test_lost_between_epochs(self, story: Story) -> None:
        old = Version("n", 5, "gone", "gone:3", digest(make("gone:3")), "x")
        story.absent("n", 1, 2)
        assert story.kinds([old], 0.0) == ["lost"]

    def test_a_version_of_an_operation_of_long_ago(self, story: Story) -> None:
        old = Version("n", 5, "gone", "gone:3", digest(make("gone:3")), "x")
        story.info(Version("n", 7, "older", "gone:3", old.digest, "x"), 1, 2)
        assert story.kinds([old], 0.0) == ["a version from nowhere"]

    def test_known_by_a_watcher(self, story: Story) -> None:
        first = story.write("n", 1, 2, 10)
        unknown = story.write("n", 3, math.inf, outcome=UNKNOWN)
        story.told.append(Told("watch", BUCKET, 5.0, Story.version(unknown, "n", 20)))
        story.read(first, "n", 6, 7)
        assert story.kinds() == ["stale or lost"]


def test_a_violation_shows_what_happened_to_the_name(story: Story) -> None:
    story.write("n", 1, 2, 10)
    story.absent("n", 3, 4)
    (violation,) = BucketCheck(BUCKET, story.ops).run()
    text = str(violation)
    assert text.startswith("lost: b/n: w-1 found nothing, when revision 10 was in place")
    assert "w-0 put n" in text


def told(*revisions: int, watcher: str = "w") -> list[Told]:
    return [Told(watcher, BUCKET, float(n), Version("n", revision)) for n, revision in enumerate(revisions)]


def test_watch_out_of_order() -> None:
    last: dict[str, int] = {}
    assert check_order(told(1, 2, 5), last) == []
    assert [v.kind for v in check_order(told(5, 7), last)] == ["a watch out of order"]
    assert [v.kind for v in check_order(told(6), last)] == ["a watch out of order"]
    assert check_order(told(1, watcher="another"), last) == []


def test_watch_that_is_not_complete() -> None:
    final = [Version("a", 5), Version("b", 9, deleted=True), Version("c", 3)]
    found = missing_from_watch("w", BUCKET, {"a": 5, "b": 8}, final)
    assert [violation.name for violation in found] == ["b", "c"]
    assert missing_from_watch("w", BUCKET, {"a": 5, "b": 9, "c": 3}, final) == []
