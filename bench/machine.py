"""The machine of a measurement: without it, results cannot be compared."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from objstore.bench import machine

from .errors import BenchError

ROOT = Path(__file__).resolve().parent.parent


def revision(tree: Path = ROOT) -> str:
    """The git revision of a checkout, this one by default, followed by ``+`` when files were changed."""
    git = ["git", "-C", str(tree)]
    try:
        head = subprocess.run(
            [*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
        )
        status = [*git, "status", "--porcelain", "--", ".", ":(exclude)bench/results"]  # which a run writes
        changes = subprocess.run(status, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.stdout.strip() + ("+" if changes.stdout.strip() else "")


def describe() -> dict[str, Any]:
    """Machine, kernel, interpreter, time, and the revision of this project."""
    return {**machine.describe(), "revision": revision()}


def need_disk(size: int) -> None:
    """Check that the disk of the temporary directory has room.

    Raises:
        BenchError: fewer than ``size`` bytes plus a margin are free.
    """
    directory = tempfile.gettempdir()
    wanted = size + 512 * 1024 * 1024
    free = shutil.disk_usage(directory).free
    if free < wanted:
        raise BenchError(
            f"{directory} has {free >> 20} MiB free and {wanted >> 20} are needed: set TMPDIR, or use --quick"
        )
