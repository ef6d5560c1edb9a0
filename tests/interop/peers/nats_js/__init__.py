"""nats.js: ``peer.mjs`` in a Node process."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from ..lines import NotInstalledError, Process

HERE = Path(__file__).parent
MODULES = HERE / "node_modules"
INSTALL_TIMEOUT = 120.0


def start() -> Process:
    """Install the packages of ``package-lock.json`` unless they are there; returns the peer's process.

    Raises:
        NotInstalledError: there is no Node, no npm, or the packages cannot be had.
    """
    node = shutil.which("node")
    if node is None:
        raise NotInstalledError("node")
    lock = (HERE / "package-lock.json").read_bytes()
    stamp = MODULES / ".installed-from"
    if not stamp.exists() or stamp.read_bytes() != lock:
        npm = shutil.which("npm")
        if npm is None:
            raise NotInstalledError("npm")
        command = [npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"]
        try:
            subprocess.run(command, cwd=HERE, capture_output=True, timeout=INSTALL_TIMEOUT, check=True)
        except (subprocess.SubprocessError, OSError) as exc:
            raise NotInstalledError("what package-lock.json of nats.js names (npm ci)") from exc
        stamp.write_bytes(lock)
    return Process([node, str(HERE / "peer.mjs")])
