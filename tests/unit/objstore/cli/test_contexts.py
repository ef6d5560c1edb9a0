"""Contexts of the nats command, read only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from objstore.cli.contexts import load_context, selected_context
from objstore.cli.output import CommandError


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "nats" / "context").mkdir(parents=True)
    return {"XDG_CONFIG_HOME": str(tmp_path)}


def save(environ: dict[str, str], name: str, document: Any) -> None:
    path = Path(environ["XDG_CONFIG_HOME"], "nats", "context", f"{name}.json")
    path.write_text(document if isinstance(document, str) else json.dumps(document))


def select(environ: dict[str, str], text: str) -> None:
    Path(environ["XDG_CONFIG_HOME"], "nats", "context.txt").write_text(text)


def test_selection(environ: dict[str, str]) -> None:
    assert selected_context(environ) is None
    select(environ, "prod\n")
    assert selected_context(environ) == "prod"
    assert selected_context({**environ, "NATS_CONTEXT": "staging"}) == "staging"
    select(environ, "\n")
    assert selected_context(environ) is None


def test_a_seed_for_a_name(environ: dict[str, str]) -> None:
    """It is not quoted, unless a context has that name."""
    name = "suagw23lnnvww23lnnvww23lnnvww23lnnvww23l"
    with pytest.raises(CommandError, match="looks like a seed") as told:
        load_context(name, environ)
    assert name not in str(told.value)
    save(environ, name, {"url": "nats://h"})
    assert load_context(name, environ) == {"url": "nats://h"}


def test_home_is_the_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".config/nats/context").mkdir(parents=True)
    (tmp_path / ".config/nats/context.txt").write_text("home")
    (tmp_path / ".config/nats/context/home.json").write_text('{"url": "nats://h:1"}')
    assert selected_context({}) == "home"
    assert load_context("home", {}) == {"url": "nats://h:1"}


def test_fields(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("CERTS", "/certs")
    document = {
        "description": "ours",
        "url": "nats://a:1,nats://b:2",
        "creds": "~/x.creds",
        "token": "",
        "cert": "$CERTS/c.pem",
        "jetstream_domain": "hub",
        "tls_first": True,
        "color_scheme": "red",
    }
    save(environ, "c", document)
    assert load_context("c", environ) == {
        "url": "nats://a:1,nats://b:2",
        "creds": "/home/me/x.creds",
        "cert": "/certs/c.pem",
        "jetstream_domain": "hub",
        "tls_first": "true",
    }


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (("user", "creds", "nkey", "user_jwt", "token"), "user"),
        (("creds", "nkey", "user_jwt", "token"), "creds"),
        (("nkey", "user_jwt", "token"), "nkey"),
        (("user_jwt", "token"), "user_jwt"),
        (("token",), "token"),
    ],
)
def test_one_credential_counts(environ: dict[str, str], given: tuple[str, ...], kept: str) -> None:
    save(environ, "c", dict.fromkeys(given, "x"))
    assert set(load_context("c", environ)) == {kept}


def test_fields_that_change_nothing(environ: dict[str, str]) -> None:
    save(
        environ, "c", {"url": "u", "nsc": "", "socks_proxy": "", "windows_ca_certs_match": [], "future": None}
    )
    assert load_context("c", environ) == {"url": "u"}


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [
        ("nsc", "nsc://o/a/u", "asks the tool nsc"),
        ("socks_proxy", "127.0.0.1:1080", "a proxy is not supported"),
        ("windows_cert_store", "user", "only files hold certificates"),
        ("windows_cert_match", "me", "only files hold certificates"),
        ("windows_cert_match_by", "subject", "only files hold certificates"),
        ("windows_ca_certs_match", ["ca"], "only files hold certificates"),
        ("quantum_key", 1, "does not know"),
        ("password", "op://vault/item", "a secret of 1Password"),
        ("tls_first", "yes", "not true or false"),
    ],
)
def test_fields_that_cannot_be_honoured(environ: dict[str, str], field: str, value: Any, why: str) -> None:
    save(environ, "c", {"url": "u", field: value})
    with pytest.raises(CommandError, match=f"context 'c' cannot be used: '{field}'.*{why}") as caught:
        load_context("c", environ)
    assert caught.value.code == 2


@pytest.mark.parametrize("document", ["", "{", "[]", '"x"', '{"url": 1}', "[" * 100_000])
def test_unusable_files(environ: dict[str, str], document: str) -> None:
    save(environ, "c", document)
    with pytest.raises(CommandError, match="context 'c' cannot be used") as caught:
        load_context("c", environ)
    assert caught.value.code == 2


@pytest.mark.parametrize("name", ["missing", "../c", "a/b", "", ".", "..", "x\0y", "a\\b"])
def test_unusable_names(environ: dict[str, str], name: str) -> None:
    with pytest.raises(CommandError) as caught:
        load_context(name, environ)
    assert caught.value.code == 2
