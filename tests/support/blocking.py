"""Blocking connections to a server in memory, and programs in interpreters of their own."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Generator
from typing import Any

from natsproto.aio.client import Client as AsyncClient
from objstore.blocking.call import under_way
from objstore.blocking.client import Client
from objstore.blocking.loop_thread import Link
from support.imports import ROOT
from support.memory_server import MemoryServer

SECONDS = 30.0

WARNINGS = ("-W", "always::ResourceWarning", "-W", "ignore::DeprecationWarning")


class InMemory:
    """In the place of options: awaited in the loop's thread, it makes a server there, and a client of it."""

    server: MemoryServer

    def __await__(self) -> Generator[Any, None, AsyncClient]:
        self.server = MemoryServer()
        yield from ()
        return self.server.client


async def just_made() -> None:
    """In the loop's thread: the caller is interrupted, too late to stop what it waits for."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    try:
        await under_way().ask(interrupt)
    except asyncio.CancelledError:
        pass


def memory_client() -> tuple[Client, MemoryServer]:
    """A blocking client, and the server that it talks to; the server belongs to the loop's thread."""
    options: Any = InMemory()
    return Client(Link(options)), options.server


def program(source: str, *arguments: str) -> subprocess.Popen[str]:
    """Start a program in an interpreter of its own; it says what is never said by accident."""
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    return subprocess.Popen(
        # From Python 3.12 on, os.fork() warns of threads.
        [sys.executable, *WARNINGS, "-c", source, *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def output(source: str, *arguments: str) -> str:
    """Run a program; what it prints. It must end by itself, well, and without a word on standard error."""
    done = program(source, *arguments)
    out, err = done.communicate(timeout=SECONDS)
    assert (done.returncode, err) == (0, ""), out + err
    return out
