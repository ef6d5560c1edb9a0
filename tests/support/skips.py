"""What a test does when a part it needs is not installed."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest

STRICT = os.environ.get("NATSPROTO_STRICT") == "1"


def missing(what: str) -> NoReturn:
    """Skip visibly, or fail where the part must be there."""
    if STRICT:
        pytest.fail(f"{what} is missing, and NATSPROTO_STRICT=1 forbids skipping")
    pytest.skip(f"{what} is not installed")
