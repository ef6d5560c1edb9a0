"""The client processes, seen from the soak: started, told, killed, stopped and started again."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
START = 60.0
END = 45.0
PAUSE = 130.0


@dataclass
class Member:
    """One process, over all its lives."""

    number: int
    life: int = 0
    process: asyncio.subprocess.Process | None = None
    expected: set[int] = field(default_factory=set)
    answers: asyncio.Queue[dict[str, Any]] = field(default_factory=asyncio.Queue)
    reader: asyncio.Task[None] | None = None
    first: dict[str, Any] = field(default_factory=dict)
    connected: bool = False

    @property
    def label(self) -> str:
        return f"{chr(ord('a') + self.number)}{self.life}"


class Clients:
    """All of them.

    Args:
        count: how many processes.
        task: what each is told, without what is its own.
        folder: for histories and their files.
        seed: of the run.
        bad: called with what must not be.
    """

    def __init__(self, count: int, task: dict[str, Any], folder: str, seed: int, bad: Any) -> None:
        self.members = [Member(number) for number in range(count)]
        self.task = task
        self.folder = folder
        self.seed = seed
        self.epoch = 0
        self.files: list[str] = []
        self._bad = bad
        self._locks = [asyncio.Lock() for _ in range(count)]

    def _path(self, member: Member) -> str:
        path = os.path.join(self.folder, f"history-{self.epoch}-{member.label}.jsonl")
        self.files.append(path)
        with open(path, "wb"):
            pass  # it exists, even if the process is killed before it opens it
        return path

    async def start(self) -> None:
        for member in self.members:
            await self._start(member)

    async def _start(self, member: Member) -> None:
        member.life += 1
        member.first = {}
        member.connected = False
        member.answers = asyncio.Queue()
        task = self.task | {
            "label": member.label,
            "seed": f"{self.seed}/{member.label}",
            "log": self._path(member),
            "folder": os.path.join(self.folder, member.label),
        }
        errors = open(os.path.join(self.folder, f"stderr-{member.label}.txt"), "wb")  # noqa: SIM115
        member.process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.soak.client",
            json.dumps(task),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            cwd=ROOT,
        )
        errors.close()
        member.reader = asyncio.create_task(self._read(member, member.process, member.answers))

    async def _read(
        self,
        member: Member,
        process: asyncio.subprocess.Process,
        answers: asyncio.Queue[dict[str, Any]],
    ) -> None:
        assert process.stdout is not None
        while line := await process.stdout.readline():
            answer = json.loads(line)
            if "connected" in answer and member.process is process:
                member.connected = True
            answers.put_nowait(answer)
        code = await process.wait()
        if process.pid not in member.expected:
            self._bad("a client process ended", f"{member.label}: code {code}\n{self.stderr(member)}")
        answers.put_nowait({"gone": code})

    def stderr(self, member: Member) -> str:
        with contextlib.suppress(OSError):
            text = Path(self.folder, f"stderr-{member.label}.txt").read_text(errors="replace")
            return text[-3000:]
        return ""

    async def _answer(self, member: Member, key: str, timeout: float) -> dict[str, Any] | None:
        deadline = time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > 0:
            try:
                async with asyncio.timeout(left):
                    answer = await member.answers.get()
            except TimeoutError:
                break
            if key in answer:
                return answer
            if "gone" in answer:
                return None
        return None

    def _tell(self, member: Member, line: str) -> None:
        assert member.process is not None
        assert member.process.stdin is not None
        with contextlib.suppress(OSError):
            member.process.stdin.write(line.encode() + b"\n")

    # -- faults -----------------------------------------------------------------------------------

    async def kill(self, number: int) -> None:
        """SIGKILL, then a new life."""
        member = self.members[number]
        async with self._locks[number]:
            process = member.process
            assert process is not None
            member.expected.add(process.pid)
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            await self._start(member)

    async def term(self, number: int) -> None:
        """SIGTERM: it must end by itself, soon; then a new life."""
        member = self.members[number]
        async with self._locks[number]:
            process = member.process
            assert process is not None
            member.expected.add(process.pid)
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            try:
                async with asyncio.timeout(END):
                    code = await process.wait()
                if code and (member.connected or code != -signal.SIGTERM):  # it may have had no handler yet
                    self._bad(
                        "a client process ended badly", f"{member.label}: {code}\n{self.stderr(member)}"
                    )
            except TimeoutError:
                self._bad("a client process does not end", f"{member.label} after {END} s")
                process.kill()
                await process.wait()
            await self._start(member)

    def stop(self, number: int) -> None:
        process = self.members[number].process
        if process is not None and process.returncode is None:
            process.send_signal(signal.SIGSTOP)

    def go_on(self, number: int) -> None:
        process = self.members[number].process
        if process is not None and process.returncode is None:
            process.send_signal(signal.SIGCONT)

    # -- epochs -----------------------------------------------------------------------------------

    async def pause(self) -> list[dict[str, Any]]:
        """Let every operation end; returns what each process has left, first and now."""
        for member in self.members:
            self._tell(member, "pause")
        left = []
        for member in self.members:
            answer = await self._answer(member, "paused", PAUSE)
            if answer is None:
                self._bad("a client does not pause", f"{member.label}\n{self.stderr(member)}")
                await self.kill(member.number)
                self._tell(member, "pause")
                await self._answer(member, "paused", PAUSE)
                continue
            if not member.first:
                member.first = answer
            left.append({"label": member.label, "first": member.first, "now": answer})
        return left

    def resume(self) -> None:
        """The next epoch: new files."""
        self.epoch += 1
        for member in self.members:
            self._tell(member, f"go {self._path(member)}")

    async def end(self) -> None:
        """All of them end."""
        for member in self.members:
            if member.process is not None:
                member.expected.add(member.process.pid)
            self._tell(member, "end")
        for member in self.members:
            process = member.process
            if process is None:
                continue
            try:
                async with asyncio.timeout(END):
                    await process.wait()
            except TimeoutError:
                self._bad("a client process does not end", f"{member.label} after {END} s")
                process.kill()
                await process.wait()
            if member.reader is not None:
                await member.reader

    def kill_all(self) -> None:
        """Whatever happened: none is left."""
        for member in self.members:
            process = member.process
            if process is not None and process.returncode is None:
                member.expected.add(process.pid)
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
