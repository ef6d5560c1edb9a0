"""What maintenance reports: plain values, whose lists are their own."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from datetime import UTC, datetime

import pytest

from objstore.maintenance.reports import GcReport, Orphan, Problem, VerifyReport


def test_a_report_without_problems_is_ok() -> None:
    report = VerifyReport("b", 3, 1, 1000, deep=False)
    assert report.ok
    report.problems.append(Problem("damaged", "a", "digest", 7))
    assert not report.ok
    assert VerifyReport("b", 0, 0, 0, deep=True).problems == [], "no report shares its list"


def test_a_collection_begins_with_nothing() -> None:
    report = GcReport("b", dry_run=True)
    report.orphans.append(Orphan("n", 2, datetime.now(UTC), removed=False))
    again = GcReport("b", dry_run=True)
    assert (again.orphans, again.recent, again.renames, again.unreadable) == ([], [], [], [])


@pytest.mark.parametrize(
    ("value", "field"),
    [
        (Problem("damaged", "a", "d", 1), "kind"),
        (VerifyReport("b", 0, 0, 0, deep=False), "size"),
        (Orphan("n", 1, datetime.now(UTC), removed=True), "removed"),
        (GcReport("b", dry_run=False), "bucket"),
    ],
)
def test_facts_do_not_change(value: object, field: str) -> None:
    with pytest.raises(FrozenInstanceError):
        setattr(value, field, None)
    assert value == value.__class__(**{name: getattr(value, name) for name in value.__slots__})  # type: ignore[attr-defined]
