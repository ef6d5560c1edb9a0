"""natsrpy, async-nats (nats.rs) under a Python surface: ``peer.py`` in a process of its own.

Its panics take the process along: not the one of the tests.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from ..lines import NotInstalledError, Process


def start() -> Process:
    """The peer's process.

    Raises:
        NotInstalledError: there is no natsrpy.
    """
    if importlib.util.find_spec("natsrpy") is None:
        raise NotInstalledError("natsrpy")
    return Process([sys.executable, str(Path(__file__).parent / "peer.py")])
