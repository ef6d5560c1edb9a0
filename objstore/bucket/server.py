"""What the server says about itself: its version, and the domain of a stream."""

from __future__ import annotations

import re

from natsproto.aio.client import Client
from natsproto.jetstream.api.models import StreamInfo


def told_in_clear(client: Client) -> bool:
    """Whether INFO came before TLS, so that an attacker may have written it."""
    session = client.connection.session
    return session is not None and session.info_in_clear


_VERSION = re.compile(r"(\d{1,9})\.(\d{1,9})(?!\d)(?:\.(\d{1,9})(?!\d))?", re.ASCII)


def server_version(client: Client) -> tuple[int, int, int] | None:
    """Return the version of the current server; ``None`` when it reports no valid one."""
    found = _VERSION.match(str(client.server_info.get("version", "")))
    if found is None:
        return None
    major, minor, patch = found.groups("0")
    return int(major), int(minor), int(patch)


def domain_of(info: StreamInfo) -> str | None:
    """Return the JetStream domain of a stream, as its leader reports it; ``None`` = none."""
    domain = info.raw.get("domain")
    return domain if isinstance(domain, str) and domain else None


def domain_text(domain: str | None) -> str:
    """Return a domain in words."""
    return "no domain" if domain is None else f"domain {domain!r}"
