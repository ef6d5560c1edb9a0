"""What the soak is played on: servers, proxies before them, buckets, a small disk; all of it temporary."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import natsproto
from natsproto import NatsError
from natsproto.errors import ServerProcessError
from natsproto.server import LocalServer
from natsproto.testing import FaultProxy

from .routes import Routes, cluster

if TYPE_CHECKING:
    from natsproto.aio.client import Client
    from natsproto.jetstream.context import JetStreamContext

MAIN, SMALL = "soak", "soak-small"
CONFIG = 'lame_duck_grace_period: "1s"\nlame_duck_duration: "30s"\n'
DISK_SIZE = 768 * 1024**2
READY = 60.0


class Disk:
    """A file system of memory below one server's store, that can be filled up. Needs root.

    Raises:
        OSError: it cannot be mounted here.
    """

    def __init__(self, path: str) -> None:
        os.makedirs(path, exist_ok=True)
        self.path = path
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={DISK_SIZE}", "tmpfs", path], capture_output=True, text=True
        )
        if done.returncode:
            raise OSError(done.stderr.partition("\n")[0] or "mount failed")
        self.server: LocalServer

    def fill(self) -> None:
        """Take all the room there is."""
        piece = bytes(1024 * 1024)
        with (
            open(os.path.join(self.path, "ballast"), "ab", buffering=0) as file,
            contextlib.suppress(OSError),
        ):
            while file.write(piece) == len(piece):
                pass

    def free(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(self.path, "ballast"))

    def close(self) -> None:
        subprocess.run(["umount", "-l", self.path], capture_output=True)


class Stage:
    """See the module; made by :func:`built`."""

    def __init__(self, servers: list[LocalServer], routes: Routes | None, disk: Disk | None) -> None:
        self.servers = servers
        self.routes = routes
        self.disk = disk
        self.proxies: list[FaultProxy] = []
        self.buckets = [MAIN, SMALL]
        self.client: Client
        self.js: JetStreamContext
        self.features: set[str] = set()

    @property
    def replicas(self) -> int:
        return len(self.servers)

    async def leader(self, bucket: str = MAIN) -> LocalServer | None:
        """The server that leads a bucket's stream, as far as anybody knows."""
        try:
            async with asyncio.timeout(2):
                raw = (await self.js.stream_info(f"OBJ_{bucket}")).raw
        except (NatsError, TimeoutError):
            return None
        name = (raw.get("cluster") or {}).get("leader")
        return next((server for server in self.servers if server.name == name), None)

    async def step_down(self, bucket: str) -> None:
        await self.js.request(f"STREAM.LEADER.STEPDOWN.OBJ_{bucket}", timeout=3.0)

    async def start(self, server: LocalServer) -> None:
        """Start a server again, whatever that takes: it may have much to recover."""
        deadline = time.monotonic() + READY
        while True:
            try:
                await asyncio.to_thread(server.start)
                return
            except ServerProcessError:
                if time.monotonic() > deadline:
                    raise

    async def healthy(self, server: LocalServer) -> None:
        """Wait until a server calls itself healthy, streams included, or it has taken too long."""
        deadline = time.monotonic() + READY
        while time.monotonic() < deadline:
            if await asyncio.to_thread(server.healthz):
                return
            await asyncio.sleep(0.1)

    async def settled(self) -> None:
        """Wait until every server runs and is healthy and both buckets have a leader and whole replicas.

        Raises:
            TimeoutError: they did not become so.
        """
        for proxy in self.proxies:
            proxy.to_server = proxy.to_client = None
            proxy.latency, proxy.rate, proxy.chunk = 0.0, None, None
            proxy.blackhole(False)
            proxy.release()
        if self.routes is not None:
            self.routes.cut(set())
        for server in self.servers:
            if not server.running:
                await self.start(server)
            server.resume()
        deadline = time.monotonic() + 2 * READY
        while not await self._whole():
            if time.monotonic() > deadline:
                raise TimeoutError("the servers did not become healthy again")
            await asyncio.sleep(0.2)

    async def _whole(self) -> bool:
        for server in self.servers:
            if not await asyncio.to_thread(server.healthz):
                return False
        try:
            for bucket in self.buckets:
                raw = (await self.js.stream_info(f"OBJ_{bucket}")).raw
                peers = (raw.get("cluster") or {}).get("replicas") or []
                current = [peer for peer in peers if peer.get("current") and not peer.get("lag")]
                if len(current) != self.replicas - 1:
                    return False
        except NatsError:
            return False
        return True


@contextlib.asynccontextmanager
async def built(
    folder: str, *, replicas: int, binary: str | None, want_disk: bool, max_bytes: int, small_bytes: int
) -> AsyncIterator[tuple[Stage, str]]:
    """Start servers, proxies and buckets; yields them, and why there is no disk to fill (``""`` = there is).

    Everything listens on loopback addresses only, and is gone afterwards.
    """
    async with contextlib.AsyncExitStack() as stack:
        disk, reason = None, "not asked for"
        store = os.path.join(folder, "store")
        if want_disk:
            try:
                disk = Disk(os.path.join(store, "soak-1") if replicas > 1 else store)
                stack.callback(disk.close)
                reason = ""
            except OSError as exc:
                reason = f"no file system of our own: {exc}"
        options: dict[str, Any] = {"store_dir": store, "binary": binary, "config": CONFIG}
        log = os.path.join(folder, "server.log")
        if replicas > 1:
            nodes = await stack.enter_async_context(cluster(log_file=log, **options))
            servers, routes = list(nodes.servers), nodes.routes
        else:
            servers = [await stack.enter_async_context(LocalServer(name="soak-1", log_file=log, **options))]
            routes = None
        if disk is not None:
            disk.server = servers[0]
        stage = Stage(servers, routes, disk)
        for server in servers:
            stage.proxies.append(await stack.enter_async_context(FaultProxy(server.url)))
        stage.client = await stack.enter_async_context(
            natsproto.connect([server.url for server in servers], ignore_discovered=True, max_reconnects=-1)
        )
        stage.js = stage.client.jetstream()
        version = servers[0].binary.version_info
        limits: dict[str, Any] = {"replicas": replicas, "storage": "file"}
        if version >= (2, 12):
            stage.features |= {"atomic"}
        if version >= (2, 11):
            stage.features |= {"ttl"}
        await stage.js.create_object_store(
            bucket=MAIN,
            max_bytes=max_bytes,
            allow_atomic="atomic" in stage.features,
            allow_msg_ttl="ttl" in stage.features,
            **limits,
        )
        await stage.js.create_object_store(bucket=SMALL, max_bytes=small_bytes, **limits)
        yield stage, reason
