"""What cannot be read is reported."""

from __future__ import annotations

import pytest

from objstore import InvalidMeta
from objstore.format.codec import MetaDecodeError
from objstore.listing.decode import report_invalid


def test_a_callback_that_raises_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def raises(invalid: InvalidMeta) -> None:
        raise ValueError("of the application")

    report_invalid(raises, InvalidMeta("$O.b.M.x", 1, MetaDecodeError("no JSON")))
    assert caplog.records[0].getMessage() == "on_invalid raised"
