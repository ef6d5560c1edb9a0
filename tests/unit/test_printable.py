"""What a peer says is not typed on a terminal or into a log: it is escaped in messages and records."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natsproto import errors as nats_errors
from natsproto._values import brief, cut, printable
from natsproto.errors import NatsError, NoRespondersError, ServerError, ServerProcessError
from natsproto.jetstream.api.errors import api_error
from objstore import errors as store_errors
from objstore.format.codec import MetaDecodeError
from objstore.format.models import InvalidMeta
from objstore.listing.decode import warn_invalid

EVIL = "\x1b]0;owned\x07\r\n2026-01-01 ERROR forged \u202e\u2028\x9b2J\udcff"


def kinds(kind: type[NatsError] = NatsError) -> list[type[NatsError]]:
    found = [kind]
    for each in kind.__subclasses__():
        found += kinds(each)
    return found


@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.__name__)
def test_every_error(kind: type[NatsError]) -> None:
    """However it was made: what is not printable in its text is escaped when it is shown."""
    error = kind.__new__(kind)
    BaseException.__init__(error, EVIL)
    error.args = (EVIL,)
    text = str(error)
    if kind is ServerProcessError:  # it quotes lines of a log
        text = "".join(text.splitlines())
    assert text.isprintable(), ascii(text)
    assert "owned" in text
    assert f"{error}".replace("\n", "").isprintable()


def test_all_kinds_are_there() -> None:
    assert {ServerError, NoRespondersError} <= set(kinds())
    assert len(kinds()) > 50
    assert nats_errors.NatsError in store_errors.ObjectNotFoundError.__mro__


@given(st.text(st.characters(), max_size=50))
def test_the_helper(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert (shown == text) == text.isprintable()


@given(st.text(st.characters(), max_size=50), st.integers(1, 40))
def test_what_is_cut_is_short_as_it_is_shown(text: str, most: int) -> None:
    """The bound is for what a log gets: an escape takes up to ten characters."""
    shown = cut(text, most)
    assert len(brief(text, most)) <= 2 * most + len("''…")
    if len(printable(text)) <= most:
        assert shown == text
        return
    begin = shown[:-1]
    assert shown == f"{begin}…"
    assert text.startswith(begin)
    assert len(printable(begin)) <= most < len(printable(text[: len(begin) + 1]))


@pytest.mark.parametrize(
    "error",
    [
        ServerError(EVIL),
        NoRespondersError(EVIL),
        api_error({"code": 400, "err_code": 1, "description": EVIL}),
        api_error({"code": 404, "err_code": 10059, "description": EVIL}),
    ],
    ids=lambda error: type(error).__name__,
)
def test_texts_of_a_server(error: NatsError) -> None:
    assert str(error).isprintable()
    assert repr(error).isprintable()


def test_a_subject_in_a_log_record(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    warn_invalid(InvalidMeta(f"$O.b.M.{EVIL}", 3, MetaDecodeError(EVIL, subject=EVIL)))
    (record,) = caplog.records
    assert record.getMessage().isprintable()
