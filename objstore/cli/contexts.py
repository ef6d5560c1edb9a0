"""Read the contexts of the ``nats`` command (ADR-21).

A context is ``$XDG_CONFIG_HOME/nats/context/NAME.json``; ``nats/context.txt`` names the selected one.
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
    "inbox_prefix",
    "jetstream_domain",
    "jetstream_api_prefix",
)


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

    Of several credentials only the first counts: user, creds, nkey, token.

    Raises:
        CommandError: the name is not valid, the context does not exist, or its file cannot be read; exit
            code 2.
    """
    if not name or name.startswith(".") or "/" in name or "\\" in name or "\0" in name:
        raise CommandError(f"{name!r} is not a valid context name", 2)
    path = context_path(name, environ)
    document = _read(name, path)
    fields: dict[str, str] = {}
    for key in (*_TEXTS, *_PATHS):
        value = document.get(key)
        if value is None or value == "":
            continue
        if not isinstance(value, str):
            raise CommandError(f"context {name!r} cannot be used: {key!r} is not a string in {path!r}", 2)
        fields[key] = os.path.expanduser(os.path.expandvars(value)) if key in _PATHS else value
    if document.get("tls_first") is True:
        fields["tls_first"] = "true"
    for key in ("user", "creds", "nkey", "token"):
        if key in fields:
            for other in {"user", "creds", "nkey", "token"} - {key}:
                fields.pop(other, None)
            break
    return fields


def _read(name: str, path: str) -> dict[str, object]:
    import json

    try:
        with open(path, "rb") as file:
            document = json.loads(file.read(MAX_BYTES))
    except FileNotFoundError:
        raise CommandError(f"context {name!r} does not exist: no file {path!r}", 2) from None
    except (OSError, ValueError, RecursionError) as exc:
        raise CommandError(f"context {name!r} cannot be used: {path!r}: {exc}", 2) from exc
    if not isinstance(document, dict):
        raise CommandError(f"context {name!r} cannot be used: {path!r} is not a JSON object", 2)
    return document
