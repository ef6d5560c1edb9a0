"""The nats-servers of ``docker/compose.yaml`` in containers, for the duration of a ``with`` block.

::

    with Container() as server:             # or Container(3): a cluster
        print(server.url, server.version)

Every run has a project, ports, network and volumes of its own. It removes them however the block ends
(except by SIGKILL). JetStream's files are in volumes on the engine's disk.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from .errors import BenchError

COMPOSE_FILE = Path(__file__).resolve().parent.parent / "docker" / "compose.yaml"
LOCAL_IMAGE_LABEL = "natsproto.local-image"
POLL = 0.2
"""Seconds between two checks of the nodes."""

COMMAND_TIMEOUT = 60.0
"""Seconds that one command of Docker may take."""


class Container:
    """One node, or three that form a cluster.

    Args:
        nodes: 1 or 3.
        timeout: seconds until the nodes must be healthy.

    Raises:
        BenchError: on entering the block; the text says what to do.

    Attributes:
        urls: one address per node.
        version: the servers' version, as they report it.
        image: name and tag.
    """

    def __init__(self, nodes: int = 1, *, timeout: float = 60.0) -> None:
        if nodes not in (1, 3):
            raise BenchError(f"docker/compose.yaml has 1 or 3 nodes, not {nodes}")
        self.urls: list[str] = []
        self.version = ""
        self.image = ""
        self._services = ["n0"] if nodes == 1 else ["n1", "n2", "n3"]
        self._timeout = timeout
        self._project = f"natsproto-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._compose: list[str] = []
        self._facts: dict[str, Any] = {}  # of the engine and the image
        self._handlers: dict[int, Any] = {}
        self._started = False

    @property
    def url(self) -> str:
        """All addresses, separated by commas."""
        return ",".join(self.urls)

    def describe(self) -> dict[str, Any]:
        """What a result says about its server."""
        return {
            "kind": "container",
            "nodes": len(self._services),
            "version": self.version,
            "image": self.image,
            **self._facts,
            "network": "bridge, ports published on 127.0.0.1",
            "data": "a volume on the engine's disk",
        }

    def __enter__(self) -> Self:
        self._find_tools()
        self._find_image()
        self._take_signals()
        atexit.register(self._remove)  # if a signal arrives outside of any try block
        try:
            self._start()
        except BaseException:
            with contextlib.suppress(BenchError):  # the first error is the one to report
                self._remove()
            raise
        return self

    def __exit__(self, exc_type: type[BaseException] | None, *_: object) -> None:
        try:
            self._remove()
        except BenchError:
            if exc_type is None:
                raise

    # --- prerequisites ---------------------------------------------------------------------------------

    def _find_tools(self) -> None:
        if shutil.which("docker") is None:
            raise BenchError("docker is not installed (Debian: apt-get install docker.io docker-compose)")
        try:
            self._facts["engine"] = self._command(
                "docker", "version", "--format", "{{.Server.Version}}"
            ).strip()
            self._facts["storage_driver"] = self._command("docker", "info", "--format", "{{.Driver}}").strip()
        except BenchError as exc:
            raise BenchError(f"no Docker engine: start dockerd, or check DOCKER_HOST ({exc})") from None
        for compose in (["docker", "compose"], ["docker-compose"]):
            try:
                self._facts["compose"] = self._command(*compose, "version", "--short").strip()
            except BenchError:
                continue
            self._compose = compose
            return
        raise BenchError(
            "neither 'docker compose' nor 'docker-compose' runs (Debian: apt-get install docker-compose)"
        )

    def _find_image(self) -> None:
        match = re.search(r"^ +image: *(\S+)", self._composed("config"), re.MULTILINE)
        if match is None:
            raise BenchError(f"{COMPOSE_FILE} names no image")
        self.image = match[1].strip("'\"")
        try:
            (image,) = json.loads(self._command("docker", "image", "inspect", self.image))
        except BenchError:
            raise BenchError(
                f"the image is missing: docker pull {self.image}, or docker/local-image.sh builds it"
            ) from None
        self._facts["image_id"] = image["Id"]
        self._facts["image_built_locally"] = LOCAL_IMAGE_LABEL in (image["Config"].get("Labels") or {})

    # --- life ------------------------------------------------------------------------------------------

    def _start(self) -> None:
        deadline = time.monotonic() + self._timeout
        with _signals_deferred():  # the engine may go on starting containers when its command is interrupted
            self._started = True
            self._composed("up", "-d", *self._services)
        while not (nodes := self._healthy_nodes(deadline)):
            time.sleep(POLL)
        while len(nodes) > 1 and not self._leader_sees_all(nodes):
            self._check_time(deadline, nodes, "has no leader that sees all its nodes")
            time.sleep(POLL)
        for node in nodes:
            port = int(node["NetworkSettings"]["Ports"]["4222/tcp"][0]["HostPort"])
            self.version = _server_version(port)
            self.urls.append(f"nats://127.0.0.1:{port}")

    def _healthy_nodes(self, deadline: float) -> list[dict[str, Any]]:
        """All nodes in order, or an empty list while one of them is not healthy yet."""
        label = f"label=com.docker.compose.project={self._project}"
        ids = self._command("docker", "ps", "-aq", "--filter", label).split()
        nodes = json.loads(self._command("docker", "inspect", *ids)) if ids else []
        nodes.sort(key=_service)
        waiting = [node for node in nodes if node["State"].get("Health", {}).get("Status") != "healthy"]
        ended = [node for node in nodes if node["State"]["Status"] in ("exited", "dead")]
        if ended:
            raise BenchError(
                f"{_service(ended[0])} ended at once; its last words: {self._last_log_line(ended[0])}"
            )
        if not waiting and len(nodes) == len(self._services):
            return nodes
        self._check_time(deadline, waiting, "is not healthy")
        return []

    def _check_time(self, deadline: float, nodes: list[dict[str, Any]], what: str) -> None:
        if time.monotonic() < deadline:
            return
        who, last = (_service(nodes[0]), self._last_log_line(nodes[0])) if nodes else ("nothing", "")
        raise BenchError(f"{who} {what} after {self._timeout:g} s; the last line of its log: {last}")

    def _leader_sees_all(self, nodes: list[dict[str, Any]]) -> bool:
        """A node is healthy before the leader has heard of all others; replicas need all of them."""
        for node in nodes:
            ask = ["wget", "-q", "-O", "-", "http://127.0.0.1:8222/jsz"]
            meta = json.loads(self._command("docker", "exec", node["Id"], *ask)).get("meta_cluster") or {}
            if meta.get("leader") == _service(node):
                others = [peer for peer in meta.get("replicas") or [] if peer["name"] != meta["leader"]]
                current = [peer for peer in others if peer.get("current") and not peer.get("offline")]
                return len(current) == len(nodes) - 1
        return False

    def _last_log_line(self, node: dict[str, Any]) -> str:
        done = self._run("docker", "logs", "--tail", "5", node["Id"])
        return _last_line(done.stdout + done.stderr)

    def _remove(self) -> None:
        try:
            with _signals_deferred():
                if self._started:
                    self._composed("down", "-v", "--remove-orphans", "-t", "1")
                self._started = False
        except BenchError as exc:
            command = " ".join([*self._compose, "-p", self._project, "-f", str(COMPOSE_FILE)])
            raise BenchError(
                f"the containers are left behind, remove them with: {command} down -v ({exc})"
            ) from None
        finally:
            atexit.unregister(self._remove)
            while self._handlers:
                signal.signal(*self._handlers.popitem())

    def _take_signals(self) -> None:
        """Let signals that would end this process silently raise ``SystemExit`` instead."""

        def leave(number: int, _: object) -> None:
            raise SystemExit(128 + number)

        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGHUP):
                if signal.getsignal(number) is signal.SIG_DFL:
                    self._handlers[number] = signal.signal(number, leave)

    # --- commands --------------------------------------------------------------------------------------

    def _composed(self, *arguments: str) -> str:
        profile = ["--profile", "cluster"] if len(self._services) > 1 else []
        return self._command(
            *self._compose, "-f", str(COMPOSE_FILE), "-p", self._project, *profile, *arguments
        )

    def _command(self, *arguments: str) -> str:
        done = self._run(*arguments)
        if done.returncode:
            raise BenchError(_last_line(done.stderr) or f"{arguments[0]} ended with {done.returncode}")
        return done.stdout

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command that the terminal's Ctrl-C does not reach; the engine chooses the ports (0)."""
        try:
            return subprocess.run(
                arguments,
                env={**os.environ, **{f"{service.upper()}_PORT": "0" for service in self._services}},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=COMMAND_TIMEOUT,
                start_new_session=True,
            )
        except OSError as exc:
            raise BenchError(f"cannot run {arguments[0]}: {exc}") from exc
        except subprocess.TimeoutExpired:
            raise BenchError(f"'{' '.join(arguments)}' did not end in {COMMAND_TIMEOUT:g} s") from None


@contextlib.contextmanager
def _signals_deferred() -> Iterator[None]:
    """Act on SIGINT, SIGTERM and SIGHUP only at the end of the block."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    seen: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    previous = {number: signal.signal(number, lambda number, _: seen.append(number)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        if seen:
            signal.raise_signal(seen[0])


def _server_version(port: int) -> str:
    """The version in the server's greeting."""
    try:
        with socket.create_connection(("127.0.0.1", port), 5) as sock, sock.makefile("rb") as greeting:
            line = greeting.readline()
        return str(json.loads(line.removeprefix(b"INFO "))["version"])
    except (OSError, ValueError, KeyError) as exc:
        raise BenchError(
            f"no NATS server at 127.0.0.1:{port}; is the engine on this machine? ({exc!r})"
        ) from exc


def _service(node: dict[str, Any]) -> str:
    return str(node["Config"]["Labels"]["com.docker.compose.service"])


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""
