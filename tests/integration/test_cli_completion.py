"""What bash, zsh and fish complete at their prompts, on a terminal."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from natsproto.server import LocalServer
from objstore.cli.main import main
from support.skips import missing
from support.terminal import Terminal

START = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], "PS1='ready> '; source <(objstore completion bash)"),
    "zsh": (
        ["zsh", "-f", "-i"],
        "PROMPT='ready> '; autoload -Uz compinit; compinit -u -D; eval \"$(objstore completion zsh)\"",
    ),
    "fish": (
        ["fish", "--no-config", "-i"],
        "function fish_prompt; echo 'ready> '; end; objstore completion fish | source",
    ),
}

COMMAND = """\
#!/bin/sh
[ "$1" = completion ] && exec "{python}" -m objstore "$@"
echo "ran: $*;"
"""


@pytest.fixture(params=START)
def shell(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, new_server: LocalServer
) -> Iterator[Terminal]:
    """A shell that has read the script, where some files are; the command says how it was called."""
    start, line = START[request.param]
    if shutil.which(start[0]) is None:
        missing(start[0])
    for name in [name for name in os.environ if name.startswith("NATS_")]:
        monkeypatch.delenv(name)
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "objstore"
    command.write_text(COMMAND.format(python=sys.executable))
    command.chmod(0o755)
    environment = {
        "HOME": str(tmp_path),
        "LANG": "C.UTF-8",
        "PATH": f"{tmp_path}/bin{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")]),
        "TERM": "xterm" if request.param == "fish" else "dumb",  # fish shows no list on a dumb one
        "XDG_CONFIG_HOME": str(tmp_path),
    }
    work = tmp_path / "work"
    (work / "photos").mkdir(parents=True)
    for name in ("report.pdf", "second.txt"):
        (work / name).touch()
    monkeypatch.chdir(work)
    with Terminal(*start, env=environment) as terminal:
        terminal.type(f"{line}\n")
        terminal.see("ready> ")
        yield terminal


def completed(shell: Terminal, line: str) -> str:
    """Press the key at the end of a line, and then enter; the line that ran."""
    shell.type(f"{line}\t")
    shell.type("\n")
    shell.see("ran: ")
    return shell.see(";").rstrip(" /")


def test_what_is_completed(shell: Terminal, new_server: LocalServer, bucket_name: str) -> None:
    url = new_server.url
    assert main(["-q", "-s", url, "bucket", "add", bucket_name, "--storage", "memory"]) == 0
    begun = bucket_name[:-3]
    try:
        for line, whole in {
            "buc": "bucket",
            "bucket se": "bucket seal",
            "--quiet bench pu": "--quiet bench put",
            "bucket add b --allow-a": "bucket add b --allow-atomic",
            "mb b --storage f": "mb b --storage file",
            "ls --sort si": "ls --sort size",
            "put b rep": "put b report.pdf",
            "put b report.pdf sec": "put b report.pdf second.txt",
            "cp report.pdf sec": "cp report.pdf second.txt",
            "sync pho": "sync photos",
            "sync photos rep": "sync photos report.pdf",
            "help doc": "help doctor",
            f"-s {url} ls {begun}": f"-s {url} ls {bucket_name}",
            f"rm -s {url} -r {begun}": f"rm -s {url} -r {bucket_name}",
            f"-s {url} bucket info {begun}": f"-s {url} bucket info {bucket_name}",
            f"-s nats://127.0.0.1:1 ls {begun}": f"-s nats://127.0.0.1:1 ls {begun}",
        }.items():
            assert completed(shell, f"objstore {line}") == whole
    finally:
        assert main(["-q", "-s", url, "bucket", "rm", "-f", bucket_name]) == 0


def test_several_are_shown(shell: Terminal) -> None:
    shell.type("objstore completion \t\t")
    for name in ("bash", "fish", "zsh"):
        shell.see(name)
