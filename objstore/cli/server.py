"""``server``: a JetStream server over a directory that is kept, for other commands and programs."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
from argparse import Namespace
from typing import TYPE_CHECKING

from .local import LocalDirectory
from .output import CommandError, Output

if TYPE_CHECKING:
    from natsproto.server import LocalServer

LOOK = 0.5
"""Seconds between two looks at the server's process."""


def check(args: Namespace) -> None:
    """Refuse options that do not apply.

    Raises:
        CommandError: exit code 2.
    """
    if args.local is not None or args.server is not None or args.context is not None:
        raise CommandError("server: it is the server: omit --server, --context and --local; name DIR", 2)


async def server(args: Namespace, out: Output) -> None:
    """``server [DIR]``, until it is interrupted.

    Raises:
        CommandError: another command serves the directory, or the server has ended.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    try:
        async with LocalDirectory(args.directory, args.port) as directory:
            if directory.exposed:
                out.warn(directory.exposed)
            if not await directory.try_start():
                holder = directory.lock.read().get("starter", "unknown")
                raise CommandError(
                    f"server: {directory.directory!r} is served by process {holder} already: use it with "
                    f"--local {shlex.quote(args.directory)}",
                    4,
                )
            running = directory.server
            assert running is not None
            _tell(directory, running, out)
            await out.flow()
            await _until(stop, running)
        out.note("the server has ended; its data is kept")
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


def _tell(directory: LocalDirectory, running: LocalServer, out: Output) -> None:
    """Print how to connect, and only that: the token is for whoever may read this output."""
    if out.json:
        out.record(
            {
                "url": directory.url,
                "directory": directory.directory,
                "pid": running.pid,
                "version": running.version,
            }
        )
        return
    name = shlex.quote(os.path.relpath(directory.directory))
    out.facts(
        [
            ("Server", f"nats-server {running.version}, pid {running.pid}"),
            ("Data", directory.directory),
            ("URL", directory.url),
            ("Shell", f"export NATS_URL={directory.url}"),
            ("Or", f"objstore --local {name} ls"),
            ("End", "Ctrl-C"),
        ]
    )


async def _until(stop: asyncio.Event, running: LocalServer) -> None:
    while not stop.is_set():
        if not running.running:
            raise CommandError(f"server: nats-server has ended: {running.log(3)}", 5)
        try:
            async with asyncio.timeout(LOOK):
                await stop.wait()
        except TimeoutError:
            pass
