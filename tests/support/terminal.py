"""A process on a terminal of its own, as people have one."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Mapping

WAIT = 60.0


# When the leader of a session ends, Linux drops what its terminal has not delivered: a shell leads.
_LEADER = 'trap : INT; "$@"; echo "[ended: $?]"; read end'
_ENDED = re.compile(r"\[ended: (\d+)\]")


class Terminal:
    """A process on a terminal of its own, of so many columns (0: it does not say).

    Attributes:
        text: everything that the terminal has shown.
    """

    def __init__(self, *command: str, columns: int = 100, env: Mapping[str, str] | None = None) -> None:
        def begin() -> None:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # a job in the background inherits "ignored"

        self._here, there = pty.openpty()
        fcntl.ioctl(there, termios.TIOCSWINSZ, struct.pack("HHHH", 25, columns, 0, 0))
        modes = termios.tcgetattr(there)
        modes[3] |= termios.NOFLSH  # else an interrupt drops output, also what is said because of it
        termios.tcsetattr(there, termios.TCSANOW, modes)
        self._leader = subprocess.Popen(
            ["sh", "-c", _LEADER, "sh", *command],
            stdin=there,
            stdout=there,
            stderr=there,
            env=env,
            start_new_session=True,
            preexec_fn=begin,
        )
        os.close(there)
        self.text = ""
        self._seen = 0

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *exc_info: object) -> None:
        os.killpg(self._leader.pid, signal.SIGKILL)
        self._leader.wait()
        os.close(self._here)

    def see(self, text: str) -> str:
        """Read until the text appears, after what was seen before; what stands between the two."""
        found = self._find(re.compile(re.escape(text)))
        before, self._seen = self.text[self._seen : found.start()], found.end()
        return before

    def type(self, text: str) -> None:
        os.write(self._here, text.encode())

    def ended(self) -> int:
        """Read the rest; the exit code."""
        found = self._find(_ENDED)
        self.text = self.text[: found.start()]
        return int(found[1])

    def _find(self, text: re.Pattern[str]) -> re.Match[str]:
        end = time.monotonic() + WAIT
        while (found := text.search(self.text, self._seen)) is None:
            assert select.select([self._here], [], [], end - time.monotonic())[0], self.text
            self.text += os.read(self._here, 65536).decode("utf-8", "replace")
        return found
