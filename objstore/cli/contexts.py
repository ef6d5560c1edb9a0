"""Read the contexts of the ``nats`` command (ADR-21).

A context is ``$XDG_CONFIG_HOME/nats/context/NAME.json``; ``nats/context.txt`` names the selected one. It is
used as a whole or not at all: a context with a field that cannot be honoured here is refused.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from .output import CommandError

MAX_BYTES = 1 << 20
"""Bytes read of a context file."""

_PATHS = ("creds", "nkey", "cert", "key", "ca")
_TEXTS = (
    "url",
    "user",
    "password",
    "token",
    "user_jwt",
    "user_seed",
    "inbox_prefix",
    "jetstream_domain",
    "jetstream_api_prefix",
)

_IGNORED = ("name", "description", "color_scheme", "jetstream_event_prefix")
"""Fields that change nothing here: for people, and for advisories, which are not read."""

_REFUSED = {
    "nsc": "it asks the tool nsc: name the server and the credentials file in the context instead",
    "socks_proxy": "a proxy is not supported, and nothing goes around it",
    "windows_cert_store": "only files hold certificates: use cert, key and ca",
    "windows_cert_match": "only files hold certificates: use cert, key and ca",
    "windows_cert_match_by": "only files hold certificates: use cert, key and ca",
    "windows_ca_certs_match": "only files hold certificates: use cert, key and ca",
}
"""Fields of the nats command that cannot be honoured, and what to do."""

_IDENTITIES = ("user", "creds", "nkey", "user_jwt", "token")
"""Credentials in the order in which the first one counts."""


def context_directory(environ: Mapping[str, str]) -> str:
    """Return the directory that holds ``context/`` and ``context.txt``."""
    base = environ.get("XDG_CONFIG_HOME") or os.path.join(os.path.expanduser("~"), ".config")
    return os.path.join(base, "nats")


def selected_context(environ: Mapping[str, str]) -> str | None:
    """Return the name in ``NATS_CONTEXT``, else the one set by ``nats context select``, else ``None``."""
    if environ.get("NATS_CONTEXT"):
        return environ["NATS_CONTEXT"]
    try:
        with open(os.path.join(context_directory(environ), "context.txt"), encoding="utf-8") as file:
            return file.read(4096).strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def context_path(name: str, environ: Mapping[str, str]) -> str:
    """Return the path of a context's file."""
    return os.path.join(context_directory(environ), "context", f"{name}.json")


def load_context(name: str, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the fields of a context that this command knows: non-empty texts, with paths expanded.

    Of several credentials only the first counts: user, creds, nkey, JWT, token.

    Raises:
        CommandError: the name is not valid, the context does not exist, its file cannot be read, or it has a
            field that cannot be honoured; exit code 2.
    """
    from natsproto.aio.auth import looks_secret

    path = context_path(name, environ)
    if looks_secret(path):
        raise CommandError(
            "the name of the context looks like a seed or credentials: --context and NATS_CONTEXT take the "
            "name of a context (and if others could see it here, replace the key)",
            2,
        )
    if not name or name.startswith(".") or "/" in name or "\\" in name or "\0" in name:
        raise CommandError(f"{name!r} is not a valid context name", 2)
    document = _read(name, path)

    def unusable(why: str) -> CommandError:
        return CommandError(f"context {name!r} cannot be used: {why} in {path!r}", 2)

    for key, value in document.items():
        if key in (*_TEXTS, *_PATHS, *_IGNORED, "tls_first") or value in (None, "", False, [], {}):
            continue
        raise unusable(f"{key!r} ({_REFUSED.get(key, 'which this version does not know')})")
    fields: dict[str, str] = {}
    for key in (*_TEXTS, *_PATHS):
        value = document.get(key)
        if value is None or value == "":
            continue
        if not isinstance(value, str):
            raise unusable(f"{key!r} is not a string")
        if value.startswith("op://"):
            raise unusable(f"{key!r} is a secret of 1Password, which is not asked for it,")
        fields[key] = os.path.expanduser(os.path.expandvars(value)) if key in _PATHS else value
    if document.get("tls_first") not in (None, False, True):
        raise unusable("'tls_first' is not true or false")
    if document.get("tls_first"):
        fields["tls_first"] = "true"
    for other in [key for key in _IDENTITIES if key in fields][1:]:
        del fields[other]
    return fields


def _read(name: str, path: str) -> dict[str, object]:
    import json

    try:
        with open(path, "rb") as file:
            document = json.loads(file.read(MAX_BYTES))
    except FileNotFoundError:
        raise CommandError(f"context {name!r} does not exist: no file {path!r}", 2) from None
    except OSError as exc:
        raise CommandError(f"context {name!r} cannot be used: {path!r}: {exc.strerror or exc}", 2) from exc
    except (ValueError, RecursionError) as exc:
        why = f"{path!r} is not JSON ({exc}): mend the file, or choose another context"
        raise CommandError(f"context {name!r} cannot be used: {why}", 2) from exc
    if not isinstance(document, dict):
        raise CommandError(f"context {name!r} cannot be used: {path!r} is not a JSON object", 2)
    return document
