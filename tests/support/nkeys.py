"""NKeys and JWTs made at run time, as ``nsc`` would make them."""

from __future__ import annotations

import base64
import binascii
import json
import time
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

OPERATOR, ACCOUNT, USER = 14 << 3, 0, 20 << 3
_SEED = 18 << 3


def _text(raw: bytes) -> str:
    return base64.b32encode(raw + binascii.crc_hqx(raw, 0).to_bytes(2, "little")).decode().rstrip("=")


def encode_seed(kind: int, secret: bytes) -> str:
    """The text form ``S?…`` of 32 secret bytes."""
    return _text(bytes([_SEED | kind >> 5, (kind & 31) << 3]) + secret)


class Key:
    """A key pair of one kind."""

    def __init__(self, kind: int, secret: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(secret)
        self.seed = encode_seed(kind, secret)
        self.public = _text(
            bytes([kind]) + self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        )

    def sign(self, data: bytes) -> bytes:
        return self._key.sign(data)

    def jwt(
        self,
        subject: Key | str,
        kind: str,
        *,
        expires: int | None = None,
        audience: str | None = None,
        **nats: Any,
    ) -> str:
        """A JWT about ``subject`` (a public key, or the pair of one), issued by this key."""
        claims: dict[str, Any] = {
            "jti": "test",
            "iat": int(time.time()) - 10,
            "iss": self.public,
            "name": kind,
            "sub": subject if isinstance(subject, str) else subject.public,
            "nats": {"type": kind, "version": 2, **nats},
        }
        if expires is not None:
            claims["exp"] = expires
        if audience is not None:
            claims["aud"] = audience
        head = _segment({"typ": "JWT", "alg": "ed25519-nkey"})
        body = f"{head}.{_segment(claims)}"
        return f"{body}.{_encode(self.sign(body.encode()))}"


def creds_text(jwt: str, seed: str) -> str:
    """The decorated form of a ``.creds`` file."""
    return (
        f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
        "************************* IMPORTANT *************************\n"
        "NKEY Seed printed below can be used to sign and prove identity.\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n\n"
        "*************************************************************\n"
    )


def claims_of(jwt: str) -> dict[str, Any]:
    """What a JWT says; its signature is not checked."""
    body = jwt.split(".")[1]
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    return claims


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _segment(data: dict[str, Any]) -> str:
    return _encode(json.dumps(data, separators=(",", ":")).encode())
