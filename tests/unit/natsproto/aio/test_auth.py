"""Key text forms, credentials files, and what goes into CONNECT."""

from __future__ import annotations

import base64
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import pytest

import natsproto
from natsproto.aio.auth import (
    Credentials,
    connect_document,
    decode_seed,
    encode_public_key,
    looks_secret,
    read_credentials,
)
from natsproto.aio.server_pool import parse_url
from natsproto.errors import AuthorizationError, ConfigError, MissingExtraError
from support.nkeys import ACCOUNT, OPERATOR, USER, Key, creds_text, encode_seed

# Published in the documentation of NATS (NKey authentication).
SEED = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY"
PUBLIC = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4"
SERVER = parse_url("nats://h")


def fields(server: str = "nats://h", nonce: str | None = "nonce", **options: object) -> dict[str, object]:
    return Credentials(**options).connect_fields(parse_url(server), nonce)  # type: ignore[arg-type]


@pytest.mark.parametrize("ours", [{"user": "u", "password": "p"}, {"token": "t"}, {"nkey_seed": SEED}])
def test_a_server_with_its_own_credentials_gets_no_others(ours: dict[str, object]) -> None:
    """Servers of one list may belong to different people."""
    assert fields("nats://a:b@h", **ours) == {"user": "a", "pass": "b"}
    assert fields("nats://a@h", **ours) == {"auth_token": "a"}


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
        ("\ud800" + SEED[1:], "base32"),
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


SECRETS = {
    "seed": SEED,
    "credentials": creds_text("eyJhbGciOiJlZDI1NTE5LW5rZXkifQ.body.sig", SEED),
    "jwt": "eyJhbGciOiJlZDI1NTE5LW5rZXkifQ.eyJqdGkiOiJYIn0.sig",
}


@pytest.mark.parametrize("secret", SECRETS.values(), ids=SECRETS)
def test_a_secret_where_a_path_belongs(secret: str) -> None:
    """It must show nowhere: not in the message, not in the chain."""
    for given in (secret, f"  {secret}\n", Path(secret)):
        with pytest.raises(ConfigError, match="path of a credentials file") as info:
            natsproto.connect(creds=given)
        text = "".join(traceback.format_exception(info.value))
        assert not any(line in text for line in secret.split() if len(line) > 12)


HALF = SEED[:29]
DAMAGED = {
    "lower case": SEED.lower(),
    "groups": " ".join(SEED[at : at + 4] for at in range(0, 58, 4)),
    "lower groups": "-".join(SEED[at : at + 5] for at in range(0, 58, 5)).lower(),
    "typos": SEED.replace("3", "8", 1).replace("O", "0"),
    "small typo": f"{SEED[:20]}k{SEED[21:]}",
    "cut": SEED[:40],
    "half": HALF,
    "half, lower": HALF.lower(),
    "half, typo": HALF.replace("L", "1", 1),
    "quoted": f"'{SEED[:41]}'",
    "below": f"/home/me/{SEED.lower()}.nk",
}


@pytest.mark.parametrize("secret", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_seed_where_a_path_belongs(secret: str) -> None:
    for given in (secret, Path(secret), f" {secret} "):
        with pytest.raises(ConfigError, match="path of a credentials file") as info:
            natsproto.connect(creds=given)
        assert secret not in "".join(traceback.format_exception(info.value))
    with pytest.raises(ConfigError) as info:
        natsproto.connect(nkey=secret, signature_cb=lambda nonce: b"sig")
    assert secret not in "".join(traceback.format_exception(info.value))


def test_a_file_of_such_a_name_is_a_file(tmp_path: Path) -> None:
    assert looks_secret(tmp_path / HALF)
    (tmp_path / HALF).touch()
    assert not looks_secret(tmp_path / HALF)
    assert not looks_secret(os.fsencode(tmp_path / HALF))


def test_paths_are_no_secrets(tmp_path: Path) -> None:
    for name in ("user.creds", "SUnny.creds", "eyJ.creds", "a b ü.creds", "SYSTEM_ACCOUNT_CREDENTIALS.creds"):
        assert not looks_secret(tmp_path / name)


class Spilled(Exception):
    """Tells a secret."""


@pytest.mark.parametrize("what", ["token", "jwt", "nkey_seed", "creds_content", "signature_cb"])
def test_what_a_callable_raises_is_not_quoted(what: str) -> None:
    def spill(*_: str) -> str:
        raise Spilled("CANARY")

    options: dict[str, Any] = {what: spill}
    if what == "jwt":
        options["signature_cb"] = lambda nonce: b"sig"
    if what == "signature_cb":
        options["nkey"] = PUBLIC
    with pytest.raises(ConfigError, match=f"{what}= raised Spilled") as info:
        fields(**options)
    assert "CANARY" not in "".join(traceback.format_exception(info.value))


async def coroutine() -> str:
    return "CANARY"


@pytest.mark.parametrize("result", [["CANARY"], None, 1, coroutine])
def test_what_a_callable_returns(result: Any) -> None:
    def told(*_: str) -> Any:
        return result() if result is coroutine else result

    for options in (
        {"token": told},
        {"jwt": told, "nkey_seed": SEED},
        {"nkey_seed": told},
        {"creds_content": told},
    ):
        with pytest.raises(ConfigError, match=r"returned .*, not a str or bytes") as info:
            fields(**options)
        assert "CANARY" not in str(info.value)
    with pytest.raises(ConfigError, match="not bytes"):
        fields(nkey=PUBLIC, signature_cb=lambda nonce: result)


@pytest.mark.parametrize("what", ["token", "jwt", "nkey_seed", "creds_content"])
def test_what_is_no_text_is_refused_before_anything_is_sent(what: str) -> None:
    other: dict[str, Any] = {"signature_cb": bytes} if what == "jwt" else {}
    for wrong in (1, ["CANARY"], bytearray(b"CANARY")):
        with pytest.raises(
            ConfigError, match=f"{what}= is {type(wrong).__name__}, not a str or bytes"
        ) as info:
            natsproto.connect(**{what: wrong}, **other)
        assert "CANARY" not in str(info.value)


def forms(text: str) -> list[Any]:
    """The ways to give a secret from memory."""
    return [text, text.encode(), lambda: text, lambda: text.encode(), b"\xef\xbb\xbf" + text.encode()]


def test_secrets_from_memory() -> None:
    key = Key(USER, bytes(range(32)))
    sig = base64.urlsafe_b64encode(key.sign(b"nonce")).decode().rstrip("=")
    for token in forms("s3cr3t ü"):
        assert fields(token=token) == {"auth_token": "s3cr3t ü"}
    for seed in forms(f"{key.seed}\n"):
        assert fields(nkey_seed=seed) == {"nkey": key.public, "sig": sig}
        for jwt in forms("head.body.sig\n"):
            assert fields(nkey_seed=seed, jwt=jwt) == {"jwt": "head.body.sig", "sig": sig}
    for creds in forms(creds_text("head.body.sig", key.seed)):
        assert fields(creds_content=creds) == {"jwt": "head.body.sig", "sig": sig}
        assert fields(creds_content=creds, signature_cb=lambda nonce: b"other")["sig"] == "b3RoZXI"


def test_a_callable_is_asked_at_each_attempt() -> None:
    texts = [creds_text("old", SEED), creds_text("new", SEED).encode()]
    credentials = Credentials(creds_content=lambda: texts.pop(0))
    assert len(texts) == 2
    assert credentials.connect_fields(SERVER, "n")["jwt"] == "old"
    assert credentials.connect_fields(SERVER, "n")["jwt"] == "new"


@pytest.mark.parametrize("text", ["", "user.creds", SEED, SECRETS["jwt"], creds_text("j", SEED)[:200]])
def test_what_is_not_the_content_of_a_credentials_file(text: str) -> None:
    for given in forms(text):
        with pytest.raises(
            ConfigError, match="creds_content is not what a credentials file contains"
        ) as info:
            fields(creds_content=given)
        shown = "".join(traceback.format_exception_only(info.value))
        assert not any(line in shown for line in text.split() if len(line) > 12)
        assert info.value.__cause__ is info.value.__context__ is None


def test_a_bad_seed_in_the_content() -> None:
    with pytest.raises(ConfigError, match="NKey seed"):
        Credentials(creds_content=creds_text("jwt", SEED[:-1]))
    for seed in (lambda: SEED[:-1], lambda: SEED[:-1].encode()):
        with pytest.raises(ConfigError, match="NKey seed") as info:
            fields(nkey_seed=seed)
        assert SEED[:-1] not in str(info.value)


def test_a_public_key_for_a_callback() -> None:
    result = fields(nkey=PUBLIC, signature_cb=lambda nonce: b"sig " + nonce.encode())
    assert result == {"nkey": PUBLIC, "sig": "c2lnIG5vbmNl"}
    assert fields(jwt=lambda: "fresh", nkey_seed=SEED)["jwt"] == "fresh"
    with pytest.raises(AuthorizationError, match="no nonce"):
        fields(nkey=PUBLIC, signature_cb=lambda nonce: b"sig", nonce=None)
    for wrong in (
        "",
        "U",
        PUBLIC[:-1],
        PUBLIC[:-2] + "ZY",
        encode_seed(ACCOUNT, bytes(32)),
        SEED,
        1,
        "ü" * 56,
    ):
        with pytest.raises(ConfigError, match="nkey") as info:
            Credentials(nkey=wrong, signature_cb=lambda nonce: b"")  # type: ignore[arg-type]
        assert not wrong or str(wrong) == "U" or wrong == 1 or str(wrong) not in str(info.value)


def test_a_file_of_dashes(tmp_path: Path) -> None:
    path = tmp_path / "dashes"
    for text in ("-" * (1 << 20), "---BEGIN " * 100_000, "-----BEGIN x\n" * 80_000):
        path.write_text(text)
        began = time.process_time()
        with pytest.raises(ConfigError, match="not a credentials file"):
            read_credentials(path)
        assert time.process_time() - began < 5


def test_no_nonce() -> None:
    with pytest.raises(AuthorizationError, match="no nonce"):
        fields(nkey_seed=SEED, nonce=None)


def test_user_password_token() -> None:
    assert fields() == {}
    assert fields(user="u", password="p") == {"user": "u", "pass": "p"}
    assert fields(user="u", password="") == {"user": "u", "pass": ""}
    assert fields(user="u") == {"user": "u"}  # for auth callout
    assert fields(token="t") == {"auth_token": "t"}
    assert fields(token=lambda: "fresh") == {"auth_token": "fresh"}
    assert fields("nats://a:b@h", user="u", password="p") == {"user": "a", "pass": "b"}
    assert fields("nats://url@h", token="t") == {"auth_token": "url"}


@pytest.mark.parametrize(
    "options",
    [
        {"password": "p"},
        {"jwt": "j"},
        {"signature_cb": lambda nonce: b""},
        {"nkey": PUBLIC},
        {"nkey": PUBLIC, "nkey_seed": SEED},
        {"nkey": PUBLIC, "jwt": "j", "signature_cb": lambda nonce: b""},
        {"creds": "f", "jwt": "j"},
        {"creds": "f", "nkey_seed": SEED},
        {"creds": "f", "creds_content": creds_text("j", SEED)},
        {"creds_content": creds_text("j", SEED), "jwt": "j"},
        {"creds_content": creds_text("j", SEED), "nkey_seed": SEED},
        {"creds_content": creds_text("j", SEED), "nkey": PUBLIC},
    ],
)
def test_contradictions(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Credentials(**options)


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


@pytest.mark.parametrize("end", [b"\xff", b""])
def test_a_byte_that_is_no_text_tells_nothing_of_the_seed(tmp_path: Path, end: bytes) -> None:
    """It costs nothing outside of the blocks; and no error, or cause of one, carries what was read."""
    path = tmp_path / "x.creds"
    path.write_bytes(creds_text("jwt", SEED).encode() + end)
    assert read_credentials(path) == ("jwt", SEED)
    path.write_bytes(SEED.encode() + end)
    with pytest.raises(ConfigError) as info:
        read_credentials(path)
    assert info.value.__cause__ is info.value.__context__ is None
    assert SEED not in repr(info.value)


def test_a_bad_seed_in_a_credentials_file(tmp_path: Path) -> None:
    path = tmp_path / "x.creds"
    path.write_text(creds_text("jwt", SEED[:-1]))
    with pytest.raises(ConfigError):
        fields(creds=path)


def test_connect_holds_a_fixed_list_of_keys() -> None:
    document = connect_document(
        name="n",
        echo=True,
        verbose=False,
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
