"""A peer in a process of its own: one request as a line of JSON, one answer; bytes are base64."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
from collections.abc import Sequence
from typing import Any

from .base import TIMEOUT, Entry, Peer, PeerError, Status, Watch


class NotInstalledError(Exception):
    """What the peer needs is not on this machine."""


class Process:
    """The process; started again when it has ended (one peer takes its process along when it panics)."""

    def __init__(self, command: Sequence[str]) -> None:
        self.command = command
        self.process: subprocess.Popen[bytes] | None = None
        self.id = 0

    def _exchange(self, request: bytes) -> bytes:
        process = self.process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(request)
            process.stdin.flush()
        except BrokenPipeError:
            return b""
        return process.stdout.readline()

    async def call(self, op: str, **arguments: Any) -> Any:
        """Send a request and wait for its answer.

        Raises:
            PeerError: the peer reported an error, ended, or said nothing for too long (and was ended).
        """
        if self.process is not None and self.process.poll() is not None:
            self.close()
        if self.process is None:
            if op == "close":
                return None  # it has ended, and with it what there was to close
            if op != "connect":
                raise PeerError(f"the peer's process has ended before {op}")
            self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.id += 1
        request = json.dumps({"id": self.id, "op": op, **arguments}).encode() + b"\n"
        answering = asyncio.create_task(asyncio.to_thread(self._exchange, request))
        done, _ = await asyncio.wait([answering], timeout=TIMEOUT + 5)
        if not done:
            self.process.kill()  # ends the thread's read
        line = await answering
        if not line:
            self.close()
            raise PeerError(f"the peer's process ended during {op}")
        answer = json.loads(line)
        assert answer["id"] == self.id
        if "error" in answer:
            raise PeerError(answer["error"])
        return answer["ok"]

    def close(self) -> None:
        """End the process."""
        process, self.process = self.process, None
        if process is None:
            return
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.close()
        except BrokenPipeError:
            pass
        try:
            process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def _entry(found: dict[str, Any]) -> Entry:
    link = found.pop("link")
    return Entry(**found, link=None if link is None else (link[0], link[1]))


class LinesWatch(Watch):
    def __init__(self, process: Process) -> None:
        self.process = process

    async def next(self) -> tuple[str, bool]:
        change = await self.process.call("watchNext")
        return change["name"], change["deleted"]

    async def close(self) -> None:
        await self.process.call("watchStop")


class LinesPeer(Peer):
    """The peer at the other end of the pipe."""

    def __init__(self, name: str, process: Process, version: str) -> None:
        self.name = name
        self.process = process
        self.version = version

    @classmethod
    async def connect(cls, name: str, process: Process, url: str) -> LinesPeer:
        return cls(name, process, (await process.call("connect", url=url))["version"])

    async def create_bucket(self, bucket: str, *, description: str = "", ttl: float = 0) -> None:
        await self.process.call("create", bucket=bucket, description=description, ttl=ttl)

    async def open_bucket(self, bucket: str) -> None:
        await self.process.call("open", bucket=bucket)

    async def put(
        self,
        name: str,
        data: bytes,
        *,
        description: str = "",
        headers: dict[str, list[str]] | None = None,
        metadata: dict[str, str] | None = None,
        chunk_size: int | None = None,
    ) -> None:
        about = {"description": description, "headers": headers, "metadata": metadata}
        text = base64.b64encode(data).decode()
        await self.process.call("put", name=name, data=text, chunk_size=chunk_size, **about)

    async def get(self, name: str) -> bytes:
        return base64.b64decode(await self.process.call("get", name=name))

    async def info(self, name: str) -> Entry | None:
        found = await self.process.call("info", name=name)
        return None if found is None else _entry(found)

    async def list(self) -> list[Entry]:
        return [_entry(found) for found in await self.process.call("list")]

    async def delete(self, name: str) -> None:
        await self.process.call("delete", name=name)

    async def link(self, name: str, target: str) -> None:
        await self.process.call("link", name=name, target=target)

    async def bucket_link(self, name: str, bucket: str) -> None:
        await self.process.call("bucketLink", name=name, bucket=bucket)

    async def update(self, name: str, *, description: str, headers: dict[str, list[str]]) -> None:
        await self.process.call("update", name=name, description=description, headers=headers)

    async def rename(self, name: str, new_name: str) -> None:
        await self.process.call("rename", name=name, new_name=new_name)

    async def watch(self) -> Watch:
        await self.process.call("watch")
        return LinesWatch(self.process)

    async def seal(self) -> None:
        await self.process.call("seal")

    async def status(self) -> Status:
        return Status(**await self.process.call("status"))

    async def close(self) -> None:
        await self.process.call("close")
