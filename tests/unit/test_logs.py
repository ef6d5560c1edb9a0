"""What a peer can cause as often as it likes does not fill the log."""

from __future__ import annotations

import logging

import pytest

from natsproto._values import brief
from natsproto.aio import callbacks
from natsproto.aio.callbacks import MOST_LINES, BoundedLog
from natsproto.errors import NoRespondersError, PermissionsViolationError, ServerError
from objstore.format.codec import MetaDecodeError
from objstore.format.models import InvalidMeta
from objstore.listing.decode import warn_invalid
from support.fake_session import FakeServer


def test_lines_of_a_kind(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(callbacks.time, "monotonic", lambda: now)
    bounded = BoundedLog(logging.getLogger("natsproto"))
    for _ in range(2):
        caplog.clear()
        for _ in range(1000):
            bounded.warning("this", "%d", 1)
        bounded.warning("that", "%d", 2)
        assert [record.getMessage() for record in caplog.records[:MOST_LINES]] == ["1"] * MOST_LINES
        assert "more of that (this)" in caplog.records[MOST_LINES].getMessage()
        assert [record.getMessage() for record in caplog.records[MOST_LINES + 1 :]] == ["2"]
        now += 1.0


def test_names_in_messages() -> None:
    assert brief("a\n") == "'a\\n'"
    assert brief("x" * 80) == repr("x" * 80)
    assert brief("x" * 81) == repr("x" * 80) + "…"
    for error in (NoRespondersError("s" * 4000), ServerError("s" * 60_000)):
        assert len(str(error)) < 500


async def test_refusals_of_answers(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer names reply subjects that the one who answers may not publish to."""
    server = FakeServer()
    monkeypatch.setattr(callbacks.time, "monotonic", lambda: 100.0)
    session = server.session
    for n in range(1000):
        text = f'Permissions Violation for Publish to "x{n}.{"y" * 3900}"'
        assert server.connection.server_error(session, text)  # type: ignore[arg-type]
    assert len(caplog.records) == MOST_LINES + 1
    assert all(len(record.getMessage()) < 300 for record in caplog.records)
    assert isinstance(server.client.last_error, PermissionsViolationError)
    assert server.client.last_error.subject.startswith("x999.")
    assert len(server.client.last_error.subject) > 3900


def test_metas_that_cannot_be_read(caplog: pytest.LogCaptureFixture) -> None:
    warn_invalid(InvalidMeta("$O.b.M." + "x" * 3900, 7, MetaDecodeError("no JSON")))
    (record,) = caplog.records
    assert len(record.getMessage()) < 300
