"""Commands on a server in this process."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from objstore.cli import table
from objstore.cli.connection import Session
from objstore.cli.output import Output
from objstore.cli.parser import parse
from support.memory_server import MemoryServer

Command = Callable[..., Awaitable[tuple[str, str]]]


@pytest.fixture
async def command(
    server: MemoryServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Runs a command line; returns what it has written to standard output and error."""

    @asynccontextmanager
    async def session(args: Any, out: Output) -> AsyncIterator[Session]:
        yield Session(server.client, server.js, patient=False)

    async def run(*words: str) -> tuple[str, str]:
        args = parse(words)
        out = Output(json=args.json, quiet=args.quiet)
        capsys.readouterr()
        try:
            handler = table.handler(args)
            monkeypatch.setattr(sys.modules[handler.__module__], "session", session)
            running = handler(args, out)
            assert running is not None
            await running
        finally:
            out.deliver()
        printed = capsys.readouterr()
        return printed.out, printed.err

    return run
