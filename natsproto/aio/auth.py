"""Who we are: credentials, NKey signing, and the CONNECT document.

Signing needs Ed25519, which the standard library lacks: it comes from ``cryptography`` (extra ``nkeys``),
from PyNaCl when that is what is installed, or from a callback (hardware key, key service). Only the text
form of the keys (base32 with CRC-16) is ours.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Callable
from typing import Any

from .. import _values
from .._version import __version__
from ..errors import AuthorizationError, ConfigError, MissingExtraError
from .server_pool import Server

TokenSource = str | Callable[[], str]
SignatureCallback = Callable[[str], bytes]

_SEED_PREFIX = 18 << 3  # 'S'
_USER_PREFIX = 20 << 3  # 'U'


def _crc16(data: bytes) -> int:
    return binascii.crc_hqx(data, 0)  # CRC-16/XMODEM, as the NKey text form wants it


def decode_seed(seed: str | bytes) -> bytes:
    """Return the 32 raw bytes of an NKey user seed (``SU…``).

    Raises:
        ConfigError: wrong length, alphabet, checksum or kind. The message never holds the seed.
    """
    text = _values.text(seed).encode() if isinstance(seed, str) else _values.raw(seed)
    text = text.strip()
    try:
        raw = base64.b32decode(text + b"=" * (-len(text) % 8))
    except (binascii.Error, ValueError) as exc:
        raise ConfigError("the NKey seed is not base32 text") from exc
    if len(raw) != 36:
        raise ConfigError("the NKey seed has the wrong length: a user seed is 58 characters, SU…")
    if _crc16(raw[:-2]) != int.from_bytes(raw[-2:], "little"):
        raise ConfigError("the NKey seed has a wrong checksum")
    if raw[0] & 0xF8 != _SEED_PREFIX or ((raw[0] & 7) << 5 | raw[1] >> 3) != _USER_PREFIX:
        raise ConfigError("the NKey is not a user seed (SU…)")
    return raw[2:34]


def encode_public_key(public: bytes) -> str:
    """Return the text form (``U…``) of a raw 32-byte user public key."""
    raw = bytes([_USER_PREFIX]) + public
    return base64.b32encode(raw + _crc16(raw).to_bytes(2, "little")).decode().rstrip("=")


def _ed25519(seed: bytes) -> tuple[bytes, Callable[[bytes], bytes]]:
    try:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
    except ImportError:
        try:
            from nacl.signing import SigningKey
        except ImportError:
            raise MissingExtraError("NKey and JWT authentication need Ed25519 signatures", "nkeys") from None
        nacl_key = SigningKey(seed)
        return bytes(nacl_key.verify_key), lambda data: bytes(nacl_key.sign(data).signature)
    key = Ed25519PrivateKey.from_private_bytes(seed)
    return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw), key.sign


_BLOCK = re.compile(r"-{3,}BEGIN [^-]*-{3,}\s*(\S+)\s*-{3,}END [^-]*-{3,}")


def read_credentials(path: str | os.PathLike[str]) -> tuple[str, str]:
    """Return ``(jwt, seed)`` from a decorated ``.creds`` file.

    Raises:
        ConfigError: unreadable, or without the two blocks.
    """
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(1 << 20)
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"cannot read the credentials file {os.fspath(path)!r}: {exc}") from exc
    blocks: list[str] = _BLOCK.findall(text)
    if len(blocks) < 2:
        raise ConfigError(f"{os.fspath(path)!r} is no credentials file: it needs a JWT and a seed block")
    return blocks[0], blocks[1]


class Credentials:
    """What a client proves itself with. Nothing of it shows in ``repr``, messages or logs."""

    __slots__ = ("_creds", "_jwt", "_password", "_seed", "_sign", "_token", "_user")

    def __init__(
        self,
        *,
        user: str | None = None,
        password: str | None = None,
        token: TokenSource | None = None,
        nkey_seed: str | bytes | None = None,
        creds: str | os.PathLike[str] | None = None,
        jwt: str | None = None,
        signature_cb: SignatureCallback | None = None,
    ) -> None:
        if (user is None) != (password is None):
            raise ConfigError("user and password go together: give both or neither")
        if creds is not None and (nkey_seed is not None or jwt is not None):
            raise ConfigError("give either a credentials file or a seed/JWT, not both")
        if jwt is not None and nkey_seed is None and signature_cb is None:
            raise ConfigError("a JWT needs nkey_seed or signature_cb to sign the server's nonce")
        self._user, self._password, self._token = user, password, token
        self._seed, self._creds, self._jwt, self._sign = nkey_seed, creds, jwt, signature_cb
        if nkey_seed is not None:
            decode_seed(nkey_seed)

    def __repr__(self) -> str:
        return "<Credentials ***>"

    def connect_fields(self, server: Server, nonce: str | None) -> dict[str, Any]:
        """Return the credential fields of CONNECT for ``server`` (its URL's own win).

        Raises:
            AuthorizationError: a key is given but the server sent no nonce to sign.
            MissingExtraError: a key is given but nothing that can sign is installed.
        """
        fields: dict[str, Any] = {}
        user = server.user if server.user is not None else self._user
        password = server.password if server.user is not None else self._password
        if user is not None:
            fields["user"], fields["pass"] = user, password
        token = server.token if server.token is not None else self._token
        if token is not None:
            fields["auth_token"] = token() if callable(token) else token
        jwt, seed = self._jwt, self._seed
        if self._creds is not None:
            jwt, seed = read_credentials(self._creds)  # read at each attempt: files are rotated
        if jwt is None and seed is None and self._sign is None:
            return fields
        if nonce is None:
            if jwt is None and seed is not None:
                # A server without NKey users sends no nonce; the key cannot be proven to it.
                raise AuthorizationError("an NKey was given but the server does not ask for one (no nonce)")
            nonce = ""
        if self._sign is not None:
            signature = self._sign(nonce)
        else:
            assert seed is not None
            public, sign = _ed25519(decode_seed(seed))
            signature = sign(nonce.encode())
            if jwt is None:
                fields["nkey"] = encode_public_key(public)
        if jwt is not None:
            fields["jwt"] = jwt
        fields["sig"] = base64.urlsafe_b64encode(signature).decode().rstrip("=")
        return fields


def connect_document(
    *, name: str | None, echo: bool, pedantic: bool, tls: bool, headers: bool, credentials: dict[str, Any]
) -> dict[str, Any]:
    """Return the CONNECT document. The keys are a fixed list: nothing of the options leaks by accident."""
    document: dict[str, Any] = {
        "verbose": False,
        "pedantic": pedantic,
        "tls_required": tls,
        "lang": "python-natsproto",
        "version": __version__,
        "protocol": 1,
        "echo": echo,
        "headers": headers,
        "no_responders": headers,
    }
    if name is not None:
        document["name"] = name
    document.update(credentials)
    return document
