"""The machine of a measurement: without it, results cannot be compared."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime


def _field(path: str, key: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return next((line.partition(":")[2].strip() for line in file if line.startswith(key)), "")
    except OSError:
        return ""


def describe() -> dict[str, object]:
    """Return processor, memory, kernel, interpreter and time."""
    memory = _field("/proc/meminfo", "MemTotal").split()
    return {
        "cpu": _field("/proc/cpuinfo", "model name") or platform.processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(int(memory[0]) / 1024**2, 1) if memory else None,
        "kernel": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
