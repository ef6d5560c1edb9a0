"""Turn an exception into one line (cause and remedy) and an exit code, see ``objstore.errors.exit_code``."""

from __future__ import annotations

import os

from .output import CommandError

SEVERAL_LINES = 400
"""Characters kept of a message with several lines (the log of a server that did not start)."""


def failure(exc: BaseException) -> tuple[str, int]:
    """Return the line to print, without the command's name, and the exit code."""
    if isinstance(exc, CommandError):
        return str(exc), exc.code
    if isinstance(exc, KeyboardInterrupt):
        return "interrupted", 130
    from natsproto.errors import NatsError

    if isinstance(exc, NatsError):
        from objstore.errors import exit_code

        return _of_ours(exc), exit_code(exc)
    if isinstance(exc, OSError) and exc.strerror:
        files = [os.fsdecode(name) for name in (exc.filename, exc.filename2) if name is not None]
        return (f"{', '.join(map(repr, files))}: " if files else "") + exc.strerror.lower(), 1
    text = " ".join(str(exc).split())
    return f"internal error: {type(exc).__name__}: {text} (--trace shows where)", 1


def _of_ours(exc: Exception) -> str:
    from natsproto.errors import (
        AuthorizationError,
        ConnectionClosedError,
        NoServersError,
        PermissionsViolationError,
        RequestTimeoutError,
        StaleConnectionError,
    )
    from objstore.errors import (
        BucketNotFoundError,
        IntegrityError,
        ObjectDeletedError,
        ObjectNotFoundError,
        OutcomeUnknownError,
        StoreFullError,
    )

    text = _one_line(str(exc))
    if isinstance(exc, NoServersError):
        return _unreachable(exc.attempts)
    if isinstance(exc, BucketNotFoundError):
        return f"{text}. List buckets with: objstore ls, create it with: objstore bucket add {exc.bucket}"
    if isinstance(exc, ObjectNotFoundError):
        hint = "" if isinstance(exc, ObjectDeletedError) else f". List names with: objstore ls {exc.bucket}"
        return text + hint
    if isinstance(exc, AuthorizationError):
        return f"{text}. Check --user with --password-file, --token, --creds, or the context"
    if isinstance(exc, PermissionsViolationError):
        return f"{text}. Ask for the permission, or use other credentials"
    if isinstance(exc, StaleConnectionError | ConnectionClosedError):
        return f"{text}. Run the command again when the server is back; put and get continue with: --resume"
    if isinstance(exc, OutcomeUnknownError):
        return f"{text}. Check with: objstore info {exc.bucket} NAME"
    if isinstance(exc, RequestTimeoutError):
        return f"{text}. Try again, or allow more with: --timeout 30s"
    if isinstance(exc, IntegrityError):
        return f"{text}. Store it again"
    if isinstance(exc, StoreFullError):
        return f"{text}. Delete objects, or raise the bucket's limit"
    return text


def _unreachable(attempts: list[tuple[str, BaseException]]) -> str:
    from ssl import SSLError

    from natsproto.aio.session import describe

    tried = ", ".join(f"{url} ({_one_line(describe(reason))})" for url, reason in attempts)
    remedy = "Start one with: objstore server, or: nats-server -js; use a private one with: --local DIR; or "
    remedy += "try: objstore demo"
    if attempts and all(isinstance(reason, SSLError) for _, reason in attempts):
        remedy = "Name the certificates to trust with: --tlsca FILE"
    return f"cannot reach {tried or 'any server'}. {remedy}"


def _one_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(lines) < 2:
        return text.strip()
    rest = " | ".join(lines[1:])
    return f"{lines[0]} {rest if len(rest) <= SEVERAL_LINES else '… ' + rest[-SEVERAL_LINES:]}"
