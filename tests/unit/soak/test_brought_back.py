"""What a killed server brings back is known for what it is, and nothing else is taken for it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from tests.soak.brought_back import EPOCHS, Past, brought_back
from tests.soak.checker import check_bucket
from tests.soak.content import digest, make
from tests.soak.history import FAIL, OK, Op, Told, Version

BUCKET = "b"
OLD = Version("n", 10, "w-1", "w-1:100", digest(make("w-1:100")), "nuid")
MARK = Version("n", 20, "w-2", nuid="nuid", deleted=True)


def op(number: int, verb: str, begin: float, outcome: str = OK, error: str = "", **result: Any) -> Op:
    return Op(f"x-{number}", verb, BUCKET, "n", begin, begin + 0.5, outcome, error, result=result)


def told(version: Version, time: float = 101.0) -> Told:
    return Told("watcher", BUCKET, time, version)


@pytest.fixture
def past() -> Past:
    """An epoch before: an object was stored, and deleted."""
    past = Past()
    past.add([op(1, "info", 1.0, info=OLD.row())], [told(MARK, 2.0)])
    return past


def put(number: int, begin: float, revision: int) -> Op:
    done = op(number, "put", begin)
    done.args = {"body": f"x-{number}:50", "digest": digest(make(f"x-{number}:50"))}
    version = Version("n", revision, done.id, done.args["body"], done.args["digest"], f"nuid-{number}")
    done.result["info"] = version.row()
    return done


def kinds(ops: list[Op], seen: list[Told], past: Past, killed: float, *initial: Version) -> set[str]:
    back = brought_back(ops, seen, initial, past, killed)
    return {violation.kind for violation in check_bucket(BUCKET, ops, initial, 50.0, seen, back=back)}


@pytest.mark.parametrize("version", [OLD, MARK])
def test_a_version_of_before_is_known(past: Past, version: Version) -> None:
    assert brought_back([], [told(version)], [], past, 100.0) == [version]
    assert brought_back([op(2, "info", 101.0, info=version.row())], [], [], past, 100.0) == [version]
    assert brought_back([op(2, "list", 101.0, list=[version.row()])], [], [], past, 100.0) == [version]


def test_bytes_alone_tell_whose_they_are(past: Past) -> None:
    assert brought_back([op(2, "get", 101.0, digest=OLD.digest)], [], [], past, 100.0) == [OLD]
    assert brought_back([op(2, "get", 101.0, digest="0" * 64)], [], [], past, 100.0) == []


@pytest.mark.parametrize("killed", [102.0, math.inf])
def test_without_a_kill_before_nothing_comes_back(past: Past, killed: float) -> None:
    assert brought_back([], [told(OLD)], [], past, killed) == []


def test_what_differs_from_what_was_there_does_not_count(past: Past) -> None:
    for other in (replace(OLD, body="w-1:99"), replace(OLD, revision=11), replace(OLD, name="m")):
        assert brought_back([], [told(other)], [], past, 100.0) == []


def test_a_name_that_was_there_does_not_go_back(past: Past) -> None:
    newer = Version("n", 30, "w-3", "w-3:5", digest(make("w-3:5")), "nuid-3")
    assert brought_back([], [told(OLD)], [newer], past, 100.0) == []


def test_a_deleted_name_goes_back_only_when_its_marker_was_purged(past: Past) -> None:
    assert brought_back([], [told(OLD)], [MARK], past, 100.0) == []
    assert brought_back([op(2, "purge", 60.0)], [told(OLD)], [MARK], past, 100.0) == [OLD]
    assert brought_back([op(2, "purge", 60.0, FAIL)], [told(OLD)], [MARK], past, 100.0) == []
    assert brought_back([op(2, "purge", 102.0)], [told(OLD)], [MARK], past, 100.0) == []


def test_what_came_back_may_be_replaced_by_what_came_after_it(past: Past) -> None:
    assert brought_back([], [told(MARK)], [OLD], past, 100.0) == [MARK]
    assert kinds([op(2, "info", 55.0, info=OLD.row())], [told(MARK)], past, 100.0, OLD) == set()


def test_it_is_forgotten_after_some_epochs(past: Past) -> None:
    for _ in range(EPOCHS - 1):
        past.add([], [])
    assert brought_back([], [told(OLD)], [], past, 100.0) == [OLD]
    past.add([], [])
    assert brought_back([], [told(OLD)], [], past, 100.0) == []


@pytest.mark.parametrize("initial", [(), (MARK,)])
def test_what_clients_do_with_it_is_right(past: Past, initial: tuple[Version, ...]) -> None:
    absent = op(2, "get", 55.0, FAIL, "ObjectNotFoundError")
    purge = op(3, "purge", 60.0)
    read = op(4, "get", 101.0, digest=OLD.digest)
    refused = op(5, "create", 102.0, FAIL, "ObjectAlreadyExists")
    refused.args = {"body": "x-5:1", "digest": digest(make("x-5:1"))}
    replaced = put(6, 103.0, 40)
    replaced.args["if"] = 10
    ops = [absent, purge, read, refused, replaced]
    assert kinds(ops, [told(OLD)], past, 100.0, *initial) == set()
    assert "wrong bytes" in kinds(ops, [told(OLD)], past, math.inf, *initial)


def test_what_is_lost_afterwards_is_lost(past: Past) -> None:
    lost = [put(2, 103.0, 40), op(3, "get", 105.0, FAIL, "ObjectNotFoundError")]
    assert kinds(lost, [told(OLD)], past, 100.0) == {"lost"}
    stale = [put(2, 103.0, 40), op(3, "info", 105.0, info=OLD.row())]
    assert kinds(stale, [told(OLD)], past, 100.0) == {"stale or lost"}
    gone = [op(2, "info", 102.0, info=OLD.row()), op(3, "get", 105.0, FAIL, "ObjectNotFoundError")]
    assert kinds(gone, [], past, 100.0) == {"lost"}
