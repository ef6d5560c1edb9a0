"""What a test does when a part it needs is not there.

Two kinds: what this machine lacks is :func:`missing`, and a failure under ``NATSPROTO_STRICT=1``, as is every
other skip. What was left out on purpose, or does not exist in this combination, is :func:`left_out`, with the
reason.
"""

from __future__ import annotations

import os
from typing import NoReturn

import pytest

STRICT = os.environ.get("NATSPROTO_STRICT") == "1"

_LEFT_OUT = "left out: "


def missing(what: str) -> NoReturn:
    """Skip visibly, or fail where the part must be there."""
    if STRICT:
        pytest.fail(f"{what} is missing, and NATSPROTO_STRICT=1 forbids skipping")
    pytest.skip(f"{what} is not installed")


def left_out(why: str) -> NoReturn:
    """Skip visibly, everywhere."""
    pytest.skip(_LEFT_OUT + why)


def is_wanted(reason: str) -> bool:
    """Whether that reason of a skip is one of :func:`left_out`."""
    return _LEFT_OUT in reason
