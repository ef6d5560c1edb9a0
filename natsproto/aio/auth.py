"""Credentials, NKey signatures, and the CONNECT document.

Signing needs Ed25519, which the standard library lacks: it comes from ``cryptography`` (extra ``nkeys``),
from PyNaCl if only that is installed, or from a callback (hardware key, key service). We implement only the
text form of the keys (base32 with CRC-16).
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import TypeVar, TypeVarTuple

from .. import _values
from .._version import __version__
from ..errors import AuthorizationError, ConfigError, MissingExtraError
from .server_pool import Server

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

TokenSource = str | bytes | Callable[[], str | bytes]
"""A secret text, or a function that returns it, called for each attempt to connect."""

SignatureCallback = Callable[[str], bytes]

_SEED_PREFIX = 18 << 3  # 'S'
_USER_PREFIX = 20 << 3  # 'U'


def _crc16(data: bytes) -> int:
    return binascii.crc_hqx(data, 0)  # CRC-16/XMODEM, the checksum of the NKey text form


def decode_seed(seed: str | bytes) -> bytes:
    """Return the 32 raw bytes of an NKey user seed (``SU…``).

    Raises:
        ConfigError: wrong length, alphabet, checksum or kind. The message never contains the seed.
    """
    # Text that is not ASCII is not a seed, but the codec's error would contain all of it.
    text = _values.text(seed).encode("ascii", "replace") if isinstance(seed, str) else _values.raw(seed)
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


_SECRET = re.compile(r"-----BEGIN |\n|\bS[AUOCNX][A-Z2-7]{40}|\beyJ[\w-]{16}")
_RUN = re.compile(r"(?<![A-Z\d])S[AUOCNX][A-Z\d]{22,}", re.ASCII | re.IGNORECASE)
_GROUPS = re.compile(r"(?<![A-Z\d])S[AUOCNX][A-Z\d]*(?:[ \t-][A-Z\d]+){2,}", re.ASCII | re.IGNORECASE)


def looks_secret(path: str | bytes | os.PathLike[str]) -> bool:
    """Whether a ``path`` is really a seed, a JWT, or the content of a key or credentials file.

    A damaged seed counts, too, unless there is a file of that name: in lower case, in groups, with a typo, or
    cut off, as long as a half of it could be enough to find the rest. No message may show such a text:
    anybody who reads it has the key.
    """
    given = os.fspath(path)
    text = given if isinstance(given, str) else given.decode("utf-8", "replace")
    if _SECRET.search(text):
        return True
    runs = _RUN.findall(text) + [_joined(groups) for groups in _GROUPS.findall(text)]
    return any(map(_like_a_seed, runs)) and not os.path.lexists(given)


def _joined(text: str) -> str:
    """Return groups of equal length as one text; ``""`` for words. The last one may be shorter."""
    groups = re.split("[ \t-]", text)
    size = len(groups[0])
    equal = all(len(group) == size for group in groups[:-1]) and len(groups[-1]) <= size
    return "".join(groups) if equal else ""


def _like_a_seed(run: str) -> bool:
    """Whether random base32 looks like that: of one case but for a typo or two, with digits all over it.

    Names made of words have their digits together; dates have 0, 1, 8 and 9, too, which base32 lacks.
    """
    lower = sum(map(str.islower, run))
    upper = sum(map(str.isupper, run))
    typos = min(lower, upper) + sum(map(run.count, "0189"))
    scattered = len(re.findall("[A-Za-z][0-9]", run))
    return len(run) >= 24 and typos <= 2 and (scattered >= 2 or len(run) >= 40)


def read_credentials(path: str | os.PathLike[str]) -> tuple[str, str]:
    """Return ``(jwt, seed)`` from a decorated ``.creds`` file.

    Raises:
        ConfigError: the file is unreadable, or lacks one of the two blocks.
    """
    try:
        with open(path, "rb") as file:
            raw = file.read(1 << 20)
    except OSError as exc:
        raise ConfigError(f"cannot read the credentials file {os.fspath(path)!r}: {exc}") from exc
    found = _jwt_and_seed(raw.decode("utf-8-sig", "replace"))  # an error would contain all of it
    if found is None:
        raise ConfigError(f"{os.fspath(path)!r} is not a credentials file: it needs a JWT and a seed block")
    return found


def _content(source: TokenSource) -> tuple[str, str]:
    """Return ``(jwt, seed)`` of ``creds_content``.

    Raises:
        ConfigError: it lacks one of the two blocks. The message never contains it.
    """
    found = _jwt_and_seed(_resolved("creds_content", source))
    if found is None:
        raise ConfigError(
            "creds_content is not what a credentials file contains: it needs a JWT and a seed block "
            "(the path of such a file is for creds=)"
        )
    return found


def _jwt_and_seed(text: str) -> tuple[str, str] | None:
    """Return what a decorated ``.creds`` text contains, ``None`` if it lacks one of the two blocks."""
    blocks = _blocks(text)
    return (blocks[0], blocks[1]) if len(blocks) >= 2 else None


def _blocks(text: str) -> list[str]:
    """Return the first line of each block between ``---BEGIN …---`` and ``---END …---``."""
    found: list[str] = []
    wanted = False
    for line in map(str.strip, text.splitlines()):
        if line.startswith("---"):
            wanted = line.lstrip("-").startswith("BEGIN ")
        elif wanted and line:
            found.append(line)
            wanted = False
    return found


def check_public_key(key: str) -> str:
    """Return the text of an NKey's public user key (``U…``).

    Raises:
        ConfigError: not a public user key. The message never contains it: it may be a seed.
    """
    if not isinstance(key, str):
        raise ConfigError("nkey must be a str: the public key of a user, U…")
    text = _values.text(key)
    if looks_secret(text):
        raise ConfigError("nkey= takes the public key (U…), and a seed was given: that is nkey_seed=")
    try:
        raw = base64.b32decode(text + "=" * (-len(text) % 8))
    except (binascii.Error, ValueError):
        raise ConfigError("nkey is not a public key: it is not base32 text") from None
    if len(raw) != 35 or raw[0] != _USER_PREFIX or _crc16(raw[:-2]) != int.from_bytes(raw[-2:], "little"):
        raise ConfigError("nkey is not a user's public key: that has 56 characters, U…")
    return text


def _resolved(what: str, source: TokenSource) -> str:
    """Return a secret: the text itself, or the result of the callable."""
    text = called(what, source) if callable(source) else source
    if isinstance(text, bytes):
        text = text.decode("utf-8-sig", "replace")  # an error would contain all of it
    if isinstance(text, str):
        return text
    raise wrong_type(what, source, text, "a str or bytes")


def wrong_type(what: str, source: object, value: object, wanted: str) -> ConfigError:
    """Return the error for an option, or the result of its callable, that is not what is wanted."""
    if isinstance(value, Coroutine):
        value.close()
    whose = f"the callable given as {what}= returned" if callable(source) else f"{what}= is"
    return ConfigError(f"{whose} {type(value).__name__}, not {wanted}")


def called(what: str, call: Callable[[*Ts], T], *args: *Ts) -> T:
    """Call a user's callable. Its exception may quote a secret: neither our text nor our chain shows it."""
    try:
        return call(*args)
    except Exception as exc:
        kind = type(exc).__name__
    raise ConfigError(
        f"the callable given as {what}= raised {kind}; its text is omitted, as it may contain a secret"
    )


@dataclass(slots=True, kw_only=True, repr=False, eq=False)
class Credentials:
    """The credentials of a client: options of :func:`natsproto.connect`.

    ``repr``, messages and logs show none of them.
    """

    user: str | None = None
    password: str | None = None
    token: TokenSource | None = None
    nkey_seed: TokenSource | None = None
    nkey: str | None = None
    creds: str | os.PathLike[str] | None = None
    creds_content: TokenSource | None = None
    jwt: TokenSource | None = None
    signature_cb: SignatureCallback | None = None

    def __post_init__(self) -> None:
        """Refuse credentials that cannot work, before anything is sent.

        Raises:
            ConfigError: an option is missing, or contradicts another one. The message contains no secret.
        """
        if self.user is None and self.password is not None:
            raise ConfigError("a password needs user=")
        for what in ("user", "password"):
            value = getattr(self, what)
            if value is not None and not isinstance(value, str):
                raise wrong_type(what, None, value, "a str")
        if self.creds is not None and self.creds_content is not None:
            raise ConfigError("give creds= (a path) or creds_content=, not both")
        creds = self.creds is not None or self.creds_content is not None
        if creds and (self.nkey_seed is not None or self.jwt is not None):
            raise ConfigError("give either credentials (creds=, creds_content=) or a seed/JWT, not both")
        if self.jwt is not None and self.nkey_seed is None and self.signature_cb is None:
            raise ConfigError("a JWT needs nkey_seed or signature_cb to sign the server's nonce")
        if self.nkey is not None and (self.signature_cb is None or self.jwt is not None):
            raise ConfigError("nkey= is the public key that signature_cb signs for, without a jwt")
        if self.signature_cb is not None and self.jwt is None and self.nkey is None and not creds:
            raise ConfigError("signature_cb needs nkey= (the public key, U…), jwt= or creds=")
        if self.creds is not None and looks_secret(self.creds):
            raise ConfigError(
                "creds= takes the path of a credentials file, but the value looks like its content: pass it "
                "as creds_content=, or write it to a file that only you can read"
            )
        if self.nkey is not None:
            self.nkey = check_public_key(self.nkey)
        for what in ("token", "jwt", "nkey_seed"):
            source: TokenSource | None = getattr(self, what)
            if source is not None and not callable(source):
                text = _resolved(what, source)
                if what == "nkey_seed":
                    decode_seed(text)
        if self.creds_content is not None and not callable(self.creds_content):
            decode_seed(_content(self.creds_content)[1])

    def __repr__(self) -> str:
        return f"<{type(self).__name__} ***>"

    def connect_fields(self, server: Server, nonce: str | None) -> dict[str, object]:
        """Return the credential fields of CONNECT: those in the server's URL, if any, else ours.

        Raises:
            AuthorizationError: a key was given, but the server sent no nonce to sign.
            MissingExtraError: a key was given, but no package that can sign is installed.
        """
        if server.user is not None:
            return {"user": server.user, "pass": server.password}
        if server.token is not None:
            return {"auth_token": server.token}
        fields: dict[str, object] = {}
        if self.user is not None:
            fields["user"] = self.user
            if self.password is not None:
                fields["pass"] = self.password
        if self.token is not None:
            fields["auth_token"] = _resolved("token", self.token)
        jwt, seed = self.jwt, self.nkey_seed
        if self.creds is not None:
            jwt, seed = read_credentials(self.creds)  # read at each attempt: files are rotated
        elif self.creds_content is not None:
            jwt, seed = _content(self.creds_content)
        if jwt is None and seed is None and self.signature_cb is None:
            return fields
        if nonce is None:
            if jwt is None:
                # A server without NKey users sends no nonce; the key cannot be proven to it.
                raise AuthorizationError("an NKey was given but the server does not ask for one (no nonce)")
            nonce = ""
        if self.signature_cb is not None:
            signature = called("signature_cb", self.signature_cb, nonce)
            if not isinstance(signature, bytes | bytearray | memoryview):
                raise ConfigError(f"signature_cb returned {type(signature).__name__}, not bytes")
            if self.nkey is not None:
                fields["nkey"] = self.nkey
        else:
            assert seed is not None
            public, sign = _ed25519(decode_seed(_resolved("nkey_seed", seed)))
            signature = sign(nonce.encode())
            if jwt is None:
                fields["nkey"] = encode_public_key(public)
        if jwt is not None:
            fields["jwt"] = _resolved("jwt", jwt).strip()
        fields["sig"] = base64.urlsafe_b64encode(signature).decode().rstrip("=")
        return fields


def connect_document(
    *,
    name: str | None,
    echo: bool,
    verbose: bool,
    pedantic: bool,
    tls: bool,
    headers: bool,
    credentials: dict[str, object],
) -> dict[str, object]:
    """Return the CONNECT document. Its keys are a fixed list, so no option leaks by accident."""
    document: dict[str, object] = {
        "verbose": verbose,
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
