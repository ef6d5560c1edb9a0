"""The table of what is not run names things that there are."""

from __future__ import annotations

from interop import gaps, servers, test_matrix


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
