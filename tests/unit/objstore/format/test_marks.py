"""The marks of renames: as headers on the wire, as metadata in memory, and for callers not at all."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from objstore.format.marks import (
    MARKS,
    MOVED,
    MOVED_TO,
    RENAMED_FROM,
    RENAMING,
    RENAMING_AT,
    RESERVED,
    mark_lines,
    marks_in,
    shown,
    unmarked,
    was_moved,
)
from objstore.format.models import plain_info
from objstore.format.naming import MAX_NAME_BYTES, new_nuid

INFO = plain_info("a", "b", None, datetime.now(UTC), 5, 1, "SHA-256=x", new_nuid("a"), 3)
ALL = {RENAMING: "n", RENAMING_AT: "7", RENAMED_FROM: "o", MOVED: INFO.nuid, MOVED_TO: "m"}


def block(lines: bytes) -> bytes:
    return b"NATS/1.0\r\nNats-Rollup: sub\r\n" + lines + b"\r\n"


@pytest.mark.parametrize(
    "marks",
    [
        {},
        ALL,
        {RENAMING: "a b\r\nNats-Rollup: all"},
        {MOVED_TO: "\u00fc\U0001f600 >*."},
        {RENAMED_FROM: "-" * 2900},
    ],
    ids=["none", "all", "line ends", "not ASCII", "the longest name"],
)
def test_what_is_written_is_read(marks: dict[str, str]) -> None:
    lines = mark_lines({"mine": "1", **marks})
    assert lines.count(b"\r\n") == len(marks)
    assert marks_in(block(lines)) == marks


def test_names_are_as_in_subjects() -> None:
    assert mark_lines({RENAMING: "??>"}) == b"Natsproto-Renaming: " + urlsafe_b64encode(b"??>") + b"\r\n"


def test_other_headers_are_no_marks() -> None:
    assert marks_in(None) == {}
    assert marks_in(block(b"")) == {}
    assert marks_in(block(b"Natsproto-End: 17\r\n")) == {}


@pytest.mark.parametrize(
    "value", [b"", b"a", b"Yg", b"Y g=", b"/w==", b"!!!!", b"Yg==Yg==", b"YWFh" * 2900], ids=len
)
def test_what_nobody_here_wrote_is_no_mark(value: bytes) -> None:
    assert marks_in(block(b"Natsproto-Renaming: %b\r\nNatsproto-Moved-To: bQ==\r\n" % value)) == {
        MOVED_TO: "m"
    }


@pytest.mark.parametrize("value", ["", "x" * (MAX_NAME_BYTES + 1), "\u00fc" * MAX_NAME_BYTES], ids=len)
def test_what_is_no_name_is_not_written(value: str) -> None:
    """Another client wrote it into the metadata."""
    assert mark_lines({RENAMING: value, RENAMING_AT: "1"}) == b"Natsproto-Renaming-At: MQ==\r\n"


def test_text_that_is_not_utf_8_is_lost() -> None:
    assert marks_in(block(mark_lines({RENAMING: "\ud800"}))) == {}


def test_callers_do_not_see_them() -> None:
    assert shown(INFO) is INFO
    marked = replace(INFO, metadata={**ALL, "mine": "1"})
    assert unmarked(marked) == {"mine": "1"}
    assert shown(marked) == replace(INFO, metadata={"mine": "1"})
    assert {*ALL} == MARKS
    assert all(mark.startswith(RESERVED) for mark in MARKS)


def test_who_was_moved() -> None:
    marker = replace(INFO, deleted=True, nuid=new_nuid("a"), metadata={MOVED: INFO.nuid})
    assert was_moved(marker, INFO.nuid)
    assert not was_moved(replace(marker, deleted=False), INFO.nuid)
    assert not was_moved(replace(marker, name="c"), INFO.nuid)
    assert not was_moved(marker, new_nuid("a"))
