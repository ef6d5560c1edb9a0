"""Option, environment, context, default; and which credentials go where."""

from __future__ import annotations

import io
import json
import logging
import os
import sys
from argparse import Namespace
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from natsproto.errors import ConfigError
from objstore.cli.connection import Settings, _logging_to, settings
from objstore.cli.output import CommandError, Output
from objstore.cli.parser import parse as parse_words
from support.nkeys import ACCOUNT, USER, Key, creds_text
from support.skips import left_out


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "nats" / "context").mkdir(parents=True)
    return {"XDG_CONFIG_HOME": str(tmp_path)}


@pytest.fixture
def context(environ: dict[str, str]) -> Callable[..., None]:
    def save(name: str, *, select: bool = False, **fields: Any) -> None:
        root = Path(environ["XDG_CONFIG_HOME"], "nats")
        (root / "context" / f"{name}.json").write_text(json.dumps(fields))
        if select:
            (root / "context.txt").write_text(name)

    return save


def found(environ: dict[str, str], *words: str) -> Settings:
    return settings(parse(*words), environ, Output())


def parse(*words: str) -> Namespace:
    return parse_words([*words, "ls"])


def private(path: Path, text: str) -> str:
    path.write_text(text)
    path.chmod(0o600)
    return str(path)


def test_default(environ: dict[str, str]) -> None:
    result = found(environ)
    assert result.servers == "nats://127.0.0.1:4222"
    assert result.options == {}
    assert result.jetstream == {"timeout": 5.0}


def test_precedence(environ: dict[str, str], context: Callable[..., None]) -> None:
    context("picked", select=True, url="nats://context")
    context("named", url="nats://named")
    assert found(environ).servers == "nats://context"
    assert found({**environ, "NATS_CONTEXT": "named"}).servers == "nats://named"
    with_url = {**environ, "NATS_URL": "nats://env"}
    assert found(with_url).servers == "nats://env"
    assert found({**with_url, "NATS_CONTEXT": "named"}).servers == "nats://env"
    assert found(with_url, "--context", "named").servers == "nats://named"
    assert found(with_url, "--context", "named", "-s", "nats://option").servers == "nats://option"
    assert found(with_url, "--server", "nats://option").servers == "nats://option"


def test_a_broken_selection_is_no_reason_to_go_elsewhere(environ: dict[str, str]) -> None:
    Path(environ["XDG_CONFIG_HOME"], "nats", "context.txt").write_text("gone")
    with pytest.raises(CommandError, match="context 'gone' does not exist"):
        found(environ)
    assert found(environ, "-s", "nats://h").servers == "nats://h"


def test_context_credentials_stay_with_the_context(
    environ: dict[str, str], context: Callable[..., None]
) -> None:
    context(
        "c", select=True, url="nats://c", user="u", password="p", jetstream_domain="hub", inbox_prefix="_I"
    )
    result = found(environ)
    assert result.options == {"user": "u", "password": "p", "inbox_prefix": "_I"}
    assert result.jetstream["domain"] == "hub"
    assert found(environ, "-s", "nats://other").options == {}
    assert found({**environ, "NATS_URL": "nats://other"}).options == {}
    assert found(environ, "-s", "nats://other", "--context", "c").options["user"] == "u"
    assert found(environ, "--js-domain", "leaf").jetstream["domain"] == "leaf"


def test_tls_first_of_a_context(environ: dict[str, str], context: Callable[..., None]) -> None:
    context("c", select=True, tls_first=True)
    assert found(environ).options["tls_first"] is True


def test_api_prefix_of_a_context(environ: dict[str, str], context: Callable[..., None]) -> None:
    context("c", select=True, jetstream_api_prefix="imported.JS")
    assert found(environ).jetstream == {"timeout": 5.0, "prefix": "imported.JS"}
    assert found(environ).servers == "nats://127.0.0.1:4222"


def test_password_file(environ: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = private(tmp_path / "pw", "secret word\n")
    result = found(environ, "--user", "u", "--password-file", path)
    assert result.options == {"user": "u", "password": "secret word"}
    assert capsys.readouterr().err == ""
    os.chmod(path, 0o644)
    found(environ, "--user", "u", "--password-file", path)
    err = capsys.readouterr().err
    assert "chmod 600" in err
    assert "secret" not in err


def test_password_and_token_on_the_command_line_are_warned_of(
    environ: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert found(environ, "--user", "u", "--password", "hush").options == {"user": "u", "password": "hush"}
    err = capsys.readouterr().err
    assert "--password-file" in err
    assert "hush" not in err
    assert found(environ, "--token", "hush").options == {"token": "hush"}
    assert "NATS_TOKEN" in capsys.readouterr().err
    found(environ, "-s", "nats://u:hush@h")
    err = capsys.readouterr().err
    assert "password on the command line" in err
    assert "hush" not in err


def test_environment(environ: dict[str, str], tmp_path: Path, context: Callable[..., None]) -> None:
    context("c", select=True, url="nats://c", token="context")
    assert found({**environ, "NATS_USER": "u", "NATS_PASSWORD": "p"}).options == {
        "user": "u",
        "password": "p",
    }
    assert found({**environ, "NATS_TOKEN": "t"}).options == {"token": "t"}
    creds = private(tmp_path / "x.creds", "")
    assert found({**environ, "NATS_CREDS": creds}).options == {"creds": creds}
    seed = private(tmp_path / "seed", "SUAB\n")
    assert found({**environ, "NATS_NKEY": seed}).options == {"nkey_seed": "SUAB"}
    assert found(environ).options == {"token": "context"}
    both = {**environ, "NATS_TOKEN": "t", "NATS_PASSWORD": "p"}
    assert found(both, "--user", "u").options == {"user": "u", "password": "p"}


def test_credentials_in_the_url_are_enough(environ: dict[str, str], context: Callable[..., None]) -> None:
    for other in ({"NATS_USER": "u"}, {"NATS_TOKEN": "t"}, {"NATS_CREDS": "gone"}, {"NATS_NKEY": "gone"}):
        loud = {**environ, **other}
        assert found(loud, "-s", "nats://mine@h,nats://me:mine@i").options == {}
        assert found({**loud, "NATS_URL": "nats://mine@h"}).options == {}
    context("c", url="nats://mine@h", creds="gone")
    assert found(environ, "--context", "c").options == {}
    some = ("-s", "nats://mine@h,nats://i")
    assert found({**environ, "NATS_TOKEN": "t"}, *some).options == {"token": "t"}
    assert found(environ, "-s", "nats://mine@h", "--token", "t").options == {"token": "t"}


def test_creds_file_others_can_read(
    environ: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.creds"
    path.write_text("")
    path.chmod(0o640)
    assert found(environ, "--creds", str(path)).options == {"creds": str(path)}
    assert "mode 0640" in capsys.readouterr().err


def test_a_pipe_is_read_once(environ: dict[str, str], tmp_path: Path) -> None:
    """As by ``--creds <(pass show x)``: nothing would come at the second attempt to connect."""
    key = Key(USER, b"u" * 32)
    jwt = Key(ACCOUNT, b"a" * 32).jwt(key, "user")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    def options(text: str, *words: str) -> Any:
        with ThreadPoolExecutor() as pool:
            pool.submit(pipe.write_text, text)
            return found(environ, *words).options

    assert options(creds_text(jwt, key.seed), "--creds", str(pipe)) == {"jwt": jwt, "nkey_seed": key.seed}
    assert options(key.seed, "--nkey", str(pipe)) == {"nkey_seed": key.seed}
    with pytest.raises(ConfigError, match="is not a credentials file"):
        options("", "--creds", str(pipe))


def test_timeouts(environ: dict[str, str]) -> None:
    result = found(environ, "--timeout", "1m")
    assert result.options == {"connect_timeout": 60.0, "request_timeout": 60.0}
    assert result.jetstream == {"timeout": 60.0}
    assert found({**environ, "NATS_TIMEOUT": "3s"}).jetstream == {"timeout": 3.0}


@pytest.mark.parametrize(
    ("words", "extra", "text"),
    [
        (["--user", "u"], {}, "--password-file"),
        (["--password", "p"], {}, "--user"),
        (["--user", "u", "--password-file", "/nonexistent"], {}, "no such file"),
        (["--creds", "/nonexistent"], {}, "no such file"),
        (["--nkey", "/nonexistent"], {}, "no such file"),
        (["--tlsca", "/nonexistent"], {}, "/nonexistent"),
        ([], {"NATS_TIMEOUT": "soon"}, "NATS_TIMEOUT"),
        (["--context", "missing"], {}, "does not exist"),
    ],
)
def test_unusable(
    environ: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    extra: dict[str, str],
    text: str,
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    with pytest.raises(CommandError, match=text) as caught:
        found({**environ, **extra}, *words)
    assert caught.value.code == 2


def test_tls_files_demand_tls(environ: dict[str, str]) -> None:
    import ssl

    bundle = ssl.get_default_verify_paths().cafile
    if bundle is None:
        left_out("no CA bundle on this machine")
    result = found(environ, "--tlsca", bundle)
    assert isinstance(result.options["tls"], ssl.SSLContext)
    assert result.options["tls"].check_hostname
    assert not result.options["tls"].hostname_checks_common_name


def test_a_named_context_beats_the_environment(
    environ: dict[str, str], context: Callable[..., None], tmp_path: Path
) -> None:
    """What it does not say comes from the environment."""
    context(
        "c", url="nats://c", user="u", password="p", inbox_prefix="_C", ca="/c/ca", cert="/c/c", key="/c/k"
    )
    context("bare", url="nats://bare")
    loud = {**environ, "NATS_URL": "nats://e", "NATS_TOKEN": "t"}
    assert found(loud, "--context", "bare").options == {"token": "t"}
    assert found(loud, "--context", "bare").servers == "nats://bare"
    assert found({**loud, "NATS_USER": "e", "NATS_PASSWORD": "q"}, "--context", "bare").options["user"] == "e"
    with pytest.raises(CommandError, match="private key '/c/k'"):
        found({**loud, "NATS_CERT": "/e/c", "NATS_KEY": "/e/k"}, "--context", "c")
    context("c", url="nats://c", user="u", password="p", inbox_prefix="_C")
    assert found(loud, "--context", "c").options == {"user": "u", "password": "p", "inbox_prefix": "_C"}


def test_the_environment_beats_the_selected_context(
    environ: dict[str, str], context: Callable[..., None]
) -> None:
    context("c", select=True, url="nats://c", user="u", password="p", ca="/c/ca")
    assert found({**environ, "NATS_URL": "nats://e"}).servers == "nats://e"
    with pytest.raises(CommandError, match="/e/ca"):
        found({**environ, "NATS_CA": "/e/ca"})
    with pytest.raises(CommandError, match="/o/ca"):
        found({**environ, "NATS_CA": "/e/ca"}, "--tlsca", "/o/ca")


def test_options_beat_a_context(environ: dict[str, str], context: Callable[..., None]) -> None:
    context("c", select=True, tls_first=True, inbox_prefix="_C", jetstream_domain="hub")
    result = found(environ, "--no-tlsfirst", "--inbox-prefix", "_O", "--js-api-prefix", "P")
    assert result.options == {"inbox_prefix": "_O"}
    assert result.jetstream == {"timeout": 5.0, "prefix": "P"}
    assert found(environ, "--tlsfirst").options["tls_first"] is True


SEED = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY"


def test_a_jwt_and_its_seed(
    environ: dict[str, str],
    context: Callable[..., None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    jwt = "eyJ0eXAiOiJKV1QiLCJhbGciOiJlZDI1NTE5LW5rZXkifQ.e30.c2ln"
    paths = private(tmp_path / "jwt", f"{jwt}\n"), private(tmp_path / "seed", f"{SEED}\n")
    expected = {"jwt": jwt, "nkey_seed": SEED}
    assert found(environ, "--jwt", paths[0], "--seed", paths[1]).options == expected
    assert found({**environ, "NATS_JWT": jwt, "NATS_SEED": SEED}).options == expected
    context("c", user_jwt=jwt, user_seed=SEED)
    os.chmod(Path(environ["XDG_CONFIG_HOME"], "nats", "context", "c.json"), 0o600)
    assert found(environ, "--context", "c").options == expected
    assert capsys.readouterr().err == ""
    assert found(environ, "--jwt", jwt, "--seed", SEED).options == expected
    err = capsys.readouterr().err
    assert "can read --seed: use a file" in err
    assert SEED not in err
    with pytest.raises(CommandError, match="go together"):
        found({**environ, "NATS_JWT": jwt})
    context("half", user_jwt=jwt)
    with pytest.raises(CommandError, match="go together"):
        found(environ, "--context", "half")


def test_a_proxy_is_not_gone_around(environ: dict[str, str]) -> None:
    with pytest.raises(CommandError, match="a proxy is not supported") as caught:
        found({**environ, "NATS_SOCKS_PROXY": "127.0.0.1:1080"})
    assert caught.value.code == 2


def test_a_warning_is_not_said_again_and_again(capsys: pytest.CaptureFixture[str]) -> None:
    """While a server is gone, the library logs each attempt to reconnect."""
    with _logging_to(Output()):
        for text in ("refused", "refused", "lost", "refused"):
            logging.getLogger("natsproto").warning(text)
    lines = [f"objstore: warning: {text}" for text in ("refused", "lost", "refused")]
    assert capsys.readouterr().err.splitlines() == lines
