"""Where secrets come from, and steps that are taken again while a local server changes hands."""

from __future__ import annotations

import getpass
import io
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from natsproto.errors import StaleConnectionError
from objstore.cli import connection
from objstore.cli.output import CommandError, Output
from support.certs import make_certs


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def out() -> Output:
    return Output(json=False, quiet=False, progress=False)


def test_the_password_is_asked_for_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def answer(prompt: str, stream: Any) -> str:
        asked.append(prompt)
        assert stream is sys.stderr
        return "s3cret"

    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr(getpass, "getpass", answer)
    assert connection._ask_password("ann") == "s3cret"
    assert asked == ["Password of 'ann': "]


def test_a_secret_that_is_no_file(tmp_path: Path, out: Output) -> None:
    with pytest.raises(CommandError, match=r"NKey file .*: is a directory") as caught:
        connection._secret(str(tmp_path), "NKey file", out)
    assert caught.value.code == 2


def test_a_secret_that_is_no_text(tmp_path: Path, out: Output) -> None:
    path = tmp_path / "seed"
    path.write_bytes(b"\xff\xfe")
    path.chmod(0o600)
    with pytest.raises(CommandError, match="not text") as caught:
        connection._secret(str(path), "NKey file", out)
    assert caught.value.code == 2


def test_where_a_private_key_is(tmp_path: Path, capfd: pytest.CaptureFixture[str], out: Output) -> None:
    """In a file for certificates, too; told once if it is given for both."""
    certs = make_certs(tmp_path)
    cert, both, pipe = certs.client_cert_file, str(tmp_path / "both"), str(tmp_path / "pipe")
    Path(both).write_bytes(Path(cert).read_bytes() + Path(certs.client_key_file).read_bytes())
    os.mkfifo(pipe)
    assert [connection._holds_key(path) for path in (both, cert, pipe, "none")] == [True, False, False, False]
    for mode, count in ((0o644, 1), (0o600, 0)):
        os.chmod(both, mode)
        for files in ((None, both, None), (None, both, both)):
            assert connection._tls_context(*files, out) is not None
            assert capfd.readouterr().err.count("can be read by others") == count


class Step:
    """Fails as often as told, then succeeds."""

    def __init__(self, failures: int) -> None:
        self.failures = failures

    async def __call__(self) -> str:
        if self.failures:
            self.failures -= 1
            raise StaleConnectionError("the connection was lost")
        return "done"


def session(*, patient: bool) -> connection.Session:
    return connection.Session(SimpleNamespace(), SimpleNamespace(), patient=patient)  # type: ignore[arg-type]


async def test_a_step_is_taken_again_while_the_server_changes_hands() -> None:
    assert await session(patient=True).steady(Step(2)) == "done"


async def test_a_step_is_not_taken_again_elsewhere() -> None:
    with pytest.raises(StaleConnectionError):
        await session(patient=False).steady(Step(1))


async def test_a_step_is_not_taken_again_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "TAKE_OVER", 0.0)
    with pytest.raises(StaleConnectionError):
        await session(patient=True).steady(Step(1 << 30))
