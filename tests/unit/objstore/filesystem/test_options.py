"""Storage options, and what the environment adds."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from natsproto.errors import ConfigError
from objstore.filesystem.options import IDENTITY, connection
from support.certs import make_certs
from support.nkeys import ACCOUNT, USER, Key, creds_text

NO_FILES = (None, None, None)


def test_the_server() -> None:
    assert connection(None, NO_FILES, {}, {}).servers == "nats://127.0.0.1:4222"
    assert connection(None, NO_FILES, {}, {"NATS_URL": "nats://env"}).servers == "nats://env"
    assert connection(["nats://a", "nats://b"], NO_FILES, {}, {"NATS_URL": "nats://env"}).servers == [
        "nats://a",
        "nats://b",
    ]


def test_credentials_of_the_environment(tmp_path: Path) -> None:
    seed = Key(USER, b"u" * 32).seed
    (tmp_path / "seed").write_text(seed + "\n")
    found = connection(None, NO_FILES, {}, {"NATS_USER": "me", "NATS_PASSWORD": "secret"})
    assert (found.user, found.password) == ("me", "secret")
    assert connection(None, NO_FILES, {}, {"NATS_TOKEN": "t"}).token == "t"
    assert connection(None, NO_FILES, {}, {"NATS_NKEY": str(tmp_path / "seed")}).nkey_seed == seed
    assert connection(None, NO_FILES, {}, {"NATS_CREDS": str(tmp_path / "c")}).creds == str(tmp_path / "c")
    with pytest.raises(ConfigError, match="NATS_NKEY"):
        connection(None, NO_FILES, {}, {"NATS_NKEY": str(tmp_path / "none")})


def chain(exc: BaseException | None) -> Iterator[BaseException]:
    while exc is not None:
        yield exc
        exc = exc.__cause__ or exc.__context__


@pytest.mark.parametrize("damage", [str, str.lower, lambda seed: seed[:40], lambda seed: seed[:10]])
@pytest.mark.parametrize("name", ["NATS_NKEY", "NATS_CREDS", "NATS_CA", "NATS_CERT", "NATS_KEY"])
def test_a_seed_where_a_path_belongs(name: str, damage: Callable[[str], str]) -> None:
    """Neither the error nor what is hidden behind it has the text, even if it was not recognised."""
    seed = damage(Key(USER, b"u" * 32).seed)
    environ = {"NATS_CERT": "c", "NATS_KEY": "k"} if name in ("NATS_CERT", "NATS_KEY") else {}
    if len(seed) == 10 and name == "NATS_CREDS":
        return  # that is a path, and opened at each connect
    with pytest.raises(ConfigError) as info:
        connection(None, NO_FILES, {}, {**environ, name: seed})
    assert "looks like its content" in str(info.value) or len(seed) == 10
    for exc in chain(info.value):
        assert seed not in f"{exc} {exc!r} {exc.args} {vars(exc)} {getattr(exc, 'filename', None)}"


def test_given_credentials_are_not_mixed_with_others() -> None:
    found = connection(None, NO_FILES, {"token": "mine"}, {"NATS_USER": "me", "NATS_PASSWORD": "secret"})
    assert (found.token, found.user, found.password) == ("mine", None, None)


KEY = Key(USER, b"u" * 32)
JWT = Key(ACCOUNT, b"a" * 32).jwt(KEY, "user")
IDENTITIES: list[dict[str, Any]] = [
    {"user": "me"},
    {"user": "me", "password": "mine"},
    {"token": "mine"},
    {"token": lambda: "mine"},
    {"creds": "mine.creds"},
    {"creds_content": creds_text(JWT, KEY.seed)},
    {"nkey_seed": KEY.seed},
    {"nkey": KEY.public, "signature_cb": KEY.sign},
    {"jwt": JWT, "nkey_seed": KEY.seed},
]
ENVIRONMENTS = [
    {"NATS_CREDS": "other.creds"},
    {"NATS_NKEY": "missing"},
    {"NATS_USER": "other", "NATS_PASSWORD": "secret"},
    {"NATS_TOKEN": "other"},
]


def test_identities_are_all_that_connect_takes() -> None:
    assert {name for given in IDENTITIES for name in given} == set(IDENTITY)


@pytest.mark.parametrize("environ", ENVIRONMENTS, ids=lambda environ: next(iter(environ)))
@pytest.mark.parametrize("given", IDENTITIES, ids=" ".join)
def test_any_identity_excludes_those_of_the_environment(
    given: dict[str, Any], environ: dict[str, str]
) -> None:
    found = connection(None, NO_FILES, given, environ)
    assert {name: getattr(found, name) for name in IDENTITY} == {**dict.fromkeys(IDENTITY), **given}


@pytest.mark.parametrize("environ", ENVIRONMENTS, ids=lambda environ: next(iter(environ)))
def test_credentials_in_the_url_exclude_those_of_the_environment(environ: dict[str, str]) -> None:
    for urls in ("nats://mine@a", ["nats://me:mine@a", "nats://mine@b"]):
        found = connection(urls, NO_FILES, {}, environ)
        assert [getattr(found, name) for name in IDENTITY] == [None] * len(IDENTITY)
    assert connection(["nats://mine@a", "nats://b"], NO_FILES, {}, {"NATS_TOKEN": "t"}).token == "t"


def test_other_options() -> None:
    assert connection(None, NO_FILES, {"retry_budget": 3, "skip_instance_cache": True}, {}).retry_budget == 3
    assert connection(None, NO_FILES, {}, {}).name == "objstore.filesystem"
    assert connection(None, NO_FILES, {"name": "mine"}, {}).name == "mine"
    with pytest.raises(TypeError, match="retrybudget"):
        connection(None, NO_FILES, {"retrybudget": 3}, {})
    with pytest.raises(ConfigError, match="retry_budget"):
        connection(None, NO_FILES, {"retry_budget": -3}, {})


def test_tls_files(tmp_path: Path) -> None:
    certs = make_certs(tmp_path)
    found = connection(None, (certs.ca_file, certs.client_cert_file, certs.client_key_file), {}, {})
    assert isinstance(found.tls, ssl.SSLContext)
    assert isinstance(connection(None, NO_FILES, {}, {"NATS_CA": certs.ca_file}).tls, ssl.SSLContext)
    assert connection(None, NO_FILES, {"tls": True}, {"NATS_CA": certs.ca_file}).tls is True
    with pytest.raises(ConfigError, match="go together"):
        connection(None, (None, certs.client_cert_file, None), {}, {})
    with pytest.raises(ConfigError, match="TLS files"):
        connection(None, (str(tmp_path / "none"), None, None), {}, {})
