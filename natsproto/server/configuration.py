"""The configuration text of a local server."""

from __future__ import annotations

import os
from typing import TypedDict

from ..errors import ConfigError, UnsupportedFeatureError
from .binary import ServerBinary


class TlsOptions(TypedDict, total=False):
    """The ``tls`` option of a local server."""

    cert_file: str | os.PathLike[str]
    key_file: str | os.PathLike[str]
    ca_file: str | os.PathLike[str]
    verify: bool
    handshake_first: bool


_TLS_KEYS = frozenset(TlsOptions.__annotations__)


def quote(text: str) -> str:
    """Return ``text`` as a string of the configuration language.

    Raises:
        ConfigError: it has control characters.
    """
    if any(ord(char) < 32 or ord(char) == 127 for char in text):
        raise ConfigError("control characters in a value for the server's configuration")
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def address(host: str, port: int) -> str:
    """Return ``host:port`` as in URLs and in the server's configuration."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def check_tls(tls: TlsOptions | None) -> TlsOptions | None:
    """Check the keys of the ``tls`` option and make its paths absolute.

    Raises:
        ConfigError: unknown keys, or no certificate.
    """
    if tls is None:
        return None
    if unknown := set(tls) - _TLS_KEYS:
        raise ConfigError(f"unknown tls options {sorted(unknown)}; known are {sorted(_TLS_KEYS)}")
    if not tls.get("cert_file") or not tls.get("key_file"):
        raise ConfigError("tls needs cert_file and key_file")
    checked = tls.copy()
    checked["cert_file"] = _absolute(tls["cert_file"])
    checked["key_file"] = _absolute(tls["key_file"])
    if tls.get("ca_file"):
        checked["ca_file"] = _absolute(tls["ca_file"])
    return checked


def _absolute(path: str | os.PathLike[str]) -> str:
    return os.path.abspath(os.fspath(path))


def tls_block(tls: TlsOptions, binary: ServerBinary) -> str:
    """Return the ``tls`` block.

    Raises:
        UnsupportedFeatureError: ``handshake_first`` before 2.10.4.
    """
    if tls.get("handshake_first") and binary.version_info < (2, 10, 4):
        raise UnsupportedFeatureError("TLS handshake before INFO", "2.10.4", f"this is {binary.version}")
    files = ("cert_file", "key_file", "ca_file")
    lines = [f"  {key}: {quote(str(tls.get(key)))}" for key in files if tls.get(key)]
    lines += [f"  {key}: true" for key in ("verify", "handshake_first") if tls.get(key)]
    return "\n".join(["tls {", *lines, "  timeout: 5", "}"])


def authorization_block(user: str | None, password: str | None, token: str | None) -> str:
    """Return the ``authorization`` block; empty without credentials."""
    named = [("user", user), ("password", password), ("token", token)]
    lines = [f"  {key}: {quote(value)}" for key, value in named if value is not None]
    return "\n".join(["authorization {", *lines, "}"]) if lines else ""


def jetstream_block(domain: str | None) -> str:
    """Return the ``jetstream`` block. ``max_file_store`` is large: streams reserve their ``max_bytes``."""
    lines = ["  max_file_store: 1TB"]
    if domain is not None:
        lines.append(f"  domain: {quote(domain)}")
    return "\n".join(["jetstream {", *lines, "}"])
