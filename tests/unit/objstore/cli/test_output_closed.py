"""Streams that are closed, missing or interrupted: what is told there is lost, and nothing else."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import sys

import pytest

from objstore.cli.main import main
from objstore.cli.output import Output, is_terminal, say, silence


class Failing(io.StringIO):
    """A stream whose writes end as given."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def write(self, text: str) -> int:
        raise self.error


def test_output_that_was_closed_by_who_started_us(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    out = Output(json=True, quiet=False, progress=False)
    out.document({"name": "x"})
    out.deliver()


def test_output_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", Failing(BrokenPipeError()))
    out = Output(json=True, quiet=False, progress=False)
    out.document({"name": "x"})
    with pytest.raises(BrokenPipeError):
        out.deliver()


@pytest.mark.parametrize("stream", [None, Failing(OSError())])
def test_say_where_nobody_listens(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO | None) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    say("unheard\n")


def test_an_interrupt_while_something_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Failing(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        say("half of it\n")


@pytest.mark.parametrize("full", [False, True])
def test_an_interrupt_just_after_something_was_said(monkeypatch: pytest.MonkeyPatch, full: bool) -> None:
    """The next line is about the interrupt: it is lost only where it would wait for a reader."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with open(reader, "rb", buffering=0) as read, open(writer, "w") as stream:
        while full:
            try:
                os.write(writer, bytes(4096))
            except BlockingIOError:
                break
        flush = stream.flush

        def interrupted() -> None:
            if not full:
                flush()
            raise KeyboardInterrupt

        monkeypatch.setattr(sys, "stderr", stream)
        with monkeypatch.context() as patch:
            patch.setattr(stream, "flush", interrupted)
            with pytest.raises(KeyboardInterrupt):
                say("a question?")
        say("interrupted")
        if full:
            assert os.stat(writer).st_rdev == os.stat(os.devnull).st_rdev
        else:
            assert read.read(100) == b"a question?interrupted"


def test_an_interrupt_while_a_running_loop_says_something(monkeypatch: pytest.MonkeyPatch) -> None:
    """It cancels what runs, which then cleans up, and does not end the loop in the middle of a task."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background it is ignored
    steps: list[str] = []

    async def run() -> None:
        say("a line")
        steps.append("said")
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            steps.append("cleaned up")

    reader, writer = os.pipe()
    with open(reader, "rb", buffering=0) as read, open(writer, "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        flush = stream.flush

        def interrupted() -> None:
            flush()
            os.kill(os.getpid(), signal.SIGINT)

        with monkeypatch.context() as patch:
            patch.setattr(stream, "flush", interrupted)
            try:
                with pytest.raises(KeyboardInterrupt):
                    asyncio.run(run())
            finally:
                signal.signal(signal.SIGINT, before)
        assert (steps, read.read(100)) == (["said", "cleaned up"], b"a line")


def test_silence_of_what_has_no_descriptor() -> None:
    silence(None)
    silence(io.StringIO())


def test_a_closed_stream_is_no_terminal() -> None:
    stream = io.StringIO()
    stream.close()
    assert not is_terminal(stream)
    assert not is_terminal(None)


class TestHelp:
    def test_without_standard_output(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "stdout", None)
        assert main(["--help"]) == 0

    def test_a_reader_that_stops(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "stdout", Failing(BrokenPipeError()))
        assert main(["--help"]) == 0

    def test_a_disk_that_is_full(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(sys, "stdout", Failing(OSError(28, "No space left on device")))
        assert main(["--help"]) == 1
        assert capsys.readouterr().err == "objstore: no space left on device\n"


def test_a_failure_is_told_before_one_of_its_output(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(self: Output) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Output, "deliver", full)
    assert main(["get", "b", "..", "-s", "nats://127.0.0.1:1"]) == 2
    assert "no space" not in capsys.readouterr().err
