"""The measured processes, as the measuring side sees them: started once per row, called in turns."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import BenchError
from .machine import ROOT, revision

START = 30.0
"""Seconds a process has to start and to connect."""

ANSWER = 900.0
"""Seconds that one operation may take, including the quadratic ones."""

Figures = dict[str, float]


class LeftOut(Exception):
    """This contestant does not take part, for the reason given; the others continue."""


@dataclass(frozen=True)
class Contestant:
    """One column of the table.

    Attributes:
        label: its name in the table.
        client: which client, or ``"ceiling"``.
        options: how it differs from the row (``{"concurrency": 1}``).
        flags: for a ceiling: further arguments of the script.
        tree: the directory whose packages and peers it runs; by default the one that this file is in.
    """

    label: str
    client: str
    options: dict[str, Any] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    tree: Path = ROOT


class Worker:
    """One client in a process of its own.

    Raises:
        LeftOut: the client is not installed, or does not connect.
    """

    def __init__(self, client: str, url: str, python: str = sys.executable, tree: Path = ROOT) -> None:
        self.client = client
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        try:
            self._process = subprocess.Popen(
                [python, "-m", "bench.peers", client, url],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                start_new_session=True,  # an interrupt is for this process, which then ends them
                env={
                    **os.environ,
                    "PYTHONPATH": str(tree),
                    "PYTHONSAFEPATH": "1",  # else the working directory comes before the tree
                    "PYTHONDONTWRITEBYTECODE": "1",
                },
            )
        except OSError as exc:
            raise LeftOut(f"{python} cannot be run: {exc.strerror}") from exc
        try:
            self.about: dict[str, Any] = self._read(START)
        except BaseException:
            self.close()
            raise

    def send(self, work: str, /, **options: Any) -> None:
        """Start an operation; :meth:`receive` waits for its figures."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"work": work, **options}).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            raise LeftOut(f"the process ended: {self._last_words()}") from None

    def receive(self) -> Figures:
        answer = self._read(ANSWER)
        if "ok" in answer:
            figures: Figures = answer["ok"]
            return figures
        raise LeftOut(answer.get("missing") or answer["error"])

    def measure(self, work: str, /, **options: Any) -> Figures:
        self.send(work, **options)
        return self.receive()

    def close(self) -> None:
        process = self._process
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            try:
                pipe.close()
            except OSError:
                pass
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._errors.close()

    def _read(self, timeout: float) -> dict[str, Any]:
        stream = self._process.stdout
        assert stream is not None
        with selectors.DefaultSelector() as selector:
            selector.register(stream, selectors.EVENT_READ)
            if not selector.select(timeout):
                self._process.kill()
                raise LeftOut(f"no answer within {timeout:.0f} s")
        line = stream.readline()
        if not line:
            self._process.wait()
            raise LeftOut(self._last_words())
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _last_words(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        last = lines[-1] if lines else "ended without a message"
        if "ModuleNotFoundError" in last:
            return f"not installed: pip install '.[bench]' ({last.partition(': ')[2]})"
        return last


SCRIPTS = {
    "put": ("put", ("bucket", "name", "objects", "size", "chunk")),
    "get": ("get", ("bucket", "name", "objects")),
    "read_into": ("get", ("bucket", "name", "objects")),
    "publish": ("publish", ("subject", "size", "count")),
    "subscribe": ("subscribe", ("size", "count")),
    "request": ("request", ("size", "count")),
    "sha256": ("sha256", ("size",)),
    "tcp": ("tcp", ("size",)),
}
"""Operation -> ceiling script and the options it takes."""


def ceiling(work: str, url: str, flags: tuple[str, ...], /, **options: Any) -> Figures:
    """Run a ceiling script once.

    Raises:
        LeftOut: there is none for this operation, or it failed.
    """
    if work not in SCRIPTS or options.get("concurrency", 1) > 1 or options.get("replicas", 1) > 1:
        raise LeftOut("no ceiling for this operation")
    script, taken = SCRIPTS[work]
    command = [
        sys.executable,
        "-m",
        f"bench.ceiling.{script}",
        *([url] if script not in ("sha256", "tcp") else []),
    ]
    count = options.get("count", 1)
    if "name" in taken:
        options["name"] = options["prefix"] if count > 1 else f"{options['prefix']}-0"
        options["objects"] = count
    if "subject" in taken:
        options["subject"] = "bench.publish.ceiling"
    for key in taken:
        if key in options:
            command += [f"--{key}", str(options[key])]
    if work == "read_into":
        command += ["--into", "reused"]
    done = subprocess.run([*command, *flags], capture_output=True, text=True, cwd=ROOT, timeout=ANSWER)
    if done.returncode:
        raise LeftOut((done.stderr.strip().splitlines() or ["failed"])[-1])
    found = json.loads(done.stdout)
    ops = found.get("ops", count)
    return {
        "seconds": found["seconds"],
        "cpu": found["cpu"],
        "ops": ops,
        "bytes": found["bytes"],
        "rss": 0,
        "peak": 0,
    }


class Crew:
    """The contestants of one row, and one more process of this library that prepares and checks."""

    def __init__(self, url: str, natsio_python: str | None = None) -> None:
        self._url = url
        self._natsio_python = natsio_python
        self._workers: dict[str, Worker] = {}
        self.left_out: dict[str, str] = {}
        self.about: dict[str, dict[str, Any]] = {}
        self.helper = self._start("natsproto", ROOT)

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for worker in (*self._workers.values(), self.helper):
            worker.close()

    def _start(self, client: str, tree: Path) -> Worker:
        python = sys.executable
        if client == "natsio":
            if self._natsio_python is None:
                raise LeftOut("needs Python >= 3.13: name an interpreter that has it by --natsio-python")
            python = self._natsio_python
        return Worker(client, self._url, python, tree)

    def join(self, contestants: list[Contestant]) -> list[Contestant]:
        """Start the contestants; those that cannot be started are noted in ``left_out``."""
        present = []
        for contestant in contestants:
            try:
                if contestant.client != "ceiling" and contestant.label not in self._workers:
                    worker = self._workers[contestant.label] = self._start(contestant.client, contestant.tree)
                    self.about[contestant.label] = worker.about
                    if contestant.tree != ROOT:
                        worker.about["revision"] = revision(contestant.tree)
                present.append(contestant)
            except LeftOut as exc:
                self.left_out[contestant.label] = str(exc)
        return present

    def measure(self, contestant: Contestant, work: str, options: dict[str, Any]) -> Figures:
        """Take one sample.

        Raises:
            LeftOut: it failed; the reason is noted in ``left_out``.
        """
        options = {**options, **contestant.options}
        try:
            if contestant.client == "ceiling":
                return ceiling(work, self._url, contestant.flags, **options)
            return self._workers[contestant.label].measure(work, **options)
        except LeftOut as exc:
            self.left_out[contestant.label] = str(exc)
            raise

    def help(self, work: str, /, **options: Any) -> Figures:
        """Let this library's client prepare or check something.

        Raises:
            BenchError: it failed, so no figure of this row counts.
        """
        try:
            return self.helper.measure(work, **options)
        except LeftOut as exc:
            raise BenchError(
                f"{work} of {options.get('prefix', options.get('bucket'))!r} failed: {exc}"
            ) from exc
