"""Every command, typed at the prompt of a shell on a terminal: what it shows, asks and ends with."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from natsproto.server import LocalServer
from objstore.cli.table import ALIASES, COMMANDS
from support.skips import missing
from support.terminal import Terminal

LOAD = "--size 1KiB --count 20 --objects 2 --warmup 0 --storage memory"

SESSION = [
    ("objstore help put", "usage: objstore put", 0, ""),
    ("objstore bucket add BUCKET --storage memory --description 'of a session'", "is ready", 0, ""),
    ("objstore bucket ls", "BUCKET", 0, ""),
    ("objstore bucket info BUCKET", "of a session", 0, ""),
    ("objstore bucket edit BUCKET --metadata team=x", "BUCKET", 0, ""),
    ("objstore put BUCKET big report", "stored 2 files", 0, ""),
    ("objstore put BUCKET missing", "'missing': no such file or directory", 1, ""),
    ("objstore put report BUCKET", "the bucket comes first", 2, ""),
    ("objstore ls BUCKET -l", "SHA-256=", 0, ""),
    ("objstore info BUCKET report", "10 B (10 bytes)", 0, ""),
    ("objstore info BUCKET reprot", "reprot", 3, ""),
    ("objstore cat BUCKET report", "the report", 0, ""),
    ("objstore cat BUCKET big | head -c 4; echo +${PIPESTATUS[*]}", "xxxx+0 0\r\n", 0, ""),
    ("objstore get BUCKET report -O copy/", "wrote 'copy/report'", 0, ""),
    ("objstore get BUCKET report -O copy/", "--force", 4, ""),
    ("objstore find BUCKET --larger 1MiB", "big\r\n", 0, ""),
    ("objstore du BUCKET", "5.7 MiB", 0, ""),
    ("objstore cp BUCKET report dir/one", "dir/one", 0, ""),
    ("objstore mv BUCKET dir/one dir/two", "dir/two", 0, ""),
    ("objstore ln BUCKET report latest", "latest", 0, ""),
    ("objstore meta BUCKET report --description text", "text", 0, ""),
    ("objstore sync copy natsobj://BUCKET/copy/", "stored 1 file", 0, ""),
    ("objstore watch BUCKET copy/ --all --count 1", "PUT", 0, ""),
    ("objstore verify BUCKET --deep", "no problems", 0, ""),
    ("objstore rm BUCKET dir/two", "Delete 'dir/two' from bucket 'BUCKET'? [y/N] ", 0, "y\n"),
    ("objstore gc BUCKET", "BUCKET", 0, ""),
    ("objstore purge-deleted BUCKET", "BUCKET", 0, ""),
    ("objstore bucket seal BUCKET", "[y/N] ", 0, "y\n"),
    ("objstore put BUCKET report", "sealed", 4, ""),
    ("objstore bucket rm BUCKET", "[y/N] ", 0, "y\n"),
    ("objstore server store", "NATS_URL=", 0, "\x03"),
    ("objstore --local store ls", "there are no buckets", 0, ""),
    ("objstore doctor", "ok", 0, ""),
    ("objstore demo report", "report", 0, ""),
    (
        "objstore completion bash > script && source ./script && complete -p objstore",
        "-F _shtab_objstore",
        0,
        "",
    ),
    (f"objstore bench put {LOAD} --json > before", "", 0, ""),
    (f"objstore bench put {LOAD} --json > after", "", 0, ""),
    ("objstore bench compare before after", "noise", 0, ""),
    (f"objstore bench get {LOAD}", "errors", 0, ""),
    (f"objstore bench range {LOAD}", "errors", 0, ""),
    (f"objstore bench list {LOAD}", "errors", 0, ""),
    (f"objstore bench mixed {LOAD}", "errors", 0, ""),
    ("objstore bench core publish --count 20 --warmup 0", "errors", 0, ""),
    ("objstore bench put --duration 1h", "measuring", 130, "\x03"),
    ("objstore bnech put", "did you mean bench?", 2, ""),
]


def command_of(line: str) -> str:
    """The command of a line, by its name in the table."""
    words = [word for word in line.split()[1:] if word not in ("--local", "store")] or ["server"]
    name = " ".join(words[:2]) if words[0] in ("bucket", "bench") else words[0]
    return ALIASES.get(name, name)


def test_the_session_has_every_command() -> None:
    assert {command_of(line) for line, *_ in SESSION} >= set(COMMANDS)


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, new_server: LocalServer) -> Terminal:
    if shutil.which("bash") is None:
        missing("bash")
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "objstore"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m objstore "$@"\n')
    command.chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("NATS_", "XDG_"))}
    environment = {
        **kept,
        "HOME": str(tmp_path),
        "NATS_TIMEOUT": "10s",
        "NATS_URL": new_server.url,
        "PATH": f"{tmp_path}/bin{os.pathsep}{os.environ['PATH']}",
        "PS1": "[$?]> ",
        "PYTHONPATH": os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")]),
        "TERM": "dumb",
    }
    if "NATS_SERVER_BIN" in os.environ:
        environment["NATS_SERVER_BIN"] = os.environ["NATS_SERVER_BIN"]
    work = tmp_path / "work"
    work.mkdir()
    (work / "big").write_bytes(b"x" * 6_000_000)
    (work / "report").write_bytes(b"the report")
    monkeypatch.chdir(work)
    return Terminal("bash", "--norc", "--noprofile", "-i", env=environment, columns=200)


def test_a_session(shell: Terminal, bucket_name: str) -> None:
    wrong = []
    with shell:
        shell.see("[0]> ")
        for line, expected, code, keys in SESSION:
            expected = expected.replace("BUCKET", bucket_name)
            shell.type(line.replace("BUCKET", bucket_name) + "\n")
            shown = shell.see("\r\n")
            if keys:
                shown += shell.see(expected) + expected
                shell.type(keys)
            shown += shell.see("]> ")
            if expected not in shown or not shown.endswith(f"[{code}") or "Traceback" in shown:
                wrong.append((line, expected, code, shown))
    assert wrong == []
