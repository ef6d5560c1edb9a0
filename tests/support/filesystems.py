"""``natsobj://`` in tests: known to fsspec, and the libraries that use it."""

from __future__ import annotations

from importlib.util import find_spec

import fsspec
import pytest

from objstore.filesystem import NatsObjectFileSystem
from objstore.filesystem.connections import _close_all
from support.skips import left_out, missing

LIBRARIES = ("pandas", "pyarrow", "zarr", "dask")
"""What the extra ``integrations`` installs."""


def register() -> None:
    """Make the protocol known where the entry point is not: in an environment installed before it existed."""
    fsspec.register_implementation("natsobj", NatsObjectFileSystem, clobber=True)


def close_all() -> None:
    """Close the connections of all file systems: fsspec keeps those that libraries have made."""
    _close_all()


def lacking(*names: str) -> list[str]:
    """Those of the libraries that are not installed."""
    return [name for name in names if find_spec(name) is None]


def need(config: pytest.Config, *names: str) -> None:
    """Skip a test visibly without these libraries; ``-m integrations`` asks for them, and so needs them."""
    gone = lacking(*names)
    if gone and "integrations" in config.option.markexpr.replace("not integrations", ""):
        missing(", ".join(gone))
    if gone:
        left_out(f"{', '.join(gone)} is in the extra 'integrations': .ci/run tests with it")
