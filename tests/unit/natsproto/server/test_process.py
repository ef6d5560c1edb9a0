"""A server ends with who started it, and whoever comes in between."""

from __future__ import annotations

import gc
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from natsproto.server import LocalServer

ROOT = Path(__file__).parents[4]


def gone(*pids: int) -> bool:
    """Wait until processes that are not our children have ended."""
    for pid in pids:
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            if not select.select([fd], [], [], 10)[0]:
                return False
        finally:
            os.close(fd)
    return True


PARENT = """
import os, signal, sys, time
from natsproto.server import LocalServer
how, binary, store = sys.argv[1:]
server = LocalServer(binary=binary, store_dir=store or None).start()
child = 0
if how == "forked":
    child = os.fork()
    if child == 0:
        assert not server.running
        server.stop()  # not this process's server
        signal.pause()
if how == "exec":
    import subprocess
    child = subprocess.Popen(["sleep", "60"], close_fds=False).pid
if how == "paused":
    server.pause()
if how == "killed":
    server.kill()
print(server.pid if server.running else 0, server._watchdog._shell.pid, child, server._private, flush=True)
if how == "exit":
    sys.exit(0)
signal.pause()
"""


@pytest.mark.parametrize("how", ["plain", "forked", "exec", "paused", "killed", "exit", "kept"])
def test_server_ends_with_its_parent(binary: str, how: str, tmp_path: Path) -> None:
    store = str(tmp_path / "store") if how == "kept" else ""
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, how, binary, store],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    child = 0
    try:
        assert parent.stdout is not None
        pid, watchdog, child, private = parent.stdout.readline().split()
        child = int(child)
        if how != "exit":
            parent.kill()
        parent.wait(10)
        assert gone(int(watchdog))
        if pid != b"0":
            assert gone(int(pid))
        assert not os.path.exists(private)
        if child:
            os.kill(child, 0)  # it outlives the parent and does not keep the server alive
        if store:
            assert os.path.isdir(store)
    finally:
        parent.kill()
        parent.wait(10)
        assert parent.stdout is not None
        parent.stdout.close()
        if child:
            os.kill(child, signal.SIGKILL)


def test_nobody_inherits_the_pipe(server: LocalServer) -> None:
    assert server._watchdog is not None
    stdin = server._watchdog._shell.stdin
    assert stdin is not None
    pipe = f"pipe:[{os.fstat(stdin.fileno()).st_ino}]"
    child = subprocess.Popen(["sleep", "60"], close_fds=False)
    try:
        for pid in (server.pid, child.pid):
            for fd in os.listdir(f"/proc/{pid}/fd"):
                try:
                    assert os.readlink(f"/proc/{pid}/fd/{fd}") != pipe
                except FileNotFoundError:
                    pass  # closed between the two looks
    finally:
        child.kill()
        child.wait()


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_forgotten_server_ends(binary: str) -> None:
    server = LocalServer(binary=binary).start()
    assert server._watchdog is not None
    assert server._process is not None
    process, shell, private = server._process, server._watchdog._shell, server._private
    stdin = shell.stdin
    shell.stdin = None  # only the process handles stay with us, to be waited for
    del server, stdin
    gc.collect()
    assert process.wait(10) == -signal.SIGKILL
    assert shell.wait(10) == 0
    assert not os.path.exists(private)


def test_works_without_the_watchdog(server: LocalServer) -> None:
    assert server._watchdog is not None
    server._watchdog._shell.kill()
    server._watchdog._shell.wait()
    server.restart()
    assert server.healthz(timeout=15)
    server.stop()
    assert not server.running
