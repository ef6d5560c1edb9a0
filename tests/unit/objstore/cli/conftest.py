"""Commands on a server in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from objstore.cli import commands, maintain, transfer
from objstore.cli.connection import Session
from objstore.cli.main import build_parser
from objstore.cli.output import Output
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

    for module in (commands, maintain, transfer):
        monkeypatch.setattr(module, "session", session)

    async def run(*words: str) -> tuple[str, str]:
        args = build_parser().parse_args(words)
        out = Output(json=args.json, quiet=args.quiet)
        capsys.readouterr()
        try:
            commands.check(args)
            await commands.HANDLERS[args.command](args, out)
        finally:
            out.deliver()
        printed = capsys.readouterr()
        return printed.out, printed.err

    return run
