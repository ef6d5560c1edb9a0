"""``demo``: put a real file through a real server, and leave nothing behind."""

from __future__ import annotations

import asyncio
import os
import secrets
import shlex
import shutil
import sys
import tempfile
from argparse import Namespace
from time import perf_counter
from typing import TYPE_CHECKING

from natsproto._values import printable

from .output import CommandError, Output, human_size, human_time, interruptible, object_document, silence

if TYPE_CHECKING:
    from natsproto.server import LocalServer
    from objstore.format.models import ObjectInfo

BUCKET = "demo"
EVENT = 5.0
"""Seconds to wait for a watch event."""

OWN_DIRECTORY = "objstore-data"
"""The directory in the suggested next commands."""


def check(args: Namespace) -> None:
    """Refuse options that do not apply: the demo has its own server."""
    if args.local is not None or args.server is not None or args.context is not None:
        raise CommandError("demo: it starts its own private server: omit --server, --context and --local", 2)
    if args.file is not None and not os.path.isfile(args.file):
        raise CommandError(f"demo: {args.file!r} is not a file", 1)


async def demo(args: Namespace, out: Output) -> None:
    """``demo [FILE]``."""
    from natsproto.server import LocalServer

    report = Report(out)
    token = secrets.token_hex(16)  # other users of the machine must not read the file
    async with LocalServer(token=token, monitoring=False) as server:
        path = args.file or _own_file(server)
        pid, store_dir = server.pid, server.store_dir
        report.server(server)
        await _show(server, token, path, report)
    report.cleaned_up(pid, store_dir)
    report.next_steps(path)
    if out.json:
        out.document(report.document)


def _own_file(server: LocalServer) -> str:
    """Return a large file that exists on every machine."""
    binary = server.binary.path
    return binary if os.path.getsize(binary) >= 1 << 20 else os.path.realpath(sys.executable)


async def _show(server: LocalServer, token: str, path: str, report: Report) -> None:
    import natsproto
    from objstore.errors import ObjectDeletedError

    from .local import check_peer

    name = os.path.basename(path)
    connecting = natsproto.connect(server.url, token=token, name="objstore demo")
    connecting.check_peer = lambda transport: check_peer(transport, lambda: server.running)
    async with connecting as client:
        store = await client.jetstream().create_object_store(bucket=BUCKET)
        async with store.watch(updates_only=True) as watcher:
            start = perf_counter()
            stored = await store.put_file(name, path)
            report.put(path, stored, perf_counter() - start)
            report.event(await asyncio.wait_for(anext(watcher), EVENT))

            directory = tempfile.mkdtemp(prefix="objstore-demo-")  # a thread could create it after our end
            try:
                copy = os.path.join(directory, "copy")
                start = perf_counter()
                await store.get_file(name, copy)
                took = perf_counter() - start
                await asyncio.to_thread(_compare, path, copy, stored.digest)
            finally:
                await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)
            report.got(stored, took)

            report.listed(await store.list())
            await store.delete(name)
            try:
                await store.get_info(name)
            except ObjectDeletedError as exc:
                report.deleted(exc, await asyncio.wait_for(anext(watcher), EVENT))
            else:
                raise CommandError("demo: a deleted object still exists", 1)


def _compare(path: str, copy: str, digest: str) -> None:
    """Compare two files byte for byte, and the digest with ``hashlib``.

    Raises:
        CommandError: exit code 7.
    """
    import hashlib

    with open(path, "rb") as original, open(copy, "rb") as other:
        hasher = hashlib.sha256()
        while True:
            expected = original.read(1 << 20)
            if expected != other.read(1 << 20):
                raise CommandError(f"demo: the copy differs from {path!r}", 7)
            if not expected:
                break
            hasher.update(expected)
    if digest != f"SHA-256={hasher.hexdigest()}":
        raise CommandError("demo: the recorded digest differs from the file's", 7)


class Report:
    """The report of the demo, as lines for people or as one JSON document."""

    def __init__(self, out: Output) -> None:
        self._plain = not out.json
        self.document: dict[str, object] = {}

    def _line(self, what: str, text: str) -> None:
        self._print(f"{what:<9} {printable(text)}")

    def _print(self, line: str) -> None:
        """Show a line at once; a reader that stops does not end the demo."""
        if not self._plain or sys.stdout is None:
            return
        try:
            with interruptible():
                print(line, flush=True)
        except BrokenPipeError:
            silence(sys.stdout)

    def server(self, server: LocalServer) -> None:
        binary = server.binary
        self.document["server"] = {
            "binary": binary.path,
            "version": binary.version,
            "origin": binary.origin,
            "pid": server.pid,
            "url": server.url,
            "store_dir": server.store_dir,
        }
        self._line("server", f"nats-server {binary.version}, pid {server.pid}: {binary.path}")
        self._line("", f"(found by: {binary.origin})")
        self._line("url", f"{server.url}, JetStream in {server.store_dir}")

    def put(self, path: str, info: ObjectInfo, took: float) -> None:
        self.document["file"] = os.path.abspath(path)
        self.document["object"] = object_document(info)
        self.document["put"] = _measured(info.size, took)
        self._line(
            "put", f"{path}: {human_size(info.size)} in {info.chunks} chunks, {_rate(info.size, took)}"
        )
        self._line("digest", info.digest)

    def event(self, info: ObjectInfo) -> None:
        self.document["event"] = object_document(info)
        self._line("watch", f"saw {info.name!r} stored, revision {info.revision}")

    def got(self, info: ObjectInfo, took: float) -> None:
        self.document["get"] = _measured(info.size, took) | {"identical": True, "digest_verified": True}
        self._line("get", f"{_rate(info.size, took)}; identical byte for byte, digest verified")

    def listed(self, infos: list[ObjectInfo]) -> None:
        self.document["list"] = [object_document(info) for info in infos]
        for info in infos:
            self._line("list", f"{info.name}  {human_size(info.size)}  {human_time(info.mtime)}")

    def deleted(self, error: Exception, event: ObjectInfo) -> None:
        self.document["delete"] = {"deleted": event.deleted, "revision": event.revision}
        self._line("delete", f"{error}; watch saw it, revision {event.revision}")

    def cleaned_up(self, pid: int, store_dir: str) -> None:
        from .local import process_mark

        gone = {"server": process_mark(pid) is None, "store_dir": not os.path.lexists(store_dir)}
        if not all(gone.values()):
            raise CommandError(f"demo: the server (pid {pid}) or {store_dir!r} was left behind", 1)
        self.document["gone"] = gone
        self._line("clean-up", f"server {pid} ended, its directory removed. Try next:")

    def next_steps(self, path: str) -> None:
        base = f"{_own_command()} --local {OWN_DIRECTORY}"
        steps = [
            f"{base} bucket add media",
            f"{base} put media {shlex.quote(os.path.abspath(path))}",
            f"{base} ls media",
        ]
        self.document["next"] = steps
        for step in steps:
            self._print(f"  {printable(step)}")


def _measured(size: int, took: float) -> dict[str, float]:
    return {"seconds": round(took, 6), "bytes_per_second": round(size / max(took, 1e-9))}


def _rate(size: int, took: float) -> str:
    return f"{took * 1000:.1f} ms, {human_size(int(size / max(took, 1e-9)))}/s"


def _own_command() -> str:
    """Return how to start this command here: by its name if the shell finds it, else by its path."""
    started = sys.argv[0] if sys.argv else ""
    if os.path.basename(started) == "objstore":
        found = shutil.which("objstore")
        if found is not None and os.path.realpath(found) == os.path.realpath(started):
            return "objstore"
        return shlex.quote(started)
    return f"{shlex.quote(sys.executable)} -m objstore"
