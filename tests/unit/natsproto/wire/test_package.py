"""The package as a user of it alone sees it."""

from __future__ import annotations

import doctest
import subprocess
import sys

from natsproto import headers, wire
from support.imports import ROOT


def test_doc_examples() -> None:
    for module in (wire, headers):
        result = doctest.testmod(module)
        assert result.attempted > 0
        assert result.failed == 0


def test_no_input_or_output_is_imported() -> None:
    code = (
        "import natsproto.wire, natsproto.headers, natsproto.subjects, sys;"
        "print([m for m in ('asyncio', 'socket', 'ssl', 'logging', 'secrets') if m in sys.modules])"
    )
    # -S: what the environment loads into every interpreter is not ours.
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == "[]"


def test_everything_named_exists() -> None:
    assert all(hasattr(wire, name) for name in wire.__all__)
