"""HTTP headers for the opening handshake of a WebSocket, as proxies in front of a server may want them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from .. import _values
from ..errors import ConfigError
from .auth import called, wrong_type

HandshakeHeaders = Mapping[str, str | Sequence[str]]
"""Names with one value or several."""

HandshakeHeadersSource = HandshakeHeaders | Callable[[], HandshakeHeaders]
"""Headers, or a function that returns them, called for each attempt to connect."""

_OPTION = "ws_connection_headers"
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""A token of RFC 9110."""

_VALUE = re.compile(r"[\t\x20-\x7e]*")
_OWN = ("host", "connection", "upgrade", "content-length", "transfer-encoding")
"""Names, besides ``Sec-WebSocket-…``, whose values belong to the handshake."""


def check_headers(source: HandshakeHeadersSource | None) -> None:
    """Refuse headers that cannot be sent, before anything is; what a callable returns is checked later.

    Raises:
        ConfigError: see :func:`headers_of`.
    """
    if source is not None and not callable(source):
        headers_of(source)


def headers_of(source: HandshakeHeadersSource | None) -> list[tuple[str, str]]:
    """Return the headers to send, in their order, each value with its name.

    Raises:
        ConfigError: a name is not a token or belongs to the handshake, a value is not printable ASCII, or it
            is not a mapping of names to values. The message contains no value: it may be a secret.
    """
    if source is None:
        return []
    given = called(_OPTION, source) if callable(source) else source
    if not isinstance(given, Mapping):
        raise wrong_type(_OPTION, source, given, "a mapping")
    headers: list[tuple[str, str]] = []
    for key, value in given.items():
        name = _checked_name(key)
        values = [value] if isinstance(value, str) or not isinstance(value, Sequence) else value
        headers.extend((name, _checked_value(name, each)) for each in values)
    return headers


def _checked_name(name: object) -> str:
    text = _values.text(name) if isinstance(name, str) else ""
    if not _NAME.fullmatch(text):
        # Not quoted: somebody may have mixed up name and value.
        raise ConfigError(f"{_OPTION}: a name is a token of HTTP, such as X-Client-Id")
    if text.lower() in _OWN or text.lower().startswith("sec-websocket-"):
        raise ConfigError(f"{_OPTION}: {text} belongs to the handshake itself")
    return text


def _checked_value(name: str, value: object) -> str:
    text = _values.text(value) if isinstance(value, str) else "\n"
    if not _VALUE.fullmatch(text):
        raise ConfigError(
            f"{_OPTION}: the value of {name} must be a str of printable ASCII, or a list of them"
        )
    return text
