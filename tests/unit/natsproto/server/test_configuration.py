"""The configuration text of a local server: quoted, complete, refused where it would mean something else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from natsproto.errors import ConfigError, UnsupportedFeatureError
from natsproto.server.binary import ServerBinary
from natsproto.server.configuration import (
    address,
    authorization_block,
    check_tls,
    jetstream_block,
    quote,
    tls_block,
)

NEW, OLD = ServerBinary("/new", "2.15.1", "argument"), ServerBinary("/old", "2.9.10", "argument")


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ("", '""'),
        ("plain", '"plain"'),
        ('say "hi"', '"say \\"hi\\""'),
        ("C:\\dir", '"C:\\\\dir"'),
        ("$HOME # ; { }", '"$HOME # ; { }"'),
        ("größe", '"größe"'),
    ],
)
def test_quoting(text: str, quoted: str) -> None:
    assert quote(text) == quoted


@pytest.mark.parametrize("text", ["a\nb", "a\rb", "\0", "\x1b[2J", "\x7f", "\t"])
def test_what_would_begin_another_line(text: str) -> None:
    with pytest.raises(ConfigError, match="control characters"):
        quote(text)


def test_addresses() -> None:
    assert address("127.0.0.1", 4222) == "127.0.0.1:4222"
    assert address("::1", 4222) == "[::1]:4222"


def test_no_tls() -> None:
    assert check_tls(None) is None


def test_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given = {"cert_file": Path("c.pem"), "key_file": "k.pem", "ca_file": "", "verify": True}
    checked = check_tls(given)
    assert checked == {
        "cert_file": str(tmp_path / "c.pem"),
        "key_file": str(tmp_path / "k.pem"),
        "ca_file": "",
        "verify": True,
    }
    assert given["key_file"] == "k.pem", "the caller's stays as it is"


@pytest.mark.parametrize(
    "tls",
    [{}, {"cert_file": "c"}, {"key_file": "k"}, {"cert_file": "", "key_file": "k"}, {"certs": "c"}],
)
def test_tls_that_cannot_be(tls: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="tls"):
        check_tls(tls)


def test_the_tls_block() -> None:
    block = tls_block({"cert_file": "/c", "key_file": '/k"', "verify": True, "handshake_first": True}, NEW)
    assert block.splitlines() == [
        "tls {",
        '  cert_file: "/c"',
        '  key_file: "/k\\""',
        "  verify: true",
        "  handshake_first: true",
        "  timeout: 5",
        "}",
    ]
    plain = tls_block({"cert_file": "/c", "key_file": "/k", "verify": False}, OLD)
    assert "verify" not in plain
    with pytest.raises(UnsupportedFeatureError, match=r"2\.10\.4.*this is 2\.9\.10"):
        tls_block({"cert_file": "/c", "key_file": "/k", "handshake_first": True}, OLD)


def test_the_authorization_block() -> None:
    assert authorization_block(None, None, None) == ""
    assert authorization_block("joe", 'p"w', None).splitlines() == [
        "authorization {",
        '  user: "joe"',
        '  password: "p\\"w"',
        "}",
    ]
    assert '  token: ""' in authorization_block(None, None, ""), "an empty one is one"
    with pytest.raises(ConfigError):
        authorization_block(None, None, f"a{os.linesep}}}")


def test_the_jetstream_block() -> None:
    assert "domain" not in jetstream_block(None)
    assert '  domain: "hub"' in jetstream_block("hub").splitlines()
    assert "  max_file_store: 1TB" in jetstream_block(None).splitlines()
