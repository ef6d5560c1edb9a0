"""One fixture: runs a function for some rounds, and records its rate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture
def measure(benchmark: Any) -> Callable[..., Any]:
    """``measure(function, *args, count=…, size=…)`` returns what the function returned.

    Args:
        count: operations in one call; *extra_info* gives the operations per second.
        size: bytes of each; *extra_info* then also gives the rate in MB/s.
        setup: returns the arguments of each round, instead of ``args``.
    """

    def run(
        function: Callable[..., Any],
        *args: Any,
        count: int,
        size: int = 0,
        setup: Callable[[], Any] | None = None,
    ) -> Any:
        given = {"args": args} if setup is None else {"setup": setup}
        result = benchmark.pedantic(function, rounds=9, warmup_rounds=2, **given)
        if benchmark.enabled:
            rate = count / benchmark.stats.stats.min
            benchmark.extra_info["per_second"] = round(rate)
            if size:
                benchmark.extra_info["mb_per_second"] = round(rate * size / 1e6)
        return result

    return run
