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
        (("user", "creds", "nkey", "token"), "user"),
        (("creds", "nkey", "token"), "creds"),
        (("nkey", "token"), "nkey"),
        (("token",), "token"),
    ],
)
def test_one_credential_counts(environ: dict[str, str], given: tuple[str, ...], kept: str) -> None:
    save(environ, "c", dict.fromkeys(given, "x"))
    assert set(load_context("c", environ)) == {kept}


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
