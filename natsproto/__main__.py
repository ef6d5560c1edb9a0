"""``python -m natsproto``: what is installed, and what is missing, for a look or for a report of a fault."""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from . import __version__
from .errors import ServerProcessError
from .server import find_server

_FOR_DEVELOPMENT = frozenset(("test", "bench", "docs", "dev"))
_REQUIREMENT = re.compile(r"""([\w.-]+)(?:\[[^\]]*\])?[^;]*;.*\bextra == ["']([\w.-]+)["']""")


def report() -> Iterator[str]:
    """Yield the lines of the report."""
    yield f"natsproto    {__version__} in {Path(__file__).parent}"
    yield f"Python       {platform.python_version()} ({platform.python_implementation()}, {sys.executable})"
    yield f"platform     {platform.platform()}"
    try:
        server = find_server()
        yield f"nats-server  {server.version} ({server.path}, from {server.origin})"
    except ServerProcessError as exc:
        yield f"nats-server  {exc}"
    try:
        requirements = metadata.requires("natsproto") or []
    except metadata.PackageNotFoundError:
        yield "extras       unknown: natsproto runs from its source, without being installed"
        return
    for extra, names in sorted(_extras(requirements).items()):
        yield f"extra {extra:<6} {', '.join(map(_installed, names))}"


def _extras(requirements: list[str]) -> dict[str, list[str]]:
    """Return the distributions that each extra for users needs."""
    found: dict[str, list[str]] = {}
    for name, extra in filter(None, map(_parsed, requirements)):
        if extra not in _FOR_DEVELOPMENT:
            found.setdefault(extra, []).append(name)
    return found


def _parsed(requirement: str) -> tuple[str, str] | None:
    match = _REQUIREMENT.match(requirement)
    return None if match is None else (match[1], match[2])


def _installed(name: str) -> str:
    try:
        return f"{name} {metadata.version(name)}"
    except metadata.PackageNotFoundError:
        return f"{name} is missing"


def main() -> None:
    """Print the report."""
    for line in report():
        print(line)


if __name__ == "__main__":
    main()
