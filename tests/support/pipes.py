"""Programs that wait for a named pipe, and when they do."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path


def opened_by_a_reader(pipe: Path, process: subprocess.Popen[bytes]) -> int:
    """Wait until the process reads the pipe, and return its other end."""
    while process.poll() is None:
        try:
            return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as exc:
            if exc.errno != errno.ENXIO:  # nobody reads it yet
                raise
    raise AssertionError(process.communicate())


def reads_a_pipe(process: subprocess.Popen[bytes]) -> bool:
    """Whether one of its threads waits in the system call, as far as the system tells."""
    try:
        places = [path.read_text() for path in Path(f"/proc/{process.pid}/task").glob("*/wchan")]
    except OSError:
        return True
    return any("pipe_read" in place for place in places) or all(place in ("", "0") for place in places)
