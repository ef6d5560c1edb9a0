"""Helpers for a child process: a watchdog that ends it with its parent, and reserved ports."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import weakref
from typing import Final

from ..errors import ServerProcessError

# Arguments: the private directory; "kill" or "term". Lines on stdin: the id of the process to guard, "0" for
# none, "?" for one that is being started (its id will be in the pid file), "done" to exit.
# At EOF the parent is gone: end the server, remove the directory. SIGKILL ends even a suspended process.
_WATCH: Final = """
pid=0
while read -r line; do
  case $line in done) exit 0 ;; *) pid=$line ;; esac
done
case $pid in '?') sleep 1; pid=0; [ -r "$1/pid" ] && read -r pid < "$1/pid" ;; esac
if [ "${pid:-0}" -gt 1 ]; then
  if [ "$2" = term ]; then
    kill -TERM "$pid"; kill -CONT "$pid"
    for i in 1 2 3 4 5; do kill -0 "$pid" || break; sleep 1; done
  fi
  kill -KILL "$pid"
fi
for i in 1 2 3; do rm -rf -- "$1"; [ -e "$1" ] || break; sleep 1; done
"""


class Watchdog:
    """A small shell script that reads a pipe: when this process ends, the pipe closes and the script acts.

    It needs only pipes from the operating system, and works however this process ends. The write end is
    close-on-exec, and closed in forked children, so only this process keeps the pipe open.

    Args:
        private: directory to remove when this process ends.
        graceful: send SIGTERM and wait up to 5 s before SIGKILL (for a store that is kept).
    """

    def __init__(self, private: str, *, graceful: bool) -> None:
        self._shell = subprocess.Popen(
            ["/bin/sh", "-c", _WATCH, "natsproto-watchdog", private, "term" if graceful else "kill"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            cwd="/",
            env={"PATH": os.environ.get("PATH", "") + ":/bin:/usr/bin"},
            start_new_session=True,  # a Ctrl-C in the terminal must not reach it
        )
        _live.add(self)

    def tell(self, line: str) -> None:
        """Tell the watchdog what to guard from now on."""
        assert self._shell.stdin is not None
        try:
            self._shell.stdin.write(line.encode() + b"\n")
        except (OSError, ValueError):
            pass  # somebody ended the watchdog; we can still stop the server

    def dismiss(self) -> None:
        """End the watchdog without any action; return when it is gone."""
        _live.discard(self)
        self.tell("done")
        assert self._shell.stdin is not None
        self._shell.stdin.close()
        try:
            self._shell.wait(2.0)
        except subprocess.TimeoutExpired:
            self._shell.kill()
            self._shell.wait()

    def abandon(self) -> None:
        """Forget the watchdog without ending it: in a forked child, which it does not watch."""
        if self._shell.stdin is not None:
            self._shell.stdin.close()
        self._shell.returncode = 0


_live: weakref.WeakSet[Watchdog] = weakref.WeakSet()


def _abandon_all() -> None:
    for watchdog in list(_live):
        watchdog.abandon()
    _live.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon_all)


class Ports:
    """Ports for one server, reserved as long as the server object lives, even while no server runs.

    On Linux a bound socket that does not listen keeps the port: ``bind(0)`` never returns it, and no
    connection gets it as its source port (else a client that reconnects in a loop could connect to itself). A
    server can still listen there, because both sides set SO_REUSEADDR. Elsewhere a free port is found, but
    not reserved.

    Args:
        wanted: pairs ``(host, port)``; port 0 means any free one.

    Raises:
        ServerProcessError: a given port is taken, or a host is not an address of this machine.
    """

    def __init__(self, wanted: list[tuple[str, int]]) -> None:
        self._held: list[socket.socket] = []
        self.numbers: list[int] = []
        try:
            for host, port in wanted:
                self._reserve(host, port)
        except OSError as exc:
            self.release()
            what = "is already in use" if exc.errno == errno.EADDRINUSE else f"cannot be used: {exc}"
            raise ServerProcessError(f"{host}:{port} {what}") from exc
        if sys.platform != "linux":
            self.release()

    def _reserve(self, host: str, port: int) -> None:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        sock = socket.socket(family, kind, proto)
        self._held.append(sock)
        if port == 0:
            # Without SO_REUSEADDR the system gives a port that nobody shares; set it afterwards to share.
            sock.bind(address)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        else:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(address)
        self.numbers.append(sock.getsockname()[1])

    def release(self) -> None:
        """Release the ports."""
        for sock in self._held:
            sock.close()
        self._held.clear()
