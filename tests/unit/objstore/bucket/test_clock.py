"""The server's time, where it tells one that can be."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from objstore.bucket.clock import server_time


def told(ts: object) -> datetime:
    info: Any = SimpleNamespace(raw={} if ts is None else {"ts": ts})
    return server_time(info)


def test_by_its_own_word() -> None:
    assert told("2020-01-02T03:04:05Z") == datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize("ts", [None, 5, [], "never", "0001-01-01T00:00:00Z", "1969-12-31T23:59:59Z"])
def test_ours_has_to_do(ts: object) -> None:
    before = datetime.now(UTC)
    assert before <= told(ts) <= datetime.now(UTC)
    assert told(ts) - timedelta(days=365 * 300)  # the longest window of a stream
