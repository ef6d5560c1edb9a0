"""Every test here ends without a task of ours still running."""

from __future__ import annotations

import pytest

from support.leaks import no_task_left

nothing_left = pytest.fixture(autouse=True)(no_task_left)
