"""Which subjects of a page can be asked for, one by one."""

from __future__ import annotations

import pytest

from objstore.commit.references import _can_be_asked_for


@pytest.mark.parametrize(
    ("subject", "expected"),
    [
        ("$O.b.M.bmFtZQ==", True),
        ("$O.b.M.ä🎉", True),
        ("$O.b.M.a*b>c", True),
        ("$O.b.M.\ufffd", False),
        ("$O.b.M.a\ud800", False),
        ("$O.b.M.*", False),
        ("$O.b.M.a.>", False),
        ("*.b", False),
        ("$O.b.M.*.a", False),
    ],
)
def test_what_can_be_asked_for(subject: str, expected: bool) -> None:
    assert _can_be_asked_for(subject) is expected
