"""What may be sent as a subject, and what a pattern matches."""

from __future__ import annotations

import pytest

from natsproto.errors import BadSubjectError
from natsproto.subjects import (
    MAX_LINE,
    MAX_NAMES,
    check_names,
    check_publish_subject,
    check_queue,
    check_subscribe_subject,
    split_api_subject,
    subject_matches,
)
from natsproto.wire import pub_line

GOOD = [
    "a",
    "a.b.c",
    "$JS.API.INFO",
    "_INBOX.x.1",
    "a*b",
    "a>b",
    "**",
    "grün.ok",
    "a\u2028b",
    "\u00a0",
    "-",
    "a/b",
]
WILD = ["*", ">", "a.*", "a.>", "*.*.>", "a.*.b"]
UNSAFE = ["", " ", "a b", "a\t", "\r\n", "a\nb", "a\x00", "a\x0b", "a\x1f", "a\x7f", "\ud800"]
EMPTY_TOKEN = [".", "a.", ".a", "a..b"]


@pytest.mark.parametrize("subject", GOOD)
def test_good(subject: str) -> None:
    assert check_publish_subject(subject) == subject.encode()
    assert check_subscribe_subject(subject) == subject.encode()


@pytest.mark.parametrize("subject", WILD)
def test_wildcards_are_for_subscriptions(subject: str) -> None:
    assert check_subscribe_subject(subject) == subject.encode()
    with pytest.raises(BadSubjectError, match="wildcard"):
        check_publish_subject(subject)


@pytest.mark.parametrize("subject", UNSAFE + EMPTY_TOKEN)
def test_bad(subject: str) -> None:
    for check in (check_publish_subject, check_subscribe_subject):
        for _ in range(2):  # errors are not cached away
            with pytest.raises(BadSubjectError):
                check(subject)


def test_names_longer_than_a_control_line() -> None:
    """A server ends the connection of whoever sends one."""
    longest = "ä" * (MAX_NAMES // 2)
    for check in (check_publish_subject, check_subscribe_subject, check_queue):
        assert check(longest) == longest.encode()
        with pytest.raises(BadSubjectError, match=f"{MAX_NAMES + 1} bytes") as caught:
            check(longest + "x")
        assert len(str(caught.value)) < 300
    check_names(b"s" * 66, b"r" * (MAX_NAMES - 66))
    with pytest.raises(BadSubjectError, match="too long"):
        check_names(b"s" * 67, b"r" * (MAX_NAMES - 66))
    line = pub_line(b"s" * 66, b"r" * (MAX_NAMES - 66), 9_999_999_999, 0)
    assert len(line) == MAX_LINE


def test_errors_quote_the_beginning_of_a_long_name() -> None:
    for bad in ("a." * 2000, "*." * 1000 + "a", "\ud800" * 1000, " " * 3000):
        with pytest.raises(BadSubjectError) as caught:
            check_publish_subject(bad)
        assert len(str(caught.value)) < 700


@pytest.mark.parametrize("subject", [">.a", "a.>.b", ">.>"])
def test_full_wildcard_only_at_the_end(subject: str) -> None:
    with pytest.raises(BadSubjectError, match="last token"):
        check_subscribe_subject(subject)


def test_queue() -> None:
    assert check_queue("work.ers") == b"work.ers"
    for name in UNSAFE:
        with pytest.raises(BadSubjectError):
            check_queue(name)


@pytest.mark.parametrize(
    ("pattern", "subject", "expected"),
    [
        ("a", "a", True),
        ("a", "b", False),
        ("a", "a.b", False),
        ("a.b", "a", False),
        ("*", "a", True),
        ("*", "a.b", False),
        ("a.*.c", "a.b.c", True),
        ("a.*.c", "a.b.d", False),
        (">", "a.b.c", True),
        ("a.>", "a.b", True),
        ("a.>", "a", False),
        ("a.>", "b.c", False),
        ("*.>", "a.b.c", True),
        ("a*", "ab", False),
        ("a.*", "a.b.c", False),
    ],
)
def test_matches(pattern: str, subject: str, expected: bool) -> None:
    assert subject_matches(pattern, subject) is expected


@pytest.mark.parametrize(
    ("subject", "expected"),
    [
        ("$JS.API.INFO", ("", "INFO")),
        ("$JS.hub.API.INFO", ("hub", "INFO")),
        ("$JS.API.API.INFO", ("API", "INFO")),  # a domain may have that name
        ("$JS.hub.API.STREAM.INFO.API.x", ("hub", "STREAM.INFO.API.x")),
        ("$JS.API.DIRECT.GET.S.a\nb", ("", "DIRECT.GET.S.a\nb")),
        ("$JS.a.b.API.INFO", None),
        ("$JS.ACK.S.c.1", None),
        ("$JS.API", None),
        ("$JS.API.", None),
        ("acme.$JS.API.INFO", None),
    ],
)
def test_the_subject_of_an_api_request(subject: str, expected: tuple[str, str] | None) -> None:
    found = split_api_subject(subject.encode())
    assert (found and tuple(each.decode() for each in found)) == expected
