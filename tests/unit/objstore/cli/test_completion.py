"""``completion``: the shipped scripts are those of the table, and bash completes with them.

``integration/test_cli_completion.py`` has all shells, at their prompts.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import pytest

from objstore.cli.completion import DIRECTORY, SHELLS
from objstore.cli.main import main
from support.completions import script
from support.skips import left_out, missing


@pytest.mark.parametrize("shell", SHELLS)
def test_the_scripts_are_up_to_date(shell: str) -> None:
    """Write them again with: python -m tests.support.completions."""
    if find_spec("shtab") is None:
        left_out("shtab is in the extra 'test'")
    assert Path(DIRECTORY, f"objstore.{shell}").read_text() == script(shell)


@pytest.mark.parametrize("shell", SHELLS)
def test_a_script_is_printed(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    assert capsys.readouterr().out == Path(DIRECTORY, f"objstore.{shell}").read_text()


def test_there_is_one_argument(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "bash", "zsh"]) == 2
    assert "'zsh' is one argument too many" in capsys.readouterr().err


@pytest.mark.parametrize(
    "line",
    [["--local", "new", "ls"], ["-s", "nats://127.0.0.1:1", "ls"], ["ls", "--help"], ["ls", "--timeout"]],
    ids=["local", "nobody", "help", "unfinished"],
)
def test_a_key_press_does_no_harm(
    line: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No names, where there are none; no server is started, no directory created, no help printed."""
    monkeypatch.setenv("NATS_URL", "nats://127.0.0.1:1")
    monkeypatch.chdir(tmp_path)
    with suppress(SystemExit):
        main(["completion", "buckets", "--", *line])
    assert capsys.readouterr().out == ""
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("shell", [shell for shell in SHELLS if shutil.which(shell)])
def test_a_shell_reads_it(shell: str) -> None:
    check = {"fish": "--no-execute"}.get(shell, "-n")
    subprocess.run([shell, check, os.path.join(DIRECTORY, f"objstore.{shell}")], check=True)


COMPLETE = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
function=$(complete -p objstore); function=${function#*-F }
COMPREPLY=(); ${function%% *} objstore "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["objstore", "buc"], {"bucket"}),
        (["objstore", "bucket", "se"], {"seal"}),
        (["objstore", "bucket", "add", "--allow-a"], {"--allow-atomic"}),
        (["objstore", "mb", "--stor"], {"--storage"}),
        (["objstore", "mb", "--storage", "f"], {"file"}),
        (["objstore", "completion", ""], {"bash", "zsh", "fish"}),
        (["objstore", "put", "b", "rep"], {"report.pdf"}),
        (["objstore", "put", "-s", "nats", ":", "//h", ":", "4222", "b", "rep"], {"report.pdf"}),
        (["objstore", "cp", "natsobj", ":", "//b/x", "rep"], {"report.pdf"}),
        (["objstore", "sync", "rep"], {"report.pdf"}),
        (["objstore", "ls", "--sort", ""], {"name", "size", "time"}),
        (["objstore", "help", "doc"], {"doctor"}),
    ],
)
def test_what_bash_completes(words: list[str], found: set[str], tmp_path: Path) -> None:
    if shutil.which("bash") is None:
        missing("bash")
    (tmp_path / "report.pdf").touch()
    path = os.path.join(DIRECTORY, "objstore.bash")
    done = subprocess.run(
        ["bash", "--norc", "-c", COMPLETE, "bash", path, *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    assert set(done.stdout.split()) == found
