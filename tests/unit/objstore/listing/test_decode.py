"""What cannot be read is reported."""

from __future__ import annotations

import pytest

from objstore import InvalidMeta
from objstore.format.codec import MetaDecodeError
from objstore.listing.decode import bounded_warnings, report_invalid


def test_a_callback_that_raises_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def raises(invalid: InvalidMeta) -> None:
        raise ValueError("of the application")

    report_invalid(raises, InvalidMeta("$O.b.M.x", 1, MetaDecodeError("no JSON")))
    assert caplog.records[0].getMessage() == "on_invalid raised"


def test_a_watch_warns_of_some(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever may write one meta decides how many cannot be read."""
    warn = bounded_warnings()
    for revision in range(1000):
        warn(InvalidMeta("$O.b.M.x", revision, MetaDecodeError("no JSON")))
    texts = [record.getMessage() for record in caplog.records]
    assert (
        texts[0] == "a meta message on '$O.b.M.x' (revision 0) is skipped: unreadable meta message: no JSON"
    )
    assert 11 <= len(texts) <= 100
