"""Growing pauses: doubling up to a ceiling, with jitter where many clients wait for one server."""

from __future__ import annotations

import random

from natsproto.backoff import CEILING, FIRST, Backoff, jittered


def test_doubles_up_to_the_ceiling_and_begins_again() -> None:
    backoff = Backoff()
    seen = []
    for _ in range(7):
        seen.append(backoff.seconds)
        backoff.grow()
    assert seen == [FIRST, 2 * FIRST, 4 * FIRST, 8 * FIRST, 16 * FIRST, CEILING, CEILING]
    backoff.reset()
    assert backoff.seconds == FIRST


def test_backoff_doubles_with_jitter_up_to_the_ceiling() -> None:
    rng = random.Random(7)
    assert jittered(0, first=0.1, ceiling=4, rng=rng) == 0
    for attempt in range(1, 200):
        limit = min(4, 0.1 * 2 ** (attempt - 1))
        waits = [jittered(attempt, first=0.1, ceiling=4, rng=rng) for _ in range(20)]
        assert all(limit / 2 <= wait <= limit for wait in waits)
        assert len(set(waits)) > 1
    assert jittered(10**9, first=0.1, ceiling=4, rng=rng) <= 4
