"""nats.js: ``peer.mjs`` in a Node process, one for the whole run."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from ..base import TIMEOUT, Entry, Peer, PeerError, Status, Watch

HERE = Path(__file__).parent
MODULES = HERE / "node_modules"
INSTALL_TIMEOUT = 120.0


class NotInstalledError(Exception):
    """There is no Node, no npm, or the packages cannot be had."""


def install() -> str:
    """Install the packages of ``package-lock.json`` unless they are there; returns the path of Node."""
    node = shutil.which("node")
    if node is None:
        raise NotInstalledError("node")
    lock = (HERE / "package-lock.json").read_bytes()
    stamp = MODULES / ".installed-from"
    if stamp.exists() and stamp.read_bytes() == lock:
        return node
    npm = shutil.which("npm")
    if npm is None:
        raise NotInstalledError("npm")
    command = [npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"]
    try:
        done = subprocess.run(command, cwd=HERE, capture_output=True, timeout=INSTALL_TIMEOUT, check=False)
    except subprocess.TimeoutExpired as exc:
        raise NotInstalledError("the npm packages of nats.js (npm ci took too long)") from exc
    if done.returncode != 0:
        raise NotInstalledError("the npm packages of nats.js (npm ci failed)")
    stamp.write_bytes(lock)
    return node


class Node:
    """The Node process: one request, one answer."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [install(), str(HERE / "peer.mjs")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.id = 0

    def _exchange(self, request: bytes) -> bytes:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(request)
        self.process.stdin.flush()
        return self.process.stdout.readline()

    async def call(self, op: str, **arguments: Any) -> Any:
        self.id += 1
        request = json.dumps({"id": self.id, "op": op, **arguments}).encode() + b"\n"
        answering = asyncio.create_task(asyncio.to_thread(self._exchange, request))
        done, _ = await asyncio.wait([answering], timeout=TIMEOUT + 5)
        if not done:
            self.process.kill()  # ends the thread's read
        line = await answering
        if not line:
            raise PeerError(f"Node ended during {op}")
        answer = json.loads(line)
        assert answer["id"] == self.id
        if "error" in answer:
            raise PeerError(answer["error"])
        return answer["ok"]

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        try:
            self.process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


def entry(found: dict[str, Any]) -> Entry:
    link = found.pop("link")
    return Entry(**found, link=None if link is None else (link[0], link[1]))


class NatsJsWatch(Watch):
    def __init__(self, node: Node) -> None:
        self.node = node

    async def next(self) -> tuple[str, bool]:
        change = await self.node.call("watchNext")
        return change["name"], change["deleted"]

    async def close(self) -> None:
        await self.node.call("watchStop")


class NatsJs(Peer):
    name = "nats.js"

    def __init__(self, node: Node, version: str) -> None:
        self.node = node
        self.version = version

    @classmethod
    async def connect(cls, node: Node, url: str) -> NatsJs:
        return cls(node, (await node.call("connect", url=url))["version"])

    async def create_bucket(self, bucket: str, *, description: str = "", ttl: float = 0) -> None:
        await self.node.call("create", bucket=bucket, description=description, ttl=ttl)

    async def open_bucket(self, bucket: str) -> None:
        await self.node.call("open", bucket=bucket)

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
        await self.node.call("put", name=name, data=text, chunk_size=chunk_size, **about)

    async def get(self, name: str) -> bytes:
        return base64.b64decode(await self.node.call("get", name=name))

    async def info(self, name: str) -> Entry | None:
        found = await self.node.call("info", name=name)
        return None if found is None else entry(found)

    async def list(self) -> list[Entry]:
        return [entry(found) for found in await self.node.call("list")]

    async def delete(self, name: str) -> None:
        await self.node.call("delete", name=name)

    async def link(self, name: str, target: str) -> None:
        await self.node.call("link", name=name, target=target)

    async def bucket_link(self, name: str, bucket: str) -> None:
        await self.node.call("bucketLink", name=name, bucket=bucket)

    async def update(self, name: str, *, description: str, headers: dict[str, list[str]]) -> None:
        await self.node.call("update", name=name, description=description, headers=headers)

    async def rename(self, name: str, new_name: str) -> None:
        await self.node.call("rename", name=name, new_name=new_name)

    async def watch(self) -> Watch:
        await self.node.call("watch")
        return NatsJsWatch(self.node)

    async def seal(self) -> None:
        await self.node.call("seal")

    async def status(self) -> Status:
        return Status(**await self.node.call("status"))

    async def close(self) -> None:
        await self.node.call("close")
