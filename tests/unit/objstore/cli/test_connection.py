"""Option, environment, context, default; and which credentials go where."""

from __future__ import annotations

import io
import json
import os
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from objstore.cli.connection import Settings, settings
from objstore.cli.output import CommandError, Output
from objstore.cli.parser import parse as parse_words
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


def test_creds_file_others_can_read(
    environ: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.creds"
    path.write_text("")
    path.chmod(0o640)
    assert found(environ, "--creds", str(path)).options == {"creds": str(path)}
    assert "mode 0640" in capsys.readouterr().err


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
