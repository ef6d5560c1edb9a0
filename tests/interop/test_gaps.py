"""The table of what is not run names things that there are."""

from __future__ import annotations

import pytest

from interop import gaps, matrix, servers, test_matrix

PAGE = matrix.TESTS.parent / "docs" / "interop.md"


def test_gaps_name_what_there_is() -> None:
    operations = {name.removeprefix("test_") for name in vars(test_matrix) if name.startswith("test_")}
    for gap in gaps.KNOWN_GAPS:
        assert gap.peer in gaps.PEERS
        assert gap.operation in operations
        assert gap.direction in (None, *gaps.DIRECTIONS)
        assert gap.server in (None, *servers.SERVERS)
        assert gap.reason
    assert set(gaps.READING) <= operations
    assert gaps.ACK_V2 in servers.SERVERS


@pytest.mark.skipif(not PAGE.exists(), reason="no docs here")
def test_the_page_has_what_is_written_by_hand() -> None:
    page = PAGE.read_text()
    assert page.startswith(matrix.HEAD.format())
    assert page.endswith("\n\n" + matrix.ADR.read_text())
    rows = [line for line in matrix.ADR.read_text().splitlines() if line.startswith("|")]
    assert {row.count(" | ") for row in rows} == {2}
