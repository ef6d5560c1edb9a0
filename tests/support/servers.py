"""Which nats-server is the old end of the supported range, and scripts in a server's place."""

from __future__ import annotations

import os
import shutil
from functools import cache
from pathlib import Path
from typing import NoReturn

from natsproto.errors import ServerProcessError
from natsproto.server import find_server
from support.skips import left_out, missing


@cache
def find_old_server() -> str | None:
    """Path of nats-server 2.9; ``None`` where there is none: newer Debians pack a newer one."""
    if named := os.environ.get("NATSPROTO_OLD_SERVER"):
        return named
    path = shutil.which("nats-server", path="/usr/sbin:/usr/bin")
    try:
        return path if path is not None and find_server(path).version_info < (2, 10) else None
    except ServerProcessError:
        return None


def old_binary() -> str:
    """Path of nats-server 2.9; without one the test is skipped."""
    path = find_old_server()
    if path is None:
        old_is_missing()
    return path


def old_is_missing() -> NoReturn:
    """Skip a test that needs nats-server 2.9; under ``NATSPROTO_STRICT=1`` if the run asked for it."""
    if os.environ.get("NATSPROTO_SERVERS") == "new":
        left_out("no nats-server 2.9 is installed, and NATSPROTO_SERVERS=new does not ask for one")
    missing("nats-server 2.9.10 (Debian's package nats-server)")


def fake_server(path: Path, body: str, version: str = "nats-server: v9.9.9") -> Path:
    """A script under that path which tells a version, and runs ``body`` when it is started."""
    path.write_text(f'#!/bin/sh\n[ "$1" = --version ] && {{ echo "{version}"; exit 0; }}\n{body}\n')
    path.chmod(0o755)
    return path
