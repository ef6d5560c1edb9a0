"""The command and secrets: what was given for a path is not shown, what others can read is told of."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from natsproto.server import LocalServer
from objstore.cli import local
from objstore.cli.main import main
from support.nkeys import ACCOUNT, USER, Key, creds_text
from support.pipes import opened_by_a_reader, reads_a_pipe
from support.waits import eventually_here

KEY = Key(USER, b"k" * 32)
CREDS = creds_text(Key(ACCOUNT, b"a" * 32).jwt(KEY, "user"), KEY.seed)


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("NATS_") and name != "NATS_SERVER_BIN"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


SECRETS = {
    "seed": KEY.seed,
    "creds": CREDS,
    "both": CREDS.encode().hex() + "\n" + KEY.seed,
    "lower": KEY.seed.lower(),
    "typo": KEY.seed[:20] + "0" + KEY.seed[21:],
    "groups": " ".join(KEY.seed[at : at + 4] for at in range(0, 58, 4)),
    "cut": KEY.seed[:40],
}
OPTIONS = ["--nkey", "--creds", "--tlskey", "--tlsca", "--password-file"]
VARIABLES = ["NATS_NKEY", "NATS_CREDS", "NATS_KEY", "NATS_CERT", "NATS_CA"]


@pytest.mark.parametrize("secret", SECRETS.values(), ids=SECRETS)
@pytest.mark.parametrize("place", [*OPTIONS, *VARIABLES])
def test_a_secret_for_a_path(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, place: str, secret: str
) -> None:
    words = []
    if place == "--tlskey":
        words = ["--tlscert", "cert.pem"]
    if place == "--password-file":
        words = ["--user", "u"]
    if place.startswith("--"):
        words += [place, secret]
    else:
        monkeypatch.setenv(place, secret)
    assert main(["--server", "nats://127.0.0.1:1", *words, "ls"]) == 2
    out, err = capfd.readouterr()
    assert "looks like its content" in err
    assert err.count("\n") == 1
    for line in [secret, *(word for word in secret.split() if len(word) > 12)]:
        assert line not in out + err


@pytest.mark.parametrize("secret", SECRETS.values(), ids=SECRETS)
@pytest.mark.parametrize("place", ["--context", "NATS_CONTEXT"])
def test_a_secret_for_the_name_of_a_context(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, place: str, secret: str
) -> None:
    words = [place, secret] if place == "--context" else []
    if not words:
        monkeypatch.setenv(place, secret)
    assert main([*words, "ls"]) == 2
    refused_unquoted(secret, *capfd.readouterr())


@pytest.mark.parametrize("secret", SECRETS.values(), ids=SECRETS)
@pytest.mark.parametrize("words", [("--local", "SECRET", "ls"), ("server", "SECRET")], ids=str)
def test_a_secret_for_a_directory(
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    words: tuple[str, ...],
    secret: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([secret if word == "SECRET" else word for word in words]) == 2
    assert list(tmp_path.iterdir()) == []
    refused_unquoted(secret, *capfd.readouterr())


@pytest.mark.parametrize("secret", SECRETS.values(), ids=SECRETS)
@pytest.mark.parametrize("place", ["NATS_TIMEOUT", "--timeout"])
def test_a_secret_for_a_time(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, place: str, secret: str
) -> None:
    words = ["--timeout", secret] if place == "--timeout" else []
    if not words:
        monkeypatch.setenv(place, secret)
    assert main(["--server", "nats://127.0.0.1:1", *words, "ls"]) == 2
    refused_unquoted(secret, *capfd.readouterr())


def refused_unquoted(secret: str, out: str, err: str) -> None:
    assert "looks like a seed or credentials" in err
    for line in [secret, *(word for word in secret.split() if len(word) > 12)]:
        assert line.lower() not in (out + err).lower()


def test_what_others_can_read(
    server: LocalServer, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def warned(*words: str) -> str:
        main([*words, "ls"])
        return capfd.readouterr().err

    seed, creds, key = tmp_path / "seed", tmp_path / "creds", tmp_path / "key"
    both = tmp_path / "both"  # a certificate and its key, given as a certificate
    both.write_text("-----BEGIN CERTIFICATE-----\n-----BEGIN EC PRIVATE KEY-----\n")
    seed.write_text(KEY.seed)
    creds.write_text(CREDS)
    key.write_text("no key")
    contexts = tmp_path / "config" / "nats" / "context"
    contexts.mkdir(parents=True)
    (contexts / "c.json").write_text(json.dumps({"url": server.url, "token": "t"}))
    (contexts / "tls.json").write_text(json.dumps({"url": server.url, "cert": str(both)}))
    (contexts / "ca.json").write_text(json.dumps({"url": server.url, "ca": str(both)}))
    (contexts / "plain.json").write_text(json.dumps({"url": server.url}))
    here = ("--server", server.url)
    cases: list[tuple[Path, tuple[str, ...]]] = [
        (seed, (*here, "--nkey", str(seed))),
        (creds, (*here, "--creds", str(creds))),
        (key, (*here, "--tlscert", str(key), "--tlskey", str(key))),
        (contexts / "c.json", ("--context", "c")),
        (both, ("--context", "tls")),
        (both, ("--context", "ca")),
    ]
    for path, words in cases:
        path.chmod(0o644)
        assert "can be read by others (mode 0644): chmod 600 it" in warned(*words)
        path.chmod(0o600)
        assert "can be read by others" not in warned(*words)
    (contexts / "plain.json").chmod(0o644)
    assert "warning" not in warned("--context", "plain")
    for url in ("token@", "user:password@"):
        assert "command line" in warned("--server", server.url.replace("//", f"//{url}"))
        monkeypatch.setenv("NATS_URL", server.url.replace("//", f"//{url}"))
        assert "command line" not in warned()
        monkeypatch.delenv("NATS_URL")


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("pipe", ("--user", "u", "--password-file", "PIPE")),
        ("pipe", ("--creds", "PIPE")),
        ("pipe", ("--nkey", "PIPE")),
        ("pipe", ("--jwt", "PIPE", "--seed", "SU")),
        ("pipe", ("--tlsca", "PIPE")),
        ("pipe", ("--tlscert", "PIPE", "--tlskey", "PIPE")),
        ("config/nats/context/c.json", ("--context", "c")),
        ("config/nats/context.txt", ()),
    ],
    ids=str,
)
def test_one_interrupt_ends_a_command_that_waits_for_a_pipe(
    tmp_path: Path, words: tuple[str, ...], place: str
) -> None:
    pipe = tmp_path / place
    pipe.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(pipe)
    words = tuple(str(pipe) if word == "PIPE" else word for word in words)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background inherits "ignored"
    command = [sys.executable, "-m", "objstore", *words, "ls"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            writer = opened_by_a_reader(pipe, process)
            eventually_here(lambda: reads_a_pipe(process))  # a signal just before waits for the read's end
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=20)
            os.close(writer)
        finally:
            process.kill()
    if any(word.startswith("--tls") for word in words):  # OpenSSL reads these
        assert (process.returncode, out, err) == (-signal.SIGINT, b"", b"")
    else:
        assert (process.returncode, out, err) == (130, b"", b"objstore: interrupted\n")


@pytest.mark.parametrize("which", ["d", "d/jetstream"])
def test_a_directory_of_somebody_else(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, which: str
) -> None:
    theirs = tmp_path / which
    directory = tmp_path / "d"
    assert main(["--local", str(directory), "ls"]) == 0
    assert "warning" not in capfd.readouterr().err
    real = os.stat

    def somebody(path: Any, **options: Any) -> Any:
        found = real(path, **options)
        if path != str(theirs):
            return found
        return SimpleNamespace(st_uid=found.st_uid + 1, st_gid=found.st_gid, st_mode=found.st_mode)

    monkeypatch.setattr(local.os, "stat", somebody)
    main(["--local", str(directory), "ls"])
    assert f"{str(theirs)!r} belongs to another user" in capfd.readouterr().err
    monkeypatch.undo()
    theirs.chmod(0o777)
    main(["--local", str(directory), "ls"])
    assert f"{str(theirs)!r} is writable for other users" in capfd.readouterr().err


@pytest.mark.skipif(os.geteuid() != 0, reason="left out: only root can make another user's links")
@pytest.mark.parametrize("link", ["d", "d/jetstream"])
def test_local_directory_that_another_user_links_to(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], link: str
) -> None:
    elsewhere = tmp_path / "private"
    elsewhere.mkdir()
    path = tmp_path / link
    path.parent.mkdir(exist_ok=True)
    path.symlink_to(elsewhere)
    os.lchown(path, 65534, 65534)
    assert main(["--local", str(tmp_path / "d"), "ls"]) == 2
    assert "another user's link" in capfd.readouterr().err
    assert list(elsewhere.iterdir()) == []
