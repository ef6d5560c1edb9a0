"""Key text forms, credentials files, and what goes into CONNECT."""

from __future__ import annotations

import base64
import sys
import traceback
from pathlib import Path

import pytest

from natsproto.aio.auth import Credentials, connect_document, decode_seed, encode_public_key, read_credentials
from natsproto.aio.server_pool import parse_url
from natsproto.errors import AuthorizationError, ConfigError, MissingExtraError
from support.nkeys import ACCOUNT, OPERATOR, USER, Key, creds_text, encode_seed

# Published in the documentation of NATS (NKey authentication).
SEED = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY"
PUBLIC = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4"
SERVER = parse_url("nats://h")


def fields(server: str = "nats://h", nonce: str | None = "nonce", **options: object) -> dict[str, object]:
    return Credentials(**options).connect_fields(parse_url(server), nonce)  # type: ignore[arg-type]


def test_published_vector() -> None:
    pytest.importorskip("cryptography")
    assert len(decode_seed(SEED)) == 32
    assert Key(USER, decode_seed(SEED)).seed == SEED
    assert fields(nkey_seed=SEED)["nkey"] == PUBLIC


def test_signature_is_that_of_the_nonce_as_given() -> None:
    key = Key(USER, bytes(range(32)))
    result = fields(nkey_seed=key.seed, nonce="PXoWU7zWAMt75FY")
    assert result == {
        "nkey": key.public,
        "sig": base64.urlsafe_b64encode(key.sign(b"PXoWU7zWAMt75FY")).decode().rstrip("="),
    }
    assert fields(nkey_seed=key.seed.encode(), nonce="PXoWU7zWAMt75FY") == result
    assert (
        encode_public_key(base64.b32decode(key.public + "=" * 0 + "=" * (-len(key.public) % 8))[1:33])
        == key.public
    )


@pytest.mark.parametrize(
    ("seed", "reason"),
    [
        ("", "length"),
        (SEED[:-1], "length|base32"),
        (SEED[:40], "length"),
        (SEED + "AAAAAAAA", "length"),
        (SEED[:-2] + "ZY", "checksum"),
        (SEED[:20] + "A" + SEED[21:], "checksum"),
        ("!" + SEED[1:], "base32"),
        ("ü" + SEED[1:], "base32"),
        (encode_seed(ACCOUNT, bytes(32)), "user"),
        (encode_seed(OPERATOR, bytes(32)), "user"),
        (PUBLIC, "length|user"),
        ("\x00" * 58, "base32"),
    ],
)
def test_bad_seeds(seed: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as info:
        Credentials(nkey_seed=seed)
    text = "".join(traceback.format_exception(info.value))
    assert not seed or len(seed) < 5 or repr(seed) not in text


def test_signing_without_a_library(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("cryptography.hazmat.primitives.asymmetric.ed25519", "nacl", "nacl.signing"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=r"natsproto\[nkeys\]") as info:
        fields(nkey_seed=SEED)
    assert info.value.extra == "nkeys"
    assert isinstance(info.value, ImportError)
    assert fields(jwt="J", signature_cb=lambda nonce: b"sig " + nonce.encode())["sig"] == "c2lnIG5vbmNl"


def test_no_nonce() -> None:
    with pytest.raises(AuthorizationError, match="no nonce"):
        fields(nkey_seed=SEED, nonce=None)


def test_user_password_token() -> None:
    assert fields() == {}
    assert fields(user="u", password="p") == {"user": "u", "pass": "p"}
    assert fields(token="t") == {"auth_token": "t"}
    assert fields(token=lambda: "fresh") == {"auth_token": "fresh"}
    assert fields("nats://a:b@h", user="u", password="p") == {"user": "a", "pass": "b"}
    assert fields("nats://url@h", token="t") == {"auth_token": "url"}


@pytest.mark.parametrize(
    "options",
    [
        {"user": "u"},
        {"password": "p"},
        {"jwt": "j"},
        {"creds": "f", "jwt": "j"},
        {"creds": "f", "nkey_seed": SEED},
    ],
)
def test_contradictions(options: dict[str, str]) -> None:
    with pytest.raises(ConfigError):
        Credentials(**options)  # type: ignore[arg-type]


def test_credentials_file(tmp_path: Path) -> None:
    path = tmp_path / "user.creds"
    path.write_text(creds_text("head.body.sig", SEED))
    assert read_credentials(path) == ("head.body.sig", SEED)
    path.write_text(creds_text("head.body.sig", SEED).replace("\n", "\r\n"))
    assert read_credentials(path) == ("head.body.sig", SEED)
    result = fields(creds=path)
    assert result["jwt"] == "head.body.sig"
    assert set(result) == {"jwt", "sig"}
    # Files are rotated: each attempt reads anew.
    credentials = Credentials(creds=path)
    path.write_text(creds_text("other", SEED))
    assert credentials.connect_fields(SERVER, "n")["jwt"] == "other"


@pytest.mark.parametrize(
    "text", ["", "nonsense", f"-----BEGIN USER NKEY SEED-----\n{SEED}\n------END USER NKEY SEED------"]
)
def test_unusable_credentials_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.creds"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"x\.creds") as info:
        read_credentials(path)
    assert SEED not in str(info.value)
    with pytest.raises(ConfigError):
        read_credentials(tmp_path / "missing")
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError):
        read_credentials(path)


def test_a_bad_seed_in_a_credentials_file(tmp_path: Path) -> None:
    path = tmp_path / "x.creds"
    path.write_text(creds_text("jwt", SEED[:-1]))
    with pytest.raises(ConfigError):
        fields(creds=path)


def test_connect_holds_a_fixed_list_of_keys() -> None:
    document = connect_document(
        name="n",
        echo=True,
        pedantic=False,
        tls=True,
        headers=True,
        credentials=fields(user="u", password="p"),
    )
    assert set(document) == {
        "verbose", "pedantic", "tls_required", "lang", "version", "protocol", "echo", "headers",
        "no_responders", "name", "user", "pass",
    }  # fmt: skip
    assert document["verbose"] is False
    assert document["protocol"] == 1


def test_nothing_shows() -> None:
    credentials = Credentials(user="u", password="CANARY", token="CANARY")
    assert "CANARY" not in repr(credentials) + str(credentials)
