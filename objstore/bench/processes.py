"""Client processes: measured from one common start, ended with the process that started them.

A process gets its part on standard input, as a pickle, then one byte for the start, and says what it has to
say as pickles on standard output. It is in a session of its own: an interrupt at the terminal is for the
command alone, which then ends the others. When the command dies in any way, standard input ends, and so do
they.
"""

from __future__ import annotations

import asyncio
import pickle
import struct
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from typing import cast

from .load import together
from .record import Figures, Totals
from .share import Link, Share, measure

Connect = Callable[[], AbstractAsyncContextManager[Link]]
"""Opens a connection. It can be pickled."""

PROGRAM = "import sys; sys.path[:] = {!r}; from objstore.bench.processes import main; main()"
READY = "ready"
END = 5.0
"""Seconds a process has to end by itself."""


@dataclass(frozen=True)
class Lost:
    """What a process says that could not do its part.

    Attributes:
        error: why.
    """

    error: Exception


class ProcessEndedError(Exception):
    """A client process ended before it was finished."""


class _Process:
    """One client process, as the command sees it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def say(self, data: bytes) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(data)
        try:
            await self._process.stdin.drain()
        except ConnectionError:
            pass  # it has ended, and hear() says so

    async def hear(self) -> object:
        assert self._process.stdout is not None
        try:
            found: object = await _read(self._process.stdout)
        except asyncio.IncompleteReadError:
            code = await self._process.wait()
            raise ProcessEndedError(f"a client process ended with exit code {code}") from None
        if isinstance(found, Lost):
            raise found.error
        return found

    async def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(END):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()


async def measure_in(
    shares: list[Share], connect: Connect, report: Callable[[int, Totals], None]
) -> list[Figures]:
    """Let a process of its own do each part, all from the same start.

    Args:
        shares: the parts.
        connect: opens the connection of a process.
        report: gets the number of a process and its state, a few times a second.

    Raises:
        ProcessEndedError: one was killed.
        Exception: what went wrong in one of them.
    """
    processes: list[_Process] = []
    figures: dict[int, Figures] = {}
    try:
        for share in shares:
            processes.append(await _start(share, connect))  # noqa: PERF401 - those that started are ended

        async def ready(number: int, process: _Process) -> None:
            while (found := await process.hear()) != READY:
                if isinstance(found, Totals):
                    report(number, found)

        async def go(process: _Process) -> None:
            await process.say(b"!")

        async def finish(number: int, process: _Process) -> None:
            while not isinstance(found := await process.hear(), Figures):
                if isinstance(found, Totals):
                    report(number, found)
            figures[number] = found

        await together(ready(number, process) for number, process in enumerate(processes))
        await together(go(process) for process in processes)
        await together(finish(number, process) for number, process in enumerate(processes))
        return [figures[number] for number in range(len(shares))]
    finally:
        await together(process.end() for process in processes)


async def _start(share: Share, connect: Connect) -> _Process:
    found = _Process(
        await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            PROGRAM.format(sys.path),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
    )
    await found.say(_pickled((share, connect)))
    return found


def _pickled(value: object) -> bytes:
    data = pickle.dumps(value)
    return struct.pack(">I", len(data)) + data


async def _read(stream: asyncio.StreamReader) -> object:
    (size,) = struct.unpack(">I", await stream.readexactly(4))
    return pickle.loads(await stream.readexactly(size))


def carried(exc: Exception) -> Exception:
    """Return an error as it can be sent to another process: itself, or its text."""
    try:
        return exc if type(pickle.loads(pickle.dumps(exc))) is type(exc) else RuntimeError(str(exc))
    except Exception:  # whatever its class does
        return RuntimeError(f"{type(exc).__name__}: {exc}")


async def serve(stream: asyncio.StreamReader, write: Callable[[bytes], None]) -> None:
    """Do the part that comes from a stream; write what there is to say. The end of the stream ends it."""
    share, connect = cast("tuple[Share, Connect]", await _read(stream))

    async def work() -> None:
        async def gate() -> None:
            write(_pickled(READY))
            await started.wait()

        try:
            async with connect() as link:
                found: object = await measure(share, link, gate, lambda totals: write(_pickled(totals)))
        except Exception as exc:
            found = Lost(carried(exc))
        write(_pickled(found))

    started = asyncio.Event()
    working = asyncio.create_task(work())

    async def listen() -> None:
        while await stream.read(1):
            started.set()
        working.cancel()

    listening = asyncio.create_task(listen())
    with suppress(asyncio.CancelledError):
        await working
    listening.cancel()
    with suppress(asyncio.CancelledError):
        await listening


def main() -> None:
    """Run one client process on standard input and output."""
    output = sys.stdout.buffer
    sys.stdout = sys.stderr  # nothing else may end up among the pickles

    def write(data: bytes) -> None:
        output.write(data)
        output.flush()

    async def run() -> None:
        stream = asyncio.StreamReader(limit=1 << 26)
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stream), sys.stdin)
        await serve(stream, write)

    with suppress(BrokenPipeError):
        asyncio.run(run())
