"""The packages load their parts when they are named, and say what they have."""

from __future__ import annotations

import subprocess
import sys

import pytest

from support.imports import ROOT

PARTS = {
    "natsproto": ("errors", "wire", "server", "jetstream", "testing", "connect", "Client"),
    "objstore": ("errors", "format", "manager", "sync", "ObjectStore", "MAX_CHUNK_SIZE"),
}


@pytest.mark.parametrize("package", PARTS)
def test_parts_are_loaded_by_their_names(package: str) -> None:
    """In an interpreter of its own: here, everything has been loaded already."""
    program = (
        f"import {package}\n"
        f"for name in {PARTS[package]!r}: assert getattr({package}, name) is getattr({package}, name), name\n"
        f"assert dir({package}) == sorted({package}.__all__)\n"
        f"for name in dir({package}): getattr({package}, name)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60, cwd=ROOT)


@pytest.mark.parametrize("package", PARTS)
def test_what_is_not_there(package: str) -> None:
    module = __import__(package)
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'nonsense'"):
        _ = module.nonsense
