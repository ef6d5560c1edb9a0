"""The machine of a measurement: without it, results cannot be compared."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .errors import BenchError

ROOT = Path(__file__).resolve().parent.parent


def _field(path: str, key: str) -> str:
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), "")


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
    """Machine, kernel, interpreter, revision and time."""
    memory = _field("/proc/meminfo", "MemTotal").split()
    return {
        "cpu": _field("/proc/cpuinfo", "model name") or platform.processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(int(memory[0]) / 1024**2, 1) if memory else None,
        "kernel": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "revision": revision(),
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


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
